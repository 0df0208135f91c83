package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/pagoda-engine/pagoda/bench"
)

func memoryCommand() *cobra.Command {
	var x experiment
	var o bench.MemoryOptions
	cmd := x.command("memory", "How much of the device's memory to use",
		`Measure shares of the device's memory on one loaded engine: the KV pool that each
gives, throughput, preemptions and swap. A share that does not fit is a result: the
last one that fits is looked for in smaller steps. On a CPU, whose memory is a matter
of choice, a device is pretended on which these requests just fit at 0.9, unless
--memory-limit says how large it is.`,
		"  pagoda bench memory demo\n  pagoda bench memory MODEL --memory-limit 24GiB --gpu-memory-utilization 0.8,0.9,0.95", []string{"gpu-memory-utilization"},
		func(cmd *cobra.Command, model string) error {
			return x.run(cmd, model, func(ctx context.Context, e bench.Tunable) (*bench.Report, error) {
				o.CellOptions = x.options
				return bench.Memory(ctx, e, o)
			})
		})
	cmd.Flags().Float64SliceVar(&o.Utilizations, "gpu-memory-utilization", []float64{0.7, 0.8, 0.9, 0.95}, "shares of the device's memory to measure")
	addNegations(cmd.Flags())
	return cmd
}
