package server

import (
	"context"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

// cutAtStop is the definition: the stop string that ends first, of those the
// longest.
func cutAtStop(text string, stops []string) (shown, stop string) {
	for end := range len(text) + 1 {
		for _, s := range stops {
			if strings.HasSuffix(text[:end], s) && len(s) > len(stop) {
				stop = s
			}
		}
		if stop != "" {
			return text[:end-len(stop)], stop
		}
	}
	return text, ""
}

// heldBack is the definition of what has to wait: the longest suffix that is a
// proper prefix of a stop string.
func heldBack(text string, stops []string) int {
	for n := len(text); n > 0; n-- {
		for _, s := range stops {
			if n < len(s) && strings.HasSuffix(text, s[:n]) {
				return n
			}
		}
	}
	return 0
}

func randomText(r *rand.Rand, alphabet []string, n int) string {
	var b strings.Builder
	for range n {
		b.WriteString(alphabet[r.IntN(len(alphabet))])
	}
	return b.String()
}

func randomStops(r *rand.Rand, alphabet []string) []string {
	stops := make([]string, r.IntN(4))
	for i := range stops {
		stops[i] = randomText(r, alphabet, 1+r.IntN(5))
	}
	return stops
}

func TestStopMatcherAgainstDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	alphabet := []string{"a", "b", "é", "日"}
	found := 0
	for range 100_000 {
		letters := alphabet[:1+r.IntN(len(alphabet))]
		stops, text := randomStops(r, letters), randomText(r, letters, r.IntN(24))
		wantShown, wantStop := cutAtStop(text, stops)

		m := newStopMatcher(stops)
		var shown strings.Builder
		fed, stop := 0, ""
		for fed < len(text) && stop == "" {
			n := 1 + r.IntN(len(text)-fed)
			show, match := m.feed(text[fed:fed+n], true)
			fed += n
			shown.WriteString(show)
			if match >= 0 {
				stop = stops[match]
				continue
			}
			require.Equal(t, fed-heldBack(text[:fed], stops), shown.Len(), "held back of %q for %q", text[:fed], stops)
		}
		if stop == "" {
			shown.WriteString(m.flush())
		} else {
			found++
		}
		require.Equal(t, wantStop, stop, "%q in %q", stops, text)
		require.Equal(t, wantShown, shown.String(), "%q in %q", stops, text)
	}
	require.Greater(t, found, 10_000, "too few cases reach a stop string")
}

func TestStopMatcherUnarmed(t *testing.T) {
	m := newStopMatcher([]string{"ab"})
	show, match := m.feed("xab", false)
	require.Equal(t, "xab", show)
	require.Equal(t, -1, match)
	show, match = m.feed("a", false) // the first letter came too early, the match ends in time
	require.Equal(t, "", show)
	require.Equal(t, -1, match)
	show, match = m.feed("bc", true)
	require.Equal(t, "", show)
	require.Equal(t, 0, match)
}

// TestStreamTextEqualsWhole drives whole choices, invalid UTF-8 included.
func TestStreamTextEqualsWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	f := newFakeEngine("")
	s := newTestServer(t, f, Config{})
	alphabet := []string{"a", "b", "é", "日", "\xe6", "\x97", "\xff"}
	stopped := 0
	for range 20_000 {
		tokens := ids(randomText(r, alphabet, r.IntN(16)))
		stops := randomStops(r, alphabet[:4])
		f.reply = func(engine.Request) []int32 { return tokens }
		req := s.defaults()
		req.stops, req.includeStop = stops, r.IntN(4) == 0
		g := &generation{s: s, r: &req, prompts: [][]int32{{1}}}

		ctx, cancel := context.WithCancel(context.Background())
		require.NoError(t, g.submit(ctx))
		results, err := g.collect(ctx)
		require.NoError(t, err)

		require.NoError(t, g.submit(ctx))
		var streamed strings.Builder
		for c := g.choices[1]; ; {
			d, err := c.next(ctx)
			require.NoError(t, err)
			streamed.WriteString(d.text)
			require.Equal(t, d.text, strings.ToValidUTF8(d.text, "?"), "a delta breaks a character")
			if d.finish != engine.FinishNone {
				require.Equal(t, results[0].stopReason, d.stopReason)
				break
			}
		}
		cancel()
		want, stop := cutAtStop(s.tokenizer.Decode(tokens, true), stops)
		if stop != "" {
			stopped++
			require.Equal(t, stop, results[0].stopReason)
			if req.includeStop {
				want += stop
			}
		}
		require.Equal(t, want, results[0].text, "%q, stops %q", tokens, stops)
		require.Equal(t, want, streamed.String(), "%q, stops %q", tokens, stops)
	}
	require.Greater(t, stopped, 1_000)
}

func TestStopIDsInText(t *testing.T) {
	f := newFakeEngine("abcd")
	s := newTestServer(t, f, Config{})
	for _, c := range []struct{ extra, text, reason string }{
		{`,"stop_token_ids":[99]`, "ab", "99"},
		{`,"stop_token_ids":[99],"include_stop_str_in_output":true`, "abc", "99"},
		{``, "abcd", "null"},
		{`,"skip_special_tokens":false`, "abcd", "null"},
		{`,"ignore_eos":true,"skip_special_tokens":false,"max_tokens":5`, "abcd<|endoftext|>", "null"},
		{`,"stop":"c","min_tokens":3`, "abcd", "null"},
		{`,"stop":["cd","c"],"min_tokens":2`, "ab", `"c"`},
	} {
		w := do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x"`+c.extra+`}`)
		require.Equal(t, 200, w.Code, w.Body)
		body := w.Body.String()
		require.Contains(t, body, `"text":"`+c.text+`"`, c.extra)
		require.Contains(t, body, `"stop_reason":`+c.reason, c.extra)
	}
	require.True(t, slices.Equal([]int32(nil), f.last(t).StopIDs))
}

// TestClientThatIsGone: what nobody waits for any more is no success, in the metrics and to a client that has closed its
// half alone.
func TestClientThatIsGone(t *testing.T) {
	s := newTestServer(t, newFakeEngine("x"), Config{})
	req := s.defaults()
	ctx, cancel := context.WithCancel(context.Background())
	g := &generation{s: s, r: &req, prompts: [][]int32{{1}}}
	require.NoError(t, g.submit(ctx))
	cancel()
	w := httptest.NewRecorder()
	s.fail(ctx, w, g, nil, ctx.Err(), "prompt")
	require.Equal(t, 499, w.Code)
	_, kind, _, _ := errorOf(t, w)
	require.Equal(t, typeInvalidRequest, kind)

	// Nor is one that goes while its prompt is encoded, or waits to be scored.
	_, err := s.scoring.acquire(context.Background(), 1)
	require.NoError(t, err)
	for _, body := range []string{`{"prompt":"hi"}`, `{"prompt":[1,2],"prompt_logprobs":1}`} {
		for aborting, status := range map[bool]int{false: 499, true: 503} {
			s.aborting.Store(aborting) // then it is the server that ends it
			w = recordRequest(s.Handler(), httptest.NewRequestWithContext(ctx, "POST", "/v1/completions", strings.NewReader(body)))
			require.Equal(t, status, w.Code, "%s: %s", body, w.Body)
		}
	}
}
