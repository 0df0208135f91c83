//go:build cuda

package cuda

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
)

// assemble gives operations what the device ran for them: a link ties the call of
// a correlation to its operation, and the call's activities have its correlation.
// Operations for which nothing ran (a norm that products make) have the time of their issue, or, if that is later, of the one
// before them on the compute stream, which the host is ahead of. clock is the
// tracer's time at 0. The kernels of graphs, which have one correlation, are told apart
// by their order; strange counts the graphs whose kernels are not those expected.
func assemble(ops []kernels.OpRecord, graphs map[uint64][]graphKernel, records []cuda.Record, clock uint64) (out []kernels.OpRecord, strange int) {
	since := func(ns uint64) time.Duration { return time.Duration(int64(ns - clock)) }
	links, calls := map[uint32]uint64{}, map[uint32]*cuda.Record{}
	for i := range records {
		switch r := &records[i]; r.Kind {
		case cuda.LinkRecord:
			links[r.Correlation] = r.External
		case cuda.CallRecord:
			calls[r.Correlation] = r
		}
	}
	out = make([]kernels.OpRecord, len(ops))
	for i := range ops {
		out[i] = ops[i]
		out[i].Activities = []kernels.Activity{} // none: seen, and nothing ran
	}
	replayed := map[uint64][]*cuda.Record{}
	for i := range records {
		r := &records[i]
		id := links[r.Correlation]
		if r.Kind == cuda.LinkRecord || r.Kind == cuda.CallRecord || id < 1 || id > uint64(len(ops)) || r.End < r.Start || r.Start == 0 {
			continue
		}
		if r.InGraph {
			replayed[id] = append(replayed[id], r)
			continue
		}
		a, op := activity(r, clock), &out[id-1]
		a.Issued = op.Issued
		if c := calls[r.Correlation]; c != nil {
			a.Issued, a.IssueTime = since(c.Start), time.Duration(c.End-c.Start)
		}
		op.Activities = append(op.Activities, a)
	}
	own := uint32(1 << 31) // correlations of the driver's calls count from 1
	for _, id := range slices.Sorted(maps.Keys(graphs)) {
		if !distribute(out, graphs[id], replayed[id], calls, clock, &own) {
			strange++
		}
	}
	separate(out)
	var before time.Duration
	for i := range out {
		op := &out[i]
		slices.SortStableFunc(op.Activities, func(a, b kernels.Activity) int { return cmp.Compare(a.Start, b.Start) })
		op.Start = max(op.Issued, before)
		if len(op.Activities) > 0 {
			op.Start = op.Activities[0].Start
			end := op.Start
			for _, a := range op.Activities {
				end = max(end, a.Start+a.Duration)
			}
			op.Duration = end - op.Start
		}
		if op.Op != kernels.OpCopy && op.Op != kernels.OpSwapOut && op.Op != kernels.OpSwapIn {
			before = op.Start
		}
	}
	slices.SortStableFunc(out, func(a, b kernels.OpRecord) int { return cmp.Compare(a.Start, b.Start) })
	return out, strange
}

// activity translates a record.
func activity(r *cuda.Record, clock uint64) kernels.Activity {
	a := kernels.Activity{
		Kind: kernels.KernelActivity, Name: r.Name, Start: time.Duration(int64(r.Start - clock)), Duration: time.Duration(r.End - r.Start),
		Correlation: r.Correlation, Device: r.Device, Context: r.Context, Stream: r.Stream, Bytes: r.Bytes,
		Grid: r.Grid, CTA: r.CTA, Registers: r.Registers, StaticShared: r.StaticShared, DynamicShared: r.DynamicShared,
	}
	switch r.Kind {
	case cuda.CopyRecord:
		a.Kind = kernels.CopyActivity
	case cuda.SetRecord:
		a.Kind = kernels.SetActivity
	}
	return a
}

// distribute gives the kernels that a graph ran to the operations that they belong to,
// or, where they are not those that it has, to none.
func distribute(ops []kernels.OpRecord, want []graphKernel, got []*cuda.Record, calls map[uint32]*cuda.Record, clock uint64, own *uint32) bool {
	slices.SortStableFunc(got, func(a, b *cuda.Record) int { return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End)) })
	if !slices.EqualFunc(want, got, func(w graphKernel, r *cuda.Record) bool { return w.name == r.Name }) {
		return false
	}
	for i, r := range got {
		a, op := activity(r, clock), &ops[want[i].op]
		a.InGraph, a.Issued = true, op.Issued
		if c := calls[r.Correlation]; c != nil {
			at := func(i int) uint64 { return c.Start + (c.End-c.Start)*uint64(i)/uint64(len(got)) }
			a.Issued, a.IssueTime = time.Duration(int64(at(i)-clock)), time.Duration(at(i+1)-at(i))
		}
		a.Correlation = *own
		*own++
		op.Activities = append(op.Activities, a)
		op.Issued = op.Activities[0].Issued
		op.IssueTime = a.Issued + a.IssueTime - op.Issued
	}
	return true
}

// separate makes a kernel begin where the one before it on its stream ends: a dependent
// launch starts while its predecessor still runs, and what it does until that is done is
// wait. So the times of a stream add up to what it was busy.
func separate(ops []kernels.OpRecord) {
	var all []*kernels.Activity
	for i := range ops {
		for j := range ops[i].Activities {
			if a := &ops[i].Activities[j]; a.Kind == kernels.KernelActivity {
				all = append(all, a)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *kernels.Activity) int { return cmp.Compare(a.Start, b.Start) })
	ends := map[uint32]time.Duration{}
	for _, a := range all {
		end := a.Start + a.Duration
		a.Start = min(max(a.Start, ends[a.Stream]), end)
		a.Duration, ends[a.Stream] = end-a.Start, max(ends[a.Stream], end)
	}
}
