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

// wanted says what is wanted of the row, and whether its median is that. No words: nothing is.
func (r *peerRow) wanted() (text string, met bool) {
	if r.figure == nil || len(r.runs) == 0 {
		return "", true
	}
	var words []string
	f, met := r.figure, true
	if f.Times > 0 {
		words = append(words, fmt.Sprintf("≥ %.3g×", f.Times))
		met = met && r.against(f.Value).Median >= f.Times
	}
	if f.Share > 0 {
		words = append(words, fmt.Sprintf("≥ %.0f %%", 100*f.Share))
		met = met && r.against(r.floor).Median >= f.Share
	}
	if f.Most > 0 {
		words = append(words, fmt.Sprintf("≤ %s", shortValue(f.Most)))
		met = met && r.value().Median <= f.Most
	}
	return strings.Join(words, ", "), met
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
		if steps := p.stepTable(model, own); len(steps.Rows) > 0 {
			r.Tables = append(r.Tables, steps)
		}
	}
	r.Tables = append(r.Tables, Table{Title: fmt.Sprintf("time taken: %.0f s", took.Seconds()), Header: []string{"model", "", "s"}, Text: 2, Rows: p.walls})
	r.Verdict = p.verdict()
	r.Notes = append(r.Notes, p.figures.Peer+": "+p.figures.How+".")
	if p.device != "" && !strings.Contains(p.device, p.figures.Card) {
		r.Notes = append(r.Notes, fmt.Sprintf("Its figures are of one %s; this is another device (%s): the ratio compares cards as well.", p.figures.Card, p.device))
	}
	if p.o.Shrink > 1 {
		r.Notes = append(r.Notes, fmt.Sprintf("Tokens and requests are a %dth of the protocol's (--shrink), so nothing stands beside the peer's figures.", p.o.Shrink))
	}
	if p.o.Repeats == 1 {
		r.Notes = append(r.Notes, "One repeat has no spread.")
	}
	return r
}

// table puts a model's rows beside the peer's.
func (p *peers) table(model string, rows []*peerRow) Table {
	name, _, _ := strings.Cut(p.figures.Peer, " ")
	t := Table{Title: model, Header: []string{"", "Pagoda", name, "times as fast", "floor", "of the floor", "wanted", ""}, Text: 1}
	for _, row := range rows {
		if row.skipped != "" {
			t.Rows = append(t.Rows, []string{row.what + ": " + row.skipped, "", "", "", "", "", "", ""})
			continue
		}
		line := []string{row.what, row.value().withSpread(), "–", "–", "–", "–", "", ""}
		if f := row.figure; f != nil && f.Value > 0 {
			line[2], line[3] = shortValue(f.Value), fmt.Sprintf("%.2f×", row.against(f.Value).Median)
			if f.Text != "" {
				line[2] = f.Text
			}
		}
		if row.floor > 0 {
			line[4], line[5] = shortValue(row.floor), formatAs("share", row.against(row.floor).Median)
		}
		if text, met := row.wanted(); text != "" {
			line[6], line[7] = text, map[bool]string{true: "met", false: "missed"}[met]
		}
		t.Rows = append(t.Rows, line)
	}
	return t
}

// stepTable has what the engine counted beside the decode steps.
func (p *peers) stepTable(model string, rows []*peerRow) Table {
	w := &p.figures.Wanted
	t := Table{
		Title:  fmt.Sprintf("%s, decode steps (wanted: host ≤ %.0f µs, GPU idle ≤ %.0f %%)", model, w.HostUs, 100*w.GPUIdle),
		Header: []string{"batch", "tok/s", "host µs a step", "idle between steps", "steps timed"},
	}
	for _, row := range rows {
		if row.part.name != "decode" || len(row.runs) == 0 {
			continue
		}
		line := []string{fmt.Sprint(row.at)}
		for _, m := range []Metric{row.metric("output_throughput", ""), row.metric("host_us", ""), row.metric("gpu_idle", "share"), row.metric("steps", "")} {
			line = append(line, m.withSpread())
		}
		t.Rows = append(t.Rows, line)
	}
	return t
}

// verdict counts what is as it is wanted to be, and names what is not.
func (p *peers) verdict() string {
	asked := 0
	var missed []string
	for _, row := range p.rows {
		text, met := row.wanted()
		if text == "" {
			continue
		}
		if asked++; !met {
			missed = append(missed, row.model+" "+row.what)
		}
	}
	switch {
	case asked == 0:
		return "Nothing is wanted of these rows: there are no figures to stand beside."
	case len(missed) == 0:
		return fmt.Sprintf("All %d figures of which something is wanted are as wanted.", asked)
	}
	return fmt.Sprintf("%d of %d figures of which something is wanted are as wanted. Not: %s.", asked-len(missed), asked, strings.Join(missed, "; "))
}
