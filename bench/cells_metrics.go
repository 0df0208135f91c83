package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
)

// metricsOf computes the metrics of one run, under vLLM's names where it has them.
func metricsOf(samples []Sample, seen watched, slo SLO) map[string]float64 {
	s := Summarize(samples)
	m := map[string]float64{
		"completed": float64(s.Completed), "failed": float64(s.Failed), "duration": s.Duration.Seconds(),
		"total_input_tokens": float64(s.PromptTokens), "total_output_tokens": float64(s.OutputTokens),
		"request_throughput": s.RequestThroughput, "output_throughput": s.OutputThroughput, "total_token_throughput": s.TotalThroughput,
	}
	for name, d := range map[string]Distribution{"ttft": s.TTFT, "tpot": s.TPOT, "itl": s.ITL, "e2el": s.E2ELatency, "queue": s.Queue} {
		if d.N > 0 {
			m["mean_"+name+"_ms"], m["median_"+name+"_ms"], m["std_"+name+"_ms"], m["p99_"+name+"_ms"] = d.Mean, d.Median, d.StdDev, d.P99
		}
	}
	if slo != (SLO{}) {
		m["request_goodput"], m["output_goodput"] = goodput(samples, slo, s.Duration)
	}
	seen.metrics(m)
	return m
}

// goodput is the requests, and their tokens, a second that met the latencies wanted.
func goodput(samples []Sample, slo SLO, duration time.Duration) (requests, tokens float64) {
	if duration <= 0 {
		return 0, 0
	}
	for i := range samples {
		if s := &samples[i]; s.Err == nil && s.meets(slo) {
			requests, tokens = requests+1, tokens+float64(len(s.Tokens))
		}
	}
	return requests / duration.Seconds(), tokens / duration.Seconds()
}

// meets says whether a request had the latencies wanted.
func (s *Sample) meets(slo SLO) bool {
	if ttft, ok := s.TTFT(); slo.P99TTFT > 0 && (!ok || ttft > slo.P99TTFT) {
		return false
	}
	if slo.P99ITL == 0 || len(s.Tokens) < 2 {
		return true
	}
	gaps := make([]float64, 0, len(s.Tokens)-1)
	for i := 1; i < len(s.Tokens); i++ {
		gaps = append(gaps, float64(s.Tokens[i]-s.Tokens[i-1]))
	}
	slices.Sort(gaps)
	return Percentile(gaps, 99) <= float64(slo.P99ITL)
}

// unitOf is the unit of a cell's metric.
func unitOf(name string) string {
	switch {
	case strings.HasSuffix(name, "_ms"):
		return "ms"
	case name == "duration":
		return "s"
	case name == "request_throughput", name == "request_goodput":
		return "requests/s"
	case strings.HasSuffix(name, "throughput"), name == "output_goodput":
		return "tokens/s"
	case strings.HasSuffix(name, "_bytes"), strings.HasSuffix(name, "bytes_saved"):
		return "bytes"
	case shares[name]:
		return "share"
	}
	return ""
}

// shares are the metrics between 0 and 1.
var shares = map[string]bool{
	"kv_block_utilization": true, "internal_fragmentation": true, "kv_cache_usage": true, "peak_kv_cache_usage": true,
	"prefix_hit_rate": true, "gpu_utilization": true, "contiguous_waste": true, "waiting_for_seqs": true, "waiting_for_blocks": true,
}

// medianOf is a metric's median; 0 when it was not measured.
func (c *Cell) medianOf(name string) float64 { return c.Metrics[name].Median }

// measured says whether the cell has results.
func (c *Cell) measured() bool { return len(c.Metrics["output_throughput"].Runs) > 0 }

// gains is what b has more than a, repeat by repeat. A repeat's requests are the same in
// all cells of an experiment, and others than the next one's, so that only this
// difference is the cells' own.
func gains(a, b Metric) Metric {
	var more []float64
	for i := range min(len(a.Runs), len(b.Runs)) {
		more = append(more, b.Runs[i]-a.Runs[i])
	}
	return NewMetric(a.Unit, more)
}

// spreadGap is how far from zero the least gain must lie, as a share of the distance
// between the least and the greatest, to be beyond the spread. Of two settings that are
// alike chance puts one that far above the other once in 25 times with three repeats, once
// in 340 with five.
const spreadGap = 0.5

// below says that b is more than a beyond the spread: in every repeat, and by more than the
// repeats differ about it. One repeat has no spread, and none compares as equal.
func below(a, b Metric) bool {
	g := gains(a, b)
	return len(g.Runs) > 1 && g.Min > spreadGap*(g.Max-g.Min)
}

// beats says that b is to be preferred to a: more beyond the spread, or 5 % more in the
// median and in no repeat less.
func beats(b, a Metric) bool {
	g := gains(a, b)
	return below(a, b) || len(g.Runs) > 0 && g.Median > 0 && g.Median >= 0.05*a.Median && g.Min >= 0
}

// times says how many times as large b is as a, and what their spreads make of it.
func times(b, a Metric) string {
	if a.Median == 0 || len(a.Runs) == 0 || len(b.Runs) == 0 {
		return "not measured"
	}
	text := fmt.Sprintf("%.2f×", b.Median/a.Median)
	switch {
	case len(a.Runs) < 2 || len(b.Runs) < 2:
		return text + " (by one repeat, whose spread is not known)"
	case !below(a, b) && !below(b, a):
		return text + " (no difference beyond the spread)"
	}
	return text
}

// bestOf is the index of the cell with the highest median of a metric; −1 when none
// has it.
func bestOf(cells []Cell, metric string) int {
	best := -1
	for i := range cells {
		if m, ok := cells[i].Metrics[metric]; ok && cells[i].measured() && (best < 0 || m.Median > cells[best].Metrics[metric].Median) {
			best = i
		}
	}
	return best
}

// firstAsGood is the index of the first cell, by ascending values of a limit, that the best
// does not beat: what lies beyond costs more and brings nothing that could be told from
// noise. Once a cell was never held up by its limit, as free says, the engine does the same
// under larger ones, so whatever more these measured is noise: they do not count. −1 when
// nothing was measured.
func firstAsGood(cells []Cell, metric string, free func(*Cell) bool) int {
	if i := slices.IndexFunc(cells, func(c Cell) bool { return c.measured() && free(&c) }); i >= 0 {
		cells = cells[:i+1]
	}
	best := bestOf(cells, metric)
	for i := range cells[:max(best, 0)] {
		if m, ok := cells[i].Metrics[metric]; ok && cells[i].measured() && !beats(cells[best].Metrics[metric], m) {
			return i
		}
	}
	return best
}

// never says that a metric was measured and zero in every run.
func (c *Cell) never(metric string) bool {
	m := c.Metrics[metric]
	return len(m.Runs) > 0 && m.Max == 0
}

// busyMetric is the metric that says how busy the device is.
func busyMetric(info engine.Info) string {
	if info.Device.Backend == "cpu" {
		return "cpu_cores_busy"
	}
	return "gpu_utilization"
}
