package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// TestReconfigureWhileServing: every limit goes up and down under requests whose
// tokens stay what they must be, in both loops, and the ledger always adds up.
func TestReconfigureWhileServing(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		c.NumGPUBlocksOverride, c.MaxNumSeqs, c.MaxNumBatchedTokens, c.SwapSpace = 60, 4, 16, 16<<10
		e := startFake(t, &fake{swapPolls: 2}, c)
		var requests []Request
		var streams []*Stream
		for i := range 12 {
			r := Request{Prompt: prompt(i%3, 40+i), MaxTokens: 200, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}}
			s, err := e.Submit(context.Background(), r)
			require.NoError(t, err)
			requests, streams = append(requests, r), append(streams, s)
		}
		for _, l := range []Limits{
			{NumGPUBlocksOverride: 20},
			{MaxNumSeqs: 8, MaxNumBatchedTokens: 64},
			{NumGPUBlocksOverride: 100, SwapSpace: -1},
			{MaxNumSeqs: 1},
			{NumGPUBlocksOverride: 17, SwapSpace: 1 << 20},
			{MaxNumSeqs: 12, GPUMemoryUtilization: 0.5},
			{PreemptionMode: "swap", Watermark: -1, MaxNumMixedTokens: 20, LongPrefillTokenThreshold: 8, TargetITL: time.Millisecond},
			{PreemptionMode: "recompute", Watermark: 0.1, MaxNumMixedTokens: -1, LongPrefillTokenThreshold: -1, TargetITL: -1},
		} {
			require.NoError(t, e.Reconfigure(context.Background(), l), "%+v", l)
			info, st := e.Info(), e.Stats()
			if l.NumGPUBlocksOverride > 0 {
				require.Equal(t, l.NumGPUBlocksOverride, info.NumBlocks)
			}
			require.Equal(t, info.NumBlocks, st.BlocksTotal)
			require.Equal(t, info.HostBlocks, st.HostBlocksTotal)
			var sum int64
			for _, entry := range e.Ledger() {
				sum += entry.Bytes
			}
			require.EqualValues(t, 1<<29, sum)
			for name, value := range map[string]string{"preemption-mode": l.PreemptionMode, "watermark": map[float64]string{-1: "0", 0.1: "0.1"}[l.Watermark], "max-num-mixed-tokens": map[int]string{-1: "none", 20: "20"}[l.MaxNumMixedTokens]} {
				if i := slices.IndexFunc(e.Settings(), func(s Setting) bool { return s.Name == name }); value != "" {
					require.Equal(t, value, e.Settings()[i].Value, name)
				}
			}
		}
		for i, s := range streams {
			want, _ := expect(&requests[i], 200, 0)
			got, last := readAll(t, s)
			require.Equal(t, want, got)
			require.Equal(t, FinishLength, last.Finish)
		}
	})
}

// TestLimitsComeBack: a smaller device is pretended live, and Limits brings back
// what was there.
func TestLimitsComeBack(t *testing.T) {
	e := startFake(t, &fake{}, Config{MaxNumSeqs: 4, MaxNumBatchedTokens: 64, SwapSpace: -1, MaxModelLen: 200, MemoryLimit: 1 << 25})
	values := func() (values []string) {
		for _, s := range e.Settings() {
			values = append(values, s.Name+" "+s.Value)
		}
		return values
	}
	before, info, settings := e.Limits(), e.Info(), values()
	require.NoError(t, e.Reconfigure(context.Background(), Limits{
		MemoryLimit: 1 << 24, MaxNumSeqs: 2, SwapSpace: 1 << 20, Watermark: 0.5, MaxNumMixedTokens: 20, LongPrefillTokenThreshold: 16, TargetITL: 1, PreemptionMode: "swap",
	}))
	require.Less(t, e.Info().NumBlocks, info.NumBlocks)
	var sum int64
	for _, entry := range e.Ledger() {
		sum += entry.Bytes
	}
	require.EqualValues(t, 1<<24, sum, "the ledger is of the smaller device")
	require.ErrorIs(t, e.Reconfigure(context.Background(), Limits{MemoryLimit: 1 << 10}), ErrMemory)
	require.NoError(t, e.Reconfigure(context.Background(), Limits{MemoryLimit: 1 << 40}), "more than there is")
	require.Equal(t, info.NumBlocks, e.Info().NumBlocks)
	require.NoError(t, e.Reconfigure(context.Background(), before))
	require.Equal(t, before, e.Limits())
	require.Equal(t, info, e.Info())
	require.Equal(t, settings, values())
}

