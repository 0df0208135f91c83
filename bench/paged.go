package bench

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/kvcache"
)

// PagedOptions configure Paged. Zero values are defaults.
type PagedOptions struct {
	CellOptions
	Choices int     // of the requests with several choices; default 4
	Share   float64 // of the blocks that the requests need at most, in the cell with a tight pool; default 0.5
}

// Paged measures what PagedAttention does with the KV memory: how full its blocks
// are, what contiguous allocation would have wasted on the same requests, what
// prefix sharing and forked choices save, and what happens when blocks run short.
func Paged(ctx context.Context, e Tunable, o PagedOptions) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	info := e.Info()
	o.Load.fill(loadOf(info, Load{Requests: 24, PromptTokens: 128, OutputTokens: 128, RangeRatio: 0.5},
		Load{Requests: 128, PromptTokens: 256, OutputTokens: 128, RangeRatio: 0.5}))
	if o.Load.SharedPrefix == 0 {
		o.Load.SharedPrefix = max(o.Load.PromptTokens*3/4/info.BlockSize*info.BlockSize, o.Load.PromptTokens/2)
	}
	if o.Choices <= 0 {
		o.Choices = 4
	}
	if o.Share <= 0 {
		o.Share = 0.5
	}
	if err := o.Load.check(info); err != nil {
		return nil, err
	}
	c := newCells(e, o.CellOptions)
	defer c.restore()
	arms := c.pagedArms(o)
	err := c.measure(ctx, "paged", arms, c.o.Repeats)
	for _, a := range arms {
		a.contiguous(info)
	}
	r := c.report("paged", "paged: what the KV blocks hold, and what sharing saves", o.Load, arms)
	r.Columns = []string{"kv_block_utilization", "internal_fragmentation", "contiguous_waste", "prefix_hit_rate", "shared_bytes_saved", "copied_blocks", "swap_out_bytes", "output_throughput"}
	if len(r.Cells) == len(arms) && firstMeasured(r.Cells) == 0 {
		r.Verdict = pagedVerdict(r.Cells, info) // none is best: they are other requests, not settings
	}
	r.Plots = pagedPlots(arms, info)
	return r, err
}

// pagedArms are the requests without a common prefix, with it, with several choices
// each, and with it on a pool that is too small.
func (c *cells) pagedArms(o PagedOptions) []*arm {
	info := c.e.Info()
	add := func(shared, choices, blocks int) *arm {
		load := o.Load
		load.SharedPrefix, load.Choices = shared, choices
		load.Requests = max(load.Requests/choices, 1)
		a := &arm{load: load, watchBlocks: true, params: map[string]any{"shared_prefix": shared, "n": choices}}
		// A cell whose pool is not the subject has one that all of it fits, and no larger
		// than a picture can show.
		a.limits.NumGPUBlocksOverride = blocks
		// A prefix can be shared once it is computed: not by prompts of the same step.
		a.limits.MaxNumBatchedTokens = min(c.base.MaxNumBatchedTokens, max(o.Load.Requests*o.Load.PromptTokens/12, c.base.MaxNumSeqs))
		a.params["num_gpu_blocks_override"] = blocks
		return a
	}
	vocab := info.SampleVocab
	plain := o.Load
	plain.SharedPrefix = 0
	ample := peakBlocks(plain.workload(c.o.Seed, vocab), info.BlockSize, info.MaxNumSeqs, 0)
	tight := peakBlocks(o.Load.workload(c.o.Seed, vocab), info.BlockSize, info.MaxNumSeqs, o.Load.SharedPrefix)
	longest := int(float64(o.Load.PromptTokens+o.Load.OutputTokens)*(1+o.Load.RangeRatio))/info.BlockSize + 2
	ample = min(ample+ample/10, max(info.NumBlocks, longest))
	tight = min(max(int(o.Share*float64(tight)), longest), ample)
	return []*arm{add(0, 1, ample), add(o.Load.SharedPrefix, 1, ample), add(o.Load.SharedPrefix, o.Choices, ample), add(o.Load.SharedPrefix, 1, tight)}
}

// contiguous adds what an engine that reserves max_model_len contiguous slots for
// each running sequence would have wasted on the arm's last repeat.
func (a *arm) contiguous(info engine.Info) {
	if len(a.trace) == 0 {
		return
	}
	var held, reserved float64
	for i := range a.trace {
		t := &a.trace[i]
		// Without sharing each sequence would hold its own copy.
		held += t.took.Seconds() * float64(t.slots+t.saved*info.BlockSize)
		reserved += t.took.Seconds() * float64(t.running*info.MaxModelLen)
	}
	if reserved == 0 {
		return
	}
	last := a.runs[len(a.runs)-1]
	last["contiguous_waste"] = math.Max(0, 1-held/reserved)
	last["contiguous_max_concurrency"] = math.Floor(last["num_gpu_blocks"] * float64(info.BlockSize) / float64(info.MaxModelLen))
}

