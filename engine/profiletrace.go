package engine

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/pagoda-engine/pagoda/kernels"
)

// This file writes a profile as a Chrome trace with the categories and arguments
// that torch.profiler writes (Kineto, output_json.cpp), so that TensorBoard's
// torch-tb-profiler finds steps, operators, kernels and copies in it, and Perfetto
// shows the rest as well:
//
//	engine   │ ProfilerStep#7 ─────────────────────────│ ProfilerStep#8 …
//	phases   │ schedule │ pack │ launch │ wait │ deliver │
//	workers  │            embed │ rmsnorm │ qkv …         on a processor: cpu_op
//	engine   │            embed │ rmsnorm │ …             on a GPU: cpu_op with its runtime calls,
//	stream 7 │               kernel │ kernel …            tied to kernels by correlation
//
// Phases have a category of their own: the plugin would count them as operators.

// The threads of the host's process in a trace.
const (
	traceEngine  = 1
	tracePhases  = 2
	traceWorkers = 3
)

// traceEvent is an event of the Chrome trace format; times are in µs.
type traceEvent struct {
	Phase    string         `json:"ph"`
	Category string         `json:"cat,omitempty"`
	Name     string         `json:"name"`
	Pid      int            `json:"pid"`
	Tid      int            `json:"tid"`
	Ts       float64        `json:"ts"`
	Dur      *float64       `json:"dur,omitempty"`
	ID       uint32         `json:"id,omitempty"`
	Bind     string         `json:"bp,omitempty"`
	Args     map[string]any `json:"args,omitempty"`
}

// traceWriter writes events, the steps' one step at a time.
type traceWriter struct {
	p       *Profile
	pid     int
	gpu     *kernels.GPU
	events  []traceEvent
	id      int             // "External id" of the last operation
	bounds  []time.Duration // of all steps, ascending
	written int64
}

// ErrTraceSize: not one step fits the bound of a trace.
var ErrTraceSize = fmt.Errorf("%w: the trace's bound is too small", ErrConfig)

// WriteTrace writes the profile as a Chrome trace of at most maxBytes, 0 = any
// size, and returns the number of steps that it holds: later ones are left out
// where they do not fit.
func (p *Profile) WriteTrace(w io.Writer, maxBytes int64) (steps int, err error) {
	t := traceWriter{p: p, pid: os.Getpid(), gpu: p.Info.Device.GPU}
	for i := range p.Steps {
		begin, end := p.Window(i)
		t.bounds = append(t.bounds, begin, end)
	}
	slices.Sort(t.bounds)
	out := bufio.NewWriter(w)
	head, err := t.head()
	if err != nil {
		return 0, err
	}
	t.written = int64(len(head))
	if _, err := out.Write(head); err != nil {
		return 0, err
	}
	const foot = "\n]}\n"
	for i := range p.Steps {
		t.events = t.events[:0]
		t.step(i)
		text, err := t.encode(",\n")
		if err != nil {
			return steps, err
		}
		if total := t.written + int64(len(text)+len(foot)); maxBytes > 0 && total > maxBytes {
			if i == 0 {
				return 0, fmt.Errorf("%w: one step takes %.1f MB, --max-trace-mb allows %.1f", ErrTraceSize, float64(total)/1e6, float64(maxBytes)/1e6)
			}
			break
		}
		if _, err := out.Write(text); err != nil {
			return steps, err
		}
		t.written += int64(len(text))
		steps++
	}
	if _, err := out.WriteString(foot); err != nil {
		return steps, err
	}
	return steps, out.Flush()
}

// encode is the events, each behind a separator.
func (t *traceWriter) encode(separator string) ([]byte, error) {
	var text []byte
	for i := range t.events {
		line, err := json.Marshal(&t.events[i])
		if err != nil {
			return nil, err
		}
		text = append(append(text, separator...), line...)
	}
	return text, nil
}

