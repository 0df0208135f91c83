package bench

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// The shares that a device should be busy and occupied.
const (
	enoughBusy     = 0.8
	enoughOccupied = 0.5
)

// topKernels is how many kernels of a part are printed.
const topKernels = 8

// device is what runs operations, in words.
func (r *ProfileReport) device() string {
	if r.Info.Device.GPU != nil {
		return "GPU"
	}
	return "workers"
}

// ceilings says what speeds are compared with.
func (r *ProfileReport) ceilings() string {
	from := "measured"
	if r.Ceilings.DataSheet {
		from = "data sheet"
	}
	return fmt.Sprintf("roofline: reads %.1f GB/s, arithmetic %.3f TFLOP/s (%s)", r.Ceilings.ReadBytesPerSecond/1e9, r.Ceilings.FLOPsPerSecond/1e12, from)
}

// Print writes the report: of each part what the device did, and its operations
// by time.
func (r *ProfileReport) Print(w io.Writer) {
	d := &r.Info.Device
	fmt.Fprintf(w, "%s on %s (%s", r.Info.Model, d.Device, d.Path)
	if d.Threads > 0 {
		fmt.Fprintf(w, ", %d threads", d.Threads)
	}
	fmt.Fprintf(w, ")\n%s\n", r.ceilings())
	for i := range r.Parts {
		if part := &r.Parts[i]; part.Stats != nil {
			r.printPart(w, part)
		}
	}
	fmt.Fprintln(w)
	fmt.Fprintln(w, r.Verdict())
}

func (r *ProfileReport) printPart(w io.Writer, part *ProfilePart) {
	s := part.Stats
	var steps []float64
	for _, d := range s.StepTimes {
		steps = append(steps, milliseconds(d))
	}
	fmt.Fprintf(w, "\n%s: %d steps of %s ms\n", part.Name(), len(steps), spread(steps, "%.3f"))
	fmt.Fprintf(w, "  %s busy %.0f %% (more than %.0f %%: %s)", r.device(), 100*s.BusyShare(), 100*enoughBusy, yes(s.BusyShare() > enoughBusy))
	if s.Occupied {
		fmt.Fprintf(w, ", occupancy %.0f %% (more than %.0f %%: %s)", 100*s.Occupancy, 100*enoughOccupied, yes(s.Occupancy > enoughOccupied))
	}
	fmt.Fprintf(w, "\n  copies %.3f ms (%.1f %%)\n  gaps %.1f %%: host %.1f %%, launch %.1f %%, sync %.1f %%", milliseconds(s.Copy), 100*share(s.Copy, s.Window),
		100*share(s.Gaps.Total(), s.Window), 100*share(s.Gaps.Host, s.Window), 100*share(s.Gaps.Launch, s.Window), 100*share(s.Gaps.Sync, s.Window))
	if idle := share(s.Gaps.Idle, s.Window); idle >= 0.001 {
		fmt.Fprintf(w, ", no work %.1f %%", 100*idle)
	}
	fmt.Fprintln(w)
	switch {
	case part.Trouble != nil:
		fmt.Fprintf(w, "  no trace: %v\n", part.Trouble)
	case part.Trace != "":
		fmt.Fprintf(w, "  trace %s\n", part.Trace)
	}
	for _, note := range part.Profile.Notes {
		fmt.Fprintf(w, "  note: %s\n", note)
	}
	operations := part.operations()
	operations.print(w)
	if top := part.kernels(); len(top.Rows) > 0 {
		top.print(w)
	}
}

// operations is the part's operations by time.
func (p *ProfilePart) operations() Table {
	t := Table{Header: []string{"operation", "", "calls", "total ms", "% of time", "GB/s", "TFLOP/s", "% of roofline"}, Text: 2}
	for i := range p.Stats.Ops {
		o := &p.Stats.Ops[i]
		t.Rows = append(t.Rows, []string{o.Name, "bound by " + string(o.Bound), fmt.Sprint(o.Calls), fmt.Sprintf("%.3f", milliseconds(o.Time)), fmt.Sprintf("%.1f", 100*o.Share),
			shortValue(o.GBps()), shortValue(o.TFLOPs()), fmt.Sprintf("%.0f", 100*o.Roofline)})
	}
	return t
}

// kernels is the part's kernels by time, the first few.
func (p *ProfilePart) kernels() Table {
	t := Table{Header: []string{"kernel", "calls", "total ms", "registers", "shared B", "CTAs/SM", "occupancy %"}, Text: 1}
	for _, k := range p.Stats.Kernels[:min(topKernels, len(p.Stats.Kernels))] {
		t.Rows = append(t.Rows, []string{k.Name, fmt.Sprint(k.Calls), fmt.Sprintf("%.3f", milliseconds(k.Time)), fmt.Sprint(k.Registers), fmt.Sprint(k.Shared),
			fmt.Sprintf("%.2f", k.CTAsPerSM), fmt.Sprintf("%.0f", 100*k.Occupancy)})
	}
	return t
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Verdict says of each part where its time goes, and what stands in the way.
func (r *ProfileReport) Verdict() string {
	var lines []string
	for i := range r.Parts {
		part := &r.Parts[i]
		if part.Stats == nil || len(part.Stats.Ops) == 0 {
			continue
		}
		lines = append(lines, part.Name()+": "+r.judge(part))
	}
	return strings.Join(lines, "\n")
}

func (r *ProfileReport) judge(part *ProfilePart) string {
	s := part.Stats
	top := &s.Ops[0]
	text := fmt.Sprintf("%s takes %.0f %% of the time, bound by %s at %.0f %% of the roofline", top.Name, 100*top.Share, top.Bound, 100*top.Roofline)
	if top.Roofline > 1 {
		text += " (its data comes from a cache)"
	}
	if s.BusyShare() > enoughBusy {
		if s.Occupied && s.Occupancy <= enoughOccupied {
			return text + "; the " + map[bool]string{true: "GPU is", false: "workers are"}[r.device() == "GPU"] + " busy but not occupied: " + r.occupancyAdvice()
		}
		return text
	}
	g := &s.Gaps
	cause, advice := "host", "scheduling and delivery take long beside a step: larger batches share them"
	switch max(g.Host, g.Launch, g.Sync, g.Idle) {
	case g.Idle:
		cause, advice = "no work", "requests did not come fast enough"
	case g.Sync:
		cause, advice = "sync", "steps are short beside the time to wake whoever waits for them: larger batches, or --async-scheduling"
	case g.Launch:
		cause, advice = "launch", "operations are issued slower than they run: larger batches, or CUDA graphs on a GPU"
	}
	return fmt.Sprintf("%s; the gaps are mostly %s: %s", text, cause, advice)
}

func (r *ProfileReport) occupancyAdvice() string {
	if r.Info.Device.GPU != nil {
		return "grids of few CTAs, or kernels of many registers; larger batches fill more multiprocessors"
	}
	return "threads wait for each other, or for a core that something else has; see --threads"
}
