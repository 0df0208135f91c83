package scheduler

import (
	"fmt"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// checkScratch is the memory of Check, kept because the tests call it after every
// operation.
type checkScratch struct {
	tables  []*kvcache.BlockTable
	hosts   []*kvcache.HostTable
	out, in [][]kvcache.Copy
}

// Check verifies I3, I7 and I8 and the Manager's invariants. It takes time in the
// number of blocks: see CheckIdle.
func (s *Scheduler) Check() error {
	c := &s.scratch
	c.tables, c.hosts = append(c.tables[:0], &s.borrowed), c.hosts[:0]
	for _, q := range s.running.all() {
		if err := s.checkRunning(q); err != nil {
			return err
		}
		c.tables = append(c.tables, &q.Table)
	}
	for _, q := range s.waiting.all() {
		if err := s.checkWaiting(q); err != nil {
			return err
		}
		c.hosts = append(c.hosts, &q.Host)
	}
	if err := s.checkQueues(); err != nil {
		return err
	}
	c.out, c.in = c.out[:0], c.in[:0]
	for i := range s.transfers {
		if t := &s.transfers[i]; t.toHost {
			c.out = append(c.out, t.copies)
		} else {
			c.in = append(c.in, t.copies)
		}
	}
	return s.kv.Check(c.tables, c.hosts, c.out, c.in)
}

// CheckIdle is Check while there are no sequences, by so many blocks a call, until it is
// done (kvcache.Manager.CheckIdle).
func (s *Scheduler) CheckIdle(blocks int) (done bool, err error) {
	if err := s.checkQueues(); err != nil {
		return false, err
	}
	if running, waiting := s.running.len(), s.waiting.len(); running+waiting+len(s.transfers)+s.borrowed.Len() > 0 {
		return false, fmt.Errorf("%d sequences run, %d wait, %d transfers are under way and %d blocks are lent, of which nobody knows",
			running, waiting, len(s.transfers), s.borrowed.Len())
	}
	return s.kv.CheckIdle(blocks)
}

// checkQueues verifies order, limits and counts.
func (s *Scheduler) checkQueues() error {
	parked, swapped, slots := 0, 0, 0
	for _, queue := range []*queue{&s.running, &s.waiting} {
		for i, q := range queue.all() {
			if i > 0 && queue.before(queue.all()[i-1], q) >= 0 {
				return fmt.Errorf("sequence %d is out of order in its queue", q.ID)
			}
			if q.Status == Swapped {
				swapped++
			}
			slots += q.Launched // of the waiting, 0
			if q.forked != (len(q.forks) > 0) {
				return fmt.Errorf("sequence %d has %d parked forks, says %t", q.ID, len(q.forks), q.forked)
			}
			for _, f := range q.forks {
				if !f.parked || f.Parent != q || f.Status != Waiting || f.Table.Len() != 0 || len(f.forks) != 0 {
					return fmt.Errorf("sequence %d is among the parked forks of %d and %v (parked %t) with %d blocks", f.ID, q.ID, f.Status, f.parked, f.Table.Len())
				}
				parked++
			}
		}
	}
	switch n := s.running.len(); {
	case n > s.cfg.MaxNumSeqs && !s.lowered:
		return fmt.Errorf("%d sequences run, at most %d may", n, s.cfg.MaxNumSeqs)
	case swapped != s.swapped:
		return fmt.Errorf("%d sequences are swapped out, counted %d", swapped, s.swapped)
	case slots != s.slots:
		return fmt.Errorf("running sequences have launched %d tokens, counted %d", slots, s.slots)
	case parked != s.parked:
		return fmt.Errorf("%d forks are parked, counted %d", parked, s.parked)
	}
	return nil
}

// checkTransfer verifies that what q waits for is under way, in the direction
// that its state asks for.
func (s *Scheduler) checkTransfer(q *Sequence, toHost bool) error {
	if q.transfer == 0 {
		return nil
	}
	for i := range s.transfers {
		if t := &s.transfers[i]; t.id == q.transfer && t.toHost == toHost {
			return nil
		}
	}
	return fmt.Errorf("sequence %d is %v and waits for transfer %d, which is not under way", q.ID, q.Status, q.transfer)
}

func (s *Scheduler) checkRunning(q *Sequence) error {
	size := s.kv.BlockSize()
	switch {
	case q.Status != Running || q.parked:
		return fmt.Errorf("sequence %d is %v (parked %t) and in the running queue", q.ID, q.Status, q.parked)
	case q.NumComputed > q.Launched || q.Launched > q.known() || len(q.Tokens) > q.MaxLen:
		return fmt.Errorf("sequence %d has %d computed, %d launched, %d known and %d pending tokens of at most %d",
			q.ID, q.NumComputed, q.Launched, len(q.Tokens), q.Pending, q.MaxLen)
	case q.Table.Len()*size < q.Launched:
		return fmt.Errorf("sequence %d launched %d tokens in %d blocks of %d", q.ID, q.Launched, q.Table.Len(), size)
	case q.Table.Len() > s.BlocksNeeded(q.MaxLen):
		return fmt.Errorf("sequence %d has %d blocks, it can need %d", q.ID, q.Table.Len(), s.BlocksNeeded(q.MaxLen))
	case s.kv.Retired(&q.Table) && !s.lowered:
		return fmt.Errorf("sequence %d has blocks beyond the limit", q.ID)
	case q.Host.Len() != 0:
		return fmt.Errorf("sequence %d runs and has %d host blocks", q.ID, q.Host.Len())
	}
	// I3: what is shared is written by nobody.
	for i, id := range q.Table.IDs() {
		if s.kv.IsShared(id) && (i+1)*size > q.NumComputed {
			return fmt.Errorf("sequence %d, %d tokens computed, shares block %d, its entry %d", q.ID, q.NumComputed, id, i)
		}
	}
	if err := s.checkTransfer(q, false); err != nil {
		return err
	}
	return s.kv.CheckChain(&q.Table, q.Tokens, q.CacheSalt)
}

func (s *Scheduler) checkWaiting(q *Sequence) error {
	switch {
	case q.Status != Waiting && q.Status != Swapped || q.parked:
		return fmt.Errorf("sequence %d is %v (parked %t) and in the waiting queue", q.ID, q.Status, q.parked)
	case q.Table.Len() != 0 || q.Launched != 0:
		return fmt.Errorf("sequence %d waits with %d blocks, %d tokens launched", q.ID, q.Table.Len(), q.Launched)
	case (q.Status == Swapped) != (q.Host.Len() > 0) || q.Host.Len() != s.kv.BlocksFor(q.onHost):
		return fmt.Errorf("sequence %d is %v with %d host blocks for %d tokens", q.ID, q.Status, q.Host.Len(), q.onHost)
	}
	return s.checkTransfer(q, true)
}
