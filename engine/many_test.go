package engine

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// eachToken calls for each token of a stream as it comes.
func eachToken(t *testing.T, s *Stream, each func()) {
	for ev, ok := s.Next(t.Context()); ok; ev, ok = s.Next(t.Context()) {
		if ev.HasToken {
			each()
		}
	}
}

// submitMany submits n requests of so many tokens, each with a reader.
func submitMany(t *testing.T, e *Engine, n, tokens int, readers *sync.WaitGroup, each func()) {
	for i := range n {
		s, err := e.Submit(t.Context(), Request{Prompt: []int32{int32(i%50 + 1)}, MaxTokens: tokens, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}})
		require.NoError(t, err)
		readers.Go(func() { eachToken(t, s, each) })
	}
}

// TestMoreDecodesThanTokensAtStart: limits that were raised far beyond the start's are used.
func TestMoreDecodesThanTokensAtStart(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		const n, tokens = 100, 200
		c.MaxNumSeqs, c.MaxNumBatchedTokens, c.NumGPUBlocksOverride, c.MaxModelLen = 8, 16, 2000, 512
		f, began := &fake{}, make(chan struct{})
		f.onStep = func() { <-began } // all requests are there
		e := startFake(t, f, c)
		require.NoError(t, e.Reconfigure(t.Context(), Limits{MaxNumSeqs: n, MaxNumBatchedTokens: n, LongPrefillTokenThreshold: 1}))
		var readers sync.WaitGroup
		var got atomic.Int64
		submitMany(t, e, n, tokens, &readers, func() { got.Add(1) })
		close(began)
		readers.Wait()
		require.EqualValues(t, n*tokens, got.Load())
	})
}

// TestTokensAreCountedOnce: an engine that is closed under load has counted what its readers got.
func TestTokensAreCountedOnce(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		const n = 64
		c.MaxNumSeqs, c.MaxNumBatchedTokens, c.NumGPUBlocksOverride, c.MaxModelLen = n, 512, 4000, 1024
		f, began := &fake{}, make(chan struct{})
		f.onStep = func() { <-began } // all requests are there
		e := startFake(t, f, c)
		var readers sync.WaitGroup
		var got atomic.Int64
		closed := make(chan error)
		submitMany(t, e, n, 1000, &readers, func() {
			if got.Add(1) == 50*n {
				go func() { closed <- e.Close() }()
			}
		})
		close(began)
		readers.Wait()
		require.NoError(t, <-closed)
		require.Equal(t, got.Load(), e.Stats().GenerationTokens)
	})
}

// TestMasksHoldBackNobodysTokens: while the engine waits for a slow mask, others read what was drawn.
func TestMasksHoldBackNobodysTokens(t *testing.T) {
	var got atomic.Int64
	var e *Engine
	masks, heldBack := 0, false
	slow := &scripted{mask: func(mask []uint32) (bool, error) {
		if masks++; masks >= 6 {
			for got.Load() < e.Stats().GenerationTokens && !heldBack {
				heldBack = e.Stats().FinishedError > 0 // the engine has given up waiting
				runtime.Gosched()
			}
		}
		return all(mask)
	}}
	c := Config{AsyncScheduling: "on", MaxNumSeqs: 64, MaxNumBatchedTokens: 512, NumGPUBlocksOverride: 4000, MaxModelLen: 1024}
	f, began := &fake{}, make(chan struct{})
	f.onStep = func() { <-began } // all requests are there
	e = startFake(t, f, c)
	var readers sync.WaitGroup
	submitMany(t, e, 20, 300, &readers, func() { got.Add(1) })
	s, err := e.Submit(t.Context(), Request{Prompt: []int32{21}, MaxTokens: 30, IgnoreEOS: true, Constrain: constrain(slow), Sampling: Sampling{Logprobs: -1}})
	require.NoError(t, err)
	readers.Go(func() { eachToken(t, s, func() { got.Add(1) }) })
	close(began)
	readers.Wait()
	require.Greater(t, masks, 20)
	require.False(t, heldBack, "tokens that were counted came only after the mask")
}

