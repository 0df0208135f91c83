package bench

import (
	"slices"
	"time"
)

// Report is the experiment in the common form; the manifest is the caller's. The
// steps of a part are its repeats.
func (r *ProfileReport) Report() *Report {
	out := &Report{Schema: 1, Experiment: "profile", Title: "Where the time of a step goes: " + r.Info.Model, Best: map[string]any{}, Verdict: r.Verdict(), Notes: []string{r.ceilings()},
		Columns: []string{"step_time_ms", "gpu_utilization", "occupancy", "copy_ms", "gap_host_ms", "gap_launch_ms", "gap_sync_ms", "gap_idle_ms"}}
	onCPU := r.device() != "GPU"
	if onCPU {
		out.Columns[1] = "workers_busy"
	}
	for i := range r.Parts {
		part := &r.Parts[i]
		if part.Stats == nil {
			continue
		}
		cell := part.cell()
		if onCPU {
			cell.Metrics["workers_busy"] = cell.Metrics["gpu_utilization"]
		}
		out.Cells = append(out.Cells, cell)
		for _, t := range []struct {
			name  string
			table Table
		}{{"operations", part.operations()}, {"kernels", part.kernels()}} {
			if len(t.table.Rows) > 0 {
				t.table.Title = part.Name() + ": " + t.name
				out.Tables = append(out.Tables, t.table)
			}
		}
		for _, note := range part.Profile.Notes {
			if note = part.Name() + ": " + note; !slices.Contains(out.Notes, note) {
				out.Notes = append(out.Notes, note)
			}
		}
		if part.Trouble != nil {
			out.Notes = append(out.Notes, part.Name()+": "+part.Trouble.Error())
		}
	}
	out.Plots = []Plot{r.roofline(), r.timePlot()}
	return out
}

// single is a metric that was measured once.
func single(unit string, v float64) Metric { return NewMetric(unit, []float64{v}) }

func (p *ProfilePart) cell() Cell {
	s := p.Stats
	c := Cell{Params: map[string]any{"phase": p.Phase, "batch_size": p.Batch, "prompt_tokens": p.Tokens}, Metrics: map[string]Metric{}}
	var steps []float64
	for _, d := range s.StepTimes {
		steps = append(steps, milliseconds(d))
	}
	c.Metrics["step_time_ms"] = NewMetric("ms", steps)
	c.Metrics["gpu_utilization"] = single("share", s.BusyShare())
	if s.Occupied {
		c.Metrics["occupancy"] = single("share", s.Occupancy)
	}
	for name, d := range map[string]time.Duration{
		"window_ms": s.Window, "copy_ms": s.Copy, "gap_host_ms": s.Gaps.Host, "gap_launch_ms": s.Gaps.Launch, "gap_sync_ms": s.Gaps.Sync, "gap_idle_ms": s.Gaps.Idle,
	} {
		c.Metrics[name] = single("ms", milliseconds(d))
	}
	for i := range s.Ops {
		o := &s.Ops[i]
		c.Metrics["op_"+o.Name+"_ms"] = single("ms", milliseconds(o.Time))
		c.Metrics["op_"+o.Name+"_calls"] = single("", float64(o.Calls))
		c.Metrics["op_"+o.Name+"_roofline"] = single("share", o.Roofline)
	}
	return c
}

// roofline is the plot of Williams et al.: what operations reach, by the FLOPs that
// they do with a byte, under what the device allows.
func (r *ProfileReport) roofline() Plot {
	plot := Plot{
		Name: "roofline", Title: "Roofline: " + r.Info.Model + " on " + r.Info.Device.Device,
		XLabel: "FLOP/byte", YLabel: "TFLOP/s", LogX: true, LogY: true,
		Caption: "Each point is an operation: how fast it computes, by the FLOPs that it does with a byte. Below the slope it is bound by memory, below the flat part by arithmetic; far below either, by neither.",
	}
	least, most := 1.0, 1.0
	for i := range r.Parts {
		part := &r.Parts[i]
		if part.Stats == nil {
			continue
		}
		points := Series{Name: part.Name(), Style: Points}
		for j := range part.Stats.Ops {
			o := &part.Stats.Ops[j]
			if o.FLOPs == 0 || o.Bytes == 0 || o.Time == 0 {
				continue // not on a logarithmic scale
			}
			points.X, points.Y = append(points.X, o.Intensity()), append(points.Y, o.TFLOPs())
			points.Labels = append(points.Labels, o.Name)
			least, most = min(least, o.Intensity()), max(most, o.Intensity())
		}
		if len(points.X) > 0 {
			plot.Series = append(plot.Series, points)
		}
	}
	bandwidth, peak := r.Ceilings.ReadBytesPerSecond/1e12, r.Ceilings.FLOPsPerSecond/1e12 // TB/s, TFLOP/s
	if bandwidth <= 0 || peak <= 0 {
		return plot
	}
	least, ridge := least/2, peak/bandwidth
	most = max(most, ridge) * 4
	roof := Series{Name: "ceiling", Style: Line, X: []float64{min(least, ridge), ridge, most}}
	for _, x := range roof.X {
		roof.Y = append(roof.Y, min(x*bandwidth, peak))
	}
	plot.Series = slices.Insert(plot.Series, 0, roof)
	return plot
}

// timePlot is each part's time, by what took it, in % of its own.
func (r *ProfileReport) timePlot() Plot {
	plot := Plot{Name: "profile-time", Title: "Where the time goes", YLabel: "% of the part's time"}
	var names []string // of operations, by their first part's time
	for i := range r.Parts {
		if r.Parts[i].Stats == nil {
			continue
		}
		for j := range r.Parts[i].Stats.Ops {
			if n := r.Parts[i].Stats.Ops[j].Name; !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	plot.Categories = append(slices.Clone(names), "gaps")
	for i := range r.Parts {
		s := r.Parts[i].Stats
		if s == nil {
			continue
		}
		bars := Series{Name: r.Parts[i].Name()}
		for _, n := range names {
			at := slices.IndexFunc(s.Ops, func(o OpStat) bool { return o.Name == n })
			if at < 0 {
				bars.Y = append(bars.Y, 0)
			} else {
				bars.Y = append(bars.Y, 100*s.Ops[at].Share)
			}
		}
		bars.Y = append(bars.Y, 100*share(s.Gaps.Total(), s.Window))
		plot.Series = append(plot.Series, bars)
	}
	return plot
}
