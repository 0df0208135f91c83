package sim

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/kvcache"
	"github.com/pagoda-engine/pagoda/scheduler"
)

type blockID = kvcache.BlockID

// Perfetto writes steps in Chrome's trace format, which ui.perfetto.dev and
// chrome://tracing open: the steps on a track of their own, a track a sequence
// with what it did and waited for, preemptions and evictions as instants, blocks,
// tokens and queues as counters. Close ends the file.
//
// The format is the Trace Event Format of the Chrome project.
type Perfetto struct {
	w     *bufio.Writer
	only  scheduler.SequenceID
	count int
	err   error
	open  map[scheduler.SequenceID]*slice
	out   map[scheduler.TransferID]pending
	last  time.Duration
}

// slice is what a sequence is doing.
type slice struct {
	kind       string
	begin, end time.Duration // end of what is known
	step       int64         // the last that it was part of
	tokens     int
}

// pending is a copy under way.
type pending struct {
	begin  time.Duration
	blocks int
	track  int
}

// traceEvent is one event; times in microseconds.
type traceEvent struct {
	Name  string         `json:"name"`
	Phase string         `json:"ph"`
	Pid   int            `json:"pid"`
	Tid   int64          `json:"tid"`
	Ts    float64        `json:"ts"`
	Dur   *float64       `json:"dur,omitempty"`
	Scope string         `json:"s,omitempty"`
	Args  map[string]any `json:"args,omitempty"`
}

const (
	enginePid   = 1
	sequencePid = 2
	stepTrack   = 1
	outTrack    = 2
	inTrack     = 3
)

// NewPerfetto writes to w, with only ≠ 0 the steps and the track of one sequence.
func NewPerfetto(w io.Writer, only scheduler.SequenceID) *Perfetto {
	p := &Perfetto{w: bufio.NewWriter(w), only: only, open: map[scheduler.SequenceID]*slice{}, out: map[scheduler.TransferID]pending{}}
	_, p.err = p.w.WriteString(`{"displayTimeUnit":"ms","traceEvents":[`)
	p.name("process_name", enginePid, 0, "engine")
	p.name("process_name", sequencePid, 0, "sequences")
	p.name("thread_name", enginePid, stepTrack, "steps")
	p.name("thread_name", enginePid, outTrack, "swap out")
	p.name("thread_name", enginePid, inTrack, "swap in")
	return p
}

func (p *Perfetto) emit(e traceEvent) {
	if p.err != nil {
		return
	}
	line, err := json.Marshal(e)
	if err != nil {
		p.err = err
		return
	}
	if p.count++; p.count > 1 {
		_ = p.w.WriteByte(',') // the error sticks to the writer
	}
	_ = p.w.WriteByte('\n')
	_, p.err = p.w.Write(line)
}

func (p *Perfetto) name(kind string, pid int, tid int64, name string) {
	p.emit(traceEvent{Name: kind, Phase: "M", Pid: pid, Tid: tid, Args: map[string]any{"name": name}})
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }

func (p *Perfetto) complete(name string, pid int, tid int64, begin, end time.Duration, args map[string]any) {
	dur := micros(max(end-begin, 0))
	p.emit(traceEvent{Name: name, Phase: "X", Pid: pid, Tid: tid, Ts: micros(begin), Dur: &dur, Args: args})
}

func (p *Perfetto) instant(name string, pid int, tid int64, at time.Duration, args map[string]any) {
	p.emit(traceEvent{Name: name, Phase: "i", Scope: "t", Pid: pid, Tid: tid, Ts: micros(at), Args: args})
}

func (p *Perfetto) counter(name string, at time.Duration, values map[string]any) {
	p.emit(traceEvent{Name: name, Phase: "C", Pid: enginePid, Ts: micros(at), Args: values})
}

// Step writes one step.
func (p *Perfetto) Step(s *Step) error {
	p.last = max(p.last, s.End())
	for _, a := range s.Submitted {
		p.begin(a.ID, "waiting", a.At)
	}
	for _, e := range s.Aborted {
		p.end(e, "aborted")
	}
	for _, c := range s.Copied {
		p.copied(c)
	}
	for i := range s.Decisions {
		p.decide(s, &s.Decisions[i])
	}
	for i := range s.Admitted {
		p.admit(s, &s.Admitted[i])
	}
	for i := range s.Scheduled {
		p.ran(s, i)
	}
	for _, e := range s.Finished {
		p.end(e, "finished")
	}
	if p.only == 0 || s.About(p.only) {
		p.step(s)
	}
	return p.err
}