// TestNoLogprobs: none is a number, too, and does not become the default when limits change.
func TestNoLogprobs(t *testing.T) {
	f := &fake{}
	e := startFake(t, f, Config{NumGPUBlocksOverride: 40, MaxNumSeqs: 4, MaxLogprobs: -1})
	require.Contains(t, e.Settings(), Setting{"max-logprobs", "0", "given"})
	require.NoError(t, e.Reconfigure(t.Context(), Limits{MaxNumSeqs: 3}))
	require.NoError(t, e.Reconfigure(t.Context(), Limits{MaxNumSeqs: 4}))
	require.Contains(t, e.Settings(), Setting{"max-logprobs", "0", "given"})
	require.Zero(t, f.now.MaxTopLogprobs)
	require.Zero(t, e.Info().MaxLogprobs)
	_, err := e.Submit(t.Context(), Request{Prompt: prompt(1, 1), MaxTokens: 1, Sampling: Sampling{Logprobs: 1}})
	require.ErrorIs(t, err, ErrInvalid)
}

// TestReconfigureRefuses: what cannot be is refused with the arithmetic, and
// nothing has changed.
func TestReconfigureRefuses(t *testing.T) {
	e := startFake(t, &fake{}, Config{NumGPUBlocksOverride: 100, MaxNumSeqs: 4, MemoryLimit: 1 << 24})
	before := e.Info()
	for says, l := range map[string]Limits{
		"--max-num-seqs -1":          {MaxNumSeqs: -1},
		"below --max-num-seqs":       {MaxNumSeqs: 64, MaxNumBatchedTokens: 32},
		"room was reserved":          {MaxNumSeqs: 5000, MaxNumBatchedTokens: 9000},
		"KV blocks":                  {NumGPUBlocksOverride: 1 << 20},
		"--gpu-memory-utilization 2": {GPUMemoryUtilization: 2},
		"at least two blocks of":     {KVCacheMemoryBytes: 100},
		"the smallest KV pool":       {GPUMemoryUtilization: 0.001},
	} {
		err := e.Reconfigure(context.Background(), l)
		require.ErrorContains(t, err, says)
		require.Equal(t, before, e.Info())
	}
}

// TestReconfigureRefusesToFailARequest: a pool that could no longer hold a request
// that is there is refused; the request that comes after a shrink and cannot fit
// is.
func TestReconfigureRefusesToFailARequest(t *testing.T) {
	e := startFake(t, &fake{}, Config{NumGPUBlocksOverride: 100, MaxNumSeqs: 4})
	ctx, cancel := context.WithCancel(context.Background())
	s, err := e.Submit(ctx, Request{Prompt: prompt(1, 40), MaxTokens: 1500, IgnoreEOS: true})
	require.NoError(t, err)
	err = e.Reconfigure(context.Background(), Limits{NumGPUBlocksOverride: 50})
	if err != nil { // it had not ended yet
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, "may come to need 97")
	}
	cancel()
	readAll(t, s)
	require.NoError(t, e.Reconfigure(context.Background(), Limits{NumGPUBlocksOverride: 50}))
	_, err = e.Submit(context.Background(), Request{Prompt: prompt(1, 40), MaxTokens: 1500})
	require.ErrorIs(t, err, ErrNeverFits)
	require.ErrorContains(t, err, "the pool has 50")
}

// noLimits is a device that has no memory for other limits.
type noLimits struct{ kernels.Backend }

func (noLimits) SetLimits(kernels.Limits) error { return errors.New("injected") }

// TestReconfigureSeesWhoArrives: a request that Submit has accepted counts for new limits, whether
// the engine has taken it or not.
func TestReconfigureSeesWhoArrives(t *testing.T) {
	e, l := newTestLoop(t, &fake{}, Config{NumGPUBlocksOverride: 100, MaxNumSeqs: 4})
	r := Request{Prompt: prompt(1, 40), MaxTokens: 1000, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}}
	s, err := e.Submit(t.Context(), r)
	require.NoError(t, err)
	err = l.beginReconfigure(Limits{NumGPUBlocksOverride: 50}, make(chan error, 1))
	require.ErrorIs(t, err, ErrConfig)
	require.ErrorContains(t, err, "may come to need 65")
	require.Equal(t, 100, e.Info().NumBlocks)
	device := l.backend
	l.backend = noLimits{device}
	require.ErrorIs(t, l.beginReconfigure(Limits{NumGPUBlocksOverride: 65}, make(chan error, 1)), ErrMemory)
	require.Equal(t, 100, e.Info().NumBlocks)
	l.backend = device
	require.NoError(t, l.beginReconfigure(Limits{NumGPUBlocksOverride: 65}, make(chan error, 1)))
	e.enter(stateDraining)
	require.NoError(t, l.run())
	want, _ := expect(&r, 1000, 0)
	got, _ := readAll(t, s)
	require.Equal(t, want, got)
	l.stop(nil)
}

