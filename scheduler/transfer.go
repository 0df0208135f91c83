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
