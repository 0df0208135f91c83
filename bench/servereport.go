package bench

import (
	"fmt"
	"math"
	"slices"
)

// ServeCell is one load of a sweep with the results of its repeats.
type ServeCell struct {
	Load    ServeLoad
	Results []*ServeResult
}

// ServeReport makes the report of a sweep over request rates or concurrencies.
// params are what all cells share.
func ServeReport(cells []ServeCell, params map[string]any, o ServeOptions) *Report {
	r := &Report{
		Schema: 1, Experiment: "serve", Title: "Serving " + o.Model, Best: map[string]any{},
		Columns: []string{"request_throughput", "request_goodput", "output_throughput", "median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_itl_ms", "failed"},
	}
	loads, cut := 0, false
	whole := make([]ServeCell, len(cells))
	for i, c := range cells {
		whole[i] = c.whole()
		loads += min(len(c.Results), 1)
	}
	for i, c := range whole {
		if len(c.Results) == 0 {
			continue // interrupted before it
		}
		cell := Cell{Params: map[string]any{}, Metrics: serveMetrics(c.Results, o)}
		for name, value := range params {
			cell.Params[name] = value
		}
		cell.Params["request_rate"], cell.Params["max_concurrency"] = rateParam(c.Load.RequestRate), concurrencyParam(c.Load.MaxConcurrency)
		r.Cells = append(r.Cells, cell)
		r.Notes = append(r.Notes, c.notes(cell, loads > 1, len(cells[i].Results)-len(c.Results))...)
		cut = cut || cell.Metrics["unfinished"].Max > 0
	}
	if cut {
		r.Columns = append(r.Columns, "unfinished")
	}
	r.judgeServe(o)
	r.Plots = servePlots(r, whole)
	return r
}

// whole is the cell without the repeat that an interruption cut, whose figures would
// pull the others' down; a cell that has no other keeps it.
func (c *ServeCell) whole() ServeCell {
	isCut := func(res *ServeResult) bool { return res.Unfinished > 0 }
	if results := slices.DeleteFunc(slices.Clone(c.Results), isCut); len(results) > 0 {
		return ServeCell{Load: c.Load, Results: results}
	}
	return *c
}

// notes are what to know of the load's results; named says which load it is, leftOut
// how many repeats are not among them because they were cut.
func (c *ServeCell) notes(cell Cell, named bool, leftOut int) []string {
	var notes []string
	if leftOut > 0 {
		notes = append(notes, "Interrupted: the last repeat was cut and is left out.")
	}
	for _, res := range c.Results {
		notes = append(notes, res.Notes()...)
		for _, kind := range res.failureList() {
			notes = append(notes, fmt.Sprintf("Failed: %d × %s (%s).", res.Failures[kind], kind, clip(res.Examples[kind], exampleWidth)))
		}
	}
	slices.Sort(notes)
	notes = slices.Compact(notes)
	for i := range notes {
		if named {
			notes[i] = "At " + paramList(cell.Params, []string{"request_rate", "max_concurrency"}) + ": " + notes[i]
		}
	}
	return notes
}

func rateParam(rate float64) any {
	if math.IsInf(rate, 1) {
		return "inf"
	}
	return rate
}

func concurrencyParam(n int) any {
	if n == 0 {
		return "unbounded"
	}
	return n
}