// TestNoAcceptedRequestNeverFits: while the pool shrinks and grows, what is submitted is refused at
// once or served.
func TestNoAcceptedRequestNeverFits(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		e := startFake(t, &fake{}, c)
		var client sync.WaitGroup
		var stop atomic.Bool
		client.Go(func() {
			for !stop.Load() {
				ctx, cancel := context.WithCancel(t.Context())
				s, err := e.Submit(ctx, Request{Prompt: prompt(1, 40), MaxTokens: 21*16 - 40, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}})
				cancel()
				if err == nil {
					_, last := readAll(t, s)
					err = last.Err
				} else if errors.Is(err, ErrNeverFits) {
					err = nil // it is told at once
				}
				assertNoError(t, err)
			}
		})
		for shrunk := 0; shrunk < 300; {
			if e.Reconfigure(t.Context(), Limits{NumGPUBlocksOverride: 20}) == nil {
				shrunk++
			}
			assertNoError(t, e.Reconfigure(t.Context(), Limits{NumGPUBlocksOverride: 64}))
		}
		stop.Store(true)
		client.Wait()
	})
}

// TestReconfigureOutlivesItsCaller: limits whose caller gave up while the pool was
// shrinking come into force all the same, and do not stand in the way of others.
func TestReconfigureOutlivesItsCaller(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		c.NumGPUBlocksOverride, c.SwapSpace, c.PreemptionMode = 60, 1<<20, "swap"
		ctx, cancel := context.WithCancel(context.Background())
		f := &fake{swapPolls: 3}
		e := startFake(t, f, c)
		var streams []*Stream
		for i := range 6 {
			s, err := e.Submit(context.Background(), Request{Prompt: prompt(i, 100), MaxTokens: 150, IgnoreEOS: true})
			require.NoError(t, err)
			streams = append(streams, s)
		}
		began := make(chan struct{})
		require.NoError(t, e.call(context.Background(), func(l *loop) {
			l.jobs = append(l.jobs, job{run: func(l *loop) bool {
				require.NoError(t, l.beginReconfigure(Limits{NumGPUBlocksOverride: 20}, make(chan error, 1)))
				close(began)
				cancel()
				return true
			}, drop: func(error) {}})
		}))
		<-began
		require.ErrorIs(t, e.Reconfigure(ctx, Limits{NumGPUBlocksOverride: 30}), context.Canceled)
		for _, s := range streams {
			_, last := readAll(t, s)
			require.Equal(t, FinishLength, last.Finish)
		}
		require.NoError(t, e.Reconfigure(context.Background(), Limits{NumGPUBlocksOverride: 40}))
		require.Equal(t, 40, e.Info().NumBlocks)
		require.Equal(t, 41, f.numBlocks, "memory was not given back")
	})
}

// TestChoicesShareTheirPrompt: the prompt is computed once, and every choice gets
// its own tokens.
func TestChoicesShareTheirPrompt(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		c.NumGPUBlocksOverride, c.MaxNumSeqs = 100, 8
		for _, length := range []int{1, 15, 16, 17, 100} {
			e := startFake(t, &fake{}, c)
			r := Request{Prompt: prompt(1, length), MaxTokens: 30, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}}
			streams, err := e.SubmitChoices(slices.Repeat([]context.Context{context.Background()}, 5), r)
			require.NoError(t, err)
			for i, s := range streams {
				r.Sampling.Choice = int32(i)
				want, _ := expect(&r, 30, 0)
				got, _ := readAll(t, s)
				require.Equal(t, want, got, "choice %d of a prompt of %d", i, length)
			}
			st := e.Stats()
			require.Zero(t, st.BlocksUsed)
			if length == 1 {
				continue // nothing to share
			}
			require.EqualValues(t, 4, st.Forks)
			require.EqualValues(t, 4*b2i(length%16 != 1), st.CopiedBlocks, "the partial block is copied for each")
			require.EqualValues(t, 4*(length-1), st.PrefixHits, "only the last token is computed again")
		}
	})
}

