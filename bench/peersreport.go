package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// value is the row's metric over the repeats.
func (r *peerRow) value() Metric { return r.metric(r.part.metric, r.part.unit) }

func (r *peerRow) metric(name, unit string) Metric {
	var runs []float64
	for _, run := range r.runs {
		if v, ok := run[name]; ok {
			runs = append(runs, v)
		}
	}
	return NewMetric(unit, runs)
}

// against is how many times as fast as other each repeat was.
func (r *peerRow) against(other float64) Metric {
	runs := slices.Clone(r.value().Runs)
	for i, v := range runs {
		if runs[i] = v / other; !r.part.higher {
			runs[i] = other / v
		}
	}
	return NewMetric("", runs)
}

// ask is one thing that is wanted of a row.
type ask struct {
	text string
	met  bool
}

// asks are what is wanted of the row's medians.
func (r *peerRow) asks() []ask {
	f := r.figure
	if f == nil || len(r.runs) == 0 {
		return nil
	}
	var asks []ask
	if f.Times > 0 {
		asks = append(asks, ask{fmt.Sprintf("≥ %.3g×", f.Times), r.against(f.Value).Median >= f.Times})
	}
	if f.Share > 0 && r.floor > 0 {
		asks = append(asks, ask{fmt.Sprintf("≥ %.0f %%", 100*f.Share), r.against(r.floor).Median >= f.Share})
	}
	if f.Most > 0 {
		asks = append(asks, ask{"≤ " + shortValue(f.Most), r.value().Median <= f.Most})
	}
	if f.Least > 0 {
		asks = append(asks, ask{"≥ " + shortValue(f.Least), r.value().Median >= f.Least})
	}
	return asks
}

// beside is what is wanted of what was counted beside the row's value.
func (p *peers) beside(r *peerRow) []ask {
	if r.figure == nil || len(r.runs) == 0 {
		return nil
	}
	var asks []ask
	w := &p.figures.Wanted
	for _, most := range []struct {
		metric, text string
		value        float64
	}{
		{"host_us", fmt.Sprintf("host ≤ %s µs", shortValue(w.HostUs)), w.HostUs},
		{"gpu_idle", fmt.Sprintf("idle ≤ %.0f %%", 100*w.GPUIdle), w.GPUIdle},
		{"slowed_out", fmt.Sprintf("slowed ≤ %.0f %% out", 100*w.SwapSlowdown), w.SwapSlowdown},
		{"slowed_in", fmt.Sprintf("≤ %.0f %% in", 100*w.SwapSlowdown), w.SwapSlowdown},
	} {
		if m := r.metric(most.metric, ""); len(m.Runs) > 0 {
			asks = append(asks, ask{most.text, m.Median <= most.value})
		}
	}
	return asks
}

// cell is the row in report.json.
func (r *peerRow) cell() Cell {
	c := Cell{Params: map[string]any{"model": r.model, "row": r.part.name, "at": r.at}, Metrics: map[string]Metric{}, Note: r.skipped}
	if len(r.runs) == 0 {
		return c
	}
	for name := range r.runs[0] {
		c.Metrics[name] = r.metric(name, unitOf(name))
	}
	c.Metrics[r.part.metric] = r.value()
	if r.figure != nil && r.figure.Value > 0 {
		c.Metrics["peer"] = NewMetric(r.part.unit, []float64{r.figure.Value})
		c.Metrics["times_as_fast"] = r.against(r.figure.Value)
	}
	if r.floor > 0 {
		c.Metrics["floor"] = NewMetric(r.part.unit, []float64{r.floor})
		c.Metrics["share_of_floor"] = r.against(r.floor)
	}
	return c
}

// withSpread is a metric as tables show it.
func (m Metric) withSpread() string {
	if len(m.Runs) == 0 {
		return "–"
	}
	return strings.TrimSpace(m.median() + " " + m.spread())
}

