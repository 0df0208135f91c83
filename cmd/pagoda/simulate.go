package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/pagoda-engine/pagoda/internal/sim"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// simulateFlags are the flags of pagoda simulate.
type simulateFlags struct {
	workload sim.Workload
	given    []string // flags of the command line; not those of the environment
	trace    string
	whatIf   bool
	record   string
	json     bool
	quiet    bool

	preset    string
	stepTime  string
	fit       string
	blocks    int
	hostBlock int
	swapSpace size
	blockSize int
	seqs      int
	tokens    int
	mixed     int
	modelLen  int
	queued    int
	mode      string
	watermark float64
	threshold int
	targetITL float64 // ms
	policy    string
	prefix    bool
	async     bool
}

func simulateCommand() *cobra.Command {
	var f simulateFlags
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Run the real scheduler and KV cache on a virtual clock",
		Long: `Run the scheduler and the KV cache of this program, without a model and without a
device, on a clock that jumps from step to step: a million requests in minutes.

What arrives is drawn from a seed: lengths are log-normal (defaults about as in
ShareGPT), arrivals all at once, Poisson or in bursts (--request-rate, --burstiness),
with shared prefixes, conversations, impatient clients and n > 1 on demand. How long a
step takes comes from a preset machine, from --step-time, or from a recorded run
(--fit). The presets are derived from measurements of other engines: h200-7b from vLLM
on an H200, cpu-0.5b from llama.cpp on two cores.

With --trace a recorded run (--trace-file of run and serve, or --record) is replayed
instead: every decision must come out the same, and the command says whether it does.
With --what-if its requests arrive again, at the same times with the same tokens, under
the settings that are given here, the others being those of the recording.

Equal flags give equal results, byte for byte.`,
		Example: `  pagoda simulate --requests 1000000
  pagoda simulate --requests 5000 --request-rate 60 --num-gpu-blocks-override 2000 --preemption-mode recompute
  pagoda simulate --requests 200 --record run.trace && pagoda trace run.trace | less -S
  pagoda simulate --trace run.trace
  pagoda simulate --trace run.trace --what-if --max-num-seqs 64`,
		Args:              exactly(0, 0),
		PersistentPreRunE: collectGiven(&f.given),
		RunE:              func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	f.registerWorkload(cmd.Flags())
	f.registerMachine(cmd.Flags())
	flags := cmd.Flags()
	flags.StringVar(&f.trace, "trace", "", "recorded trace to replay")
	flags.BoolVar(&f.whatIf, "what-if", false, "with --trace: its requests under other settings")
	flags.StringVar(&f.record, "record", "", "file to write the decision trace to (some 100 bytes a generated token)")
	flags.BoolVar(&f.json, "json", false, "print the summary as one JSON object")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing but the summary")
	addNegations(flags)
	return cmd
}

// collectGiven notes the flags of the command line before the environment sets others.
func collectGiven(given *[]string) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		cmd.Flags().Visit(func(flag *pflag.Flag) { *given = append(*given, flag.Name) })
		return setFromOutside(cmd, os.LookupEnv)
	}
}

func (f *simulateFlags) registerWorkload(flags *pflag.FlagSet) {
	w := &f.workload
	flags.IntVar(&w.Requests, "requests", 1000, "requests, turns of conversations included")
	flags.Uint64Var(&w.Seed, "seed", 0, "seed of everything that is drawn")
	flags.Float64Var(&w.Rate, "request-rate", math.Inf(1), "mean arrivals in requests/s; inf: all at once")
	flags.Float64Var(&w.Burstiness, "burstiness", 1, "shape of the gamma distributed gaps: 1 is Poisson, less is burstier")
	flags.Float64Var(&w.Prompt.Mean, "input-len", 220, "mean prompt tokens")
	flags.Float64Var(&w.Prompt.P95, "input-len-p95", 800, "their 95th percentile; equal to the mean: all the same (default: as far from the mean as 800 from 220)")
	flags.Float64Var(&w.Output.Mean, "output-len", 200, "mean output tokens")
	flags.Float64Var(&w.Output.P95, "output-len-p95", 600, "their 95th percentile (default: three times the mean)")
	flags.IntVar(&w.MaxTokens, "max-tokens", 0, "what requests ask for, and get at most (0: just what they get)")
	flags.IntVar(&w.Families, "prefixes", 0, "number of shared prefixes")
	flags.IntVar(&w.PrefixLen, "prefix-len", 512, "tokens of each")
	flags.Float64Var(&w.PrefixShare, "prefix-share", 1, "share of the requests that begin with one, 0-1")
	flags.IntVar(&w.Turns, "turns", 1, "turns of a conversation: each prompt repeats what was said")
	flags.DurationVar(&w.ThinkTime, "think-time", 10*time.Second, "mean time between answer and next turn")
	flags.Float64Var(&w.AbortShare, "abort-share", 0, "share of the requests whose client gives up, 0-1")
	flags.DurationVar(&w.Patience, "patience", 5*time.Second, "mean time until it does")
	flags.Float64Var(&w.ForkShare, "n-share", 0, "share of the requests with several choices, 0-1")
	flags.IntVar(&w.N, "n", 4, "choices of these")
	flags.IntVar(&w.Priorities, "priorities", 1, "priorities that are drawn, for --scheduling-policy priority")
}