// TestCancelledChoices: choices that were cancelled before the engine saw them, the first among them,
// compute nothing, and the others' prompt is computed once all the same.
func TestCancelledChoices(t *testing.T) {
	e, l := newTestLoop(t, &fake{}, Config{NumGPUBlocksOverride: 100, MaxNumSeqs: 8, DisablePrefixCaching: true})
	r := Request{Prompt: prompt(1, 100), MaxTokens: 30, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}}
	streams, err := e.SubmitChoices(slices.Repeat([]context.Context{t.Context()}, 6), r)
	require.NoError(t, err)
	cancelled := []bool{true, true, false, false, true, false}
	first := <-e.inbox
	e.inbox <- first
	for q := first; q != nil; q = q.sibling {
		if cancelled[q.sampling.Choice] {
			e.abort(q)
		}
	}
	e.enter(stateDraining)
	require.NoError(t, l.run())
	for i, s := range streams {
		got, last := readAll(t, s)
		if cancelled[i] {
			require.Equal(t, FinishAbort, last.Finish)
			require.Empty(t, got)
			continue
		}
		r.Sampling.Choice = int32(i)
		want, _ := expect(&r, 30, 0)
		require.Equal(t, want, got, "choice %d", i)
	}
	require.EqualValues(t, 100+2+3*29, e.Stats().StepTokens, "the prompt, its last token for two more, and what follows of three")
	require.EqualValues(t, 2, e.Stats().Forks)
	l.stop(nil)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestQueueBounds: requests and tokens that wait are bounded, choices count one
// each, and what was refused is counted nowhere.
func TestQueueBounds(t *testing.T) {
	hold := make(chan struct{})
	f := &fake{hold: hold}
	e := startFake(t, f, Config{NumGPUBlocksOverride: 100, MaxNumSeqs: 1, MaxQueuedReqs: 5, MaxQueuedTokens: 100})
	ctx, cancel := context.WithCancel(context.Background())
	first, err := e.Submit(ctx, Request{Prompt: prompt(1, 20), MaxTokens: 3, IgnoreEOS: true})
	require.NoError(t, err)
	hold <- struct{}{} // it runs: no longer queued
	_, err = e.Submit(ctx, Request{Prompt: prompt(1, 90), MaxTokens: 1})
	require.NoError(t, err)
	_, err = e.Submit(ctx, Request{Prompt: prompt(1, 11), MaxTokens: 1})
	require.ErrorIs(t, err, ErrQueueFull)
	require.ErrorContains(t, err, "--max-num-queued-tokens 100")
	_, err = e.SubmitChoices(slices.Repeat([]context.Context{ctx}, 5), Request{Prompt: prompt(1, 1), MaxTokens: 1})
	require.ErrorIs(t, err, ErrQueueFull)
	require.ErrorContains(t, err, "--max-num-queued-reqs")
	_, err = e.SubmitChoices(slices.Repeat([]context.Context{ctx}, 6), Request{Prompt: prompt(1, 1), MaxTokens: 1})
	require.ErrorIs(t, err, ErrInvalid)
	_, err = e.SubmitChoices(slices.Repeat([]context.Context{ctx}, 4), Request{Prompt: prompt(1, 2), MaxTokens: 1})
	require.NoError(t, err)
	require.EqualValues(t, 5, e.queued.Load())
	require.EqualValues(t, 98, e.queuedTokens.Load())
	cancel()
	close(hold)
	readAll(t, first)
	require.NoError(t, e.Shutdown(context.Background()))
	require.Zero(t, e.queued.Load())
	require.Zero(t, e.queuedTokens.Load())
}

// TestMixedTokensLive: prompts beside a decode keep to its budget of a step, and to
// another from the step on that follows a change; 0 of a change leaves it as it is.
func TestMixedTokensLive(t *testing.T) {
	e, l := newTestLoop(t, &fake{}, Config{NumGPUBlocksOverride: 200, MaxNumSeqs: 4, MaxNumBatchedTokens: 256, MaxNumMixedTokens: 64})
	submit := func(tokens int) {
		_, err := e.Submit(t.Context(), Request{Prompt: prompt(tokens%3, tokens), MaxTokens: 40, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}})
		require.NoError(t, err)
		require.True(t, l.receive())
	}
	tokens := func() int {
		s := l.schedule()
		l.launch(s)
		l.draw(s)
		require.NoError(t, l.collect(s))
		return s.record.Tokens
	}
	change := func(limits Limits) {
		settled := make(chan error, 1)
		require.NoError(t, l.beginReconfigure(limits, settled))
		require.NoError(t, <-settled)
	}
	submit(200)
	require.Equal(t, 200, tokens(), "nobody decodes")
	submit(1000)
	require.Equal(t, 64, tokens())
	change(Limits{MaxNumSeqs: 3})
	require.Equal(t, 64, tokens())
	change(Limits{MaxNumMixedTokens: 30})
	require.Equal(t, 30, tokens())
	change(Limits{MaxNumMixedTokens: -1})
	require.Equal(t, 256, tokens())
	l.stop(nil)
}
