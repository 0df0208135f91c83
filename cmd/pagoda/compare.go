package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/pagoda-engine/pagoda/bench"
)

func compareCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "compare BASELINE_DIR OPTIMIZED_DIR",
		Short: "What changed between two reports, and whether it is more than chance",
		Long: `Compare two folders that bench commands wrote. Every metric of every cell that both
have is printed with its ratio and the 95 % confidence interval of that, a bootstrap over
the runs. A difference inside the spread of the runs is never called an improvement; when
there is none, the verdict says why: parameters not in use, a device that was busy
already, a baseline that had what was added. Of different models, quantizations or
machines there are ratios only.`,
		Example: `  pagoda bench baseline demo
  pagoda bench optimized demo
  pagoda bench compare baseline optimized`,
		Args: exactly(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := bench.ReadReport(args[0])
			if err != nil {
				return usageError{err}
			}
			b, err := bench.ReadReport(args[1])
			if err != nil {
				return usageError{err}
			}
			report, err := bench.Compare(a, b)
			if err != nil {
				return usageError{err}
			}
			report.Manifest.Command = bench.CommandLine(os.Args)
			report.Print(cmd.OutOrStdout())
			return writeReport(cmd, report, output)
		},
	}
	cmd.Flags().StringVar(&output, "output-dir", "compare", "folder for report.json, report.html and pictures")
	return cmd
}

// writeReport writes a report's folder and says where it is.
func writeReport(cmd *cobra.Command, r *bench.Report, dir string) error {
	if err := r.Write(dir); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "report: %s/report.html\n", dir)
	return nil
}
