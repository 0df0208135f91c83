package scheduler

import (
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// Record is one step by value: what ran, what did not, and why. Unlike an Output
// it outlives the step: it names sequences by id and holds no state. Records go
// into the engine's ring, into traces and over HTTP.
type Record struct {
	Step      int64             `json:"step"`
	Scheduled []RecordScheduled `json:"scheduled,omitempty"` // decodes first
	Decodes   int               `json:"decodes"`             // leading entries with one token whose sequences ran before
	Tokens    int               `json:"tokens"`              // computed by the step
	Running   int               `json:"running"`             // sequences with blocks, those that did not run in this step included

	Admitted  []RecordAdmission `json:"admitted,omitempty"`
	Decisions []RecordDecision  `json:"decisions,omitempty"`

	Waiting     int        `json:"waiting"`               // sequences without blocks, swapped and parked ones included
	Swapped     int        `json:"swapped,omitempty"`     // of these, with their KV on the host
	Head        SequenceID `json:"head,omitempty"`        // the first that waits; 0 = none
	WaitReason  WaitReason `json:"wait_reason,omitempty"` // why it waits
	ChunkReason WaitReason `json:"chunk_reason,omitempty"`
	Loading     int        `json:"loading,omitempty"` // running sequences that wait for copies from the host

	Evicted []kvcache.BlockID `json:"evicted,omitempty"` // cached blocks that lost their content
	Copies  int               `json:"copies,omitempty"`  // blocks copied on the device: forks' partial ones
	SwapOut RecordTransfer    `json:"swap_out,omitzero"`
	SwapIn  RecordTransfer    `json:"swap_in,omitzero"`

	Load      Load          `json:"load,omitzero"`
	Predicted time.Duration `json:"predicted_ns,omitempty"` // of the step; 0 = the model knows too little
	Pool      RecordPool    `json:"pool"`
}

// RecordScheduled is one sequence's part of the step: tokens at positions
// Start … Start+Tokens−1.
type RecordScheduled struct {
	ID      SequenceID `json:"id"`
	Start   int        `json:"start"`
	Tokens  int        `json:"tokens"`
	Sample  bool       `json:"sample,omitempty"`  // the step brings its next token
	Resumed bool       `json:"resumed,omitempty"` // its first step, or the first after a preemption
}

// RecordDecision is a Decision by ids. A cost of −1 marks means that were not to
// be had.
type RecordDecision struct {
	Means     Means         `json:"means"`
	Seq       SequenceID    `json:"seq"`
	For       SequenceID    `json:"for,omitempty"` // 0 = a limit was lowered
	Blocks    int           `json:"blocks"`
	Swap      time.Duration `json:"swap_ns"`
	Recompute time.Duration `json:"recompute_ns"`
	Wait      time.Duration `json:"wait_ns"`
	SwapFull  bool          `json:"swap_full,omitempty"`
}

// RecordAdmission is an Admission by id.
type RecordAdmission struct {
	ID     SequenceID `json:"id"`
	How    How        `json:"how"`
	Hit    int        `json:"hit,omitempty"`    // tokens that need not be computed
	Copied int        `json:"copied,omitempty"` // blocks copied in from the host
}

// RecordTransfer is the swap copies that the step began in one direction.
type RecordTransfer struct {
	ID     TransferID `json:"id"`
	Blocks int        `json:"blocks"`
}

// RecordPool is the state of the pools once the step was scheduled, in blocks.
type RecordPool struct {
	Free         int `json:"free"`
	Used         int `json:"used"`   // referenced
	Cached       int `json:"cached"` // unreferenced, in the prefix index
	InFlight     int `json:"in_flight,omitempty"`
	Shared       int `json:"shared,omitempty"` // referenced twice or more
	Saved        int `json:"saved,omitempty"`  // blocks that sharing saves
	UsedSlots    int `json:"used_slots"`       // token slots of the used blocks that hold tokens
	HostUsed     int `json:"host_used,omitempty"`
	HostInFlight int `json:"host_in_flight,omitempty"`
}

// Total is the number of device blocks.
func (p *RecordPool) Total() int { return p.Free + p.Used + p.Cached + p.InFlight }

// Record writes the step down in r, whose slices it reuses: in the steady state
// it allocates nothing. It is called between the Schedule that returned out and
// the next call of the Scheduler, and changes nothing.
func (s *Scheduler) Record(out *Output, r *Record) {
	s.RecordState(out, r)
	for i := range out.Scheduled {
		e := &out.Scheduled[i]
		r.Scheduled = append(r.Scheduled, RecordScheduled{e.Seq.ID, e.Start, e.NumTokens, e.Sample, e.Resumed})
	}
}

// RecordState is Record without what ran, which the Output has for as long as it is valid:
// for whoever keeps that in a form of its own.
func (s *Scheduler) RecordState(out *Output, r *Record) {
	*r = Record{
		Step: out.Step, Decodes: out.NumDecodes, Tokens: out.NumTokens, Running: s.running.len(),
		Scheduled: r.Scheduled[:0], Admitted: r.Admitted[:0], Decisions: r.Decisions[:0],
		Waiting: out.Waiting, Swapped: s.swapped, WaitReason: out.WaitReason, ChunkReason: out.ChunkReason, Loading: out.Loading,
		Evicted: append(r.Evicted[:0], out.Evicted...), Copies: len(out.Copies),
		SwapOut: RecordTransfer{out.SwapOut.ID, len(out.SwapOut.Copies)},
		SwapIn:  RecordTransfer{out.SwapIn.ID, len(out.SwapIn.Copies)},
		Load:    out.Load, Predicted: out.Predicted, Pool: s.recordPool(),
	}
	if out.Head != nil {
		r.Head = out.Head.ID
	}
	for i := range out.Admitted {
		a := &out.Admitted[i]
		r.Admitted = append(r.Admitted, RecordAdmission{a.Seq.ID, a.How, a.HitTokens, a.Copied})
	}
	for i := range out.Decisions {
		d := &out.Decisions[i]
		e := RecordDecision{Means: d.Means, Seq: d.Seq.ID, Blocks: d.Blocks, Swap: d.Swap, Recompute: d.Recompute, Wait: d.Wait, SwapFull: d.SwapFull}
		if d.For != nil {
			e.For = d.For.ID
		}
		r.Decisions = append(r.Decisions, e)
	}
}

func (s *Scheduler) recordPool() RecordPool {
	p := s.kv.Stats()
	return RecordPool{
		Free: p.Free, Used: p.Used, Cached: p.Cached, InFlight: p.InFlight, Shared: p.Shared, Saved: p.Saved,
		UsedSlots: s.UsedSlots(), HostUsed: p.HostUsed, HostInFlight: p.HostInFlight,
	}
}

// CopyTo makes to an independent copy of r, reusing its slices.
func (r *Record) CopyTo(to *Record) {
	scheduled, admitted := append(to.Scheduled[:0], r.Scheduled...), append(to.Admitted[:0], r.Admitted...)
	decisions, evicted := append(to.Decisions[:0], r.Decisions...), append(to.Evicted[:0], r.Evicted...)
	*to = *r
	to.Scheduled, to.Admitted, to.Decisions, to.Evicted = scheduled, admitted, decisions, evicted
}

// Concerns says whether the record gives a reason that has to do with a sequence:
// it was admitted, preempted or served by a preemption, or waits as the first.
func (r *Record) Concerns(id SequenceID) bool {
	return r.Head == id ||
		slices.ContainsFunc(r.Admitted, func(a RecordAdmission) bool { return a.ID == id }) ||
		slices.ContainsFunc(r.Decisions, func(d RecordDecision) bool { return d.Seq == id || d.For == id })
}

// Preempted is the number of sequences that lost their blocks by the means.
func (r *Record) Preempted(means Means) int {
	n := 0
	for i := range r.Decisions {
		if r.Decisions[i].Means == means {
			n++
		}
	}
	return n
}
