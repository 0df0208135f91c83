package grammar_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/model/grammar"
)

func newCompiler(t *testing.T, limits grammar.Limits) *grammar.Compiler {
	return grammar.NewCompiler(demoTokenizer(t), limits)
}

func TestRefusedSpecs(t *testing.T) {
	c := newCompiler(t, grammar.Limits{})
	schema := func(text string) grammar.Spec {
		s, err := grammar.JSONSchema([]byte(text), "")
		require.NoError(t, err)
		return s
	}
	for _, r := range []struct {
		spec grammar.Spec
		says string
	}{
		{schema(`{"type":"object","properties":{"age":false},"required":["age"]}`), "required property 'age' is unsatisfiable"},
		{schema(`{"not":{}}`), "not"},
		{schema(`{"$ref":"https://example.com/schema.json"}`), "does not fetch resources"},
		{schema(`{"type":"string","pattern":"("}`), "unclosed group"},
		{schema(`{"type":`), "EOF"},
		{grammar.Spec{Kind: grammar.Regex, Text: "(?=a)b"}, "look-around"},
		{grammar.Spec{Kind: grammar.Regex, Text: strings.Repeat("a", 65<<10)}, "at most 65536"},
		{grammar.Spec{Kind: grammar.Regex, Text: "a\xff"}, "not UTF-8"},
		{grammar.Spec{Kind: grammar.Regex, Text: "a\x00["}, "regex parse error"},
		{grammar.Spec{Kind: grammar.Lark, Text: "start: nowhere"}, "nowhere"},
		{grammar.Spec{Kind: grammar.Lark, Text: ""}, "start"},
		{grammar.Spec{Kind: grammar.Lark, Text: "start: " + strings.Repeat("(", 10000)}, "too deeply nested"},
		{grammar.Spec{Kind: grammar.Lark, Text: strings.Repeat(" ", 257<<10)}, "at most 262144"},
	} {
		_, err := c.Compile(context.Background(), r.spec)
		require.ErrorContains(t, err, r.says, "%.200q", r.spec.Text)
		require.NotContains(t, err.Error(), "backtrace")
		require.NotContains(t, err.Error(), "<state>")
	}
	_, err := grammar.JSONSchema([]byte(`"x"`), "")
	require.Error(t, err)
	_, err = grammar.Choice(nil)
	require.Error(t, err)
	_, err = grammar.Choice([]string{"a", ""})
	require.ErrorContains(t, err, "entry 1")
}

// TestDamagedSpecs: whatever is compiled is refused, or usable.
func TestDamagedSpecs(t *testing.T) {
	c := newCompiler(t, grammar.Limits{Kept: 1})
	seeds := []grammar.Spec{
		{Kind: grammar.Schema, Text: `{"type":"object","properties":{"a":{"type":"string","pattern":"^[a-z]{2,5}$"},"b":{"anyOf":[{"type":"integer","minimum":-3,"maximum":1e3},{"type":"array","items":{"$ref":"#/$defs/c"},"minItems":1,"maxItems":3}]}},"required":["a"],"$defs":{"c":{"enum":[1,"x",null]}}}`},
		{Kind: grammar.Regex, Text: `(\d{1,3}\.){3}[^a-f]+|x*?(?i:yes|no)\x41\p{L}`},
		{Kind: grammar.Lark, Text: "%llguidance {\"no_forcing\": true}\nstart: a | b\na: /[a-z]+/ \"x\"~1..4\nb[capture]: N (\",\" N)*\nN: /[0-9]/ | %json {\"type\":\"integer\"}\n%ignore / /\n"},
	}
	for seed := range uint64(400) {
		s := seeds[seed%3]
		s.Text = mutate(s.Text, seed)
		g, err := c.Compile(context.Background(), s)
		if err != nil {
			require.NotContains(t, err.Error(), "backtrace")
			continue
		}
		m, err := g.NewMatcher()
		require.NoError(t, err)
		_, _, err = m.Mask(make([]uint32, 4))
		require.NoError(t, err, "%q", s.Text)
		m.Close()
	}
}

