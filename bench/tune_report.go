package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/pagoda-engine/pagoda/engine"
)

// finish makes the report of what was measured; err is why it ended early.
func (t *tuner) finish(err error) *Report {
	r := t.report("tune", "tune: "+t.objectiveName(), t.o.Load, nil)
	r.Notes = nil
	r.Cells = t.results
	t.pretendedFlags(r)
	r.setLimits(t.start) // the engine's own are the largest that were tried
	r.Tables, r.Notes = t.tables, t.notes
	r.Best = tunedParams(t.best)
	r.Columns = []string{t.objective, "output_throughput", "median_tpot_ms", "p99_itl_ms", "p99_ttft_ms", "num_gpu_blocks", "num_preemptions"}
	if t.objective == "output_throughput" {
		r.Columns = r.Columns[1:]
	}
	r.hideCells = true // a table of each stage says it in fewer columns
	r.Tables = append(t.endTables("baseline"), append(r.Tables, t.endTables("verify")...)...)
	r.Verdict = t.verdict(err)
	if len(r.Cells) > 0 {
		if text := advice(r.Cells[:1], "the parameters at the start", t.o.Load, t.e.Info()); text != "" {
			r.Notes = append(r.Notes, text)
		}
	}
	r.noteReconfigure()
	if device := t.e.Info().Device; device.Backend == "cpu" {
		t.noteOthers(r, float64(device.Threads))
	}
	r.Plots = []Plot{t.pareto()}
	if p := t.stages(); len(p.Categories) > 0 {
		r.Plots = append(r.Plots, p)
	}
	return r
}

// verdict says whether the outcome beats the start, and if not, why.
func (t *tuner) verdict(err error) string {
	var b strings.Builder
	if errors.Is(err, context.Canceled) {
		b.WriteString("Interrupted: what follows is the best so far; --resume goes on from here. ")
	}
	var changed []string
	from, to := tunedParams(t.start), tunedParams(t.best)
	if t.found != (engine.Limits{}) {
		to = tunedParams(t.found)
	}
	for _, name := range tunedKeys {
		if paramText(from[name]) != paramText(to[name]) {
			changed = append(changed, fmt.Sprintf("%s %s instead of %s", name, paramText(to[name]), paramText(from[name])))
		}
	}
	if len(changed) == 0 && err != nil {
		b.WriteString("Nothing that was measured so far beats the start.")
		return b.String()
	}
	if len(changed) == 0 {
		b.WriteString("There is no measurable improvement: nothing that was measured beats the start. " + t.whyNot())
		return strings.TrimSpace(b.String())
	}
	fmt.Fprintf(&b, "Found: %s. ", strings.Join(changed, ", "))
	n := len(t.results)
	if n < 2 || t.results[n-1].Params["stage"] != "verify" || !t.results[n-1].measured() || !t.results[n-2].measured() {
		b.WriteString("It was not verified yet.")
		return b.String()
	}
	start, best := t.results[n-2].Metrics[t.objective], t.results[n-1].Metrics[t.objective]
	figures := fmt.Sprintf("%s tok/s (%s–%s) against %s (%s–%s)", shortValue(best.Median), shortValue(best.Min), shortValue(best.Max),
		shortValue(start.Median), shortValue(start.Min), shortValue(start.Max))
	if start.Median > 0 {
		figures += fmt.Sprintf(", %.2f×", best.Median/start.Median) + byRepeat(start, best)
	}
	switch {
	case below(start, best):
		fmt.Fprintf(&b, "Verified, interleaved with the start: %s %s: an improvement beyond the spread.", t.objectiveName(), figures)
	case below(best, start):
		fmt.Fprintf(&b, "Interleaved with the start it is worse: %s. The parameters stay as they were.", figures)
	default:
		fmt.Fprintf(&b, "There is no measurable improvement: %s, which is within the spread, so the parameters stay as they were. %s", figures, t.whyNot())
	}
	return b.String()
}

// stageTable shows a stage: what was expected of each candidate and what was
// measured.
func (t *tuner) stageTable(stage string, fitted learned, all []*candidate, arms []*arm, winner *arm, value func(engine.Limits) string) Table {
	table := Table{
		Title:  fmt.Sprintf("%s (expected: by the simulator, step times fitted to %d steps, off by %.0f %% on average)", stage, fitted.Steps, 100*fitted.Error),
		Header: []string{"setting", "", "KV blocks", "expected tok/s", "measured tok/s", "TPOT p50 ms", "ITL p99 ms", "TTFT p99 ms", "preemptions"}, Text: 2,
	}
	if t.objective != "output_throughput" {
		table.Header[4] = "goodput tok/s"
	}
	for _, c := range all {
		fate, row := c.fate, []string{"–", "–", "–", "–", "–"}
		if c.fate == "" {
			fate = "not measured"
		}
		for _, a := range arms {
			cell := a.cell()
			switch {
			case a.limits != c.limits:
			case a.memory != nil:
				fate = "out of memory"
			case len(a.runs) > 0:
				if fate = "◀ chosen"; a != winner {
					fate = strings.TrimSuffix(fmt.Sprintf("%d runs", len(a.runs)), map[bool]string{true: "s"}[len(a.runs) == 1])
				}
				row = nil
				for _, name := range []string{t.objective, "median_tpot_ms", "p99_itl_ms", "p99_ttft_ms", "num_preemptions"} {
					m := cell.Metrics[name]
					row = append(row, strings.TrimSpace(m.median()+" "+m.spread()))
				}
			}
		}
		expected := "–"
		if c.predicted.Finished > 0 {
			expected = shortValue(c.predicted.OutputThroughput)
		}
		table.Rows = append(table.Rows, append([]string{value(c.limits), fate, shortValue(float64(c.blocks)), expected}, row...))
	}
	return table
}

