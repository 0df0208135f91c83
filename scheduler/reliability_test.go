package scheduler

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var full = flag.Bool("full", false, "TestPoolForOne plays all of its seeds")

// guard turns a machine's panic into an error that names the case.
func guard(name string, f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: %v", name, r)
		}
	}()
	f()
	return nil
}

// promptOf makes n tokens that equal families share, from the alphabet of the
// machine's outputs.
func promptOf(family, n int) []int32 {
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(family >> (i % 4) & 1)
	}
	return tokens
}

// TestPoolForOne: a pool just large enough for one request, 64 requests. All
// finish, and none is preempted more than protectAfter times: 10,000 seeds, of
// which a plain run plays every 25th.
func TestPoolForOne(t *testing.T) {
	const seeds = 10_000
	every := 25
	if *full {
		every = 1
	}
	var c counts
	played, preempted, most := 0, 0, 0
	for seed := uint64(0); seed < seeds; seed += uint64(every) {
		played++
		r := rand.New(rand.NewPCG(seed, 2))
		require.NoError(t, guard(fmt.Sprint("seed ", seed), func() {
			s := randomSetup(r.IntN)
			longest := s.size * (1 + r.IntN(8)) // computed tokens of the longest request
			s.blocks, s.cfg.MaxNumSeqs, s.cfg.MaxBatchedTokens = longest/s.size+1, 8, 8+r.IntN(40)
			m := newMachine(s, r.IntN, &c)
			var all []*client
			submit := func() {
				prompt := 1 + r.IntN(longest)
				q := &Sequence{Tokens: promptOf(r.IntN(16), prompt), MaxLen: prompt + 1 + r.IntN(longest+1-prompt), Priority: r.IntN(3)}
				if len(all)%4 == 0 {
					q.MaxLen = longest + 1
				}
				all = append(all, m.submit(q))
			}
			for len(all) < 32 {
				submit()
			}
			for n := 0; len(m.live) > 0 || len(all) < 64; n++ {
				if n > 200_000 {
					m.fail("deadlock: %d of 64 requests are left", len(m.live))
				}
				if len(all) < 64 && r.IntN(10) == 0 {
					submit()
				}
				m.churn()
			}
			m.drain(10)
			for _, c := range all {
				preempted += c.Preemptions
				most = max(most, c.Preemptions)
			}
		}))
	}
	require.LessOrEqual(t, most, protectAfter)
	require.Greater(t, preempted, played, "void: hardly anybody was preempted")
	t.Logf("%d of %d seeds, 64 requests each: 0 deadlocks, %.2f preemptions a request, at most %d", played, seeds, float64(preempted)/float64(64*played), most)
	fmt.Printf("pool for one: %d/%d\n", played, (seeds+every-1)/every)
}

// churn is one operation of a loop without aborts and changes of limits.
func (m *machine) churn() {
	switch n := m.choose(3); {
	case n == 0 && len(m.moving) > 0:
		m.copyDone(m.choose(len(m.moving)))
	case n < 2 && m.maySchedule():
		m.schedule()
	case len(m.flying) > 0:
		m.update()
	}
	m.check()
}

// script is a fixed workload on a fixed loop, so that the n-th operation of two
// runs is the same.
type script struct {
	*machine
	choices int
	all     []*client
}

func newScript(noPrefix, overlap bool, choices int, mode Mode, c *counts) *script {
	s := setup{
		blocks: 15, host: 12, size: 4, noPrefix: noPrefix, overlap: overlap, stepTime: 10 * time.Microsecond, tokenTime: time.Microsecond,
		cfg: Config{Limits: Limits{MaxNumSeqs: 5, MaxBatchedTokens: 12, PreemptionMode: mode, Watermark: -1}},
	}
	return &script{machine: newMachine(s, nil, c), choices: choices}
}

