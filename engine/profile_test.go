package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// The fake's profile: two operations a step, of which the FLOPs name the step.

func (f *fake) SetProfiler(fn func(kernels.OpRecord)) {
	for _, o := range f.late {
		f.profiler(o)
	}
	f.profiler, f.late = fn, nil
}
func (f *fake) ProfileNotes() []string { return []string{"a fake device"} }

func (f *fake) report(t kernels.Ticket) {
	if f.profiler == nil {
		return
	}
	for _, o := range []kernels.OpRecord{{Op: kernels.OpHead, Layer: -1, Start: 2, FLOPs: int64(t)}, {Op: kernels.OpEmbed, Layer: -1, Start: 1, FLOPs: int64(t)}} {
		if f.reportsLate {
			o.Step = t
			f.late = append(f.late, o)
			continue
		}
		f.profiler(o)
	}
}

// TestProfile: whole steps with their own operations and phases in order, while
// requests get what they would have got.
func TestProfile(t *testing.T) {
	testProfile(t, false)
	t.Run("late", func(t *testing.T) { testProfile(t, true) })
}

func testProfile(t *testing.T, late bool) {
	loops(t, func(t *testing.T, c Config) {
		f := &fake{reportsLate: late}
		e := startFake(t, f, c)
		recording, err := e.StartProfile(context.Background(), ProfileOptions{Steps: 5})
		require.NoError(t, err)
		r := Request{Prompt: prompt(1, 60), MaxTokens: 800, IgnoreEOS: true}
		s, err := e.Submit(context.Background(), r)
		require.NoError(t, err)
		<-recording.Done()
		p := recording.Stop()
		require.Equal(t, EndedSteps, p.Ended)
		require.Equal(t, []string{"a fake device"}, p.Notes)
		require.Len(t, p.Steps, 5)
		for i, step := range p.Steps {
			if i > 0 {
				require.Equal(t, p.Steps[i-1].Number+1, step.Number)
			}
			require.Equal(t, 1, step.Sequences)
			require.Len(t, step.Ops, 2)
			require.Equal(t, kernels.OpEmbed, step.Ops[0].Op, "in order of start")
			require.EqualValues(t, i+1, step.Ops[0].FLOPs, "an operation of another step")
			var kinds []PhaseKind
			at := time.Duration(0)
			for _, ph := range step.Phases {
				kinds = append(kinds, ph.Kind)
				require.GreaterOrEqual(t, ph.Start, at)
				require.GreaterOrEqual(t, ph.Duration, time.Duration(0))
				at = ph.Start + ph.Duration
			}
			require.Equal(t, []PhaseKind{PhaseSchedule, PhasePack, PhaseLaunch, PhaseDraw, PhaseWait, PhaseDeliver}, kinds)
			begin, end := p.Window(i)
			require.Less(t, begin, end)
			if i > 0 {
				_, before := p.Window(i - 1)
				require.LessOrEqual(t, before, begin)
			}
		}
		got, _ := readAll(t, s)
		want, _ := expect(&r, 800, 0)
		require.Equal(t, want, got)
		require.NoError(t, e.call(context.Background(), func(*loop) { require.Nil(t, f.profiler, "the device still records") }))

		done := make(chan *Profile)
		go func() {
			p, _ := e.Profile(context.Background(), ProfileOptions{Steps: 2})
			done <- p
		}()
		for again := (*Profile)(nil); again == nil; {
			s, err := e.Submit(context.Background(), Request{Prompt: prompt(1, 8), MaxTokens: 20, IgnoreEOS: true})
			require.NoError(t, err)
			readAll(t, s)
			select {
			case again = <-done:
				require.Len(t, again.Steps, 2, "a later profile, in the midst of requests")
			default:
			}
		}
	})
}

