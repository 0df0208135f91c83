package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pagoda-engine/pagoda/bench"
	"github.com/pagoda-engine/pagoda/engine"
)

// profileFlags are the flags of pagoda bench profile.
type profileFlags struct {
	engineFlags
	options   bench.ProfileOptions
	traceMB   float64
	outputDir string
}

func profileCommand() *cobra.Command {
	var f profileFlags
	cmd := &cobra.Command{
		Use:   "profile MODEL",
		Short: "Where the time of a step goes: operations, kernels, copies, gaps, roofline",
		Long: `Run prompts and then decoding at several batch sizes under the profiler, a bounded
number of steps each. Printed for each part: how busy and how occupied the device was,
copies, gaps by their cause, and each operation's time, bytes, FLOPs and share of the
roofline. Gaps are the device's idle time by what the host did meanwhile: host
(scheduling, packing, delivering), launch (issuing operations), sync (waiting).

Traces go to a folder a part in --profile-dir:

  tensorboard --logdir ./profiles      with the Python package torch-tb-profiler
  https://ui.perfetto.dev              opens each .pt.trace.json

On a GPU kernels are timed by CUPTI where libcupti.so.13 is installed, else operations
by CUDA events, and steps then run operation by operation, not as CUDA graphs.`,
		Example: `  pagoda bench profile demo
  pagoda bench profile qwen2.5-0.5b --load-format dummy --batch-sizes 1,16 --steps 4`,
		Args: exactly(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.register(cmd.Flags(), 256)
	flags := cmd.Flags()
	flags.IntSliceVar(&f.options.Batches, "batch-sizes", []int{1, 8, 32}, "decode batch sizes")
	flags.IntVar(&f.options.PromptTokens, "prompt-tokens", 256, "tokens of a prefilled prompt")
	flags.IntVar(&f.options.ContextTokens, "context-tokens", 64, "tokens of the prompts before decoding")
	flags.IntVar(&f.options.Steps, "steps", 12, "steps of each part")
	flags.DurationVar(&f.options.PartTime, "max-part-time", 15*time.Second, "longest time of a part")
	flags.Float64Var(&f.traceMB, "max-trace-mb", 12, "largest size of a trace in MB; later steps are left out")
	flags.StringVar(&f.options.Dir, "profile-dir", "./profiles", "directory for traces")
	flags.StringVar(&f.outputDir, "output-dir", "./profile", "directory for report.json, report.html and pictures")
	addNegations(flags)
	return cmd
}

func (f *profileFlags) check() error {
	o := &f.options
	for _, b := range o.Batches {
		if b < 1 || b > f.config.MaxNumSeqs {
			return usageError{fmt.Errorf("--batch-sizes %d: want 1 to --max-num-seqs %d", b, f.config.MaxNumSeqs)}
		}
	}
	if o.PromptTokens < 1 || o.ContextTokens < 1 || o.Steps < 1 || o.PartTime <= 0 || f.traceMB <= 0 {
		return usageError{errors.New("--prompt-tokens, --context-tokens, --steps, --max-part-time and --max-trace-mb must be greater than 0")}
	}
	if o.Steps > 100_000 {
		return usageError{fmt.Errorf("--steps %d: want at most 100000", o.Steps)}
	}
	return nil
}

func (f *profileFlags) run(cmd *cobra.Command, model string) (err error) {
	if err := f.check(); err != nil {
		return err
	}
	undoReport, err := makeFolders(map[string]string{"output-dir": f.outputDir})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			undoReport()
		}
	}()
	o := f.options
	o.MaxTraceBytes = int64(f.traceMB * 1e6)
	if undo, failed := makeFolder(o.Dir); failed == nil { // else CheckProfileDir says what to do
		defer func() {
			if err != nil {
				undo()
			}
		}()
	}
	// A full disk costs the traces alone; a wrong directory is told before a model loads.
	full := engine.CheckProfileDir(o.Dir)
	switch {
	case errors.Is(full, syscall.ENOSPC), errors.Is(full, syscall.EDQUOT):
		fmt.Fprintf(os.Stderr, "warning: %v; profiling without traces\n", full)
		o.Dir = ""
	case full != nil:
		return full
	}
	s, err := f.open(cmd, model)
	if err != nil {
		return err
	}
	defer s.close()
	if longest := max(o.PromptTokens, o.ContextTokens+o.Steps); longest >= s.engine.Info().MaxModelLen {
		return usageError{fmt.Errorf("--prompt-tokens %d, --context-tokens %d and --steps %d do not fit max-model-len %d", o.PromptTokens, o.ContextTokens, o.Steps, s.engine.Info().MaxModelLen)}
	}
	progress := newProgress(f.quiet)
	o.Progress = func(done, total int) { progress.update("profile", int64(done), int64(total)) }
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	result, err := bench.Profile(ctx, s.engine, o)
	progress.finish()
	if result == nil {
		return err
	}
	result.Print(cmd.OutOrStdout()) // what there is, also after an interruption
	if err != nil {
		return err
	}
	report := result.Report()
	report.Manifest = bench.NewManifest(version, os.Args, s.engine)
	if err := report.Write(f.outputDir); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "report: %s/report.html\n", f.outputDir)
	if o.Dir != "" {
		fmt.Fprintf(cmd.OutOrStdout(), "traces: tensorboard --logdir %s, or https://ui.perfetto.dev\n", o.Dir)
	}
	return cmp.Or(full, result.Trouble())
}
