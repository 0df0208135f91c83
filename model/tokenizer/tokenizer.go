package tokenizer

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"unicode/utf8"
)

// MaxTextBytes is the longest text that the Encode methods take. Encoding is
// linear in practice, one unbroken megabyte of "a", "_", emoji or white space
// included (measured 0.3 to 0.8 µs a byte), so the cap bounds a call to a few
// seconds. A server should set a lower one from its model length.
const MaxTextBytes = 4 << 20

// errClosed is what every method that encodes returns after Close.
var errClosed = errors.New("tokenizer is closed")

// Tokenizer is one opened tokenizer.json. It is safe for concurrent use.
type Tokenizer struct {
	mu   sync.RWMutex // held shared while C reads the handle
	rust *handle      // nil after Close
	*vocabulary
}

// Open reads dir/tokenizer.json. The error names the file.
func Open(dir string) (*Tokenizer, error) {
	data, err := ReadFile(dir)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	t, err := New(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "tokenizer.json"), err)
	}
	return t, nil
}

// New builds a Tokenizer from the contents of a tokenizer.json file. The file
// is tried before New returns; one that fails is an error, never an abort.
func New(data []byte) (*Tokenizer, error) {
	rust, err := openHandle(data)
	if err != nil {
		return nil, fmt.Errorf("not a usable tokenizer.json: %w", err)
	}
	tokens, err := rust.vocab()
	if err == nil {
		var v *vocabulary
		if v, err = newVocabulary(tokens); err == nil {
			return &Tokenizer{rust: rust, vocabulary: v}, nil
		}
	}
	rust.free()
	return nil, fmt.Errorf("not a usable tokenizer.json: %w", err)
}

// PeekVocabSize guesses what VocabSize of New(data) will be, in a fraction of its time;
// 0 where data does not say. A file that contradicts itself makes the guess wrong.
func PeekVocabSize(data []byte) int {
	n := peekSize(data)
	if n < 0 || n > maxVocab {
		return 0
	}
	return int(n)
}

// Close frees the Rust side. Decoding still works afterwards, encoding fails.
func (t *Tokenizer) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rust != nil {
		t.rust.free()
		t.rust = nil
	}
}

// Encode returns the ids of a raw prompt: text that spells an added token
// becomes that token, and what the file's post-processor adds (a BOS token in
// some models, nothing in Qwen2.5) is added. Text must be UTF-8.
func (t *Tokenizer) Encode(text string) ([]int32, error) {
	return t.encode(text, nil, true)
}

// EncodePlain returns the ids of text that is only data: added tokens are not
// parsed and nothing is added.
func (t *Tokenizer) EncodePlain(text string) ([]int32, error) {
	if text == "" {
		return []int32{}, nil
	}
	return t.encode(text, [][2]int{{0, len(text)}}, false)
}

// EncodeRendered returns the ids of a rendered chat template. The byte ranges
// [start, end) of literal are text of the client: an added token that touches
// one of them, or has an empty one inside it, is encoded as plain text. The
// ranges ascend and are disjoint. With no range, added tokens are parsed
// everywhere. Nothing is added: a template writes its own BOS.
func (t *Tokenizer) EncodeRendered(text string, literal [][2]int) ([]int32, error) {
	end := 0
	for i, r := range literal {
		if r[0] < end || r[1] < r[0] || r[1] > len(text) {
			panic(fmt.Sprintf("tokenizer: literal range %d is [%d, %d) in %d bytes, after %d", i, r[0], r[1], len(text), end))
		}
		end = r[1]
	}
	return t.encode(text, literal, false)
}

func (t *Tokenizer) encode(text string, literal [][2]int, postProcess bool) ([]int32, error) {
	if len(text) > MaxTextBytes {
		return nil, fmt.Errorf("text is %d bytes, more than the %d that can be encoded at once", len(text), MaxTextBytes)
	}
	if !utf8.ValidString(text) {
		return nil, errors.New("text is not valid UTF-8")
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.rust == nil {
		return nil, errClosed
	}
	ids, err := t.rust.encode(text, literal, postProcess)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return ids, nil
}

// ID returns the id of a token by its spelling in the vocabulary
// ("<|im_end|>", "Ġhello").
func (t *Tokenizer) ID(spelling string) (int32, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.rust == nil {
		return 0, false
	}
	return t.rust.id(spelling)
}

// AddedTokens returns the texts of the added tokens, special or not, in order
// of their ids. Tokens of white space alone are left out: they are plain
// vocabulary and control nothing.
func (t *Tokenizer) AddedTokens() []string { return slices.Clone(t.addedTokens) }