// serveMetrics are the repeats' metrics by vLLM's names.
func serveMetrics(results []*ServeResult, o ServeOptions) map[string]Metric {
	metrics := map[string]Metric{}
	put := func(name, unit string, of func(*ServeResult) float64) {
		runs := make([]float64, len(results))
		for i, res := range results {
			runs[i] = of(res)
		}
		metrics[name] = NewMetric(unit, runs)
	}
	put("completed", "", func(s *ServeResult) float64 { return float64(s.Completed) })
	put("failed", "", func(s *ServeResult) float64 { return float64(s.Failed) })
	put("unfinished", "", func(s *ServeResult) float64 { return float64(s.Unfinished) })
	put("duration", "s", func(s *ServeResult) float64 { return s.Duration.Seconds() })
	put("total_input_tokens", "", func(s *ServeResult) float64 { return float64(s.InputTokens) })
	put("total_output_tokens", "", func(s *ServeResult) float64 { return float64(s.OutputTokens) })
	put("request_throughput", "requests/s", func(s *ServeResult) float64 { return s.RequestThroughput })
	put("output_throughput", "tokens/s", func(s *ServeResult) float64 { return s.OutputThroughput })
	put("total_token_throughput", "tokens/s", func(s *ServeResult) float64 { return s.TotalThroughput })
	put("max_output_tokens_per_s", "tokens/s", func(s *ServeResult) float64 { return s.PeakOutputThroughput })
	put("max_concurrent_requests", "", func(s *ServeResult) float64 { return float64(s.PeakConcurrency) })
	put("client_send_lag_p99_ms", "ms", func(s *ServeResult) float64 { return s.SendLag.P99 })
	put("client_wake_lag_p99_ms", "ms", func(s *ServeResult) float64 { return s.WakeLag.P99 })
	put("prefix_hit_rate", "share", func(s *ServeResult) float64 { return share(s.CachedTokens, s.InputTokens) })
	if len(o.Goodput) > 0 {
		put("request_goodput", "requests/s", func(s *ServeResult) float64 { return s.RequestGoodput })
	}
	for _, key := range []string{"ttft", "tpot", "itl", "e2el"} {
		of := func(f func(Distribution) float64) func(*ServeResult) float64 {
			return func(s *ServeResult) float64 {
				if len(s.Latencies[key]) == 0 {
					return math.NaN()
				}
				return f(s.describe(key))
			}
		}
		put("mean_"+key+"_ms", "ms", of(func(d Distribution) float64 { return d.Mean }))
		put("median_"+key+"_ms", "ms", of(func(d Distribution) float64 { return d.Median }))
		put("std_"+key+"_ms", "ms", of(func(d Distribution) float64 { return d.StdDev }))
		for _, p := range slices.Compact(slices.Sorted(slices.Values(append([]float64{90, 99}, o.Percentiles...)))) {
			put("p"+percentileWord(p)+"_"+key+"_ms", "ms", func(s *ServeResult) float64 {
				if len(s.Latencies[key]) == 0 {
					return math.NaN()
				}
				return s.percentile(key, p)
			})
		}
	}
	for name, m := range metrics {
		if !finite(m.Median) {
			delete(metrics, name)
		}
	}
	return metrics
}

// judgeServe finds the best load: most goodput where limits were given, else most
// output, and says what it is.
func (r *Report) judgeServe(o ServeOptions) {
	by := "output_throughput"
	if len(o.Goodput) > 0 {
		by = "request_goodput"
	}
	best := -1
	for i, cell := range r.Cells {
		if best < 0 || cell.Metrics[by].Median > r.Cells[best].Metrics[by].Median {
			best = i
		}
	}
	if best < 0 {
		r.Verdict = "Nothing was measured before the interruption."
		return
	}
	m := r.Cells[best].Metrics
	if m["completed"].Median == 0 {
		r.Verdict = "No request succeeded: see the failures below."
		return
	}
	text := fmt.Sprintf("%s output tok/s at %s requests/s; TTFT p50 %s ms, p99 %s ms; TPOT p50 %s ms; ITL p99 %s ms.",
		m["output_throughput"].median(), m["request_throughput"].median(), latencyText(m, "median_ttft_ms"), latencyText(m, "p99_ttft_ms"),
		latencyText(m, "median_tpot_ms"), latencyText(m, "p99_itl_ms"))
	if len(o.Goodput) > 0 {
		text += fmt.Sprintf(" Goodput %s of %s requests/s kept the limits.", m["request_goodput"].median(), m["request_throughput"].median())
	}
	if varied, _ := r.params(); len(varied) > 0 {
		for _, name := range varied {
			r.Best[name] = r.Cells[best].Params[name]
		}
		text = fmt.Sprintf("Most at %s: ", paramList(r.Best, varied)) + text
		if r.highest(best, varied) {
			text += " It was the highest load tried: there may be more beyond it."
		}
	}
	r.Verdict = text
}

// highest says whether no load is above that of the cell, nor without a bound.
func (r *Report) highest(cell int, varied []string) bool {
	for _, name := range varied {
		own, ok := asNumber(r.Cells[cell].Params[name])
		for i := range r.Cells {
			other, finite := asNumber(r.Cells[i].Params[name])
			if !ok || !finite || other > own {
				return false
			}
		}
	}
	return true
}

func latencyText(metrics map[string]Metric, name string) string {
	if m, ok := metrics[name]; ok {
		return m.median()
	}
	return "–"
}

