package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pagoda-engine/pagoda/engine"
)

// MemoryOptions configure Memory. Zero values are defaults.
type MemoryOptions struct {
	CellOptions
	Utilizations []float64 // default 0.70, 0.80, 0.90, 0.95
}

// utilizationStep is how near Memory finds the edge of what fits.
const utilizationStep = 0.005

// loadOf is the load of an experiment by the device, so that a cell takes seconds: on a
// CPU the few requests of small, which a small model serves in that time, and fewer of
// a larger one.
func loadOf(info engine.Info, small, gpu Load) Load {
	switch {
	case info.Device.Backend != "cpu":
		return gpu
	case info.LayerFLOPsPerToken > 1e8:
		small.Requests, small.OutputTokens = max(small.Requests/2, 4), max(small.OutputTokens/4, 16)
	}
	return small
}

// Memory measures shares of the device's memory: how large a pool each gives, and
// what that does to throughput, preemptions and swap. A share that does not fit is
// a result, too: the last one that does is looked for in smaller steps, and
// measured.
func Memory(ctx context.Context, e Tunable, o MemoryOptions) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	info := e.Info()
	o.Load.fill(loadOf(info, Load{Requests: 24, PromptTokens: 64, OutputTokens: 256, RangeRatio: 0.5},
		Load{Requests: 192, PromptTokens: 256, OutputTokens: 256, RangeRatio: 0.5}))
	if len(o.Utilizations) == 0 {
		o.Utilizations = []float64{0.7, 0.8, 0.9, 0.95}
	}
	values := slices.Sorted(slices.Values(o.Utilizations))
	if err := o.Load.check(info); err != nil {
		return nil, err
	}
	c := newCells(e, o.CellOptions)
	defer c.restore()
	notes := c.makeBind(o.Load)
	arms, err := c.memoryArms(ctx, values, o.Load)
	r := c.report("memory", "memory: the share of the device's memory that the engine may use", o.Load, arms)
	r.Notes = append(append(notes, r.Notes...), engineMemoryNote, peakMemoryNote(info))
	r.Columns = []string{"num_gpu_blocks", "max_concurrency", "output_throughput", "p99_e2el_ms", "num_preemptions", "waiting_for_blocks", "swap_out_bytes", "engine_memory_bytes", "peak_memory_bytes"}
	if best := safest(r.Cells); best >= 0 {
		r.Best = r.Cells[best].Params
		r.Verdict = memoryVerdict(r.Cells, best)
	} else if len(r.Cells) > 0 {
		r.Verdict = "None of these values fits the memory: " + r.Cells[len(r.Cells)-1].Note
	}
	r.Plots = plotted(
		linesOver(r.Cells, "gpu_memory_utilization", "throughput", "Throughput over memory", "gpu_memory_utilization", "output tokens/s", "output_throughput"),
		linesOver(r.Cells, "gpu_memory_utilization", "preemptions", "Shortage of blocks over memory", "gpu_memory_utilization", "preemptions of a run", "num_preemptions"),
		linesOver(r.Cells, "gpu_memory_utilization", "latency", "Latency over memory", "gpu_memory_utilization", "ms", "median_e2el_ms", "p99_e2el_ms"),
		usageOverTime(arms, "gpu_memory_utilization"),
	)
	return r, err
}

// engineMemoryNote says what the figure of the engine is, beside that of the device.
const engineMemoryNote = "Engine memory is what the plan gives weights, workspace and KV pool."

// peakMemoryNote says whose memory the peak is.
func peakMemoryNote(info engine.Info) string {
	if info.Device.Backend == "cpu" {
		return "Peak memory is what the process had resident: blocks that no request touched are missing, and the rest of the program is counted."
	}
	return "Peak memory is what the driver counts on the whole card: the CUDA context, loaded kernels, graphs and other processes are in it."
}

// bindShare is the share of a pretended device's memory at which the pool is what the
// requests need at most: some of the usual values lie below it and some above.
const bindShare = 0.85

// makeBind pretends a device on which the values of an experiment differ, unless its size
// was chosen. It says so.
func (c *cells) makeBind(load Load) []string {
	if c.sizedByHand() {
		return nil
	}
	info := c.e.Info()
	peak := peakBlocks(load.workload(c.o.Seed, info.SampleVocab), info.BlockSize, info.MaxNumSeqs, load.SharedPrefix)
	return []string{c.pretend(bindShare, peak)}
}