// op performs the n-th operation and says whether there is more to do.
func (s *script) op(n int) bool {
	switch {
	case n == 0:
		s.submitAll(23, 38, 1)
		s.submitAll(7, 30, s.choices)
	case n == 8:
		s.submitAll(11, 35, 1)
	case n == 20:
		s.submitAll(13, 30, s.choices)
	}
	switch {
	case n%8 == 5 && len(s.moving) > 0:
		s.copyDone(0)
	case n%2 == 0 && s.maySchedule():
		s.schedule()
	case len(s.flying) > 0:
		s.update()
	}
	s.check()
	return n < 20 || len(s.live) > 0 || len(s.flying) > 0 || len(s.moving) > 0
}

func (s *script) submitAll(prompt, maxLen, choices int) {
	var parent *Sequence
	for i := range choices {
		c := s.submit(&Sequence{Tokens: promptOf(prompt, prompt), MaxLen: maxLen - i, Parent: parent})
		if i == 0 {
			parent = c.Sequence
		}
		s.all = append(s.all, c)
	}
}

// TestAbortEverywhere aborts each sequence of a script in each situation that it
// comes into, in 16 configurations. Its blocks are back at once, those named by
// copies when these are reported, and all others get the tokens that they would
// have got alone.
func TestAbortEverywhere(t *testing.T) {
	var c counts
	cases := map[string]bool{}
	for config := range 16 {
		noPrefix, overlap, choices := config&1 > 0, config&2 > 0, 1+3*(config>>2&1)
		mode := []Mode{OnlyRecompute, OnlySwap}[config>>3]
		for target := range 2 + 2*choices {
			for at := 0; ; at++ {
				s := newScript(noPrefix, overlap, choices, mode, &c)
				ended := false
				name := fmt.Sprintf("config %d, sequence %d aborted after operation %d", config, target, at)
				require.NoError(t, guard(name, func() { ended = s.abortAt(target, at, config, cases) }))
				if ended {
					break
				}
				if testing.Short() {
					at += 6
				}
			}
		}
	}
	for state := abortWaiting; state <= abortSwapIn; state++ {
		require.Positive(t, c.n[state], "void: %s", stateNames[state])
	}
	if !testing.Short() {
		require.GreaterOrEqual(t, len(cases), 2000)
	}
	t.Logf("%d distinct cases", len(cases))
	fmt.Printf("aborts: %d/%d\n", len(cases), len(cases))
}

// abortAt plays the script with an abort after operation at, unless the target's
// situation is none that was seen. ended says that the target finished before.
func (s *script) abortAt(target, at, config int, cases map[string]bool) (ended bool) {
	for n := range at + 1 {
		s.op(n)
	}
	if target >= len(s.all) {
		return false
	}
	q := s.all[target]
	if q.Status == Finished {
		before := s.kv.Stats()
		s.s.Abort(q.Sequence) // does nothing
		if s.kv.Stats() != before {
			s.fail("an abort after the end changed %+v to %+v", before, s.kv.Stats())
		}
		return true
	}
	key := fmt.Sprint(config, target, q.Status, q.parked, q.transfer != 0, len(s.moving), q.Launched, q.NumComputed, q.Pending, len(q.Tokens), len(q.forks), q.epoch)
	if cases[key] {
		return false
	}
	cases[key] = true
	s.abort(q)
	s.check()
	if q.Table.Len()+q.Host.Len() > 0 {
		s.fail("%d blocks and %d host blocks are held after the abort", q.Table.Len(), q.Host.Len())
	}
	for len(s.moving) > 0 {
		s.copyDone(0)
		s.check()
	}
	if st := s.kv.Stats(); st.InFlight+st.HostInFlight > 0 {
		s.fail("%d blocks are in flight, nothing is being copied", st.InFlight+st.HostInFlight)
	}
	for n := at + 1; s.op(n); n++ {
		if n > at+5000 {
			s.fail("livelock: %d sequences are left", len(s.live))
		}
	}
	return false
}

