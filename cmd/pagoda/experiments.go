package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pagoda-engine/pagoda/bench"
)

func memoryCommand() *cobra.Command {
	var x experiment
	var o bench.MemoryOptions
	cmd := x.command(&o.CellOptions, "memory", "How much of the device's memory to use",
		`Measure shares of the device's memory on one loaded engine: the KV pool that each
gives, throughput, preemptions and swap. A share that does not fit is a result: the
last one that fits is looked for in smaller steps. On a CPU, whose memory is a matter
of choice, a device is pretended on which these requests just fit at 0.85, unless
--memory-limit says how large it is.`,
		"  pagoda bench memory demo\n  pagoda bench memory MODEL --memory-limit 24GiB --gpu-memory-utilization 0.8,0.9,0.95", []string{"gpu-memory-utilization"},
		func(cmd *cobra.Command, model string) error {
			if err := x.noPoolSize(); err != nil {
				return err
			}
			if len(o.Utilizations) > 0 { // the least of them may have no room for anything
				x.config.GPUMemoryUtilization = slices.Max(o.Utilizations)
			}
			return x.run(cmd, model, &o, func(ctx context.Context, e bench.Tunable) (*bench.Report, error) {
				return bench.Memory(ctx, e, o)
			})
		})
	cmd.Flags().Float64SliceVar(&o.Utilizations, "gpu-memory-utilization", []float64{0.7, 0.8, 0.9, 0.95}, "shares of the device's memory to measure")
	addNegations(cmd.Flags())
	return cmd
}

func seqsCommand() *cobra.Command {
	var x experiment
	var o bench.SeqsOptions
	cmd := x.command(&o.CellOptions, "seqs", "How many sequences to run at once",
		`Measure values of max_num_seqs on one loaded engine: throughput, time of a token,
queueing, use of the KV pool, preemptions. The sweet spot is the smallest value that the
best does not beat, neither beyond the spread nor by 5 % in the median with no repeat
that says otherwise; values beyond
one that was never reached run the same and do not count. Printed is why it ends there:
compute, KV blocks, swapping, or demand.`,
		"  pagoda bench seqs demo\n  pagoda bench seqs demo --max-num-seqs 1,2,4,8,16,32 --num-gpu-blocks-override 150", []string{"max-num-seqs"},
		func(cmd *cobra.Command, model string) error {
			x.config.MaxNumSeqs = 1
			if x.tries.seqs = o.MaxNumSeqs; len(o.MaxNumSeqs) == 0 {
				x.tries.seqs = bench.DefaultMaxNumSeqs(true) // it is not known yet what it runs on
			}
			return x.run(cmd, model, &o, func(ctx context.Context, e bench.Tunable) (*bench.Report, error) {
				return bench.Seqs(ctx, e, o)
			})
		})
	cmd.Flags().IntSliceVar(&o.MaxNumSeqs, "max-num-seqs", nil, "values to measure (default 64,128,256,512,1024, on a CPU also 4 and 16)")
	addNegations(cmd.Flags())
	return cmd
}

func swapCommand() *cobra.Command {
	var x experiment
	var o bench.SwapOptions
	spaces := sizeList{unit: 1 << 30}
	cmd := x.command(&o.CellOptions, "swap", "How much host memory to give to swapped sequences",
		`Measure sizes of the swap pool on a KV pool that is too small for the requests:
throughput against the latency of the slowest. The last two cells swap whatever is
short (--preemption-mode swap --watermark 0), one with all the requests at once and
one with no more than the pool holds: what too many sequences cost.`,
		"  pagoda bench swap demo\n  pagoda bench swap demo --swap-space 0,2MiB,8MiB,4 --share 0.25", []string{"swap-space"},
		func(cmd *cobra.Command, model string) error {
			o.SwapSpaces = spaces.bytes
			if len(o.SwapSpaces) > 0 {
				x.swapSpace.bytes = slices.Max(o.SwapSpaces)
			}
			return x.run(cmd, model, &o, func(ctx context.Context, e bench.Tunable) (*bench.Report, error) {
				return bench.Swap(ctx, e, o)
			})
		})
	cmd.Flags().Var(&spaces, "swap-space", "sizes of the swap pool in GiB or with a unit, such as 0,512MiB,4 (default 0,4,8,16)")
	cmd.Flags().Float64Var(&o.Share, "share", 0.12, "size of the KV pool, as a share of the blocks that the requests need at most, unless its size is given")
	addNegations(cmd.Flags())
	return cmd
}

func pagedCommand() *cobra.Command {
	var x experiment
	var o bench.PagedOptions
	cmd := x.command(&o.CellOptions, "paged", "What the KV blocks hold, and what sharing saves",
		`Measure what PagedAttention does with the KV memory: utilization of the blocks and
internal fragmentation over time, the waste of contiguous allocation of max_model_len on
the same trace, and what a common prefix and several choices of a prompt save; on a pool
that is too small, too. The report has a picture of the block map.`,
		"  pagoda bench paged demo\n  pagoda bench paged demo --block-size 64 --shared-prefix 32", nil,
		func(cmd *cobra.Command, model string) error {
			return x.run(cmd, model, &o, func(ctx context.Context, e bench.Tunable) (*bench.Report, error) {
				return bench.Paged(ctx, e, o)
			})
		})
	cmd.Flags().IntVar(&o.Choices, "n", 4, "choices of a prompt, in the cell about them")
	cmd.Flags().Float64Var(&o.Share, "share", 0.5, "size of the tight pool, as a share of the blocks that the requests need at most")
	addNegations(cmd.Flags())
	return cmd
}
