package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// Replay feeds a recorded run to a fresh scheduler, which must decide the same
// (see scheduler.Replay), and summarizes it by the trace's clock. Each sequence
// counts as a request.
func Replay(trace *scheduler.TraceReader) (Summary, scheduler.Replayed, error) {
	b := bookkeeper{live: map[scheduler.SequenceID]*timed{}, sampled: map[int64][]scheduler.SequenceID{}}
	done, err := scheduler.Replay(trace, b.line)
	return b.tally.summary(done.Cache, 0), done, err
}

// bookkeeper follows the sequences of a trace.
type bookkeeper struct {
	tally   tally
	live    map[scheduler.SequenceID]*timed
	sampled map[int64][]scheduler.SequenceID // of steps in flight
}

type timed struct {
	arrived, last time.Duration
	any           bool
}

func (b *bookkeeper) line(l *scheduler.TraceLine) {
	switch {
	case l.Config != nil:
		b.tally.blockSize = l.Config.BlockSize
	case l.Submit != nil:
		b.tally.arrive(l.At)
		b.tally.sum.PromptTokens += int64(len(l.Submit.Tokens))
		b.live[l.Submit.ID] = &timed{arrived: l.At}
	case l.Abort != 0:
		b.end(l.Abort, l.At, true)
	case l.Record != nil:
		b.tally.step(l.Record)
		if len(l.Record.Scheduled) == 0 {
			return
		}
		ids := []scheduler.SequenceID{}
		for i := range l.Record.Scheduled {
			if l.Record.Scheduled[i].Sample {
				ids = append(ids, l.Record.Scheduled[i].ID)
			}
		}
		b.sampled[l.Record.Step] = ids
	case l.Update != nil:
		b.update(l.Update, l.At)
	}
}

func (b *bookkeeper) update(u *scheduler.TraceUpdate, at time.Duration) {
	ids := b.sampled[u.Step]
	delete(b.sampled, u.Step)
	for i, id := range ids {
		q := b.live[id]
		if q == nil || u.Tokens[i] < 0 {
			continue // it ended before its token came
		}
		b.tally.sum.OutputTokens++
		b.tally.last = max(b.tally.last, at) // the trace may be cut off before any request ends
		if q.any {
			b.tally.itl.add(at - q.last)
		} else {
			b.tally.ttft.add(at - q.arrived)
		}
		q.any, q.last = true, at
	}
	for _, i := range u.Finish {
		b.end(ids[i], at, false)
	}
}

func (b *bookkeeper) end(id scheduler.SequenceID, at time.Duration, aborted bool) {
	if q := b.live[id]; q != nil {
		b.tally.end(q.arrived, at, aborted)
		delete(b.live, id)
	}
}

// Recorded is the workload of a trace: who came when with what, and what each was
// answered.
type Recorded struct {
	Config   scheduler.TraceConfig
	arrivals []*arrival
	at       int
}

// ReadRecorded takes the workload out of a trace. Changes of limits and resets of
// the prefix cache are left out.
func ReadRecorded(trace *scheduler.TraceReader) (*Recorded, error) {
	r := &Recorded{}
	live := map[scheduler.SequenceID]*arrival{}
	sampled := map[int64][]scheduler.SequenceID{}
	for {
		l, err := trace.Next()
		switch {
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && len(r.arrivals) > 0:
			return r.close(live)
		case err != nil:
			return nil, err
		case l.Config != nil:
			r.Config = *l.Config
		case l.Submit != nil:
			s := l.Submit
			if err := r.submittable(s, live); err != nil {
				return nil, fmt.Errorf("trace line %d: %w", trace.Line(), err)
			}
			a := &arrival{
				at: l.At, prompt: slices.Clip(s.Tokens), maxLen: s.MaxLen, priority: s.Priority, salt: s.Salt,
				id: s.ID, tokens: []int32{}, seed: mix(uint64(s.ID)),
			}
			if live[s.Parent] != nil { // one that ended is as good as none
				a.parent = s.Parent
			}
			r.arrivals, live[s.ID] = append(r.arrivals, a), a
		case l.Abort != 0:
			if a := live[l.Abort]; a != nil {
				// Its client would have taken more.
				a.patience, a.outputs = max(1, l.At-a.at), []int{a.maxLen - len(a.prompt)}
				delete(live, l.Abort)
			}
		case l.Record != nil:
			ids := []scheduler.SequenceID{}
			for i := range l.Record.Scheduled {
				if l.Record.Scheduled[i].Sample {
					ids = append(ids, l.Record.Scheduled[i].ID)
				}
			}
			sampled[l.Record.Step] = ids
		case l.Update != nil:
			if err := r.update(l.Update, sampled[l.Update.Step], live); err != nil {
				return nil, err
			}
			delete(sampled, l.Update.Step)
		}
	}
}

