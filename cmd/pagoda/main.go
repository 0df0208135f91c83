// Command pagoda serves language models with PagedAttention: it answers a
// prompt (run), serves the OpenAI API (serve) and measures itself (bench).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/server"
)

// version is set by the Makefile.
var version = "unknown"

// Exit codes, one a class of failure, so that scripts can tell them apart.
const (
	exitFailure = 1
	exitUsage   = 2
	exitModel   = 3
	exitMemory  = 4
	exitDevice  = 5
)

// usageError is a mistake on the command line.
type usageError struct{ error }

// Unwrap gives the cause.
func (e usageError) Unwrap() error { return e.error }

func main() {
	if err := rootCommand().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "pagoda: %v\n", err)
		os.Exit(exitCode(err))
	}
}

// exitCode maps an error to its class.
func exitCode(err error) int {
	var usage usageError
	switch {
	case errors.As(err, &usage), errors.Is(err, engine.ErrConfig), errors.Is(err, engine.ErrInvalid), errors.Is(err, engine.ErrTooLong):
		return exitUsage
	case errors.Is(err, engine.ErrModel):
		return exitModel
	case errors.Is(err, engine.ErrMemory), errors.Is(err, engine.ErrNeverFits):
		return exitMemory
	case errors.Is(err, engine.ErrDevice), errors.Is(err, server.ErrStalled):
		return exitDevice
	}
	return exitFailure
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "pagoda",
		Short: "Serve language models with PagedAttention, study it, tune it",
		Long: `Pagoda (PAGed attention in GO) loads Qwen2.5, Qwen3 and Llama weights, keeps the KV cache in
fixed-size blocks with prefix sharing, schedules continuous batches and serves the
OpenAI API, in one process.

MODEL is a directory with config.json, tokenizer.json and safetensors; a model of the
Hugging Face hub, such as Qwen/Qwen2.5-0.5B-Instruct, which is fetched once; demo, a
tiny chat model inside this binary; or, with --load-format dummy, a built-in shape such as
qwen2.5-0.5b (random weights, ids in, ids out).

Every flag may also be set by an environment variable, --max-num-seqs by
PAGODA_MAX_NUM_SEQS, or by a line of the YAML file of --config, max_num_seqs: 64. The
command line wins, then the environment, then the file.

Exit codes: 2 usage, 3 model, 4 memory, 5 device.`,
		Version:       version,
		Args:          cobra.ArbitraryArgs,
		RunE:          subcommandOnly,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return setFromOutside(cmd, os.LookupEnv)
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		hint := ""
		if unknown := (*pflag.NotExistError)(nil); errors.As(err, &unknown) {
			hint = didYouMean("--"+unknown.GetSpecifiedName(), flagNames(cmd.Flags()))
		}
		return usageError{fmt.Errorf("%w%s (see %s --help)", err, hint, cmd.CommandPath())}
	})
	setHelp(root)
	root.AddCommand(
		runCommand(), serveCommand(), benchCommand(), tuneCommand(), planCommand(), doctorCommand(),
		simulateCommand(), topCommand(), traceCommand(), scoreCommand(),
	)
	return root
}

// subcommandOnly is the RunE of a command that does nothing itself.
func subcommandOnly(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		var names []string
		for _, c := range cmd.Commands() {
			names = append(names, c.Name())
		}
		return usageError{fmt.Errorf("unknown command %q%s (see %s --help)", args[0], didYouMean(args[0], names), cmd.CommandPath())}
	}
	return cmd.Help()
}

// flagNames lists the flags as they are typed.
func flagNames(flags *pflag.FlagSet) []string {
	var names []string
	flags.VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	return names
}

// interruptible is ctx until the first Ctrl-C or SIGTERM. Outside it these end
// the process at once, as they do while a model loads.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}

// exactly is cobra.RangeArgs with a usage error.
func exactly(least, most int) cobra.PositionalArgs {
	check := cobra.RangeArgs(least, most)
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; usage: %s", err, cmd.UseLine())}
		}
		return nil
	}
}
