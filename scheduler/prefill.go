package scheduler

// minChunk is the least prefill that is worth a place in a step, and the most that
// bounds for the decodes' sake may not forbid: a prompt must get through.
const minChunk = 16

// prefillBudget is what is left of the step's tokens for prefill, cut for the sake of
// the decodes in it.
func (s *Scheduler) prefillBudget(out *Output) int {
	budget := s.cfg.MaxBatchedTokens - out.NumDecodes
	if out.NumDecodes == 0 {
		return budget
	}
	if n := s.mixedBudget(out.NumDecodes); n < budget {
		budget, out.ChunkReason = n, WaitMixed
	}
	return s.timedBudget(out, budget)
}

// mixedBudget is what max_num_mixed_tokens leaves for prefill beside so many decodes.
// It is as much as they have in every case: many of them would leave nothing.
func (s *Scheduler) mixedBudget(decodes int) int {
	if s.cfg.MaxMixedTokens == 0 {
		return s.cfg.MaxBatchedTokens
	}
	return max(s.cfg.MaxMixedTokens-decodes, decodes, minChunk)
}

// timedBudget cuts the budget so that the decodes in the step keep to the target.
func (s *Scheduler) timedBudget(out *Output, budget int) int {
	if s.cfg.TargetITL == 0 || !s.model.Ready() {
		return budget
	}
	start := s.prefillStart()
	lo, hi := min(minChunk, budget), budget // the most tokens that fit lie in [lo, hi]
	for lo < hi {
		mid := (lo + hi + 1) / 2
		with := out.Load // of the decodes
		with.addPrefill(start, mid)
		if s.model.Predict(with) <= s.cfg.TargetITL {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	if lo < budget {
		out.ChunkReason = WaitITL
	}
	return lo
}

// prefillStart is the position at which the next chunk is likely to begin.
func (s *Scheduler) prefillStart() int {
	for _, q := range s.running.all() {
		if q.need() > 1 {
			return q.Launched
		}
	}
	return 0
}

// explainChunks sets ChunkReason if the budget, of which so much is left, cut a chunk
// or kept the head of the queue out.
func (s *Scheduler) explainChunks(out *Output, left int) {
	switch {
	case left > 0 || !s.cut(out):
		out.ChunkReason = WaitNone
	case out.ChunkReason == WaitNone:
		out.ChunkReason = WaitBudget
	}
}

// cut says whether somebody would have computed more in a step without a budget.
func (s *Scheduler) cut(out *Output) bool {
	switch out.WaitReason {
	case WaitBudget, WaitMixed, WaitITL:
		return true
	}
	for i := out.NumDecodes; i < len(out.Scheduled); i++ {
		e := &out.Scheduled[i]
		if t := s.cfg.LongPrefillThreshold; !e.Sample && (t == 0 || e.NumTokens < t) {
			return true
		}
	}
	for _, q := range s.running.all() {
		if q.need() > 1 && q.lastStep != out.Step {
			return true
		}
	}
	return false
}

// schedulePrefills continues the chunks of running sequences, oldest first. While
// others want to prefill, too, one that would take all that is left takes half of it,
// so that a long prompt does not hold up short ones.
func (s *Scheduler) schedulePrefills(out *Output, budget int) int {
	more, taken := s.prefilling, 0
	for _, q := range s.running.all() {
		if more == 0 {
			break
		}
		if q.need() <= 1 || q.lastStep == out.Step { // one token: a decode that got no block
			continue
		}
		more--
		n := s.chunk(q, budget-taken, more > 0 || s.mayAdmit(out))
		if n == 0 {
			break
		}
		s.launch(out, q, n, q.Table.Len())
		taken += n
	}
	return taken
}

// mayAdmit says whether a waiting sequence could want a part of the step.
func (s *Scheduler) mayAdmit(out *Output) bool {
	return s.waiting.len() > 0 && s.running.len() < s.cfg.MaxNumSeqs && !out.shortage()
}

// chunk bounds q's prefill by what is left of the budget, by the threshold for
// long ones and, when it would take all that is left and others wait, by half.
func (s *Scheduler) chunk(q *Sequence, left int, others bool) int {
	n := q.need()
	if t := s.cfg.LongPrefillThreshold; t > 0 {
		n = min(n, t)
	}
	switch {
	case n < left:
		return n
	case others:
		return max(left/2, min(left, minChunk))
	}
	return left
}

// extendPrefills gives what nobody else took to the chunks that were cut for the
// others' sake, oldest first.
func (s *Scheduler) extendPrefills(out *Output, left int) int {
	taken := 0
	for i := out.NumDecodes; i < len(out.Scheduled) && taken < left; i++ {
		e := &out.Scheduled[i]
		q := e.Seq
		if e.Sample || q.need() == 0 {
			continue
		}
		n := min(q.need(), left-taken)
		if t := s.cfg.LongPrefillThreshold; t > 0 {
			n = max(0, min(n, t-e.NumTokens))
		}
		e.NumTokens += n
		s.advance(q, e, n)
		taken += n
	}
	return taken
}