func (f *simulateFlags) registerMachine(flags *pflag.FlagSet) {
	flags.StringVar(&f.preset, "preset", "h200-7b", "machine and model: "+strings.Join(sim.PresetNames(), " or "))
	flags.StringVar(&f.stepTime, "step-time", "", "step times, such as step=4.6ms,prefill=21us,decode=14us,context=13.6ns,pair=0.65ns")
	flags.StringVar(&f.fit, "fit", "", "take step and copy times from a recorded trace")
	flags.IntVar(&f.blocks, "num-gpu-blocks-override", 0, "number of KV blocks (0: the preset's)")
	flags.IntVar(&f.hostBlock, "num-cpu-blocks", 0, "number of blocks of the swap pool; wins over --swap-space")
	f.swapSpace = size{unit: 1 << 30, bytes: 4 << 30}
	flags.Var(&f.swapSpace, "swap-space", "swap pool in GiB or with a unit")
	flags.IntVar(&f.blockSize, "block-size", 16, "tokens of a KV block")
	flags.IntVar(&f.seqs, "max-num-seqs", 256, "most sequences that run at once")
	flags.IntVar(&f.tokens, "max-num-batched-tokens", 0, "token budget of a step (0: the preset's)")
	flags.IntVar(&f.mixed, "max-num-mixed-tokens", 0, "token budget of a step in which sequences decode (0: no bound)")
	flags.IntVar(&f.modelLen, "max-model-len", 8192, "most tokens of a sequence")
	flags.IntVar(&f.queued, "max-num-queued-reqs", 1024, "most sequences that wait in the scheduler; the others stand in line outside")
	flags.StringVar(&f.mode, "preemption-mode", "auto", "auto, swap or recompute")
	flags.Float64Var(&f.watermark, "watermark", scheduler.DefaultWatermark, "share of the pool that stays free when a sequence is admitted")
	flags.IntVar(&f.threshold, "long-prefill-token-threshold", 0, "most tokens that one prompt takes of a step (0: no bound)")
	flags.Float64Var(&f.targetITL, "target-itl-ms", 0, "inter-token latency that prefill chunks are cut for, in ms (0: none)")
	flags.StringVar(&f.policy, "scheduling-policy", "fcfs", "fcfs or priority")
	flags.BoolVar(&f.prefix, "enable-prefix-caching", true, "share KV blocks between requests with equal prefixes")
	flags.BoolVar(&f.async, "async-scheduling", false, "schedule a step ahead of the last one's results")
}

func (f *simulateFlags) run(cmd *cobra.Command) error {
	switch {
	case f.whatIf && f.trace == "":
		return usageError{errors.New("--what-if needs the --trace of a recorded run")}
	case f.trace != "" && !f.whatIf:
		return f.replay(cmd)
	}
	f.spread(cmd.Flags())
	if err := f.check(cmd); err != nil {
		return err
	}
	summary, err := f.simulate(cmd)
	if err != nil {
		return err
	}
	return f.print(cmd.OutOrStdout(), &summary)
}

// spread lets the 95th percentile of lengths follow their mean, where that alone was given.
func (f *simulateFlags) spread(flags *pflag.FlagSet) {
	for name, l := range map[string]*sim.Lengths{"input-len": &f.workload.Prompt, "output-len": &f.workload.Output} {
		mean, p95 := flags.Lookup(name), flags.Lookup(name+"-p95")
		if mean.Changed && !p95.Changed {
			usual, _ := strconv.ParseFloat(mean.DefValue, 64)
			l.P95 *= l.Mean / usual
		}
	}
}

