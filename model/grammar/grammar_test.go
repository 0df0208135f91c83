package grammar_test

import (
	"compress/gzip"
	"io"
	"os"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/model/demo"
	"github.com/pagoda-engine/pagoda/model/grammar"
	"github.com/pagoda-engine/pagoda/model/tokenizer"
)

// vocabulary is a tokenizer's, and the tokenizer.
type vocabulary struct {
	*grammar.Vocabulary
	tokenizer *tokenizer.Tokenizer
	words     int // of a mask
}

func newVocabulary(t *tokenizer.Tokenizer) (*vocabulary, error) {
	v, err := grammar.NewVocabulary(t)
	return &vocabulary{v, t, (t.VocabSize() + 31) / 32}, err
}

// qwen is the Qwen2.5 tokenizer, made once for all tests.
var qwenOnce = sync.OnceValues(func() (*vocabulary, error) {
	f, err := os.Open("../../testdata/tokenizer/qwen2.5-tokenizer.json.gz")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(z)
	if err != nil {
		return nil, err
	}
	t, err := tokenizer.New(data)
	if err != nil {
		return nil, err
	}
	return newVocabulary(t)
})

func qwen(t testing.TB) *vocabulary {
	v, err := qwenOnce()
	require.NoError(t, err)
	return v
}

func (v *vocabulary) compile(t testing.TB, s grammar.Spec, err error) *grammar.Grammar {
	t.Helper()
	require.NoError(t, err)
	g, err := v.Compile(s)
	require.NoError(t, err)
	return g
}

func allows(mask []uint32, id int32) bool { return mask[id/32]>>(id%32)&1 == 1 }

// accepts says whether ids may come one after the other and then the end. What a
// mask refuses, Accept must refuse as well.
func (v *vocabulary) accepts(t testing.TB, g *grammar.Grammar, ids []int32) bool {
	t.Helper()
	m, err := g.NewMatcher()
	require.NoError(t, err)
	defer m.Close()
	mask := make([]uint32, v.words)
	for _, id := range ids {
		_, must, err := m.Mask(mask)
		require.NoError(t, err)
		if must || !allows(mask, id) {
			require.Error(t, m.Accept(id), "the mask refuses token %d, %q", id, v.tokenizer.TokenBytes(id))
			return false
		}
		require.NoError(t, m.Accept(id))
	}
	may, _, err := m.Mask(mask)
	require.NoError(t, err)
	return may
}

func (v *vocabulary) acceptsText(t testing.TB, g *grammar.Grammar, text string) bool {
	t.Helper()
	ids, err := v.tokenizer.EncodePlain(text)
	require.NoError(t, err)
	return v.accepts(t, g, ids)
}

func TestSpecs(t *testing.T) {
	v := qwen(t)
	schema := func(text string) *grammar.Grammar {
		s, err := grammar.JSONSchema([]byte(text), "")
		return v.compile(t, s, err)
	}
	object, err := grammar.JSONObject("")
	anyObject := v.compile(t, object, err)
	choice, err := grammar.Choice([]string{"positive", "neg\"ative\n<é>", "pos", "\x7f\x01"})
	choose := v.compile(t, choice, err)
	compact, err := grammar.JSONSchema([]byte(`{"type":"array"}`), " ?")
	spaced := v.compile(t, compact, err)
	for _, c := range []struct {
		name    string
		g       *grammar.Grammar
		yes, no []string
	}{
		{name: "object", g: anyObject, yes: []string{`{}`, `{"a":[1,null,"é\n"]}`, "{\n    \"a\": 1\n}", "{\r\n\t\"a\":1}"}, no: []string{``, "{\n\n}", "{  }", `[]`, `{"a"}`, `{} x`, `{"a":1`}},
		{name: "schema", g: schema(` { "type":"object","properties":{"n":{"type":"integer","minimum":3}},"required":["n"],"additionalProperties":false}`),
			yes: []string{`{"n":3}`, `{ "n" : 41 }`}, no: []string{`{"n":2}`, `{}`, `{"n":3,"m":1}`, `{"n":3.5}`}},
		{name: "empty schema", g: schema(`{}`), yes: []string{`1`, `"a"`, `{}`}, no: []string{`a`}},
		{name: "true", g: schema(`true`), yes: []string{`1`, `null`}, no: []string{`a`}},
		{name: "refs", g: schema(`{"$ref":"#/$defs/n","$defs":{"n":{"anyOf":[{"type":"null"},{"type":"array","items":{"$ref":"#/$defs/n"}}]}}}`),
			yes: []string{`null`, `[null,[[]]]`}, no: []string{`[1]`}},
		{name: "whitespace", g: spaced, yes: []string{`[1, 2]`, `[1,2]`}, no: []string{"[1,  2]", "[1,\n2]"}},
		{name: "choice", g: choose, yes: []string{"positive", "pos", "neg\"ative\n<é>", "\x7f\x01"}, no: []string{"po", "positives", "", "neg\"ative"}},
		{name: "regex", g: v.compile(t, grammar.Spec{Kind: grammar.Regex, Text: `^\d{3}-(foo|b/r)+$`}, nil), yes: []string{"123-foo", "000-b/rfoo"}, no: []string{"12-foo", "123-", "a123-foo"}},
		{name: "lark", g: v.compile(t, grammar.Spec{Kind: grammar.Lark, Text: "start: e\ne: N | \"(\" e \"+\" e \")\"\nN: /[0-9]+/\n"}, nil), yes: []string{"7", "(1+(20+3))"}, no: []string{"(1+2", "1+2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, text := range c.yes {
				require.True(t, v.acceptsText(t, c.g, text), "%q is refused", text)
			}
			for _, text := range c.no {
				require.False(t, v.acceptsText(t, c.g, text), "%q is accepted", text)
			}
		})
	}
}

