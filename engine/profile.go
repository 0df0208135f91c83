package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/kernels"
)

// ErrProfiling: a profile is being recorded already.
var ErrProfiling = errors.New("a profile is being recorded already")

// ProfileOptions bound a profile. Zero values are defaults.
type ProfileOptions struct {
	Steps int           // most steps; default 12
	Time  time.Duration // longest time; default 60 s
	Ops   int           // most operations that are kept, a step's remain together; default 250,000
}

func (o *ProfileOptions) fill() error {
	if o.Steps < 0 || o.Time < 0 || o.Ops < 0 {
		return fmt.Errorf("%w: a profile of %d steps, %s, %d operations: none may be negative", ErrConfig, o.Steps, o.Time, o.Ops)
	}
	o.Steps, o.Time, o.Ops = cmp.Or(o.Steps, 12), cmp.Or(o.Time, time.Minute), cmp.Or(o.Ops, 250_000)
	return nil
}

// ProfileEnd is why a profile ended.
type ProfileEnd string

// The ends of a profile.
const (
	EndedSteps   ProfileEnd = "steps"   // all that were asked for
	EndedTime    ProfileEnd = "time"    // the time was up
	EndedOps     ProfileEnd = "ops"     // as many operations as were to be kept
	EndedStopped ProfileEnd = "stopped" // by Stop
	EndedEngine  ProfileEnd = "engine"  // the engine closed, or its device failed
)

// Profile is what a number of steps did and when. Times are since Begin.
type Profile struct {
	Begin   time.Time
	Info    Info
	Options ProfileOptions
	Steps   []ProfiledStep // in order; whole ones only
	Ended   ProfileEnd
	Notes   []string // what the device could not tell, a sentence each
}

// ProfiledStep is one step on both sides. The next step may begin before a step's
// Deliver, where the loop runs a step ahead.
type ProfiledStep struct {
	Number    int64 // as in StepRecord
	Tokens    int
	Sequences int
	Decodes   int
	Phases    []Phase            // what the engine's goroutine did, in order
	Ops       []kernels.OpRecord // what the device ran, in order of start

	ticket kernels.Ticket
}

// Begin is when the host began to schedule the step.
func (s *ProfiledStep) Begin() time.Duration { return s.Phases[0].Start }

// End is when the host had delivered the step's tokens.
func (s *ProfiledStep) End() time.Duration {
	last := &s.Phases[len(s.Phases)-1]
	return last.Start + last.Duration
}

// PhaseKind is what the engine's goroutine did for a step.
type PhaseKind string

// The phases of a step, in order.
const (
	PhaseSchedule PhaseKind = "schedule" // deciding, and copies of blocks
	PhasePack     PhaseKind = "pack"     // batch and row updates
	PhaseLaunch   PhaseKind = "launch"   // issuing operations
	PhaseMask     PhaseKind = "mask"     // waiting for grammars' masks
	PhaseDraw     PhaseKind = "draw"     // issuing the draw of tokens
	PhaseWait     PhaseKind = "wait"     // until the device is done
	PhaseDeliver  PhaseKind = "deliver"  // tokens to their requests; many readers are told later, in no phase
)

// Phase is one phase of a step.
type Phase struct {
	Kind            PhaseKind
	Start, Duration time.Duration
}

// Recording is a profile under way. Requests go on meanwhile.
type Recording struct {
	e       *Engine
	options ProfileOptions
	done    chan struct{}
	timer   *time.Timer

	// The rest belongs to the engine's goroutine until done is closed.
	profile Profile
	offset  time.Duration // of the backend's clock
	at      time.Duration // where the phase under way began
	open    *ProfiledStep // that is scheduled and not launched
	flight  []*ProfiledStep
	ops     int
}

// Profile records the next steps and returns when there were as many as o says.
// When ctx ends first, it returns what there was.
func (e *Engine) Profile(ctx context.Context, o ProfileOptions) (*Profile, error) {
	r, err := e.StartProfile(ctx, o)
	if err != nil {
		return nil, err
	}
	select {
	case <-r.Done():
	case <-ctx.Done():
	}
	return r.Stop(), nil
}

// StartProfile begins to record. It waits until no step is under way, so that the
// first one recorded is whole. One profile is recorded at a time: ErrProfiling.
func (e *Engine) StartProfile(ctx context.Context, o ProfileOptions) (*Recording, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	r := &Recording{e: e, options: o, done: make(chan struct{})}
	var failed error
	err := e.alone(ctx, func(l *loop) bool {
		if l.profile != nil {
			failed = ErrProfiling
			return true
		}
		l.startProfile(r)
		return true
	})
	if err := cmp.Or(err, failed); err != nil {
		return nil, err
	}
	return r, nil
}

// Done is closed when the profile has ended: all steps recorded, the time up, or
// stopped.
func (r *Recording) Done() <-chan struct{} { return r.done }

// Stop ends the profile, if it has not ended, and returns it.
func (r *Recording) Stop() *Profile {
	r.end(EndedStopped)
	<-r.done
	return &r.profile
}

// end ends the profile from outside the engine's goroutine.
func (r *Recording) end(why ProfileEnd) {
	select {
	case <-r.done:
		return // whatever the engine's goroutine is at
	default:
	}
	// An engine that has closed has ended its profile, too.
	_ = r.e.call(context.Background(), func(l *loop) {
		if l.profile == r {
			l.endProfile(why)
		}
	})
}

