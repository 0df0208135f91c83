package bench

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/pagoda-engine/pagoda/engine"
)

// Preemptible is an engine that Preemption can measure.
type Preemptible interface {
	Submitter
	Info() engine.Info
	Stats() engine.Stats
	Steps(n int) []engine.StepRecord
	Close() error
}

// PreemptionOptions configure Preemption. Zero values are defaults.
type PreemptionOptions struct {
	Requests     int     // all at once; default 24
	PromptTokens int     // default 64
	OutputTokens int     // default 128
	Share        float64 // of the blocks that all requests need at their full lengths; default 0.25
	Repeats      int     // default 3; the arms are interleaved
	Modes        []string
	Progress     func(done, total int)
}

func (o *PreemptionOptions) fill() {
	for value, missing := range map[*int]int{&o.Requests: 24, &o.PromptTokens: 64, &o.OutputTokens: 128, &o.Repeats: 3} {
		if *value <= 0 {
			*value = missing
		}
	}
	if o.Share <= 0 {
		o.Share = 0.25
	}
	if len(o.Modes) == 0 {
		o.Modes = []string{"swap", "recompute", "auto"}
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
}

// Blocks is the size of the pool that Preemption asks for.
func (o PreemptionOptions) Blocks(blockSize int) int {
	o.fill()
	each := (o.PromptTokens + o.OutputTokens - 1 + blockSize - 1) / blockSize
	// The default max_model_len is what the pool holds, the last token included.
	least := (o.PromptTokens + o.OutputTokens + blockSize - 1) / blockSize
	return max(least, int(o.Share*float64(o.Requests*each)))
}

// PreemptionArm is one mode with the values of every repeat.
type PreemptionArm struct {
	Mode       string
	Throughput []float64 // output tokens/s
	E2EMedian  []float64 // ms
	E2EP99     []float64 // ms
	ITLP99     []float64 // ms
	Swaps      []float64
	Recomputes []float64
	Waits      []float64         // steps that requests sat out for want of a block
	SwapBytes  []float64         // both ways
	OutRate    []float64         // GB/s of the copies to the host; 0 = none
	InRate     []float64         // likewise, to the device
	Computed   []float64         // prompt tokens, and whatever was computed again
	Decisions  []engine.Decision // of the last repeat, the first few that its step records still hold
	Lost       bool              // earlier records of that repeat were overwritten
}

// PreemptionReport is what Preemption measured.
type PreemptionReport struct {
	Info    engine.Info
	Options PreemptionOptions
	Blocks  int
	Arms    []PreemptionArm
}

// Preemption runs the same requests on a pool that holds a share of what they
// need, once for each preemption mode in every repeat. open starts an engine with
// the mode and so many blocks.
func Preemption(ctx context.Context, open func(mode string, blocks int) (Preemptible, error), blockSize int, o PreemptionOptions) (*PreemptionReport, error) {
	o.fill()
	if blockSize < 1 {
		return nil, fmt.Errorf("blocks of %d tokens, want at least 1", blockSize)
	}
	r := &PreemptionReport{Options: o, Blocks: o.Blocks(blockSize)}
	for _, mode := range o.Modes {
		r.Arms = append(r.Arms, PreemptionArm{Mode: mode})
	}
	for repeat := range o.Repeats {
		for i := range r.Arms {
			// Each repeat begins with another arm, so that none always runs first.
			arm := &r.Arms[(i+repeat)%len(r.Arms)]
			if err := r.measure(ctx, open, arm, uint64(repeat)); err != nil {
				return nil, fmt.Errorf("--preemption-mode %s: %w", arm.Mode, err)
			}
			o.Progress(repeat*len(r.Arms)+i+1, o.Repeats*len(r.Arms))
		}
	}
	return r, nil
}

// measure runs one arm once.
func (r *PreemptionReport) measure(ctx context.Context, open func(string, int) (Preemptible, error), arm *PreemptionArm, seed uint64) error {
	e, err := open(arm.Mode, r.Blocks)
	if err != nil {
		return err
	}
	defer func() { _ = e.Close() }()
	r.Info = e.Info()
	o := &r.Options
	if _, err := runAll(ctx, e, RandomWorkload(seed+1<<32, 1, r.Info.SampleVocab, 0, 0, Fixed(o.PromptTokens, min(4, o.OutputTokens)))); err != nil {
		return err // the warm-up
	}
	before, warm := e.Stats(), e.Steps(1)
	samples, err := runAll(ctx, e, RandomWorkload(seed, o.Requests, r.Info.SampleVocab, 0, 0, Fixed(o.PromptTokens, o.OutputTokens)))
	if err != nil {
		return err
	}
	s, st := Summarize(samples), e.Stats()
	arm.Throughput = append(arm.Throughput, s.OutputThroughput)
	arm.E2EMedian, arm.E2EP99 = append(arm.E2EMedian, s.E2ELatency.Median), append(arm.E2EP99, s.E2ELatency.P99)
	arm.ITLP99 = append(arm.ITLP99, s.ITL.P99)
	arm.Swaps = append(arm.Swaps, float64(st.PreemptionsSwap-before.PreemptionsSwap))
	arm.Recomputes = append(arm.Recomputes, float64(st.PreemptionsRecompute-before.PreemptionsRecompute))
	arm.Waits = append(arm.Waits, float64(st.BlockWaits-before.BlockWaits))
	arm.SwapBytes = append(arm.SwapBytes, float64(st.SwapInBytes+st.SwapOutBytes-before.SwapInBytes-before.SwapOutBytes))
	arm.OutRate = append(arm.OutRate, gigabytes(st.SwapOutBytes-before.SwapOutBytes, st.SwapOutTime-before.SwapOutTime))
	arm.InRate = append(arm.InRate, gigabytes(st.SwapInBytes-before.SwapInBytes, st.SwapInTime-before.SwapInTime))
	// Of each request every token but the prompt's and the last takes one decode.
	decodes := int64(o.Requests) * int64(o.OutputTokens-1)
	arm.Computed = append(arm.Computed, float64(st.StepTokens-before.StepTokens-decodes))
	arm.Decisions, arm.Lost = firstDecisions(e.Steps(math.MaxInt), warm[0].Step, 5)
	return nil
}

// gigabytes is a rate in GB/s; 0 without time.
func gigabytes(bytes int64, in time.Duration) float64 {
	if in <= 0 {
		return 0
	}
	return float64(bytes) / float64(in.Nanoseconds())
}

// firstDecisions takes the first n decisions after a step. lost says that some of
// the steps before them are no longer kept.
func firstDecisions(steps []engine.StepRecord, after int64, n int) (first []engine.Decision, lost bool) {
	lost = len(steps) > 0 && steps[0].Step > after+1
	for _, step := range steps {
		if step.Step > after {
			first = append(first, step.Decisions...)
		}
		if len(first) >= n {
			return first[:n], lost
		}
	}
	return first, lost
}

// arm finds a mode's.
func (r *PreemptionReport) arm(mode string) *PreemptionArm {
	for i := range r.Arms {
		if r.Arms[i].Mode == mode {
			return &r.Arms[i]
		}
	}
	return nil
}

// Verdict compares auto with the better of the two forced means. A difference
// inside the spread of the repeats is none.
func (r *PreemptionReport) Verdict() string {
	auto, swap, recompute := r.arm("auto"), r.arm("swap"), r.arm("recompute")
	if auto == nil || swap == nil || recompute == nil {
		return ""
	}
	best := swap
	if median(recompute.Throughput) > median(swap.Throughput) {
		best = recompute
	}
	ratio := median(auto.Throughput) / median(best.Throughput)
	text := fmt.Sprintf("auto: %.2f × the throughput of %s, the better of the two", ratio, best.Mode)
	switch {
	case len(auto.Throughput) < 2:
		return text + "; one repeat has no spread, so this says little"
	case slices.Max(auto.Throughput) < slices.Min(best.Throughput):
		return text + ": worse, beyond the spread"
	case slices.Min(auto.Throughput) > slices.Max(best.Throughput):
		return text + ": better, beyond the spread"
	}
	return text + ": no difference beyond the spread"
}

func median(values []float64) float64 { return Percentile(slices.Sorted(slices.Values(values)), 50) }

// Print writes the report: the table, the verdict, and why the scheduler chose
// what it chose.
func (r *PreemptionReport) Print(w io.Writer) {
	o := &r.Options
	fmt.Fprintf(w, "%s on %s (%s, %d threads)\n", r.Info.Model, r.Info.Device.Device, r.Info.Device.Path, r.Info.Device.Threads)
	fmt.Fprintf(w, "%d requests at once, %d prompt and %d output tokens each; a pool of %d blocks, %.0f %% of what they need\n",
		o.Requests, o.PromptTokens, o.OutputTokens, r.Blocks, 100*o.Share)
	t := NewTable(w)
	t.AppendHeader(table.Row{"--preemption-mode", "tok/s", "E2E p50 ms", "E2E p99 ms", "ITL p99 ms", "swaps", "recomputes", "waits", "swapped MiB", "out GB/s", "in GB/s", "prefilled tokens"})
	for _, a := range r.Arms {
		swapped := make([]float64, len(a.SwapBytes))
		for i, n := range a.SwapBytes {
			swapped[i] = n / (1 << 20)
		}
		t.AppendRow(table.Row{a.Mode, spread(a.Throughput, "%.1f"), spread(a.E2EMedian, "%.0f"), spread(a.E2EP99, "%.0f"), spread(a.ITLP99, "%.0f"),
			spread(a.Swaps, "%.0f"), spread(a.Recomputes, "%.0f"), spread(a.Waits, "%.0f"), spread(swapped, "%.0f"),
			spread(a.OutRate, "%.1f"), spread(a.InRate, "%.1f"), spread(a.Computed, "%.0f")})
	}
	t.Render()
	if v := r.Verdict(); v != "" {
		fmt.Fprintln(w, v)
	}
	if auto := r.arm("auto"); auto != nil && len(auto.Decisions) > 0 {
		which := "the first decisions of auto"
		if auto.Lost {
			which = "decisions of auto, the first that are still kept"
		}
		fmt.Fprintf(w, "why: %s, from its step records\n", which)
		for _, d := range auto.Decisions {
			fmt.Fprintf(w, "  sequence %d, for %d: %s (swap %s, recompute %s, wait %s; %d blocks)\n",
				d.Seq, d.For, d.Means, costText(d.Swap), costText(d.Recompute), costText(d.Wait), d.Blocks)
		}
	}
}

// costText prints an estimate; means that were not to be had have none.
func costText(d time.Duration) string {
	if d < 0 {
		return "–"
	}
	return d.Round(10 * time.Microsecond).String()
}