// TestEndIsReported: may and must, and that the end has no bit in the mask.
func TestEndIsReported(t *testing.T) {
	v := qwen(t)
	s, err := grammar.Choice([]string{"a", "aa"})
	m, err := v.compile(t, s, err).NewMatcher()
	require.NoError(t, err)
	defer m.Close()
	mask := make([]uint32, v.words+3)
	for i, want := range []struct{ may, must bool }{{false, false}, {true, false}, {true, true}} {
		for i := range mask {
			mask[i] = 0xdeadbeef // what is in the buffer does not matter
		}
		may, must, err := m.Mask(mask)
		require.NoError(t, err)
		require.Equal(t, want, struct{ may, must bool }{may, must}, "after %d tokens", i)
		for id := range int32(32 * len(mask)) {
			text := v.tokenizer.TokenBytes(id)
			allowed := i == 0 && (text == "a" || text == "aa") || i == 1 && text == "a"
			require.Equal(t, allowed, allows(mask, id), "token %d, %q, after %d tokens", id, text, i)
		}
		if must {
			break
		}
		id, _ := v.tokenizer.ID("a")
		require.NoError(t, m.Accept(id))
	}
}

// TestBytes: of every tokenizer, all tokens that may begin text and no special one
// are allowed where anything may come, and characters may be cut between tokens.
func TestBytes(t *testing.T) {
	t.Run("qwen2.5", func(t *testing.T) { testBytes(t, qwen(t)) })
	t.Run("demo", func(t *testing.T) { testVocabulary(t, demoTokenizer(t)) })
	t.Run("smollm2", func(t *testing.T) {
		tok, err := tokenizer.Open("../../.cache/models/smollm2-135m")
		if err != nil {
			t.Skip("make test-model fetches it: ", err)
		}
		testVocabulary(t, tok)
	})
}

func demoTokenizer(t *testing.T) *tokenizer.Tokenizer {
	files, err := demo.Files()
	if err != nil {
		t.Skip(err)
	}
	data, err := files.ReadFile("tokenizer.json")
	require.NoError(t, err)
	tok, err := tokenizer.New(data)
	require.NoError(t, err)
	return tok
}

func testVocabulary(t *testing.T, tok *tokenizer.Tokenizer) {
	v, err := newVocabulary(tok)
	require.NoError(t, err)
	testBytes(t, v)
}

func testBytes(t *testing.T, v *vocabulary) {
	text := v.compile(t, grammar.Spec{Kind: grammar.Regex, Text: `(?s:.*)`}, nil)
	m, err := text.NewMatcher()
	require.NoError(t, err)
	defer m.Close()
	mask := make([]uint32, v.words)
	_, _, err = m.Mask(mask)
	require.NoError(t, err)
	single := map[byte]int32{}
	for id := range int32(v.tokenizer.VocabSize()) {
		bytes := v.tokenizer.TokenBytes(id)
		if len(bytes) == 1 {
			single[bytes[0]] = id
		}
		require.Equal(t, !v.tokenizer.IsSpecial(id) && beginsText(bytes), allows(mask, id), "token %d, %q", id, bytes)
	}
	for _, sample := range []string{"Hello, wörld", "你好\U0001F600\U0001F9D1\u200d\U0001F680", "a\x00b", "\u0301\u202e"} {
		require.True(t, v.acceptsText(t, text, sample), "%q", sample)
		var ids []int32
		for i := range len(sample) {
			id, ok := single[sample[i]]
			require.True(t, ok, "no token of byte %#x", sample[i])
			ids = append(ids, id)
		}
		require.True(t, v.accepts(t, text, ids), "%q, a token a byte", sample)
		require.False(t, v.accepts(t, text, append(ids, single[0xC3])), "%q, and half a character", sample)
	}
}

// beginsText says that bytes are UTF-8, but for a character at the end that the
// next token may complete.
func beginsText(bytes string) bool {
	for cut := range min(utf8.UTFMax, len(bytes)) {
		if rest := bytes[len(bytes)-cut:]; utf8.ValidString(bytes[:len(bytes)-cut]) {
			return cut == 0 || !utf8.FullRuneInString(rest)
		}
	}
	return len(bytes) > 0 && len(bytes) < utf8.UTFMax && !utf8.FullRuneInString(bytes)
}