// head is the file up to its metadata events.
func (t *traceWriter) head() ([]byte, error) {
	devices := []map[string]any{}
	if g := t.gpu; g != nil {
		d := &t.p.Info.Device
		devices = append(devices, map[string]any{
			"id": g.Ordinal, "name": d.Device, "totalGlobalMem": d.TotalMemory, "computeMajor": g.Major, "computeMinor": g.Minor,
			"maxThreadsPerBlock": g.ThreadsPerCTA, "maxThreadsPerMultiprocessor": g.ThreadsPerSM, "regsPerBlock": g.RegistersPerCTA,
			"warpSize": g.WarpSize, "sharedMemPerBlockOptin": g.SharedPerCTA, "numSms": g.SMs, "regsPerMultiprocessor": g.RegistersPerSM,
			"sharedMemPerMultiprocessor": g.SharedPerSM,
		})
	}
	head, err := json.Marshal(map[string]any{
		"schemaVersion": 1, "deviceProperties": devices, "displayTimeUnit": "ms", "baseTimeNanoseconds": t.p.Begin.UnixNano(),
		"with_flops": 1, "record_shapes": 1, "model": t.p.Info.Model, "device": t.p.Info.Device.Device, "notes": t.p.Notes,
	})
	if err != nil {
		return nil, err
	}
	t.nameThreads()
	events, err := t.encode(",\n")
	if err != nil {
		return nil, err
	}
	head = append(head[:len(head)-1], `,"traceEvents":[`...)
	return append(head, events[1:]...), nil
}

func (t *traceWriter) nameThreads() {
	t.meta("process_name", t.pid, 0, "name", "pagoda")
	t.meta("process_labels", t.pid, 0, "labels", "host")
	t.meta("thread_name", t.pid, traceEngine, "name", "engine")
	t.meta("thread_name", t.pid, tracePhases, "name", "engine: phases")
	for tid := traceEngine; tid <= traceWorkers; tid++ {
		t.meta("thread_sort_index", t.pid, tid, "sort_index", tid)
	}
	if t.gpu == nil {
		t.meta("thread_name", t.pid, traceWorkers, "name", fmt.Sprintf("%d worker threads", t.p.Info.Device.Threads))
		return
	}
	t.meta("process_name", t.gpu.Ordinal, 0, "name", "pagoda")
	t.meta("process_labels", t.gpu.Ordinal, 0, "labels", fmt.Sprintf("GPU %d", t.gpu.Ordinal))
	t.meta("process_sort_index", t.gpu.Ordinal, 0, "sort_index", 5_000_000)
	seen := map[uint32]bool{}
	for i := range t.p.Steps {
		for j := range t.p.Steps[i].Ops {
			for _, a := range t.p.Steps[i].Ops[j].Activities {
				if !seen[a.Stream] {
					seen[a.Stream] = true
					t.meta("thread_name", t.gpu.Ordinal, int(a.Stream), "name", "stream "+strconv.Itoa(int(a.Stream)))
				}
			}
		}
	}
}

func (t *traceWriter) meta(name string, pid, tid int, key string, value any) {
	t.events = append(t.events, traceEvent{Phase: "M", Name: name, Pid: pid, Tid: tid, Args: map[string]any{key: value}})
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }

func (t *traceWriter) complete(category, name string, pid, tid int, start, duration time.Duration, args map[string]any) {
	// The plugin adds in float64: an end past the next event's start would make
	// neighbours overlap, which it drops.
	dur := micros(duration)
	if micros(start)+dur > micros(start+duration) {
		dur = micros(duration - 1)
	}
	t.events = append(t.events, traceEvent{
		Phase: "X", Category: category, Name: name, Pid: pid, Tid: tid, Ts: micros(start), Dur: &dur, Args: args,
	})
}

// issue adds what the engine's goroutine issued. A step's operations are issued while the
// one before it runs, and the clocks of host and tracer differ by some 100 ns: what
// reaches over a bound of steps is cut to its larger side, for the plugin drops it.
func (t *traceWriter) issue(category, name string, start, duration time.Duration, args map[string]any) {
	end := start + duration
	at, _ := slices.BinarySearch(t.bounds, start+1)
	for ; at < len(t.bounds) && t.bounds[at] < end; at++ {
		if b := t.bounds[at]; b-start < end-b {
			start = b
		} else {
			end = b - 1 // sums of µs in float64 may differ in the last place
		}
	}
	t.complete(category, name, t.pid, traceEngine, start, end-start, args)
}

