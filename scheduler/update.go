package scheduler

import (
	"fmt"
	"time"
)

// Update reports a step as done, and the time it took on the device (0 = not
// known). results has one entry for each of out.Scheduled; those without Sample,
// and those of sequences that finished meanwhile (an overrun of the overlapped
// loop), are ignored. A token for a sequence that was preempted meanwhile is kept.
func (s *Scheduler) Update(out *Output, results []Result, took time.Duration) {
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
	out.inFlight = false
	s.traceUpdate(out, results, took)
	s.model.Observe(out.Load, took)
	for i := range out.Scheduled {
		e, r := &out.Scheduled[i], &results[i]
		q := e.Seq
		if e.Sample {
			q.Pending--
			if q.Status == Finished {
				continue
			}
			if r.Token < 0 {
				s.failed(q, r)
				continue
			}
			q.Tokens = append(q.Tokens, r.Token)
		}
		if q.Status == Running && q.epoch == e.epoch {
			if q.NumComputed = e.Start + e.NumTokens; q.forked || s.kv.Fills(&q.Table, q.NumComputed) {
				s.share(q)
			}
		}
		if e.Sample && r.Finish {
			s.finish(q)
		}
	}
}

// failed ends q, which got no token: nothing of the step is kept.
func (s *Scheduler) failed(q *Sequence, r *Result) {
	if !r.Finish {
		panic(fmt.Sprintf("scheduler: sequence %d got no token and does not finish", q.ID))
	}
	s.finish(q)
}

// share publishes the blocks that q has filled, and lets the forks of its prompt start once
// that is computed.
func (s *Scheduler) share(q *Sequence) {
	s.kv.Publish(&q.Table, q.Tokens, q.CacheSalt, q.NumComputed)
	if q.forked && q.NumComputed >= q.PromptLen {
		s.unpark(q)
	}
}
