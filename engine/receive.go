package engine

import (
	"fmt"
	"time"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// This file is the loop's way in: what it receives, and how it rests.

// receive takes in what others want: requests, aborts, calls. It is false when
// the engine is to stop.
func (l *loop) receive() bool {
	for l.receiveOne() {
	}
	l.takeAborts()
	l.arrive(false)
	switch l.e.state.Load() {
	case stateClosed:
		return false
	case stateDraining:
		return l.fault == nil && len(l.requests)+len(l.e.inbox)+len(l.transfers)+len(l.jobs) > 0
	}
	return l.fault == nil
}

// receiveOne takes in one request or one call, if there is any. To look at one channel
// takes no lock, to look at two does.
func (l *loop) receiveOne() bool {
	select {
	case q := <-l.e.inbox:
		l.add(q)
		return true
	default:
	}
	select {
	case fn := <-l.e.calls:
		fn(l)
		return true
	default:
	}
	return false
}

// rest waits for what the scheduler needs before it can go on: copies under way,
// or somebody with work.
func (l *loop) rest() {
	if len(l.transfers) > 0 {
		l.arrive(true)
		return
	}
	l.idle()
}

// idle sleeps until there is something to receive.
func (l *loop) idle() {
	if len(l.requests) > 0 {
		panic(fmt.Sprintf("engine: %d requests, %d running and %d waiting, but no step and none in flight (I9)",
			len(l.requests), l.sched.NumRunning(), l.sched.NumWaiting()))
	}
	l.settle()
	l.publish()
	l.check()
	l.trace.flush(l.e.cfg.Log)
	if !l.audit(time.Now()) && !l.completeLoad() {
		l.sleep()
	}
}

// completeLoad does a little of what loading left; false: nothing is left.
func (l *loop) completeLoad() bool {
	if l.completer == nil {
		return false
	}
	l.hold.Unlock() // a dump asks nothing of the device
	more, err := l.completer.CompleteLoad()
	l.hold.Lock()
	if err != nil {
		l.fault = fmt.Errorf("%w: %w", ErrDevice, err)
	}
	if !more {
		l.completer = nil
	}
	return true
}

// sleep waits until there is something to receive, and receives it.
func (l *loop) sleep() {
	var q *request
	var fn func(*loop)
	l.hold.Unlock()
	select {
	case q = <-l.e.inbox:
	case fn = <-l.e.calls:
	case <-l.e.wake:
	}
	l.hold.Lock()
	switch {
	case q != nil:
		l.add(q)
	case fn != nil:
		fn(l)
	}
}

// add takes a request over from Submit. Choices that were aborted before end once all
// are there: if the first did at once, the others would not know who computes their prompt.
func (l *loop) add(q *request) {
	for c := q; c != nil; c = c.sibling {
		l.addOne(c)
	}
	for c := q; c != nil; c = c.sibling {
		if c.aborting.Load() {
			l.abort(c) // the stack had it before the inbox
		}
	}
}

// addOne takes over one choice. The first of several computes the prompt that the
// others share.
func (l *loop) addOne(q *request) {
	q.received = true
	l.taken++
	l.requests[&q.seq] = q
	l.sched.Add(&q.seq)
	l.stats.PromptTokens += int64(q.seq.PromptLen)
}

// takeAborts empties the stack of aborts.
func (l *loop) takeAborts() {
	if l.e.aborts.Load() == nil {
		return
	}
	for q := l.e.aborts.Swap(nil); q != nil; {
		next := q.abortNext
		q.abortNext = nil
		if q.received {
			l.abort(q)
		}
		q = next
	}
}

// abort ends a request early. One that has ended stays as it is.
func (l *loop) abort(q *request) {
	if q.seq.Status == scheduler.Finished {
		return
	}
	l.sched.Abort(&q.seq)
	l.end(q, verdict{finish: FinishAbort})
}