// step writes the engine's own tracks.
func (p *Perfetto) step(s *Step) {
	for _, t := range []struct {
		scheduler.RecordTransfer
		track int
	}{{s.SwapOut, outTrack}, {s.SwapIn, inTrack}} {
		if t.ID != 0 {
			p.out[t.ID] = pending{s.Start, t.Blocks, t.track}
		}
	}
	if len(s.Evicted) > 0 {
		p.instant(fmt.Sprintf("evicts %d blocks", len(s.Evicted)), enginePid, stepTrack, s.Start, map[string]any{"blocks": s.Evicted})
	}
	if len(s.Scheduled) > 0 {
		args := map[string]any{
			"step": s.Record.Step, "batch": batchText(s), "tokens": s.Tokens, "predicted_ms": float64(s.Predicted) / 1e6, "measured": s.Measured,
		}
		if why := reasons(s); len(why) > 0 {
			args["why"] = why
		}
		if wait := waitText(s); wait != "" {
			args["wait"] = wait
		}
		p.complete(fmt.Sprintf("%d decode + %d prefill", s.Decodes, len(s.Scheduled)-s.Decodes), enginePid, stepTrack, s.Start, s.End(), args)
	}
	p.counter("kv blocks", s.Start, map[string]any{"used": s.Pool.Used, "cached": s.Pool.Cached, "in flight": s.Pool.InFlight, "free": s.Pool.Free})
	p.counter("tokens", s.Start, map[string]any{"decode": s.Decodes, "prefill": s.Tokens - s.Decodes})
	p.counter("sequences", s.Start, map[string]any{"running": s.Running, "waiting": s.Waiting})
}

// track names a sequence's track when it is first seen, and says whether it is
// wanted.
func (p *Perfetto) track(id scheduler.SequenceID) bool {
	if p.only != 0 && p.only != id {
		return false
	}
	if _, seen := p.open[id]; !seen {
		p.open[id] = nil
		p.name("thread_name", sequencePid, int64(id), fmt.Sprintf("sequence %d", id))
	}
	return true
}

// begin ends what the sequence did and starts something that lasts.
func (p *Perfetto) begin(id scheduler.SequenceID, kind string, at time.Duration) {
	if p.track(id) {
		p.flush(id, at)
		p.open[id] = &slice{kind: kind, begin: at, end: -1}
	}
}

// flush writes what the sequence was doing. A state without a known end lasts
// until at.
func (p *Perfetto) flush(id scheduler.SequenceID, at time.Duration) {
	s := p.open[id]
	if s == nil {
		return
	}
	if s.end < 0 {
		s.end = at
	}
	var args map[string]any
	if s.tokens > 0 {
		args = map[string]any{"tokens": s.tokens}
	}
	p.complete(s.kind, sequencePid, int64(id), s.begin, s.end, args)
	p.open[id] = nil
}

// ran enters a step into its sequence's track; decodes of steps in a row are one
// slice.
func (p *Perfetto) ran(s *Step, i int) {
	e := &s.Scheduled[i]
	if !p.track(e.ID) {
		return
	}
	if i < s.Decodes {
		if o := p.open[e.ID]; o != nil && o.kind == "decode" && o.step == s.Record.Step-1 {
			o.end, o.step, o.tokens = s.End(), s.Record.Step, o.tokens+1
			return
		}
		p.flush(e.ID, s.Start)
		p.open[e.ID] = &slice{kind: "decode", begin: s.Start, end: s.End(), step: s.Record.Step, tokens: 1}
		return
	}
	p.flush(e.ID, s.Start)
	p.complete("prefill", sequencePid, int64(e.ID), s.Start, s.End(), map[string]any{"start": e.Start, "tokens": e.Tokens})
}

func (p *Perfetto) admit(s *Step, a *scheduler.RecordAdmission) {
	if !p.track(a.ID) {
		return
	}
	p.flush(a.ID, s.Start)
	p.instant(string(a.How), sequencePid, int64(a.ID), s.Start, map[string]any{"hit_tokens": a.Hit, "copied_blocks": a.Copied})
	if a.Copied > 0 {
		p.begin(a.ID, "copy in", s.Start)
	}
}

func (p *Perfetto) decide(s *Step, d *scheduler.RecordDecision) {
	if !p.track(d.Seq) {
		return
	}
	args := map[string]any{"why": decisionText(d), "blocks": d.Blocks}
	for name, cost := range map[string]time.Duration{"swap_ms": d.Swap, "recompute_ms": d.Recompute, "wait_ms": d.Wait} {
		if cost >= 0 {
			args[name] = float64(cost) / 1e6
		}
	}
	switch d.Means {
	case scheduler.BySwap:
		p.begin(d.Seq, "swapped out", s.Start)
	case scheduler.ByRecompute:
		p.begin(d.Seq, "preempted", s.Start)
	}
	p.instant("preemption: "+string(d.Means), sequencePid, int64(d.Seq), s.Start, args)
}

func (p *Perfetto) end(e SequenceEnd, how string) {
	if !p.track(e.ID) {
		return
	}
	p.flush(e.ID, e.At)
	p.instant(how, sequencePid, int64(e.ID), e.At, nil)
	p.last = max(p.last, e.At)
	delete(p.open, e.ID)
}

func (p *Perfetto) copied(c CopyEnd) {
	t, ok := p.out[c.ID]
	if !ok {
		return
	}
	delete(p.out, c.ID)
	// Copies of one direction follow each other; their ends are certain.
	begin := t.begin
	if c.Took > 0 {
		begin = max(begin, c.At-c.Took)
	}
	p.complete(fmt.Sprintf("%d blocks", t.blocks), enginePid, int64(t.track), begin, max(begin, c.At), map[string]any{"transfer": c.ID})
}

// Close ends what is open and the file.
func (p *Perfetto) Close() error {
	for _, id := range slices.Sorted(maps.Keys(p.open)) {
		p.flush(id, p.last)
	}
	if _, err := p.w.WriteString("\n]}\n"); p.err == nil {
		p.err = err
	}
	if err := p.w.Flush(); p.err == nil {
		p.err = err
	}
	return p.err
}