// beyondFloor explains shares above one.
const beyondFloor = "More than 100 %: the weights come out of a cache, not out of memory."

// report makes the report of what was measured.
func (p *peers) report(took time.Duration) *Report {
	r := &Report{
		Schema: 1, Experiment: "peers", Title: "Pagoda beside " + p.figures.Peer, Best: map[string]any{}, Notes: p.notes, hideCells: true,
		Manifest: Manifest{EffectiveFlags: map[string]any{"repeats": p.o.Repeats, "shrink": p.o.Shrink, "batch_sizes": p.o.Batches}},
	}
	var models []string
	for _, row := range p.rows {
		if len(row.runs) > 0 || row.skipped != "" {
			r.Cells = append(r.Cells, row.cell())
		}
		if !slices.Contains(models, row.model) {
			models = append(models, row.model)
		}
	}
	for _, model := range models {
		own := slices.DeleteFunc(slices.Clone(p.rows), func(row *peerRow) bool {
			return row.model != model || len(row.runs) == 0 && row.skipped == ""
		})
		r.Tables = append(r.Tables, p.table(model, own))
		for _, beside := range []Table{p.stepTable(model, own), p.swapTable(model, own)} {
			if len(beside.Rows) > 0 {
				r.Tables = append(r.Tables, beside)
			}
		}
	}
	r.Tables = append(r.Tables, Table{Title: fmt.Sprintf("time taken: %.0f s", took.Seconds()), Header: []string{"model", "", "s"}, Text: 2, Rows: p.walls})
	r.Verdict = p.verdict()
	r.Plots = plotted(p.plot(models))
	r.Notes = append(r.Notes, p.figures.Peer+": "+p.figures.How+".")
	if p.device != "" && p.device != p.figures.Card && p.o.Shrink <= 1 {
		r.Notes = append(r.Notes, fmt.Sprintf("Its figures are of one %s; this is another device (%s): the ratio compares cards as well.", p.figures.Card, p.device))
	}
	if p.o.Shrink > 1 {
		r.Notes = append(r.Notes, fmt.Sprintf("Tokens and requests are a %dth of the protocol's (--shrink), so nothing stands beside the peer's figures.", p.o.Shrink))
	}
	if slices.ContainsFunc(p.rows, func(row *peerRow) bool {
		return row.part.name == "decode" && row.floor > 0 && len(row.runs) > 0 && row.against(row.floor).Median > 1
	}) {
		r.Notes = append(r.Notes, beyondFloor)
	}
	if p.o.Repeats == 1 {
		r.Notes = append(r.Notes, "One repeat has no spread.")
	}
	return r
}

// table puts a model's rows beside the peer's.
func (p *peers) table(model string, rows []*peerRow) Table {
	name, _, _ := strings.Cut(p.figures.Peer, " ")
	t := Table{Title: model, Header: []string{"", "Pagoda", name, "times as fast", "floor", "of the floor", "wanted"}, Text: 1}
	for _, row := range rows {
		if row.skipped != "" {
			t.Rows = append(t.Rows, []string{row.what + ": " + row.skipped, "", "", "", "", "", ""})
			continue
		}
		line := []string{row.what, row.value().withSpread(), "–", "–", "–", "–", inWords(row.asks())}
		if f := row.figure; f != nil && f.Value > 0 {
			line[2], line[3] = shortValue(f.Value), fmt.Sprintf("%.2f×", row.against(f.Value).Median)
			if f.Text != "" {
				line[2] = f.Text
			}
		}
		if row.floor > 0 {
			line[4], line[5] = shortValue(row.floor), formatAs("share", row.against(row.floor).Median)
		}
		t.Rows = append(t.Rows, line)
	}
	return t
}

// inWords lists what is wanted, and whether all of it is met.
func inWords(asks []ask) string {
	if len(asks) == 0 {
		return ""
	}
	var words []string
	outcome := "met"
	for _, a := range asks {
		words = append(words, a.text)
		if !a.met {
			outcome = "missed"
		}
	}
	return strings.Join(words, ", ") + ": " + outcome
}

