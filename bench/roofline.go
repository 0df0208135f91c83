package bench

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/kernels"
)

// Measurable is an engine that Roofline can measure.
type Measurable interface {
	Submitter
	Info() engine.Info
	Probe(ctx context.Context) (kernels.Ceilings, error)
}

// RooflineOptions configure Roofline. Zero values are defaults.
type RooflineOptions struct {
	Batches       []int // decode batch sizes; default 1, 8, 16
	PromptTokens  int   // of the prefill rows; default 512
	DecodeTokens  int   // generated a request in decode rows; default 48
	ContextTokens int   // prompt of the decode rows; default 16
	Repeats       int   // default 3; probes and rows are interleaved
}

func (o *RooflineOptions) fill() {
	if len(o.Batches) == 0 {
		o.Batches = []int{1, 8, 16}
	}
	for value, missing := range map[*int]int{&o.PromptTokens: 512, &o.DecodeTokens: 48, &o.ContextTokens: 16, &o.Repeats: 3} {
		if *value <= 0 {
			*value = missing
		}
	}
}

// RooflineRow is one measurement beside its floor. Each slice has an entry a
// repeat; shares are of the ceiling probed in the same repeat.
type RooflineRow struct {
	Name            string
	TokensPerSecond []float64
	Share           []float64 // of the bound: 0–1
	Bound           Bound     // BoundMemory or BoundCompute
}

// RooflineReport is what Roofline measured.
type RooflineReport struct {
	Info     engine.Info
	Ceilings []kernels.Ceilings // one a repeat
	Rows     []RooflineRow
}

// Roofline measures decode at several batch sizes and prefill of one prompt, each
// beside what the machine's read bandwidth and FLOP/s, probed in the same repeat,
// would allow. A decode step at least reads every weight of layers and head and
// each sequence's KV; a prompt token costs at least two FLOPs a weight of the
// layers, and attention: those of the last layer are counted for all tokens, though
// behind its QKV the last one alone is needed (kernels.Backend's KeepLogitRows), 3 to 4 %
// of them.
func Roofline(ctx context.Context, m Measurable, o RooflineOptions) (*RooflineReport, error) {
	o.fill()
	report := &RooflineReport{Info: m.Info()}
	for _, batch := range o.Batches {
		report.Rows = append(report.Rows, RooflineRow{Name: fmt.Sprintf("decode, batch %d", batch), Bound: BoundMemory})
	}
	report.Rows = append(report.Rows, RooflineRow{Name: fmt.Sprintf("prefill, %d tokens", o.PromptTokens), Bound: BoundCompute})
	// The first pass warms caches and clocks and is not kept.
	for repeat := range o.Repeats + 1 {
		ceilings, err := m.Probe(ctx)
		if err != nil {
			return nil, err
		}
		if repeat > 0 {
			report.Ceilings = append(report.Ceilings, ceilings)
		}
		for i := range report.Rows {
			row := &report.Rows[i]
			var rate, share float64
			if i < len(o.Batches) {
				rate, share, err = decodeShare(ctx, m, o, o.Batches[i], uint64(repeat), ceilings)
			} else {
				rate, share, err = prefillShare(ctx, m, o, uint64(repeat), ceilings)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", row.Name, err)
			}
			if repeat > 0 {
				row.TokensPerSecond = append(row.TokensPerSecond, rate)
				row.Share = append(row.Share, share)
			}
		}
	}
	return report, nil
}

