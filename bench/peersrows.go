package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// peerPart is a kind of rows: one a value.
type peerPart struct {
	name   string // in --rows and in the peer's figures
	always bool   // measured where the peer has no such figure, too
	metric string // the row's value
	unit   string // its, as a Metric has it
	higher bool   // is better

	values  func(o *PeersOptions) []int
	what    func(o *PeersOptions, at int) string
	load    func(o *PeersOptions, at int) (sequences, tokens int) // at once, of each, that must fit
	prepare func(m *peerRun, ctx context.Context, most int) error // before the first measurement, up to the value most; nil = nothing
	measure func(m *peerRun, ctx context.Context, at int, repeat uint64) (map[string]float64, error)
	floor   func(m *peerRun, at int) float64 // nil = none
}

// The protocol: what the peer's figures were measured with.
const (
	peerPrompt   = 1024 // tokens, of the decode rows and of the batched prefill
	peerWarm     = 32   // decode steps before those that count
	peerSteps    = 256  // that count
	peerPrefills = 64   // prompts at once
	peerSweep    = 512  // requests of the sweep over max_num_seqs
	peerSweepIn  = 512  // tokens
	peerSweepOut = 256
)

// Times to the first token of a prompt are medians of as many as take sampledMs together: for
// some tens of milliseconds behind a long prompt a card at its power limit is slow.
const (
	leastSamples = 5
	mostSamples  = 100
	sampledMs    = 100
)

// PeerRows names the parts of Peers, in their order.
func PeerRows() []string {
	var names []string
	for _, part := range peerParts() {
		names = append(names, part.name)
	}
	return names
}

// lengths is a list of a row's values, shrunk, ascending and without doubles.
func (o *PeersOptions) lengths(values ...int) []int {
	for i := range values {
		values[i] = o.scaled(values[i])
	}
	slices.Sort(values)
	return slices.Compact(values)
}

func peerParts() []*peerPart {
	return append(peerLatencies(), peerThroughputs()...)
}

// peerLatencies are the parts whose rows are times.
func peerLatencies() []*peerPart {
	firstToken := func(name, what string, cached bool, lengths ...int) *peerPart {
		return &peerPart{
			name: name, always: true, metric: "median_ttft_ms", unit: "ms",
			values: func(o *PeersOptions) []int { return o.lengths(slices.Clone(lengths)...) },
			what:   func(_ *PeersOptions, at int) string { return fmt.Sprintf(what, thousands(fmt.Sprint(at))) },
			load:   func(_ *PeersOptions, at int) (int, int) { return 1, at + 1 },
			measure: func(m *peerRun, ctx context.Context, at int, repeat uint64) (map[string]float64, error) {
				return m.firstToken(ctx, at, repeat, cached)
			},
			floor: func(m *peerRun, at int) float64 {
				have := 0
				if cached { // a hit never covers the last token
					have = (at - 1) / m.info.BlockSize * m.info.BlockSize
				}
				return 1e3 * m.ceilings.prefillFloor(&m.info, 1, at, have)
			},
		}
	}
	return []*peerPart{
		{
			name: "start", always: true, metric: "start_s", unit: "s",
			values: func(*PeersOptions) []int { return []int{1} },
			what:   func(*PeersOptions, int) string { return "process start to first token, s" },
			load:   func(*PeersOptions, int) (int, int) { return 0, 0 },
			measure: func(m *peerRun, ctx context.Context, _ int, _ uint64) (map[string]float64, error) {
				took, err := m.o.Start(ctx, m.model)
				return map[string]float64{"start_s": took.Seconds()}, err
			},
		},
		{
			name: "decode", always: true, metric: "step_ms", unit: "ms",
			values: func(o *PeersOptions) []int {
				return slices.Compact(slices.Sorted(slices.Values(o.Batches)))
			},
			what: func(_ *PeersOptions, at int) string { return fmt.Sprintf("decode, batch %d, ms a step", at) },
			load: func(o *PeersOptions, at int) (int, int) {
				_, last := o.contexts()
				return at, last + 1
			},
			prepare: (*peerRun).fillCache,
			measure: (*peerRun).decode,
			floor: func(m *peerRun, at int) float64 {
				first, last := m.o.contexts()
				return 1e3 * m.ceilings.decodeFloor(&m.info, at, float64(first+last)/2)
			},
		},
		firstToken("ttft", "first token of a prompt of %s, ms", false, 128, 1024, 8192, 30000),
		firstToken("prefix", "the same with %s in the prefix cache, ms", true, 4096, 30000),
	}
}

// contexts are the tokens of context of the first and the last decode step that
// counts.
func (o *PeersOptions) contexts() (first, last int) {
	first = o.scaled(peerPrompt) + o.scaled(peerWarm)
	return first, first + o.scaled(peerSteps)
}

