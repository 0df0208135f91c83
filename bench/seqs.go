package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pagoda-engine/pagoda/engine"
)

// SeqsOptions configure Seqs. Zero values are defaults.
type SeqsOptions struct {
	CellOptions
	// MaxNumSeqs are the values to measure; default 64, 128, 256, 512, 1024, and on a
	// CPU 4 and 16 before them. The engine must have been started with the largest.
	MaxNumSeqs []int
}

// DefaultMaxNumSeqs are the values that Seqs measures by default.
func DefaultMaxNumSeqs(onCPU bool) []int {
	values := []int{64, 128, 256, 512, 1024}
	if onCPU {
		return append([]int{4, 16}, values...)
	}
	return values
}

// Seqs measures how many sequences should run at once, and why more do not pay.
func Seqs(ctx context.Context, e Tunable, o SeqsOptions) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	info := e.Info()
	o.Load.fill(loadOf(info, Load{Requests: 96, PromptTokens: 16, OutputTokens: 40, RangeRatio: 0.5},
		Load{Requests: 1024, PromptTokens: 32, OutputTokens: 64, RangeRatio: 0.5}))
	if len(o.MaxNumSeqs) == 0 {
		o.MaxNumSeqs = DefaultMaxNumSeqs(info.Device.Backend == "cpu")
	}
	values := slices.Sorted(slices.Values(o.MaxNumSeqs))
	if err := o.Load.check(info); err != nil {
		return nil, err
	}
	c := newCells(e, o.CellOptions)
	defer c.restore()
	var notes []string
	if !c.sizedByHand() {
		work := o.Load.workload(c.o.Seed, info.SampleVocab)
		notes = append(notes, c.tighten(0.7, work, peakBlocks(work, info.BlockSize, 0, o.Load.SharedPrefix)))
	}
	arms, err := c.seqsArms(ctx, values, o.Load)
	r := c.report("seqs", "seqs: how many sequences run at once", o.Load, arms)
	r.Notes = append(notes, r.Notes...)
	r.Columns = []string{"output_throughput", "median_tpot_ms", "median_queue_ms", "mean_running", "kv_cache_usage", "num_preemptions", "swap_out_bytes", "p99_itl_ms"}
	free := func(c *Cell) bool { return seqsFree(c, o.Load.Requests) }
	if best := firstAsGood(r.Cells, "output_throughput", free); best >= 0 {
		r.Best = r.Cells[best].Params
		r.Verdict = seqsVerdict(r.Cells, best, o.Load.Requests)
	} else if len(r.Cells) > 0 {
		r.Verdict = "None of these values fits the memory: " + r.Cells[0].Note
	}
	r.Plots = plotted(
		linesOver(r.Cells, "max_num_seqs", "throughput", "Throughput over concurrency", "max_num_seqs", "output tokens/s", "output_throughput"),
		linesOver(r.Cells, "max_num_seqs", "latency", "A token's time over concurrency", "max_num_seqs", "ms", "median_tpot_ms", "p99_itl_ms"),
		linesOver(r.Cells, "max_num_seqs", "queueing", "Queueing over concurrency", "max_num_seqs", "ms", "median_queue_ms", "median_ttft_ms"),
		linesOver(r.Cells, "max_num_seqs", "preemptions", "Preemptions over concurrency", "max_num_seqs", "preemptions of a run", "num_preemptions"),
	)
	return r, err
}

// seqsArms measures the values, and the edges of what fits between them.
func (c *cells) seqsArms(ctx context.Context, values []int, load Load) ([]*arm, error) {
	make := func(v float64) *arm {
		return &arm{params: map[string]any{"max_num_seqs": int(v)}, limits: engine.Limits{MaxNumSeqs: int(v)}, load: load}
	}
	var arms []*arm
	var floats []float64
	for _, v := range values {
		arms, floats = append(arms, make(float64(v))), append(floats, float64(v))
	}
	if err := c.measure(ctx, "seqs", arms, c.o.Repeats); err != nil {
		return arms, err
	}
	found, err := c.edges(ctx, arms, floats, 1, make)
	if err != nil {
		return arms, err
	}
	err = c.measure(ctx, "seqs, the edge", found, c.o.Repeats)
	arms = append(arms, found...)
	slices.SortStableFunc(arms, func(a, b *arm) int { return compareParam(a.params["max_num_seqs"], b.params["max_num_seqs"]) })
	return arms, err
}

// seqsFree says that max_num_seqs never kept one of the requests from running.
func seqsFree(c *Cell, requests int) bool {
	limit, _ := c.Params["max_num_seqs"].(int)
	most := c.Metrics["peak_running"]
	return limit >= requests || len(most.Runs) > 0 && most.Max < float64(limit)
}

// seqsBound is why a cell has no more throughput than it has.
type seqsBound string

// The bounds of a cell.
const (
	boundDemand   seqsBound = "demand"        // the clients never had more requests in flight
	boundSeqs     seqsBound = "max_num_seqs"  // requests wait though there is room
	boundSwapping seqsBound = "swapping"      // blocks are short, and sequences go to the host and back
	boundKV       seqsBound = "KV-bound"      // blocks are short
	boundCompute  seqsBound = "compute-bound" // a step takes longer in proportion to its tokens
)

