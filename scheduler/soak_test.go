package scheduler

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var (
	soakOps  = flag.Int("soak", 0, "operations of TestSoak; 0 = the number for CI")
	soakSeed = flag.Uint64("seed", 0, "the one seed that TestSoak plays; 0 = as many as it takes")
)

// opsPerSeed is the length of one run: long enough for sequences to come back
// from everything, short enough for many configurations.
const opsPerSeed = 2500

// randomSetup makes a configuration in which blocks are short.
func randomSetup(choose func(int) int) setup {
	size := 1 << choose(3)
	s := setup{
		blocks: 2 + 24/size + choose(1+64/size), host: randomHost(choose, size), size: size,
		overlap: choose(2) == 0, noPrefix: choose(5) == 0, stopOdds: 100 * uint64(choose(2)), calm: choose(5) > 0,
		stepTime: time.Duration(1+choose(20)) * time.Microsecond, tokenTime: time.Duration(1+choose(50)) * time.Microsecond,
	}
	s.cfg = Config{
		Limits:  s.randomLimits(choose),
		Policy:  []Policy{FCFS, Priority}[choose(2)],
		SwapOut: time.Duration(choose(20)) * time.Microsecond,
		SwapIn:  time.Duration(choose(40)) * time.Microsecond,
	}
	return s
}

// randomHost is a swap pool: none, small or large.
func randomHost(choose func(int) int, size int) int {
	return min(choose(4), 2) * choose(2+32/size)
}

func (s *setup) randomLimits(choose func(int) int) Limits {
	l := Limits{
		MaxNumSeqs:     2 + min(choose(10), 6),
		PreemptionMode: []Mode{Auto, Auto, OnlySwap, OnlySwap, OnlyRecompute}[choose(5)],
		Watermark:      []float64{0, -1, -1, 0.05}[choose(4)],
	}
	l.MaxBatchedTokens = l.MaxNumSeqs + choose(20)
	if choose(4) == 0 {
		l.LongPrefillThreshold = 1 + choose(16)
	}
	if choose(4) == 0 {
		l.MaxMixedTokens = 1 + choose(l.MaxBatchedTokens)
	}
	if choose(3) == 0 {
		l.TargetITL = s.stepTime + time.Duration(choose(40))*s.tokenTime
	}
	return l
}

// randomOp performs one operation, if what it draws is possible, and verifies
// everything.
func (m *machine) randomOp() (done bool) {
	switch n := m.choose(100); {
	case n < 8:
		done = m.randomSubmit()
	case n < 49:
		done = m.maySchedule() && !m.schedule().Empty()
	case n < 74:
		if done = len(m.flying) > 0; done {
			m.update()
		}
	case n < 87:
		if len(m.moving) > 0 {
			i := m.choose(len(m.moving))
			if done = m.choose(3) == 0; done { // slow, to be aborted on the way
				m.copyDone(i)
			}
		}
	case m.calm && m.choose(8) > 3:
	case n < 94:
		done = m.randomAbort()
	case n < 95:
		done = m.setLimits(m.randomLimits(m.choose), m.blocks, m.hostLimit)
	case n < 98:
		done = m.setLimits(m.randomLimits(m.choose), 2+24/m.size+m.choose(1+64/m.size), randomHost(m.choose, m.size))
	case n < 99:
		m.reset()
		done = true
	default:
		done = m.borrow()
	}
	m.check()
	return done
}

// maySchedule says whether the loop would.
func (m *machine) maySchedule() bool { return len(m.flying) == 0 || m.overlap && len(m.flying) == 1 }

// randomSubmit adds a request of one to four choices. Prompts are one family's
// token again and again, up to a branch, so that they share prefixes of all
// lengths.
func (m *machine) randomSubmit() (done bool) {
	if len(m.live) > 12 {
		return false
	}
	choices := 1 + max(0, m.choose(5)-1)
	length, family := 1+m.choose(8+min(choices-1, 1)*40), int32(m.choose(2))
	tokens := make([]int32, length, length+16)
	branch, variant := m.choose(2*length), m.choose(4)
	for i := range tokens {
		tokens[i] = family
		if i >= branch {
			tokens[i] = int32((variant >> (i % 2)) & 1)
		}
	}
	salt := []string{"", "salt"}[m.choose(6)/5]
	priority := m.choose(3)
	var parent *Sequence
	for range choices {
		q := &Sequence{
			Tokens: append([]int32(nil), tokens...), MaxLen: length + 1 + m.choose(50), Priority: priority, CacheSalt: salt, Parent: parent,
		}
		if c := m.submit(q); c != nil && parent == nil {
			parent = q
		}
	}
	return true
}

