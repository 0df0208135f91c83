package server

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// mutants are valid bodies of each endpoint, with everything that nests.
var mutants = map[string]string{
	"/v1/chat/completions": `{"model":"m","messages":[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"a\u00e9"}]},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"a\":1.0}"}}]},{"role":"tool","tool_call_id":"1","content":"r"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"tool_choice":{"type":"function","function":{"name":"f"}},"stop":["x","yz"],"logit_bias":{"7":1.5},"logprobs":true,"top_logprobs":2,"max_tokens":5,"n":2,"stream_options":null,"chat_template_kwargs":{"k":[1]},"documents":[{"t":1}]}`,
	"/v1/completions":      `{"model":"m","prompt":["a\ud83d\ude00",[1,2,3]],"echo":true,"logprobs":2,"prompt_logprobs":1,"stop_token_ids":[5,6],"max_tokens":3,"seed":-4,"best_of":1,"truncate_prompt_tokens":2,"truncation_side":"right","cache_salt":"s"}`,
	"/v1/messages":         `{"model":"m","max_tokens":9,"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"f","input":{"a":1.0}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":[{"type":"text","text":"r"}]},{"type":"text","text":"b"}]}],"tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],"tool_choice":{"type":"any"},"stop_sequences":["x"],"stream":true}`,
	"/v1/responses":        `{"model":"m","instructions":"i","input":[{"role":"user","content":[{"type":"input_text","text":"a"}]},{"type":"function_call","call_id":"1","name":"f","arguments":"{\"a\":1}"},{"type":"function_call_output","call_id":"1","output":"r"}],"tools":[{"type":"function","name":"f","parameters":{"type":"object"},"strict":true}],"tool_choice":{"type":"function","name":"f"},"text":{"format":{"type":"text"}},"max_output_tokens":9,"stream":false,"include":[]}`,
	"/tokenize":            `{"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"f"}}],"return_token_strs":true}`,
	"/detokenize":          `{"tokens":[1,2,258],"skip_special_tokens":true}`,
}

// TestMutatedBodies: bodies with bytes changed, doubled and dropped, and values of
// one place put in another, never cost more than a 4xx.
func TestMutatedBodies(t *testing.T) {
	f := newFakeEngine(lookThenCall)
	h := newTestServer(t, f, Config{}).Handler()
	rng := rand.New(rand.NewPCG(3, 9))
	parts := []string{"null", "[]", "{}", `""`, "0", "-1", "1e999", "true", `"x"`, "[[]]", `[null]`, `{"type":null}`, "[", "}", `"`, ",", "\\", "\x00", "\xff", "<|im_end|>"}
	for _, path := range slices.Sorted(maps.Keys(mutants)) {
		body := mutants[path]
		require.Equal(t, 200, do(h, "POST", path, body).Code, "%s: %s", path, do(h, "POST", path, body).Body)
		values := append(valuesOf(body), parts...)
		for range 1500 {
			mutant := body
			for range 1 + rng.IntN(2) {
				at := rng.IntN(len(mutant) + 1)
				end := min(len(mutant), at+rng.IntN(12))
				if spans := valueSpans(mutant); len(spans) > 0 && rng.IntN(3) > 0 {
					span := spans[rng.IntN(len(spans))]
					at, end = span[0], span[1]
				}
				mutant = mutant[:at] + values[rng.IntN(len(values))] + mutant[end:]
			}
			w := do(h, "POST", path, mutant)
			require.True(t, w.Code == 200 || w.Code >= 400 && w.Code < 500, "%s %s: %d %s", path, mutant, w.Code, w.Body)
			if w.Header().Get("Content-Type") == "application/json" {
				require.True(t, json.Valid(w.Body.Bytes()), w.Body)
			}
		}
	}
	for _, r := range f.requests {
		for _, id := range r.Prompt {
			require.True(t, id >= 0 && id < testVocab)
		}
	}
}

// valueSpans are the places of the scalars and closed lists of a JSON text.
func valueSpans(text string) (spans [][2]int) {
	for at := range len(text) {
		if c := text[at]; c != '"' && c != '[' && c != '{' {
			continue
		}
		var scan jsonScanner
		for end := at; end < len(text) && scan.step(text[end]); end++ {
			if scan.state == scanDone {
				spans = append(spans, [2]int{at, end + 1})
				break
			}
		}
	}
	return spans
}

func valuesOf(text string) (values []string) {
	for _, span := range valueSpans(text) {
		values = append(values, text[span[0]:span[1]])
	}
	return values
}