// servePlots are the curves of a sweep, or the distributions of a single load.
func servePlots(r *Report, cells []ServeCell) []Plot {
	switch varied, _ := r.params(); len(varied) {
	case 0:
	case 1:
		return sweepPlots(r, varied[0])
	default:
		return gridPlots(r)
	}
	var plots []Plot
	for _, n := range latencyNames[:3] {
		p := Plot{
			Name: n.Key, Title: n.Long, XLabel: "ms", YLabel: "share of the values at or below, %",
			Caption: "How the values are distributed: a steep line is an even service, a long tail at the top a few slow ones.",
		}
		for _, c := range cells {
			for i, res := range c.Results {
				if values := res.Latencies[n.Key]; len(values) > 1 {
					s := cumulative(values)
					if len(c.Results) > 1 {
						s.Name = fmt.Sprintf("run %d", i+1)
					}
					p.Series = append(p.Series, s)
				}
			}
		}
		// A tail that is far away would leave no room for the rest.
		for _, s := range p.Series {
			p.LogX = p.LogX || s.X[len(s.X)-1] > 20*s.X[len(s.X)/2]
		}
		if len(p.Series) > 0 {
			plots = append(plots, p)
		}
	}
	return plots
}

// cumulative is the distribution of sorted values, thinned to a line of 200 points.
func cumulative(sorted []float64) Series {
	s := Series{Style: Line}
	const points = 200
	for i := range points + 1 {
		p := 100 * float64(i) / points
		s.X, s.Y = append(s.X, Percentile(sorted, p)), append(s.Y, p)
	}
	return s
}

// sweepPlots show throughput and latency over the parameter of the load that varied.
func sweepPlots(r *Report, axis string) []Plot {
	var plots []Plot
	for _, picture := range []struct {
		name, title, y string
		metrics        []string
	}{
		{"throughput", "Throughput by load", "output tokens/s", []string{"output_throughput"}},
		{"ttft", "Time to first token by load", "ms", []string{"median_ttft_ms", "p99_ttft_ms"}},
		{"itl", "Latency between tokens by load", "ms", []string{"median_tpot_ms", "p99_itl_ms"}},
	} {
		p := Plot{Name: picture.name, Title: picture.title, XLabel: flagName(axis), YLabel: picture.y, LogX: axis == "max_concurrency"}
		for _, metric := range picture.metrics {
			p.Series = append(p.Series, sweepLine(r.Cells, axis, metric, displayName(metric)))
		}
		plots = append(plots, p)
	}
	return plots
}

// gridPlots are the pictures of a sweep over both rate and concurrency: a line a rate, as
// inf is one that an axis has no place for.
func gridPlots(r *Report) []Plot {
	const axis, other = "max_concurrency", "request_rate"
	byRate := map[string][]Cell{}
	var rates []string
	for _, cell := range r.Cells {
		name := flagName(other) + " " + paramText(cell.Params[other])
		if _, known := byRate[name]; !known {
			rates = append(rates, name)
		}
		byRate[name] = append(byRate[name], cell)
	}
	var plots []Plot
	for _, picture := range []struct{ name, title, y, metric string }{
		{"throughput", "Throughput by load", "output tokens/s", "output_throughput"},
		{"ttft", "Time to first token by load, median", "ms", "median_ttft_ms"},
		{"ttft-p99", "Time to first token by load, 99th percentile", "ms", "p99_ttft_ms"},
		{"itl", "Time per output token by load, median", "ms", "median_tpot_ms"},
		{"itl-p99", "Latency between tokens by load, 99th percentile", "ms", "p99_itl_ms"},
	} {
		p := Plot{Name: picture.name, Title: picture.title, XLabel: flagName(axis), YLabel: picture.y, LogX: true}
		for _, rate := range rates {
			p.Series = append(p.Series, sweepLine(byRate[rate], axis, picture.metric, rate))
		}
		plots = append(plots, p)
	}
	return plots
}

// sweepLine is a metric over the ascending values of a parameter.
func sweepLine(cells []Cell, axis, metric, name string) Series {
	s := Series{Name: name}
	cells = slices.Clone(cells)
	slices.SortStableFunc(cells, func(a, b Cell) int { return compareParam(a.Params[axis], b.Params[axis]) })
	for _, cell := range cells {
		x, ok := asNumber(cell.Params[axis])
		m, measured := cell.Metrics[metric]
		if ok && measured {
			s.X, s.Y, s.Low, s.High = append(s.X, x), append(s.Y, m.Median), append(s.Low, m.Min), append(s.High, m.Max)
		}
	}
	return s
}