func TestCompilerKeepsTheLastUsed(t *testing.T) {
	c := newCompiler(t, grammar.Limits{Kept: 2})
	compile := func(text string) *grammar.Grammar {
		g, err := c.Compile(context.Background(), grammar.Spec{Kind: grammar.Regex, Text: text})
		require.NoError(t, err)
		return g
	}
	a, b := compile("a"), compile("b")
	require.NotSame(t, a, b)
	require.Same(t, a, compile("a"))
	compile("c") // b was used least recently
	require.Same(t, a, compile("a"))
	require.NotSame(t, b, compile("b"))

	small := newCompiler(t, grammar.Limits{Bytes: 1})
	s := grammar.Spec{Kind: grammar.Regex, Text: "a"}
	first, err := small.Compile(context.Background(), s)
	require.NoError(t, err)
	second, err := small.Compile(context.Background(), s)
	require.NoError(t, err)
	require.NotSame(t, first, second, "what is larger than the bound is not kept")
}

func TestCompilerCompilesOnce(t *testing.T) {
	c := newCompiler(t, grammar.Limits{Parallel: 1})
	var wait sync.WaitGroup
	got := make([]*grammar.Grammar, 16)
	for i := range got {
		wait.Go(func() {
			got[i], _ = c.Compile(context.Background(), grammar.Spec{Kind: grammar.Regex, Text: "(ab|cd)*"})
		})
	}
	wait.Wait()
	for _, g := range got {
		require.NotNil(t, g)
		require.Same(t, got[0], g)
	}
}

// TestCompilerBounds: what takes too long is given up, by those that wait for it as
// well as by those behind it; afterwards there is room again. The clock is the bubble's: it
// passes while all wait.
func TestCompilerBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCompiler(t, grammar.Limits{Parallel: 1, Time: 20 * time.Millisecond})
		slow, other := grammar.Spec{Kind: grammar.Regex, Text: "(foo|bar)*"}, grammar.Spec{Kind: grammar.Regex, Text: "a"}
		end := make(chan struct{})
		c.HoldUp(func(s grammar.Spec) {
			if s == slow {
				<-end
			}
		})
		compile := func(s grammar.Spec) error {
			begin := time.Now()
			_, err := c.Compile(t.Context(), s)
			if err != nil {
				require.Equal(t, 20*time.Millisecond, time.Since(begin))
			}
			return err
		}
		require.ErrorIs(t, compile(slow), grammar.ErrTooSlow)
		require.ErrorIs(t, compile(other), grammar.ErrBusy)
		require.ErrorIs(t, compile(slow), grammar.ErrTooSlow, "it is under way")

		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.Compile(gone, grammar.Spec{Kind: grammar.Regex, Text: "b"})
		require.ErrorIs(t, err, context.Canceled)

		close(end)
		synctest.Wait()
		require.NoError(t, compile(other))
		require.NoError(t, compile(slow))
	})
}

// TestMatchersAreApart: those of one Grammar know nothing of each other, at the same
// time on several goroutines.
func TestMatchersAreApart(t *testing.T) {
	v := qwen(t)
	s, err := grammar.JSONObject("")
	g := v.compile(t, s, err)
	broken, err := g.NewMatcher()
	require.NoError(t, err)
	id, _ := v.tokenizer.ID("x")
	require.Error(t, broken.Accept(id))
	_, _, err = broken.Mask(make([]uint32, v.words))
	require.Error(t, err)
	broken.Close()
	broken.Close()

	var wait sync.WaitGroup
	for i := range 8 {
		text := fmt.Sprintf(`{"key%d":[%s1]}`, i, strings.Repeat("true,", i))
		wait.Go(func() {
			for range 3 {
				if !v.acceptsText(t, g, text) || v.acceptsText(t, g, text[:len(text)-1]) {
					t.Errorf("%s", text)
				}
			}
		})
	}
	wait.Wait()
}

// mutate damages a few bytes of text.
func mutate(text string, seed uint64) string {
	rng := rand.New(rand.NewPCG(seed, 3))
	data := []byte(text)
	for range 1 + rng.IntN(3) {
		at := rng.IntN(len(data))
		to := min(len(data), at+1+rng.IntN(12))
		switch rng.IntN(4) {
		case 0:
			data[at] = "{}[]()\"':,|*+?\\/0n\n"[rng.IntN(19)]
		case 1:
			data = append(data[:at:at], data[to:]...)
		case 2:
			data = append(data[:to:to], data[at:]...)
		default:
			data[at] = data[rng.IntN(len(data))]
		}
		if len(data) == 0 {
			return ""
		}
	}
	return string(data)
}
