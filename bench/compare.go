package bench

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// Compare makes the report of what changed from one report to another: every metric
// of every cell that both have, as a ratio with its confidence interval. The verdict
// rests on a few headline metrics, of at least verdictRepeats runs each; it says why
// there may be no difference. Of different models, quantizations or machines there are
// ratios only.
func Compare(baseline, optimized *Report) (*Report, error) {
	c := comparison{a: baseline, b: optimized}
	if err := c.sameLoad(); err != nil {
		return nil, err
	}
	if err := c.match(); err != nil {
		return nil, err
	}
	c.unlike = c.whatDiffers()
	// The seed is fixed: the same reports give the same intervals.
	random := rand.New(rand.NewPCG(1, 0))
	for i := range c.pairs {
		c.pairs[i].compare(random)
	}
	return c.report(), nil
}

// comparison is two reports and the cells that stand beside each other.
type comparison struct {
	a, b  *Report
	names []string // of the parameters that cells are matched by
	pairs []pair
	// unlike is what makes the two things that a setting does not turn into each other:
	// their ratios say which is faster, not that one is better. "" = they are alike.
	unlike string
}

// pair is a cell of each report.
type pair struct {
	a, b    Cell
	label   string // the parameters that tell it from other pairs
	changes []change
}

// change is one metric of a pair.
type change struct {
	metric    string
	a, b      Metric
	ratio     float64 // b ÷ a of the medians; NaN when a is zero
	low, high float64 // 95 % interval of it; NaN for fewer than two runs
	result    int     // betterResult, worseResult or noResult
}

// headline are the metrics that a verdict rests on. Of the fifty that a cell has, some
// would always lie apart by chance.
var headline = []string{"output_throughput", "median_ttft_ms", "median_tpot_ms", "p99_itl_ms", "p99_e2el_ms"}

const (
	// verdictRepeats are the runs that each of two cells must have for a verdict: the
	// ranges of three and three lie apart in the right order by chance once in 20 times,
	// those of five and five once in 252.
	verdictRepeats = 5
	// verdictGap is how far the ranges of two cells must lie apart, as a share of the
	// wider one. With five runs each of normal noise chance does that once in some 2,700
	// times, in either direction, so that fifteen comparisons of a thing with itself (five
	// metrics at three batch sizes) find something once in some 180 times.
	verdictGap = 0.5
	// verdictChange is the least change of the median that is called one.
	verdictChange = 0.01
)

// The results of a comparison.
const (
	worseResult  = -1
	noResult     = 0
	betterResult = 1
)

// loadFlags say what was asked of the engine.
var loadFlags = []string{"requests", "prompt_tokens", "output_tokens", "random_range_ratio", "shared_prefix", "request_rate"}

// sameLoad refuses reports of different requests: shorter answers, say, are no
// improvement.
func (c *comparison) sameLoad() error {
	for _, name := range loadFlags {
		a, okA := c.a.Manifest.EffectiveFlags[name]
		b, okB := c.b.Manifest.EffectiveFlags[name]
		if okA && okB && paramText(a) != paramText(b) {
			return fmt.Errorf("nothing to compare: the baseline was measured with --%s %s, the other with %s; run both with the same requests", flagName(name), paramText(a), paramText(b))
		}
	}
	return nil
}

// match finds the pairs: by all parameters that cells of both have, or, when that
// gives none, without those that are settings of the engine, which is what an
// optimization changes.
func (c *comparison) match() error {
	common := commonParams(c.a.Cells, c.b.Cells)
	workload := slices.DeleteFunc(slices.Clone(common), func(name string) bool {
		_, a := c.a.Manifest.EffectiveFlags[name]
		_, b := c.b.Manifest.EffectiveFlags[name]
		return a || b
	})
	for _, names := range [][]string{common, workload} {
		c.names, c.pairs = names, nil
		groups := map[string][2][]Cell{}
		var order []string
		for side, cells := range [][]Cell{c.a.Cells, c.b.Cells} {
			for _, cell := range cells {
				key := paramList(cell.Params, names)
				if _, known := groups[key]; !known {
					order = append(order, key)
				}
				group := groups[key]
				group[side] = append(group[side], cell)
				groups[key] = group
			}
		}
		for _, key := range order {
			a, okA := c.a.only(groups[key][0])
			b, okB := c.b.only(groups[key][1])
			if okA && okB {
				c.pairs = append(c.pairs, pair{a: a, b: b})
			}
		}
		if len(c.pairs) > 0 {
			c.label()
			return nil
		}
	}
	return fmt.Errorf("nothing to compare: no cell of %s has the parameters of a cell of %s\n  baseline:  %s\n  optimized: %s\nrun both with the same --batch-sizes and workload",
		c.a.Experiment, c.b.Experiment, describeCells(c.a.Cells), describeCells(c.b.Cells))
}

