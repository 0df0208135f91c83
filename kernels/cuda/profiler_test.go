//go:build cuda

package cuda

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
)

// TestAssemble: activities find their operations through call and link, in
// whatever order records come; what belongs to none, or was not complete, is left
// out.
func TestAssemble(t *testing.T) {
	const clock = 1_000_000
	ops := []kernels.OpRecord{
		{Op: kernels.OpPrepare, Step: 4, Issued: 10, IssueTime: 5, Bytes: 64},
		{Op: kernels.OpHead, Step: 4, Issued: 20, IssueTime: 5},
		{Op: kernels.OpQKV, Step: 5, Issued: 30, IssueTime: 5, Layer: 3, FLOPs: 9},
	}
	link := func(correlation uint32, op uint64) cuda.Record {
		return cuda.Record{Kind: cuda.LinkRecord, Correlation: correlation, External: op}
	}
	call := func(correlation uint32, at uint64) cuda.Record {
		return cuda.Record{Kind: cuda.CallRecord, Correlation: correlation, Start: clock + at, End: clock + at + 4}
	}
	kernel := func(name string, correlation uint32, start, end uint64) cuda.Record {
		return cuda.Record{Kind: cuda.KernelRecord, Name: name, Correlation: correlation, Start: clock + start, End: clock + end, Registers: 40, StaticShared: 1, DynamicShared: 2, Grid: [3]int32{9, 8, 7}, CTA: [3]int32{64, 2, 1}, Stream: 13}
	}
	got, strange := assemble(ops, nil, []cuda.Record{
		kernel("qkv", 13, 100, 190), kernel("stray", 99, 1, 2), kernel("split", 14, 80, 95), link(11, 1), call(11, 11), link(13, 3), call(13, 31), link(14, 3),
		{Kind: cuda.CopyRecord, Name: "HtoD", Correlation: 11, Start: clock + 50, End: clock + 53, Bytes: 64},
		link(12, 7), kernel("of no operation", 12, 5, 6), link(15, 2), {Kind: cuda.KernelRecord, Name: "incomplete", Correlation: 15},
	}, clock)
	require.Len(t, got, 3)
	require.Zero(t, strange)
	require.Equal(t, kernels.OpPrepare, got[0].Op)
	require.EqualValues(t, 50, got[0].Start)
	require.EqualValues(t, 3, got[0].Duration)
	require.Equal(t, []kernels.Activity{{Kind: kernels.CopyActivity, Name: "HtoD", Start: 50, Duration: 3, Issued: 11, IssueTime: 4, Correlation: 11, Bytes: 64}}, got[0].Activities)

	require.Equal(t, kernels.OpHead, got[1].Op)
	require.NotNil(t, got[1].Activities)
	require.Empty(t, got[1].Activities)
	require.EqualValues(t, 50, got[1].Start, "nothing ran for it: it begins with the one before")

	qkv := got[2]
	require.EqualValues(t, 5, qkv.Step)
	require.EqualValues(t, 80, qkv.Start)
	require.Equal(t, time.Duration(110), qkv.Duration)
	require.Equal(t, []string{"split", "qkv"}, []string{qkv.Activities[0].Name, qkv.Activities[1].Name})
	require.EqualValues(t, 30, qkv.Activities[0].Issued, "without a record of its call: the operation's")
	require.EqualValues(t, 31, qkv.Activities[1].Issued)
	require.Equal(t, 504, qkv.Activities[1].CTAs())
	require.Equal(t, 128, qkv.Activities[1].Threads())
}

// TestAssembleInOrder: operations for which nothing ran, norms that products make, stay where they were issued among those of
// the compute stream, on which the device is behind; swaps have a stream of their own.
func TestAssembleInOrder(t *testing.T) {
	var ops []kernels.OpRecord
	var records []cuda.Record
	want := []kernels.Op{kernels.OpRMSNorm, kernels.OpQKV, kernels.OpLinear, kernels.OpRMSNorm, kernels.OpGateUp}
	add := func(op kernels.Op, start uint64) {
		ops = append(ops, kernels.OpRecord{Op: op, Issued: time.Duration(len(ops))})
		if id := uint32(len(ops)); start > 0 {
			records = append(records, cuda.Record{Kind: cuda.LinkRecord, Correlation: id, External: uint64(id)},
				cuda.Record{Kind: cuda.KernelRecord, Correlation: id, Start: start, End: start + 10})
		}
	}
	add(want[0], 0)
	add(want[1], 100)
	add(want[2], 200)
	add(kernels.OpSwapOut, 900)
	add(want[3], 0)
	add(want[4], 300)
	got, _ := assemble(ops, nil, records, 0)
	var have []kernels.Op
	for _, op := range got {
		have = append(have, op.Op)
	}
	require.Equal(t, append(want, kernels.OpSwapOut), have)
	require.EqualValues(t, 200, got[3].Start)
}

