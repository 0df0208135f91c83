package scheduler

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// Replayed counts what a replay went through.
type Replayed struct {
	Steps     int64 // records compared, empty ones included
	Inputs    int64
	Submitted int64         // sequences
	Cache     kvcache.Stats // at the end
}

// ErrDiffers marks a replay that decided something else than the trace says.
var ErrDiffers = errors.New("the replay differs from the trace")

// Replay feeds the inputs of a trace to a fresh Scheduler and Manager and compares
// each decision with the recorded one. The error is an ErrDiffers with the step
// and the first difference, an io.ErrUnexpectedEOF when all is equal up to a last
// line that was cut off, or says why the trace cannot be replayed. each, if not
// nil, sees every line.
//
// Equal inputs give equal decisions, down to block ids: the key of the prefix
// index is another one here, and nothing depends on it. Estimated times may
// differ by a rounding of floating point; what is decided from them may not.
func Replay(trace *TraceReader, each func(*TraceLine)) (Replayed, error) {
	p := replayer{sequences: map[SequenceID]*Sequence{}}
	err := p.run(trace, each)
	if p.kv != nil {
		p.done.Cache = p.kv.Stats()
	}
	return p.done, err
}

func (p *replayer) run(trace *TraceReader, each func(*TraceLine)) error {
	for {
		l, err := trace.Next()
		switch {
		case errors.Is(err, io.EOF) && p.s == nil:
			return errors.New("the trace is empty")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := p.play(l); err != nil {
			return fmt.Errorf("trace line %d: %w", trace.Line(), err)
		}
		if each != nil {
			each(l)
		}
	}
}

// replayer is a Scheduler that lives on a trace.
type replayer struct {
	s         *Scheduler
	kv        *kvcache.Manager
	sequences map[SequenceID]*Sequence // live ones
	inFlight  []*Output
	results   []Result
	record    Record
	done      Replayed
}

// play feeds one line.
func (p *replayer) play(l *TraceLine) error {
	if l.Record != nil {
		return p.schedule(l.Record)
	}
	p.done.Inputs++
	switch {
	case l.Config != nil:
		return p.configure(l.Config)
	case l.Submit != nil:
		return p.submit(l.Submit)
	case l.Abort != 0:
		q := p.sequences[l.Abort]
		if q == nil {
			return fmt.Errorf("abort of sequence %d, which is not alive", l.Abort)
		}
		p.s.Abort(q)
		delete(p.sequences, q.ID)
	case l.Limits != nil:
		return p.limits(l.Limits)
	case l.CopyDone != nil:
		if !slices.Contains(p.s.Transfers(nil), l.CopyDone.ID) {
			return fmt.Errorf("transfer %d is done, but not under way", l.CopyDone.ID)
		}
		p.s.CopyDone(l.CopyDone.ID, l.CopyDone.Took)
	case l.ResetPrefixCache:
		p.s.ResetPrefixCache()
	case l.Borrow != 0:
		if p.s.borrowed.Len() > 0 || l.Borrow < 0 {
			return fmt.Errorf("a loan for %d tokens with %d blocks on loan", l.Borrow, p.s.borrowed.Len())
		}
		p.s.Borrow(l.Borrow)
	case l.GiveBack:
		p.s.GiveBack()
	case l.Update != nil:
		return p.update(l.Update)
	}
	return nil
}

// What a trace may ask for at most.
const (
	maxReplaySlots = 1 << 31 // of the pool: blocks × block size
	maxReplaySeqs  = 1 << 20 // at a time: a step has an entry for each
)

func (p *replayer) configure(c *TraceConfig) error {
	if c.BlockSize < 1 || c.Blocks < 2 || c.HostBlocks < 0 || c.MaxNumSeqs > maxReplaySeqs ||
		c.Blocks > maxReplaySlots/c.BlockSize || c.HostBlocks > maxReplaySlots {
		return fmt.Errorf("a pool of %d blocks of %d tokens, %d on the host, for %d sequences", c.Blocks, c.BlockSize, c.HostBlocks, c.MaxNumSeqs)
	}
	kv, err := kvcache.NewManager(c.Cache())
	if err != nil {
		return err
	}
	p.kv = kv
	p.s, err = New(c.Scheduler(), kv)
	return err
}

// Cache is the configuration of the trace's Manager, with another key.
func (c *TraceConfig) Cache() kvcache.Config {
	return kvcache.Config{NumBlocks: c.Blocks, HostBlocks: c.HostBlocks, BlockSize: c.BlockSize, DisablePrefixCaching: !c.PrefixCaching}
}

// Scheduler is the configuration of the trace's Scheduler.
func (c *TraceConfig) Scheduler() Config {
	return Config{Limits: c.given(), Policy: c.Policy, SwapOut: c.SwapOut, SwapIn: c.SwapIn}
}

// given are the limits as New and SetLimits take them, for which a watermark of 0 is
// the default.
func (l *TraceLimits) given() Limits {
	given := l.Limits
	if given.Watermark == 0 {
		given.Watermark = -1
	}
	return given
}

func (p *replayer) submit(t *TraceSubmit) error {
	need := p.kv.BlocksFor(t.MaxLen - 1)
	switch {
	case len(t.Tokens) == 0 || t.MaxLen <= len(t.Tokens):
		return fmt.Errorf("sequence %d has %d tokens of at most %d", t.ID, len(t.Tokens), t.MaxLen)
	case need > p.kv.Capacity():
		return fmt.Errorf("sequence %d can need %d blocks, the pool has %d", t.ID, need, p.kv.Capacity())
	case t.ID != p.s.nextID+1:
		return fmt.Errorf("sequence %d follows %d", t.ID, p.s.nextID)
	}
	q := &Sequence{
		Tokens: slices.Clip(t.Tokens), MaxLen: t.MaxLen, Priority: t.Priority, CacheSalt: t.Salt,
		Parent: p.sequences[t.Parent], // one that ended is as good as none
	}
	if p := q.Parent; p != nil && (q.CacheSalt != p.CacheSalt || !slices.Equal(q.Tokens, p.Tokens[:p.PromptLen])) {
		return fmt.Errorf("sequence %d has another prompt or salt than its parent %d", t.ID, t.Parent)
	}
	p.s.Add(q)
	p.sequences[q.ID] = q
	p.done.Submitted++
	return nil
}

func (p *replayer) limits(l *TraceLimits) error {
	if need := p.s.LargestNeed(); l.Blocks < 2 || l.HostBlocks < 0 || l.Blocks-1 < need || l.Blocks > maxReplaySlots/p.kv.BlockSize() || l.HostBlocks > maxReplaySlots {
		return fmt.Errorf("limits of %d blocks and %d on the host, where a sequence can need %d", l.Blocks, l.HostBlocks, need)
	}
	if l.MaxNumSeqs > maxReplaySeqs {
		return fmt.Errorf("limits of %d sequences at once, want at most %d", l.MaxNumSeqs, maxReplaySeqs)
	}
	return p.s.SetLimits(l.given(), l.Blocks, l.HostBlocks)
}

// update gives the oldest step in flight its results.
func (p *replayer) update(u *TraceUpdate) error {
	if len(p.inFlight) == 0 || p.inFlight[0].Step != u.Step {
		return fmt.Errorf("update of step %d, which is not the oldest in flight", u.Step)
	}
	out := p.inFlight[0]
	p.results = append(p.results[:0], make([]Result, len(out.Scheduled))...)
	n, tokens := 0, u.Tokens
	for _, i := range u.Finish {
		if i < 0 || i >= len(tokens) {
			return fmt.Errorf("update of step %d ends the sequence of token %d of %d", u.Step, i, len(tokens))
		}
	}
	for i := range out.Scheduled {
		if !out.Scheduled[i].Sample {
			continue
		}
		if n == len(tokens) {
			return fmt.Errorf("update of step %d with %d tokens, it samples more", u.Step, len(tokens))
		}
		p.results[i] = Result{Token: tokens[n], Finish: slices.Contains(u.Finish, n)}
		if q := out.Scheduled[i].Seq; q.Status != Finished && !p.results[i].Finish && len(q.Tokens)+1 >= q.MaxLen {
			return fmt.Errorf("update of step %d: sequence %d reaches its %d tokens and does not end", u.Step, q.ID, q.MaxLen)
		}
		if p.results[i].Token < 0 && !p.results[i].Finish {
			return fmt.Errorf("update of step %d: token %d for a sequence that does not end", u.Step, p.results[i].Token)
		}
		n++
	}
	if n != len(tokens) {
		return fmt.Errorf("update of step %d with %d tokens, it samples %d", u.Step, len(tokens), n)
	}
	p.inFlight = append(p.inFlight[:0], p.inFlight[1:]...)
	p.s.Update(out, p.results, u.Took)
	for i := range out.Scheduled {
		if q := out.Scheduled[i].Seq; q.Status == Finished {
			delete(p.sequences, q.ID)
		}
	}
	return nil
}

// schedule decides a step and compares it.
func (p *replayer) schedule(want *Record) error {
	if len(p.inFlight) > 1 {
		return fmt.Errorf("step %d with %d steps in flight", want.Step, len(p.inFlight))
	}
	out := p.s.Schedule()
	if !out.Empty() {
		p.inFlight = append(p.inFlight, out)
	}
	p.s.Record(out, &p.record)
	p.done.Steps++
	if diff := p.record.Difference(want); diff != "" {
		return fmt.Errorf("%w: step %d: %s", ErrDiffers, want.Step, diff)
	}
	return nil
}

// Difference says where the decisions of r first differ from those of want; "" =
// nowhere. Times are compared but for rounding.
func (r *Record) Difference(want *Record) string {
	for _, diff := range []string{
		differs("step", r.Step, want.Step),
		differAt("scheduled", r.Scheduled, want.Scheduled, func(a, b RecordScheduled) bool { return a == b }),
		differs("decodes", r.Decodes, want.Decodes), differs("tokens", r.Tokens, want.Tokens), differs("running", r.Running, want.Running),
		differAt("admitted", r.Admitted, want.Admitted, func(a, b RecordAdmission) bool { return a == b }),
		differAt("decisions", r.Decisions, want.Decisions, sameDecision),
		differs("waiting", r.Waiting, want.Waiting), differs("swapped", r.Swapped, want.Swapped), differs("head", r.Head, want.Head),
		differs("wait_reason", r.WaitReason, want.WaitReason), differs("chunk_reason", r.ChunkReason, want.ChunkReason),
		differs("loading", r.Loading, want.Loading),
		differAt("evicted", r.Evicted, want.Evicted, func(a, b kvcache.BlockID) bool { return a == b }),
		differs("copies", r.Copies, want.Copies), differs("swap_out", r.SwapOut, want.SwapOut), differs("swap_in", r.SwapIn, want.SwapIn),
		differs("load", r.Load, want.Load), differs("pool", r.Pool, want.Pool),
	} {
		if diff != "" {
			return diff
		}
	}
	if !sameTime(r.Predicted, want.Predicted) {
		return differs("predicted_ns", r.Predicted, want.Predicted)
	}
	return ""
}

func differs[T comparable](name string, got, want T) string {
	if got == want {
		return ""
	}
	return fmt.Sprintf("%s is %+v, the trace has %+v", name, got, want)
}

func differAt[T any](name string, got, want []T, same func(a, b T) bool) string {
	for i := range min(len(got), len(want)) {
		if !same(got[i], want[i]) {
			return fmt.Sprintf("%s[%d] is %+v, the trace has %+v", name, i, got[i], want[i])
		}
	}
	return differs("the number of "+name, len(got), len(want))
}

func sameDecision(a, b RecordDecision) bool {
	times := sameTime(a.Swap, b.Swap) && sameTime(a.Recompute, b.Recompute) && sameTime(a.Wait, b.Wait)
	a.Swap, a.Recompute, a.Wait = b.Swap, b.Recompute, b.Wait
	return times && a == b
}

// sameTime allows for the last bits of floating point, which depend on the
// processor, as they add up.
func sameTime(a, b time.Duration) bool {
	return max(a-b, b-a) <= time.Microsecond+max(a, b)/1e6
}
