package engine

import (
	"errors"
	"time"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// This file hands out what a step brought, and ends requests.

// end forgets a request, whose sequence is finished, and gives it its final
// event: after that, its reader finds it in Stats.
func (l *loop) end(q *request, v verdict) {
	l.forget(q, v)
	l.publish()
	q.finish(v)
}

// finish shows the final event.
func (q *request) finish(v verdict) {
	q.stream.finish(q.outputs(), Event{HasToken: v.keep, Finish: v.finish, StopID: v.stopID, Preemptions: q.seq.Preemptions, Err: v.err})
}

// forget takes back what a request had.
func (l *loop) forget(q *request, v verdict) {
	l.runner.dropRow(q)
	l.guides.end(q)
	delete(l.requests, &q.seq)
	l.markStarted(q)
	q.unwatch()
	switch v.finish {
	case FinishStop:
		l.stats.FinishedStop++
	case FinishLength:
		l.stats.FinishedLength++
	case FinishAbort:
		l.stats.FinishedAbort++
	case FinishError:
		l.stats.FinishedError++
	}
}

// markStarted makes room in the queue.
func (l *loop) markStarted(q *request) {
	if !q.started {
		q.started = true
		l.e.queued.Add(-1)
		l.e.queuedTokens.Add(-int64(q.sampling.PromptLen))
	}
}

// deliver shows the step's tokens to their readers, and before that its numbers
// to Stats.
func (l *loop) deliver(s *step, device time.Duration) {
	l.stats.countStep(s.out.NumTokens)
	l.stats.LastStep, l.stats.PredictedStep, l.stats.StepTimeError = device, s.out.Predicted, l.sched.Model().Error()
	for i, v := range s.verdicts {
		if v.keep {
			l.stats.GenerationTokens++
		}
		if v.finish != FinishNone {
			l.forget(s.requests[i], v)
		}
	}
	l.publish()
	woken := l.waker.list(len(s.verdicts))
	for i, v := range s.verdicts {
		switch q := s.requests[i]; {
		case v.finish != FinishNone:
			q.finish(v)
		case v.keep && woken != nil:
			q.stream.show(q.outputs())
			woken = append(woken, &q.stream)
		case v.keep:
			q.stream.show(q.outputs())
			q.stream.poke()
		}
	}
	if woken != nil {
		l.waker.wake(woken)
	}
}

// judge fills in the step's results and verdicts, and keeps log probabilities.
// Sequences that ended meanwhile get neither. It aborts those that cannot go on.
func (l *loop) judge(s *step, result *kernels.Result) {
	drawn := 0
	for i := range s.out.Scheduled {
		e, q := &s.out.Scheduled[i], s.requests[i]
		var v verdict
		var r scheduler.Result
		if e.Sample {
			if e.Live() {
				n := q.outputs()
				v = judge(result.Tokens[drawn], n+1, int(q.sampling.MinTokens), len(q.stream.tokens), q.sampling.StopIDs)
				r = scheduler.Result{Token: result.Tokens[drawn], Finish: v.finish != FinishNone}
				if v.finish == FinishNone {
					l.guide(q, result.Tokens[drawn])
				}
				if v.keep && q.stream.top >= 0 {
					lo := drawn * l.e.cfg.MaxLogprobs
					hi := lo + q.stream.top
					q.stream.putLogprobs(n, result.Logprobs[drawn], result.Ranks[drawn], result.TopIDs[lo:hi], result.TopLogprobs[lo:hi])
				}
			}
			drawn++
		}
		s.results = append(s.results, r)
		s.verdicts = append(s.verdicts, v)
	}
	for i, place := range s.checked {
		if q := s.requests[place]; result.Tokens[drawn+i] < 0 && s.out.Scheduled[place].Live() {
			s.verdicts[place] = verdict{finish: FinishError, err: ErrNotNumbers}
			l.sched.Abort(&q.seq) // before Update, which would publish the chunk's blocks
		}
	}
}

// stop ends the engine: every request gets its final event, the device is
// released. cause is the device's error, nil when it was asked to stop.
func (l *loop) stop(cause error) {
	e := l.e
	e.enter(stateClosed)
	v := verdict{finish: FinishAbort}
	if cause != nil {
		v = verdict{finish: FinishError, err: cause}
		e.cfg.Log.Error("the engine stops", "error", cause)
	}
	for len(e.inbox) > 0 {
		l.add(<-e.inbox)
	}
	for s, q := range l.requests {
		l.sched.Abort(s)
		l.end(q, v)
	}
	l.guides.stop()
	for _, j := range l.jobs {
		j.drop()
	}
	if l.profile != nil {
		l.endProfile(EndedEngine)
	}
	l.publish()
	l.trace.flush(e.cfg.Log)
	if err := l.backend.Close(); err != nil && cause == nil {
		cause = errors.Join(ErrDevice, err)
	}
	l.waker.close()
	e.err = cause
	close(e.done)
}
