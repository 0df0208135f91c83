package engine

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/pagoda-engine/pagoda/kernels"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// prompt is n ids that depend on the seed.
func prompt(seed, n int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(1 + (seed*13+i*i)%(fakeVocab-1))
	}
	return ids
}

func loops(t *testing.T, test func(t *testing.T, c Config)) {
	for _, async := range []string{"off", "on"} {
		t.Run("async "+async, func(t *testing.T) { test(t, Config{AsyncScheduling: async, NumGPUBlocksOverride: 64, MaxNumSeqs: 8}) })
	}
}

func TestManyClients(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		e := startFake(t, &fake{}, c)
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				r := Request{Prompt: prompt(i%7, 1+i), MaxTokens: 40, Sampling: Sampling{Logprobs: -1, Seed: uint64(i)}}
				s, err := e.Submit(context.Background(), r)
				if !assertNoError(t, err) {
					return
				}
				var got []int32
				for {
					ev, ok := s.Next(context.Background())
					if !ok {
						break
					}
					got = append(got, ev.Token)
				}
				want, _ := expect(&r, 40, 0)
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("request %d: %v, want %v", i, got, want)
				}
			})
		}
		wg.Wait()
		require.NoError(t, e.Shutdown(context.Background()))
		st := e.Stats()
		require.Zero(t, st.BlocksUsed)
		require.EqualValues(t, 64, st.FinishedStop+st.FinishedLength)
		require.NotEmpty(t, e.Steps(10), "records can be read after the end")
	})
}

func assertNoError(t *testing.T, err error) bool {
	if err != nil {
		t.Error(err)
	}
	return err == nil
}

// TestStopConditions has lines 35 to 39 of vLLM's behaviours as their tests
// describe them, on whole requests: what the fake draws is known beforehand.
func TestStopConditions(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		e := startFake(t, &fake{}, c)
		free := Request{Prompt: prompt(3, 20), MaxTokens: 200, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}}
		chain, _ := expect(&free, 200, 0)
		eos := indexOf(t, chain, 0)
		run := func(change func(r *Request)) ([]int32, Event) {
			r := free
			change(&r)
			s, err := e.Submit(context.Background(), r)
			require.NoError(t, err)
			return readAll(t, s)
		}
		t.Run("end of sequence", func(t *testing.T) { // 35
			got, last := run(func(r *Request) { r.IgnoreEOS = false })
			require.Equal(t, chain[:eos+1], got)
			require.Equal(t, FinishStop, last.Finish)
			require.Zero(t, last.StopID)
		})
		t.Run("stop id", func(t *testing.T) { // 36
			at := 4
			for indexOf(t, chain, chain[at]) != at {
				at++
			}
			got, last := run(func(r *Request) { r.StopIDs = []int32{chain[at]} })
			require.Equal(t, chain[:at+1], got)
			require.Equal(t, FinishStop, last.Finish)
			require.Equal(t, chain[at], last.StopID)
		})
		t.Run("max tokens", func(t *testing.T) { // 37
			got, last := run(func(r *Request) { r.MaxTokens = 2 })
			require.Equal(t, chain[:2], got)
			require.Equal(t, FinishLength, last.Finish)
		})
		t.Run("ignore the end", func(t *testing.T) { // 38
			got, last := run(func(*Request) {})
			require.Equal(t, chain, got)
			require.Equal(t, FinishLength, last.Finish)
		})
		t.Run("min tokens", func(t *testing.T) { // 39
			got, last := run(func(r *Request) { r.IgnoreEOS, r.Sampling.MinTokens = false, int32(eos+2) })
			require.Greater(t, len(got), eos+1)
			require.NotContains(t, got[:eos+1], int32(0))
			require.Contains(t, []FinishReason{FinishStop, FinishLength}, last.Finish)
		})
	})
}

func indexOf(t *testing.T, ids []int32, id int32) int {
	for i := range ids {
		if ids[i] == id {
			return i
		}
	}
	t.Fatalf("id %d is not drawn", id)
	return 0
}

func TestJudge(t *testing.T) {
	stops := []int32{0, 42}
	for _, c := range []struct {
		token     int32
		n, lo, hi int
		want      verdict
	}{
		{10, 1, 0, 5, verdict{keep: true}},
		{0, 1, 0, 5, verdict{keep: true, finish: FinishStop}},
		{42, 2, 0, 5, verdict{keep: true, finish: FinishStop, stopID: 42}},
		{10, 5, 0, 5, verdict{keep: true, finish: FinishLength}},
		{42, 5, 0, 5, verdict{keep: true, finish: FinishStop, stopID: 42}}, // stop before length
		{42, 3, 5, 9, verdict{keep: true}},                                 // min tokens
		{42, 5, 5, 9, verdict{keep: true, finish: FinishStop, stopID: 42}},
		{kernels.InvalidToken, 1, 0, 5, verdict{finish: FinishError, err: ErrNotNumbers}},
	} {
		require.Equal(t, c.want, judge(c.token, c.n, c.lo, c.hi, stops), "%+v", c)
	}
}

