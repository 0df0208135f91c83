package engine

import (
	"cmp"
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// TestLogits: every position's logits, chunk by chunk, between the steps of a
// request that runs.
func TestLogits(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		c.MaxNumBatchedTokens = 13
		e := startFake(t, &fake{}, c)
		r := Request{Prompt: prompt(1, 60), MaxTokens: 800, IgnoreEOS: true}
		s, err := e.Submit(context.Background(), r)
		require.NoError(t, err)
		ids := prompt(1, 100) // shares a prefix with the request
		rows, err := e.Logits(context.Background(), ids)
		require.NoError(t, err)
		require.Len(t, rows, len(ids))
		h := uint64(0)
		for i, row := range rows {
			h = extend(h, ids[i])
			require.Len(t, row, fakeVocab)
			require.Equal(t, float32(extend(h, 7)>>40), row[7], "position %d", i)
		}
		got, _ := readAll(t, s)
		want, _ := expect(&r, 800, 0)
		require.Equal(t, want, got)
		for _, chunk := range []int{0, -5} { // as good as 1
			n := 0
			require.NoError(t, e.EachLogits(context.Background(), ids[:5], chunk, func(int, []float32) { n++ }))
			require.Equal(t, 5, n)
		}
		_, err = e.Logits(context.Background(), nil)
		require.ErrorIs(t, err, ErrInvalid)
		_, err = e.Logits(context.Background(), prompt(1, 64*16+1))
		require.ErrorIs(t, err, ErrTooLong)
		_, err = e.Probe(context.Background())
		require.ErrorContains(t, err, "cannot measure")
	})
}

// TestLogitsWhileAllRun: with max_num_seqs requests running there is no free row; one
// is lent at the first try, and its owner goes on as if nothing had happened.
func TestLogitsWhileAllRun(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		c.MaxNumSeqs = 3
		f, began := &fake{}, make(chan struct{})
		e := startFake(t, f, c)
		ids, tries, running := prompt(9, 40), 0, 0
		var rows [][]float32
		ask := job{run: func(l *loop) bool {
			tries, running = tries+1, l.sched.NumRunning()
			done, err := l.logits(t.Context(), ids, 16, func(_ int, values []float32) {
				for v := range slices.Chunk(values, fakeVocab) {
					rows = append(rows, v)
				}
			})
			return done || err != nil
		}}
		f.onStep = func() { // on the engine's goroutine
			<-began // all requests are there
			if f.step%40 == 0 && tries == 0 && len(f.batch.Rows) == 3 {
				e.loop.jobs = append(e.loop.jobs, ask)
			}
		}
		var requests []Request
		var streams []*Stream
		for i := range c.MaxNumSeqs {
			r := Request{Prompt: prompt(i, 20+i), MaxTokens: 250, StopIDs: []int32{7}, Sampling: Sampling{Logprobs: -1, Seed: uint64(i + 3), MinTokens: 240}}
			s, err := e.Submit(t.Context(), r)
			require.NoError(t, err)
			requests, streams = append(requests, r), append(streams, s)
		}
		close(began)
		for i, s := range streams {
			want, _ := expect(&requests[i], 250, 0)
			got, _ := readAll(t, s)
			require.Equal(t, want, got, "request %d", i)
		}
		require.Equal(t, 1, tries)
		require.Equal(t, c.MaxNumSeqs, running)
		require.Len(t, rows, len(ids))
		h := uint64(0)
		for i, row := range rows {
			h = extend(h, ids[i])
			require.Equal(t, float32(extend(h, 7)>>40), row[7], "position %d", i)
		}
	})
}

// TestDrainLogits: what waits for blocks when the engine is to end gets them, as a request does; when the device fails
// it learns why.
func TestDrainLogits(t *testing.T) {
	for _, failAt := range []int64{0, 12} {
		loops(t, func(t *testing.T, c Config) {
			c.NumGPUBlocksOverride = 20
			f := &fake{failAt: failAt}
			var e *Engine
			result, asked, began := make(chan error, 1), false, make(chan struct{})
			f.onStep = func() { // on the engine's goroutine
				<-began
				if asked || f.step < 10 {
					return
				}
				asked = true
				e.loop.jobs = append(e.loop.jobs, job{run: func(l *loop) bool {
					done, err := l.logits(t.Context(), prompt(2, 16*18), 8, func(int, []float32) {})
					if done {
						result <- err
					}
					return done
				}, drop: func(cause error) { result <- closedBy(cause) }})
				e.enter(stateDraining)
			}
			e = startFake(t, f, c)
			s, err := e.Submit(t.Context(), Request{Prompt: prompt(1, 100), MaxTokens: 60, IgnoreEOS: true})
			require.NoError(t, err)
			close(began)
			_, last := readAll(t, s)
			if failAt == 0 {
				require.Equal(t, FinishLength, last.Finish)
				require.NoError(t, <-result)
				return
			}
			err = <-result
			require.ErrorIs(t, err, ErrClosed)
			require.ErrorIs(t, err, ErrDevice)
		})
	}
}