// endTables shows the cells of the baseline or of the verification.
func (t *tuner) endTables(stage string) []Table {
	table := Table{Title: stage, Header: []string{"setting", t.objectiveName() + " tok/s", "TPOT p50 ms", "ITL p99 ms", "TTFT p99 ms", "KV blocks", "preemptions"}, Text: 1}
	for i := range t.results {
		c := &t.results[i]
		if c.Params["stage"] != stage {
			continue
		}
		name := "start"
		if len(table.Rows) > 0 {
			name = "found"
		}
		row := []string{name}
		for _, metric := range []string{t.objective, "median_tpot_ms", "p99_itl_ms", "p99_ttft_ms", "num_gpu_blocks", "num_preemptions"} {
			m := c.Metrics[metric]
			row = append(row, strings.TrimSpace(m.median()+" "+m.spread()))
		}
		table.Rows = append(table.Rows, row)
	}
	if len(table.Rows) == 0 {
		return nil
	}
	return []Table{table}
}

// whyNot says why nothing better was found, from the first cell.
func (t *tuner) whyNot() string {
	if len(t.results) == 0 || !t.results[0].measured() {
		return ""
	}
	c := &t.results[0]
	var b strings.Builder
	m := c.Metrics[t.objective]
	if m.Median > 0 && m.half() > 0.15*m.Median {
		fmt.Fprintf(&b, "The start's own runs, each with requests of its own, differ by %.0f %%: a quiet machine would show smaller differences. ", 100*m.half()/m.Median)
	}
	short := c.medianOf("num_preemptions") > 0 || c.medianOf("waiting_for_blocks") >= 0.05 || c.medianOf("waiting_for_seqs") >= 0.05
	// Answers that come too late to count are no want of requests.
	inTime := c.medianOf(t.objective) >= 0.95*c.medianOf("output_throughput")
	switch {
	case !short && t.o.Load.Rate > 0 && inTime:
		fmt.Fprintf(&b, "What limits the start is demand: requests come at --request-rate %s and none waits for blocks or for a place, so no setting can serve them faster than they come (%s); a higher rate shows what the device can do.", paramText(t.o.Load.Rate), t.busyText(c))
	case !short:
		fmt.Fprintf(&b, "At the start nothing is short: no request waits for blocks or for a place, so memory and concurrency have nothing to give to these requests (%s).", t.busyText(c))
		if t.o.Load.Rate == 0 && t.o.Load.Requests <= t.start.MaxNumSeqs {
			fmt.Fprintf(&b, " They are %d, no more than max_num_seqs: --requests %d would show what concurrency gives.", t.o.Load.Requests, 4*t.start.MaxNumSeqs)
		}
	case c.medianOf("waiting_for_blocks") >= 0.05:
		fmt.Fprintf(&b, "At the start requests wait for blocks %.0f %% of the time, yet no larger pool that was measured serves them faster beyond the spread: most likely the device is bound by compute.", 100*c.medianOf("waiting_for_blocks"))
	default:
		fmt.Fprintf(&b, "At the start requests wait for a place %.0f %% of the time, yet with more at once none is faster beyond the spread: most likely the device is bound by compute.", 100*c.medianOf("waiting_for_seqs"))
	}
	return b.String()
}

// busyText says how busy the device was in a cell.
func (t *tuner) busyText(c *Cell) string {
	if t.e.Info().Device.Backend == "cpu" {
		return fmt.Sprintf("%s of %d cores busy", shortValue(c.medianOf("cpu_cores_busy")), t.e.Info().Device.Threads)
	}
	return fmt.Sprintf("GPU busy %.0f %%", 100*c.medianOf("gpu_utilization"))
}

// pareto plots speed for one user against throughput, and the cells that no other
// beats in both.
func (t *tuner) pareto() Plot {
	p := Plot{
		Name: "pareto", Title: "Throughput against speed for one user", XLabel: "tokens/s of one user (1 ÷ median TPOT)", YLabel: "output tokens/s",
		Caption: "Each point is a cell.",
	}
	type point struct{ x, y float64 }
	var all []point
	byStage := map[string]int{}
	for i := range t.results {
		c := &t.results[i]
		tpot := c.medianOf("median_tpot_ms")
		if !c.measured() || tpot <= 0 {
			continue
		}
		stage := fmt.Sprint(c.Params["stage"])
		at, ok := byStage[stage]
		if !ok {
			at = len(p.Series)
			byStage[stage] = at
			p.Series = append(p.Series, Series{Name: stage, Style: Points})
		}
		s := &p.Series[at]
		s.X, s.Y = append(s.X, 1000/tpot), append(s.Y, c.medianOf("output_throughput"))
		all = append(all, point{1000 / tpot, c.medianOf("output_throughput")})
	}
	slices.SortFunc(all, func(a, b point) int { return -compareParam(a.x, b.x) })
	front, top := Series{Name: "best of both", Style: Line}, math.Inf(-1)
	for _, q := range all {
		if q.y > top {
			top = q.y
			front.X, front.Y = append(front.X, q.x), append(front.Y, q.y)
		}
	}
	slices.Reverse(front.X)
	slices.Reverse(front.Y)
	if len(front.X) > 1 {
		p.Caption += " On the line are those that no other beats in both."
		p.Series = append(p.Series, front)
	}
	return p
}

// stages plots the objective of start and outcome as they were verified.
func (t *tuner) stages() Plot {
	var cells []Cell
	for _, c := range t.results {
		if c.Params["stage"] == "verify" && c.measured() {
			cells = append(cells, c)
		}
	}
	first := true
	return barsOver(cells, func(*Cell) string {
		if first {
			first = false
			return "start"
		}
		return "best"
	}, "verify", "The start and the best, interleaved", "output tokens/s", t.objective)
}
