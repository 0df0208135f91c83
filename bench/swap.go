package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/pagoda-engine/pagoda/engine"
)

// SwapOptions configure Swap. Zero values are defaults.
type SwapOptions struct {
	CellOptions
	SwapSpaces []int64 // bytes; default 0, 4, 8 and 16 GiB
	Share      float64 // of the blocks that the requests need at most, for a pool that nobody sized; default 0.12
}

// Swap measures sizes of the swap pool on a KV pool that is too small for the
// requests, and beside them what happens when everything that comes is admitted and
// must be swapped (preemption mode swap, no watermark).
func Swap(ctx context.Context, e Tunable, o SwapOptions) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	info := e.Info()
	o.Load.fill(loadOf(info, Load{Requests: 48, PromptTokens: 16, OutputTokens: 112, RangeRatio: 0.5},
		Load{Requests: 192, PromptTokens: 128, OutputTokens: 128, RangeRatio: 0.5}))
	if len(o.SwapSpaces) == 0 {
		o.SwapSpaces = []int64{0, 4 << 30, 8 << 30, 16 << 30}
	}
	if o.Share <= 0 {
		o.Share = 0.12
	}
	values := slices.Sorted(slices.Values(o.SwapSpaces))
	if err := o.Load.check(info); err != nil {
		return nil, err
	}
	c := newCells(e, o.CellOptions)
	defer c.restore()
	work := o.Load.workload(c.o.Seed, info.SampleVocab)
	peak := peakBlocks(work, info.BlockSize, info.MaxNumSeqs, o.Load.SharedPrefix)
	started := c.base
	var notes []string
	if c.base.NumGPUBlocksOverride <= 0 && c.base.KVCacheMemoryBytes <= 0 && info.NumBlocks > peak {
		notes = append(notes, c.tighten(o.Share, work, peak))
	}
	pool := info.NumBlocks
	if c.base.NumGPUBlocksOverride > 0 {
		pool = c.base.NumGPUBlocksOverride
	}
	arms := swapArms(values, c.base, o.Load, holds(o.Load, pool, info.BlockSize))
	err := c.measure(ctx, "swap", arms, c.o.Repeats)
	r := c.report("swap", "swap: room on the host for sequences that lost their KV blocks", o.Load, arms)
	r.Notes = append(notes, r.Notes...)
	r.Columns = []string{"output_throughput", "p99_e2el_ms", "p99_itl_ms", "preemptions_swap", "preemptions_recompute", "swap_out_bytes", "peak_swap_bytes"}
	unforced := slices.DeleteFunc(slices.Clone(r.Cells), func(c Cell) bool { return isForced(&c) && started.PreemptionMode != "swap" })
	if best := firstAsGood(unforced, "output_throughput", swapFree); best >= 0 {
		// Of equal pools, however large they were asked to be, the first.
		best = slices.IndexFunc(unforced, func(c Cell) bool {
			return c.measured() && c.medianOf("num_cpu_blocks") == unforced[best].medianOf("num_cpu_blocks")
		})
		r.Best = r.Cells[best].Params
		r.Verdict = swapVerdict(r.Cells, best)
	}
	label := func(c *Cell) string {
		text := fmt.Sprint(c.Params["swap_space"], " GiB")
		if isForced(c) {
			text += fmt.Sprint(", forced, ", c.Params["max_num_seqs"], " seqs")
		}
		return text
	}
	r.Plots = []Plot{
		barsOver(r.Cells, label, "throughput", "Throughput over swap space", "output tokens/s", "output_throughput"),
		barsOver(r.Cells, label, "latency", "Latency over swap space", "ms", "median_e2el_ms", "p99_e2el_ms"),
		tradeOff(r.Cells, label),
	}
	return r, err
}

// swapArms are the sizes of the swap pool under the preemption mode in force, and
// with the largest the forced one: with all sequences that there may be, and with no
// more than the pool holds.
func swapArms(values []int64, base engine.Limits, load Load, fits int) []*arm {
	var arms []*arm
	add := func(space int64, mode string, watermark float64, seqs int) {
		l := engine.Limits{SwapSpace: space, PreemptionMode: mode, Watermark: watermark, MaxNumSeqs: seqs}
		if space == 0 {
			l.SwapSpace = -1
		}
		if watermark == 0 {
			l.Watermark = -1
		}
		arms = append(arms, &arm{limits: l, load: load, params: map[string]any{
			"swap_space": gib(space), "preemption_mode": mode, "watermark": watermark, "max_num_seqs": seqs,
		}})
	}
	mode, watermark := base.PreemptionMode, max(base.Watermark, 0)
	for _, v := range values {
		add(v, mode, watermark, base.MaxNumSeqs)
	}
	if last := values[len(values)-1]; last > 0 {
		if mode != "swap" || watermark != 0 {
			add(last, "swap", 0, base.MaxNumSeqs)
		}
		if fits < base.MaxNumSeqs {
			add(last, "swap", 0, fits)
		}
	}
	return arms
}

