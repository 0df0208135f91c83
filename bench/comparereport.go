package bench

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// pictured are the metrics that a comparison has a picture of.
var pictured = []string{"output_throughput", "median_ttft_ms", "median_tpot_ms", "p99_itl_ms"}

// report lays the comparison out.
func (c *comparison) report() *Report {
	r := &Report{
		Schema: 1, Experiment: "compare", Title: c.a.heading() + " against " + c.b.heading(), hideCells: true,
		Manifest: Manifest{Commit: c.a.Manifest.Commit, Date: time.Now().UTC().Format(time.RFC3339), Machine: c.a.Manifest.Machine, EffectiveFlags: map[string]any{}},
		Verdict:  c.verdict(),
	}
	for _, p := range c.pairs {
		cell := Cell{Params: map[string]any{}, Metrics: map[string]Metric{}}
		for _, name := range c.names {
			cell.Params[name] = p.a.Params[name]
		}
		for _, ch := range p.changes {
			if finite(ch.ratio) {
				low, high := ch.low, ch.high
				if !finite(low) {
					low, high = ch.ratio, ch.ratio
				}
				cell.Metrics[ch.metric+"_ratio"] = Metric{Unit: "×", Median: ch.ratio, Min: low, Max: high}
			}
		}
		r.Cells = append(r.Cells, cell)
		r.Tables = append(r.Tables, p.table(true, c.unlike == ""))
	}
	for _, p := range c.pairs {
		if more := p.table(false, false); len(more.Rows) > 0 {
			r.Tables = append(r.Tables, more)
		}
	}
	if flags := c.flagTable(); len(flags.Rows) > 0 {
		r.Tables = append(r.Tables, flags)
	}
	r.Plots = c.plots()
	if !slices.Equal(machineParts(c.a.Manifest.Machine), machineParts(c.b.Manifest.Machine)) {
		r.Manifest.Machine = "baseline: " + c.a.Manifest.Machine + "; optimized: " + c.b.Manifest.Machine
	}
	if c.a.Manifest.Commit != c.b.Manifest.Commit {
		r.Manifest.Commit = c.a.Manifest.Commit + " against " + c.b.Manifest.Commit
	}
	r.Notes = append(r.Notes, c.methodNote())
	if c.a.Manifest.Command != c.b.Manifest.Command || c.a.Manifest.Date != c.b.Manifest.Date {
		r.Notes = append(r.Notes, "The two were measured one after the other, so a machine that became faster or slower meanwhile counts as a difference; pagoda bench optimized measures both interleaved in one process.")
	}
	if missing := len(c.a.Cells) + len(c.b.Cells) - 2*len(c.pairs); missing > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("%d cells have no counterpart in the other report and are left out.", missing))
	}
	return r
}

// methodNote says what the figures are, and where there is a verdict, what it takes.
func (c *comparison) methodNote() string {
	text := "The ratio is optimized ÷ baseline of the medians; its 95 % interval is a bootstrap over the runs with a fixed seed."
	if c.unlike != "" {
		return text
	}
	return text + fmt.Sprintf(" A metric is better or worse where each side has at least %d runs, the ranges of the two lie apart by more than half of the wider one, and the medians by %.0f %%; the verdict rests on %s alone.",
		verdictRepeats, 100*verdictChange, headlineNames())
}

// headlineNames lists the metrics that the verdict rests on.
func headlineNames() string {
	var names []string
	for _, metric := range headline {
		names = append(names, displayName(metric))
	}
	return strings.Join(names, ", ")
}