// TestManyReadersGoAway: readers of hundreds of streams that cancel at some token get what was drawn
// until then, in its order, and one end; the others' outputs are whole. Limits change meanwhile.
func TestManyReadersGoAway(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		const n, tokens = 150, 60
		c.MaxNumSeqs, c.MaxNumBatchedTokens, c.NumGPUBlocksOverride, c.MaxModelLen, c.SwapSpace, c.PreemptionMode = n, 1024, 500, 256, 64<<10, "swap"
		e := startFake(t, &fake{swapPolls: 2}, c)
		var readers sync.WaitGroup
		got, finish, wants := make([][]int32, n), make([][]FinishReason, n), make([][]int32, n)
		leaves := func(i int) int { return i * 7 % (2 * tokens) } // half of them stay
		for i := range n {
			r := Request{Prompt: prompt(i, 5+i%20), MaxTokens: tokens, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}}
			wants[i], _ = expect(&r, tokens, 0)
			ctx, cancel := context.WithCancel(t.Context())
			s, err := e.Submit(ctx, r)
			require.NoError(t, err)
			readers.Go(func() {
				defer cancel()
				for {
					if len(got[i]) == leaves(i) {
						cancel()
					}
					ev, ok := s.Next(context.Background())
					if !ok {
						return
					}
					if ev.HasToken {
						got[i] = append(got[i], ev.Token)
					}
					if ev.Finish != FinishNone {
						finish[i] = append(finish[i], ev.Finish)
					}
				}
			})
		}
		for i := range 6 {
			require.NoError(t, e.Reconfigure(t.Context(), Limits{MaxNumSeqs: []int{40, n}[i%2], NumGPUBlocksOverride: []int{300, 500}[i%2]}))
		}
		readers.Wait()
		for i := range n {
			want := FinishLength
			if len(got[i]) < tokens {
				want = FinishAbort
				require.GreaterOrEqual(t, len(got[i]), leaves(i), "stream %d", i)
			}
			require.Equal(t, []FinishReason{want}, finish[i], "stream %d", i)
			require.Equal(t, wants[i][:len(got[i])], append([]int32{}, got[i]...), "stream %d", i)
		}
		require.Zero(t, e.Stats().BlocksUsed)
	})
}

// TestNothingLongHoldsBackTokens: before a prompt is launched, and before a job, many readers have what
// was drawn.
func TestNothingLongHoldsBackTokens(t *testing.T) {
	const n, tokens, rounds = 20, 200, 5
	var got atomic.Int64
	var e *Engine
	allRead := func() {
		for got.Load() < e.Stats().GenerationTokens {
			runtime.Gosched()
		}
	}
	c := quiet(Config{AsyncScheduling: "on", MaxNumSeqs: 64, MaxNumBatchedTokens: 512, NumGPUBlocksOverride: 4000, MaxModelLen: 1024})
	require.NoError(t, c.validate())
	f, prompts := &fake{}, 0
	src := fakeSource(f, 1024)
	src.load = func(kernels.Backend) (*loaded, error) {
		return &loaded{forward: func(b *kernels.Batch) {
			if b.NumDecodes < b.NumSeqs() {
				allRead()
				prompts++
			}
			f.Launch(b, nil)
		}, weightBytes: 1 << 20}, nil
	}
	var err error
	e, err = start(c, src)
	require.NoError(t, err)
	var readers sync.WaitGroup
	milestones := make(chan struct{}, rounds)
	read := func() { // of any token, a late one, too: no milestone is passed over
		if v := got.Add(1); v%(n*tokens/10) == 0 && v/(n*tokens/10) <= rounds {
			milestones <- struct{}{}
		}
	}
	submitMany(t, e, n, tokens, &readers, read)
	for range rounds {
		<-milestones
		var late sync.WaitGroup
		submitMany(t, e, 1, 3, &late, read)
		late.Wait()
		require.NoError(t, e.alone(t.Context(), func(*loop) bool { allRead(); return true }))
	}
	readers.Wait()
	require.NoError(t, e.Close())
	require.Greater(t, prompts, rounds)
}