func (l *loop) startProfile(r *Recording) {
	r.profile = Profile{Begin: time.Now(), Info: l.e.Info(), Options: r.options}
	l.profile = r
	l.backend.SetProfiler(r.add) // whose clock starts last
	r.offset = r.now()
	r.timer = time.AfterFunc(r.options.Time, func() { r.end(EndedTime) })
}

// endProfile leaves a step that is under way out.
func (l *loop) endProfile(why ProfileEnd) {
	r := l.profile
	l.profile = nil
	r.timer.Stop()
	l.backend.SetProfiler(nil) // which may report what is still missing
	for i := range r.profile.Steps {
		slices.SortStableFunc(r.profile.Steps[i].Ops, func(a, b kernels.OpRecord) int { return cmp.Compare(a.Start, b.Start) })
	}
	r.profile.Ended = why
	if noter, ok := l.backend.(kernels.ProfileNoter); ok {
		r.profile.Notes = noter.ProfileNotes()
	}
	r.open, r.flight = nil, nil
	close(r.done)
}

func (r *Recording) now() time.Duration { return time.Since(r.profile.Begin) }

// add takes an operation over from the backend, which reports it while the oldest
// step in flight is waited for, or at the end with its step's ticket.
func (r *Recording) add(o kernels.OpRecord) {
	s := r.stepOf(o.Step)
	if s == nil {
		return // of a call beside the steps, such as Logits, or of a step that is left out
	}
	o.Start += r.offset
	o.Issued += r.offset
	for i := range o.Activities {
		o.Activities[i].Start += r.offset
		o.Activities[i].Issued += r.offset
	}
	s.Ops = append(s.Ops, o)
	r.ops++
}

// stepOf finds the step of a ticket; 0 is the one that is waited for.
func (r *Recording) stepOf(t kernels.Ticket) *ProfiledStep {
	if t == 0 {
		if len(r.flight) == 0 {
			return nil
		}
		return r.flight[0]
	}
	i, found := slices.BinarySearchFunc(r.profile.Steps, t, func(s ProfiledStep, t kernels.Ticket) int { return cmp.Compare(s.ticket, t) })
	if !found {
		return nil
	}
	return &r.profile.Steps[i]
}

// The loop's marks. All of them do nothing without a recording.

// begin starts a step's first phase, at a time that the loop has taken anyway.
func (r *Recording) begin(at time.Time) {
	if r != nil {
		r.open, r.at = &ProfiledStep{}, at.Sub(r.profile.Begin)
	}
}

// mark ends a phase of the step that is not yet launched.
func (r *Recording) mark(kind PhaseKind) {
	if r != nil {
		r.phase(r.open, kind)
	}
}

func (r *Recording) phase(s *ProfiledStep, kind PhaseKind) {
	now := r.now()
	s.Phases = append(s.Phases, Phase{kind, r.at, now - r.at})
	r.at = now
}

// launched ends the launch, which began at the time given, of step s.
func (r *Recording) launched(s *step, begin time.Time) {
	if r == nil || r.open == nil {
		return
	}
	r.at = begin.Sub(r.profile.Begin)
	o := r.open
	r.phase(o, PhaseLaunch)
	o.Number, o.Tokens, o.Sequences, o.Decodes = s.record.Step, s.batch.NumTokens(), s.batch.NumSeqs(), s.batch.NumDecodes
	r.flight, r.open = append(r.flight, o), nil
}

// newest is the step that was launched last, if it is s.
func (r *Recording) newest(s *step) *ProfiledStep {
	if r == nil || len(r.flight) == 0 {
		return nil
	}
	if last := r.flight[len(r.flight)-1]; last.Number == s.record.Step {
		return last
	}
	return nil
}

// masked ends the wait for masks, which began at the time given; a step without
// has none.
func (r *Recording) masked(s *step, begin time.Time) {
	o := r.newest(s)
	if o == nil {
		return
	}
	if r.at = begin.Sub(r.profile.Begin); s.guided {
		r.phase(o, PhaseMask)
	}
}

// drawn ends the step's issuing: it has its ticket.
func (r *Recording) drawn(s *step) {
	if o := r.newest(s); o != nil {
		r.phase(o, PhaseDraw)
		o.ticket = s.ticket
	}
}

// waiting begins the wait for the oldest step in flight.
func (r *Recording) waiting() {
	if r != nil {
		r.at = r.now()
	}
}

// waited ends it. A step that was launched before the profile began is not in it.
func (r *Recording) waited() {
	if r != nil && len(r.flight) > 0 {
		r.phase(r.flight[0], PhaseWait)
	}
}

// delivered ends the oldest step in flight, and the profile when it was the last.
func (l *loop) delivered() {
	r := l.profile
	if r == nil || len(r.flight) == 0 {
		return
	}
	s := r.flight[0]
	r.phase(s, PhaseDeliver)
	r.flight = r.flight[1:]
	r.profile.Steps = append(r.profile.Steps, *s)
	switch {
	case len(r.profile.Steps) >= r.options.Steps:
		l.endProfile(EndedSteps)
	case r.ops >= r.options.Ops:
		l.endProfile(EndedOps)
	}
}
