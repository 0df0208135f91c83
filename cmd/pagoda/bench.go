package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pagoda-engine/pagoda/bench"
)

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the engine in this process",
		Args:  cobra.ArbitraryArgs,
		RunE:  subcommandOnly,
	}
	cmd.AddCommand(
		baselineCommand(),
		profileCommand(),
		memoryCommand(),
		seqsCommand(),
		swapCommand(),
		pagedCommand(),
		optimizedCommand(),
		compareCommand(),
		benchServeCommand(),
		rooflineCommand(),
		preemptionCommand(),
		peersCommand(),
	)
	return cmd
}

func rooflineCommand() *cobra.Command {
	var f engineFlags
	var o bench.RooflineOptions
	cmd := &cobra.Command{
		Use:   "roofline MODEL",
		Short: "Decode and prefill speed beside this machine's read bandwidth and FLOP/s",
		Long: `Measure decode at several batch sizes and the prefill of one prompt. Beside each
stands its share of the roofline: what the machine's read bandwidth (decode) or
multiply-adds, of float32 or bfloat16, whichever are more (prefill), would allow,
probed in the same repeat.`,
		Example: "  pagoda bench roofline qwen2.5-0.5b --load-format dummy",
		Args:    exactly(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRoofline(o, f.config.MaxNumSeqs); err != nil {
				return err
			}
			s, err := f.open(cmd, args[0])
			if err != nil {
				return err
			}
			defer s.close()
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			report, err := bench.Roofline(ctx, s.engine, o)
			if err != nil {
				return err
			}
			report.Print(cmd.OutOrStdout())
			return nil
		},
	}
	f.register(cmd.Flags(), 256)
	flags := cmd.Flags()
	flags.IntSliceVar(&o.Batches, "batch-sizes", []int{1, 8, 16}, "decode batch sizes")
	flags.IntVar(&o.PromptTokens, "prompt-tokens", 512, "tokens of the prefilled prompt")
	flags.IntVar(&o.DecodeTokens, "output-tokens", 48, "tokens generated a request")
	flags.IntVar(&o.Repeats, "repeats", 3, "repeats of each row")
	addNegations(flags)
	return cmd
}

// checkRoofline refuses sizes that could not be measured, before a model loads.
func checkRoofline(o bench.RooflineOptions, maxNumSeqs int) error {
	for _, b := range o.Batches {
		if b < 1 || b > maxNumSeqs {
			return usageError{fmt.Errorf("--batch-sizes %d: want 1 to --max-num-seqs %d", b, maxNumSeqs)}
		}
	}
	if o.PromptTokens < 1 || o.DecodeTokens < 3 || o.Repeats < 1 {
		return usageError{errors.New("--prompt-tokens and --repeats must be at least 1, --output-tokens at least 3")}
	}
	if o.PromptTokens > 1<<20 || o.DecodeTokens > 1<<20 || o.Repeats > 1000 {
		return usageError{errors.New("want --prompt-tokens and --output-tokens of at most 1048576, --repeats of at most 1000")}
	}
	return nil
}
