package bench

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// report begins a report with the arms' cells.
func (c *cells) report(experiment, title string, load Load, arms []*arm) *Report {
	r := &Report{
		Schema: 1, Experiment: experiment, Title: title, Cells: measuredCells(arms), Best: map[string]any{},
		Manifest: Manifest{EffectiveFlags: map[string]any{
			"requests": load.Requests, "prompt_tokens": load.PromptTokens, "output_tokens": load.OutputTokens,
			"random_range_ratio": load.RangeRatio, "shared_prefix": load.SharedPrefix, "seed": c.o.Seed, "repeats": c.o.Repeats,
			"request_rate": rateParam(cmp.Or(load.Rate, math.Inf(1))),
		}},
	}
	c.pretendedFlags(r)
	least := c.o.Repeats
	for _, a := range arms {
		if a.memory == nil {
			least = min(least, len(a.runs))
		}
	}
	if least < c.o.Repeats {
		r.Notes = append(r.Notes, fmt.Sprintf("Interrupted: cells have as few as %d of %d repeats.", least, c.o.Repeats))
	}
	if c.o.Repeats == 1 {
		r.Notes = append(r.Notes, "One repeat has no spread, so differences between cells say little.")
	}
	if info := c.e.Info(); info.Device.Backend == "cpu" {
		c.noteOthers(r, float64(info.Device.Threads))
	}
	if text := advice(r.Cells, "", load, c.e.Info()); text != "" {
		r.Notes = append(r.Notes, text)
	}
	for i := range r.Cells {
		if note := r.Cells[i].Note; note != "" && r.Cells[i].Metrics["out_of_memory"].Median > 0 {
			r.Notes = append(r.Notes, settingText(r.Cells[i].Params)+": "+note)
		}
	}
	if len(arms) > 1 && arms[0].limits != arms[len(arms)-1].limits {
		r.noteReconfigure()
	}
	return r
}

// noteReconfigure says what changing the limits between cells cost.
func (r *Report) noteReconfigure() {
	slowest, where := 0.0, ""
	for i := range r.Cells {
		if ms := r.Cells[i].Metrics["reconfigure_ms"].Max; ms > slowest {
			slowest, where = ms, settingText(r.Cells[i].Params)
			if stage, ok := r.Cells[i].Params["stage"]; ok {
				where = fmt.Sprint("stage ", stage)
			}
		}
	}
	if slowest > 0 && len(r.Cells) > 1 {
		r.Notes = append(r.Notes, fmt.Sprintf("Changing the limits between cells took %.3g ms at most (%s); the model stayed loaded.", slowest, where))
	}
}

// pretendedFlags writes the sizes that the experiment chose itself into the effective
// flags, and the number of blocks that the cells had, which the engine's own settings
// no longer know.
func (c *cells) pretendedFlags(r *Report) {
	flags := r.Manifest.EffectiveFlags
	if c.base.MemoryLimit != c.started.MemoryLimit {
		flags["memory_limit"] = c.base.MemoryLimit
	}
	if c.base.NumGPUBlocksOverride != c.started.NumGPUBlocksOverride {
		flags["num_gpu_blocks_override"] = c.base.NumGPUBlocksOverride
	}
	least, most := math.Inf(1), math.Inf(-1)
	for i := range r.Cells {
		if m, ok := r.Cells[i].Metrics["num_gpu_blocks"]; ok {
			least, most = min(least, m.Min), max(most, m.Max)
		}
	}
	switch {
	case least == most:
		flags["num_gpu_blocks"] = int64(least)
	case least < most:
		flags["num_gpu_blocks"] = fmt.Sprintf("%.0f to %.0f", least, most)
	}
}

// noteOthers says when much of the machine was not this process': where other processes had it, figures are low
// and their spread is wide. Where requests come at a rate, cores are idle between them, which says nothing of others.
func (c *cells) noteOthers(r *Report, threads float64) {
	if c.o.Load.Rate > 0 {
		return
	}
	busiest := 0.0
	for i := range r.Cells {
		busiest = max(busiest, r.Cells[i].Metrics["cpu_cores_busy"].Max)
	}
	if busiest > 0 && busiest < 0.75*threads {
		r.Notes = append(r.Notes, fmt.Sprintf("At most %s of %.0f cores were busy with this: the requests left the others idle, or other processes had them. If these did, compare ratios and not figures, and repeat on a quiet machine.", shortValue(busiest), threads))
	}
}

// linesOver plots metrics of the cells over a parameter, with the spread as error
// bars.
func linesOver(cells []Cell, param, name, title, xLabel, yLabel string, metrics ...string) Plot {
	p := Plot{Name: name, Title: title, XLabel: xLabel, YLabel: yLabel}
	low, high := 0.0, 0.0
	for _, metric := range metrics {
		s := Series{Name: displayName(metric)}
		for i := range cells {
			x, ok := asNumber(cells[i].Params[param])
			m, has := cells[i].Metrics[metric]
			if !ok || !has {
				continue
			}
			if low == 0 || x < low {
				low = x
			}
			high = max(high, x)
			s.X, s.Y = append(s.X, x), append(s.Y, m.Median)
			s.Low, s.High = append(s.Low, m.Min), append(s.High, m.Max)
		}
		if len(s.X) > 0 {
			p.Series = append(p.Series, s)
		}
	}
	p.LogX = low > 0 && high/low >= 16
	return p
}

// plotted leaves out pictures in which nothing happens: all their values are zero.
func plotted(plots ...Plot) []Plot {
	return slices.DeleteFunc(plots, func(p Plot) bool {
		return len(p.Grid) == 0 && !slices.ContainsFunc(p.Series, func(s Series) bool {
			return slices.ContainsFunc(s.Y, func(v float64) bool { return v != 0 })
		})
	})
}

// barsOver plots metrics of the cells, a group of bars each.
func barsOver(cells []Cell, label func(*Cell) string, name, title, yLabel string, metrics ...string) Plot {
	p := Plot{Name: name, Title: title, YLabel: yLabel, Categories: []string{}}
	for i := range cells {
		if cells[i].measured() {
			p.Categories = append(p.Categories, label(&cells[i]))
		}
	}
	for _, metric := range metrics {
		s := Series{Name: displayName(metric)}
		for i := range cells {
			if cells[i].measured() {
				m := cells[i].Metrics[metric]
				s.Y, s.Low, s.High = append(s.Y, m.Median), append(s.Low, m.Min), append(s.High, m.Max)
			}
		}
		p.Series = append(p.Series, s)
	}
	return p
}

// plotPoints is the most points of a line over time.
const plotPoints = 200

// overSteps is a value over the steps of a run, in seconds; negative ones are left
// out.
func overSteps(trace []moment, name string, value func(*moment) float64) Series {
	s := Series{Name: name, Style: Line}
	every := max(1, (len(trace)+plotPoints-1)/plotPoints)
	for i := 0; i < len(trace); i += every {
		if v := value(&trace[i]); v >= 0 {
			s.X, s.Y = append(s.X, trace[i].at.Seconds()), append(s.Y, v)
		}
	}
	return s
}
