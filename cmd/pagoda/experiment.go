package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pagoda-engine/pagoda/bench"
	"github.com/pagoda-engine/pagoda/engine"
)

// experiment is a command that measures one loaded model in several settings and
// writes a report.
type experiment struct {
	engineFlags
	options   *bench.CellOptions
	outputDir string
	p99ITL    float64 // ms
	p99TTFT   float64
	// Values that the experiment is going to try. The engine reserves addresses for the
	// largest when it starts.
	tries struct{ seqs, tokens []int }
	// beside is a second report, for the folder baseline in the first one's; nil = none.
	beside *bench.Report
}

// command makes a subcommand whose default folder is ./NAME and whose options are o.
// varied are the engine's flags that take a list here, which run registers itself.
func (x *experiment) command(o *bench.CellOptions, name, short, long, example string, varied []string, run func(cmd *cobra.Command, model string) error) *cobra.Command {
	x.options = o
	cmd := &cobra.Command{
		Use: name + " MODEL", Short: short, Long: long, Example: example,
		Args: exactly(1, 1),
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
	repeats := 3
	if name == "baseline" || name == "optimized" {
		repeats = 5 // a verdict of bench compare wants so many
	}
	flags.IntVar(&x.options.Repeats, "repeats", repeats, "repeats of each cell, interleaved")
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
func (x *experiment) check(o checked) error {
	x.options.SLO = bench.SLO{P99ITL: millis(x.p99ITL), P99TTFT: millis(x.p99TTFT)}
	if x.options.Repeats < 1 {
		return usageError{fmt.Errorf("--repeats %d: want at least 1", x.options.Repeats)}
	}
	if x.outputDir == "" {
		return usageError{errors.New("--output-dir: name a folder")}
	}
	return o.Check()
}

// checked are options that say what is wrong with them without an engine.
type checked interface{ Check() error }

// noPoolSize refuses a size of the KV pool where the experiment varies the share of the
// memory that the pool follows from.
func (x *experiment) noPoolSize() error {
	name := "num-gpu-blocks-override"
	if x.kvCacheMemory.bytes > 0 {
		name = "kv-cache-memory-bytes"
	} else if x.config.NumGPUBlocksOverride == 0 {
		return nil
	}
	return usageError{fmt.Errorf("--%s: this command varies the KV pool with --gpu-memory-utilization; choose the size of the device with --memory-limit", name)}
}

// largest starts the engine with the largest values to try. Where the memory has no
// room for them and may have it for smaller ones, it starts with those, and the others
// are results.
func (x *experiment) largest(cmd *cobra.Command, model string) (*session, error) {
	seqs, tokens := slices.Sorted(slices.Values(x.tries.seqs)), slices.Sorted(slices.Values(x.tries.tokens))
	given := x.config
	for {
		if n := len(seqs); n > 0 {
			x.config.MaxNumSeqs = max(given.MaxNumSeqs, seqs[n-1])
		}
		if n := len(tokens); n > 0 {
			x.config.MaxNumBatchedTokens = max(given.MaxNumBatchedTokens, tokens[n-1], x.config.MaxNumSeqs)
		}
		s, err := x.open(cmd, model)
		var short *engine.MemoryError
		switch {
		case !errors.As(err, &short) || !short.Smaller:
			return s, err
		case len(tokens) > 1:
			tokens = tokens[:len(tokens)-1]
		case len(seqs) > 1:
			seqs = seqs[:len(seqs)-1]
		default:
			return s, err
		}
		x.options.NoRoom = err
	}
}

// run loads the model, measures, and writes and prints the report. A report of what
// is done is written when the measurement ends early, too.
func (x *experiment) run(cmd *cobra.Command, model string, o checked, measure func(ctx context.Context, e bench.Tunable) (*bench.Report, error)) (err error) {
	if err := x.check(o); err != nil {
		return err
	}
	x.config.MaxQueuedReqs = max(x.config.MaxQueuedReqs, 4*x.options.Load.Requests, 1<<14) // all come at once
	undo, err := makeFolder(x.outputDir)
	if err != nil {
		return usageError{fmt.Errorf("--output-dir: %w", err)}
	}
	defer func() {
		if err != nil {
			undo()
		}
	}()
	s, err := x.largest(cmd, model)
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
	if e := x.write(report, s); e != nil {
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

// write writes the reports, with what they were measured on.
func (x *experiment) write(report *bench.Report, s *session) error {
	manifest := bench.NewManifest(version, os.Args, s.engine)
	for dir, r := range map[string]*bench.Report{x.outputDir: report, filepath.Join(x.outputDir, "baseline"): x.beside} {
		if r == nil {
			continue
		}
		flags := maps.Clone(manifest.EffectiveFlags)
		maps.Copy(flags, r.Manifest.EffectiveFlags)
		r.Manifest = manifest
		r.Manifest.EffectiveFlags = flags
		if err := r.Write(dir); err != nil {
			return err
		}
	}
	return nil
}

// makeFolder makes a folder and those above it; undo removes those that it made and
// that are empty.
func makeFolder(dir string) (undo func(), err error) {
	var made []string
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
		made = append(made, at)
	}
	undo = func() {
		for _, at := range made {
			_ = os.Remove(at) // one with something in it stays
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}

// makeFolders is makeFolder of several flags' folders; "" is none.
func makeFolders(byFlag map[string]string) (undo func(), err error) {
	var undos []func()
	undo = func() {
		for _, f := range undos {
			f()
		}
	}
	for flag, dir := range byFlag {
		if dir == "" {
			continue
		}
		one, err := makeFolder(dir)
		if err != nil {
			undo()
			return nil, usageError{fmt.Errorf("--%s: %w", flag, err)}
		}
		undos = append(undos, one)
	}
	return undo, nil
}

func millis(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

func baselineCommand() *cobra.Command {
	var x experiment
	var o bench.BaselineOptions
	cmd := x.command(&o.CellOptions, "baseline", "The engine as it is, at several batch sizes",
		`Measure the engine with the parameters that it has by default, or as the flags say:
a single request, 16 and 32 at a time. The other experiments start from here.`,
		"  pagoda bench baseline demo\n  pagoda bench baseline qwen2.5-0.5b --load-format dummy --batch-sizes 1,8,64", nil,
		func(cmd *cobra.Command, model string) error {
			return x.run(cmd, model, &o, func(ctx context.Context, e bench.Tunable) (*bench.Report, error) {
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