// isForced says whether a cell swaps whatever is short.
func isForced(c *Cell) bool {
	return c.Params["preemption_mode"] == "swap" && c.Params["watermark"] == 0.0
}

// swapFree says that whatever was to be swapped had room. Without a pool nothing ever is.
func swapFree(c *Cell) bool {
	return c.never("num_preemptions") || c.never("swap_pool_full") && c.Metrics["num_cpu_blocks"].Min > 0
}

// gib is a size in GiB.
func gib(bytes int64) float64 { return float64(bytes) / (1 << 30) }

// tradeOff plots throughput against the latency of the slowest requests.
func tradeOff(cells []Cell, label func(*Cell) string) Plot {
	s := Series{Name: "cells", Style: Points}
	for i := range cells {
		if c := &cells[i]; c.measured() {
			s.X, s.Y = append(s.X, c.medianOf("p99_e2el_ms")), append(s.Y, c.medianOf("output_throughput"))
			s.Labels = append(s.Labels, label(c))
		}
	}
	return Plot{Name: "tradeoff", Title: "Throughput against p99 latency", XLabel: "p99 of a request's time, ms", YLabel: "output tokens/s", Series: []Series{s}}
}

// swapVerdict says what the swap pool is worth, how much of it is used, and what
// forced swapping does.
func swapVerdict(cells []Cell, best int) string {
	var b strings.Builder
	c := &cells[best]
	fmt.Fprintf(&b, "swap_space %v GiB is enough: %s output tok/s, p99 latency %s ms. ", c.Params["swap_space"], shortValue(c.medianOf("output_throughput")), shortValue(c.medianOf("p99_e2el_ms")))
	peak, none := 0.0, -1
	for i := range cells {
		peak = max(peak, cells[i].Metrics["peak_swap_bytes"].Max)
		if cells[i].Params["swap_space"] == 0.0 && cells[i].measured() {
			none = i
		}
	}
	switch {
	case none < 0:
	case cells[none].medianOf("num_preemptions") == 0 && cells[none].medianOf("waiting_for_blocks") < 0.05:
		b.WriteString("The pool is not tight for these requests: nothing is preempted, so swapping has nothing to do. ")
	case best == none:
		fmt.Fprintf(&b, "Without a swap pool sequences are computed again %s, which costs nothing beyond the spread here. ", counted(cells[none].medianOf("preemptions_recompute"), "time"))
	default:
		fmt.Fprintf(&b, "Without a swap pool sequences are computed again %s, throughput is %s. ", counted(cells[none].medianOf("preemptions_recompute"), "time"), times(cells[none].Metrics["output_throughput"], c.Metrics["output_throughput"]))
	}
	for i := best + 1; i < len(cells); i++ {
		if cells[i].measured() && cells[i].medianOf("num_cpu_blocks") == c.medianOf("num_cpu_blocks") && !isForced(&cells[i]) {
			fmt.Fprintf(&b, "%v GiB and more give no larger a swap pool: its %.0f blocks are four times the KV pool's, and more could not be used. ", cells[i].Params["swap_space"], c.medianOf("num_cpu_blocks"))
			break
		}
	}
	if peak > 0 {
		fmt.Fprintf(&b, "At most %s of it were in use: more than that is never touched. ", formatBinary(peak))
	}
	b.WriteString(forcedVerdict(cells))
	return strings.TrimSpace(b.String())
}

// forcedVerdict compares forced swapping of all sequences with no more sequences
// than the pool holds.
func forcedVerdict(cells []Cell) string {
	n := len(cells)
	if n < 2 || !isForced(&cells[n-1]) || !isForced(&cells[n-2]) || !cells[n-1].measured() || !cells[n-2].measured() {
		return ""
	}
	all, few := &cells[n-2], &cells[n-1]
	text := fmt.Sprintf("Admitting all that comes and swapping whatever is short (--preemption-mode swap --watermark 0): %s out, %s moved, requests wait for blocks %.0f %% of the time; against max_num_seqs %v, which is what the pool holds, throughput is %s",
		counted(all.medianOf("preemptions_swap"), "swap"), formatBinary(all.medianOf("swap_out_bytes")+all.medianOf("swap_in_bytes")), 100*all.medianOf("waiting_for_blocks"),
		few.Params["max_num_seqs"], times(all.Metrics["output_throughput"], few.Metrics["output_throughput"]))
	switch {
	case below(all.Metrics["output_throughput"], few.Metrics["output_throughput"]):
		return text + ": too many sequences swap."
	case below(few.Metrics["output_throughput"], all.Metrics["output_throughput"]):
		return text + ": a larger batch is worth the swapping."
	}
	return text + "."
}