// only is the one cell of a group, or the report's best among several.
func (r *Report) only(cells []Cell) (Cell, bool) {
	if len(cells) == 1 {
		return cells[0], true
	}
	for _, cell := range cells {
		if r.isBest(cell) {
			return cell, true
		}
	}
	return Cell{}, false
}

// label names the pairs by what varies between them.
func (c *comparison) label() {
	cells := make([]Cell, len(c.pairs))
	for i, p := range c.pairs {
		cells[i].Params = map[string]any{}
		for _, name := range c.names {
			cells[i].Params[name] = p.a.Params[name]
		}
	}
	varied, _ := (&Report{Cells: cells}).params()
	for i := range c.pairs {
		c.pairs[i].label = paramList(cells[i].Params, varied)
	}
}

// commonParams are the parameters that some cell of each has.
func commonParams(a, b []Cell) []string {
	names := func(cells []Cell) map[string]bool {
		out := map[string]bool{}
		for _, cell := range cells {
			for name := range cell.Params {
				out[name] = true
			}
		}
		return out
	}
	inB := names(b)
	return slices.DeleteFunc(slices.Sorted(maps.Keys(names(a))), func(name string) bool { return !inB[name] })
}

func describeCells(cells []Cell) string {
	if len(cells) == 0 {
		return "no cells"
	}
	var out []string
	for _, cell := range cells[:min(len(cells), 6)] {
		out = append(out, "{"+paramList(cell.Params, slices.Sorted(maps.Keys(cell.Params)))+"}")
	}
	if len(cells) > len(out) {
		out = append(out, fmt.Sprintf("and %d more", len(cells)-len(out)))
	}
	return strings.Join(out, " ")
}

// compare fills in the changes of every metric that both cells have.
func (p *pair) compare(random *rand.Rand) {
	both := Report{Cells: []Cell{p.a}}
	for _, name := range both.columns() {
		b, ok := p.b.Metrics[name]
		if !ok {
			continue
		}
		ch := change{metric: name, a: p.a.Metrics[name], b: b}
		ch.judge(random)
		p.changes = append(p.changes, ch)
	}
}

// judge computes ratio and interval, and whether the difference of a headline metric
// is one.
func (ch *change) judge(random *rand.Rand) {
	ch.ratio, ch.low, ch.high = math.NaN(), math.NaN(), math.NaN()
	if ch.a.Median != 0 {
		ch.ratio = ch.b.Median / ch.a.Median
	}
	if len(ch.a.Runs) >= 2 && len(ch.b.Runs) >= 2 {
		ch.low, ch.high = bootstrapRatio(random, ch.a.Runs, ch.b.Runs)
	}
	gap := max(ch.b.Min-ch.a.Max, ch.a.Min-ch.b.Max)
	enough := len(ch.a.Runs) >= verdictRepeats && len(ch.b.Runs) >= verdictRepeats
	if ch.headline() && enough && gap > verdictGap*max(ch.a.Max-ch.a.Min, ch.b.Max-ch.b.Min) && math.Abs(ch.b.Median-ch.a.Median) >= verdictChange*ch.a.Median {
		up := betterResult * direction(ch.metric)
		if ch.b.Median < ch.a.Median {
			up = -up
		}
		ch.result = up
	}
}

// headline says whether the metric counts for the verdict.
func (ch *change) headline() bool { return slices.Contains(headline, ch.metric) }

// bootstrapResamples is enough for the second digit of a 95 % interval.
const bootstrapResamples = 4000

// bootstrapRatio is the 95 % interval of median(b) ÷ median(a), by drawing the runs
// of each again, with replacement.
func bootstrapRatio(random *rand.Rand, a, b []float64) (low, high float64) {
	buffer := make([]float64, max(len(a), len(b)))
	draw := func(runs []float64) float64 {
		sample := buffer[:len(runs)]
		for i := range sample {
			sample[i] = runs[random.IntN(len(runs))]
		}
		slices.Sort(sample)
		return Percentile(sample, 50)
	}
	ratios := make([]float64, 0, bootstrapResamples)
	for range bootstrapResamples {
		if below := draw(a); below != 0 {
			ratios = append(ratios, draw(b)/below)
		}
	}
	if len(ratios) < bootstrapResamples {
		return math.NaN(), math.NaN() // a baseline of zero has no ratio
	}
	slices.Sort(ratios)
	return Percentile(ratios, 2.5), Percentile(ratios, 97.5)
}