// boundOf says what bounds a cell. next is the cell with the next larger value, nil
// for none.
func boundOf(c, next *Cell, requests int) (seqsBound, string) {
	swapped, preempted, blocks := c.medianOf("preemptions_swap"), c.medianOf("num_preemptions"), c.medianOf("waiting_for_blocks")
	peak := c.medianOf("peak_running")
	switch {
	case blocks > 0.1 && swapped > preempted/2 && swapped > 0:
		return boundSwapping, fmt.Sprintf("requests wait for blocks %.0f %% of the time, %s out and %s moved", 100*blocks, counted(swapped, "swap"), formatBinary(c.medianOf("swap_out_bytes")+c.medianOf("swap_in_bytes")))
	case blocks > 0.1 || preempted > 0.1*float64(requests):
		return boundKV, fmt.Sprintf("requests wait for blocks %.0f %% of the time, %s, %.0f %% of the pool in use", 100*blocks, counted(preempted, "preemption"), 100*c.medianOf("kv_cache_usage"))
	case peak >= 0.98*float64(requests):
		return boundDemand, fmt.Sprintf("all %d requests run at once: there were never more", requests)
	case next == nil:
		return boundSeqs, fmt.Sprintf("requests wait for a place %.0f %% of the time; larger values were not measured", 100*c.medianOf("waiting_for_seqs"))
	}
	more := next.medianOf("mean_running") / max(c.medianOf("mean_running"), 1)
	slower := next.medianOf("median_tpot_ms") / max(c.medianOf("median_tpot_ms"), 1e-9)
	if next.measured() && more > 1.05 && slower >= 0.85*more {
		return boundCompute, fmt.Sprintf("with %.1f times as many sequences a token takes %.1f times as long", more, slower)
	}
	return boundSeqs, fmt.Sprintf("requests wait for a place %.0f %% of the time", 100*c.medianOf("waiting_for_seqs"))
}

// seqsVerdict names the sweet spot, and why it ends there.
func seqsVerdict(cells []Cell, best, requests int) string {
	var b strings.Builder
	c := &cells[best]
	fmt.Fprintf(&b, "Sweet spot: max_num_seqs %v, %s output tok/s at %s ms a token. ", c.Params["max_num_seqs"], shortValue(c.medianOf("output_throughput")), shortValue(c.medianOf("median_tpot_ms")))
	if first := firstMeasured(cells); first < best {
		fmt.Fprintf(&b, "Against %v throughput is %s. ", cells[first].Params["max_num_seqs"], times(c.Metrics["output_throughput"], cells[first].Metrics["output_throughput"]))
	}
	// Why it ends is seen in what more sequences meet.
	var next *Cell
	for i := best + 1; i < len(cells); i++ {
		if cells[i].measured() {
			next = &cells[i]
			break
		}
	}
	why, text := boundOf(c, next, requests)
	of := c
	if next != nil && (why == boundSeqs || why == boundCompute) {
		var after *Cell
		if i := slices.IndexFunc(cells, func(c Cell) bool {
			return compareParam(c.Params["max_num_seqs"], next.Params["max_num_seqs"]) > 0 && c.measured()
		}); i >= 0 {
			after = &cells[i]
		}
		if nextWhy, nextText := boundOf(next, after, requests); why == boundSeqs || nextWhy == boundSwapping || nextWhy == boundKV {
			if why == boundCompute {
				text = fmt.Sprintf("%s; beyond that %s at %v: %s", text, nextWhy, next.Params["max_num_seqs"], nextText)
			} else {
				why, text, of = nextWhy, nextText, next
			}
		}
	}
	if of != c {
		text = fmt.Sprintf("at %v %s", of.Params["max_num_seqs"], text)
	}
	fmt.Fprintf(&b, "It ends there: %s (%s). ", why, text)
	for i := best + 1; i < len(cells); i++ {
		if worse := &cells[i]; below(worse.Metrics["output_throughput"], c.Metrics["output_throughput"]) {
			why, text := boundOf(worse, nil, requests)
			fmt.Fprintf(&b, "At %v throughput falls to %.2f of it (%s: %s). ", worse.Params["max_num_seqs"], worse.medianOf("output_throughput")/c.medianOf("output_throughput"), why, text)
		}
	}
	b.WriteString(outOfMemoryText(cells, "max_num_seqs"))
	return strings.TrimSpace(b.String())
}

// outOfMemoryText says which cells, in the order of their values, do not fit, and
// between which measured ones they lie.
func outOfMemoryText(cells []Cell, param string) string {
	var fails []string
	most := -1
	for i := range cells {
		switch {
		case cells[i].Metrics["out_of_memory"].Median > 0:
			fails = append(fails, paramText(cells[i].Params[param]))
		case cells[i].measured():
			most = i
		}
	}
	if len(fails) == 0 || most < 0 {
		return ""
	}
	word := "is"
	if len(fails) > 1 {
		word = "are"
	}
	return fmt.Sprintf("%s %s out of memory; the largest that works is %s. ", strings.Join(fails, ", "), word, paramText(cells[most].Params[param]))
}

// firstMeasured is the index of the first cell with results.
func firstMeasured(cells []Cell) int {
	return slices.IndexFunc(cells, func(c Cell) bool { return c.measured() })
}
