package scheduler

import "time"

// waitSteps is how many steps a sequence may be asked to wait for another's end
// instead of preempting one.
const waitSteps = 8

// makeRoom finds a block for the next token of q, the i-th running sequence, by
// preempting others that come after it. It is false when q is to wait for a block
// instead: then it does not run in this step.
func (s *Scheduler) makeRoom(out *Output, q *Sequence, i int) bool {
	for !s.kv.Grow(&q.Table, q.Launched+1) {
		// Blocks on their way out are as good as free, one step later.
		if s.kv.NumInFlight() > s.promised {
			s.promised++
			out.Decisions = append(out.Decisions, Decision{Means: ByWaiting, Seq: q, For: q, Swap: -1, Recompute: -1, Wait: -1})
			return false
		}
		d := s.choose(q, i)
		if d.Means == ByWaiting {
			out.Decisions = append(out.Decisions, d)
			return false
		}
		s.preempt(out, &d)
	}
	return true
}

// maxCandidates bounds the search for a victim.
const maxCandidates = 64

// protectAfter is the number of preemptions after which a sequence is protected:
// it is admitted only when all that are protected can grow to their full lengths
// (promisable), and from then on the others go.
const protectAfter = 3

func (q *Sequence) protected() bool { return q.Preemptions >= protectAfter }

// choose decides whom to preempt for q, the i-th running sequence, and how, or to
// wait. The victim is one that comes after q; those before it are older and part
// of the step by now. If there is none q waits, and keeps its blocks: when an older
// one needs them it is preempted, when that ends it need not be.
func (s *Scheduler) choose(q *Sequence, i int) Decision {
	best, loading := s.cheapest(i, false)
	if best.Seq == nil && i == 0 && !loading { // the promise to the protected did not outlive a shrinking pool
		best, _ = s.cheapest(i, true)
	}
	best.For, best.Wait = q, s.waitCost()*time.Duration(s.waiters+1)
	switch {
	case best.Seq == nil:
		best.Means, best.Seq, best.Swap, best.Recompute = ByWaiting, q, -1, -1
	case s.cfg.PreemptionMode == Auto && best.Wait >= 0 && best.Wait.Seconds() < s.cost(&best):
		best.Means, best.Seq, best.Blocks = ByWaiting, q, 0
		s.waiters++
	}
	return best
}

// cheapest finds a victim among the running sequences after the i-th, protected
// ones or the others. It is the newest, unless another is cheaper by a quarter for
// each block that it frees. loading says that there are some that cannot be
// preempted yet.
func (s *Scheduler) cheapest(i int, protected bool) (best Decision, loading bool) {
	var bestCost float64
	all := s.running.all()
	for j, left := len(all)-1, maxCandidates; j > i && left > 0; j-- {
		v := all[j]
		if v.transfer != 0 {
			loading = true
			continue
		}
		if v.protected() != protected {
			continue
		}
		d := s.estimate(v)
		if d.Blocks == 0 {
			continue
		}
		left--
		cost := s.cost(&d) / float64(d.Blocks)
		if best.Seq == nil || cost < 0.75*bestCost {
			best, bestCost = d, cost
		}
	}
	return best, loading
}

// cost is what a decision costs, in seconds.
func (s *Scheduler) cost(d *Decision) float64 {
	if d.Means == BySwap {
		return d.Swap.Seconds()
	}
	return d.Recompute.Seconds()
}

// estimate prices the preemption of v and chooses the means.
//
//	recompute = prefill of its tokens, less those that it shares with others
//	swap      = its private blocks out and in again
func (s *Scheduler) estimate(v *Sequence) Decision {
	d := Decision{Seq: v, Means: ByRecompute, Swap: -1, Wait: -1}
	hits, private := s.shares(v)
	d.Blocks = private
	d.Recompute = s.model.Prefill(hits, max(v.Launched-hits, 0))
	if s.cfg.PreemptionMode == OnlyRecompute || s.kv.Stats().HostTotal == 0 {
		return d
	}
	blocks, fits := s.kv.CanSwapOut(&v.Table, v.Launched)
	if blocks == 0 {
		return d // nothing is its own: giving it back costs no copy
	}
	d.Swap = time.Duration(blocks) * (s.swapOut + s.swapIn)
	switch {
	case !fits:
		d.SwapFull = true
	case s.cfg.PreemptionMode == OnlySwap, d.Recompute == 0, d.Swap < d.Recompute:
		d.Means = BySwap
	}
	return d
}

// shares counts the leading tokens that v shares with others, which stay in the
// cache when it goes, and the blocks that come free when it does.
func (s *Scheduler) shares(v *Sequence) (hits, private int) {
	leading := true
	for _, id := range v.Table.IDs() {
		if s.kv.IsShared(id) {
			if leading {
				hits += s.kv.BlockSize()
			}
			continue
		}
		leading = false
		private++
	}
	return min(hits, v.Launched), private
}

// waitCost prices waiting for a running sequence that is sure to end within
// waitSteps and needs no further block: its steps' time, for the share of the
// batch that stands still. Negative = there is none. All that wait in a step count,
// since one preemption would serve several of them.
func (s *Scheduler) waitCost() time.Duration {
	soonest := waitSteps + 1
	for _, r := range s.running.all() {
		if r.transfer == 0 && r.need() <= 1 && r.Table.Len() >= s.BlocksNeeded(r.MaxLen) {
			soonest = min(soonest, r.MaxLen-r.known())
		}
	}
	if soonest > waitSteps || !s.model.Ready() {
		return -1
	}
	step, _, decode, _, _ := s.model.Coefficients()
	n := time.Duration(s.running.len())
	return time.Duration(soonest+1) * (step/n + decode)
}

// preempt carries a decision out: the victim loses its blocks and waits in its
// order of precedence. Forks that wait for its prompt go on waiting.
func (s *Scheduler) preempt(out *Output, d *Decision) {
	v := d.Seq
	s.running.remove(v)
	s.slots -= v.Launched
	v.Status, v.transfer = Waiting, 0
	if d.Means == BySwap {
		t := s.transferOut()
		t.copies = s.kv.SwapOut(&v.Table, &v.Host, v.Launched, t.copies)
		t.seqs = append(t.seqs, v)
		v.Status, v.transfer, v.onHost = Swapped, t.id, v.Launched
		s.swapped++
	} else {
		s.kv.Release(&v.Table)
	}
	v.NumComputed, v.Launched = 0, 0
	v.epoch++
	v.Preemptions++
	s.waiting.insert(v)
	out.Decisions = append(out.Decisions, *d)
}