// TestAssembleOverlapping: a kernel that was launched early counts from the end of the
// one before it on its stream.
func TestAssembleOverlapping(t *testing.T) {
	var ops []kernels.OpRecord
	var records []cuda.Record
	for i, c := range []struct{ stream, start, end uint64 }{{1, 100, 200}, {1, 120, 230}, {2, 130, 900}, {1, 240, 250}} {
		ops = append(ops, kernels.OpRecord{Op: kernels.OpLinear})
		records = append(records, cuda.Record{Kind: cuda.LinkRecord, Correlation: uint32(i), External: uint64(i + 1)},
			cuda.Record{Kind: cuda.KernelRecord, Correlation: uint32(i), Stream: uint32(c.stream), Start: c.start, End: c.end})
	}
	got, _ := assemble(ops, nil, records, 0)
	for i, want := range [][2]int{{100, 100}, {130, 770}, {200, 30}, {240, 10}} {
		require.EqualValues(t, want[0], got[i].Start, i)
		require.EqualValues(t, want[1], got[i].Duration, i)
	}
	require.EqualValues(t, 30, got[2].Activities[0].Duration)
}

// TestAssembleGraph: the kernels of a replay, which one call launched, go to their
// operations in the order in which they began, dependent ones before their predecessors'
// ends; the call's time is shared. A graph that ran others than expected has no times.
func TestAssembleGraph(t *testing.T) {
	ops := []kernels.OpRecord{
		{Op: kernels.OpPrepare, Issued: 400}, {Op: kernels.OpQKV, Issued: 401}, {Op: kernels.OpPrepare, Issued: 402}, {Op: kernels.OpSample, Issued: 403}, // the first step
		{Op: kernels.OpPrepare, Issued: 900}, {Op: kernels.OpQKV, Issued: 901}, {Op: kernels.OpPrepare, Issued: 902}, {Op: kernels.OpSample, Issued: 903},
	}
	names := []string{"prepare", "gemm", "decode_plan", "edit", "draw"}
	of := func(first int) (list []graphKernel) {
		for i, op := range []int{0, 1, 2, 3, 3} {
			list = append(list, graphKernel{first + op, names[i]})
		}
		return list
	}
	kernel := func(correlation uint32, name string, start, end uint64) cuda.Record {
		return cuda.Record{Kind: cuda.KernelRecord, Name: name, Correlation: correlation, Start: start, End: end, Stream: 7, InGraph: true}
	}
	got, strange := assemble(ops, map[uint64][]graphKernel{1: of(0), 5: of(4)}, []cuda.Record{
		{Kind: cuda.LinkRecord, Correlation: 21, External: 1}, {Kind: cuda.CallRecord, Correlation: 21, Start: 120, End: 170},
		kernel(21, "draw", 295, 310), kernel(21, "prepare", 220, 230), kernel(21, "gemm", 250, 290), kernel(21, "decode_plan", 260, 292), kernel(21, "edit", 280, 300),
		{Kind: cuda.LinkRecord, Correlation: 31, External: 5}, kernel(31, "prepare", 920, 930), kernel(31, "gemm", 940, 950),
	}, 0)
	require.Equal(t, 1, strange)
	require.Len(t, got, 8)
	prepare, qkv, plan, sample := got[0], got[1], got[2], got[3]
	for i, want := range []struct {
		op             kernels.OpRecord
		activities     []string
		start, end     time.Duration
		issued, called time.Duration
	}{
		{prepare, []string{"prepare"}, 220, 230, 120, 10},
		{qkv, []string{"gemm"}, 250, 290, 130, 10},
		{plan, []string{"decode_plan"}, 290, 292, 140, 10},
		{sample, []string{"edit", "draw"}, 292, 310, 150, 20},
	} {
		var have []string
		for _, a := range want.op.Activities {
			have = append(have, a.Name)
			require.True(t, a.InGraph)
		}
		require.Equal(t, want.activities, have, i)
		require.Equal(t, [2]time.Duration{want.start, want.end}, [2]time.Duration{want.op.Start, want.op.Start + want.op.Duration}, i)
		require.Equal(t, [2]time.Duration{want.issued, want.called}, [2]time.Duration{want.op.Issued, want.op.IssueTime}, i)
	}
	require.NotEqual(t, sample.Activities[0].Correlation, sample.Activities[1].Correlation)
	for _, op := range got[4:] {
		require.Empty(t, op.Activities)
	}
}
