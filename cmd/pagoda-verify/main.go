package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/pagoda-engine/pagoda/engine"
)

// errTolerance: the comparison ran, and the engine is too far off.
var errTolerance = errors.New("beyond the tolerance")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "pagoda-verify: %v\n", err)
		os.Exit(exitCode(err))
	}
}

// exitCode is that of pagoda for what keeps the comparison from running: 2
// usage, 3 model, 4 memory, 5 device. It is 1 for a failed comparison.
func exitCode(err error) int {
	var usage usageError
	switch {
	case errors.As(err, &usage), errors.Is(err, engine.ErrConfig):
		return 2
	case errors.Is(err, engine.ErrModel):
		return 3
	case errors.Is(err, engine.ErrMemory):
		return 4
	case errors.Is(err, engine.ErrDevice):
		return 5
	}
	return 1
}

// usageError is a mistake on the command line.
type usageError struct{ error }

// Unwrap gives the cause.
func (e usageError) Unwrap() error { return e.error }

// options are the flags.
type options struct {
	prompts, tokens, chunk int
	tolerance              tolerance
	engine                 engine.Config
	quiet                  bool
}

func command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "pagoda-verify MODEL",
		Short: "Compare the engine's logits with an independent forward pass",
		Long: `pagoda-verify runs prompts through the engine and through a second, independent
forward pass (gomlx's pure-Go backend, float32, no KV cache) and compares the
logits after every token of every prompt.

MODEL is a directory with config.json and safetensors. The prompts are English
where it has a tokenizer.json, random ids where it has none; their lengths rise to
--tokens. They are the same in every run.

The table has, for each prompt, the largest difference of any logit and its
position, the mean difference of the log probability of the reference's likeliest
id, at how many positions both have the same likeliest id, and the first where they
do not, with the reference's gap between the two: a small gap is a tie that rounding
may decide either way.

The engine keeps KV in 16 bits and the reference in float32. That alone moves
single logits of a small model by up to 0.2 and log probabilities by 0.01 in the
mean; the default tolerances leave room for that and for little else.

The reference computes a few GFLOP/s: 160 tokens of a 135M model take half a
minute, of a 7B model half an hour. It needs the memory of a layer and 64 KiB
times hidden_size for the head, beside the engine.

Exit codes: 0 within the tolerance, 1 beyond it; 2 usage, 3 model, 4 memory, 5 device.`,
		Example: `  pagoda-verify .cache/models/smollm2-135m
  pagoda-verify Qwen2.5-0.5B-Instruct --prompts 2 --tokens 200 --device cuda`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("need one MODEL directory, got %d arguments (see pagoda-verify --help)", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.engine.Model = args[0]
			return run(cmd.Context(), o, cmd.OutOrStdout(), progress(o.quiet))
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	flags := cmd.Flags()
	flags.IntVar(&o.prompts, "prompts", 4, "number of prompts")
	flags.IntVar(&o.tokens, "tokens", 64, "tokens of the longest prompt")
	flags.IntVar(&o.chunk, "chunk", 24, "tokens that the engine computes in a step (1: every token as a decode)")
	flags.Float64Var(&o.tolerance.logit, "tolerance", 0.3, "largest difference of any logit")
	flags.Float64Var(&o.tolerance.logprob, "mean-tolerance", 0.02, "largest mean difference of log probabilities of a prompt, nats")
	flags.IntVar(&o.engine.Threads, "threads", 0, "CPU threads, of both sides (0: all cores)")
	flags.StringVar(&o.engine.Device, "device", "auto", "the engine's device: auto, cpu or cuda")
	flags.StringVar(&o.engine.CPUISA, "cpu-isa", "", "force a code path of the engine: scalar or avx512 (default: the best there is)")
	flags.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func (o options) validate() error {
	switch {
	case o.prompts < 1:
		return usageError{fmt.Errorf("--prompts %d: at least 1", o.prompts)}
	case o.tokens < 1:
		return usageError{fmt.Errorf("--tokens %d: at least 1", o.tokens)}
	case o.chunk < 1:
		return usageError{fmt.Errorf("--chunk %d: at least 1", o.chunk)}
	case o.engine.Threads < 0:
		return usageError{fmt.Errorf("--threads %d: 0 (all cores) or more", o.engine.Threads)}
	}
	return nil
}

// run compares and prints the table to out.
func run(ctx context.Context, o options, out io.Writer, progress func(stage string)) error {
	if err := o.validate(); err != nil {
		return err
	}
	if o.engine.Threads > 0 {
		runtime.GOMAXPROCS(o.engine.Threads)
	}
	source, err := openEngine(o.engine, o.tokens, o.chunk)
	if err != nil {
		return err
	}
	defer source.close()
	ref, err := openReference(o.engine.Model, progress)
	if err != nil {
		return err
	}
	defer ref.close()
	prompts, err := makePrompts(o.engine.Model, o.prompts, o.tokens, ref.cfg.Vocab)
	if err != nil {
		return err
	}
	want, err := ref.logits(ctx, prompts)
	if err != nil {
		return err
	}
	list, err := compareAll(ctx, source, prompts, want)
	if err != nil {
		return err
	}
	failed, err := writeTable(out, list, o.tolerance)
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d of %d prompts are %w (max |Δlogit| %g, mean |Δlogprob| %g)",
			failed, len(list), errTolerance, o.tolerance.logit, o.tolerance.logprob)
	}
	return err
}

// progress overwrites one line of a terminal with what the reference computes;
// nil when nobody would see it.
func progress(quiet bool) func(stage string) {
	if quiet || !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil
	}
	return func(stage string) { fmt.Fprintf(os.Stderr, "\rreference: %-24s\r", stage) }
}

// logitSource gives the logits after every position of a prompt, [len(ids)][vocab].
type logitSource interface {
	logitsOf(ctx context.Context, ids []int32) ([][]float32, error)
	close()
}

func compareAll(ctx context.Context, source logitSource, prompts [][]int32, want [][][]float32) ([]comparison, error) {
	list := make([]comparison, len(prompts))
	for i, ids := range prompts {
		got, err := source.logitsOf(ctx, ids)
		if err == nil {
			list[i], err = compare(want[i], got)
		}
		if err != nil {
			return nil, fmt.Errorf("prompt %d: %w", i+1, err)
		}
	}
	return list, nil
}
