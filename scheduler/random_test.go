package scheduler

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// rareStates counts what a random run must have reached to mean anything.
type rareStates struct {
	preempted, resumed, tokenAfterPreemption, overrun, hits, evictions    int
	abortWaiting, abortRunning, abortPrefill, abortInFlight, abortResumed int
	steps, finished                                                       int
}

// driver plays a random client of a scheduler, with or without a step ahead.
type driver struct {
	t        *testing.T
	r        *rand.Rand
	s        *Scheduler
	kv       *kvcache.Manager
	overlap  bool
	live     map[*Sequence]bool
	inFlight []*Output
	states   *rareStates
}

func newDriver(t *testing.T, seed uint64, states *rareStates) *driver {
	r := rand.New(rand.NewPCG(seed, 1))
	size := []int{1, 2, 4, 16}[r.IntN(4)]
	kv, err := kvcache.NewManager(kvcache.Config{
		NumBlocks: 2 + 64/size + r.IntN(200/size), BlockSize: size, DisablePrefixCaching: r.IntN(4) == 0,
	})
	require.NoError(t, err)
	cfg := Config{Limits: Limits{MaxNumSeqs: 1 + r.IntN(8)}}
	cfg.MaxBatchedTokens = cfg.MaxNumSeqs + r.IntN(64)
	if r.IntN(2) == 0 {
		cfg.Policy = Priority
	}
	if r.IntN(3) == 0 {
		cfg.LongPrefillThreshold = 1 + r.IntN(16)
	}
	s, err := New(cfg, kv)
	require.NoError(t, err)
	return &driver{t: t, r: r, s: s, kv: kv, overlap: r.IntN(2) == 0, live: map[*Sequence]bool{}, states: states}
}

// add submits a sequence whose tokens come from a small alphabet, so that
// prefixes repeat.
func (d *driver) add() {
	longest := d.kv.Capacity()*d.kv.BlockSize() + 1
	prompt := 1 + d.r.IntN(min(longest-1, 60))
	q := &Sequence{
		MaxLen: prompt + 1 + d.r.IntN(min(longest-prompt, 30)), Priority: d.r.IntN(3),
		CacheSalt: []string{"", "salt"}[d.r.IntN(8)/7],
	}
	family := int32(d.r.IntN(3))
	for i := range prompt {
		token := family
		if i > 40 || d.r.IntN(40) == 0 {
			token = int32(d.r.IntN(3))
		}
		q.Tokens = append(q.Tokens, token)
	}
	d.s.Add(q)
	d.live[q] = true
}

// abort ends a random live sequence.
func (d *driver) abort() {
	for q := range d.live {
		switch {
		case q.Status == Waiting && q.epoch > 0:
			d.states.abortResumed++
		case q.Status == Waiting:
			d.states.abortWaiting++
		case q.Launched < q.PromptLen:
			d.states.abortPrefill++
		case q.Pending > 0:
			d.states.abortInFlight++
		default:
			d.states.abortRunning++
		}
		d.s.Abort(q)
		delete(d.live, q)
		return
	}
}

// step schedules and, with nothing or enough in flight, updates.
func (d *driver) step() {
	out := d.s.Schedule()
	d.verify(out)
	d.states.steps++
	d.states.preempted += out.NumPreempted()
	d.states.hits += out.HitTokens()
	d.states.evictions += len(out.Evicted)
	if !out.Empty() {
		d.inFlight = append(d.inFlight, out)
	}
	ahead := 0
	if d.overlap && !out.Empty() {
		ahead = 1
	}
	if out.Empty() && len(d.inFlight) == 0 && len(d.live) > 0 {
		d.t.Fatalf("I9: %d live sequences, nothing scheduled and nothing in flight (%s)", len(d.live), out.WaitReason)
	}
	for len(d.inFlight) > ahead {
		d.update(d.inFlight[0])
		d.inFlight = d.inFlight[1:]
	}
	require.NoError(d.t, d.s.Check())
}

