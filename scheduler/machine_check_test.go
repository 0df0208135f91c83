package scheduler

import (
	"slices"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// verifyHit wants what an admitted sequence need not compute to be there, and not
// from before a reset. What is copied in is looked at when it is read.
func (m *machine) verifyHit(a *Admission, out *Output) {
	c := m.bySeq[a.Seq]
	for p := range a.HitTokens {
		id := int32(a.Seq.Table.IDs()[p/m.size])
		if slices.ContainsFunc(out.SwapIn.Copies, func(c kvcache.Copy) bool { return c.Dst == id }) {
			continue
		}
		have := m.device[m.at(a.Seq, p)]
		if have.hash != c.hashes[p] {
			m.fail("sequence %d hits block %d, which holds other content at position %d (%s)", a.Seq.ID, id, p, a.How)
		}
		if have.step > m.updated {
			m.fail("sequence %d hits block %d, which step %d is still computing", a.Seq.ID, id, have.step)
		}
		if a.How != Forked && have.era != m.era {
			m.fail("sequence %d hits block %d, computed before a reset", a.Seq.ID, id)
		}
	}
}

// verifyOutput wants what every Output promises.
func (m *machine) verifyOutput(out *Output) {
	tokens := 0
	for i := range out.Scheduled {
		e := &out.Scheduled[i]
		tokens += e.NumTokens
		decode := i < out.NumDecodes
		if e.NumTokens < 1 || decode && e.NumTokens > 1 || e.Seq.Status != Running || e.Seq.lastStep != out.Step || e.Seq.Pending > 2 {
			m.fail("sequence %d is %v and scheduled for %d tokens, decode %t", e.Seq.ID, e.Seq.Status, e.NumTokens, decode)
		}
		for j := range i {
			if out.Scheduled[j].Seq == e.Seq {
				m.fail("sequence %d is twice in a step", e.Seq.ID)
			}
		}
	}
	if tokens != out.NumTokens || tokens > m.s.cfg.MaxBatchedTokens {
		m.fail("the step has %d tokens, says %d, may have %d", tokens, out.NumTokens, m.s.cfg.MaxBatchedTokens)
	}
	m.verifyMixed(out)
	if n := len(out.Admitted); n > 0 && m.s.waiting.len() > 0 && m.s.waiting.before(out.Admitted[n-1].Seq, m.s.waiting.front()) > 0 {
		m.fail("sequence %d was passed over by %d", m.s.waiting.front().ID, out.Admitted[n-1].Seq.ID)
	}
	m.verifyOldest(out)
}

// verifyMixed wants steps with decodes within their bound, and prompts that it cuts to
// get all of what it leaves them.
func (m *machine) verifyMixed(out *Output) {
	l, decodes := &m.s.cfg.Limits, out.NumDecodes
	if l.MaxMixedTokens == 0 || decodes == 0 {
		if out.ChunkReason == WaitMixed || out.WaitReason == WaitMixed {
			m.fail("a step of %d decodes is cut by a bound of %d tokens", decodes, l.MaxMixedTokens)
		}
		return
	}
	bound := min(l.MaxBatchedTokens, max(l.MaxMixedTokens, 2*decodes, decodes+minChunk))
	if out.NumTokens > bound || out.ChunkReason == WaitMixed && out.NumTokens < bound {
		m.fail("a step of %d decodes has %d tokens, may have %d, cut by %q", decodes, out.NumTokens, bound, out.ChunkReason)
	}
}

// verifyOldest wants the oldest running sequence to go on, unless it lacks
// nothing, or waits for copies, or, for a bounded time, for another's end.
func (m *machine) verifyOldest(out *Output) {
	if m.s.running.len() == 0 {
		return
	}
	q := m.s.running.front()
	if q.lastStep == out.Step || q.need() == 0 || len(m.moving) > 0 {
		m.stalled = 0
		return
	}
	if out.Empty() && len(m.flying) > 0 {
		return // nothing can have changed
	}
	if m.stalled++; m.stalled > waitSteps*m.s.running.len()+1 {
		m.fail("I9: the oldest sequence, %d, waits for %d steps", q.ID, m.stalled)
	}
}

// check verifies all invariants. Memory beyond the limits is gone once the
// Scheduler says so.
func (m *machine) check() {
	if err := m.s.Check(); err != nil {
		m.fail("%v", err)
	}
	if n := m.s.NumRunning() + m.s.NumWaiting(); n != len(m.live) {
		m.fail("I8: %d sequences are live, %d in queues", len(m.live), n)
	}
	if m.s.Settled() {
		clear(m.device[m.blocks*m.size:])
		clear(m.host[m.hostLimit*m.size:])
	}
	for _, c := range m.live {
		if c.Preemptions > protectAfter && !m.shrank {
			m.fail("sequence %d was preempted %d times", c.ID, c.Preemptions)
		}
	}
}
