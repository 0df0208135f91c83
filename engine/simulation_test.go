package engine

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/scheduler"
)

var simSteps = flag.Int64("sim-steps", 180_000, "engine steps of the token-ID simulation")

// rareStates counts what the simulation must have reached to mean anything.
type rareStates struct {
	requests, tokens, steps, overlappedSteps, chunks                       int64
	preemptions, hits, evictions                                           int64 // hits in tokens
	swaps, swapFull, avoided, forks, copied, reconfigured                  int64
	abortSwapped, abortCopying, abortForked                                int64
	abortQueued, abortPrefill, abortRunning, abortInFlight, abortPreempted int64
	overruns                                                               int64 // tokens that the overlapped loop drew too many
	stops, lengths, invalid, logprobs                                      int64
	guided, wholes, failed, guidedPreempted, masks                         int64 // of requests with a constraint
}

// world is one seeded run of an engine: everything happens on one goroutine, at
// moments that the seed chooses, so that a failing seed fails again.
type world struct {
	t      *testing.T
	r      *rand.Rand
	f      *fake
	e      *Engine
	l      *loop
	live   []*visitor
	todo   int // requests still to submit
	states *rareStates
	seen   Observation
	rules  ruleCount
}

// visitor is a request with what it should come to.
type visitor struct {
	request Request
	stream  *Stream
	want    []int32
	finish  FinishReason
	aborted bool
	guided  bool
	tokens  []int32 // read so far
	last    Event
}

