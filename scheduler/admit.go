package scheduler

import (
	"cmp"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// admit starts waiting sequences in order, as long as they fit whole.
func (s *Scheduler) admit(out *Output, budget int) int {
	taken := 0
	for s.waiting.len() > 0 {
		q := s.waiting.front()
		if out.WaitReason = s.whyWait(out, q, budget-taken); out.WaitReason != WaitNone {
			break
		}
		admission, ok := s.place(out, q)
		if !ok {
			s.refused, s.refusedChanges = q.ID, s.kv.Changes()
			out.WaitReason = WaitBlocks
			break
		}
		s.waiting.popFront()
		s.running.insert(q)
		s.slots += q.Launched
		if q.epoch == 0 {
			q.CachedTokens = admission.HitTokens
			s.kv.CountLookup(q.PromptLen, q.CachedTokens)
		}
		q.Status, q.reset = Running, true
		out.Admitted = append(out.Admitted, admission)
		if q.transfer != 0 {
			out.Loading++
			continue
		}
		n := s.chunk(q, budget-taken, s.mayAdmit(out))
		s.launch(out, q, n, 0)
		taken += n
	}
	return taken
}

// whyWait says what keeps the head of the queue from being admitted before the
// cache is asked.
func (s *Scheduler) whyWait(out *Output, q *Sequence, budget int) WaitReason {
	switch {
	case out.shortage():
		return WaitPreempted
	case s.shrinking:
		return WaitShrink
	case s.wanted && s.running.len() > 0:
		return WaitLoan
	case s.running.len() >= s.cfg.MaxNumSeqs:
		return WaitSeqs
	case budget == 0:
		return cmp.Or(out.ChunkReason, WaitBudget)
	case q.Pending > 0:
		return WaitPending
	case q.transfer != 0:
		return WaitCopyOut
	case s.refused == q.ID && s.refusedChanges == s.kv.Changes():
		return WaitBlocks
	}
	return WaitNone
}

// place finds blocks for q: its parent's, its own on the host, or those that the
// prefix index knows, and fresh ones for the rest.
func (s *Scheduler) place(out *Output, q *Sequence) (a Admission, ok bool) {
	a.Seq = q
	if !s.promisable(q) {
		return a, false
	}
	reserve := s.reserve(q)
	switch {
	case q.Status == Swapped:
		a.How = SwappedIn
		return s.swapBack(q, a, reserve)
	case s.canFork(q):
		a.How, a.HitTokens = Forked, q.PromptLen-1
		out.Copies, ok = s.kv.Fork(&q.Table, &q.Parent.Table, q.known(), q.PromptLen-1, reserve, out.Copies)
	default:
		a.How = Fresh
		if q.epoch > 0 {
			a.How = Recompute
		}
		a.HitTokens, ok = s.kv.Admit(&q.Table, q.Tokens, q.CacheSalt, reserve)
	}
	if ok {
		q.NumComputed, q.Launched = a.HitTokens, a.HitTokens
	}
	return a, ok
}

// canFork says whether q's parent has the whole prompt in blocks that q can share.
// All but the last token, whose logits q needs for itself.
func (s *Scheduler) canFork(q *Sequence) bool {
	p := q.Parent
	return p != nil && q.epoch == 0 && p.Status == Running && p.transfer == 0 && p.NumComputed >= q.PromptLen && q.PromptLen > 1
}

// swapBack brings q's blocks back from the host.
func (s *Scheduler) swapBack(q *Sequence, a Admission, reserve int) (_ Admission, ok bool) {
	var copies []kvcache.Copy
	if s.in != nil {
		copies = s.in.copies
	}
	before := len(copies)
	copies, usable, ok := s.kv.SwapIn(&q.Table, &q.Host, q.Tokens, q.CacheSalt, q.onHost, reserve, copies)
	if !ok {
		return a, false
	}
	q.NumComputed, q.Launched, q.onHost = usable, usable, 0
	s.swapped--
	a.Copied = len(copies) - before
	a.HitTokens = usable
	if a.Copied > 0 {
		t := s.transferIn()
		t.copies = copies
		t.seqs = append(t.seqs, q)
		q.transfer = t.id
	}
	return a, true
}

// reserve is the number of blocks that must stay free when q is admitted. Alone it
// may have all.
//
//   - Its own next block, so that it does not come only to need one at once.
//   - The watermark, for the growth of those that run.
//   - After a preemption, one for each that runs, doubled each time, so that it
//     does not come back only to be preempted by their next blocks.
func (s *Scheduler) reserve(q *Sequence) int {
	if s.running.len() == 0 {
		return 0
	}
	next := s.kv.BlocksFor(min(q.known()+1, q.MaxLen-1)) - s.kv.BlocksFor(q.known())
	margin := int(s.cfg.Watermark * float64(s.kv.Capacity()))
	if n := min(q.Preemptions, protectAfter); n > 0 {
		margin = max(margin, s.running.len()<<(n-1))
	}
	// A margin that the pool could never leave is as good as none.
	return max(next, min(next+margin, s.kv.Capacity()-s.kv.BlocksFor(q.known())))
}

// promisable says whether, with q, the protected sequences can grow to their full
// lengths beside any one of those that come before the last of them. As nobody is
// admitted who would break this, a protected sequence never has to be preempted: the
// others can be, one by one, until at most the first in order is left. Those that
// come after all protected ones are not first while one is there: they are welcome.
func (s *Scheduler) promisable(q *Sequence) bool {
	var protected, others, before int // blocks of the protected, most of the others, of those before the last protected
	count := func(r *Sequence) {
		if need := s.BlocksNeeded(r.MaxLen); r.protected() {
			protected, before = protected+need, others
		} else {
			others = max(others, need)
		}
	}
	counted := false
	for _, r := range s.running.all() {
		if !counted && s.running.before(q, r) < 0 {
			count(q)
			counted = true
		}
		count(r)
	}
	if !counted {
		count(q)
	}
	return protected == 0 || protected+before <= s.kv.Capacity()
}