// verify checks what every Output promises.
func (d *driver) verify(out *Output) {
	tokens, decodesOver := 0, false
	seen := map[*Sequence]bool{}
	for i, e := range out.Scheduled {
		tokens += e.NumTokens
		q := e.Seq
		require.False(d.t, seen[q], "sequence %d is twice in a step", q.ID)
		seen[q] = true
		require.Equal(d.t, Running, q.Status)
		require.Positive(d.t, e.NumTokens)
		require.LessOrEqual(d.t, e.Start+e.NumTokens, q.Table.Len()*d.kv.BlockSize())
		require.Equal(d.t, e.Sample, e.Start+e.NumTokens == len(q.Tokens)+q.Pending-b2i(e.Sample))
		decode := i < out.NumDecodes
		require.False(d.t, decode && decodesOver)
		decodesOver = decodesOver || !decode
		if decode {
			require.Equal(d.t, 1, e.NumTokens)
		}
		if e.Resumed && q.Preemptions > 0 {
			d.states.resumed++
		}
	}
	require.Equal(d.t, out.NumTokens, tokens)
	require.LessOrEqual(d.t, tokens, d.s.cfg.MaxBatchedTokens)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (d *driver) update(out *Output) {
	results := make([]Result, len(out.Scheduled))
	for i, e := range out.Scheduled {
		if !e.Sample {
			continue
		}
		if !e.Live() {
			d.states.overrun++
			continue
		}
		if e.Seq.Status == Waiting {
			d.states.tokenAfterPreemption++
		}
		results[i].Token = int32(d.r.IntN(3))
		results[i].Finish = len(e.Seq.Tokens)+1 == e.Seq.MaxLen || d.r.IntN(25) == 0
	}
	d.s.Update(out, results, 0)
	for q := range d.live {
		if q.Status == Finished {
			d.states.finished++
			delete(d.live, q)
		}
	}
}

// TestRandom plays random clients against random configurations and verifies
// every invariant after every step. Each run ends with all sequences finished
// and all blocks free.
func TestRandom(t *testing.T) {
	runs := 500
	if testing.Short() {
		runs = 100
	}
	var states rareStates
	for seed := range uint64(runs) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			d := newDriver(t, seed, &states)
			for range 60 {
				for range d.r.IntN(3) {
					d.add()
				}
				if d.r.IntN(6) == 0 {
					d.abort()
				}
				d.step()
			}
			for bound := 0; len(d.live) > 0 || len(d.inFlight) > 0; bound++ {
				require.Less(t, bound, 20000, "livelock: %d sequences left", len(d.live))
				d.step()
			}
			require.Equal(t, d.kv.Capacity(), d.kv.NumFree())
		})
	}
	t.Logf("%+v", states)
	for name, n := range map[string]int{
		"preempted": states.preempted, "resumed": states.resumed, "token after preemption": states.tokenAfterPreemption,
		"overrun": states.overrun, "hits": states.hits, "evictions": states.evictions, "abort waiting": states.abortWaiting,
		"abort running": states.abortRunning, "abort in prefill": states.abortPrefill, "abort in flight": states.abortInFlight,
		"abort preempted": states.abortResumed, "finished": states.finished,
	} {
		require.Greater(t, n, runs/75, "the run never reached %q often enough to mean anything", name)
	}
}

// TestOrderSurvivesExtremePriorities: priorities are a client's numbers.
func TestOrderSurvivesExtremePriorities(t *testing.T) {
	kv, err := kvcache.NewManager(kvcache.Config{NumBlocks: 11, BlockSize: 16})
	require.NoError(t, err)
	s, err := New(Config{Limits: Limits{1, 16}, Policy: Priority}, kv)
	require.NoError(t, err)
	for _, priority := range []int{1, math.MinInt, 2, math.MaxInt, -2} {
		s.Add(&Sequence{Tokens: []int32{1}, MaxLen: 2, Priority: priority})
	}
	var got []int
	for s.NumWaiting() > 0 {
		out := s.Schedule()
		got = append(got, out.Scheduled[0].Seq.Priority)
		s.Update(out, []Result{{Token: 1, Finish: true}}, 0)
	}
	require.Equal(t, []int{math.MinInt, -2, 1, 2, math.MaxInt}, got)
}

// TestRefusedHeadTriesAgainWhenItsPrefixIsThere: two equal prompts, a pool for
// little more than one; the second starts as soon as the first has published
// its prompt, not when it ends.
func TestRefusedHeadTriesAgainWhenItsPrefixIsThere(t *testing.T) {
	kv, err := kvcache.NewManager(kvcache.Config{NumBlocks: 16, BlockSize: 16})
	require.NoError(t, err)
	s, err := New(Config{Limits: Limits{4, 256}, LongPrefillThreshold: 64}, kv)
	require.NoError(t, err)
	prompt := make([]int32, 170)
	s.Add(&Sequence{Tokens: slices.Clone(prompt), MaxLen: 200})
	second := &Sequence{Tokens: slices.Clone(prompt), MaxLen: 200}
	s.Add(second)
	for range 4 {
		require.Equal(t, Waiting, second.Status)
		out := s.Schedule()
		results := make([]Result, len(out.Scheduled))
		s.Update(out, results, 0)
		if second.Status == Running {
			break
		}
	}
	require.Equal(t, Running, second.Status)
	require.Positive(t, second.CachedTokens)
}

// BenchmarkStep is the scheduler's own cost of a step of 256 decodes.
func BenchmarkStep(b *testing.B) {
	kv, err := kvcache.NewManager(kvcache.Config{NumBlocks: 1 << 18, BlockSize: 16})
	require.NoError(b, err)
	s, err := New(Config{Limits: Limits{256, 8192}}, kv)
	require.NoError(b, err)
	for i := range 256 {
		q := &Sequence{Tokens: make([]int32, 16, 1<<16), MaxLen: 1 << 16}
		q.Tokens[0] = int32(i)
		s.Add(q)
	}
	results := make([]Result, 256)
	b.ReportAllocs()
	for b.Loop() {
		out := s.Schedule()
		s.Update(out, results[:len(out.Scheduled)], 0)
	}
}
