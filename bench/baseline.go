package bench

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pagoda-engine/pagoda/engine"
)

// BaselineOptions configure Baseline. Zero values are defaults.
type BaselineOptions struct {
	CellOptions               // Load.Requests is the least of a cell; default 8
	Batches     []int         // requests in flight; default 1, 16, 32
	Name        string        // of the experiment; default "baseline"
	Limits      engine.Limits // to put in force first: the zero value leaves the engine as it is
}

// Baseline measures the engine as it is configured at several batch sizes: requests
// of equal lengths, so many in flight at a time.
func Baseline(ctx context.Context, e Tunable, o BaselineOptions) (*Report, error) {
	o.Load.fill(Load{Requests: 8, PromptTokens: 64, OutputTokens: 128, RangeRatio: -1})
	if len(o.Batches) == 0 {
		o.Batches = []int{1, 16, 32}
	}
	if o.Name == "" {
		o.Name = "baseline"
	}
	info := e.Info()
	if err := o.Load.check(info); err != nil {
		return nil, err
	}
	c := newCells(e, o.CellOptions)
	defer c.restore()
	var arms []*arm
	for _, batch := range slices.Sorted(slices.Values(o.Batches)) {
		if batch < 1 {
			return nil, badLoad("--batch-sizes %d: want at least 1", batch)
		}
		if most := info.MaxNumSeqs; batch > most {
			return nil, badLoad("--batch-sizes %d: at most --max-num-seqs %d run at once", batch, most)
		}
		load := o.Load
		load.Requests = max(load.Requests, 2*batch) // every slot is filled again once
		arms = append(arms, &arm{params: map[string]any{"batch_size": batch}, limits: o.Limits, load: load, concurrency: batch})
	}
	err := c.measure(ctx, o.Name, arms, c.o.Repeats)
	r := c.report(o.Name, o.Name+": so many requests in flight", o.Load, arms)
	r.Columns = []string{"output_throughput", "median_ttft_ms", "median_tpot_ms", "median_itl_ms", "p99_itl_ms", "std_itl_ms", busyMetric(info), "peak_memory_bytes"}
	best := bestOf(r.Cells, "output_throughput")
	if best >= 0 {
		r.Best = r.Cells[best].Params
		r.Verdict = baselineVerdict(r.Cells, info)
	}
	r.Plots = []Plot{
		linesOver(r.Cells, "batch_size", "throughput", "Throughput over batch size", "requests in flight", "output tokens/s", "output_throughput"),
		linesOver(r.Cells, "batch_size", "latency", "Latency over batch size", "requests in flight", "ms", "median_itl_ms", "p99_itl_ms", "median_tpot_ms"),
	}
	return r, err
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
			number(c.medianOf("output_throughput")), number(c.medianOf("median_ttft_ms")), number(c.medianOf("median_itl_ms")), number(c.medianOf("p99_itl_ms")))
	}
	first, best := &cells[0], &cells[bestOf(cells, "output_throughput")]
	switch {
	case len(cells) == 1:
	case first == best || !below(first.Metrics["output_throughput"], best.Metrics["output_throughput"]):
		b.WriteString("Batching brings no throughput beyond the spread. ")
	default:
		fmt.Fprintf(&b, "From batch %v to %v throughput grows %s times and a token takes %s times as long. ", first.Params["batch_size"], best.Params["batch_size"],
			number(best.medianOf("output_throughput")/first.medianOf("output_throughput")), number(best.medianOf("median_itl_ms")/first.medianOf("median_itl_ms")))
	}
	if info.Device.Backend == "cpu" {
		fmt.Fprintf(&b, "At batch %v, %s of %d cores are busy.", best.Params["batch_size"], number(best.medianOf("cpu_cores_busy")), info.Device.Threads)
	} else {
		fmt.Fprintf(&b, "At batch %v the GPU is busy %.0f %% of the time.", best.Params["batch_size"], 100*best.medianOf("gpu_utilization"))
	}
	return b.String()
}

// number prints a value with three digits, and thousands whole.
func number(v float64) string {
	if v >= 1000 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
