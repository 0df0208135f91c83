package bench

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/kernels"
)

var profileOut = flag.String("profile-out", "", "directory that TestProfileOfGPU leaves its traces and table in, for scripts/profile_check.py")

const us = time.Microsecond

// phases is a step's host side: 10 µs each of schedule, pack and launch, then wait
// and deliver for what is left.
func phases(begin, wait, deliver time.Duration) []engine.Phase {
	return []engine.Phase{
		{Kind: engine.PhaseSchedule, Start: begin, Duration: 10 * us}, {Kind: engine.PhasePack, Start: begin + 10*us, Duration: 10 * us},
		{Kind: engine.PhaseLaunch, Start: begin + 20*us, Duration: 10 * us}, {Kind: engine.PhaseWait, Start: begin + 30*us, Duration: wait},
		{Kind: engine.PhaseDeliver, Start: begin + 30*us + wait, Duration: deliver},
	}
}

func op(name kernels.Op, start, duration time.Duration, bytes, flops int64, busy time.Duration) kernels.OpRecord {
	return kernels.OpRecord{Op: name, Layer: -1, Start: start, Duration: duration, Bytes: bytes, FLOPs: flops, Busy: busy}
}

// TestAnalyze: each number of a profile that was worked out by hand.
func TestAnalyze(t *testing.T) {
	p := &engine.Profile{Info: engine.Info{Device: kernels.Info{Threads: 2}}, Steps: []engine.ProfiledStep{
		{Number: 1, Phases: phases(0, 960*us, 10*us), Ops: []kernels.OpRecord{
			op(kernels.OpQKV, 25*us, 500*us, 5e6, 1e6, 900*us),       // 10 GB/s of 20: half of the roofline
			op(kernels.OpGateUp, 525*us, 400*us, 1e6, 72e6, 600*us),  // 180 GFLOP/s of 200
			op(kernels.OpSample, 930*us, 20*us, 40_000, 0, 20*us),    // 2 GB/s: short, and a tenth
			op(kernels.OpCopy, 950*us, 10*us, 1_000_000, 0, 5*us),    // 100 GB/s: from a cache
			op(kernels.OpAttention, 960*us, 15*us, 260_000, 0, 9*us), // 17 GB/s: short, but near the roofline
		}},
		{Number: 2, Phases: phases(1100*us, 850*us, 20*us), Ops: []kernels.OpRecord{
			op(kernels.OpQKV, 1150*us, 500*us, 5e6, 1e6, 900*us),
			op(kernels.OpGateUp, 1650*us, 200*us, 1e6, 72e4, 200*us), // long and far from both: bound by the nearer one
		}},
	}}
	s := Analyze(p, kernels.Ceilings{ReadBytesPerSecond: 20e9, FLOPsPerSecond: 200e9})
	require.Equal(t, 2000*us, s.Window)
	require.Equal(t, []time.Duration{1000 * us, 900 * us}, s.StepTimes)
	require.Equal(t, 1645*us, s.Busy)
	require.Equal(t, 10*us, s.Copy)
	require.Equal(t, Gaps{
		Host:   20*us + 10*us + 20*us + 20*us, // schedule and pack of both, deliver of both
		Launch: 5*us + 10*us,
		Sync:   (5 + 15 + 20 + 130) * us, // before sample, and at the ends of the waits
		Idle:   100 * us,
	}, s.Gaps)
	require.Equal(t, s.Window, s.Busy+s.Gaps.Total())
	require.True(t, s.Occupied)
	require.InDelta(t, float64(900+600+20+5+9+900+200)/2/1645, s.Occupancy, 1e-9)
	require.InDelta(t, 0.945, s.StepBusy[0], 1e-9)
	got := map[string]string{}
	for _, o := range s.Ops {
		got[o.Name] = fmt.Sprintf("%d %s %.2f %s", o.Calls, o.Time, o.Roofline, o.Bound)
	}
	require.Equal(t, map[string]string{
		"qkv": "2 1ms 0.50 memory", "gate_up": "2 600µs 0.61 compute", "sample": "1 20µs 0.10 latency",
		"copy_blocks": "1 10µs 5.00 memory", "attention": "1 15µs 0.87 memory",
	}, got)
	require.Equal(t, "qkv", s.Ops[0].Name, "by time")
	require.Equal(t, &ProfileStats{}, Analyze(&engine.Profile{}, kernels.Ceilings{}))
}