// decodeShare decodes a batch and compares its step time with the bytes that a
// step reads.
func decodeShare(ctx context.Context, m Measurable, o RooflineOptions, batch int, seed uint64, c kernels.Ceilings) (rate, share float64, err error) {
	info := m.Info()
	work := RandomWorkload(seed, batch, info.SampleVocab, 0, 0, Fixed(o.ContextTokens, o.DecodeTokens))
	samples, err := runAll(ctx, m, work)
	if err != nil {
		return 0, 0, err
	}
	// All sequences decode together between the last first token and the first
	// last one.
	begin, end := samples[0].Tokens[0], samples[0].Tokens[len(samples[0].Tokens)-1]
	for i := range samples {
		tokens := samples[i].Tokens
		begin, end = max(begin, tokens[0]), min(end, tokens[len(tokens)-1])
	}
	// Steps are counted and timed on one sequence's own clock.
	own := samples[0].Tokens
	from, to := 0, len(own)-1
	for from < to && own[from] < begin {
		from++
	}
	for to > from && own[to] > end {
		to--
	}
	if to == from {
		return 0, 0, fmt.Errorf("%d sequences never decoded together: raise --output-tokens", batch)
	}
	seconds := (own[to] - own[from]).Seconds() / float64(to-from)
	context := float64(o.ContextTokens) + float64(o.DecodeTokens)/2
	bytes := float64(info.StreamedWeightBytes) + float64(batch)*context*float64(info.KVBytesPerToken)
	return float64(batch) / seconds, bytes / seconds / c.ReadBytesPerSecond, nil
}

// prefillShare computes one prompt and compares the time to its first token with
// the FLOPs that it takes.
func prefillShare(ctx context.Context, m Measurable, o RooflineOptions, seed uint64, c kernels.Ceilings) (rate, share float64, err error) {
	info := m.Info()
	work := RandomWorkload(seed+1000, 1, info.SampleVocab, 0, 0, Fixed(o.PromptTokens, 1))
	samples, err := runAll(ctx, m, work)
	if err != nil {
		return 0, 0, err
	}
	ttft, _ := samples[0].TTFT()
	tokens := float64(o.PromptTokens)
	flops := tokens*float64(info.LayerFLOPsPerToken) + tokens*(tokens+1)/2*float64(info.AttentionFLOPsPerPair) + float64(info.HeadFLOPs)
	return tokens / ttft.Seconds(), flops / ttft.Seconds() / c.FLOPsPerSecond, nil
}

// runAll runs the workload and fails if any request did.
func runAll(ctx context.Context, m Submitter, work Workload) ([]Sample, error) {
	samples, err := Run(ctx, m, work, Options{Sampling: engine.Sampling{Logprobs: -1}})
	if err != nil {
		return nil, err
	}
	for i := range samples {
		if samples[i].Err != nil {
			return nil, samples[i].Err
		}
	}
	return samples, nil
}

// Print writes the report as a table of medians with their spread.
func (r *RooflineReport) Print(w io.Writer) {
	var reads, flops []float64
	for _, c := range r.Ceilings {
		reads, flops = append(reads, c.ReadBytesPerSecond/1e9), append(flops, c.FLOPsPerSecond/1e9)
	}
	fmt.Fprintf(w, "%s on %s (%s, %d threads)\n", r.Info.Model, r.Info.Device.Device, r.Info.Device.Path, r.Info.Device.Threads)
	fmt.Fprintf(w, "probed: reads %s GB/s, multiply-adds %s GFLOP/s\n", spread(reads, "%.1f"), spread(flops, "%.0f"))
	t := NewTable(w)
	t.AppendHeader(table.Row{"", "tok/s", "roofline %", ""})
	for _, row := range r.Rows {
		percent := make([]float64, len(row.Share))
		for i, s := range row.Share {
			percent[i] = 100 * s
		}
		t.AppendRow(table.Row{row.Name, spread(row.TokensPerSecond, "%.1f"), spread(percent, "%.0f"), "bound by " + string(row.Bound)})
	}
	t.Render()
	if slices.ContainsFunc(r.Rows, func(row RooflineRow) bool { return slices.Max(row.Share) > 1 && row.Bound == BoundMemory }) {
		fmt.Fprintln(w, beyondFloor)
	}
	if r.Info.Device.Backend == "cpu" {
		fmt.Fprintln(w, "batch-invariant: always, at no cost; one order of sums serves every batch size")
	}
}

// spread prints a median and, if there are several values, their range.
func spread(values []float64, format string) string {
	if len(values) == 0 {
		return "–"
	}
	sorted := slices.Sorted(slices.Values(values))
	median := fmt.Sprintf(format, Percentile(sorted, 50))
	if len(sorted) == 1 {
		return median
	}
	return fmt.Sprintf("%s ("+format+"–"+format+")", median, sorted[0], sorted[len(sorted)-1])
}
