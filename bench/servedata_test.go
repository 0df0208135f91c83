package bench

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// letters is a tokenizer with a token for each two bytes: cutting is inside words.
type letters struct{}

func (letters) Encode(text string) (ids []int32, err error) {
	for i := 0; i < len(text); i += 2 {
		ids = append(ids, int32(text[i])<<8|int32((text + " ")[i+1]))
	}
	return ids, nil
}

func (letters) Decode(ids []int32) (string, error) {
	var out strings.Builder
	for _, id := range ids {
		out.WriteString(string([]byte{byte(id >> 8), byte(id)}))
	}
	return out.String(), nil
}

func TestMadePromptsHaveTheirLengths(t *testing.T) {
	d := Dataset{Name: "random", InputLen: 50, OutputLen: 20, RangeRatio: 0.2, PrefixLen: 8}
	require.NoError(t, d.Check())
	prompts, err := d.Prompts(200, 1, letters{})
	require.NoError(t, err)
	inputs, outputs := map[int]bool{}, map[int]bool{}
	for _, p := range prompts {
		ids, _ := letters{}.Encode(p.Text)
		require.Len(t, ids, p.PromptTokens)
		require.Equal(t, prompts[0].Text[:16], p.Text[:16], "all begin with the prefix")
		inputs[p.PromptTokens-8], outputs[p.OutputTokens] = true, true
	}
	for n := 40; n <= 60; n++ {
		require.True(t, inputs[n], "a body of %d tokens", n)
	}
	require.Len(t, inputs, 21)
	require.Len(t, outputs, 9)
	again, err := d.Prompts(200, 1, letters{})
	require.NoError(t, err)
	require.Equal(t, prompts, again)
	other, err := d.Prompts(200, 2, letters{})
	require.NoError(t, err)
	require.NotEqual(t, prompts, other)
	require.Equal(t, prompts[0].Text[:16], other[0].Text[:16], "the prefix stays")
}

func TestSharedPrefixes(t *testing.T) {
	d := Dataset{Name: "shared-prefix", PrefixLen: 30, InputLen: 10, Prefixes: 4, TokenIDs: true, Vocab: 900}
	require.NoError(t, d.Check())
	prompts, err := d.Prompts(40, 5, nil)
	require.NoError(t, err)
	seen := map[int32]int{}
	for _, p := range prompts {
		require.Len(t, p.IDs, 40)
		require.Equal(t, 40, p.PromptTokens)
		require.Less(t, p.IDs[7], int32(900))
		seen[p.IDs[0]<<16|p.IDs[1]]++
	}
	require.Len(t, seen, 4)
	for _, n := range seen {
		require.Equal(t, 10, n, "each prefix as often")
	}
}

func TestLogNormalLengths(t *testing.T) {
	d := Dataset{Name: "sharegpt-like", TokenIDs: true, Vocab: 9}
	require.NoError(t, d.Check())
	prompts, err := d.Prompts(5000, 1, nil)
	require.NoError(t, err)
	var in, out []float64
	for _, p := range prompts {
		require.LessOrEqual(t, p.PromptTokens, 1024)
		require.LessOrEqual(t, p.PromptTokens+p.OutputTokens, 2048)
		in, out = append(in, float64(p.PromptTokens)), append(out, float64(p.OutputTokens))
	}
	a, b := Describe(in), Describe(out)
	require.InEpsilon(t, 161, a.Mean, 0.1)
	require.InEpsilon(t, 338, b.Mean, 0.1)
	require.Less(t, a.Median, 0.7*a.Mean, "a long tail on the right")
}

func TestPromptsFromFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prompts.jsonl")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o644)) }
	write(`{"question_id": 81, "turns": ["First?", "Second?"]}` + "\n\n" + `{"question": "How many?", "answer": "2"}` + "\n" + `{"prompt": "P", "output_tokens": 7}` + "\n" + `{"messages": [{"role": "user", "content": "M"}], "max_tokens": 3}`)
	d := Dataset{Name: "jsonl", Path: path}
	require.NoError(t, d.Check())
	prompts, err := d.Prompts(8, 1, nil)
	require.NoError(t, err)
	texts := map[string]int{}
	for _, p := range prompts {
		key := p.Text
		if p.Messages != nil {
			key = p.Messages[0].Content
		}
		texts[key]++
		require.Equal(t, map[string]int{"First?": 256, "How many?": 256, "P": 7, "M": 3}[key], p.OutputTokens)
	}
	check, err := d.CheckPrompt(1, nil)
	require.NoError(t, err)
	require.NotContains(t, texts, check.Text, "what is measured must not be in a cache")
	require.NotEmpty(t, check.Text)
	require.Equal(t, map[string]int{"First?": 2, "How many?": 2, "P": 2, "M": 2}, texts, "each as often when there are too few")

	for text, want := range map[string]string{
		"": "holds no prompts", "{}": `line 1: no "prompt"`, "{\"prompt\":\"a\"}\nx": "line 2: no JSON object", `{"prompt":"a","max_tokens":-1}`: "negative",
	} {
		write(text)
		_, err := d.Prompts(1, 1, nil)
		require.ErrorContains(t, err, want)
	}
	for _, bad := range []Dataset{{Name: "sonnet"}, {Name: "gsm8k"}, {Name: "random", Path: "x"}, {Name: "random", RangeRatio: 1}, {Name: "jsonl", Path: "x", TokenIDs: true}, {Name: "random", InputLen: -1}} {
		require.Error(t, bad.Check(), "%+v", bad)
	}
}

// A server's own tokenizer is found under each of its spellings; one without is
// estimated from its usage.
func TestServerTokenizers(t *testing.T) {
	for name, route := range map[string]tokenRoute{"vLLM": tokenRoutes[0], "llama-cpp-python": tokenRoutes[1], "llama.cpp": tokenRoutes[2]} {
		t.Run(name, func(t *testing.T) {
			c := testClient(t, func(w http.ResponseWriter, r *http.Request) {
				var in map[string]any
				require.NoError(t, json.NewDecoder(r.Body).Decode(&in))
				text, isText := in[route.text].(string)
				switch {
				case r.URL.Path == route.encode && isText:
					ids, _ := letters{}.Encode(text)
					_ = json.NewEncoder(w).Encode(map[string]any{"tokens": ids})
				case r.URL.Path == route.decode:
					var ids []int32
					for _, id := range in["tokens"].([]any) {
						ids = append(ids, int32(id.(float64)))
					}
					text, _ := letters{}.Decode(ids)
					_ = json.NewEncoder(w).Encode(map[string]any{route.back: text})
				default:
					http.Error(w, "no", http.StatusNotFound)
				}
			})
			codec, err := c.ServerCodec(context.Background())
			require.NoError(t, err)
			ids, err := codec.Encode("abcd")
			require.NoError(t, err)
			require.Len(t, ids, 2)
		})
	}
	c := testClient(t, func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Prompt string }
		if r.URL.Path != "/v1/completions" || json.NewDecoder(r.Body).Decode(&in) != nil {
			http.NotFound(w, r)
			return
		}
		events(w, `{"choices":[{"text":"a","finish_reason":"length"}]}`, `{"choices":[],"usage":{"completion_tokens":1,"prompt_tokens":`+jsonText(5+3*len(strings.Fields(in.Prompt)))+`}}`, "[DONE]")
	})
	_, err := c.ServerCodec(context.Background())
	require.Error(t, err)
	e, err := c.Estimate(context.Background())
	require.NoError(t, err)
	require.InDelta(t, 3, e.TokensPerWord, 1e-9)
	d := Dataset{Name: "random", InputLen: 300}
	require.NoError(t, d.Check())
	prompts, err := d.Prompts(1, 1, e)
	require.NoError(t, err)
	require.Len(t, strings.Fields(prompts[0].Text), 100)
}

func jsonText(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}