// randomAbort ends a sequence, more often than not one in a rare state.
func (m *machine) randomAbort() (done bool) {
	rare := func(c *client) bool { return true }
	switch m.choose(14) {
	case 0, 1, 7, 9, 10, 12:
		rare = func(c *client) bool { return c.Status == Running && c.transfer != 0 }
	case 2, 8:
		rare = func(c *client) bool { return c.Status == Swapped && c.transfer != 0 }
	case 3:
		rare = func(c *client) bool { return c.Status == Running && c.Launched < c.PromptLen }
	case 4:
		rare = func(c *client) bool { return c.Status == Swapped && c.transfer == 0 }
	case 11:
		rare = func(c *client) bool { return c.Status == Running && c.Launched >= c.PromptLen }
	case 5:
		rare = func(c *client) bool { return c.parked || len(c.forks) > 0 }
	case 6:
		rare = func(c *client) bool { return c.Status == Waiting && c.epoch == 1 }
	}
	first := m.choose(1 + len(m.live))
	for i := range m.live {
		if c := m.live[(first+i)%len(m.live)]; rare(c) {
			m.abort(c)
			return true
		}
	}
	return false
}

// borrow takes blocks for a computation outside any sequence and gives them back.
func (m *machine) borrow() (done bool) {
	if m.kv.Excess() > 0 {
		return false // the engine does so between requests only
	}
	_, done = m.s.Borrow(1 + m.choose(3*m.size))
	m.check()
	m.s.GiveBack()
	return done
}

// playSeed runs one seed to its end.
func playSeed(seed uint64, ops int, c *counts) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("seed %d, operation %d: %v", seed, c.ops, r)
		}
	}()
	r := rand.New(rand.NewPCG(seed, 1))
	m := newMachine(randomSetup(r.IntN), r.IntN, c)
	for c.ops < ops {
		if m.randomOp() {
			c.ops++
		}
	}
	m.drain(20_000)
	c.seeds++
	return nil
}

// TestSoak is the seeded state machine: random operations over Scheduler and
// Manager, all invariants after each, in many configurations. A run that did not
// reach each rare state once in a thousand operations is void.
func TestSoak(t *testing.T) {
	total := 1_000_000
	if testing.Short() {
		total = 150_000
	}
	if *soakOps > 0 {
		total = *soakOps
	}
	if *soakSeed > 0 {
		var c counts
		require.NoError(t, playSeed(*soakSeed, opsPerSeed, &c))
		return
	}
	seeds := (total + opsPerSeed - 1) / opsPerSeed
	var all counts
	var failures []error
	var next atomic.Int64
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for seed := next.Add(1); seed <= int64(seeds); seed = next.Add(1) {
				var c counts
				err := playSeed(uint64(seed), opsPerSeed, &c)
				mu.Lock()
				all.merge(&c)
				if err != nil {
					failures = append(failures, err)
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	t.Logf("%v", &all)
	for i, err := range failures {
		if i == 10 {
			break
		}
		t.Error(err)
	}
	require.Empty(t, failures)
	if !testing.Short() {
		require.Empty(t, all.missing(1000))
	}
	fmt.Printf("soak: %d/%d\n", all.ops, seeds*opsPerSeed)
}

// A failure is shrunk and printed with its seed; the tree stays as it is. The seed is
// fixed unless given, as -rapid.seed.
func init() {
	for name, value := range map[string]string{"rapid.seed": "1", "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
}

// TestMachine is the same machine driven by rapid, which shrinks a failure to a
// short one.
func TestMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		choose := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") }
		m := newMachine(randomSetup(choose), choose, &counts{})
		for range rapid.IntRange(1, 300).Draw(t, "operations") {
			m.randomOp()
		}
		m.drain(20_000)
	})
}
