package scheduler

import "fmt"

// state is a rare state that a random run must have reached to mean anything.
type state int

const (
	preemptRecompute state = iota
	preemptSwap
	waitForCopies
	waitForEnd
	waitForOlder
	swapFull
	preemptParent
	shrinkOwner
	shrinkHost
	lowerSeqs
	resumedRecompute
	resumedSwap
	rematched
	admittedProtected
	forked
	copyOnWrite
	hit
	evicted
	chunked
	itlCut
	mixedCut
	parkedFork
	promotedFork
	neverFits
	overrun
	tokenAfterPreemption
	resetLive
	abortWaiting
	abortParked
	abortPrefill
	abortDecode
	abortInFlight
	abortPreempted
	abortSwapOut
	abortOnHost
	abortSwapIn
	finished
	numStates
)

var stateNames = [numStates]string{
	"preempted by recompute", "preempted by swap", "waited for copies", "waited as cheaper than to preempt", "waited for older ones", "swap pool full",
	"parent of parked forks preempted", "owner preempted by a shrinking pool", "host copy dropped by a shrinking swap pool",
	"preempted by a lower max_num_seqs", "resumed by recompute", "resumed by swap in", "rematched on the way in", "protected sequence admitted",
	"forked", "copied on write", "prefix hit", "block evicted", "prefill in chunks", "chunk cut for target_itl", "chunk cut by max_num_mixed_tokens", "fork parked", "fork promoted",
	"refused: never fits", "overrun", "token after preemption", "cache reset with live tables",
	"abort: waiting", "abort: parked", "abort: in prefill", "abort: decoding", "abort: step in flight", "abort: preempted",
	"abort: in swap-out", "abort: on the host", "abort: in swap-in", "finished",
}

// counts are the states that runs reached.
type counts struct {
	ops, seeds int
	n          [numStates]int
}

func (c *counts) add(s state) { c.n[s]++ }

func (c *counts) merge(o *counts) {
	c.ops += o.ops
	c.seeds += o.seeds
	for i := range c.n {
		c.n[i] += o.n[i]
	}
}

// missing says which states were reached less than once in so many operations.
func (c *counts) missing(every int) string {
	for s, n := range c.n {
		if n < c.ops/every {
			return fmt.Sprintf("void: %q was reached %d times in %d operations", stateNames[s], n, c.ops)
		}
	}
	return ""
}

func (c *counts) String() string {
	text := fmt.Sprintf("%d operations, %d seeds\n", c.ops, c.seeds)
	for s, n := range c.n {
		text += fmt.Sprintf("%12d  %s\n", n, stateNames[s])
	}
	return text
}

// owners remembers, before a Schedule, what SetLimits is about to cost.
type owners struct{ retired, hostRetired int }

func (m *machine) owners() (o owners) {
	if !m.s.shrinking {
		return o
	}
	for _, c := range m.live {
		if c.Status == Running && m.kv.Retired(&c.Table) {
			o.retired++
		}
		if c.Status == Swapped && m.kv.HostRetired(&c.Host) {
			o.hostRetired++
		}
	}
	return o
}

// countOutput counts the states that a step went through.
func (m *machine) countOutput(out *Output, o owners) {
	c := m.counts
	c.n[shrinkOwner] += o.retired
	c.n[shrinkHost] += o.hostRetired
	for i := range out.Decisions {
		d := &out.Decisions[i]
		switch {
		case d.Means == ByWaiting && d.Recompute >= 0:
			c.add(waitForEnd)
		case d.Means == ByWaiting && len(m.moving) > 0:
			c.add(waitForCopies)
		case d.Means == ByWaiting:
			c.add(waitForOlder)
		case d.Means == BySwap:
			c.add(preemptSwap)
		default:
			c.add(preemptRecompute)
		}
		if d.SwapFull {
			c.add(swapFull)
		}
		if d.Means != ByWaiting && len(d.Seq.forks) > 0 {
			c.add(preemptParent)
		}
		if d.For == nil && o.retired == 0 {
			c.add(lowerSeqs)
		}
	}
	for i := range out.Admitted {
		a := &out.Admitted[i]
		switch {
		case a.How == Recompute:
			c.add(resumedRecompute)
		case a.How == SwappedIn:
			c.add(resumedSwap)
			if a.HitTokens > a.Copied*m.size {
				c.add(rematched)
			}
		case a.How == Forked:
			c.add(forked)
		case a.HitTokens > 0:
			c.add(hit)
		}
		if a.Seq.protected() {
			c.add(admittedProtected)
		}
	}
	c.n[copyOnWrite] += len(out.Copies)
	c.n[evicted] += len(out.Evicted)
	for i := out.NumDecodes; i < len(out.Scheduled); i++ {
		if e := &out.Scheduled[i]; !e.Sample {
			c.add(chunked)
			switch out.ChunkReason {
			case WaitITL:
				c.add(itlCut)
			case WaitMixed:
				c.add(mixedCut)
			}
		}
	}
}
