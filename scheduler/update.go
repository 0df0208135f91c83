package scheduler

import (
	"fmt"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// Update reports a step as done. results has one entry for each of
// out.Scheduled; those without Sample, and those of sequences that finished
// meanwhile (an overrun of the overlapped loop), are ignored. A token for a
// sequence that was preempted meanwhile is kept.
func (s *Scheduler) Update(out *Output, results []Result) {
	if len(results) != len(out.Scheduled) {
		panic(fmt.Sprintf("scheduler: Update of step %d with %d results for %d sequences", out.Step, len(results), len(out.Scheduled)))
	}
	if out.Empty() {
		return
	}
	if out.Step <= s.updated || s.inFlight == 0 {
		panic(fmt.Sprintf("scheduler: Update of step %d after step %d", out.Step, s.updated))
	}
	s.updated = out.Step
	s.inFlight--
	for i := range out.Scheduled {
		e, r := &out.Scheduled[i], results[i]
		q := e.Seq
		if e.Sample {
			q.Pending--
		}
		if q.Status == Finished {
			continue
		}
		if e.Sample && r.Token >= 0 {
			q.Tokens = append(q.Tokens, r.Token)
		}
		if q.Status == Running && q.epoch == e.epoch {
			q.NumComputed = e.Start + e.NumTokens
			s.kv.Publish(&q.Table, q.Tokens, q.NumComputed)
		}
		if e.Sample && r.Finish {
			s.Abort(q)
		}
	}
}

// Check verifies I7 and I8 and the Manager's invariants. It takes time in the
// number of blocks.
func (s *Scheduler) Check() error {
	var tables []*kvcache.BlockTable
	size := s.kv.BlockSize()
	for i, q := range s.running.all() {
		switch {
		case q.Status != Running:
			return fmt.Errorf("sequence %d is %v and in the running queue", q.ID, q.Status)
		case q.NumComputed > q.Launched || q.Launched > q.known() || len(q.Tokens) > q.MaxLen:
			return fmt.Errorf("sequence %d has %d computed, %d launched, %d known and %d pending tokens of at most %d",
				q.ID, q.NumComputed, q.Launched, len(q.Tokens), q.Pending, q.MaxLen)
		case q.Table.Len()*size < q.Launched:
			return fmt.Errorf("sequence %d launched %d tokens in %d blocks of %d", q.ID, q.Launched, q.Table.Len(), size)
		case i > 0 && s.running.before(s.running.all()[i-1], q) >= 0:
			return fmt.Errorf("sequence %d is out of order in the running queue", q.ID)
		}
		tables = append(tables, &q.Table)
	}
	for i, q := range s.waiting.all() {
		switch {
		case q.Status != Waiting || q.Table.Len() != 0 || q.Launched != 0:
			return fmt.Errorf("sequence %d is %v with %d blocks and in the waiting queue", q.ID, q.Status, q.Table.Len())
		case i > 0 && s.waiting.before(s.waiting.all()[i-1], q) >= 0:
			return fmt.Errorf("sequence %d is out of order in the waiting queue", q.ID)
		}
	}
	if n := s.running.len(); n > s.cfg.MaxNumSeqs {
		return fmt.Errorf("%d sequences run, at most %d may", n, s.cfg.MaxNumSeqs)
	}
	return s.kv.Check(tables)
}
