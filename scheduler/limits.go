package scheduler

// SetLimits replaces all limits, and the pool sizes, in blocks; blocks counts the
// reserved block 0. Growing takes effect with the next Schedule. After shrinking, the next
// Schedule preempts the owners of what the pools lose, and the newest beyond
// MaxNumSeqs; Settled says when nothing of it is in use any more. Every live
// sequence must fit the new pool: the caller asks LargestNeed.
func (s *Scheduler) SetLimits(l Limits, blocks, host int) error {
	if err := l.validate(); err != nil {
		return err
	}
	s.trace.emit(func(line *TraceLine) { line.Limits = &TraceLimits{l, blocks, host} })
	s.cfg.Limits = l
	s.kv.SetLimits(blocks, host)
	s.lowered, s.shrinking = true, s.kv.Excess() > 0
	s.refused = 0
	s.reserveOutputs()
	return nil
}

// LargestNeed is the most blocks that a live sequence can come to hold.
func (s *Scheduler) LargestNeed() int {
	most := 0
	for q := range s.Live() {
		most = max(most, s.BlocksNeeded(q.MaxLen))
	}
	return most
}

// Settled says whether all blocks beyond the limits are out of use, but for the steps
// in flight: the caller waits for those before it gives memory back.
func (s *Scheduler) Settled() bool { return s.kv.Excess() == 0 }

// enforceLimits preempts whom lowered limits leave no place.
func (s *Scheduler) enforceLimits(out *Output) {
	s.lowered = false
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
