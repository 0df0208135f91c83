package grammar

/*
#cgo LDFLAGS: -L${SRCDIR}/../../.cache/lib -ltokenizers -ldl -lm -lstdc++
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *pagoda_vocabulary_open(const uint8_t *bytes, const uint32_t *lengths, size_t count, char **error);
void pagoda_vocabulary_free(void *vocabulary);
void *pagoda_grammar_compile(const void *vocabulary, uint32_t kind, const uint8_t *text, size_t len, size_t *bytes, char **error);
void pagoda_grammar_free(void *grammar);
void *pagoda_matcher_new(const void *grammar, char **error);
bool pagoda_matcher_mask(void *matcher, uint32_t *words, size_t count, uint32_t *flags, char **error);
bool pagoda_matcher_accept(void *matcher, uint32_t id, char **error);
void pagoda_matcher_free(void *matcher);
void tokenizers_free_string(char *error);
*/
import "C"

import (
	"errors"
	"runtime"
	"strings"
	"unsafe"
)

// Tokens is what a Vocabulary is made of; *tokenizer.Tokenizer is one.
type Tokens interface {
	VocabSize() int
	TokenBytes(id int32) string
	TokenString(id int32) string
	IsSpecial(id int32) bool
}

// Vocabulary is the tokens of a tokenizer. It is safe for concurrent use.
type Vocabulary struct {
	ptr  unsafe.Pointer
	size int
}

// maxTokenBytes is the longest token that the trie takes. Longer ones are not
// allowed anywhere.
const maxTokenBytes = 1000

// specialMark begins the bytes of a special token; no UTF-8 text has it.
const specialMark = "\xff"

// NewVocabulary reads all tokens of t.
func NewVocabulary(t Tokens) (*Vocabulary, error) {
	n := t.VocabSize()
	if n == 0 {
		return nil, errors.New("grammar: the vocabulary is empty")
	}
	var all []byte
	lengths := make([]uint32, n)
	for id := range n {
		word := t.TokenBytes(int32(id))
		switch {
		case t.IsSpecial(int32(id)):
			word = specialMark + t.TokenString(int32(id))
		case strings.Contains(word, specialMark):
			word = ""
		}
		if len(word) > maxTokenBytes {
			word = ""
		}
		all, lengths[id] = append(all, word...), uint32(len(word))
	}
	var message *C.char
	ptr := C.pagoda_vocabulary_open((*C.uint8_t)(unsafe.SliceData(all)), (*C.uint32_t)(unsafe.SliceData(lengths)), C.size_t(n), &message)
	if ptr == nil {
		return nil, takeError(message)
	}
	v := &Vocabulary{ptr: ptr, size: n}
	runtime.AddCleanup(v, func(ptr unsafe.Pointer) { C.pagoda_vocabulary_free(ptr) }, ptr)
	return v, nil
}

// Size is the number of ids.
func (v *Vocabulary) Size() int { return v.size }

// Grammar is a compiled Spec. It is safe for concurrent use.
type Grammar struct {
	ptr   unsafe.Pointer
	bytes int // of memory, about
}

// Compile compiles a Spec. It takes milliseconds for most; Compiler bounds it. The
// error is for whoever wrote the Spec.
func (v *Vocabulary) Compile(s Spec) (*Grammar, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	var message *C.char
	var bytes C.size_t
	ptr := C.pagoda_grammar_compile(v.ptr, C.uint32_t(s.Kind), (*C.uint8_t)(unsafe.StringData(s.Text)), C.size_t(len(s.Text)), &bytes, &message)
	runtime.KeepAlive(v)
	if ptr == nil {
		return nil, takeError(message)
	}
	g := &Grammar{ptr: ptr, bytes: int(bytes) + len(s.Text)}
	runtime.AddCleanup(g, func(ptr unsafe.Pointer) { C.pagoda_grammar_free(ptr) }, ptr)
	return g, nil
}

// Matcher follows one output. It has one user at a time and is closed by it.
type Matcher struct{ ptr unsafe.Pointer }

// NewMatcher starts an output.
func (g *Grammar) NewMatcher() (*Matcher, error) {
	var message *C.char
	ptr := C.pagoda_matcher_new(g.ptr, &message)
	runtime.KeepAlive(g)
	if ptr == nil {
		return nil, takeError(message)
	}
	return &Matcher{ptr}, nil
}

// Mask sets the bit of each id that may come next, id's being bit id%32 of
// words[id/32], and clears all others; words that the vocabulary does not reach are
// 0. mayEnd says that the output is whole as it is, mustEnd that nothing can come
// after it.
func (m *Matcher) Mask(words []uint32) (mayEnd, mustEnd bool, err error) {
	var message *C.char
	var flags C.uint32_t
	if !C.pagoda_matcher_mask(m.ptr, (*C.uint32_t)(unsafe.SliceData(words)), C.size_t(len(words)), &flags, &message) {
		return false, false, takeError(message)
	}
	return flags&1 != 0, flags&2 != 0, nil
}

// Accept takes the id that came, one that Mask allowed. After an error the Matcher
// can only be closed.
func (m *Matcher) Accept(id int32) error {
	var message *C.char
	if !C.pagoda_matcher_accept(m.ptr, C.uint32_t(id), &message) {
		return takeError(message)
	}
	return nil
}

// Close frees the Matcher; it may be called twice.
func (m *Matcher) Close() {
	if m.ptr != nil {
		C.pagoda_matcher_free(m.ptr)
		m.ptr = nil
	}
}

func takeError(message *C.char) error {
	if message == nil {
		return errors.New("the grammar library gave no reason")
	}
	defer C.tokenizers_free_string(message)
	return errors.New(C.GoString(message))
}