// TestDeviceFault: requests in flight and in the queue get an error, further
// ones are refused, and the engine says why it stopped.
func TestDeviceFault(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		f := &fake{failAt: 5}
		c.MaxNumSeqs = 2
		e := startFake(t, f, c)
		var streams []*Stream
		for i := range 5 {
			s, err := e.Submit(context.Background(), Request{Prompt: prompt(i, 9), IgnoreEOS: true, MaxTokens: 50})
			if err != nil { // the fault was faster
				require.ErrorIs(t, err, ErrClosed)
				continue
			}
			streams = append(streams, s)
		}
		for _, s := range streams {
			_, last := readAll(t, s)
			require.Equal(t, FinishError, last.Finish)
			require.ErrorIs(t, last.Err, ErrDevice)
			require.ErrorContains(t, last.Err, "injected")
		}
		<-e.Done()
		require.ErrorIs(t, e.Err(), ErrDevice)
		require.ErrorIs(t, e.Close(), ErrDevice)
		_, err := e.Submit(context.Background(), Request{Prompt: prompt(0, 1)})
		require.ErrorIs(t, err, ErrClosed)
		require.ErrorContains(t, err, "injected")
		require.Equal(t, 1, f.closed)
		_, err = e.Logits(context.Background(), prompt(0, 1))
		require.ErrorIs(t, err, ErrClosed)
	})
}

// TestSlowReader: one request is not read at all, another is read to its end.
func TestSlowReader(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		e := startFake(t, &fake{}, c)
		slow, err := e.Submit(context.Background(), Request{Prompt: prompt(1, 5), MaxTokens: 300, IgnoreEOS: true, Sampling: Sampling{Logprobs: 2}})
		require.NoError(t, err)
		r := Request{Prompt: prompt(2, 5), MaxTokens: 500, IgnoreEOS: true}
		fast, err := e.Submit(context.Background(), r)
		require.NoError(t, err)
		got, _ := readAll(t, fast)
		want, _ := expect(&r, 500, 0)
		require.Equal(t, want, got)
		require.NoError(t, e.Shutdown(context.Background()))
		got, last := readAll(t, slow)
		require.Len(t, got, 300, "nothing was lost meanwhile")
		require.Equal(t, FinishLength, last.Finish)
	})
}

// TestCancel aborts by the Submit context, in the queue and while running.
func TestCancel(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		f := &fake{hold: make(chan struct{})}
		c.MaxNumSeqs = 1
		e := startFake(t, f, c)
		ctx, cancel := context.WithCancel(context.Background())
		running, err := e.Submit(ctx, Request{Prompt: prompt(1, 5), MaxTokens: 900, IgnoreEOS: true})
		require.NoError(t, err)
		queued, err := e.Submit(ctx, Request{Prompt: prompt(2, 5), MaxTokens: 900, IgnoreEOS: true})
		require.NoError(t, err)
		r := Request{Prompt: prompt(3, 5), MaxTokens: 20, IgnoreEOS: true}
		neighbour, err := e.Submit(context.Background(), r)
		require.NoError(t, err)
		f.hold <- struct{}{} // in the first step
		f.hold <- struct{}{}
		_, ok := running.Next(context.Background())
		require.True(t, ok)
		f.hold <- struct{}{} // in the second
		cancel()
		for top := e.aborts.Load(); top == nil || top.abortNext == nil; top = e.aborts.Load() {
			runtime.Gosched() // a cancelled context calls back on goroutines of its own
		}
		close(f.hold)
		_, last := readAll(t, running)
		require.Equal(t, FinishAbort, last.Finish)
		require.False(t, last.HasToken)
		got, last := readAll(t, queued)
		require.Empty(t, got)
		require.Equal(t, FinishAbort, last.Finish)
		got, _ = readAll(t, neighbour)
		want, _ := expect(&r, 20, 0)
		require.Equal(t, want, got)
		_, err = e.Submit(ctx, r)
		require.ErrorIs(t, err, context.Canceled)
	})
}

