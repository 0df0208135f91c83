package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/bench"
	"github.com/pagoda-engine/pagoda/engine"
)

const (
	overheadStreams = 64
	overheadTokens  = 160 // of each
	overheadRounds  = 5   // of each arm, interleaved
)

// BenchmarkServer compares 64 streams through HTTP, JSON, SSE and the detokenizer with
// the same 64 requests given to the engine in this process, and times /metrics and
// /health meanwhile. The client, which reads and drops, runs on the same cores.
func BenchmarkServer(b *testing.B) {
	s := startServer(b, engine.Config{MaxNumSeqs: overheadStreams, MaxModelLen: 1024, MaxNumBatchedTokens: 2048})
	prompts := make([][]int32, overheadStreams)
	for i := range prompts {
		for j := range 24 {
			prompts[i] = append(prompts[i], int32((i*131+j*j*17)%2000))
		}
	}
	var direct, served, probes []float64
	for b.Loop() {
		for range overheadRounds {
			direct = append(direct, rate(b, prompts, s.direct))
			done := make(chan struct{})
			var probing sync.WaitGroup
			probing.Go(func() { probes = append(probes, s.probe(done)...) })
			served = append(served, rate(b, prompts, s.raw))
			close(done)
			probing.Wait()
		}
	}
	slices.Sort(direct)
	slices.Sort(served)
	slices.Sort(probes)
	in, out := bench.Percentile(direct, 50), bench.Percentile(served, 50)
	b.ReportMetric(in, "engine-tok/s")
	b.ReportMetric(out, "http-tok/s")
	b.ReportMetric(100*(in/out-1), "%cost")
	b.ReportMetric(bench.Percentile(probes, 99), "probe-p99-ms")
}

// rate runs all prompts at once and returns tokens/s.
func rate(b *testing.B, prompts [][]int32, one func(context.Context, []int32) error) float64 {
	begin := time.Now()
	errs := make([]error, len(prompts))
	var all sync.WaitGroup
	for i := range prompts {
		all.Go(func() { errs[i] = one(b.Context(), prompts[i]) })
	}
	all.Wait()
	for _, err := range errs {
		require.NoError(b, err)
	}
	return float64(len(prompts)*overheadTokens) / time.Since(begin).Seconds()
}

// direct is a request in this process.
func (s *liveServer) direct(ctx context.Context, prompt []int32) error {
	stream, err := s.engine.Submit(ctx, engine.Request{Prompt: prompt, MaxTokens: overheadTokens, IgnoreEOS: true, Sampling: engine.Sampling{Logprobs: -1}})
	if err != nil {
		return err
	}
	for {
		ev, ok := stream.Next(ctx)
		if !ok {
			return ctx.Err()
		}
		if ev.Err != nil {
			return ev.Err
		}
	}
}

// raw is a request over a connection of its own, streamed.
func (s *liveServer) raw(_ context.Context, prompt []int32) error {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		return err
	}
	defer conn.Close()
	body := fmt.Sprintf(`{"model":"demo","prompt":%s,"max_tokens":%d,"ignore_eos":true,"stream":true,"temperature":0}`, jsonIDs(prompt), overheadTokens)
	if _, err := fmt.Fprintf(conn, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// probe asks /metrics and /health in turn until done is closed and returns how long
// each answer took, in ms.
func (s *liveServer) probe(done <-chan struct{}) (ms []float64) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-done:
			return ms
		case <-ticker.C:
		}
		begin := time.Now()
		response, err := s.http.Get(s.url + []string{"/metrics", "/health"}[i%2])
		if err != nil {
			return append(ms, 1e9) // shows
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		ms = append(ms, float64(time.Since(begin).Microseconds())/1000)
	}
}