// peerThroughputs are the parts whose rows are tokens a second.
func peerThroughputs() []*peerPart {
	return []*peerPart{
		{
			name: "prefill", always: true, metric: "prefill_throughput", unit: "tokens/s", higher: true,
			values: func(o *PeersOptions) []int { return o.lengths(peerPrompt) },
			what: func(o *PeersOptions, at int) string {
				return fmt.Sprintf("prefill of %d × %s, tok/s", o.scaled(peerPrefills), thousands(fmt.Sprint(at)))
			},
			load:    func(o *PeersOptions, at int) (int, int) { return o.scaled(peerPrefills), at + 1 },
			prepare: func(m *peerRun, ctx context.Context, _ int) error { return m.warmUp(ctx) },
			measure: (*peerRun).prefill,
			floor: func(m *peerRun, at int) float64 {
				n := m.o.scaled(peerPrefills)
				return float64(n*at) / m.ceilings.prefillFloor(&m.info, n, at, 0)
			},
		},
		{
			name: "requests", always: true, metric: "output_throughput", unit: "tokens/s", higher: true,
			values: func(o *PeersOptions) []int { return o.lengths(256) },
			what:   func(_ *PeersOptions, at int) string { return fmt.Sprintf("%d requests at once, out tok/s", at) },
			load:   func(o *PeersOptions, _ int) (int, int) { return 1, 2 * o.scaled(1024) },
			measure: func(m *peerRun, ctx context.Context, at int, _ uint64) (map[string]float64, error) {
				return m.throughput(ctx, m.mixed(at))
			},
			floor: func(m *peerRun, at int) float64 {
				in, out := m.mixedLengths(at)
				total := 0
				for _, n := range out {
					total += n
				}
				return float64(total) / m.ceilings.requestsFloor(&m.info, in, out)
			},
		},
		{
			name: "sweep", metric: "output_throughput", unit: "tokens/s", higher: true,
			values: func(o *PeersOptions) []int { return o.lengths(64, 128, 256, 512, 1024) },
			what: func(o *PeersOptions, at int) string {
				return fmt.Sprintf("%d of %d/%d, max_num_seqs %d, out tok/s", o.scaled(peerSweep), o.scaled(peerSweepIn), o.scaled(peerSweepOut), at)
			},
			load: func(o *PeersOptions, at int) (int, int) {
				return min(at, o.scaled(peerSweep)), o.scaled(peerSweepIn) + o.scaled(peerSweepOut)
			},
			measure: (*peerRun).sweep,
		},
		{
			name: "swap", always: true, metric: "swap_gb_per_second", unit: "", higher: true,
			values: func(o *PeersOptions) []int { return o.lengths(peerSwapBatch) },
			what: func(_ *PeersOptions, at int) string {
				return fmt.Sprintf("swap beside decode of %d, GB/s the slower way", at)
			},
			load:    func(o *PeersOptions, at int) (int, int) { return at, o.scaled(peerPrompt) + 2 },
			measure: (*peerRun).swap,
		},
	}
}

// work is n requests of equal lengths; equal seeds make equal prompts, and fewer
// requests have the first prompts of more.
func (m *peerRun) work(seed uint64, n, prompt, output int) Workload {
	return RandomWorkload(seed, n, m.info.SampleVocab, 0, 0, Fixed(prompt, output))
}

// warmUp brings code, caches and clocks to where a measurement will find them.
func (m *peerRun) warmUp(ctx context.Context) error {
	return m.cells.warmUp(ctx, &arm{}, 32, m.info.SampleVocab)
}

// fillCache computes the prompts of the largest batch, so that those of every batch
// are in the prefix cache.
func (m *peerRun) fillCache(ctx context.Context, most int) error {
	if err := m.e.ResetPrefixCache(ctx); err != nil {
		return err
	}
	_, err := runAll(ctx, m.e, m.work(0, most, m.o.scaled(peerPrompt), 1))
	return err
}

// decode times the steps in which the whole batch decodes at the contexts that count,
// by the engine's own records.
func (m *peerRun) decode(ctx context.Context, batch int, _ uint64) (map[string]float64, error) {
	first, last := m.o.contexts()
	prompt := m.o.scaled(peerPrompt)
	before := m.lastStep()
	if _, err := runAll(ctx, m.e, m.work(0, batch, prompt, last-prompt+1)); err != nil {
		return nil, err
	}
	steps := slices.DeleteFunc(m.e.Steps(math.MaxInt), func(s engine.StepRecord) bool {
		return s.Step <= before || len(s.Scheduled) != batch || s.Tokens != batch || slices.ContainsFunc(s.Scheduled, func(r scheduler.RecordScheduled) bool {
			return r.Start+1 < first || r.Start+1 > last
		})
	})
	n := len(steps) - 1
	if n < 1 {
		return nil, fmt.Errorf("%d sequences never decoded together", batch)
	}
	var busy time.Duration
	hosts := make([]float64, 0, n)
	for _, s := range steps[:n] {
		busy += s.Device
		hosts = append(hosts, float64(s.Host)/float64(time.Microsecond))
	}
	wall := steps[n].Start.Sub(steps[0].Start)
	step := wall.Seconds() / float64(steps[n].Step-steps[0].Step)
	metrics := map[string]float64{
		"step_ms": 1e3 * step, "output_throughput": float64(batch) / step, "steps": float64(n), "host_us": median(hosts),
		"gpu_idle": max(0, 1-busy.Seconds()/wall.Seconds()),
	}
	if m.shape != nil {
		if cold := m.ceilings.coldKernels(&m.info, m.shape.Layers, batch, float64(first+last)/2); cold > 0 {
			metrics["cold_kernels_ms"] = 1e3 * cold
		}
	}
	return metrics, nil
}

