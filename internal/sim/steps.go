package sim

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// Step is a step of a trace with what the lines around it say. Times are since
// the beginning of the trace.
type Step struct {
	scheduler.Record
	Start    time.Duration // on the device; of a step without work: when it was decided
	Took     time.Duration // as measured, or else as predicted
	Measured bool

	Submitted []Arrived     // since the step before
	Aborted   []SequenceEnd // since the step before
	Finished  []SequenceEnd // by this step
	Copied    []CopyEnd     // reported since the step before
}

// Arrived is a sequence that was added.
type Arrived struct {
	ID     scheduler.SequenceID
	At     time.Duration
	Tokens int
}

// SequenceEnd is a sequence that ended.
type SequenceEnd struct {
	ID scheduler.SequenceID
	At time.Duration
}

// CopyEnd is a transfer that was reported as finished.
type CopyEnd struct {
	ID       scheduler.TransferID
	At, Took time.Duration
}

// End is when the step was done on the device.
func (s *Step) End() time.Duration { return s.Start + s.Took }

// About says whether the step has to do with the sequence.
func (s *Step) About(id scheduler.SequenceID) bool {
	is := func(other scheduler.SequenceID) bool { return other == id }
	return s.Concerns(id) ||
		slices.ContainsFunc(s.Scheduled, func(e scheduler.RecordScheduled) bool { return is(e.ID) }) ||
		slices.ContainsFunc(s.Submitted, func(a Arrived) bool { return is(a.ID) }) ||
		slices.ContainsFunc(s.Aborted, func(e SequenceEnd) bool { return is(e.ID) }) ||
		slices.ContainsFunc(s.Finished, func(e SequenceEnd) bool { return is(e.ID) })
}

// idle says that the step decided nothing: the loop asked and there was no work.
func (s *Step) idle() bool {
	return len(s.Scheduled)+len(s.Admitted)+len(s.Decisions)+len(s.Submitted)+len(s.Aborted)+len(s.Copied)+len(s.Evicted) == 0
}

// stepReader puts the lines of a trace together. A step waits for its Update.
type stepReader struct {
	each    func(*Step) error
	waiting []*Step // in order; those with work wait
	next    Step    // collects what comes before the next record
	end     time.Duration
}

// ReadSteps calls each for every step of a trace, in order. A trace that was cut
// off is read as far as it goes.
func ReadSteps(trace *scheduler.TraceReader, each func(*Step) error) error {
	r := stepReader{each: each}
	for {
		l, err := trace.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err == nil {
			err = r.line(l)
		}
		if err != nil {
			return err
		}
	}
	for len(r.waiting) > 0 {
		s := r.waiting[0]
		s.Took = s.Predicted
		if err := r.release(s); err != nil {
			return err
		}
	}
	return nil
}

func (r *stepReader) line(l *scheduler.TraceLine) error {
	switch {
	case l.Submit != nil:
		r.next.Submitted = append(r.next.Submitted, Arrived{l.Submit.ID, l.At, len(l.Submit.Tokens)})
	case l.Abort != 0:
		r.next.Aborted = append(r.next.Aborted, SequenceEnd{l.Abort, l.At})
	case l.CopyDone != nil:
		r.next.Copied = append(r.next.Copied, CopyEnd{l.CopyDone.ID, l.At, l.CopyDone.Took})
	case l.Record != nil:
		s := r.next
		s.Record, s.Start = *l.Record, l.At
		r.next = Step{}
		r.waiting = append(r.waiting, &s)
		if len(s.Scheduled) == 0 && len(r.waiting) == 1 {
			return r.release(&s)
		}
	case l.Update != nil:
		return r.update(l.Update, l.At)
	}
	return nil
}

// update ends the oldest step with work.
func (r *stepReader) update(u *scheduler.TraceUpdate, at time.Duration) error {
	if len(r.waiting) == 0 || r.waiting[0].Step != u.Step {
		return nil // of a step before the part that was read
	}
	s := r.waiting[0]
	s.Took, s.Measured = u.Took, true
	if s.Took == 0 {
		s.Took = max(0, at-max(s.Start, r.end))
	}
	n := 0
	for i := range s.Scheduled {
		if !s.Scheduled[i].Sample {
			continue
		}
		if slices.Contains(u.Finish, n) {
			s.Finished = append(s.Finished, SequenceEnd{s.Scheduled[i].ID, at})
		}
		n++
	}
	if err := r.release(s); err != nil {
		return err
	}
	for len(r.waiting) > 0 && len(r.waiting[0].Scheduled) == 0 {
		if err := r.release(r.waiting[0]); err != nil {
			return err
		}
	}
	return nil
}

// release hands the first waiting step over, once its place in time is known: the
// device runs one after the other.
func (r *stepReader) release(s *Step) error {
	r.waiting = r.waiting[1:]
	s.Start = max(s.Start, r.end)
	r.end = s.End()
	for i := range s.Finished {
		s.Finished[i].At = max(s.Finished[i].At, r.end)
	}
	return r.each(s)
}

// FromEngine makes steps of an engine's records, as far as they say.
func FromEngine(records []engine.StepRecord) []Step {
	steps := make([]Step, len(records))
	var end time.Duration
	for i := range records {
		r := &records[i]
		steps[i] = Step{
			Record: r.Record, Start: max(end, r.Start.Sub(records[0].Start)),
			Took: cmp.Or(r.Device, r.Predicted), Measured: r.Device > 0,
		}
		if len(r.Scheduled) == 0 {
			steps[i].Took = 0
		}
		end = steps[i].End()
	}
	return steps
}
