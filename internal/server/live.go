package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
)

// Bounds of the live view.
const (
	liveInterval  = 200 * time.Millisecond // between two looks at the engine
	liveShare     = 100                    // a look may take 1/liveShare of the engine's time
	liveBeat      = 15 * time.Second       // a comment, so that nobody takes the connection for dead
	mostViewers   = 64
	shownBlocks   = 1 << 15
	shownSteps    = 256
	shownRequests = 128
)

var errTooManyViewers = errors.New("too many viewers")

// live shows the engine to any number of viewers. While there is one, a goroutine
// looks at the engine, once for all of them; without any, nothing happens.
//
// There are no queues: a viewer writes the newest frame and then waits for the
// next. One that was slow finds that it missed frames, and gets a full one in
// their place. Nobody waits for it.
type live struct {
	s *Server

	mu      sync.Mutex
	viewers int
	cancel  context.CancelFunc // ends the goroutine; nil = it does not run
	closed  bool
	frame   *liveFrame // the newest; nil until the first look
	first   chan struct{}
	seen    engine.Observation // what frame shows
	steps   [][]byte           // the last shownSteps, encoded
	full    []byte             // frame as a full one; nil = nobody asked
}

// liveFrame is one event for those that have the one before.
type liveFrame struct {
	seq   int64
	delta []byte
	later chan struct{} // closed when there is a newer one, or none will come
}

// join counts a viewer.
func (v *live) join() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.closed:
		return engine.ErrClosed
	case v.viewers == mostViewers:
		return fmt.Errorf("%w: at most %d", errTooManyViewers, mostViewers)
	}
	if v.viewers++; v.viewers == 1 {
		ctx, cancel := context.WithCancel(context.Background())
		v.cancel, v.first = cancel, make(chan struct{})
		go v.look(ctx, v.first)
	}
	return nil
}

// leave ends the goroutine with the last viewer, and forgets what it saw.
func (v *live) leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.viewers--; v.viewers == 0 {
		v.cancel()
		v.frame, v.full, v.steps, v.seen = nil, nil, nil, engine.Observation{}
	}
}

// close ends all streams, because the server is to stop.
func (v *live) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed = true; v.viewers > 0 {
		v.cancel()
		v.end()
	}
}

// end wakes all viewers for the last time.
func (v *live) end() {
	v.closed = true
	if v.frame != nil {
		closeOnce(v.frame.later)
	}
	closeOnce(v.first)
}

// closeOnce is called under mu.
func closeOnce(ch chan struct{}) {
	select {
	case <-ch:
	default:
		close(ch)
	}
}

// look observes the engine until ctx ends. first is closed with the first frame.
func (v *live) look(ctx context.Context, first chan struct{}) {
	var next engine.Observation
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if err := v.s.engine.Observe(ctx, &next, shownBlocks, shownSteps); err != nil {
			v.mu.Lock()
			if ctx.Err() == nil { // the engine has stopped
				v.end()
			}
			v.mu.Unlock()
			return
		}
		cost := next.Cost
		v.mu.Lock()
		if ctx.Err() == nil {
			next = v.show(next)
			closeOnce(first)
		}
		v.mu.Unlock()
		timer.Reset(max(liveInterval, liveShare*cost))
	}
}

// show makes a frame of o and returns an Observation for the next look, whose
// memory is free. Called under mu.
func (v *live) show(o engine.Observation) engine.Observation {
	var fresh [][]byte
	for i := range o.Steps {
		step := v.s.frameStep(&o, &o.Steps[i])
		fresh = append(fresh, bytes.TrimSuffix(encodeJSON(new(bytes.Buffer), &step), []byte{'\n'}))
	}
	blocks := changedBlocks(nil, v.seen.Blocks, o.Blocks)
	if v.frame != nil && len(fresh) == 0 && len(blocks) == 0 && o.Stats == v.seen.Stats && slices.Equal(o.Requests, v.seen.Requests) {
		v.seen.Now, v.seen.Time, v.full = o.Now, o.Time, nil // who comes now gets the clock of now
		return o                                             // nothing to tell
	}
	v.steps = append(v.steps, fresh...)
	v.steps = slices.Delete(v.steps, 0, max(0, len(v.steps)-shownSteps))
	before := v.seen
	v.seen, v.full = o, nil
	frame := &liveFrame{later: make(chan struct{})}
	last := v.frame
	if last != nil {
		frame.seq = last.seq + 1
		frame.delta = encodeFrame(v.head(frame.seq), fresh, blocks)
	}
	v.frame = frame
	if last != nil {
		close(last.later)
	}
	before.Recorded = o.Recorded
	return before
}

// head is a frame of what was seen, without steps and blocks.
func (v *live) head(seq int64) *Frame {
	f := &Frame{Seq: seq, NowMs: v.seen.Now.Milliseconds(), Stats: frameStats(&v.seen)}
	f.Requests, f.More = frameChoices(v.seen.Requests)
	return f
}

// newest returns the newest frame, and what to write of it for a viewer that has
// all frames up to had; nil when there will be none.
func (v *live) newest(had int64) (*liveFrame, []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed || v.frame == nil {
		return nil, nil
	}
	if v.frame.seq == had+1 && v.frame.delta != nil {
		return v.frame, v.frame.delta
	}
	if v.full == nil {
		head := v.head(v.frame.seq)
		head.Full, head.Info = true, v.s.frameInfo(&v.seen)
		v.full = encodeFrame(head, v.steps, usedBlocks(nil, v.seen.Blocks))
	}
	return v.frame, v.full
}

func (s *Server) frameInfo(o *engine.Observation) *FrameInfo {
	return &FrameInfo{
		Model: s.names[0], Version: s.version, BlockSize: o.Stats.BlockSize, BlockBytes: o.Stats.BlockBytes,
		MaxModelLen: s.info.MaxModelLen, MaxLogprobs: s.info.MaxLogprobs,
		Chat: s.template != nil && s.tokenizer != nil, Text: s.tokenizer != nil,
	}
}

// handleStream answers /ui/api/stream: Frames as server-sent events, a full one
// first.
func (s *Server) handleStream(w http.ResponseWriter, req *http.Request) {
	if err := s.live.join(); err != nil {
		if errors.Is(err, errTooManyViewers) {
			s.writeError(w, unavailable("too_many_viewers", err.Error(), 10))
		} else {
			s.writeError(w, s.mapError(err, ""))
		}
		return
	}
	defer s.live.leave()
	beat := time.NewTicker(liveBeat)
	defer beat.Stop()
	out := s.newEventWriter(w)
	later, had := s.live.firstFrame(), int64(-2)
	for {
		var frame *liveFrame
		var data []byte
		select {
		case <-req.Context().Done():
			return
		case <-beat.C:
			if out.started && out.comment() != nil {
				return
			}
			continue
		case <-later:
			frame, data = s.live.newest(had)
		}
		if frame == nil { // no more will come
			if out.started {
				out.done()
			} else {
				s.writeError(w, s.mapError(engine.ErrClosed, ""))
			}
			return
		}
		if err := out.encoded(data); err != nil {
			s.log.Debug("viewer went away", "err", err)
			return
		}
		later, had = frame.later, frame.seq
	}
}

func (v *live) firstFrame() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.first
}
