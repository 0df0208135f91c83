package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/server"
)

var soakRequests = flag.Int("soak-requests", 4000, "requests of TestServerSoak")

// smallestModel is a model whose steps cost next to nothing, so that a soak is all
// scheduler, KV cache and HTTP.
const smallestModel = `{
	"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
	"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
	"vocab_size": 64, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000, "tie_word_embeddings": true,
	"eos_token_id": 63, "torch_dtype": "bfloat16"
}`

// soakBlocks is the KV pool: the largest request takes 7 of them.
const soakBlocks = 9

// soak sends requests of token ids to a server, a tenth of which leave early.
type soak struct {
	url        string
	client     *http.Client
	left, told atomic.Int64 // requests that left, and that were answered
}

// one sends request number i.
func (s *soak) one(ctx context.Context, i int) error {
	r := rand.New(rand.NewPCG(uint64(i), 7))
	ids := make([]int32, 1+r.IntN(60))
	for j := range ids {
		ids[j] = int32(r.IntN(62))
	}
	ids[0] = int32(r.IntN(4)) // some share a beginning, most do not
	leave, stream := r.IntN(10) == 0, r.IntN(2) == 0
	body := fmt.Appendf(nil, `{"model":"x","prompt":%s,"max_tokens":%d,"ignore_eos":true,"stream":%t,"seed":%d}`, jsonIDs(ids), 1+r.IntN(40), stream || leave, i)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", s.url+"/v1/completions", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("request %d: status %d: %s", i, resp.StatusCode, text)
	}
	if leave {
		s.left.Add(1)
		_, _ = bufio.NewReader(resp.Body).ReadString('\n') // it may have ended by then
		return nil
	}
	s.told.Add(1)
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func jsonIDs(ids []int32) string {
	text := []byte{'['}
	for i, id := range ids {
		if i > 0 {
			text = append(text, ',')
		}
		text = fmt.Append(text, id)
	}
	return string(append(text, ']'))
}

// residentBytes is the process's resident memory once garbage is given back.
func residentBytes(t *testing.T) float64 {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	require.NoError(t, err)
	var size, resident int64
	_, err = fmt.Sscan(string(text), &size, &resident)
	require.NoError(t, err)
	return float64(resident * int64(os.Getpagesize()))
}

// slope is the least-squares slope of y over x.
func slope(x, y []float64) float64 {
	var mx, my, xy, xx float64
	for i := range x {
		mx += x[i] / float64(len(x))
		my += y[i] / float64(len(x))
	}
	for i := range x {
		xy += (x[i] - mx) * (y[i] - my)
		xx += (x[i] - mx) * (x[i] - mx)
	}
	return xy / xx
}

// TestServerSoak: many short requests through the real server and engine, on a pool
// that is always full, with a tenth of the clients leaving early: no memory, no
// block and no goroutine is lost. `make server-soak` runs a million.
func TestServerSoak(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(smallestModel), 0o644))
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	e, err := engine.New(engine.Config{
		Model: dir, LoadFormat: "dummy", Device: "cpu", Threads: 1, NumGPUBlocksOverride: soakBlocks, SwapSpace: 1 << 16, MaxNumSeqs: 64, MemoryLimit: 1 << 30, Log: quiet,
	})
	require.NoError(t, err)
	defer e.Close()
	srv, err := server.New(server.Config{ModelNames: []string{"x"}, Log: quiet}, server.AdaptEngine(e), nil, nil)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	drain, end := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(drain, context.Background(), listener) }()

	const workers, windows = 64, 50
	transport := &http.Transport{MaxIdleConnsPerHost: workers}
	s := &soak{url: "http://" + listener.Addr().String(), client: &http.Client{Transport: transport}}
	var used, looks float64
	var at, resident []float64
	before := 0
	for w := range windows {
		first, last := *soakRequests*w/windows, *soakRequests*(w+1)/windows
		release, sent := hold(t, e), make(chan error, 1)
		go func() { sent <- s.window(t.Context(), first, last, workers) }()
		require.Eventually(t, func() bool { return e.Stats().Waiting == min(workers, last-first) }, patience, time.Millisecond, "the pool is short, however slow the clients")
		release()
		require.NoError(t, <-sent)
		for _, r := range e.Steps(1000) {
			if r.Waiting > 0 {
				used += float64(r.Pool.Used) / soakBlocks
				looks++
			}
		}
		require.Eventually(t, func() bool {
			st := e.Stats()
			return st.Running+st.Waiting+st.BlocksUsed+st.BlocksInFlight+st.HostBlocksUsed+st.HostBlocksInFlight == 0
		}, patience, time.Millisecond, "requests whose clients left, and their blocks, after %d requests", last)
		if w == 0 {
			before = runtime.NumGoroutine()
		}
		if w >= windows/5 {
			at, resident = append(at, float64(last)), append(resident, residentBytes(t))
		}
	}
	growth, st := slope(at, resident), e.Stats()
	t.Logf("%d requests, %d of them left early; pool %.0f %% used on average while requests wait, %d swaps, %d recomputes; resident memory grows by %.1f B a request, from %.1f to %.1f MB",
		*soakRequests, s.left.Load(), 100*used/looks, st.PreemptionsSwap, st.PreemptionsRecompute, growth, resident[0]/1e6, resident[len(resident)-1]/1e6)
	require.Positive(t, st.PreemptionsSwap+st.PreemptionsRecompute, "the pool was never short")
	require.Greater(t, used/looks, 0.6, "the pool is full but for what is on its way")
	require.Zero(t, st.FinishedError)
	if *soakRequests >= 1e6 {
		require.Less(t, growth, 16.0) // of fewer the noise of one garbage collection would be more
	}
	transport.CloseIdleConnections()
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before }, patience, time.Millisecond, "goroutines of connections")
	end()
	require.NoError(t, <-served)
}

// window sends requests first to last−1, as many at a time as there are workers.
func (s *soak) window(ctx context.Context, first, last, workers int) error {
	var next atomic.Int64
	next.Store(int64(first))
	errs := make(chan error, workers)
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= last {
					return
				}
				if err := s.one(ctx, i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
