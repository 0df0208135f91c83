package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Decode returns the text of ids. With skipSpecial, tokens marked special in
// tokenizer.json are left out.
func (v *vocabulary) Decode(ids []int32, skipSpecial bool) string {
	d := Decoder{vocab: v, skipSpecial: skipSpecial}
	var text strings.Builder
	for _, id := range ids {
		text.WriteString(d.Next(id))
	}
	text.WriteString(d.Flush())
	return text.String()
}

// Decoder decodes one sequence id by id. It holds back at most three bytes: a
// character whose rest may come with the next id.
type Decoder struct {
	vocab       *vocabulary
	skipSpecial bool
	held        [utf8.UTFMax - 1]byte // a proper prefix of a character
	heldLen     int
}

// NewDecoder starts a sequence.
func (v *vocabulary) NewDecoder(skipSpecial bool) *Decoder {
	return &Decoder{vocab: v, skipSpecial: skipSpecial}
}

// Next returns the text that id completes, "" if there is none. It allocates
// only around a held or an invalid byte.
func (d *Decoder) Next(id int32) string {
	if d.skipSpecial && d.vocab.IsSpecial(id) {
		return ""
	}
	bytes := d.vocab.TokenBytes(id)
	if d.heldLen == 0 && utf8.ValidString(bytes) {
		return bytes
	}
	pending := string(d.held[:d.heldLen]) + bytes
	tail := len(pending) - incompleteSuffix(pending)
	d.heldLen = copy(d.held[:], pending[tail:])
	return lossy(pending[:tail])
}

// Flush ends the sequence: a character that was never completed comes out as
// U+FFFD. The Decoder may then start another sequence.
func (d *Decoder) Flush() string {
	held := string(d.held[:d.heldLen])
	d.heldLen = 0
	return lossy(held)
}

// incompleteSuffix returns the length, 0 to 3, of the longest suffix of s that
// is a proper prefix of some character.
func incompleteSuffix(s string) int {
	for n := 1; n < utf8.UTFMax && n <= len(s); n++ {
		end := s[len(s)-n:]
		if !utf8.RuneStart(end[0]) {
			continue
		}
		if length, valid := characterAt(end); !valid && length == n && n < characterLength(end[0]) {
			return n
		}
		return 0
	}
	return 0
}

// lossy replaces each maximal invalid part of s by U+FFFD. (Go's own
// conversions replace each invalid byte.)
func lossy(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var out strings.Builder
	for len(s) > 0 {
		n, valid := characterAt(s)
		if valid {
			out.WriteString(s[:n])
		} else {
			out.WriteRune(utf8.RuneError)
		}
		s = s[n:]
	}
	return out.String()
}

// characterAt returns the length of the character that s begins with, or of the
// maximal part of one, at least one byte, when it is invalid.
func characterAt(s string) (length int, valid bool) {
	lead := s[0]
	want := characterLength(lead)
	low, high := byte(0x80), byte(0xBF) // of the second byte: Unicode, table 3-7
	switch lead {
	case 0xE0:
		low = 0xA0 // no overlong form
	case 0xED:
		high = 0x9F // no surrogate
	case 0xF0:
		low = 0x90
	case 0xF4:
		high = 0x8F // nothing above U+10FFFF
	}
	for length = 1; length < want; length++ {
		if length == len(s) || s[length] < low || s[length] > high {
			return length, false
		}
		low, high = 0x80, 0xBF
	}
	return length, want > 0
}

// characterLength returns how many bytes a character with this first byte has;
// 0 when none begins so.
func characterLength(lead byte) int {
	switch {
	case lead < 0x80:
		return 1
	case lead < 0xC2:
		return 0
	case lead < 0xE0:
		return 2
	case lead < 0xF0:
		return 3
	case lead < 0xF5:
		return 4
	default:
		return 0
	}
}