// TestProfileEnds: every way in which a profile ends, and what is there then.
func TestProfileEnds(t *testing.T) {
	ctx := context.Background()
	loops(t, func(t *testing.T, c Config) {
		e := startFake(t, &fake{}, c)
		r, err := e.StartProfile(ctx, ProfileOptions{Time: time.Millisecond})
		require.NoError(t, err)
		<-r.Done() // nothing runs: the time ends it
		require.Equal(t, EndedTime, r.Stop().Ended)
		require.Empty(t, r.Stop().Steps)

		r, err = e.StartProfile(ctx, ProfileOptions{})
		require.NoError(t, err)
		_, err = e.StartProfile(ctx, ProfileOptions{})
		require.ErrorIs(t, err, ErrProfiling)
		require.Equal(t, EndedStopped, r.Stop().Ended)

		r, err = e.StartProfile(ctx, ProfileOptions{Ops: 5, Steps: 1000})
		require.NoError(t, err)
		s, err := e.Submit(ctx, Request{Prompt: prompt(1, 8), MaxTokens: 50, IgnoreEOS: true})
		require.NoError(t, err)
		<-r.Done()
		require.Equal(t, EndedOps, r.Stop().Ended)
		require.Len(t, r.Stop().Steps, 3, "six operations are the first five or more")
		readAll(t, s)

		_, err = e.StartProfile(ctx, ProfileOptions{Steps: -1})
		require.ErrorIs(t, err, ErrConfig)
		done, cancel := context.WithCancel(ctx)
		cancel()
		_, err = e.Profile(done, ProfileOptions{})
		require.ErrorIs(t, err, context.Canceled)

		r, err = e.StartProfile(ctx, ProfileOptions{})
		require.NoError(t, err)
		require.NoError(t, e.Close())
		<-r.Done()
		require.Equal(t, EndedEngine, r.Stop().Ended)
		_, err = e.StartProfile(ctx, ProfileOptions{})
		require.ErrorIs(t, err, ErrClosed)
	})
}

// TestProfileFault: a device that fails ends the profile with it.
func TestProfileFault(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		e := startFake(t, &fake{failAt: 4}, c)
		r, err := e.StartProfile(context.Background(), ProfileOptions{})
		require.NoError(t, err)
		_, err = e.Submit(context.Background(), Request{Prompt: prompt(1, 8), MaxTokens: 50, IgnoreEOS: true})
		require.NoError(t, err)
		<-r.Done()
		require.Equal(t, EndedEngine, r.Stop().Ended)
		require.Len(t, r.Stop().Steps, 3)
	})
}

// sampleProfile has steps of adjacent operations, on a processor or on a GPU.
func sampleProfile(steps, opsPerStep int, gpu *kernels.GPU) *Profile {
	p := &Profile{Begin: time.Unix(1_700_000_000, 123), Info: Info{Model: "m", Device: kernels.Info{Device: "d", Threads: 2, GPU: gpu}}}
	if gpu != nil {
		p.Info.Device.Threads = 0
	}
	at := 118_002_884 * time.Nanosecond // where float64 sums of µs go astray
	for i := range steps {
		s := ProfiledStep{Number: int64(7 + i), Tokens: 8, Sequences: 8, Decodes: 8}
		for _, kind := range []PhaseKind{PhaseSchedule, PhasePack, PhaseLaunch} {
			s.Phases = append(s.Phases, Phase{kind, at, 1001})
			at += 1001
		}
		wait := at
		for j := range opsPerStep {
			o := kernels.OpRecord{Op: kernels.OpLinear, Part: "mlp", Layer: j, Start: at, Duration: 198_103 + time.Duration(j*37), Bytes: 1000, FLOPs: 2000, Busy: 150_000}
			if gpu != nil {
				o.Issued, o.IssueTime = wait-900+time.Duration(j), 1
				o.Activities = []kernels.Activity{
					{Name: "HtoD", Kind: kernels.CopyActivity, Start: at, Duration: 1000, Bytes: 4096, Correlation: uint32(100*i + 2*j + 1), Issued: o.Issued, Stream: 13},
					{Name: "gemm", Start: at + 1000, Duration: o.Duration - 1000, Correlation: uint32(100*i + 2*j + 2), Issued: o.Issued, Stream: 13, Grid: [3]int32{66, 2, 1}, CTA: [3]int32{256, 1, 1}, Registers: 32, StaticShared: 1024, DynamicShared: 4096},
				}
			}
			s.Ops = append(s.Ops, o)
			at += o.Duration
		}
		s.Phases = append(s.Phases, Phase{PhaseWait, wait, at - wait}, Phase{PhaseDeliver, at, 5000})
		at += 5000
		p.Steps = append(p.Steps, s)
	}
	return p
}