// lastStep is the number of the last step so far.
func (m *peerRun) lastStep() int64 {
	if steps := m.e.Steps(1); len(steps) > 0 {
		return steps[0].Step
	}
	return 0
}

// firstToken times the first tokens of prompts, each alone on an engine that knows
// none of it, or, cached, that has answered it before.
func (m *peerRun) firstToken(ctx context.Context, tokens int, repeat uint64, cached bool) (map[string]float64, error) {
	var times []float64
	total, seed, warm := 0.0, 1+repeat<<8, 1 // the first is not kept
	if cached {
		warm = 2 // nor is the one that fills the cache
	}
	for i := 0; len(times) < leastSamples || total < sampledMs && len(times) < mostSamples; i++ {
		if !cached || i == 0 {
			if err := m.e.ResetPrefixCache(ctx); err != nil {
				return nil, err
			}
		}
		if !cached {
			seed++
		}
		samples, err := runAll(ctx, m.e, m.work(seed, 1, tokens, 1))
		if err != nil {
			return nil, err
		}
		switch hit := samples[0].CachedTokens; {
		case cached && hit == 0 && i > 0 && tokens > m.info.BlockSize:
			return nil, errors.New("nothing of the prompt was in the prefix cache; is --enable-prefix-caching off?")
		case !cached && hit > 0:
			return nil, fmt.Errorf("%d tokens of a new prompt were in the prefix cache", hit)
		}
		if ttft, _ := samples[0].TTFT(); i >= warm {
			times = append(times, ttft.Seconds()*1e3)
			total += ttft.Seconds() * 1e3
		}
	}
	return map[string]float64{"median_ttft_ms": median(times)}, nil
}

// prefill times prompts at once, up to the last first token.
func (m *peerRun) prefill(ctx context.Context, tokens int, repeat uint64) (map[string]float64, error) {
	if err := m.e.ResetPrefixCache(ctx); err != nil {
		return nil, err
	}
	n := m.o.scaled(peerPrefills)
	samples, err := runAll(ctx, m.e, m.work(1<<32+repeat, n, tokens, 1))
	if err != nil {
		return nil, err
	}
	s := Summarize(samples)
	return map[string]float64{"prefill_throughput": float64(s.PromptTokens) / s.Duration.Seconds()}, nil
}

// mixed is the first n of the peer's requests.
func (m *peerRun) mixed(n int) Workload {
	in, out := m.mixedLengths(n)
	next := -1
	return RandomWorkload(0, len(in), m.info.SampleVocab, 0, 0, func(*rand.Rand) (int, int) {
		next++
		return in[next], out[next]
	})
}

// mixedLengths are the tokens in and out of each.
func (m *peerRun) mixedLengths(n int) (in, out []int) {
	r := &m.figures.Requests
	for i := range min(n, len(r.Prompt)) {
		in, out = append(in, m.o.scaled(r.Prompt[i])), append(out, m.o.scaled(r.Output[i]))
	}
	return in, out
}

// sweep runs equal requests, so many of them at a time.
func (m *peerRun) sweep(ctx context.Context, seqs int, repeat uint64) (map[string]float64, error) {
	if _, err := m.cells.enter(ctx, &arm{limits: engine.Limits{MaxNumSeqs: seqs}}); err != nil {
		return nil, err
	}
	values, err := m.throughput(ctx, m.work(1<<33+repeat, m.o.scaled(peerSweep), m.o.scaled(peerSweepIn), m.o.scaled(peerSweepOut)))
	_, back := m.cells.enter(ctx, &arm{})
	return values, cmp.Or(err, back)
}

// throughput runs requests that come at once, on an empty prefix cache.
func (m *peerRun) throughput(ctx context.Context, work Workload) (map[string]float64, error) {
	if err := m.warmUp(ctx); err != nil {
		return nil, err
	}
	if err := m.e.ResetPrefixCache(ctx); err != nil {
		return nil, err
	}
	before := m.e.Stats()
	samples, err := runAll(ctx, m.e, work)
	if err != nil {
		return nil, err
	}
	s, after := Summarize(samples), m.e.Stats()
	return map[string]float64{
		"output_throughput": s.OutputThroughput, "median_ttft_ms": s.TTFT.Median, "median_tpot_ms": s.TPOT.Median, "duration": s.Duration.Seconds(),
		"num_preemptions": float64(after.PreemptionsSwap + after.PreemptionsRecompute - before.PreemptionsSwap - before.PreemptionsRecompute),
	}, nil
}
