package otlp

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// TestExport: what a collector gets, field by field, and that Close sends the rest.
func TestExport(t *testing.T) {
	got := make(chan []byte, 1)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		require.Equal(t, "application/json", req.Header.Get("Content-Type"))
		body, _ := io.ReadAll(req.Body)
		got <- body
	}))
	defer collector.Close()
	e, err := New(collector.URL+"/v1/traces", "pagoda", quiet())
	require.NoError(t, err)
	e.patience = timeout // a slow machine needs it
	at := time.Unix(1700000000, 5)
	e.Add(Span{
		Trace: TraceID{1, 0xab}, ID: SpanID{2}, Parent: SpanID{3}, Name: "llm_request", Start: at, End: at.Add(time.Second),
		Attributes: map[string]any{"a": 7, "b": 0.5, "c": "x", "d": true}, Error: "no",
	})
	e.Close()
	require.JSONEq(t, `{"resourceSpans":[{
		"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"pagoda"}}]},
		"scopeSpans":[{"scope":{"name":"pagoda"},"spans":[{
			"traceId":"01ab0000000000000000000000000000","spanId":"0200000000000000","parentSpanId":"0300000000000000",
			"name":"llm_request","kind":2,"startTimeUnixNano":"1700000000000000005","endTimeUnixNano":"1700000001000000005",
			"attributes":[{"key":"a","value":{"intValue":"7"}},{"key":"b","value":{"doubleValue":0.5}},{"key":"c","value":{"stringValue":"x"}},{"key":"d","value":{"boolValue":true}}],
			"status":{"code":2,"message":"no"}}]}]}]}`, string(<-got))
	require.Zero(t, e.Dropped())
}

// TestSlowCollector: one that hangs costs spans and nobody's time.
func TestSlowCollector(t *testing.T) {
	release := make(chan struct{})
	collector := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer collector.Close()
	e, err := New(collector.URL, "pagoda", quiet())
	require.NoError(t, err)
	for range 2*bound + 2*batch {
		e.Add(Span{Name: "x"})
	}
	require.Positive(t, e.Dropped())
	e.Close() // waits a second, not for the answer
	close(release)
}

func TestRefusingCollector(t *testing.T) {
	collector := httptest.NewServer(http.NotFoundHandler())
	defer collector.Close()
	var log strings.Builder
	e, err := New(collector.URL, "pagoda", slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	e.patience = timeout
	e.Add(Span{Name: "x"})
	e.Close()
	require.Equal(t, 1, e.Dropped())
	require.Contains(t, log.String(), "404")
	_, err = New("localhost:4318", "pagoda", quiet())
	require.ErrorContains(t, err, "http://localhost:4318/v1/traces")
}

func TestTraceparent(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	trace, parent, sampled, ok := ParseTraceparent(good)
	require.True(t, ok && sampled)
	text, err := json.Marshal([]any{trace, parent})
	require.NoError(t, err)
	require.Equal(t, "[[10,247,101,25,22,205,67,221,132,72,235,33,28,128,49,156],[183,173,107,113,105,32,51,49]]", string(text))
	_, _, sampled, ok = ParseTraceparent(strings.TrimSuffix(good, "1") + "0")
	require.True(t, ok && !sampled)
	_, _, _, ok = ParseTraceparent("01" + good[2:] + "-more")
	require.True(t, ok, "a later version may have more")
	for _, bad := range []string{"", "00", good[:54], good + "-x", "ff" + good[2:], strings.Replace(good, "0af", "0xf", 1), strings.Replace(good, "-b7", "_b7", 1),
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"} {
		_, _, _, ok := ParseTraceparent(bad)
		require.False(t, ok, bad)
	}
}
