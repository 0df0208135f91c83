package engine

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// abortCase is one way to run three prompts, of which the second, the victim's, has
// four chunks and 36 tokens.
type abortCase struct {
	async    string
	uncached bool
	choices  int // of the victim's prompt
	victim   int // which of them is aborted
	mode     string
	blocks   int
}

// where counts at what an abort found its sequence.
type where struct {
	cases                                             int
	queued, parked, chunk, decode, swappedOut, onHost int
	swappedIn, waiting, finishing                     int
}

// TestAbortAtEveryPosition aborts a sequence at every step of its life, queued
// first: in both loops, with the prefix cache on and off, alone or as a choice of
// four, with room and without, so that it is met on its way to the host, there, and
// on its way back. Its blocks are back within two steps, those that copies under way
// name once these are done, and its neighbours do not notice.
func TestAbortAtEveryPosition(t *testing.T) {
	var w where
	stride := 1
	if testing.Short() {
		stride = 9
	}
	for _, async := range []string{"off", "on"} {
		for _, uncached := range []bool{false, true} {
			for _, choices := range [][2]int{{1, 0}, {4, 0}, {4, 2}} {
				for _, pool := range []struct {
					mode   string
					blocks int
				}{{"", 60}, {"swap", 9}, {"swap", 13}, {"recompute", 9}} {
					c := abortCase{async, uncached, choices[0], choices[1], pool.mode, pool.blocks}
					for at := 0; c.abort(t, &w, at); at += stride {
						w.cases++
					}
				}
			}
		}
	}
	t.Logf("%+v", w)
	if testing.Short() {
		return
	}
	require.Greater(t, w.cases, 2000)
	for name, n := range map[string]int{"queued": w.queued, "parked": w.parked, "chunk": w.chunk, "decode": w.decode,
		"swap-out": w.swappedOut, "on the host": w.onHost, "swap-in": w.swappedIn, "preempted": w.waiting} {
		require.Greater(t, n, 10, "hardly ever aborted: %s", name)
	}
}

// abort is false when the victim was finished before step at.
func (c abortCase) abort(t *testing.T, w *where, at int) bool {
	f := &fake{swapPolls: 3}
	config := Config{NumGPUBlocksOverride: c.blocks, MaxNumSeqs: 6, MaxNumBatchedTokens: 16, AsyncScheduling: c.async, DisablePrefixCaching: c.uncached,
		PreemptionMode: c.mode, SwapSpace: 1 << 20}
	e, l := newTestLoop(t, f, config)
	shared := prompt(5, 50)
	requests := []Request{
		{Prompt: prompt(1, 20), MaxTokens: 56, IgnoreEOS: true},
		{Prompt: shared, MaxTokens: 36, IgnoreEOS: true},
		{Prompt: append(shared[:48:48], 9, 9), MaxTokens: 56, IgnoreEOS: true},
	}
	var streams [][]*Stream
	for i, r := range requests {
		n := 1
		if i == 1 {
			n = c.choices
		}
		s, err := e.SubmitChoices(slices.Repeat([]context.Context{context.Background()}, n), r)
		require.NoError(t, err)
		streams = append(streams, s)
	}
	target := streams[1][c.victim]
	hit := c.play(t, w, e, l, f, target, at)
	c.checkAll(t, requests, streams, target, hit, at)
	require.NoError(t, l.sched.Check())
	st := l.kv.Stats()
	require.Zero(t, st.Used+st.InFlight+st.HostUsed+st.HostInFlight)
	require.Len(t, append(l.runner.free, l.runner.beyond...), l.maxima.MaxSeqs)
	l.stop(nil)
	return hit
}

// play runs everything to its end, aborting the target at a step, and says whether
// it was still there.
func (c abortCase) play(t *testing.T, w *where, e *Engine, l *loop, f *fake, target *Stream, at int) (hit bool) {
	if at == 0 { // in the inbox
		for range len(e.inbox) {
			q := <-e.inbox
			e.inbox <- q
			for s := q; s != nil; s = s.sibling {
				if &s.stream == target {
					e.abort(s)
					w.queued++
				}
			}
		}
		hit = true
	}
	step, since := 0, -1
	var seq *scheduler.Sequence
	f.onStep = func() {
		if step++; step == at {
			for s, q := range l.requests {
				if &q.stream == target {
					w.count(l, s)
					seq, since, hit = s, 0, true
					e.abort(q)
				}
			}
			return
		}
		if since++; since == 2 && seq != nil {
			require.Equal(t, scheduler.Finished, seq.Status)
			require.Zero(t, seq.Table.Len()+seq.Host.Len(), "its blocks are not back after two steps")
		}
	}
	e.enter(stateDraining)
	require.NoError(t, l.run())
	return hit
}

func (w *where) count(l *loop, s *scheduler.Sequence) {
	copying := len(l.transfers) > 0
	switch {
	case s.Status == scheduler.Finished:
		w.finishing++
	case s.Status == scheduler.Swapped && copying:
		w.swappedOut++
	case s.Status == scheduler.Swapped:
		w.onHost++
	case s.Status == scheduler.Waiting && s.Parent != nil && s.Preemptions == 0:
		w.parked++
	case s.Status == scheduler.Waiting:
		w.waiting++
	case copying && s.Preemptions > 0 && s.Pending == 0:
		w.swappedIn++
	case s.Launched < s.PromptLen:
		w.chunk++
	default:
		w.decode++
	}
}

// checkAll compares every output with what its prompt determines.
func (c abortCase) checkAll(t *testing.T, requests []Request, streams [][]*Stream, target *Stream, hit bool, at int) {
	for i := range streams {
		for choice, s := range streams[i] {
			r := requests[i]
			r.Sampling.Choice = int32(choice)
			want, _ := expect(&r, r.MaxTokens, 0)
			tokens, last := readAll(t, s)
			what := fmt.Sprintf("%+v, abort at step %d, request %d, choice %d", c, at, i, choice)
			if s == target && hit && len(tokens) < len(want) { // else its last token was under way
				require.Equal(t, FinishAbort, last.Finish, what)
				require.Equal(t, want[:len(tokens)], append([]int32{}, tokens...), what)
				continue
			}
			require.Equal(t, want, tokens, what)
			require.Equal(t, FinishLength, last.Finish, what)
		}
	}
}