type traceFile struct {
	SchemaVersion    int              `json:"schemaVersion"`
	DeviceProperties []map[string]any `json:"deviceProperties"`
	TraceEvents      []struct {
		Ph, Cat, Name string
		Pid, Tid      int
		Ts, Dur       float64
		ID            uint32
		Args          map[string]any
	} `json:"traceEvents"`
}

func writeTrace(t *testing.T, p *Profile, maxBytes int64) (traceFile, int, []byte) {
	t.Helper()
	var out bytes.Buffer
	n, err := p.WriteTrace(&out, maxBytes)
	require.NoError(t, err)
	var f traceFile
	require.NoError(t, json.Unmarshal(out.Bytes(), &f))
	return f, n, out.Bytes()
}

// TestTraceOfProcessor: steps and operations as the plugin wants them; in its
// float64 sums, neighbours must not overlap.
func TestTraceOfProcessor(t *testing.T) {
	p := sampleProfile(3, 50, nil)
	f, n, _ := writeTrace(t, p, 0)
	require.Equal(t, 3, n)
	require.Equal(t, 1, f.SchemaVersion)
	require.Empty(t, f.DeviceProperties)
	ends := map[int]float64{}
	counts := map[string]int{}
	for _, e := range f.TraceEvents {
		if e.Ph != "X" {
			continue
		}
		counts[e.Cat]++
		require.GreaterOrEqual(t, e.Ts, ends[e.Tid], "%s overlaps its predecessor", e.Name)
		ends[e.Tid] = e.Ts + e.Dur
		if e.Cat == "user_annotation" {
			require.Equal(t, fmt.Sprintf("ProfilerStep#%d", 6+counts[e.Cat]), e.Name)
		}
		if e.Cat == "cpu_op" {
			require.Equal(t, "linear.mlp", e.Name)
			require.InDelta(t, 198.1, e.Dur, 2)
			require.EqualValues(t, 2000, e.Args["flops"])
		}
	}
	require.Equal(t, map[string]int{"user_annotation": 3, "cpu_op": 150, "host_phase": 15}, counts)
}

// TestTraceOfGPU: kernels with their launch shapes, tied to operators by their
// runtime calls; an operation that was only timed as a whole is one kernel.
func TestTraceOfGPU(t *testing.T) {
	gpu := &kernels.GPU{Ordinal: 0, Major: 9, SMs: 132, WarpSize: 32, ThreadsPerSM: 2048, CTAsPerSM: 32, RegistersPerSM: 65536, SharedPerSM: 233472, ThreadsPerCTA: 1024, RegistersPerCTA: 65536, ReservedShared: 1024}
	p := sampleProfile(2, 3, gpu)
	p.Steps[1].Ops[2].Activities = nil
	over := &p.Steps[0].Ops[2] // the tracer's clock is a little off
	over.Issued, over.IssueTime = p.Steps[1].Begin()-100, 400
	f, _, _ := writeTrace(t, p, 0)
	nested(t, &f)
	require.EqualValues(t, 9, f.DeviceProperties[0]["computeMajor"])
	operators, calls, flows := map[any]bool{}, map[any]any{}, map[string]int{}
	for _, e := range f.TraceEvents {
		switch e.Cat {
		case "cpu_op":
			operators[e.Args["External id"]] = true
		case "runtime":
			calls[e.Args["correlation"]] = e.Args["External id"]
		case "ac2g":
			flows[e.Ph]++
		}
	}
	counts := map[string]int{}
	for _, e := range f.TraceEvents {
		if e.Cat != "kernel" && e.Cat != "gpu_memcpy" {
			continue
		}
		counts[e.Cat]++
		require.Equal(t, e.Args["External id"], calls[e.Args["correlation"]])
		require.True(t, operators[e.Args["External id"]])
		require.EqualValues(t, 0, e.Pid)
		switch {
		case e.Cat == "gpu_memcpy":
			require.Equal(t, "Memcpy HtoD", e.Name)
			require.InDelta(t, 4.096, e.Args["memory bandwidth (GB/s)"], 1e-9)
		case e.Name == "gemm":
			require.InDelta(t, 12.5, e.Args["est. achieved occupancy %"], 1e-9)
			require.InDelta(t, 1, e.Args["blocks per SM"], 1e-9)
			require.EqualValues(t, []any{66.0, 2.0, 1.0}, e.Args["grid"])
			require.EqualValues(t, []any{256.0, 1.0, 1.0}, e.Args["block"])
			require.EqualValues(t, 32, e.Args["registers per thread"])
			require.EqualValues(t, 5120, e.Args["shared memory"])
		default:
			require.Equal(t, "linear.mlp", e.Name)
			require.Equal(t, "CUDA events", e.Args["timed by"])
		}
	}
	require.Equal(t, map[string]int{"kernel": 6, "gpu_memcpy": 5}, counts)
	require.Equal(t, map[string]int{"s": 10, "f": 10}, flows)
}

