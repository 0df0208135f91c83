package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pagoda-engine/pagoda/bench"
)

// experiment is a command that measures one loaded model in several settings and
// writes a report.
type experiment struct {
	engineFlags
	options   bench.CellOptions
	outputDir string
	given     []string // flags of the command line
	p99ITL    float64  // ms
	p99TTFT   float64
}

// command makes a subcommand whose default folder is ./NAME. varied are the engine's
// flags that take a list here, which run registers itself.
func (x *experiment) command(name, short, long, example string, varied []string, run func(cmd *cobra.Command, model string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " MODEL", Short: short, Long: long, Example: example,
		Args: exactly(1, 1), PersistentPreRunE: collectGiven(&x.given),
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd, args[0]) },
	}
	flags := cmd.Flags()
	all := pflag.NewFlagSet(name, pflag.ContinueOnError)
	x.register(all, 256)
	all.VisitAll(func(f *pflag.Flag) {
		for _, v := range varied {
			if f.Name == v {
				return
			}
		}
		flags.AddFlag(f)
	})
	flags.StringVar(&x.outputDir, "output-dir", "./"+name, "folder of the report: report.json, report.html, pictures")
	flags.IntVar(&x.options.Repeats, "repeats", 3, "repeats of each cell, interleaved")
	flags.Uint64Var(&x.options.Seed, "seed", 0, "seed of the requests")
	l := &x.options.Load
	flags.IntVar(&l.Requests, "requests", 0, "requests of a run (0: the experiment's default)")
	flags.IntVar(&l.PromptTokens, "prompt-tokens", 0, "mean prompt tokens (0: the experiment's default)")
	flags.IntVar(&l.OutputTokens, "output-tokens", 0, "mean tokens generated (0: the experiment's default)")
	flags.Float64Var(&l.RangeRatio, "random-range-ratio", 0, "lengths are drawn from mean × (1 ± ratio) (0: the experiment's default; negative: all alike)")
	flags.IntVar(&l.SharedPrefix, "shared-prefix", 0, "tokens that all prompts begin with (0: the experiment's default; negative: none)")
	return cmd
}

// registerSLO adds the latencies that goodput wants.
func (x *experiment) registerSLO(flags *pflag.FlagSet) {
	flags.Float64Var(&x.p99ITL, "p99-itl-ms", 0, "a request counts as goodput when its p99 inter-token latency is no more (0: no matter)")
	flags.Float64Var(&x.p99TTFT, "p99-ttft-ms", 0, "a request counts as goodput when its time to first token is no more (0: no matter)")
}

// check refuses what could not be measured, before a model loads.
func (x *experiment) check() error {
	l := &x.options.Load
	if x.options.Repeats < 1 || l.Requests < 0 || l.PromptTokens < 0 || l.OutputTokens < 0 || l.RangeRatio >= 1 {
		return usageError{errors.New("want --repeats of at least 1, --requests, --prompt-tokens and --output-tokens of at least 0, --random-range-ratio below 1")}
	}
	if x.p99ITL < 0 || x.p99TTFT < 0 {
		return usageError{errors.New("--p99-itl-ms and --p99-ttft-ms must not be negative")}
	}
	if x.outputDir == "" {
		return usageError{errors.New("--output-dir: name a folder")}
	}
	return nil
}

// run loads the model, measures, and writes and prints the report. A report of what
// is done is written when the measurement ends early, too.
func (x *experiment) run(cmd *cobra.Command, model string, measure func(ctx context.Context, e bench.Tunable) (*bench.Report, error)) error {
	if err := x.check(); err != nil {
		return err
	}
	x.options.SLO = bench.SLO{P99ITL: millis(x.p99ITL), P99TTFT: millis(x.p99TTFT)}
	x.config.MaxQueuedReqs = max(x.config.MaxQueuedReqs, 4*x.options.Load.Requests) // all come at once
	if err := os.MkdirAll(x.outputDir, 0o755); err != nil {
		return usageError{fmt.Errorf("--output-dir: %w", err)}
	}
	s, err := x.open(cmd, model)
	if err != nil {
		return err
	}
	defer s.close()
	progress := newProgress(x.quiet)
	x.options.Progress = progress.count
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	report, err := measure(ctx, s.engine)
	progress.finish()
	if report == nil || len(report.Cells) == 0 {
		return err
	}
	own := report.Manifest.EffectiveFlags
	report.Manifest = bench.NewManifest(version, os.Args, s.engine)
	maps.Copy(report.Manifest.EffectiveFlags, own)
	if e := report.Write(x.outputDir); e != nil {
		return errors.Join(err, e)
	}
	report.Print(cmd.OutOrStdout())
	if !x.quiet {
		fmt.Fprintf(os.Stderr, "report: %s\n", x.outputDir)
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("interrupted; %s has what was done", x.outputDir)
	}
	return err
}

func millis(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

func baselineCommand() *cobra.Command {
	var x experiment
	var o bench.BaselineOptions
	cmd := x.command("baseline", "The engine as it is, at several batch sizes",
		`Measure the engine with the parameters that it has by default, or as the flags say:
a single request, 16 and 32 at a time. The other experiments start from here.`,
		"  pagoda bench baseline demo\n  pagoda bench baseline qwen2.5-0.5b --load-format dummy --batch-sizes 1,8,64", nil,
		func(cmd *cobra.Command, model string) error {
			return x.run(cmd, model, func(ctx context.Context, e bench.Tunable) (*bench.Report, error) {
				o.CellOptions = x.options
				return bench.Baseline(ctx, e, o)
			})
		})
	registerBatchSizes(cmd.Flags(), &o.Batches)
	addNegations(cmd.Flags())
	return cmd
}

// registerBatchSizes adds the list that baseline and optimized have in common.
func registerBatchSizes(flags *pflag.FlagSet, to *[]int) {
	flags.IntSliceVar(to, "batch-sizes", []int{1, 16, 32}, "requests in flight, 1 to 256 or more")
}
