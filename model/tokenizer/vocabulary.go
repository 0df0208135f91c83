package tokenizer

import (
	"fmt"
	"strings"
)

// maxVocab bounds the dense tables below; a file may name any 32-bit id.
const maxVocab = 1 << 22

// vocabulary is everything about ids that does not need Rust: for each id its
// spelling in the file, the bytes it decodes to, and whether it is special.
type vocabulary struct {
	spelling    []string // "" where the file has no such id
	bytes       []string // substrings of one blob
	special     []bool
	addedTokens []string
}

func newVocabulary(tokens []token) (*vocabulary, error) {
	if len(tokens) == 0 {
		return nil, fmt.Errorf("the vocabulary is empty")
	}
	last := tokens[len(tokens)-1]
	if last.id >= maxVocab {
		return nil, fmt.Errorf("token %q has id %d, more than the %d supported", last.spelling, last.id, maxVocab)
	}
	n := int(last.id) + 1
	v := &vocabulary{spelling: make([]string, n), bytes: make([]string, n), special: make([]bool, n)}
	var blob strings.Builder
	end := make([]int, len(tokens))
	for i, t := range tokens {
		writeTokenBytes(&blob, t.spelling)
		end[i] = blob.Len()
	}
	all, start := blob.String(), 0
	for i, t := range tokens {
		v.spelling[t.id], v.bytes[t.id], v.special[t.id] = t.spelling, all[start:end[i]], t.special
		start = end[i]
		if t.added && strings.TrimSpace(t.spelling) != "" {
			v.addedTokens = append(v.addedTokens, t.spelling)
		}
	}
	return v, nil
}

// byteOfRune inverts GPT-2's bytes_to_unicode: bytes that print in Latin-1 stand
// for themselves, the 68 others are U+0100 onwards in order. −1: no byte.
var byteOfRune = func() (table [0x144]int16) {
	for r := range table {
		table[r] = -1
	}
	next := 0x100
	for b := range 0x100 {
		if '!' <= b && b <= '~' || 0xA1 <= b && b <= 0xAC || 0xAE <= b {
			table[b] = int16(b)
		} else {
			table[next] = int16(b)
			next++
		}
	}
	return table
}()

// writeTokenBytes decodes one spelling as the ByteLevel decoder does: by the
// table when every rune is in it, else (an added token with a space, say) as
// its own UTF-8.
func writeTokenBytes(out *strings.Builder, spelling string) {
	for _, r := range spelling {
		if int(r) >= len(byteOfRune) || byteOfRune[r] < 0 {
			out.WriteString(spelling)
			return
		}
	}
	for _, r := range spelling {
		out.WriteByte(byte(byteOfRune[r]))
	}
}

func (v *vocabulary) has(id int32) bool { return id >= 0 && int(id) < len(v.bytes) }

// VocabSize is one more than the largest id, added tokens included. The model
// may have more rows; the ids of those decode to nothing.
func (v *vocabulary) VocabSize() int { return len(v.bytes) }

// TokenBytes returns the bytes that id decodes to; they need not be UTF-8 by
// themselves. "" for an id outside the vocabulary.
func (v *vocabulary) TokenBytes(id int32) string {
	if !v.has(id) {
		return ""
	}
	return v.bytes[id]
}

// TokenString returns the spelling of id in tokenizer.json ("Ġhello"), or "".
func (v *vocabulary) TokenString(id int32) string {
	if !v.has(id) {
		return ""
	}
	return v.spelling[id]
}

// IsSpecial reports whether skipSpecial leaves id out (`"special": true`).
func (v *vocabulary) IsSpecial(id int32) bool { return v.has(id) && v.special[id] }
