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

// ending is a request that goes no further after a step.
type ending struct {
	place int // in the step's Scheduled
	verdict
}

// deliver shows the step's tokens to their readers, and before that its numbers
// to Stats. In the overlapped loop many readers are left to tell.
func (l *loop) deliver(s *step, device time.Duration) {
	l.stats.countStep(s.out.NumTokens)
	l.stats.LastStep, l.stats.PredictedStep, l.stats.StepTimeError = device, s.out.Predicted, l.sched.Model().Error()
	l.stats.GenerationTokens += int64(len(l.news))
	for i := range s.ends {
		end := &s.ends[i]
		if end.keep {
			l.stats.GenerationTokens++
		}
		l.forget(s.request(end.place), end.verdict)
	}
	l.publish()
	for i := range s.ends {
		s.request(s.ends[i].place).finish(s.ends[i].verdict)
	}
	if !l.e.info.Overlapped || len(l.news) <= toldDirectly {
		l.news = l.waker.tell(l.news)
	}
}

// judge fills in the step's results and ends and the news for the readers of the others,
// and keeps log probabilities. Sequences that ended meanwhile get none of it. It aborts
// those that cannot go on.
func (l *loop) judge(s *step, result *kernels.Result) {
	drawn, touched, told := 0, int32(0), l.news
	results := s.results[:len(s.out.Scheduled)]
	for i := range s.out.Scheduled {
		e := &s.out.Scheduled[i]
		if !e.Sample || !e.Live() {
			results[i] = scheduler.Result{}
			if e.Sample {
				drawn++
			}
			continue
		}
		q := requestOf(e.Seq)
		// Update will append to the last token's line. Looked at here, it comes while the
		// lines of the next requests do: nothing waits for it.
		touched ^= q.seq.Tokens[len(q.seq.Tokens)-1]
		n, token, keep := q.outputs()+1, result.Tokens[drawn], true
		if goesOn(token, n, int(q.minTokens), int(q.maxTokens), q.stopIDs) {
			results[i] = scheduler.Result{Token: token}
			told = append(told, news{&q.stream, n})
			if q.guide != nil {
				l.guides.begin(q, token, n)
			}
		} else {
			v := judge(token, n, int(q.minTokens), int(q.maxTokens), q.stopIDs)
			results[i] = scheduler.Result{Token: token, Finish: true}
			s.ends, keep = append(s.ends, ending{i, v}), v.keep
		}
		if keep && q.logprobs {
			lo := drawn * l.e.cfg.maxLogprobs()
			hi := lo + q.stream.top
			q.stream.putLogprobs(n-1, result.Logprobs[drawn], result.Ranks[drawn], result.TopIDs[lo:hi], result.TopLogprobs[lo:hi])
		}
		drawn++
	}
	s.results, l.news = results, told
	l.touched = touched
	for i, place := range s.checked {
		if q := s.request(place); result.Tokens[drawn+i] < 0 && s.out.Scheduled[place].Live() {
			s.ends = append(s.ends, ending{place, verdict{finish: FinishError, err: ErrNotNumbers}})
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
		j.drop(cause)
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
