package server

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// fuzzBody runs bodies through an endpoint: no panic, a 200 or a 4xx, JSON of
// the right shape.
func fuzzBody(f *testing.F, path, base string, edges []edge) {
	for _, e := range edges {
		f.Add([]byte("{" + base + "," + e.body + "}"))
	}
	for _, body := range []string{"", "null", "[]", `{"a":`, "{\"\xff\":\"\\ud800\"}", `{"stop":["\u0000"]}`} {
		f.Add([]byte(body))
	}
	fake := newFakeEngine("abc")
	h := newTestServer(f, fake, Config{}).Handler()
	f.Fuzz(func(t *testing.T, body []byte) {
		w := do(h, "POST", path, string(body))
		switch {
		case w.Code == 200:
		case w.Code >= 400 && w.Code < 500:
			errorOf(t, w)
		default:
			require.Fail(t, "status", "%d: %s", w.Code, w.Body)
		}
		if w.Header().Get("Content-Type") == "application/json" {
			require.True(t, json.Valid(w.Body.Bytes()))
		}
		for _, r := range fake.requests {
			for _, id := range slices.Concat(r.Prompt, r.StopIDs) {
				require.True(t, id >= 0 && id < testVocab, "id %d reaches the engine", id)
			}
		}
		fake.requests = fake.requests[:0]
	})
}

func FuzzChat(f *testing.F) {
	fuzzBody(f, "/v1/chat/completions", `"messages":[{"role":"user","content":"hi"}]`, slices.Concat(sharedEdges[:60], chatEdges[:20]))
}

func FuzzCompletions(f *testing.F) {
	fuzzBody(f, "/v1/completions", `"prompt":"x"`, slices.Concat(sharedEdges[:60], completionEdges[:20]))
}
