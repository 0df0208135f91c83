package scheduler

import (
	"fmt"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// Check verifies I3, I7 and I8 and the Manager's invariants. It takes time in the
// number of blocks.
func (s *Scheduler) Check() error {
	tables := []*kvcache.BlockTable{&s.borrowed}
	var hosts []*kvcache.HostTable
	for i, q := range s.running.all() {
		if err := s.checkRunning(q); err != nil {
			return err
		}
		if i > 0 && s.running.before(s.running.all()[i-1], q) >= 0 {
			return fmt.Errorf("sequence %d is out of order in the running queue", q.ID)
		}
		tables = append(tables, &q.Table)
	}
	parked := s.countForks(s.running.all()) + s.countForks(s.waiting.all())
	for i, q := range s.waiting.all() {
		if err := s.checkWaiting(q); err != nil {
			return err
		}
		if i > 0 && s.waiting.before(s.waiting.all()[i-1], q) >= 0 {
			return fmt.Errorf("sequence %d is out of order in the waiting queue", q.ID)
		}
		hosts = append(hosts, &q.Host)
	}
	if n := s.running.len(); n > s.cfg.MaxNumSeqs {
		return fmt.Errorf("%d sequences run, at most %d may", n, s.cfg.MaxNumSeqs)
	}
	swapped := 0
	for _, q := range s.waiting.all() {
		if q.Status == Swapped {
			swapped++
		}
	}
	if swapped != s.swapped {
		return fmt.Errorf("%d sequences are swapped out, counted %d", swapped, s.swapped)
	}
	if parked != s.parked {
		return fmt.Errorf("%d forks are parked, counted %d", parked, s.parked)
	}
	var out, in [][]kvcache.Copy
	for i := range s.transfers {
		if t := &s.transfers[i]; t.toHost {
			out = append(out, t.copies)
		} else {
			in = append(in, t.copies)
		}
	}
	return s.kv.Check(tables, hosts, out, in)
}

func (s *Scheduler) countForks(all []*Sequence) int {
	n := 0
	for _, q := range all {
		n += len(q.forks)
	}
	return n
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
	case q.Host.Len() != 0:
		return fmt.Errorf("sequence %d runs and has %d host blocks", q.ID, q.Host.Len())
	}
	// I3: what is shared is written by nobody.
	for i, id := range q.Table.IDs() {
		if s.kv.IsShared(id) && (i+1)*size > q.NumComputed {
			return fmt.Errorf("sequence %d, %d tokens computed, shares block %d, its entry %d", q.ID, q.NumComputed, id, i)
		}
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
	return nil
}
