package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pagoda-engine/pagoda/bench"
	"github.com/pagoda-engine/pagoda/engine"
)

// peersFlags are the flags of pagoda bench peers.
type peersFlags struct {
	engineFlags
	options   bench.PeersOptions
	outputDir string
	manifest  *bench.Manifest // of the first engine
}

func peersCommand() *cobra.Command {
	var f peersFlags
	cmd := &cobra.Command{
		Use:   "peers [MODEL…]",
		Short: "Beside vLLM on an H200, and beside what the card would allow",
		Long: `Measure models as vLLM was measured on an NVIDIA H200, by the same protocol, and print
Pagoda, vLLM, times as fast, the floor, and what is wanted. Without MODEL: the shapes
vLLM was measured with, with random weights. vLLM's figures are in the binary; a model
of another shape has none beside it.

Rows:
  start      a process of its own, pagoda run, to its first token
  decode     prompts of 1,024 tokens in the prefix cache, the steps from 1,056
             to 1,312 tokens of context: their time, the host's, idle time
  ttft       first token of prompts of 128 to 30,000 tokens, one at a time
  prefix     the same with the prompt in the prefix cache
  prefill    64 prompts of 1,024 tokens at once
  requests   256 requests of 100 to 1,024 tokens in and out, all at once
  sweep      512 requests of 512 tokens in, 256 out, at several max_num_seqs
  swap       copies to the host and back, and what they cost decode beside them

What does not fit the card or its KV pool, or fails, is skipped and says why. On a CPU
--shrink makes every row smaller.`,
		Example: `  pagoda bench peers
  pagoda bench peers qwen2.5-7b --load-format dummy --rows decode --batch-sizes 1,64
  pagoda bench peers demo --shrink 16 --batch-sizes 1,4`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	f.register(cmd.Flags(), 1024)
	flags := cmd.Flags()
	flags.StringSliceVar(&f.options.Rows, "rows", nil, "what to measure: "+strings.Join(bench.PeerRows(), ",")+" (default: what vLLM was measured at)")
	flags.IntSliceVar(&f.options.Batches, "batch-sizes", []int{1, 16, 32, 64, 128, 256, 512}, "batch sizes of the decode rows")
	flags.IntVar(&f.options.Repeats, "repeats", 2, "repeats of each row")
	flags.IntVar(&f.options.Shrink, "shrink", 1, "divide the tokens and requests of every row by this; nothing is compared with vLLM then")
	flags.StringVar(&f.outputDir, "output-dir", "./peers", "folder of the report: report.json, report.html, pictures")
	addNegations(flags)
	return cmd
}

func (f *peersFlags) check(cmd *cobra.Command) error {
	if f.options.Repeats < 1 {
		return usageError{fmt.Errorf("--repeats %d: want at least 1", f.options.Repeats)}
	}
	if f.outputDir == "" {
		return usageError{errors.New("--output-dir: name a folder")}
	}
	if f.traceFile != "" {
		return usageError{errors.New("--trace-file: this command starts several engines, each would overwrite it; use run or serve")}
	}
	if _, err := f.resolve(cmd, ""); err != nil {
		return err
	}
	return f.options.Check()
}

func (f *peersFlags) run(cmd *cobra.Command, models []string) (err error) {
	if err := f.check(cmd); err != nil {
		return err
	}
	if len(models) == 0 {
		models = bench.PeerModels()
		if err := cmd.Flags().Set("load-format", "dummy"); err != nil {
			return err
		}
	}
	undo, err := makeFolder(f.outputDir)
	if err != nil {
		return usageError{fmt.Errorf("--output-dir: %w", err)}
	}
	defer func() {
		if err != nil {
			undo()
		}
	}()
	progress := newProgress(f.quiet)
	f.options.Progress = progress.count
	f.options.Start = func(ctx context.Context, model string) (time.Duration, error) {
		return firstToken(ctx, f.runArguments(cmd, model))
	}
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	open := func(model string) (bench.PeersEngine, error) {
		progress.finish()
		s, err := f.open(cmd, model)
		if err != nil {
			return nil, err
		}
		if f.manifest == nil {
			m := bench.NewManifest(version, os.Args, s.engine)
			f.manifest = &m
		}
		return openSession{s.engine, s}, nil
	}
	report, err := bench.Peers(ctx, models, open, f.options)
	progress.finish()
	if report == nil {
		return err
	}
	f.describe(report, models)
	report.Print(cmd.OutOrStdout())
	if e := report.Write(f.outputDir); e != nil {
		return errors.Join(err, e)
	}
	if !f.quiet {
		fmt.Fprintf(os.Stderr, "report: %s\n", f.outputDir)
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("interrupted; %s has what was done", f.outputDir)
	}
	return err
}

// describe completes the report's manifest. What follows from a model is only there
// when there is one.
func (f *peersFlags) describe(r *bench.Report, models []string) {
	if f.manifest == nil {
		r.Manifest.Command = bench.CommandLine(os.Args)
		return
	}
	own := r.Manifest.EffectiveFlags
	r.Manifest = *f.manifest
	for name, value := range own {
		r.Manifest.EffectiveFlags[name] = value
	}
	if len(models) > 1 {
		r.Manifest.EffectiveFlags["model"] = strings.Join(models, ", ")
		for _, name := range []string{"num_gpu_blocks", "swap_space", "max_model_len"} {
			delete(r.Manifest.EffectiveFlags, name)
		}
	}
}

// runArguments are the words of a pagoda run with the same engine.
func (f *peersFlags) runArguments(cmd *cobra.Command, model string) []string {
	args := []string{"run", model, "1 2 3", "--max-tokens", "1", "--ignore-eos", "--quiet", fmt.Sprintf("--max-num-seqs=%d", f.config.MaxNumSeqs)}
	known := runCommand().Flags()
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if known.Lookup(flag.Name) == nil || flag.Name == "quiet" || flag.Name == "max-num-seqs" || flag.Name == configFlag {
			return
		}
		value := flag.Value.String()
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			value = strings.Join(list.GetSlice(), ",")
		}
		args = append(args, "--"+flag.Name+"="+value)
	})
	return args
}

// firstToken starts this program with arguments and returns the time to the first
// byte that it prints.
func firstToken(ctx context.Context, args []string) (time.Duration, error) {
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	child := exec.CommandContext(ctx, program, args...)
	var stderr bytes.Buffer
	child.Stderr = &stderr
	out, err := child.StdoutPipe()
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := child.Start(); err != nil {
		return 0, err
	}
	_, failed := io.ReadFull(out, make([]byte, 1))
	took := time.Since(begin)
	_, _ = io.Copy(io.Discard, out) // the rest of the answer
	err = child.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.As(err, &exit) && exit.ExitCode() == exitMemory:
		return 0, fmt.Errorf("%w: pagoda %s: %s", engine.ErrMemory, strings.Join(args, " "), strings.TrimSpace(stderr.String()))
	case err != nil || failed != nil:
		return 0, fmt.Errorf("pagoda %s: %w: %s", strings.Join(args, " "), errors.Join(err, failed), strings.TrimSpace(stderr.String()))
	}
	return took, nil
}