// TestFairness: later arrivals delay nobody beyond a bound. Each of 1,000 mixes is
// played twice, with and without what arrives after one request: a long prompt
// among short ones or a short among long. With them its first token may take three
// times as many steps, and 4; where a bound on steps with decodes makes them smaller,
// three times as many as if every step were as small.
func TestFairness(t *testing.T) {
	mixes := 1000
	if testing.Short() {
		mixes = 50
	}
	worst := 0.0
	waited := 0
	for mix := range mixes {
		limits := Limits{MaxNumSeqs: 8, MaxBatchedTokens: 64}
		small := limits
		if mix%3 == 0 {
			limits.MaxMixedTokens, small.MaxBatchedTokens = 28, 28
		}
		alone := firstToken(t, uint64(mix), small, false)
		among := firstToken(t, uint64(mix), limits, true)
		require.LessOrEqual(t, among, 3*alone+4, "mix %d: %d steps without later arrivals, %d with", mix, alone, among)
		worst = max(worst, float64(among)/float64(alone))
		if alone > 10 {
			waited++
		}
	}
	require.Greater(t, waited, mixes/3, "void: hardly anybody had to wait")
	t.Logf("%d mixes, worst %.2f times the steps", mixes, worst)
	fmt.Printf("fairness: %d/%d\n", mixes, mixes)
}

// firstToken is how many steps a request's first token takes.
func firstToken(t *testing.T, mix uint64, limits Limits, later bool) (steps int) {
	r := rand.New(rand.NewPCG(mix, 3))
	s := setup{blocks: 90, host: 40 * int(mix%2), size: 8, stepTime: 10 * time.Microsecond, tokenTime: time.Microsecond,
		cfg: Config{Limits: limits}}
	longAmongShort := r.IntN(2) == 0
	request := func(probe bool) *Sequence {
		n := 1 + r.IntN(20)
		if probe == longAmongShort {
			n = 200 + r.IntN(300)
		}
		return &Sequence{Tokens: promptOf(r.IntN(16), n), MaxLen: n + 2 + r.IntN(40)}
	}
	err := guard(fmt.Sprint("mix ", mix), func() {
		m := newMachine(s, r.IntN, &counts{})
		for range 12 {
			m.submit(request(false))
		}
		probe := m.submit(request(true))
		for len(probe.Tokens) == probe.PromptLen {
			if later && len(m.live) < 40 {
				m.submit(request(false))
			}
			m.schedule()
			for len(m.moving) > 0 {
				m.copyDone(0)
			}
			if len(m.flying) > 0 {
				m.update()
			}
			if steps++; steps > 5000 {
				m.fail("starved")
			}
		}
	})
	require.NoError(t, err)
	return steps
}

// TestNeverFits: what cannot run alone in an empty pool is refused at once, and what
// just can runs to its end: 200 boundaries, a token to either side.
func TestNeverFits(t *testing.T) {
	cases := 0
	for _, size := range []int{1, 2, 3, 5, 16} {
		for blocks := 1; blocks <= 40; blocks++ {
			cases++
			name := fmt.Sprintf("%d blocks of %d", blocks, size)
			require.NoError(t, guard(name, func() {
				var c counts
				s := setup{blocks: blocks + 1, size: size, cfg: Config{Limits: Limits{MaxNumSeqs: 4, MaxBatchedTokens: 64}}, overlap: blocks%2 == 0}
				m := newMachine(s, rand.New(rand.NewPCG(uint64(blocks), 5)).IntN, &c)
				last := blocks*size + 1 // tokens; the last one is never computed
				prompt := 1 + blocks*size/2
				if m.submit(&Sequence{Tokens: promptOf(blocks, prompt), MaxLen: last + 1}) != nil {
					m.fail("%d tokens were accepted", last+1)
				}
				for _, maxLen := range []int{last, max(last-1, prompt+1), last} {
					if m.submit(&Sequence{Tokens: promptOf(blocks, prompt), MaxLen: maxLen}) == nil {
						m.fail("%d tokens were refused", maxLen)
					}
				}
				m.drain(20_000)
				if c.n[finished] != 3 {
					m.fail("%d of 3 finished", c.n[finished])
				}
			}))
			require.Panics(t, func() {
				m := newMachine(setup{blocks: blocks + 1, size: size, cfg: Config{Limits: Limits{MaxNumSeqs: 4, MaxBatchedTokens: 64}}}, nil, &counts{})
				m.s.Add(&Sequence{Tokens: []int32{1}, MaxLen: blocks*size + 2})
			}, name)
		}
	}
	require.Equal(t, 200, cases)
}
