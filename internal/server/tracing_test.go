package server

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/internal/otlp"
)

type spans struct {
	mu  sync.Mutex
	all []otlp.Span
}

// Add implements Traces.
func (s *spans) Add(span otlp.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, span)
}

// TestSpans: a span for each choice, in the caller's trace where there is one,
// without any text.
func TestSpans(t *testing.T) {
	var recorder spans
	s := newTestServer(t, newFakeEngine("hello"), Config{Traces: &recorder})
	ask := func(body, traceparent string) {
		req := httptest.NewRequest("POST", "/v1/completions", strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Traceparent", traceparent)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, req)
		require.Equal(t, 200, w.Code, w.Body.String())
	}
	ask(`{"prompt":"secret","n":2,"temperature":0.5,"max_tokens":3}`, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	got := recorder.all
	require.Len(t, got, 2)
	for _, span := range got {
		require.Equal(t, otlp.TraceID{0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c}, span.Trace)
		require.Equal(t, otlp.SpanID{0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31}, span.Parent)
		require.Equal(t, 6, span.Attributes["gen_ai.usage.prompt_tokens"])
		require.Equal(t, 3, span.Attributes["gen_ai.usage.completion_tokens"])
		require.Equal(t, "length", span.Attributes["gen_ai.response.finish_reasons"])
		require.InDelta(t, 0.5, span.Attributes["gen_ai.request.temperature"], 1e-9)
		require.GreaterOrEqual(t, span.Attributes["gen_ai.latency.e2e"], span.Attributes["gen_ai.latency.time_to_first_token"])
		for name, value := range span.Attributes {
			require.NotContains(t, fmt.Sprint(value), "secret", name)
		}
	}
	require.NotEqual(t, got[0].ID, got[1].ID)
	ask(`{"prompt":"x"}`, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
	require.Len(t, recorder.all, 2, "the caller does not sample")
	ask(`{"prompt":"x"}`, "nonsense")
	require.Len(t, recorder.all, 3)
	require.NotEqual(t, otlp.TraceID{}, recorder.all[2].Trace)
	require.Equal(t, otlp.SpanID{}, recorder.all[2].Parent)
}