// submittable says why the scheduler could not have been given s.
func (r *Recorded) submittable(s *scheduler.TraceSubmit, live map[scheduler.SequenceID]*arrival) error {
	switch p := live[s.Parent]; {
	case len(s.Tokens) == 0 || s.MaxLen <= len(s.Tokens):
		return fmt.Errorf("sequence %d has %d tokens of at most %d", s.ID, len(s.Tokens), s.MaxLen)
	case s.ID != scheduler.SequenceID(len(r.arrivals)+1):
		return fmt.Errorf("sequence %d follows %d", s.ID, len(r.arrivals))
	case p != nil && (s.Salt != p.salt || !slices.Equal(s.Tokens, p.prompt)):
		return fmt.Errorf("sequence %d has another prompt or salt than its parent %d", s.ID, s.Parent)
	}
	return nil
}

func (r *Recorded) update(u *scheduler.TraceUpdate, ids []scheduler.SequenceID, live map[scheduler.SequenceID]*arrival) error {
	if len(ids) != len(u.Tokens) {
		return fmt.Errorf("step %d samples %d tokens, its update has %d", u.Step, len(ids), len(u.Tokens))
	}
	for i, id := range ids {
		a := live[id]
		if a == nil || u.Tokens[i] < 0 {
			continue
		}
		if a.tokens = append(a.tokens, u.Tokens[i]); len(a.prompt)+len(a.tokens) > a.maxLen {
			return fmt.Errorf("the update of step %d takes sequence %d beyond its %d tokens", u.Step, id, a.maxLen)
		}
	}
	for _, i := range u.Finish {
		if i < 0 || i >= len(ids) {
			return fmt.Errorf("the update of step %d ends sequence %d of %d", u.Step, i, len(ids))
		}
		if a := live[ids[i]]; a != nil {
			a.outputs = []int{max(1, len(a.tokens))}
			delete(live, ids[i])
		}
	}
	return nil
}

// close gives those that were not answered whole the answer they had.
func (r *Recorded) close(live map[scheduler.SequenceID]*arrival) (*Recorded, error) {
	for _, a := range live {
		a.outputs = []int{max(1, len(a.tokens))}
	}
	if len(r.arrivals) == 0 {
		return nil, errors.New("the trace has no requests")
	}
	return r, nil
}

// Requests is the number of sequences.
func (r *Recorded) Requests() int { return len(r.arrivals) }

func (r *Recorded) total() int { return len(r.arrivals) }

func (r *Recorded) peek() (time.Duration, bool) {
	if r.at == len(r.arrivals) {
		return 0, false
	}
	return r.arrivals[r.at].at, true
}

func (r *Recorded) next() *arrival {
	r.at++
	return r.arrivals[r.at-1]
}

func (r *Recorded) follow(*arrival, []int32, time.Duration) *arrival { return nil }

// SimulateRecorded runs the workload of a trace under cfg: what if the machine or
// its limits had been others. A request that can never fit is refused.
func SimulateRecorded(ctx context.Context, cfg Config, r *Recorded) (Summary, error) {
	again := *r
	again.at = 0
	return run(ctx, cfg, &again)
}
