package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

// malformed is a request that must be refused.
type malformed struct{ method, path, media, body string }

// malformedFields are fields with values that no endpoint takes.
var malformedFields = []string{
	`"n":0`, `"n":1e9`, `"n":"x"`, `"max_tokens":-1`, `"max_tokens":1e30`, `"temperature":-1`, `"temperature":1e400`, `"temperature":{}`, `"top_p":2`, `"top_k":-9`,
	`"min_p":[0]`, `"repetition_penalty":0`, `"presence_penalty":1e9`, `"frequency_penalty":"a"`, `"seed":1e40`, `"stop":[1]`, `"stop":[""]`, `"stop_token_ids":[-1]`, `"stop_token_ids":[99999999]`,
	`"logit_bias":{"99999999":1}`, `"logit_bias":{"a":1}`, `"logit_bias":{"1":1e9}`, `"logit_bias":[]`, `"stream":"yes"`, `"stream_options":{"include_usage":true}`, `"min_tokens":-1`, `"cache_salt":""`,
	`"priority":5`, `"guided_json":{"not":{}}`, `"structured_outputs":{"regex":"("}`, `"response_format":{"type":"x"}`, `"allowed_token_ids":[]`, `"bad_words":[""]`, `"prompt_logprobs":-5`,
	`"truncate_prompt_tokens":0`, `"model":"none such"`, `"model":[]`, `"request_id":"a b"`, `"logprobs":"all"`, `"use_beam_search":true`, `"best_of":77`, `"max_tokens":999999`,
}

// malformedRequests makes n of them from a seed.
func malformedRequests(n int, seed uint64) []malformed {
	rng := rand.New(rand.NewPCG(seed, 1))
	chat := `{"messages":[{"role":"user","content":"Tell me about \u00e9 and \ud83d\ude00."}],"max_tokens":4,"tools":[{"type":"function","function":{"name":"f"}}]`
	plain := `{"prompt":["a",[1,2,3]],"max_tokens":4,"stop":["x"]`
	paths := map[string]string{"/v1/chat/completions": chat, "/v1/completions": plain}
	var out []malformed
	for len(out) < n {
		path := []string{"/v1/chat/completions", "/v1/completions"}[rng.IntN(2)]
		r := malformed{"POST", path, "application/json", paths[path]}
		switch rng.IntN(8) {
		case 0, 1: // cut anywhere
			r.body = (r.body + "}")[:rng.IntN(len(r.body)+1)]
		case 2: // a control character or a brace where none may be
			at := 1 + rng.IntN(len(r.body)-1)
			r.body = r.body[:at] + string("\x00\x01\x1f"[rng.IntN(3)]) + r.body[at:] + "}"
		case 3: // nesting
			r.body += `,"x":` + strings.Repeat([]string{"[", `{"a":`}[rng.IntN(2)], 64+rng.IntN(100_000))
		case 4:
			r.media = []string{"text/plain", "multipart/form-data", "application/", "x"}[rng.IntN(4)]
		case 5:
			r.method = []string{"GET", "PUT", "DELETE", "PATCH"}[rng.IntN(4)]
		default:
			field := malformedFields[rng.IntN(len(malformedFields))]
			if path == "/v1/chat/completions" && strings.HasPrefix(field, `"best_of"`) {
				continue // no field of chats
			}
			r.body += "," + field + "}"
		}
		out = append(out, r)
	}
	return out
}

// TestMalformedRequests: whatever is wrong with a request, it gets a 4xx, and a
// greedy neighbour says what it says alone.
func TestMalformedRequests(t *testing.T) {
	s := startServer(t, engine.Config{BatchInvariant: true, MaxNumSeqs: 8, MaxNumBatchedTokens: 256, MaxModelLen: 1024, NumGPUBlocksOverride: 200})
	ctx := t.Context()
	alone, err := s.ask(ctx, "Say something about lighthouses.", 60)
	require.NoError(t, err)

	requests := malformedRequests(1000, 7)
	next := make(chan malformed)
	refused := make(chan error, len(requests))
	var senders sync.WaitGroup
	for range 4 {
		senders.Go(func() {
			for r := range next {
				refused <- s.mustRefuse(r)
			}
		})
	}
	neighbour := make(chan error, 1)
	go func() {
		var err error
		for range 3 {
			var beside completion
			if beside, err = s.ask(ctx, "Say something about lighthouses.", 60); err == nil && beside.text != alone.text {
				err = fmt.Errorf("beside malformed requests: %q, alone: %q", beside.text, alone.text)
			}
			if err != nil {
				break
			}
		}
		neighbour <- err
	}()
	for _, r := range requests {
		next <- r
	}
	close(next)
	senders.Wait()
	require.NoError(t, <-neighbour)
	for range requests {
		require.NoError(t, <-refused)
	}
	st := s.engine.Stats()
	require.Zero(t, st.FinishedError)
	require.Zero(t, st.BlocksUsed)
}

// mustRefuse sends r and returns an error unless it is refused.
func (s *liveServer) mustRefuse(r malformed) error {
	req, err := http.NewRequest(r.method, s.url+r.path, strings.NewReader(r.body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", r.media)
	resp, err := s.http.Do(req)
	if err != nil {
		return fmt.Errorf("%.200v: %w", r, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode < 400 || resp.StatusCode >= 500 {
		return fmt.Errorf("%.300v: status %d, %.300s, %v", r, resp.StatusCode, body, err)
	}
	return nil
}