// check refuses flags that make no sense, alone or together.
func (f *simulateFlags) check(cmd *cobra.Command) error {
	switch {
	case f.queued < 1:
		return usageError{fmt.Errorf("--max-num-queued-reqs %d: want at least 1", f.queued)}
	case f.blocks < 0 || f.tokens < 0:
		return usageError{fmt.Errorf("--num-gpu-blocks-override %d, --max-num-batched-tokens %d: must not be negative", f.blocks, f.tokens)}
	case !(f.watermark >= 0):
		return usageError{fmt.Errorf("--watermark %g: must not be negative", f.watermark)}
	}
	for _, in := range []struct{ name, path string }{{"trace", f.trace}, {"fit", f.fit}} {
		if sameFile(in.path, f.record) {
			return usageError{fmt.Errorf("--record %s would overwrite the recording that --%s reads", f.record, in.name)}
		}
	}
	if !f.whatIf {
		return nil
	}
	workload := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(simulateFlags).registerWorkload(workload)
	if others := f.others(func(name string) bool { return workload.Lookup(name) == nil }); others != "" {
		return usageError{fmt.Errorf("--what-if has the requests of its recording; %s would change them", others)}
	}
	fits := f.fit == "" && f.stepTime == "" && !cmd.Flags().Changed("preset")
	if f.trace == "-" && (fits || f.fit == "-") {
		return usageError{errors.New("--trace - is read once, and its requests and its step times are wanted: give a file, or another --fit, --step-time or --preset")}
	}
	return nil
}

// others lists the flags of the command line but those that are allowed.
func (f *simulateFlags) others(allowed func(name string) bool) string {
	var others []string
	for _, name := range f.given {
		if !allowed(name) {
			others = append(others, "--"+name)
		}
	}
	return strings.Join(others, ", ")
}

func (f *simulateFlags) print(w io.Writer, s *sim.Summary) error {
	if f.json {
		enc := json.NewEncoder(w)
		return enc.Encode(s)
	}
	return s.Print(w)
}

// replay wants the very decisions of a recorded run.
func (f *simulateFlags) replay(cmd *cobra.Command) error {
	others := f.others(func(name string) bool {
		return name == "trace" || strings.TrimPrefix(name, "no-") == "json" || strings.TrimPrefix(name, "no-") == "quiet" || name == "no-what-if"
	})
	if others != "" {
		return usageError{fmt.Errorf("a replay has the settings of its recording; to change %s add --what-if", others)}
	}
	in, err := openTrace(f.trace)
	if err != nil {
		return err
	}
	defer in.Close()
	begin := time.Now()
	summary, done, err := sim.Replay(scheduler.NewTraceReader(in))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) && done.Steps > 0: // the process that wrote it was killed
		fmt.Fprintf(os.Stderr, "%s: %v: what is before it is replayed\n", f.trace, err)
	case err != nil:
		return fmt.Errorf("%s: after %d steps: %w", f.trace, done.Steps, err)
	}
	summary.WallSeconds = time.Since(begin).Seconds()
	if !f.quiet && !f.json {
		fmt.Fprintf(cmd.OutOrStdout(), "identical decisions: %d steps of %d inputs, %d sequences\n\n", done.Steps, done.Inputs, done.Submitted)
	}
	return f.print(cmd.OutOrStdout(), &summary)
}

func (f *simulateFlags) simulate(cmd *cobra.Command) (s sim.Summary, err error) {
	var recorded *sim.Recorded
	if f.trace != "" {
		err = withTrace(f.trace, func(r *scheduler.TraceReader) error { recorded, err = sim.ReadRecorded(r); return err })
		if err != nil {
			return s, err
		}
	}
	cfg, err := f.config(cmd, recorded)
	if err != nil {
		return s, err
	}
	if f.record != "" {
		file, err := os.Create(f.record)
		if err != nil {
			return s, usageError{err}
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		cfg.Record = file
	}
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	begin := time.Now()
	if recorded != nil {
		cfg.Progress = f.progress(recorded.Requests())
		s, err = sim.SimulateRecorded(ctx, cfg, recorded)
	} else {
		cfg.Progress = f.progress(f.workload.Requests)
		s, err = sim.Simulate(ctx, cfg, f.workload)
	}
	s.WallSeconds = time.Since(begin).Seconds()
	if errors.Is(err, sim.ErrConfig) {
		err = usageError{err}
	}
	return s, err
}

// progress shows a bar on a terminal.
func (f *simulateFlags) progress(total int) func(done, total int) {
	if f.quiet || !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil
	}
	bar := progressbar.NewOptions(total, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription("requests"),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
	return func(done, _ int) { _ = bar.Set(done) } // a bar that cannot be drawn stops nothing
}

// withTrace opens a trace for fn and puts its name to fn's errors.
func withTrace(path string, fn func(*scheduler.TraceReader) error) error {
	in, err := openTrace(path)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := fn(scheduler.NewTraceReader(in)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