// memoryArms measures the values, and the edges of what fits between them.
func (c *cells) memoryArms(ctx context.Context, values []float64, load Load) ([]*arm, error) {
	make := func(v float64) *arm {
		return &arm{params: map[string]any{"gpu_memory_utilization": v}, limits: engine.Limits{GPUMemoryUtilization: v}, load: load}
	}
	var arms []*arm
	for _, v := range values {
		arms = append(arms, make(v))
	}
	if err := c.measure(ctx, "memory", arms, c.o.Repeats); err != nil {
		return arms, err
	}
	if arms[len(arms)-1].memory != nil && values[len(values)-1] < 1 && !slices.ContainsFunc(arms, func(a *arm) bool { return a.memory == nil }) {
		// Nothing fits: the device itself may yet be large enough.
		all := make(1)
		if err := c.e.Reconfigure(ctx, over(c.base, all.limits)); err == nil {
			arms, values = append(arms, all), append(values, 1)
			if err := c.measure(ctx, "memory", arms[len(arms)-1:], c.o.Repeats); err != nil {
				return arms, err
			}
		}
	}
	found, err := c.edges(ctx, arms, values, utilizationStep, make)
	if err != nil {
		return arms, err
	}
	err = c.measure(ctx, "memory, the edge", found, c.o.Repeats)
	arms = append(arms, found...)
	slices.SortStableFunc(arms, func(a, b *arm) int {
		return compareParam(a.params["gpu_memory_utilization"], b.params["gpu_memory_utilization"])
	})
	return arms, err
}

// safest is the index of the first cell that is as good as any with the fewest
// preemptions that such a cell has: where the pool binds, more memory is safer. −1
// when nothing was measured.
func safest(cells []Cell) int {
	best := firstAsGood(cells, "output_throughput", poolFree)
	if best < 0 {
		return -1
	}
	top := cells[bestOf(cells, "output_throughput")].Metrics["output_throughput"]
	pain := func(c *Cell) float64 { return c.medianOf("num_preemptions") + 1000*c.medianOf("failed") }
	for i := best; i < len(cells); i++ {
		if c := &cells[i]; c.measured() && !below(c.Metrics["output_throughput"], top) && pain(c) < pain(&cells[best]) {
			best = i
		}
	}
	return best
}

// poolFree says that no request ever had to wait for a block or give one up.
func poolFree(c *Cell) bool { return c.never("num_preemptions") && c.never("waiting_for_blocks") }

// binds says whether requests were short of blocks.
func binds(c *Cell) bool {
	return c.medianOf("num_preemptions") > 0 || c.medianOf("waiting_for_blocks") > 0.01
}

// memoryVerdict says what is safe and where more stops paying.
func memoryVerdict(cells []Cell, best int) string {
	var b strings.Builder
	highest, failing := -1, -1
	for i := range cells {
		if cells[i].measured() {
			highest = i
		} else if failing < 0 || highest >= 0 {
			failing = i
		}
	}
	c := &cells[best]
	fmt.Fprintf(&b, "The highest value that works is %v", cells[highest].Params["gpu_memory_utilization"])
	if failing > highest {
		fmt.Fprintf(&b, "; %v is out of memory", cells[failing].Params["gpu_memory_utilization"])
	}
	words := "is enough for this load"
	if binds(c) {
		words = "serves this load best, yet the pool binds there, too"
	}
	fmt.Fprintf(&b, ". %v %s: %s output tok/s, %s, at most %.0f %% of its %s blocks in use. ",
		c.Params["gpu_memory_utilization"], words, shortValue(c.medianOf("output_throughput")), counted(c.medianOf("num_preemptions"), "preemption"), 100*c.medianOf("peak_kv_cache_usage"), shortValue(c.medianOf("num_gpu_blocks")))
	for i := range cells {
		low := &cells[i]
		if i == best || !low.measured() || !binds(low) {
			continue
		}
		if below(low.Metrics["output_throughput"], c.Metrics["output_throughput"]) {
			fmt.Fprintf(&b, "At %v the pool binds: %.2f of that throughput, %s, a request waits for blocks %.0f %% of the time. ",
				low.Params["gpu_memory_utilization"], low.medianOf("output_throughput")/c.medianOf("output_throughput"), counted(low.medianOf("num_preemptions"), "preemption"), 100*low.medianOf("waiting_for_blocks"))
		} else if i < best && low.medianOf("num_preemptions") > 0 {
			fmt.Fprintf(&b, "At %v, %s: throughput is %s. ", low.Params["gpu_memory_utilization"], counted(low.medianOf("num_preemptions"), "preemption"), times(low.Metrics["output_throughput"], c.Metrics["output_throughput"]))
		}
	}
	if highest > best {
		b.WriteString("More than that only takes memory from others: it brings nothing beyond the spread.")
	}
	return b.String()
}

// usageOverTime plots the pool's use in each arm's last repeat.
func usageOverTime(arms []*arm, param string) Plot {
	p := Plot{Name: "usage", Title: "KV pool in use", XLabel: "seconds", YLabel: "share of the blocks"}
	for _, a := range arms {
		if s := overSteps(a.trace, fmt.Sprint(param, " ", a.params[param]), func(m *moment) float64 { return m.usage() }); len(s.X) > 0 {
			p.Series = append(p.Series, s)
		}
	}
	return p
}

// compareParam orders parameters that are numbers.
func compareParam(a, b any) int {
	x, _ := asNumber(a)
	y, _ := asNumber(b)
	switch {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}
