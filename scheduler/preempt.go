package scheduler

import (
	"time"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// transfer is a batch of swap copies, from the Schedule that begins it to
// CopyDone.
type transfer struct {
	id     TransferID
	toHost bool
	copies []kvcache.Copy
	seqs   []*Sequence // that wait for it
}

// begin starts the transfer of this step in one direction. It is appended to
// transfers when the step's copies are known; a pointer into transfers would move.
func (s *Scheduler) begin(toHost bool) *transfer {
	s.nextTransfer++
	t := &transfer{}
	if n := len(s.idle); n > 0 {
		*t = s.idle[n-1]
		s.idle = s.idle[:n-1]
	}
	*t = transfer{id: s.nextTransfer, toHost: toHost, copies: t.copies[:0], seqs: t.seqs[:0]}
	return t
}

func (s *Scheduler) transferOut() *transfer {
	if s.out == nil {
		s.out = s.begin(true)
	}
	return s.out
}

func (s *Scheduler) transferIn() *transfer {
	if s.in == nil {
		s.in = s.begin(false)
	}
	return s.in
}

// waitSteps is how many steps a sequence may be asked to wait for another's end
// instead of preempting one.
const waitSteps = 8

// makeRoom finds a block for the next token of q, the i-th running sequence: by
// waiting for one that comes free anyhow, or by preempting others that come after
// q, or q itself. It is false when q does not run in this step.
func (s *Scheduler) makeRoom(out *Output, q *Sequence, i int) bool {
	for !s.kv.Grow(&q.Table, q.Launched+1) {
		// Blocks on their way out are as good as free, one step later.
		if s.kv.NumInFlight() > s.promised {
			s.promised++
			out.Decisions = append(out.Decisions, Decision{Means: ByWaiting, Seq: q, For: q, Swap: -1, Recompute: -1})
			return false
		}
		d := s.choose(q, i)
		if d.Means == ByWaiting {
			out.Decisions = append(out.Decisions, d)
			return false
		}
		s.preempt(out, &d)
		if d.Seq == q {
			return false
		}
	}
	return true
}

// maxCandidates bounds the search for a victim.
const maxCandidates = 64

// choose decides whom to preempt for q and how, or to wait. Candidates are the
// running sequences from the i-th on, newest first: those before it are older and
// already part of the step. Another than the newest is taken only when it is
// cheaper by a quarter for each block that it frees; q itself, or one that was
// preempted often, only when there is no other; the oldest of all never.
func (s *Scheduler) choose(q *Sequence, i int) Decision {
	var best Decision
	var bestCost float64
	loading := false
	all := s.running.all()
	for j := len(all) - 1; j >= max(i, len(all)-maxCandidates); j-- {
		v := all[j]
		if v.transfer != 0 {
			loading = true
			continue
		}
		settled := best.Seq != nil && best.Seq.Preemptions < protectAfter
		if j == 0 || settled && (v == q || v.Preemptions >= protectAfter) {
			continue
		}
		d := s.estimate(v)
		if d.Blocks == 0 && v != q {
			continue
		}
		cost := s.cost(&d) / float64(max(d.Blocks, 1))
		if best.Seq == nil || !settled && v.Preemptions < protectAfter || cost < 0.75*bestCost {
			best, bestCost = d, cost
		}
	}
	best.For, best.Wait = q, s.waitCost()
	switch {
	case best.Seq == nil || best.Seq == q && loading:
		// What is being copied in can be preempted once it is there.
		return Decision{Means: ByWaiting, Seq: q, For: q, Swap: -1, Recompute: -1}
	case s.cfg.PreemptionMode == Auto && best.Wait >= 0 && best.Wait.Seconds() < s.cost(&best):
		best.Means, best.Seq, best.Blocks = ByWaiting, q, 0
	}
	return best
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
// batch that stands still. Negative = there is none.
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

// CopyDone reports the copies of a Transfer as finished, and the time they took:
// its blocks are out of flight, sequences that were copied in may run. 0 = the time
// is not known.
func (s *Scheduler) CopyDone(id TransferID, took time.Duration) {
	for i := range s.transfers {
		t := s.transfers[i]
		if t.id != id {
			continue
		}
		s.trace.emit(func(l *TraceLine) { l.CopyDone = &TraceCopy{id, took} })
		s.kv.Copied(t.copies, t.toHost)
		for _, q := range t.seqs {
			s.arrived(q, id)
		}
		s.learnCopy(t.toHost, took, len(t.copies))
		clear(t.seqs)
		s.idle = append(s.idle, t)
		s.transfers = append(s.transfers[:i], s.transfers[i+1:]...)
		return
	}
	panic("scheduler: CopyDone of a transfer that is not under way")
}

// arrived ends q's waiting for a transfer, unless it went elsewhere meanwhile.
func (s *Scheduler) arrived(q *Sequence, id TransferID) {
	if q.transfer != id || q.Status == Finished {
		return
	}
	q.transfer = 0
	if q.Status == Running {
		s.kv.Publish(&q.Table, q.Tokens, q.CacheSalt, q.NumComputed)
	}
}

func (s *Scheduler) learnCopy(toHost bool, took time.Duration, blocks int) {
	if took <= 0 || blocks == 0 {
		return
	}
	rate := &s.swapIn
	if toHost {
		rate = &s.swapOut
	}
	each := took / time.Duration(blocks)
	if *rate == 0 {
		*rate = each
	} else {
		*rate += (each - *rate) / 8
	}
}

// Transfers appends the ids of the copies under way.
func (s *Scheduler) Transfers(to []TransferID) []TransferID {
	for i := range s.transfers {
		to = append(to, s.transfers[i].id)
	}
	return to
}

// SetLimits changes limits and pool sizes, in blocks; blocks counts the reserved
// block 0. Growing takes effect with the next Schedule. After shrinking, the next
// Schedule preempts the owners of what the pools lose, and the newest beyond
// MaxNumSeqs; Settled says when nothing of it is in use any more. Every live
// sequence must fit the new pool: the caller asks LargestNeed.
func (s *Scheduler) SetLimits(l Limits, blocks, host int) error {
	if err := l.validate(); err != nil {
		return err
	}
	s.trace.emit(func(line *TraceLine) { line.Limits = &TraceLimits{l.MaxNumSeqs, l.MaxBatchedTokens, blocks, host} })
	s.cfg.Limits = l
	s.kv.SetLimits(blocks, host)
	s.shrinking = s.kv.Excess() > 0
	s.refused = nil
	s.reserveOutputs()
	return nil
}

// LargestNeed is the most blocks that a live sequence can come to hold.
func (s *Scheduler) LargestNeed() int {
	most := 0
	for _, queue := range []*queue{&s.running, &s.waiting} {
		for _, q := range queue.all() {
			most = max(most, s.BlocksNeeded(q.MaxLen))
			for _, f := range q.forks {
				most = max(most, s.BlocksNeeded(f.MaxLen))
			}
		}
	}
	return most
}

// Settled says whether all blocks beyond the limits are out of use.
func (s *Scheduler) Settled() bool { return s.kv.Excess() == 0 }

// enforceLimits preempts whom lowered limits leave no place.
func (s *Scheduler) enforceLimits(out *Output) {
	for s.running.len() > s.cfg.MaxNumSeqs {
		s.evictOwner(out, s.running.last())
	}
	if !s.shrinking {
		return
	}
	for i := s.running.len() - 1; i >= 0; i-- {
		if q := s.running.all()[i]; s.kv.Retired(&q.Table) {
			s.evictOwner(out, q)
		}
	}
	for _, q := range s.waiting.all() {
		if q.Status == Swapped && s.kv.HostRetired(&q.Host) {
			s.dropHost(q)
		}
	}
	s.shrinking = s.kv.Excess() > 0
}

// dropHost gives up what a swapped sequence has on the host: it computes it again.
func (s *Scheduler) dropHost(q *Sequence) {
	s.kv.DropHost(&q.Host)
	q.Status, q.transfer, q.onHost = Waiting, 0, 0
	s.swapped--
}

// evictOwner preempts q for a limit's sake. What is still being copied in cannot
// be copied out.
func (s *Scheduler) evictOwner(out *Output, q *Sequence) {
	d := s.estimate(q)
	if q.transfer != 0 {
		d.Means = ByRecompute
	}
	s.preempt(out, &d)
	q.Preemptions-- // not for want of blocks: it does not count against anybody
}