// table is a pair's metrics beside each other: those that count for the verdict, or
// the others, which only the page shows; judged with a word on each.
func (p *pair) table(counts, judged bool) Table {
	t := Table{Title: p.label, Header: []string{"metric", "baseline", "optimized", "ratio", "95 % interval", ""}, Text: 1}
	if !counts {
		t.Title, t.pageOnly = strings.TrimSpace(p.label+" further metrics"), true
	}
	if !judged {
		t.Header = t.Header[:5]
	}
	for _, ch := range p.changes {
		if ch.headline() != counts {
			continue
		}
		row := []string{
			displayName(ch.metric) + unitSuffix(ch.metric, ch.a.Unit), withSpread(ch.a), withSpread(ch.b),
			ratioText(ch.ratio), intervalText(ch.low, ch.high),
		}
		if judged {
			row = append(row, ch.word())
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func withSpread(m Metric) string { return strings.TrimSpace(m.median() + " " + m.spread()) }

func ratioText(ratio float64) string {
	if !finite(ratio) {
		return "–"
	}
	return fmt.Sprintf("%.2f ×", ratio)
}

func intervalText(low, high float64) string {
	if !finite(low) || !finite(high) {
		return "–"
	}
	return fmt.Sprintf("%.2f–%.2f", low, high)
}

// word is the last column: what the change is.
func (ch *change) word() string {
	switch {
	case ch.result == betterResult:
		return "better"
	case ch.result == worseResult:
		return "worse"
	case min(len(ch.a.Runs), len(ch.b.Runs)) < verdictRepeats:
		return "too few runs"
	}
	return "no difference"
}

func (c *comparison) flagTable() Table {
	t := Table{Title: "Effective flags that differ", Header: []string{"flag", "baseline", "optimized"}, Text: 3}
	for _, name := range c.changedFlags() {
		t.Rows = append(t.Rows, []string{"--" + flagName(name), paramText(c.a.Manifest.EffectiveFlags[name]), paramText(c.b.Manifest.EffectiveFlags[name])})
	}
	return t
}

// verdict says what improved and what got worse, or why nothing did; of unlike things the
// ratios alone.
func (c *comparison) verdict() string {
	if c.unlike != "" {
		return "Not " + c.unlike + ": ratios only.\nOptimized ÷ baseline: " + c.ratiosText() + "."
	}
	better, worse := c.summary(betterResult), c.summary(worseResult)
	var out []string
	switch {
	case c.fewestRuns() < verdictRepeats:
		return "There is no measurable improvement, because " + c.reasonText() + " " + c.mediansText()
	case len(better) > 0:
		out = append(out, "Better beyond the spread: "+strings.Join(better, "; ")+".")
	case len(worse) > 0:
		out = append(out, "There is no measurable improvement: "+c.reasonText())
	default:
		out = append(out, "There is no measurable improvement, because "+c.reasonText())
	}
	if len(worse) > 0 {
		out = append(out, "Worse beyond the spread: "+strings.Join(worse, "; ")+".")
	}
	return strings.Join(out, "\n")
}

// mediansText says what the medians alone say.
func (c *comparison) mediansText() string {
	var parts []string
	for _, p := range c.pairs {
		if ch, ok := p.find("output_throughput"); ok && finite(ch.ratio) {
			parts = append(parts, strings.TrimSpace(fmt.Sprintf("%.2f × %s", ch.ratio, p.label)))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "By the medians, which chance may have set apart, output tok/s is " + strings.Join(parts, ", ") + "."
}

// ratiosText lists the headline metrics' ratios, from the least to the greatest of the
// settings.
func (c *comparison) ratiosText() string {
	var parts []string
	for _, metric := range headline {
		low, high := math.Inf(1), math.Inf(-1)
		for _, p := range c.pairs {
			if ch, ok := p.find(metric); ok && finite(ch.ratio) {
				low, high = min(low, ch.ratio), max(high, ch.ratio)
			}
		}
		switch {
		case low > high:
		case low == high:
			parts = append(parts, fmt.Sprintf("%s %s", displayName(metric), ratioText(low)))
		default:
			parts = append(parts, fmt.Sprintf("%s %.2f–%s", displayName(metric), low, ratioText(high)))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "no metric is in both")
}

func (c *comparison) reasonText() string {
	reasons := c.reasons()
	if len(reasons) == 1 {
		return reasons[0] + "."
	}
	for i := range reasons {
		reasons[i] = fmt.Sprintf("(%d) %s", i+1, reasons[i])
	}
	return strings.Join(reasons, "; ") + "."
}

// summaryMetrics is how many metrics a sentence of the verdict names.
const summaryMetrics = 5

// summary names the metrics with a result, each with its strongest pair.
func (c *comparison) summary(result int) (out []string) {
	type found struct {
		change
		label string
		count int
	}
	var metrics []found
	for _, p := range c.pairs {
		for _, ch := range p.changes {
			if ch.result != result {
				continue
			}
			i := slices.IndexFunc(metrics, func(f found) bool { return f.metric == ch.metric })
			switch {
			case i < 0:
				metrics = append(metrics, found{ch, p.label, 1})
			case strength(ch.ratio) > strength(metrics[i].ratio):
				metrics[i] = found{ch, p.label, metrics[i].count + 1}
			default:
				metrics[i].count++
			}
		}
	}
	slices.SortStableFunc(metrics, func(a, b found) int { return orderOf(a.metric) - orderOf(b.metric) })
	for i, m := range metrics {
		if i == summaryMetrics {
			out = append(out, fmt.Sprintf("and more, see the table (%d)", len(metrics)-i))
			break
		}
		text := fmt.Sprintf("%s %s → %s", displayName(m.metric), formatAs(m.a.Unit, m.a.Median), formatAs(m.b.Unit, m.b.Median))
		if m.a.Unit == "ms" {
			text += " ms"
		}
		if finite(m.ratio) {
			text += fmt.Sprintf(" (%.2f ×, 95 %% %s)", m.ratio, intervalText(m.low, m.high))
		}
		if m.label != "" {
			text += " at " + m.label
		}
		if m.count > 1 {
			text += fmt.Sprintf(", and at %d other settings", m.count-1)
		}
		out = append(out, strings.Replace(text, "at 1 other settings", "at 1 other setting", 1))
	}
	return out
}

// strength is how far a ratio is from 1, up or down.
func strength(ratio float64) float64 {
	if !finite(ratio) || ratio <= 0 {
		return math.Inf(1)
	}
	return math.Abs(math.Log(ratio))
}

// plots are the ratios of all pairs, and the main metrics side by side.
func (c *comparison) plots() []Plot {
	var out []Plot
	ratios := Plot{
		Name: "ratios", Title: "Optimized against baseline", YLabel: "ratio of the medians, with its 95 % interval; 1 = no change", reference: 1,
		Caption: "An interval with an arrow goes on; its ends are in the table.",
	}
	if c.unlike == "" {
		ratios.Caption = "Throughput is better above 1, latency below it. " + ratios.Caption
	}
	shown := c.pairs[:min(len(c.pairs), len(palette))]
	for _, metric := range metricOrder[:12] {
		if slices.ContainsFunc(shown, func(p pair) bool { ch, ok := p.find(metric); return ok && finite(ch.ratio) }) {
			ratios.Categories = append(ratios.Categories, displayName(metric))
			for i, p := range shown {
				if len(ratios.Series) <= i {
					ratios.Series = append(ratios.Series, Series{Name: p.label})
				}
				ch, ok := p.find(metric)
				if !ok {
					ch.ratio, ch.low, ch.high = math.NaN(), math.NaN(), math.NaN()
				}
				s := &ratios.Series[i]
				s.Y, s.Low, s.High = append(s.Y, ch.ratio), append(s.Low, ch.low), append(s.High, ch.high)
			}
		}
	}
	if len(ratios.Categories) > 0 {
		out = append(out, ratios)
	}
	for _, metric := range pictured {
		p := Plot{Name: metric, Title: displayName(metric) + " before and after", Series: []Series{{Name: "baseline"}, {Name: "optimized"}}}
		for _, pair := range c.pairs {
			ch, ok := pair.find(metric)
			if !ok {
				continue
			}
			p.YLabel = ch.a.Unit + ", median and range of the runs"
			p.Categories = append(p.Categories, pair.label)
			for i, m := range []Metric{ch.a, ch.b} {
				s := &p.Series[i]
				s.Y, s.Low, s.High = append(s.Y, m.Median), append(s.Low, m.Min), append(s.High, m.Max)
			}
		}
		if len(p.Categories) > 0 {
			out = append(out, p)
		}
	}
	return out
}

func (p *pair) find(metric string) (change, bool) {
	i := slices.IndexFunc(p.changes, func(ch change) bool { return ch.metric == metric })
	if i < 0 {
		return change{}, false
	}
	return p.changes[i], true
}
