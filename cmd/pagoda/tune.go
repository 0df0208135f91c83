package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pagoda-engine/pagoda/bench"
	"github.com/pagoda-engine/pagoda/engine"
)

// runsFile keeps the runs of a tuning for --resume.
const runsFile = "runs.jsonl"

func tuneCommand() *cobra.Command {
	var x experiment
	var o bench.TuneOptions
	spaces := sizeList{unit: 1 << 30}
	cmd := x.command(&o.CellOptions, "tune", "Find the parameters that serve a load best",
		`Measure the model with the parameters at hand, then look for better ones: share of
the memory, sequences at once, tokens of a step and chunk, swap space; at last compare
what was found with the start. The model stays loaded. A step-time model, fitted to what
was measured, and the simulator leave out what cannot win; the rest is measured by
successive halving. The objective is throughput, or, with --p99-itl-ms or --p99-ttft-ms,
the throughput of the requests that meet them.

The folder gets the report and optimal_config.yaml, whose values have their measured
reasons beside them; pagoda serve --config reads it. Ctrl-C keeps what is done, --resume
goes on from there.`,
		"  pagoda tune demo --output-dir tuned\n  pagoda tune MODEL --memory-limit 24GiB --p99-itl-ms 50 --request-rate 8 --output-dir tuned",
		[]string{"gpu-memory-utilization", "max-num-seqs", "max-num-batched-tokens", "swap-space"},
		func(cmd *cobra.Command, model string) error {
			o.SwapSpaces = spaces.bytes
			return x.tune(cmd, model, &o)
		})
	flags := cmd.Flags()
	flags.Float64SliceVar(&o.Utilizations, "gpu-memory-utilization", []float64{0.7, 0.8, 0.9, 0.95}, "values to try")
	flags.IntSliceVar(&o.MaxNumSeqs, "max-num-seqs", []int{4, 16, 64, 128, 256, 512, 1024}, "values to try")
	flags.IntSliceVar(&o.BatchTokens, "max-num-batched-tokens", []int{256, 512, 1024, 2048, 4096, 8192, 16384}, "values to try, each with bounds on a prompt's chunk")
	flags.Var(&spaces, "swap-space", "values to try, in GiB or with a unit (default 0,4,8)")
	flags.BoolVar(&o.Resume, "resume", false, "go on with the runs that --output-dir holds")
	flags.Float64Var(&x.options.Load.Rate, "request-rate", 0, "mean of the requests' Poisson arrivals a second (0: all at once)")
	x.registerSLO(flags)
	addNegations(flags)
	return cmd
}

// tune runs bench.Tune and leaves its outcome in the folder, interrupted or not.
func (x *experiment) tune(cmd *cobra.Command, model string, o *bench.TuneOptions) error {
	if err := x.noPoolSize(); err != nil {
		return err
	}
	o.Start = x.limits()
	x.tries.seqs, x.tries.tokens = o.MaxNumSeqs, o.BatchTokens
	return x.run(cmd, model, o, func(ctx context.Context, e bench.Tunable) (*bench.Report, error) {
		withBatchedTokens(&o.Start, e)
		o.Runs = filepath.Join(x.outputDir, runsFile)
		report, config, err := bench.Tune(ctx, e, *o)
		if config == nil || err != nil && !errors.Is(err, context.Canceled) {
			return report, err // the file of an earlier search stays
		}
		if e := config.Write(x.outputDir); e != nil {
			return report, errors.Join(err, e)
		}
		if !x.quiet {
			fmt.Fprintf(os.Stderr, "parameters: %s\n", filepath.Join(x.outputDir, bench.ConfigFile))
		}
		return report, err
	})
}

func optimizedCommand() *cobra.Command {
	var x experiment
	var o bench.BaselineOptions
	cmd := x.command(&o.CellOptions, "optimized", "The baseline's benchmark with the best parameters found",
		`Measure the same as bench baseline, with the parameters of a file that pagoda tune
wrote, or that the flags say; flags win over the file. The default parameters are measured
beside them, interleaved, and the two compared; their report is in the folder baseline
inside this one. pagoda bench compare has the same for two folders.`,
		"  pagoda bench optimized demo --config tuned/optimal_config.yaml", nil,
		func(cmd *cobra.Command, model string) error {
			return x.optimized(cmd, model, &o)
		})
	registerBatchSizes(cmd.Flags(), &o.Batches)
	addNegations(cmd.Flags())
	return cmd
}

// limits are those that the flags say. max_num_batched_tokens is 0 where the device
// decides.
func (x *experiment) limits() engine.Limits {
	c := &x.config
	l := engine.Limits{
		GPUMemoryUtilization: c.GPUMemoryUtilization, MaxNumSeqs: c.MaxNumSeqs, MaxNumBatchedTokens: c.MaxNumBatchedTokens,
		MaxNumMixedTokens: c.MaxNumMixedTokens, SwapSpace: x.swapSpace.bytes, LongPrefillTokenThreshold: c.LongPrefillTokenThreshold, TargetITL: millis(x.targetITL),
	}
	if l.SwapSpace == 0 {
		l.SwapSpace = -1
	}
	if l.MaxNumMixedTokens == 0 {
		l.MaxNumMixedTokens = -1
	}
	if l.LongPrefillTokenThreshold == 0 {
		l.LongPrefillTokenThreshold = -1
	}
	if l.TargetITL == 0 {
		l.TargetITL = -1
	}
	return l
}

// withBatchedTokens fills in what the device decides.
func withBatchedTokens(l *engine.Limits, e bench.Tunable) {
	if l.MaxNumBatchedTokens == 0 {
		l.MaxNumBatchedTokens = max(engine.DefaultBatchedTokens(e.Info().Device.Backend), l.MaxNumSeqs)
	}
}

// optimized measures what the flags say and, beside it, the defaults.
func (x *experiment) optimized(cmd *cobra.Command, model string, o *bench.BaselineOptions) error {
	o.Limits = x.limits()
	var defaults experiment
	defaults.register(pflag.NewFlagSet("", pflag.ContinueOnError), 256)
	o.Against = defaults.limits()
	o.Against.NumGPUBlocksOverride, o.Against.KVCacheMemoryBytes = x.config.NumGPUBlocksOverride, x.kvCacheMemory.bytes
	o.Limits.NumGPUBlocksOverride, o.Limits.KVCacheMemoryBytes = x.config.NumGPUBlocksOverride, x.kvCacheMemory.bytes
	x.tries.seqs = []int{o.Against.MaxNumSeqs}
	x.tries.tokens = []int{engine.DefaultBatchedTokens("cpu"), engine.DefaultBatchedTokens("cuda")} // it is not known yet what it runs on
	x.config.GPUMemoryUtilization = max(o.Limits.GPUMemoryUtilization, o.Against.GPUMemoryUtilization)
	return x.run(cmd, model, o, func(ctx context.Context, e bench.Tunable) (report *bench.Report, err error) {
		withBatchedTokens(&o.Limits, e)
		withBatchedTokens(&o.Against, e)
		report, x.beside, err = bench.Optimized(ctx, e, *o)
		return report, err
	})
}
