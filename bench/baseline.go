package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pagoda-engine/pagoda/engine"
)

// BaselineOptions configure Baseline and Optimized. Zero values are defaults.
type BaselineOptions struct {
	CellOptions               // Load.Requests is the least of a cell; default 8. Repeats: default 5
	Batches     []int         // requests in flight; default 1, 16, 32
	Limits      engine.Limits // to measure: the zero value leaves the engine as it is
	Against     engine.Limits // of Optimized: to compare with
}

// fill sets defaults.
func (o *BaselineOptions) fill() {
	o.Load.fill(Load{Requests: 8, PromptTokens: 64, OutputTokens: 128, RangeRatio: -1})
	if len(o.Batches) == 0 {
		o.Batches = []int{1, 16, 32}
	}
	if o.Repeats == 0 {
		o.Repeats = verdictRepeats
	}
}

// Baseline measures the engine as it is configured at several batch sizes: requests
// of equal lengths, so many in flight at a time.
func Baseline(ctx context.Context, e Tunable, o BaselineOptions) (*Report, error) {
	reports, err := o.measure(ctx, e, []*side{{name: "baseline", limits: o.Limits}})
	if len(reports) == 0 {
		return nil, err
	}
	return reports[0], err
}

// side is a setting that is measured at all batch sizes.
type side struct {
	name   string // of the experiment
	limits engine.Limits
	arms   []*arm
}

// measure runs the sides, interleaved, and makes a report of each.
func (o *BaselineOptions) measure(ctx context.Context, e Tunable, sides []*side) ([]*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	o.fill()
	info := e.Info()
	if err := o.Load.check(info); err != nil {
		return nil, err
	}
	c := newCells(e, o.CellOptions)
	defer c.restore()
	var all []*arm
	for _, batch := range slices.Sorted(slices.Values(o.Batches)) {
		load := o.Load
		load.Requests = max(load.Requests, 2*batch) // every slot is filled again once
		for _, s := range sides {
			a := &arm{params: map[string]any{"batch_size": batch}, limits: s.limits, load: load, concurrency: batch}
			s.arms, all = append(s.arms, a), append(all, a)
		}
	}
	err := c.measure(ctx, sides[0].name, all, c.o.Repeats)
	var reports []*Report
	for _, s := range sides {
		reports = append(reports, s.report(c, o.Load, info))
	}
	return reports, err
}

// report makes the report of a side.
func (s *side) report(c *cells, load Load, info engine.Info) *Report {
	r := c.report(s.name, s.name+": so many requests in flight", load, s.arms)
	limits := over(c.base, s.limits)
	r.setLimits(limits)
	r.Columns = []string{"output_throughput", "median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "median_itl_ms", "p99_itl_ms", "std_itl_ms", busyMetric(info), "peak_memory_bytes"}
	if best := bestOf(r.Cells, "output_throughput"); best >= 0 {
		r.Best = r.Cells[best].Params
		r.Verdict = baselineVerdict(r.Cells, info)
	}
	if most := r.Cells[max(len(r.Cells)-1, 0):]; len(most) > 0 {
		if batch, _ := most[0].Params["batch_size"].(int); batch > limits.MaxNumSeqs {
			r.Notes = append(r.Notes, fmt.Sprintf("--max-num-seqs %d of %d requests in flight run at once; the others wait, which is in their TTFT.", limits.MaxNumSeqs, batch))
		}
	}
	r.Notes = append(r.Notes, peakMemoryNote(info))
	r.Plots = []Plot{
		linesOver(r.Cells, "batch_size", "throughput", "Throughput over batch size", "requests in flight", "output tokens/s", "output_throughput"),
		linesOver(r.Cells, "batch_size", "latency", "Latency over batch size", "requests in flight", "ms", "median_itl_ms", "p99_itl_ms", "median_tpot_ms"),
	}
	return r
}

// setLimits writes limits into the effective flags.
func (r *Report) setLimits(l engine.Limits) {
	for name, value := range tunedParams(l) {
		r.Manifest.EffectiveFlags[name] = value
	}
}

// baselineVerdict says what batching brings and costs.
func baselineVerdict(cells []Cell, info engine.Info) string {
	var b strings.Builder
	for i := range cells {
		c := &cells[i]
		if !c.measured() {
			continue
		}
		fmt.Fprintf(&b, "Batch %v: %s output tok/s, TTFT %s ms, ITL %s ms (p99 %s). ", c.Params["batch_size"],
			shortValue(c.medianOf("output_throughput")), shortValue(c.medianOf("median_ttft_ms")), shortValue(c.medianOf("median_itl_ms")), shortValue(c.medianOf("p99_itl_ms")))
	}
	first, best := &cells[firstMeasured(cells)], &cells[bestOf(cells, "output_throughput")]
	throughput, old := best.Metrics["output_throughput"], first.Metrics["output_throughput"]
	switch {
	case len(cells) == 1:
	case first == best:
		fmt.Fprintf(&b, "More than %v in flight bring no throughput. ", first.Params["batch_size"])
	case len(old.Runs) > 1 && !below(old, throughput):
		b.WriteString("Batching brings no throughput beyond the spread. ")
	default:
		fmt.Fprintf(&b, "From batch %v to %v throughput is %s, the time of a token %s. ", first.Params["batch_size"], best.Params["batch_size"],
			times(throughput, old), times(best.Metrics["median_itl_ms"], first.Metrics["median_itl_ms"]))
	}
	if info.Device.Backend == "cpu" {
		fmt.Fprintf(&b, "At batch %v, %s of %d cores are busy.", best.Params["batch_size"], shortValue(best.medianOf("cpu_cores_busy")), info.Device.Threads)
	} else {
		fmt.Fprintf(&b, "At batch %v the GPU is busy %.0f %% of the time.", best.Params["batch_size"], 100*best.medianOf("gpu_utilization"))
	}
	return b.String()
}