// TestQueueBound: requests that have not started count, those that run do not.
func TestQueueBound(t *testing.T) {
	f := &fake{hold: make(chan struct{})}
	e := startFake(t, f, Config{NumGPUBlocksOverride: 64, MaxNumSeqs: 1, MaxQueuedReqs: 3})
	r := Request{Prompt: prompt(1, 5), MaxTokens: 5, IgnoreEOS: true}
	first, err := e.Submit(context.Background(), r)
	require.NoError(t, err)
	f.hold <- struct{}{} // the first runs
	streams := []*Stream{first}
	for range 3 {
		s, err := e.Submit(context.Background(), r)
		require.NoError(t, err)
		streams = append(streams, s)
	}
	_, err = e.Submit(context.Background(), r)
	require.ErrorIs(t, err, ErrQueueFull)
	close(f.hold)
	for _, s := range streams {
		_, last := readAll(t, s)
		require.Equal(t, FinishLength, last.Finish)
	}
	_, err = e.Submit(context.Background(), r)
	require.NoError(t, err)
}

// TestClose aborts what runs and waits; Shutdown with a context that ends does
// the same and says so.
func TestClose(t *testing.T) {
	for name, stop := range map[string]func(e *Engine) error{
		"close": (*Engine).Close,
		"shutdown cut short": func(e *Engine) error {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			err := e.Shutdown(ctx)
			require.ErrorIs(t, err, context.Canceled)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{hold: make(chan struct{})}
			e := startFake(t, f, Config{NumGPUBlocksOverride: 64, MaxNumSeqs: 1})
			var streams []*Stream
			for i := range 3 {
				s, err := e.Submit(context.Background(), Request{Prompt: prompt(i, 5), MaxTokens: 900, IgnoreEOS: true})
				require.NoError(t, err)
				streams = append(streams, s)
			}
			f.hold <- struct{}{}
			finished := make(chan error)
			go func() { finished <- stop(e) }()
			for e.state.Load() != stateClosed {
				runtime.Gosched()
			}
			close(f.hold)
			require.NoError(t, <-finished)
			for _, s := range streams {
				_, last := readAll(t, s)
				require.Equal(t, FinishAbort, last.Finish)
			}
			require.NoError(t, e.Err())
			require.NoError(t, e.Close(), "twice")
			require.Equal(t, 1, f.closed)
		})
	}
}

// TestShutdownDrains: what was accepted finishes, what comes later is refused.
func TestShutdownDrains(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		e := startFake(t, &fake{}, c)
		var streams []*Stream
		for i := range 20 {
			s, err := e.Submit(context.Background(), Request{Prompt: prompt(i, 30), MaxTokens: 40, IgnoreEOS: true})
			require.NoError(t, err)
			streams = append(streams, s)
		}
		require.NoError(t, e.Shutdown(context.Background()))
		_, err := e.Submit(context.Background(), Request{Prompt: prompt(1, 1)})
		require.ErrorIs(t, err, ErrClosed)
		for _, s := range streams {
			got, last := readAll(t, s)
			require.Len(t, got, 40)
			require.Equal(t, FinishLength, last.Finish)
		}
	})
}

// TestAbortOvertakes: a context that ends while Submit is still on its way to
// the inbox.
func TestAbortOvertakes(t *testing.T) {
	e, l := newTestLoop(t, &fake{}, Config{NumGPUBlocksOverride: 40})
	q, err := e.newRequest(Request{Prompt: prompt(1, 9)})
	require.NoError(t, err)
	q.unwatch = func() bool { return true }
	e.abort(q)
	require.True(t, l.receive())
	e.queued.Add(1)
	e.inbox <- q
	require.True(t, l.receive())
	require.Nil(t, l.schedule())
	_, last := readAll(t, &q.stream)
	require.Equal(t, FinishAbort, last.Finish)
	require.Zero(t, e.queued.Load())
	l.stop(nil)
}

// TestRequestTimes: the last event says when the request got its first place and
// how often it lost its blocks; all of them together are what Stats counts.
func TestRequestTimes(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		f, began := &fake{}, make(chan struct{})
		f.onStep = func() { <-began } // all requests are there
		e := startFake(t, f, c)
		begin := time.Now()
		var streams []*Stream
		for i := range 6 {
			s, err := e.Submit(context.Background(), Request{Prompt: prompt(i, 100), MaxTokens: 300, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}})
			require.NoError(t, err)
			streams = append(streams, s)
		}
		close(began)
		preemptions := 0
		for _, s := range streams {
			_, last := readAll(t, s)
			require.False(t, last.Admitted.Before(begin))
			require.False(t, last.Admitted.After(time.Now()))
			preemptions += last.Preemptions
		}
		st := e.Stats()
		require.Positive(t, preemptions, "6 × 400 tokens in a pool of 1024")
		require.EqualValues(t, st.PreemptionsRecompute+st.PreemptionsSwap, preemptions)
	})
}