// gpuProfile is a made-up step of a GPU, its kernels behind the host, two streams.
func gpuProfile() *engine.Profile {
	gpu := &kernels.GPU{Major: 9, SMs: 132, WarpSize: 32, ThreadsPerSM: 2048, CTAsPerSM: 32, RegistersPerSM: 65536, SharedPerSM: 233472, ThreadsPerCTA: 1024, RegistersPerCTA: 65536, ReservedShared: 1024}
	p := &engine.Profile{Begin: time.Unix(1_800_000_000, 0), Info: engine.Info{Model: "made up", Device: kernels.Info{Backend: "cuda", Device: "NVIDIA H100 80GB HBM3", Path: "sm_90a", TotalMemory: 80 << 30, GPU: gpu}}, Notes: []string{"made up, for the form"}}
	correlation := uint32(0)
	for i := range 12 {
		begin := time.Duration(i) * 1000 * us
		s := engine.ProfiledStep{Number: int64(i + 1), Tokens: 32, Sequences: 32, Decodes: 32, Phases: phases(begin, 400*us, 20*us)}
		for j, k := range []struct {
			op        kernels.Op
			kernel    string
			grid      int32
			registers int
			took      time.Duration
		}{
			{kernels.OpRMSNorm, "rmsnorm", 32, 40, 3 * us}, {kernels.OpQKV, "gemm_stream", 132, 168, 90 * us},
			{kernels.OpAttention, "attention_decode", 528, 96, 120 * us}, {kernels.OpGateUp, "gemm_stream", 132, 168, 400 * us},
		} {
			o := kernels.OpRecord{Op: k.op, Layer: 0, Bytes: int64(k.took) * 3000, FLOPs: int64(k.took) * 100_000}
			o.Issued, o.IssueTime = begin+20*us+time.Duration(2*j)*us, 2*us
			o.Start = begin + 100*us + time.Duration(j)*250*us/2
			if j == 3 {
				o.Start = begin + 480*us
			}
			o.Duration = k.took
			correlation++
			o.Activities = []kernels.Activity{{
				Name: k.kernel, Start: o.Start, Duration: k.took, Issued: o.Issued, IssueTime: us, Correlation: correlation, Stream: 13,
				Grid: [3]int32{k.grid, 1, 1}, CTA: [3]int32{256, 1, 1}, Registers: k.registers, StaticShared: 1024,
			}}
			if j == 0 {
				correlation++
				o.Activities = append(o.Activities, kernels.Activity{
					Kind: kernels.CopyActivity, Name: "HtoD", Start: o.Start - 20*us, Duration: 15 * us, Issued: o.Issued, Correlation: correlation, Stream: 13, Bytes: 1 << 15,
				})
			}
			s.Ops = append(s.Ops, o)
		}
		p.Steps = append(p.Steps, s)
	}
	return p
}

// TestProfileOfGPU: kernels, copies and occupancy, and gaps while the host runs
// ahead. With -profile-out the trace and the table stay for the plugin.
func TestProfileOfGPU(t *testing.T) {
	ceilings := kernels.Ceilings{ReadBytesPerSecond: 3.35e12, FLOPsPerSecond: 989e12, DataSheet: true}
	p := gpuProfile()
	dir := t.TempDir()
	if *profileOut != "" {
		dir = *profileOut
	}
	part := ProfilePart{Phase: "decode", Batch: 32, Tokens: 64, Profile: p, Stats: Analyze(p, ceilings)}
	s := part.Stats
	require.Equal(t, 11*1000*us+880*us, s.Window, "to the last kernel, behind the host's end")
	require.Equal(t, 12*613*us, s.Busy)
	require.Equal(t, 12*15*us, s.Copy)
	require.Len(t, s.Kernels, 3)
	require.Equal(t, KernelStat{
		Name: "gemm_stream", Calls: 24, Time: 12 * 490 * us, Registers: 168, Shared: 1024, Occupancy: 0.125, CTAsPerSM: 1,
	}, s.Kernels[0])
	require.InDelta(t, (490*0.125+120*0.25+3*32.0/132*8/64)/613, s.Occupancy, 1e-9, "two CTAs of 96 registers fit, weighted by time")
	require.Equal(t, 18*us*12, s.Ops[3].Time, "a copy belongs to the operation's time")
	require.Equal(t, s.Window, s.Busy+s.Copy+s.Gaps.Total())

	report := &ProfileReport{Info: p.Info, Ceilings: ceilings, Parts: []ProfilePart{part}}
	var err error
	report.Parts[0].Trace, err = p.Save(filepath.Join(dir, part.dir()), 0)
	require.NoError(t, err)
	var out bytes.Buffer
	report.Print(&out)
	for _, want := range []string{
		"GPU busy 62 % (more than 80 %: no), occupancy 15 % (more than 50 %: no)", "copies 0.180 ms (1.5 %)", "gaps 36.6 %: host", "(data sheet)",
		"gate_up", "bound by memory", "attention_decode", "note: made up", "the gaps are mostly",
	} {
		require.Contains(t, out.String(), want)
	}
	if *profileOut != "" {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "table.txt"), out.Bytes(), 0o644))
	}
}

// TestProfileReport: the common form has a cell a part, and the roofline is a plot
// that can be drawn.
func TestProfileReport(t *testing.T) {
	p := gpuProfile()
	c := p.Info.Device.GPU.Peaks(p.Info.Device.Device)
	c.ReadBytesPerSecond, c.FLOPsPerSecond = 3.35e12, 989e12
	r := &ProfileReport{Info: p.Info, Ceilings: c, Parts: []ProfilePart{
		{Phase: "prefill", Batch: 1, Tokens: 256}, // that was interrupted
		{Phase: "decode", Batch: 32, Tokens: 64, Profile: p, Stats: Analyze(p, c), Trouble: fmt.Errorf("no room")},
	}}
	report := r.Report()
	require.Len(t, report.Cells, 1)
	require.Equal(t, 32, report.Cells[0].Params["batch_size"])
	require.InDelta(t, 0.62, report.Cells[0].Metrics["gpu_utilization"].Median, 0.01)
	require.Len(t, report.Cells[0].Metrics["step_time_ms"].Runs, 12)
	require.InDelta(t, 4.8, report.Cells[0].Metrics["op_gate_up_ms"].Median, 1e-9)
	require.Contains(t, strings.Join(report.Notes, "\n"), "no room")
	require.ErrorContains(t, r.Trouble(), "no room")
	roof := report.Plots[0]
	require.True(t, roof.LogX && roof.LogY)
	require.Equal(t, Line, roof.Series[0].Style)
	require.InDelta(t, 989.0/3.35, roof.Series[0].X[1], 1e-6, "the ridge")
	require.InDelta(t, 989, roof.Series[0].Y[1], 1e-6)
	require.Equal(t, Points, roof.Series[1].Style)
	require.Contains(t, roof.Series[1].Labels, "attention")
	require.NoError(t, report.Write(t.TempDir()))
	require.Equal(t, "gap host", displayName("gap_host_ms"), "headers say the unit apart")
}
