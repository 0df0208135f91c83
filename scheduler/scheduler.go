package scheduler

import (
	"errors"
	"fmt"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// Policy says whom the scheduler prefers.
type Policy string

// The policies.
const (
	FCFS     Policy = "fcfs"     // first come, first served
	Priority Policy = "priority" // Sequence.Priority, lower first, then arrival
)

// Config configures a Scheduler.
type Config struct {
	MaxNumSeqs       int    // most sequences that run at once
	MaxBatchedTokens int    // token budget of a step; at least MaxNumSeqs
	Policy           Policy // "" = FCFS
	// LongPrefillThreshold is the most tokens that one sequence's chunk takes
	// of a step; 0 = no bound but the budget.
	LongPrefillThreshold int
}

func (c *Config) validate() error {
	var errs []error
	if c.MaxNumSeqs < 1 {
		errs = append(errs, fmt.Errorf("max_num_seqs is %d, want at least 1", c.MaxNumSeqs))
	}
	if c.MaxBatchedTokens < c.MaxNumSeqs {
		errs = append(errs, fmt.Errorf("max_num_batched_tokens is %d, below max_num_seqs %d: a step must have room for one token of every running sequence; raise the one or lower the other",
			c.MaxBatchedTokens, c.MaxNumSeqs))
	}
	if c.LongPrefillThreshold < 0 {
		errs = append(errs, fmt.Errorf("long_prefill_token_threshold is %d, want 0 (off) or more", c.LongPrefillThreshold))
	}
	switch c.Policy {
	case "":
		c.Policy = FCFS
	case FCFS, Priority:
	default:
		errs = append(errs, fmt.Errorf("scheduling_policy is %q, want fcfs or priority", c.Policy))
	}
	return errors.Join(errs...)
}

// Scheduler is the state machine. One goroutine owns it.
type Scheduler struct {
	cfg     Config
	kv      *kvcache.Manager
	waiting queue
	running queue
	outputs [3]Output // two may be in flight while the third is filled
	step    int64
	nextID  SequenceID

	// The head of the waiting queue did not fit at that count of changes of the
	// cache: it is not tried again, which costs a hash of its prompt, until
	// the count or the head changes.
	refused        *Sequence
	refusedChanges uint64

	inFlight int   // Outputs with work that were not updated
	updated  int64 // step of the last Update
}

// New makes a Scheduler over a Manager. The error lists every problem of the
// configuration.
func New(cfg Config, kv *kvcache.Manager) (*Scheduler, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &Scheduler{cfg: cfg, kv: kv}
	s.waiting.priority = cfg.Policy == Priority
	s.running.priority = s.waiting.priority
	for i := range s.outputs {
		s.outputs[i].Scheduled = make([]Scheduled, 0, cfg.MaxNumSeqs)
		s.outputs[i].Preempted = make([]*Sequence, 0, cfg.MaxNumSeqs)
	}
	return s, nil
}

// BlocksNeeded is the number of blocks that a sequence of at most maxLen tokens
// can come to hold: its last token is never computed.
func (s *Scheduler) BlocksNeeded(maxLen int) int { return s.kv.BlocksFor(maxLen - 1) }

// Add puts a sequence into the waiting queue. It panics if the sequence could
// not run alone in an empty pool (BlocksNeeded(MaxLen) > Capacity): the caller
// refuses such a request, with the numbers.
func (s *Scheduler) Add(q *Sequence) {
	if len(q.Tokens) == 0 || q.MaxLen <= len(q.Tokens) {
		panic(fmt.Sprintf("scheduler: Add of %d tokens with MaxLen %d", len(q.Tokens), q.MaxLen))
	}
	if need := s.BlocksNeeded(q.MaxLen); need > s.kv.Capacity() {
		panic(fmt.Sprintf("scheduler: Add of a sequence that needs %d blocks of %d", need, s.kv.Capacity()))
	}
	s.nextID++
	q.ID, q.PromptLen, q.Status = s.nextID, len(q.Tokens), Waiting
	s.waiting.insert(q)
}

// Abort finishes a sequence wherever it is. Its blocks are free at once: the
// device orders their reuse after the steps in flight. Aborting a finished
// sequence does nothing.
func (s *Scheduler) Abort(q *Sequence) {
	switch q.Status {
	case Waiting:
		s.waiting.remove(q)
	case Running:
		s.running.remove(q)
		s.kv.Release(&q.Table)
	}
	q.Status = Finished
}

// NumRunning and NumWaiting count sequences.
func (s *Scheduler) NumRunning() int { return s.running.len() }

// NumWaiting is the length of the waiting queue.
func (s *Scheduler) NumWaiting() int { return s.waiting.len() }

// Schedule decides the next step and takes its blocks. Nothing to do gives an
// empty Output, which needs no Update.
func (s *Scheduler) Schedule() *Output {
	if s.inFlight > 1 {
		panic(fmt.Sprintf("scheduler: Schedule with %d steps in flight, one at most", s.inFlight))
	}
	s.step++
	out := &s.outputs[s.step%int64(len(s.outputs))]
	out.reset(s.step)
	evictions := s.kv.Stats().Evictions
	budget := s.cfg.MaxBatchedTokens
	budget -= s.scheduleDecodes(out)
	budget -= s.schedulePrefills(out, budget)
	budget -= s.admit(out, budget)
	out.NumTokens = s.cfg.MaxBatchedTokens - budget
	out.Waiting = s.waiting.len()
	out.Evictions = int(s.kv.Stats().Evictions - evictions)
	if !out.Empty() {
		s.inFlight++
	}
	return out
}

// scheduleDecodes gives every running sequence that lacks one token its token,
// preempting from the end of the running queue where blocks run short. It
// returns the tokens it took.
func (s *Scheduler) scheduleDecodes(out *Output) int {
	// Only sequences at or after the present one are preempted, so the queue
	// does not shift under the loop.
	for i := 0; i < s.running.len(); i++ {
		q := s.running.all()[i]
		if q.need() != 1 {
			continue
		}
		blocks := q.Table.Len()
		if s.growOrPreempt(out, q) {
			s.launch(out, q, 1, blocks)
		}
	}
	out.NumDecodes = len(out.Scheduled)
	return out.NumDecodes
}

// growOrPreempt makes room for one more token of q. It is false when q itself
// had to go.
func (s *Scheduler) growOrPreempt(out *Output, q *Sequence) bool {
	for !s.kv.Grow(&q.Table, q.Launched+1) {
		victim := s.running.last()
		s.preempt(out, victim)
		if victim == q {
			return false
		}
	}
	return true
}

// preempt sends a running sequence back to wait.
func (s *Scheduler) preempt(out *Output, q *Sequence) {
	s.running.remove(q)
	s.kv.Release(&q.Table)
	q.Status, q.NumComputed, q.Launched = Waiting, 0, 0
	q.epoch++
	q.Preemptions++
	s.waiting.insert(q)
	out.Preempted = append(out.Preempted, q)
}

// schedulePrefills continues the chunks of running sequences, oldest first.
func (s *Scheduler) schedulePrefills(out *Output, budget int) int {
	taken := 0
	for _, q := range s.running.all() {
		need := q.need()
		if need == 0 || q.lastStep == out.Step {
			continue
		}
		n := s.chunk(need, budget-taken)
		if n == 0 {
			break
		}
		s.launch(out, q, n, q.Table.Len())
		taken += n
	}
	return taken
}

// chunk bounds a prefill by the budget and the threshold for long ones.
func (s *Scheduler) chunk(need, budget int) int {
	n := min(need, budget)
	if s.cfg.LongPrefillThreshold > 0 {
		n = min(n, s.cfg.LongPrefillThreshold)
	}
	return n
}

// admit starts waiting sequences in order, as long as they fit whole.
func (s *Scheduler) admit(out *Output, budget int) int {
	taken := 0
	for s.waiting.len() > 0 {
		q := s.waiting.front()
		if out.WaitReason = s.whyWait(out, q, budget-taken); out.WaitReason != WaitNone {
			break
		}
		cached, ok := s.kv.Admit(&q.Table, q.Tokens, q.CacheSalt, s.margin(q))
		if !ok {
			s.refused, s.refusedChanges = q, s.kv.Changes()
			out.WaitReason = WaitBlocks
			break
		}
		s.waiting.popFront()
		s.running.insert(q)
		if q.epoch == 0 {
			q.CachedTokens = cached
		}
		q.Status, q.NumComputed, q.Launched = Running, cached, cached
		out.Admitted++
		out.HitTokens += cached
		n := s.chunk(q.need(), budget-taken)
		s.launch(out, q, n, 0)
		out.Scheduled[len(out.Scheduled)-1].Resumed = true
		taken += n
	}
	return taken
}

// whyWait says what keeps the head of the queue from being admitted before the
// cache is asked.
func (s *Scheduler) whyWait(out *Output, q *Sequence, budget int) WaitReason {
	switch {
	case len(out.Preempted) > 0:
		return WaitPreempted
	case s.running.len() >= s.cfg.MaxNumSeqs:
		return WaitSeqs
	case budget == 0:
		return WaitBudget
	case q.Pending > 0:
		return WaitPending
	case s.refused == q && s.refusedChanges == s.kv.Changes():
		return WaitBlocks
	}
	return WaitNone
}

// margin is the number of blocks that must stay free when q is admitted: for a
// sequence that was preempted, one for each that runs, so that it does not come
// back only to be preempted by their next blocks.
func (s *Scheduler) margin(q *Sequence) int {
	if q.epoch == 0 {
		return 0
	}
	return s.running.len()
}

// launch enters n tokens of q into the step. Table entries from firstNew on are
// new.
func (s *Scheduler) launch(out *Output, q *Sequence, n, firstNew int) {
	sample := q.Launched+n == q.known()
	out.Scheduled = append(out.Scheduled, Scheduled{
		Seq: q, Start: q.Launched, NumTokens: n, Sample: sample, FirstNewBlock: firstNew, epoch: q.epoch,
	})
	q.Launched += n
	q.lastStep = out.Step
	if sample {
		q.Pending++
	}
}