// TestLogitsOfAFullPool: where requests wait for blocks all the time, a computation that
// wants most of the pool gets it before they do, and they are admitted again after it, or
// once nobody wants it any more.
func TestLogitsOfAFullPool(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		c.NumGPUBlocksOverride, c.SwapSpace = 20, -1
		f, began := &fake{}, make(chan struct{})
		e := startFake(t, f, c)
		ids, asked, waiting, given := prompt(9, 16*18), false, 0, true
		var order []int // of ends
		ctx, cancel := context.WithCancel(t.Context())
		f.onStep = func() { // on the engine's goroutine
			<-began // all requests are there
			switch {
			case f.step == 20:
				e.loop.jobs = append(e.loop.jobs, job{run: func(l *loop) bool { // one that is given up
					if ctx.Err() != nil {
						return true
					}
					done, _ := l.logits(ctx, prompt(8, 16*20), 8, func(int, []float32) {})
					cancel()
					given = given && !done
					return done
				}})
			case !asked && f.step > 100:
				asked = true
				e.loop.jobs = append(e.loop.jobs, job{run: func(l *loop) bool {
					waiting = l.sched.NumWaiting()
					done, err := l.logits(t.Context(), ids, 8, func(int, []float32) {})
					if done {
						order = append(order, len(ids))
					}
					return done || err != nil
				}}, job{run: func(l *loop) bool { // a small one behind it, which would find room
					done, err := l.logits(t.Context(), ids[:9], 8, func(int, []float32) {})
					if done {
						order = append(order, 9)
					}
					return done || err != nil
				}})
			}
		}
		var requests []Request
		var streams []*Stream
		for i := range 40 {
			r := Request{Prompt: prompt(i, 50+i), MaxTokens: 30, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1, Seed: uint64(i)}}
			s, err := e.Submit(t.Context(), r)
			require.NoError(t, err)
			requests, streams = append(requests, r), append(streams, s)
		}
		close(began)
		for i, s := range streams {
			want, _ := expect(&requests[i], 30, 0)
			got, _ := readAll(t, s)
			require.Equal(t, want, got, "request %d", i)
		}
		require.True(t, given)
		require.Equal(t, []int{len(ids), 9}, order)
		require.EqualValues(t, len(ids)+9, e.Stats().ScoredTokens)
		require.Positive(t, waiting, "it had to wait for all of them")
	})
}

// TestPromptLogprobs: what Logits has, ranked, whatever the chunks.
func TestPromptLogprobs(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		c.MaxNumBatchedTokens = 13
		e := startFake(t, &fake{}, c)
		ids := prompt(1, 50)
		rows, err := e.Logits(context.Background(), ids)
		require.NoError(t, err)
		got, err := e.PromptLogprobs(context.Background(), ids, 3)
		require.NoError(t, err)
		require.Len(t, got, len(ids))
		require.Zero(t, got[0], "nothing stands before the first token")
		for i := 1; i < len(ids); i++ {
			row, p := rows[i-1], got[i]
			order := make([]int32, len(row))
			for id := range order {
				order[id] = int32(id)
			}
			slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(row[b], row[a]) })
			require.Equal(t, order[:3], p.TopIDs)
			require.Equal(t, ids[i], order[p.Rank-1])
			require.InDelta(t, float64(row[order[0]]-row[ids[i]]), float64(p.TopLogprobs[0]-p.Logprob), 1e-3)
			require.LessOrEqual(t, p.TopLogprobs[0], float32(0))
		}
		_, err = e.PromptLogprobs(context.Background(), ids, 21)
		require.ErrorIs(t, err, ErrInvalid)
	})
	p := promptLogprob([]float32{0, 0, 0, 0}, 2, 2) // ties go to the lower id
	require.Equal(t, int32(3), p.Rank)
	require.Equal(t, []int32{0, 1}, p.TopIDs)
	require.InDelta(t, -1.386294, float64(p.Logprob), 1e-6)
}

// prober is a device that can measure itself.
type prober struct{ *fake }

func (prober) Probe() kernels.Ceilings { return kernels.Ceilings{ReadBytesPerSecond: 7} }

func TestProbe(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		f := &fake{}
		c = quiet(c)
		require.NoError(t, c.validate())
		src := fakeSource(f, 1<<12)
		src.open = func(*Config) (kernels.Backend, error) { return prober{f}, nil }
		e, err := start(c, src)
		require.NoError(t, err)
		s, err := e.Submit(context.Background(), Request{Prompt: prompt(1, 9), MaxTokens: 300, IgnoreEOS: true})
		require.NoError(t, err)
		ceilings, err := e.Probe(context.Background())
		require.NoError(t, err)
		require.EqualValues(t, 7, ceilings.ReadBytesPerSecond)
		got, _ := readAll(t, s)
		require.Len(t, got, 300)
		require.NoError(t, e.Close())
	})
}

// TestJobIsGivenUp: a job that cannot run ends with its context; a later one, on
// an engine that is idle by then, runs.
func TestJobIsGivenUp(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		e := startFake(t, &fake{}, c)
		ctx, cancel := context.WithCancel(context.Background())
		tried, failed := make(chan struct{}), make(chan error)
		go func() {
			failed <- e.alone(ctx, func(*loop) bool {
				select {
				case <-tried:
				default:
					close(tried)
				}
				return false
			})
		}()
		<-tried
		cancel()
		require.ErrorIs(t, <-failed, context.Canceled)
		rows, err := e.Logits(context.Background(), prompt(2, 5))
		require.NoError(t, err)
		require.Len(t, rows, 5)
	})
}
