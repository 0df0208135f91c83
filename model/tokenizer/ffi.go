package tokenizer

/*
#cgo LDFLAGS: -L${SRCDIR}/../../.cache/lib -ltokenizers -ldl -lm -lstdc++
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct { uint8_t *data; size_t len; } pagoda_buffer;

void *pagoda_tokenizer_open(const uint8_t *bytes, size_t len, char **error);
int64_t pagoda_tokenizer_size(const uint8_t *bytes, size_t len);
bool pagoda_tokenizer_encode(const void *handle, const uint8_t *text, size_t len,
	const size_t *literals, size_t n_literals, bool post_process,
	pagoda_buffer *out, char **error);
bool pagoda_tokenizer_vocab(const void *handle, pagoda_buffer *out, char **error);
int64_t pagoda_tokenizer_id(const void *handle, const uint8_t *token, size_t len);
void pagoda_buffer_free(pagoda_buffer buffer);

void tokenizers_free_tokenizer(void *handle);
void tokenizers_free_string(char *error);
*/
import "C"

import (
	"encoding/binary"
	"errors"
	"runtime"
	"unsafe"

	// Links the library and refuses, at link time, one of another version. Its
	// Go calls are not used: they pass NUL-terminated text, which would cut a
	// prompt at U+0000, and hide encoding errors behind an empty result.
	_ "github.com/daulet/tokenizers"
)

// handle owns one Rust tokenizer. The methods are the exports of
// third_party/tokenizers-ffi, which documents them.
type handle struct {
	ptr     unsafe.Pointer
	cleanup runtime.Cleanup // frees ptr when nobody called free
}

func openHandle(data []byte) (*handle, error) {
	var message *C.char
	ptr := C.pagoda_tokenizer_open((*C.uint8_t)(unsafe.SliceData(data)), C.size_t(len(data)), &message)
	if ptr == nil {
		return nil, takeError(message)
	}
	h := &handle{ptr: ptr}
	h.cleanup = runtime.AddCleanup(h, freePointer, ptr)
	return h, nil
}

// peekSize is negative where the size cannot be told.
func peekSize(data []byte) int64 {
	return int64(C.pagoda_tokenizer_size((*C.uint8_t)(unsafe.SliceData(data)), C.size_t(len(data))))
}

func freePointer(ptr unsafe.Pointer) { C.tokenizers_free_tokenizer(ptr) }

// free must be called once, and no other method after it.
func (h *handle) free() {
	h.cleanup.Stop()
	freePointer(h.ptr)
	h.ptr = nil
}

func (h *handle) encode(text string, literals [][2]int, postProcess bool) ([]int32, error) {
	var out C.pagoda_buffer
	var message *C.char
	ok := C.pagoda_tokenizer_encode(h.ptr,
		(*C.uint8_t)(unsafe.StringData(text)), C.size_t(len(text)),
		(*C.size_t)(unsafe.Pointer(unsafe.SliceData(literals))), C.size_t(len(literals)),
		C.bool(postProcess), &out, &message)
	runtime.KeepAlive(h)
	if !ok {
		return nil, takeError(message)
	}
	defer C.pagoda_buffer_free(out)
	raw := unsafe.Slice((*byte)(out.data), int(out.len))
	ids := make([]int32, len(raw)/4)
	for i := range ids {
		ids[i] = int32(binary.NativeEndian.Uint32(raw[4*i:]))
	}
	return ids, nil
}

// token is one vocabulary entry as Rust reports it.
type token struct {
	id             uint32
	added, special bool
	spelling       string
}

func (h *handle) vocab() ([]token, error) {
	var out C.pagoda_buffer
	var message *C.char
	ok := C.pagoda_tokenizer_vocab(h.ptr, &out, &message)
	runtime.KeepAlive(h)
	if !ok {
		return nil, takeError(message)
	}
	defer C.pagoda_buffer_free(out)
	// One copy; the spellings are substrings of it.
	raw := string(unsafe.Slice((*byte)(out.data), int(out.len)))
	word := func(at int) uint32 { return binary.NativeEndian.Uint32([]byte(raw[at : at+4])) }
	var tokens []token
	for at := 0; at < len(raw); {
		id, flags, length := word(at), word(at+4), int(word(at+8))
		at += 12
		tokens = append(tokens, token{id, flags&1 != 0, flags&2 != 0, raw[at : at+length]})
		at += length
	}
	return tokens, nil
}

func (h *handle) id(spelling string) (int32, bool) {
	id := C.pagoda_tokenizer_id(h.ptr, (*C.uint8_t)(unsafe.StringData(spelling)), C.size_t(len(spelling)))
	runtime.KeepAlive(h)
	return int32(id), id >= 0
}

func takeError(message *C.char) error {
	if message == nil {
		return errors.New("tokenizer library gave no reason")
	}
	defer C.tokenizers_free_string(message)
	return errors.New(C.GoString(message))
}
