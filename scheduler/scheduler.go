package scheduler

import (
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// Scheduler is the state machine. One goroutine owns it.
type Scheduler struct {
	cfg     Config
	kv      *kvcache.Manager
	waiting queue
	running queue
	slots   int       // Σ Launched of the running ones
	parked  int       // forks that wait for their parents' prompts
	swapped int       // waiting sequences with KV on the host
	outputs [3]Output // one may be in flight, one was just returned, one is filled
	slot    int       // of the last one
	step    int64
	nextID  SequenceID
	model   StepModel

	// The head of the waiting queue did not fit at that count of changes of the
	// cache: it is not tried again until the count or the head changes.
	refused        SequenceID
	refusedChanges uint64

	transfers    []transfer // swap copies under way
	idle         []transfer // spent ones, for their memory
	nextTransfer TransferID
	out, in      *transfer     // those that this Schedule is filling; nil = none yet
	swapOut      time.Duration // of a block, moving mean
	swapIn       time.Duration
	lowered      bool // SetLimits was called after the last Schedule
	shrinking    bool // blocks beyond the limits may still be held

	prefilling int   // running sequences that lack more than one token
	promised   int   // blocks in flight that sequences of this step wait for
	waiters    int   // sequences of this step that wait for another's end
	inFlight   int   // Outputs with work that were not updated
	updated    int64 // step of the last Update

	scratch  checkScratch
	trace    *tracer            // nil = off
	borrowed kvcache.BlockTable // see Borrow
	wanted   bool               // a loan was refused
}

// New makes a Scheduler over a Manager. The error lists every problem of the
// configuration.
func New(cfg Config, kv *kvcache.Manager) (*Scheduler, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Scheduler{cfg: cfg, kv: kv, swapOut: cfg.SwapOut, swapIn: cfg.SwapIn}
	s.waiting.priority = cfg.Policy == Priority
	s.running.priority = s.waiting.priority
	s.reserveOutputs()
	s.traceConfig()
	return s, nil
}

func (s *Scheduler) reserveOutputs() {
	for i := range s.outputs {
		if o := &s.outputs[i]; cap(o.Scheduled) < s.cfg.MaxNumSeqs {
			o.Scheduled = append(make([]Scheduled, 0, s.cfg.MaxNumSeqs), o.Scheduled...)
		}
	}
}

// BlocksNeeded is the number of blocks that a sequence of at most maxLen tokens
// can come to hold: its last token is never computed.
func (s *Scheduler) BlocksNeeded(maxLen int) int { return s.kv.BlocksFor(maxLen - 1) }

// Add puts a sequence into the waiting queue, or, with a Parent that has yet to
// compute its prompt, aside. It panics if the sequence could not run alone in an
// empty pool (BlocksNeeded(MaxLen) > Capacity): the caller refuses such a request,
// with the numbers.
func (s *Scheduler) Add(q *Sequence) {
	if len(q.Tokens) == 0 || q.MaxLen <= len(q.Tokens) {
		panic(fmt.Sprintf("scheduler: Add of %d tokens with MaxLen %d", len(q.Tokens), q.MaxLen))
	}
	if need := s.BlocksNeeded(q.MaxLen); need > s.kv.Capacity() {
		panic(fmt.Sprintf("scheduler: Add of a sequence that needs %d blocks of %d", need, s.kv.Capacity()))
	}
	if p := q.Parent; p != nil && (p.CacheSalt != q.CacheSalt || len(q.Tokens) != p.PromptLen || !slices.Equal(q.Tokens, p.Tokens[:p.PromptLen])) {
		panic(fmt.Sprintf("scheduler: Add of a choice whose prompt is not that of its parent %d", p.ID))
	}
	s.nextID++
	q.ID, q.PromptLen, q.Status = s.nextID, len(q.Tokens), Waiting
	s.traceSubmit(q)
	if p := q.Parent; p != nil && p.Status != Finished && p.NumComputed < p.PromptLen {
		for p.parked { // a choice of a choice: they all wait for the first
			p = p.Parent
		}
		q.Parent = p
		s.park(q)
		return
	}
	s.waiting.insert(q)
}

// park puts q aside until its parent has computed the prompt.
func (s *Scheduler) park(q *Sequence) {
	q.parked = true
	q.Parent.forks, q.Parent.forked = append(q.Parent.forks, q), true
	s.parked++
}

// unpark lets the forks of q wait like everybody else.
func (s *Scheduler) unpark(q *Sequence) {
	for _, f := range q.forks {
		f.parked = false
		s.parked--
		s.waiting.insert(f)
	}
	q.forks, q.forked = nil, false
}

// Abort finishes a sequence wherever it is. Its blocks are free at once, those
// named by copies under way once CopyDone reports them: the device orders their
// reuse after the steps in flight. Aborting a finished sequence does nothing.
func (s *Scheduler) Abort(q *Sequence) {
	if q.Status != Finished {
		s.trace.emit(func(l *TraceLine) { l.Abort = q.ID })
		s.finish(q)
	}
}

// finish takes q out of its queue and gives back what it holds.
func (s *Scheduler) finish(q *Sequence) {
	switch {
	case q.parked:
		s.unparkOne(q)
	case q.Status == Running:
		s.running.remove(q)
		s.slots -= q.Launched
		s.kv.Release(&q.Table)
	default:
		s.waiting.remove(q)
		if q.Status == Swapped {
			s.dropHost(q)
		}
	}
	q.Status = Finished
	s.promote(q)
}

// unparkOne takes an aborted fork out of its parent's list.
func (s *Scheduler) unparkOne(q *Sequence) {
	siblings := q.Parent.forks
	for i, f := range siblings {
		if f == q {
			q.Parent.forks = append(siblings[:i], siblings[i+1:]...)
			q.Parent.forked = len(q.Parent.forks) > 0
			break
		}
	}
	q.parked = false
	s.parked--
}

// promote makes the first fork of a sequence that ended the one that computes the
// prompt for the rest.
func (s *Scheduler) promote(q *Sequence) {
	if len(q.forks) == 0 {
		return
	}
	first, rest := q.forks[0], q.forks[1:]
	q.forks, q.forked = nil, false
	first.parked, first.Parent = false, nil
	s.parked--
	first.forks, first.forked = rest, len(rest) > 0
	for _, f := range rest {
		f.Parent = first
	}
	s.waiting.insert(first)
}

// Live yields every sequence that has not ended, running ones first, choices that
// wait for their parent's prompt after it.
func (s *Scheduler) Live() iter.Seq[*Sequence] {
	return func(yield func(*Sequence) bool) {
		for _, queue := range []*queue{&s.running, &s.waiting} {
			for _, q := range queue.all() {
				if !yield(q) {
					return
				}
				for _, f := range q.forks {
					if !yield(f) {
						return
					}
				}
			}
		}
	}
}

// NumRunning is the number of sequences that have blocks.
func (s *Scheduler) NumRunning() int { return s.running.len() }

// NumWaiting is the number of sequences that wait, swapped and parked ones
// included.
func (s *Scheduler) NumWaiting() int { return s.waiting.len() + s.parked }

// NumSwapped is the number of waiting sequences whose KV is on the host.
func (s *Scheduler) NumSwapped() int { return s.swapped }

// UsedSlots is the number of KV slots that hold tokens of running sequences, or will
// with the steps and copies under way, shared ones counted once: together with the used
// blocks it gives the block utilization and the internal fragmentation.
func (s *Scheduler) UsedSlots() int {
	return s.slots - s.kv.Stats().Saved*s.kv.BlockSize() // shared blocks are full
}

// Model is what the scheduler learned of the time of steps.
func (s *Scheduler) Model() *StepModel { return &s.model }

// Schedule decides the next step and takes its blocks. Nothing to do gives an
// empty Output, which needs no Update; it may carry copies all the same.
func (s *Scheduler) Schedule() *Output {
	if s.inFlight > 1 {
		panic(fmt.Sprintf("scheduler: Schedule with %d steps in flight, one at most", s.inFlight))
	}
	s.step++
	out := s.nextOutput()
	out.reset(s.step)
	s.out, s.in, s.promised, s.waiters = nil, nil, 0, 0
	s.enforceLimits(out)
	s.scheduleDecodes(out)
	budget := s.prefillBudget(out)
	left := budget - s.schedulePrefills(out, budget)
	left -= s.admit(out, left)
	left -= s.extendPrefills(out, left)
	s.explainChunks(out, left)
	s.explain(out)
	if !out.Empty() {
		s.inFlight++
		out.inFlight = true
	} else {
		s.forget(out)
	}
	s.traceRecord(out)
	return out
}

// nextOutput is an Output that is not in flight, not that of the last Schedule. As a rule it
// is the one updated last, whose memory is still in the processor's caches: the third is for
// steps without work.
func (s *Scheduler) nextOutput() *Output {
	next := 0
	for next == s.slot || s.outputs[next].inFlight {
		next++
	}
	s.slot = next
	return &s.outputs[next]
}

// forget empties the outputs of earlier steps when there is no work: the next step may be long in coming, and
// the sequences that have finished meanwhile are not to wait for it.
func (s *Scheduler) forget(but *Output) {
	for i := range s.outputs {
		if o := &s.outputs[i]; o != but && !o.inFlight && !o.Empty() { // an empty one may still be looked at
			o.reset(o.Step)
		}
	}
}

// explain fills in what the step's record wants to know.
func (s *Scheduler) explain(out *Output) {
	out.NumTokens = out.NumDecodes
	for i := out.NumDecodes; i < len(out.Scheduled); i++ {
		e := &out.Scheduled[i]
		out.NumTokens += e.NumTokens
		out.Load.addPrefill(e.Start, e.NumTokens)
	}
	out.Predicted = s.model.Predict(out.Load)
	out.Waiting = s.NumWaiting()
	if s.waiting.len() > 0 {
		out.Head = s.waiting.front()
	}
	out.Evicted = s.kv.TakeEvicted(out.Evicted)
	for _, t := range []*transfer{s.out, s.in} {
		if t == nil {
			continue
		}
		s.transfers = append(s.transfers, *t)
		if t.toHost {
			out.SwapOut = Transfer{t.id, t.copies}
		} else {
			out.SwapIn = Transfer{t.id, t.copies}
		}
	}
}

// scheduleDecodes gives every running sequence that lacks one token its token,
// making room from the end of the running queue where blocks run short. It counts
// those that wait for copies, and those that lack more, in the same walk.
//
// Hundreds of decodes are a step's most work: what launch and advance do for any number of
// tokens is done here for one, with sums that stay in registers, into entries that are there.
func (s *Scheduler) scheduleDecodes(out *Output) {
	s.prefilling = 0
	// Only sequences at or after the present one are preempted, so the queue
	// does not shift under the loop.
	running := s.running.all()
	scheduled, n, context := slices.Grow(out.Scheduled, len(running))[:len(running)], 0, 0
	for i := 0; i < len(running); i++ {
		q := running[i]
		if need := q.need(); need != 1 {
			switch {
			case q.transfer != 0:
				out.Loading++
			case need > 1:
				s.prefilling++
			}
			continue
		}
		firstNew := q.Table.Len()
		if !s.kv.Grow(&q.Table, q.Launched+1) {
			room := s.makeRoom(out, q, i)
			if running = s.running.all(); !room {
				continue
			}
		}
		e := &scheduled[n]
		n++
		// Field by field: a literal would be made elsewhere, and copied.
		e.Seq, e.Start, e.NumTokens, e.epoch, e.Sample, e.Resumed = q, q.Launched, 1, q.epoch, true, q.reset
		if q.reset {
			q.reset, firstNew = false, 0
		}
		e.FirstNewBlock = firstNew
		q.lastStep = out.Step
		q.Launched++
		q.Pending++
		context += q.Launched
	}
	out.Scheduled, out.NumDecodes = scheduled[:n], n
	out.Load.Decodes, out.Load.Context = n, int64(context)
	s.slots += n
}

// launch enters n tokens of q into the step. Table entries from firstNew on are
// new.
func (s *Scheduler) launch(out *Output, q *Sequence, n, firstNew int) {
	if q.reset {
		firstNew = 0
	}
	out.Scheduled = append(out.Scheduled, Scheduled{
		Seq: q, Start: q.Launched, NumTokens: n, FirstNewBlock: firstNew, Resumed: q.reset, epoch: q.epoch,
	})
	q.reset, q.lastStep = false, out.Step
	s.advance(q, &out.Scheduled[len(out.Scheduled)-1], n)
}

// advance counts n tokens of e as launched.
func (s *Scheduler) advance(q *Sequence, e *Scheduled, n int) {
	q.Launched += n
	s.slots += n
	if q.Launched == q.known() {
		e.Sample = true
		q.Pending++
	}
}
