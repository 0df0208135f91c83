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
		e, r := &out.Scheduled[i], results[i]
		q := e.Seq
		if e.Sample {
			q.Pending--
		}
		if q.Status == Finished {
			continue
		}
		if e.Sample && r.Token < 0 && !r.Finish {
			panic(fmt.Sprintf("scheduler: sequence %d got no token and does not finish", q.ID))
		}
		if e.Sample && r.Token >= 0 {
			q.Tokens = append(q.Tokens, r.Token)
		}
		if failed := e.Sample && r.Token < 0; !failed && q.Status == Running && q.epoch == e.epoch {
			s.computed(q, e.Start+e.NumTokens)
		}
		if e.Sample && r.Finish {
			s.finish(q)
		}
	}
}

// computed advances q: full blocks are published, forks of its prompt may start.
func (s *Scheduler) computed(q *Sequence, tokens int) {
	q.NumComputed = tokens
	s.kv.Publish(&q.Table, q.Tokens, q.CacheSalt, tokens)
	if q.forked && tokens >= q.PromptLen {
		s.unpark(q)
	}
}