// step adds the events of step i.
func (t *traceWriter) step(i int) {
	s := &t.p.Steps[i]
	begin, end := t.p.Window(i)
	t.id++
	t.complete("user_annotation", fmt.Sprintf("ProfilerStep#%d", s.Number), t.pid, traceEngine, begin, end-begin, map[string]any{
		"External id": t.id, "tokens": s.Tokens, "sequences": s.Sequences, "decodes": s.Decodes,
	})
	for _, ph := range s.Phases {
		t.complete("host_phase", string(ph.Kind), t.pid, tracePhases, ph.Start, ph.Duration, map[string]any{"step": s.Number})
	}
	for j := range s.Ops {
		o := &s.Ops[j]
		t.id++
		args := map[string]any{
			"External id": t.id, "Ev Idx": t.id, "Input Dims": [][]int{{s.Tokens}}, "step": s.Number, "bytes": o.Bytes, "flops": o.FLOPs,
		}
		if o.Layer >= 0 {
			args["layer"] = o.Layer
		}
		if d := o.Duration.Seconds(); d > 0 {
			args["GB/s"], args["TFLOP/s"] = float64(o.Bytes)/d/1e9, float64(o.FLOPs)/d/1e12
		}
		if t.gpu == nil {
			args["worker busy us"] = micros(o.Busy)
			t.complete("cpu_op", o.Name(), t.pid, traceWorkers, o.Start, o.Duration, args)
			continue
		}
		t.issue("cpu_op", o.Name(), o.Issued, o.IssueTime, args)
		t.activities(o)
	}
}

// activities adds what the GPU ran for an operation, which has the last id.
func (t *traceWriter) activities(o *kernels.OpRecord) {
	if o.Activities == nil { // timed as a whole: one kernel stands for them
		call := uint32(t.id)
		t.runtime("operation", call, o.Issued, o.IssueTime)
		t.complete("kernel", o.Name(), t.gpu.Ordinal, 0, o.Start, o.Duration, map[string]any{
			"External id": t.id, "device": t.gpu.Ordinal, "stream": 0, "correlation": call, "timed by": "CUDA events",
		})
		return
	}
	for i := range o.Activities {
		t.activity(&o.Activities[i])
	}
}

// runtime adds the call that issued something. The plugin knows the category by
// its older name, and ties kernels to operators by it alone.
func (t *traceWriter) runtime(name string, correlation uint32, start, duration time.Duration) {
	t.issue("runtime", name, start, duration, map[string]any{"External id": t.id, "correlation": correlation})
}

func (t *traceWriter) activity(a *kernels.Activity) {
	args := map[string]any{
		"External id": t.id, "device": a.Device, "context": a.Context, "stream": a.Stream, "correlation": a.Correlation,
	}
	category, name, call := "kernel", a.Name, "cuLaunchKernelEx"
	switch a.Kind {
	case kernels.KernelActivity:
		g := t.gpu
		args["grid"], args["block"] = a.Grid, a.CTA
		args["registers per thread"], args["shared memory"] = a.Registers, a.StaticShared+a.DynamicShared
		args["blocks per SM"] = g.CTAsPerMultiprocessor(a)
		args["warps per SM"] = g.CTAsPerMultiprocessor(a) * float64((a.Threads()+31)/32)
		args["est. achieved occupancy %"] = 100 * g.Occupancy(a)
	case kernels.CopyActivity:
		category, name, call = "gpu_memcpy", "Memcpy "+a.Name, "cuMemcpyAsync"
		args["bytes"] = a.Bytes
		if a.Duration > 0 {
			args["memory bandwidth (GB/s)"] = float64(a.Bytes) / float64(a.Duration)
		}
	case kernels.SetActivity:
		category, name, call = "gpu_memset", "Memset (Device)", "cuMemsetAsync"
		args["bytes"] = a.Bytes
	}
	if a.InGraph {
		call = "cuGraphLaunch"
	}
	t.runtime(call, a.Correlation, a.Issued, a.IssueTime)
	flow := traceEvent{Phase: "s", Category: "ac2g", Name: "ac2g", ID: a.Correlation, Pid: t.pid, Tid: traceEngine, Ts: micros(a.Issued)}
	t.events = append(t.events, flow)
	t.complete(category, name, int(a.Device), int(a.Stream), a.Start, a.Duration, args)
	flow.Phase, flow.Bind, flow.Pid, flow.Tid, flow.Ts = "f", "e", int(a.Device), int(a.Stream), micros(a.Start)
	t.events = append(t.events, flow)
}
