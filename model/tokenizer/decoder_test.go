package tokenizer

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// byteVocabulary has one token a byte, and some of two and three.
func byteVocabulary(t testing.TB) *vocabulary {
	var tokens []token
	runeOf := map[byte]rune{}
	for r, b := range byteOfRune {
		if b >= 0 {
			runeOf[byte(b)] = rune(r)
		}
	}
	for b := range 256 {
		tokens = append(tokens, token{id: uint32(b), spelling: string(runeOf[byte(b)])})
	}
	for i, s := range []string{"\xf0\x9f", "\x98\x80", "\xe4\xbd", "\xa0a", "a\xc3", "\xe0\x80\x80"} {
		var spelling strings.Builder
		for _, b := range []byte(s) {
			spelling.WriteRune(runeOf[b])
		}
		tokens = append(tokens, token{id: uint32(256 + i), spelling: spelling.String()})
	}
	v, err := newVocabulary(tokens)
	require.NoError(t, err)
	return v
}

func TestMaximalInvalidParts(t *testing.T) {
	for input, want := range map[string]string{
		"":                                  "",
		"a\x80b":                            "a\uFFFDb",
		"\xC0\xAF":                          "\uFFFD\uFFFD", // overlong
		"\xE0\x80\xAF":                      "\uFFFD\uFFFD\uFFFD",
		"\xED\xA0\x80":                      "\uFFFD\uFFFD\uFFFD", // surrogate
		"\xF0\x80\x80\xAF":                  "\uFFFD\uFFFD\uFFFD\uFFFD",
		"\xF4\x91\x92\x93\xFFA\x80\xBFB":    "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDA\uFFFD\uFFFDB",
		"\xE1\x80\xE2\xF0\x91\x92\xF1\xBFA": "\uFFFD\uFFFD\uFFFD\uFFFDA",
		"\xF0\x9F\x98":                      "\uFFFD",
		"\xF0\x9F\x98\x80":                  "😀",
		"\uFFFD":                            "\uFFFD",
	} {
		require.Equal(t, want, lossy(input), "%q", input)
	}
}

// TestStreaming feeds random ids, rich in cut characters: whole pieces, never a
// character too late, and the same text as in one go.
func TestStreaming(t *testing.T) {
	v := byteVocabulary(t)
	rng := rand.New(rand.NewPCG(1, 2))
	leads := []int32{'a', 0x80, 0xA0, 0xBF, 0xC3, 0xE0, 0xE4, 0xED, 0xF0, 0xF4, 0x9F, 0x98, 256, 257, 258, 259, 260, 261, 300, -7}
	for range 20000 {
		d := v.NewDecoder(false)
		var raw, text strings.Builder
		for range rng.IntN(12) {
			id := leads[rng.IntN(len(leads))]
			raw.WriteString(v.TokenBytes(id))
			piece := d.Next(id)
			require.True(t, utf8.ValidString(piece))
			text.WriteString(piece)
			held := string(d.held[:d.heldLen])
			if held != "" { // what is held can still become a character
				length, valid := characterAt(held)
				require.False(t, valid)
				require.Equal(t, len(held), length)
				require.Less(t, length, characterLength(held[0]))
			}
		}
		text.WriteString(d.Flush())
		require.Equal(t, lossy(raw.String()), text.String(), "%q", raw.String())
		require.Empty(t, d.Flush())
	}
}

func TestNextDoesNotAllocateOnWholeText(t *testing.T) {
	v := byteVocabulary(t)
	d := v.NewDecoder(true)
	require.Zero(t, testing.AllocsPerRun(100, func() { d.Next('a') }))
}

// FuzzLossy holds the code against an independent statement of the same rule:
// a byte that begins no valid character is replaced, and it swallows the
// following bytes for as long as some valid character begins so.
func FuzzLossy(f *testing.F) {
	f.Add("\xF0\x9F\x98A\xE4\xBD")
	f.Add("\xED\xA0\x80\xC0")
	f.Fuzz(func(t *testing.T, s string) {
		require.Equal(t, slowLossy(s), lossy(s))
	})
}

func slowLossy(s string) string {
	var out strings.Builder
	for len(s) > 0 {
		if r, n := utf8.DecodeRuneInString(s); r != utf8.RuneError || n > 1 {
			out.WriteRune(r)
			s = s[n:]
			continue
		}
		n := 1
		for n < len(s) && completable(s[:n+1]) {
			n++
		}
		out.WriteRune(utf8.RuneError)
		s = s[n:]
	}
	return out.String()
}

// completable reports whether a character begins with prefix.
func completable(prefix string) bool {
	if utf8.ValidString(prefix) || len(prefix) >= utf8.UTFMax {
		return utf8.RuneCountInString(prefix) == 1 && utf8.ValidString(prefix)
	}
	for b := 0x80; b <= 0xBF; b++ {
		if completable(prefix + string([]byte{byte(b)})) {
			return true
		}
	}
	return false
}