// pagedVerdict says what blocks, sharing and forks save.
func pagedVerdict(cells []Cell, info engine.Info) string {
	plain, shared, forked, tight := &cells[0], &cells[1], &cells[2], &cells[3]
	var b strings.Builder
	utilization := plain.medianOf("kv_block_utilization")
	word := "above"
	if utilization <= 0.9 {
		word = "below"
	}
	fmt.Fprintf(&b, "KV block utilization is %.1f %% (%s the 90 %% that are wanted), internal fragmentation %.1f %%: only the last block of %d tokens of a sequence is partly empty. ",
		100*utilization, word, 100*plain.medianOf("internal_fragmentation"), info.BlockSize)
	fmt.Fprintf(&b, "Contiguous allocation of max_model_len %d would waste %.1f %% on the same trace: this pool would hold %s at once instead of the %.0f that ran. ",
		info.MaxModelLen, 100*plain.medianOf("contiguous_waste"), counted(plain.medianOf("contiguous_max_concurrency"), "sequence"), plain.medianOf("peak_running"))
	fmt.Fprintf(&b, "A common prefix of %v tokens: hit rate %.0f %% of the prompts' tokens, up to %s saved, throughput is %s. ", shared.Params["shared_prefix"],
		100*shared.medianOf("prefix_hit_rate"), formatBinary(shared.medianOf("shared_bytes_saved")), times(shared.Metrics["output_throughput"], plain.Metrics["output_throughput"]))
	fmt.Fprintf(&b, "%v choices a prompt share its blocks, up to %s saved; %.0f blocks were copied on write. ", forked.Params["n"], formatBinary(forked.medianOf("shared_bytes_saved")), forked.medianOf("copied_blocks"))
	fmt.Fprintf(&b, "On %v blocks: %s, %s swapped out and %s in.", tight.Params["num_gpu_blocks_override"],
		counted(tight.medianOf("num_preemptions"), "preemption"), formatBinary(tight.medianOf("swap_out_bytes")), formatBinary(tight.medianOf("swap_in_bytes")))
	return b.String()
}

// pagedPlots draws utilization and waste over time, the pool's use, and maps of the
// blocks at the fullest moment.
func pagedPlots(arms []*arm, info engine.Info) []Plot {
	names := []string{"no common prefix", "common prefix", "several choices", "tight pool"}
	utilization := Plot{Name: "utilization", Title: "KV block utilization over time", XLabel: "seconds", YLabel: "share of allocated slots that hold tokens"}
	contiguous := Plot{Name: "waste", Title: "Wasted KV memory over time, without a common prefix", XLabel: "seconds", YLabel: "share of the reserved slots"}
	usage := Plot{Name: "usage", Title: "KV pool in use over time", XLabel: "seconds", YLabel: "share of the blocks"}
	for i, a := range arms {
		if len(a.trace) == 0 {
			continue
		}
		utilization.Series = append(utilization.Series, overSteps(a.trace, names[i], func(m *moment) float64 { return m.utilization(info.BlockSize) }))
		usage.Series = append(usage.Series, overSteps(a.trace, names[i], func(m *moment) float64 { return m.usage() }))
	}
	if trace := arms[0].trace; len(trace) > 0 {
		contiguous.Series = []Series{
			overSteps(trace, fmt.Sprintf("contiguous, max_model_len %d", info.MaxModelLen), func(m *moment) float64 {
				if m.running == 0 {
					return -1
				}
				return max(0, 1-float64(m.slots+m.saved*info.BlockSize)/float64(m.running*info.MaxModelLen))
			}),
			overSteps(trace, fmt.Sprintf("blocks of %d", info.BlockSize), func(m *moment) float64 { return max(-1, 1-m.utilization(info.BlockSize)) }),
		}
	}
	plots := []Plot{utilization, contiguous, usage}
	for i, a := range arms {
		if len(a.blocks) > 0 {
			plots = append(plots, blockMap(fmt.Sprintf("blocks-%d", i+1), "KV blocks at the fullest moment seen: "+names[i], a.blocks))
		}
	}
	return plots
}

// blockMap draws a pool, a cell a block, in the order of their ids.
func blockMap(name, title string, blocks []engine.BlockState) Plot {
	p := Plot{Name: name, Title: title, Series: []Series{
		{Name: "cached"}, {Name: "being filled"}, {Name: "full"}, {Name: "shared"}, {Name: "being copied"},
	}, Caption: fmt.Sprintf("%d blocks, left to right and top to bottom by their id; grey ones are free.", len(blocks))}
	columns := max(16, int(math.Ceil(math.Sqrt(float64(len(blocks))*3))))
	for len(blocks) > 0 {
		row := make([]int, min(columns, len(blocks)))
		for i := range row {
			row[i] = blockKind(&blocks[i])
		}
		p.Grid = append(p.Grid, row)
		blocks = blocks[len(row):]
	}
	return p
}

// blockKind is the series of blockMap that a block belongs to; −1 = it is free.
func blockKind(b *engine.BlockState) int {
	switch {
	case b.Refs > 1:
		return 3
	case b.Refs == 1 && b.Published:
		return 2
	case b.Refs == 1:
		return 1
	case b.State == kvcache.Cached:
		return 0
	case b.State == kvcache.InFlight:
		return 4
	}
	return -1
}