// nested checks that no two events of the engine's track overlap, which the plugin
// would drop, but lie in each other.
func nested(t *testing.T, f *traceFile) {
	for _, a := range f.TraceEvents {
		for _, b := range f.TraceEvents {
			if a.Ph != "X" || b.Ph != "X" || a.Pid != b.Pid || a.Tid != traceEngine || b.Tid != traceEngine || a.Ts > b.Ts {
				continue
			}
			end := a.Ts + a.Dur
			require.True(t, b.Ts >= end || b.Ts+b.Dur <= end || a.Ts == b.Ts, "%s and %s", a.Name, b.Name)
		}
	}
}

// TestTraceBound: a trace ends with the last whole step that fits.
func TestTraceBound(t *testing.T) {
	_, _, all := writeTrace(t, sampleProfile(4, 20, nil), 0)
	f, n, text := writeTrace(t, sampleProfile(4, 20, nil), int64(len(all)*6/10))
	require.Equal(t, 2, n)
	require.LessOrEqual(t, len(text), len(all)*6/10)
	require.Contains(t, string(text), "ProfilerStep#8")
	require.NotContains(t, string(text), "ProfilerStep#9")
	require.NotEmpty(t, f.TraceEvents)
	_, err := sampleProfile(4, 20, nil).WriteTrace(&bytes.Buffer{}, 1000)
	require.ErrorIs(t, err, ErrTraceSize)
	require.ErrorContains(t, err, "--max-trace-mb")

	p, dir := sampleProfile(4, 20, nil), t.TempDir()
	path, err := p.Save(filepath.Join(dir, "run"), int64(len(all)*6/10))
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(path, ".pt.trace.json"))
	require.Len(t, p.Steps, 2, "tables made from the profile agree with the file")
	require.Contains(t, p.Notes[0], "the last 2 of 4 steps")
}

// TestProfileDir: what goes wrong with a directory is told with what to do.
func TestProfileDir(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, CheckProfileDir(filepath.Join(dir, "a", "b")))
	entries, err := os.ReadDir(filepath.Join(dir, "a", "b"))
	require.NoError(t, err)
	require.Empty(t, entries)

	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, err := range []error{CheckProfileDir(file), CheckProfileDir(filepath.Join(file, "x"))} {
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, "--profile-dir")
	}
	_, err = sampleProfile(1, 1, nil).Save(filepath.Join(file, "x"), 0)
	require.ErrorContains(t, err, "--profile-dir")
	_, err = (&Profile{}).Save(dir, 0)
	require.ErrorContains(t, err, "no step")

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	_, err = sampleProfile(3, 100, nil).WriteTrace(full, 0)
	require.ErrorIs(t, err, syscall.ENOSPC)
	err = profileDirError("dir", err)
	require.ErrorContains(t, err, "--steps 4")
	require.ErrorContains(t, err, "--max-trace-mb 2")
	require.False(t, errors.Is(err, ErrConfig), "no mistake of the command line")
}
