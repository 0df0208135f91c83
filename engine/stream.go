package engine

import (
	"context"
	"sync/atomic"
	"time"
)

// Stream is the output of one request: the engine's goroutine appends, one
// reader takes. The memory for all tokens was set aside by Submit, so appending
// never waits for the reader; a reader that stops reading holds back nobody.
//
// A Stream has one reader at a time.
//
// What a step adds is shown, where readers are many by the waker, a little later than the
// engine's goroutine has written it.
//
//	tokens:  0 …… next …… published …… max tokens
//	         taken │ to take │ the engine's
type Stream struct {
	// Up to the published index these are the reader's and never written again.
	tokens   []int32 // [max tokens], the tail of the sequence's own memory
	logprobs []*logprobSegment
	cached   int
	admitted time.Time
	sequence SequenceID
	// Written before the finished bit of state is set.
	last Event // Finish, StopID, HasToken, Preemptions and Err of the final event

	// state is tokens published · 2 + finished. The final token and the bit
	// come in one store: a reader never sees one without the other.
	state  atomic.Int64
	notify chan struct{} // one slot: "state has changed since you looked"

	next  int  // index of the reader's next token
	ended bool // the reader has taken the final event
	top   int  // alternatives kept a token; −1 = no logprobs at all
}

// segmentTokens is the tokens of a logprobSegment. Log probabilities take up to
// 40 times the memory of a token, so that they are allocated as they come.
const segmentTokens = 64

// logprobSegment holds the log probabilities of segmentTokens tokens.
type logprobSegment struct {
	logprobs    [segmentTokens]float32
	ranks       [segmentTokens]int32
	topIDs      []int32   // [segmentTokens][top]
	topLogprobs []float32 // [segmentTokens][top]
}

// init sets the stream up for tokens, whose length is the most that will come.
func (s *Stream) init(tokens []int32, top int) {
	s.tokens, s.top = tokens, top
	s.notify = make(chan struct{}, 1)
	if top >= 0 {
		s.logprobs = make([]*logprobSegment, (len(tokens)+segmentTokens-1)/segmentTokens)
	}
}

// Next waits for the next event. It returns false when the final event was
// taken, or when ctx ends first; in the latter case nothing is lost, and the
// request goes on: only cancelling the context given to Submit aborts it.
func (s *Stream) Next(ctx context.Context) (Event, bool) {
	for {
		if ev, ok := s.take(); ok || s.ended {
			return ev, ok
		}
		select {
		case <-s.notify:
		case <-ctx.Done():
			return Event{}, false
		}
	}
}

// take returns the next event if there is one.
func (s *Stream) take() (Event, bool) {
	if s.ended {
		return Event{}, false
	}
	state := s.state.Load()
	published, finished := int(state>>1), state&1 == 1
	switch {
	case s.next < published:
		ev := s.token(s.next)
		s.next++
		if finished && s.last.HasToken && s.next == published {
			ev.Finish, ev.StopID, ev.Preemptions, ev.Err = s.last.Finish, s.last.StopID, s.last.Preemptions, s.last.Err
			s.ended = true
		}
		return ev, true
	case finished:
		s.ended = true
		ev := s.last
		ev.CachedTokens, ev.Admitted, ev.Sequence = s.cached, s.admitted, s.sequence
		return ev, true
	}
	return Event{}, false
}

// token is the event of token i, not the last.
func (s *Stream) token(i int) Event {
	ev := Event{Token: s.tokens[i], HasToken: true, CachedTokens: s.cached, Admitted: s.admitted, Sequence: s.sequence}
	if s.top >= 0 {
		seg, j := s.logprobs[i/segmentTokens], i%segmentTokens
		ev.Logprob, ev.Rank = seg.logprobs[j], seg.ranks[j]
		lo, hi := j*s.top, (j+1)*s.top
		ev.TopIDs, ev.TopLogprobs = seg.topIDs[lo:hi:hi], seg.topLogprobs[lo:hi:hi]
	}
	return ev
}

// putLogprobs stores what belongs to token i: its own log probability and rank
// and the likeliest ids, of which the stream keeps its first top.
func (s *Stream) putLogprobs(i int, logprob float32, rank int32, topIDs []int32, topLogprobs []float32) {
	seg, j := s.logprobs[i/segmentTokens], i%segmentTokens
	if seg == nil {
		seg = &logprobSegment{}
		if s.top > 0 {
			seg.topIDs = make([]int32, segmentTokens*s.top)
			seg.topLogprobs = make([]float32, segmentTokens*s.top)
		}
		s.logprobs[i/segmentTokens] = seg
	}
	seg.logprobs[j], seg.ranks[j] = logprob, rank
	copy(seg.topIDs[j*s.top:(j+1)*s.top], topIDs)
	copy(seg.topLogprobs[j*s.top:(j+1)*s.top], topLogprobs)
}

// show makes the first n tokens readable; its reader, who may wait, is to be poked. It may
// come after another show of more, or after finish: then it changes nothing.
func (s *Stream) show(n int) {
	for want := int64(n) << 1; ; {
		if have := s.state.Load(); have >= want || s.state.CompareAndSwap(have, want) {
			return
		}
	}
}

// finish publishes the first n tokens and the final event, whose token, if it
// has one, is token n−1. Engine goroutine, once.
func (s *Stream) finish(n int, last Event) {
	s.last = last
	s.state.Store(int64(n)<<1 | 1)
	s.poke()
}

// poke wakes the reader. Any goroutine.
func (s *Stream) poke() {
	select {
	case s.notify <- struct{}{}:
	default:
	}
}