func newWorld(t *testing.T, seed uint64, states *rareStates) *world {
	r := rand.New(rand.NewPCG(seed, 7))
	w := &world{t: t, r: r, f: &fake{swapPolls: r.IntN(4)}, todo: 40 + r.IntN(60), states: states}
	if r.IntN(6) == 0 {
		w.f.invalid = fakeVocab - 1
	}
	c := Config{
		NumGPUBlocksOverride: 6 + r.IntN(25),
		BlockSize:            []int{16, 16, 32}[r.IntN(3)],
		MaxNumSeqs:           1 + r.IntN(8),
		DisablePrefixCaching: r.IntN(5) == 0,
		SchedulingPolicy:     []string{"fcfs", "priority"}[r.IntN(2)],
		AsyncScheduling:      []string{"off", "on"}[r.IntN(2)],
		PreemptionMode:       []string{"auto", "auto", "swap", "recompute"}[r.IntN(4)],
		SwapSpace:            []int64{-1, 4 << 10, 16 << 10, 1 << 20}[r.IntN(4)],
		TargetITL:            time.Duration(r.IntN(2)) * time.Microsecond,
	}
	c.MaxNumBatchedTokens = c.MaxNumSeqs + r.IntN(40)
	c.MaxNumMixedTokens = r.IntN(2) * (1 + r.IntN(c.MaxNumBatchedTokens))
	c = quiet(c)
	require.NoError(t, c.validate())
	w.e = &Engine{
		cfg: c, inbox: make(chan *request, c.MaxQueuedReqs), calls: make(chan func(*loop)),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	src := fakeSource(w.f, 180)
	w.e.info = src.info
	var err error
	w.l, err = w.e.setup(src)
	require.NoError(t, err)
	w.f.onStep = w.visit
	w.l.guides.patience = time.Minute // a slow machine must not change what comes out
	return w
}

// submit adds a request whose prompt begins like others of its family.
func (w *world) submit() {
	w.todo--
	longest := min(w.e.info.MaxModelLen, w.e.Info().NumBlocks*w.e.info.BlockSize)
	prompt := make([]int32, 1+w.r.IntN(min(120, longest-1)))
	family := int32(w.r.IntN(3))
	for i := range prompt {
		prompt[i] = 1 + (family*7+int32(i))%50
		if i >= 40 && w.r.IntN(30) == 0 {
			prompt[i] = int32(w.r.IntN(fakeVocab))
		}
	}
	v := &visitor{request: Request{Prompt: prompt, MaxTokens: 1 + w.r.IntN(min(50, longest-len(prompt)))}}
	q := &v.request
	q.Sampling.Seed, q.Sampling.Logprobs = uint64(w.r.IntN(2)), int32(w.r.IntN(4)-1)
	q.Sampling.MinTokens = int32(w.r.IntN(2) * w.r.IntN(q.MaxTokens+1))
	q.IgnoreEOS = w.r.IntN(3) == 0
	if w.e.info.Priority {
		q.Priority = w.r.IntN(3)
	}
	if w.r.IntN(10) == 0 {
		q.CacheSalt = "salt"
	}
	if w.r.IntN(4) == 0 {
		q.StopIDs = []int32{int32(w.r.IntN(fakeVocab))}
	}
	if w.r.IntN(6) == 0 {
		q.Constrain = w.rules.maker(w.r.Uint64())
		w.states.guided++
	}
	// The loop drains all the time, so that it returns when all is done instead
	// of waiting for someone on another goroutine.
	w.e.state.Store(stateOpen)
	choices := 1
	if w.r.IntN(4) == 0 {
		choices = 1 + w.r.IntN(4)
	}
	streams, err := w.e.SubmitChoices(slices.Repeat([]context.Context{context.Background()}, choices), *q)
	w.e.state.Store(stateDraining)
	require.NoError(w.t, err)
	for i, stream := range streams {
		c := &visitor{request: *q, stream: stream, guided: q.Constrain != nil}
		c.request.Sampling.Choice = int32(i)
		c.want, c.finish = expect(&c.request, q.MaxTokens, w.f.invalid)
		w.live = append(w.live, c)
		w.states.requests++
	}
}

// visit is called by the device in each step: others act while it computes.
func (w *world) visit() {
	w.states.steps++
	if w.e.info.Overlapped {
		w.states.overlappedSteps++
	}
	for w.todo > 0 && len(w.live) < 14 && w.r.IntN(3) == 0 {
		w.submit()
	}
	if w.r.IntN(40) == 0 {
		w.reconfigure()
	}
	if w.states.steps%16 == 0 {
		requireObserved(w.t, w.l, &w.seen)
	}
	if w.r.IntN(10) == 0 && len(w.live) > 0 {
		w.abort(w.live[w.r.IntN(len(w.live))])
	}
	for _, v := range w.live {
		for w.r.IntN(2) == 0 && w.read(v) { // or stay behind
		}
	}
	w.settle()
}

// reconfigure changes limits while everything goes on, as a call of Reconfigure
// between two turns of the loop would.
func (w *world) reconfigure() {
	if w.l.pending != nil {
		return
	}
	limits := Limits{NumGPUBlocksOverride: 6 + w.r.IntN(25), MaxNumSeqs: 1 + w.r.IntN(8)}
	limits.MaxNumBatchedTokens = limits.MaxNumSeqs + w.r.IntN(40)
	if w.r.IntN(4) == 0 {
		limits.MaxNumMixedTokens = []int{-1, 1, 20}[w.r.IntN(3)]
	}
	if w.r.IntN(2) == 0 {
		limits.SwapSpace = []int64{-1, 4 << 10, 16 << 10}[w.r.IntN(3)]
	}
	if w.r.IntN(4) == 0 {
		limits.PreemptionMode = []string{"auto", "swap", "recompute"}[w.r.IntN(3)]
	}
	w.l.jobs = append(w.l.jobs, job{run: func(l *loop) bool {
		if l.beginReconfigure(limits, make(chan error, 1)) == nil { // else somebody needs more
			w.states.reconfigured++
		}
		return true
	}, drop: func(error) {}})
}

// abort cancels as the end of a Submit context would.
func (w *world) abort(v *visitor) {
	var q *request
	for s, candidate := range w.l.requests {
		if &candidate.stream == v.stream {
			q = candidate
			w.countAbort(s)
		}
	}
	if q == nil { // still in the inbox, or over
		for range len(w.e.inbox) {
			candidate := <-w.e.inbox
			if &candidate.stream == v.stream {
				q = candidate
				w.states.abortQueued++
			}
			w.e.inbox <- candidate
		}
	}
	if q != nil {
		v.aborted = true
		w.e.abort(q)
		w.e.abort(q) // again does nothing
	}
}

func (w *world) countAbort(s *scheduler.Sequence) {
	switch {
	case s.Status == scheduler.Swapped && len(w.l.transfers) > 0:
		w.states.abortCopying++
	case s.Status == scheduler.Swapped:
		w.states.abortSwapped++
	case s.Status == scheduler.Running && s.Table.Len() > 0 && len(w.l.transfers) > 0:
		w.states.abortCopying++
	case s.Status == scheduler.Waiting && s.Parent != nil:
		w.states.abortForked++
	case s.Status == scheduler.Waiting && s.Preemptions > 0:
		w.states.abortPreempted++
	case s.Status == scheduler.Waiting:
		w.states.abortQueued++
	case s.Launched < s.PromptLen:
		w.states.abortPrefill++
	case w.e.info.Overlapped: // it takes effect between a launch and its collection
		w.states.abortInFlight++
	default:
		w.states.abortRunning++
	}
}

// read takes one event if there is one.
func (w *world) read(v *visitor) bool {
	ev, ok := v.stream.take()
	if !ok {
		return false
	}
	if ev.HasToken {
		v.tokens = append(v.tokens, ev.Token)
		if top := int(v.request.Sampling.Logprobs); top >= 0 {
			w.states.logprobs++
			require.Equal(w.t, -float32(ev.Token), ev.Logprob)
			require.Equal(w.t, ev.Token+1, ev.Rank)
			require.Len(w.t, ev.TopIDs, top)
			for j, id := range ev.TopIDs {
				require.Equal(w.t, ev.Token+int32(j), id)
			}
		}
	}
	require.Equal(w.t, FinishNone, v.last.Finish, "an event came after the last one")
	v.last = ev
	return ev.Finish == FinishNone
}

// settle checks the visitors that have had their last event.
func (w *world) settle() {
	w.live = slices.DeleteFunc(w.live, func(v *visitor) bool {
		if v.last.Finish == FinishNone {
			return false
		}
		w.states.tokens += int64(len(v.tokens))
		if v.guided && v.last.Preemptions > 0 {
			w.states.guidedPreempted++
		}
		if v.last.Finish == FinishAbort {
			require.True(w.t, v.aborted)
			require.True(w.t, slices.Equal(v.want[:len(v.tokens)], v.tokens), "want %v, got %v", v.want, v.tokens)
			return true
		}
		require.True(w.t, slices.Equal(v.want, v.tokens), "want %v, got %v", v.want, v.tokens)
		require.Equal(w.t, v.finish, v.last.Finish)
		switch v.finish {
		case FinishStop:
			w.states.stops++
			if v.guided && v.last.StopID == NoStopID {
				w.states.wholes++
				require.False(w.t, v.last.HasToken)
				return true
			}
			require.Equal(w.t, v.tokens[len(v.tokens)-1], v.last.StopID)
		case FinishLength:
			w.states.lengths++
		case FinishError:
			if v.guided && errors.Is(v.last.Err, ErrConstraint) {
				w.states.failed++
				require.ErrorContains(w.t, v.last.Err, "injected")
				return true
			}
			w.states.invalid++
			require.ErrorIs(w.t, v.last.Err, ErrNotNumbers)
		}
		return true
	})
}

// run plays the world to its end.
func (w *world) run() {
	for w.todo > 0 {
		w.submit()
		require.NoError(w.t, w.l.run())
	}
	for len(w.live) > 0 {
		for _, v := range w.live {
			for w.read(v) {
			}
			require.NotEqual(w.t, FinishNone, v.last.Finish, "a request was forgotten")
		}
		w.settle()
	}
	require.NoError(w.t, w.l.sched.Check())
	done, err := w.l.sched.CheckIdle(1 << 20)
	require.NoError(w.t, err)
	require.True(w.t, done)
	require.Zero(w.t, w.e.queued.Load())
	require.Len(w.t, append(w.l.runner.free, w.l.runner.beyond...), w.l.maxima.MaxSeqs, "rows were lost")
	requireObserved(w.t, w.l, &w.seen)
	w.l.stop(nil)
	require.Zero(w.t, w.rules.open.Load(), "constraints were left open")
	w.states.masks += w.rules.masks.Load()
	st := w.e.Stats()
	require.Zero(w.t, st.BlocksUsed+st.BlocksInFlight+st.HostBlocksUsed+st.HostBlocksInFlight)
	require.Zero(w.t, st.Running+st.Waiting)
	w.states.preemptions += st.PreemptionsRecompute
	w.states.swaps += st.PreemptionsSwap
	w.states.swapFull += st.SwapPoolFull
	w.states.avoided += st.BlockWaits
	w.states.forks += st.Forks
	w.states.copied += st.CopiedBlocks
	w.states.hits += st.PrefixHits
	w.states.evictions += st.Evictions
	w.states.overruns += w.f.drawn - st.GenerationTokens
	for _, s := range w.l.records.last(keptSteps) {
		if len(s.Scheduled) > s.Decodes && len(s.Admitted) == 0 {
			w.states.chunks++
		}
	}
	require.LessOrEqual(w.t, st.GenerationTokens, w.states.tokens)
	require.Equal(w.t, 1, w.f.closed)
}

// TestTokenIDSimulation plays seeded worlds until enough steps were made: random
// lengths, shared prefixes, tiny pools, chunked prefill, stops, aborts at any
// moment, slow readers, both loops. Each output is compared with the chain of
// hashes that its prompt alone determines.
func TestTokenIDSimulation(t *testing.T) {
	var states rareStates
	seed := uint64(0)
	steps := *simSteps
	if testing.Short() {
		steps /= 3
	}
	for ; states.steps < steps; seed++ {
		w := newWorld(t, seed, &states)
		if !t.Run("", func(t *testing.T) { w.t = t; w.run() }) {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d seeds: %+v", seed, states)
	want := int64(1)
	if steps >= 100_000 {
		want = 100
	}
	for name, count := range map[string]int64{
		"preemptions": states.preemptions, "swaps": states.swaps, "swap pool full": states.swapFull, "waits instead of preemptions": states.avoided,
		"forks": states.forks, "copies on write": states.copied, "reconfigurations": states.reconfigured,
		"aborts while swapped out": states.abortSwapped, "aborts while copied": states.abortCopying, "aborts of parked choices": states.abortForked,
		"prefix hits": states.hits, "evictions": states.evictions,
		"aborts while queued": states.abortQueued, "aborts in a prefill": states.abortPrefill, "aborts after a preemption": states.abortPreempted,
		"aborts with a token in flight": states.abortInFlight, "aborts while running": states.abortRunning,
		"stops": states.stops, "lengths": states.lengths, "invalid rows": states.invalid, "log probabilities": states.logprobs,
		"synchronous steps": states.steps - states.overlappedSteps, "overlapped steps": states.overlappedSteps,
		"chunks": states.chunks, "overruns": states.overruns,
		"constraints": states.guided, "constraints that ended it": states.wholes, "constraints that failed": states.failed,
		"preempted with a constraint": states.guidedPreempted,
	} {
		require.GreaterOrEqual(t, count, want, "the simulation hardly reached: %s", name)
	}
}
