package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDrain(t *testing.T) {
	f := newFakeEngine("abc")
	f.gate = make(chan struct{})
	s := serve(t, f, Config{}, nil)
	bodies := make(chan string, 8)
	for range cap(bodies) {
		go func() {
			resp, err := s.post(t, context.Background(), `{"prompt":"x","stream":true}`)
			if err != nil {
				bodies <- err.Error()
				return
			}
			body, err := io.ReadAll(resp.Body)
			bodies <- fmt.Sprint(string(body), err)
		}()
	}
	eventually(t, "all streams run", func() bool { return f.open.Load() == int64(cap(bodies)) })
	s.drain()
	eventually(t, "readiness goes off", func() bool { return do(s.Handler(), "GET", "/health", "").Code == 503 })
	w := do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x"}`)
	require.Equal(t, 503, w.Code)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
	close(f.gate)
	for range cap(bodies) {
		require.True(t, strings.HasSuffix(<-bodies, "data: [DONE]\n\n<nil>"), "a stream was cut")
	}
	require.NoError(t, s.wait(t))
}

func TestDrainLimitAndStop(t *testing.T) {
	for name, end := range map[string]func(*served){
		"limit":         func(s *served) { s.drain() },
		"at once":       func(s *served) { s.drain() },
		"second signal": func(s *served) { s.drain(); s.stop() },
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeEngine("abc")
			f.gate = make(chan struct{}, 1)
			cfg := Config{DrainTimeout: time.Hour}
			switch name {
			case "limit":
				cfg.DrainTimeout = 10 * time.Millisecond
			case "at once":
				cfg.DrainTimeout = -1
			}
			s := serveInBubble(t, f, cfg, nil)
			f.gate <- struct{}{}
			resp, err := s.post(t, t.Context(), `{"prompt":"x","stream":true}`)
			require.NoError(t, err)
			whole := make(chan int, 1)
			go func() {
				resp, err := s.post(t, t.Context(), `{"prompt":"x"}`)
				if err == nil {
					_ = resp.Body.Close()
					whole <- resp.StatusCode
				}
			}()
			synctest.Wait()
			require.EqualValues(t, 2, f.open.Load(), "both run")
			begin := time.Now()
			end(s)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Contains(t, string(body), `"code":"engine_closed"`, name)
			require.Equal(t, http.StatusServiceUnavailable, <-whole, name)
			require.NoError(t, s.wait(t))
			require.Less(t, time.Since(begin), 10*time.Millisecond+lastWords, name)
			synctest.Wait()
			require.Zero(t, f.open.Load(), "no request is left open")
		})
	}
}
