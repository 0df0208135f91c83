package bench

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// wideSpread is from when on the runs of a cell scatter so much that the verdict
// says so.
const wideSpread = 0.05

// whatDiffers says in which of model, quantization and machine the reports differ; "" for
// none. What a report does not say is no difference.
func (c *comparison) whatDiffers() string {
	var out []string
	for _, name := range []string{"model", "quantization"} {
		a, b := c.a.Manifest.EffectiveFlags[name], c.b.Manifest.EffectiveFlags[name]
		if a != nil && b != nil && paramText(a) != paramText(b) {
			out = append(out, fmt.Sprintf("the same %s (%s against %s)", name, paramText(a), paramText(b)))
		}
	}
	a, b := machineParts(c.a.Manifest.Machine), machineParts(c.b.Manifest.Machine)
	onlyA := slices.DeleteFunc(slices.Clone(a), func(part string) bool { return slices.Contains(b, part) })
	onlyB := slices.DeleteFunc(slices.Clone(b), func(part string) bool { return slices.Contains(a, part) })
	if len(a) > 0 && len(b) > 0 && len(onlyA)+len(onlyB) > 0 {
		out = append(out, fmt.Sprintf("the same machine (%s against %s)", cmp.Or(strings.Join(onlyA, ", "), "–"), cmp.Or(strings.Join(onlyB, ", "), "–")))
	}
	return strings.Join(out, " nor ")
}

// machineParts are what a machine is made of, without its clocks at one moment, the memory
// that its kernel left, and the threads, which are a setting.
func machineParts(machine string) []string {
	return slices.DeleteFunc(strings.Split(machine, ", "), func(part string) bool {
		passing := slices.ContainsFunc([]string{"Hz", " threads", " of memory"}, func(end string) bool { return strings.HasSuffix(part, end) })
		return part == "" || passing || strings.HasPrefix(part, "held down by")
	})
}

// changedFlags are the effective flags that the reports have different values of.
// What follows from others, such as the number of blocks, is among them.
func (c *comparison) changedFlags() []string {
	names := map[string]bool{}
	for name := range c.a.Manifest.EffectiveFlags {
		names[name] = true
	}
	for name := range c.b.Manifest.EffectiveFlags {
		names[name] = true
	}
	return slices.DeleteFunc(slices.Sorted(maps.Keys(names)), func(name string) bool {
		a, b := paramText(c.a.Manifest.EffectiveFlags[name]), paramText(c.b.Manifest.EffectiveFlags[name])
		return a == b || (name == "memory_limit" || name == "num_gpu_blocks") && alike(a, b)
	})
}

// alike says whether two sizes are what two starts of the same command get: by default
// the limit is half of what memory happens to be available.
func alike(a, b string) bool {
	size := func(text string) (float64, string) {
		number, unit, _ := strings.Cut(text, " ")
		v, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return math.NaN(), unit
		}
		return v, unit
	}
	x, unitX := size(a)
	y, unitY := size(b)
	return unitX == unitY && math.Abs(x-y) <= 0.02*math.Max(x, y)
}

// reasons are why there may be no improvement, each found in the two reports.
func (c *comparison) reasons() []string {
	var why []string
	changed := c.changedFlags()
	switch {
	case len(c.a.Manifest.EffectiveFlags) == 0 || len(c.b.Manifest.EffectiveFlags) == 0:
		why = append(why, "the reports do not say which flags were in effect, so whether the parameters were in use is not known")
	case len(changed) == 0:
		why = append(why, "the parameters were not in use: both ran with the same effective flags")
	}
	for _, name := range changed {
		if reason := c.alreadyThere(name); reason != "" {
			why = append(why, reason)
		}
	}
	if busy := c.largest("gpu_utilization"); busy >= enoughBusy {
		why = append(why, fmt.Sprintf("the device was busy %.0f %% of the time already in the baseline: it is bound by compute or memory, and only less work a token would help (pagoda bench profile says which)", 100*busy))
	}
	if runs := c.fewestRuns(); runs < verdictRepeats {
		return append(why, fmt.Sprintf("the repeats are too few for a verdict: %d, where %d of each are wanted (--repeats %d)", runs, verdictRepeats, verdictRepeats))
	}
	if wide, where := c.widest(); wide > wideSpread {
		why = append(why, fmt.Sprintf("the runs of one setting already differ by up to %.0f %% (%s), and what is smaller cannot be seen: use more --repeats, or a quieter machine", 100*wide, where))
	}
	if len(why) == 0 {
		why = append(why, fmt.Sprintf("what changed (%s) does not bind this workload: profile it (pagoda bench profile) to see what does", strings.Join(flagNames(changed), ", ")))
	}
	return why
}

// alreadyThere says why a flag's new value cannot matter, or "".
func (c *comparison) alreadyThere(flag string) string {
	before, after := c.a.Manifest.EffectiveFlags[flag], c.b.Manifest.EffectiveFlags[flag]
	a, okA := asNumber(before)
	b, okB := asNumber(after)
	what := fmt.Sprintf("--%s went from %s to %s", flagName(flag), paramText(before), paramText(after))
	switch flag {
	case "max_num_seqs":
		if most := c.largestParam("batch_size"); okA && okB && most > 0 && most <= math.Min(a, b) {
			return fmt.Sprintf("%s, but at most %.0f requests ran at once: the baseline had room for them already", what, most)
		}
	case "gpu_memory_utilization", "kv_cache_memory_bytes", "memory_limit":
		if c.measured("num_preemptions") && c.largest("num_preemptions") == 0 {
			return what + ", but the baseline never ran short of KV blocks (no preemption): its pool was large enough already"
		}
	case "swap_space", "preemption_mode":
		if c.measured("swap_out_bytes") && c.largest("swap_out_bytes") == 0 && c.largest("num_preemptions") == 0 {
			return what + ", but nothing was swapped or preempted: the setting was never used"
		}
	}
	return ""
}

// asNumber is a JSON number or a Go one.
func asNumber(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	}
	return 0, false
}

func flagNames(params []string) (out []string) {
	for _, name := range params {
		out = append(out, "--"+flagName(name))
	}
	return out
}

// largest is the greatest median of a metric in the baseline's cells.
func (c *comparison) largest(metric string) float64 {
	most := 0.0
	for _, p := range c.pairs {
		most = math.Max(most, p.a.Metrics[metric].Median)
	}
	return most
}

func (c *comparison) measured(metric string) bool {
	return slices.ContainsFunc(c.pairs, func(p pair) bool { _, ok := p.a.Metrics[metric]; return ok })
}

func (c *comparison) largestParam(name string) float64 {
	most := 0.0
	for _, p := range c.pairs {
		if v, ok := asNumber(p.a.Params[name]); ok {
			most = math.Max(most, v)
		}
	}
	return most
}

func (c *comparison) fewestRuns() int {
	fewest := math.MaxInt
	for _, p := range c.pairs {
		for _, ch := range p.changes {
			if ch.headline() {
				fewest = min(fewest, len(ch.a.Runs), len(ch.b.Runs))
			}
		}
	}
	return fewest
}

// widest is the largest spread of the quantity that the verdict is about.
func (c *comparison) widest() (share float64, where string) {
	for _, p := range c.pairs {
		for _, ch := range p.changes {
			if ch.metric != "output_throughput" {
				continue
			}
			for _, m := range []Metric{ch.a, ch.b} {
				if m.Median != 0 && m.half()/m.Median > share {
					share, where = m.half()/m.Median, displayName(ch.metric)
					if p.label != "" {
						where += " at " + p.label
					}
				}
			}
		}
	}
	return share, where
}