// stepTable has what the engine counted beside the decode steps.
func (p *peers) stepTable(model string, rows []*peerRow) Table {
	return p.besideTable(model+", decode steps", rows, "decode", []string{"batch", "tok/s", "host µs a step", "idle between steps", "steps timed", "five cold kernels a layer, ms"},
		map[string]string{"gpu_idle": "share"}, "output_throughput", "host_us", "gpu_idle", "steps", "cold_kernels_ms")
}

// swapTable has the rates of the copies each way, and what they cost decode.
func (p *peers) swapTable(model string, rows []*peerRow) Table {
	return p.besideTable(model+", swap", rows, "swap", []string{"batch", "out GB/s", "in GB/s", "decode ms", "slowed by copies out", "by copies in", "steps beside out", "beside in"},
		map[string]string{"slowed_out": "share", "slowed_in": "share"}, "swap_out_gb_per_second", "swap_in_gb_per_second", "decode_ms", "slowed_out", "slowed_in", "steps_out", "steps_in")
}

// besideTable shows metrics of a part's rows; units are those that are not plain
// numbers.
func (p *peers) besideTable(title string, rows []*peerRow, part string, header []string, units map[string]string, metrics ...string) Table {
	t := Table{Title: title, Header: append(header, "wanted")}
	for _, row := range rows {
		if row.part.name != part || len(row.runs) == 0 {
			continue
		}
		line := []string{fmt.Sprint(row.at)}
		for _, name := range metrics {
			line = append(line, row.metric(name, units[name]).withSpread())
		}
		t.Rows = append(t.Rows, append(line, inWords(p.beside(row))))
	}
	return t
}

// verdict counts, a line a model, what is as it is wanted to be, and names what is not.
func (p *peers) verdict() string {
	var lines, models []string
	asked, missed := map[string]int{}, map[string][]string{}
	for _, row := range p.rows {
		for _, a := range append(row.asks(), p.beside(row)...) {
			if asked[row.model]++; asked[row.model] == 1 {
				models = append(models, row.model)
			}
			if !a.met {
				missed[row.model] = append(missed[row.model], fmt.Sprintf("%s %d (%s)", row.part.name, row.at, a.text))
			}
		}
	}
	for _, model := range models {
		line := fmt.Sprintf("%s: %d of %d figures are as wanted.", model, asked[model]-len(missed[model]), asked[model])
		if len(missed[model]) > 0 {
			line += " Not: " + strings.Join(missed[model], ", ") + "."
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return "Nothing is wanted of these rows: there are no figures to stand beside."
	}
	return strings.Join(lines, "\n")
}

// plot draws the decode steps' shares of the floor, the peer's as a broken line.
func (p *peers) plot(models []string) Plot {
	out := Plot{
		Name: "decode", Title: "Decode: share of the floor", XLabel: "batch", YLabel: "% of the floor", LogX: true,
		Caption: "A broken line is " + p.figures.Peer + ".",
	}
	for _, model := range models {
		own, other := Series{Name: model}, Series{Name: model + ", " + p.figures.Peer, Style: Dashed}
		for _, row := range p.rows {
			if row.model != model || row.part.name != "decode" || len(row.runs) == 0 || row.floor == 0 {
				continue
			}
			share := row.against(row.floor / 100)
			own.X, own.Y = append(own.X, float64(row.at)), append(own.Y, share.Median)
			own.Low, own.High = append(own.Low, share.Min), append(own.High, share.Max)
			if row.figure != nil && row.figure.Value > 0 {
				other.X, other.Y = append(other.X, float64(row.at)), append(other.Y, 100*row.floor/row.figure.Value)
			}
		}
		for _, s := range []Series{own, other} {
			if len(s.X) > 1 {
				out.Series = append(out.Series, s)
			}
		}
	}
	return out
}
