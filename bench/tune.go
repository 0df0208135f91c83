package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
)

// TuneOptions configure Tune. Zero values are defaults.
type TuneOptions struct {
	CellOptions
	// Start are the limits to begin from and to beat; the zero value of a field is
	// the engine's own.
	Start engine.Limits
	// Runs is a file that keeps every run as it is measured; "" = none. Resume takes
	// what it holds of this very model, machine and setting.
	Runs   string
	Resume bool

	Utilizations []float64 // default 0.70, 0.80, 0.90, 0.95
	MaxNumSeqs   []int     // default 4, 16, 64, 128, 256, 512, 1024
	BatchTokens  []int     // max_num_batched_tokens; default 256, 512, … 16384
	SwapSpaces   []int64   // bytes; default 0, 4, 8 GiB
}

// fill sets defaults.
func (o *TuneOptions) fill(info engine.Info) {
	o.CellOptions.fill()
	o.Load.fill(loadOf(info, Load{Requests: 48, PromptTokens: 48, OutputTokens: 64, RangeRatio: 0.5},
		Load{Requests: 256, PromptTokens: 128, OutputTokens: 128, RangeRatio: 0.5}))
	if len(o.Utilizations) == 0 {
		o.Utilizations = []float64{0.7, 0.8, 0.9, 0.95}
	}
	if len(o.MaxNumSeqs) == 0 {
		o.MaxNumSeqs = []int{4, 16, 64, 128, 256, 512, 1024}
	}
	if len(o.BatchTokens) == 0 {
		o.BatchTokens = []int{256, 512, 1024, 2048, 4096, 8192, 16384}
	}
	if len(o.SwapSpaces) == 0 {
		o.SwapSpaces = []int64{0, 4 << 30, 8 << 30}
	}
}

// tuner is a tuning under way.
type tuner struct {
	*cells
	opt       TuneOptions
	objective string            // metric
	start     engine.Limits     // every field set
	best      engine.Limits     // likewise
	found     engine.Limits     // what verify compared with the start
	reasons   map[string]string // of each parameter, by its flag
	results   []Cell            // measured so far, in order
	tables    []Table
	notes     []string
}

// phases are the stages that choose something, in order.
func (t *tuner) phases() []func(ctx context.Context) error {
	return []func(ctx context.Context) error{t.tuneMemory, t.tuneSeqs, t.tuneTokens, t.tuneSwap}
}

// Tune looks for the limits that serve the load best: first how it is and where the
// time goes, then memory,
// sequences, tokens of a step and chunk, swap space, and at last whether the outcome
// beats the start. In each stage the step-time model, fitted to the runs so far, and
// the simulator leave out what cannot win, and successive halving measures the
// rest. The objective is throughput, or goodput when latencies are wanted. It
// returns what is done when ctx ends, too; Runs lets it go on from there.
func Tune(ctx context.Context, e Tunable, o TuneOptions) (*Report, *TunedConfig, error) {
	if err := o.Check(); err != nil {
		return nil, nil, err
	}
	info := e.Info()
	o.fill(info)
	if err := o.Load.check(info); err != nil {
		return nil, nil, err
	}
	t := &tuner{cells: newCells(e, o.CellOptions), opt: o, objective: "output_throughput", reasons: map[string]string{}}
	defer t.restore()
	if o.SLO != (SLO{}) {
		t.objective = "output_goodput"
	}
	t.base = over(t.base, o.Start)
	t.base.NumGPUBlocksOverride, t.base.KVCacheMemoryBytes = 0, 0 // the pool follows from the share of the memory
	// The engine may have been started with more, for the sake of the values to try.
	if err := e.Reconfigure(ctx, t.base); err != nil {
		return nil, nil, fmt.Errorf("the parameters to begin with: %w", err)
	}
	if info.Device.Backend == "cpu" && t.base.MemoryLimit <= 0 {
		t.notes = []string{fmt.Sprintf("The KV pool is the one that pagoda serve has on this machine, %s blocks at the start; --memory-limit searches with a smaller one, and is then in the file.", shortValue(float64(e.Info().NumBlocks)))}
	}
	t.start, t.best = t.base, t.base
	if o.Runs != "" {
		var err error
		if t.o.store, err = openStore(o.Runs, t.context(), o.Resume); err != nil {
			return nil, nil, err
		}
		defer func() { _ = t.o.store.close() }() // every line was written whole
	}
	t.expect = int64(9*o.Repeats + 20)
	err := t.run(ctx)
	return t.finish(err), t.config(err), err
}

// context is what runs must have in common to count for each other.
func (t *tuner) context() string {
	i := t.e.Info()
	text := fmt.Sprintf("%s, %s %s, %d threads, blocks of %d tokens, max_model_len %d, slo %v, seed %d", i.Model, i.Device.Device, i.Device.Path, i.Device.Threads, i.BlockSize, i.MaxModelLen, t.o.SLO, t.o.Seed)
	if e, ok := t.e.(interface{ Settings() []engine.Setting }); ok {
		for _, s := range e.Settings() { // the others are limits, which runs have with them
			if slices.Contains([]string{"quantization", "enable-prefix-caching", "batch-invariant", "scheduling-policy", "async-scheduling", "enforce-eager"}, s.Name) {
				text += ", " + s.Name + " " + s.Value
			}
		}
	}
	return text
}

// run measures the stages in order.
func (t *tuner) run(ctx context.Context) error {
	base := t.arm("baseline", t.start)
	err := t.measure(ctx, "baseline", []*arm{base}, t.o.Repeats)
	t.results = append(t.results, measuredCells([]*arm{base})...)
	if err != nil {
		return err
	}
	if base.memory != nil {
		return fmt.Errorf("the parameters to begin with do not fit: %w", base.memory)
	}
	if err := t.profile(ctx); err != nil {
		return err
	}
	for _, phase := range t.phases() {
		if err := phase(ctx); err != nil {
			return err
		}
	}
	return t.verify(ctx)
}

// profile looks where the time of a decode step goes, for the report: what bounds it
// says which of the stages that follow can gain anything. An engine that cannot be
// profiled does without.
func (t *tuner) profile(ctx context.Context) error {
	e, ok := t.e.(Profilable)
	if !ok {
		return nil
	}
	r, err := Profile(ctx, e, ProfileOptions{Batches: []int{min(t.start.MaxNumSeqs, 32)}, Steps: 4, PartTime: 5 * time.Second})
	if err != nil {
		return err
	}
	part := &r.Parts[len(r.Parts)-1]
	if part.Stats == nil || len(part.Stats.Ops) == 0 {
		t.notes = append(t.notes, "The profile recorded no step.")
		return nil
	}
	table := part.operations()
	table.Title = "profile of a step at the start, " + part.Name()
	t.tables = append(t.tables, table)
	t.notes = append(t.notes, "Profile, "+part.Name()+": "+r.judge(part)+".")
	return nil
}

// arm makes an arm of a stage; its params are the limits that Tune chooses.
func (t *tuner) arm(stage string, l engine.Limits) *arm {
	a := &arm{stage: stage, limits: l, load: t.o.Load, params: tunedParams(l)}
	a.params["stage"] = stage
	return a
}

// tunedParams are the limits that Tune chooses, as flags.
func tunedParams(l engine.Limits) map[string]any {
	p := map[string]any{
		"gpu_memory_utilization": l.GPUMemoryUtilization, "max_num_seqs": l.MaxNumSeqs, "max_num_batched_tokens": l.MaxNumBatchedTokens,
		"swap_space": gib(max(l.SwapSpace, 0)), "long_prefill_token_threshold": max(l.LongPrefillTokenThreshold, 0),
	}
	if l.MaxNumMixedTokens != 0 {
		p["max_num_mixed_tokens"] = max(l.MaxNumMixedTokens, 0)
	}
	if l.TargetITL > 0 {
		p["target_itl_ms"] = float64(l.TargetITL) / 1e6
	}
	return p
}

// choose measures candidates of a stage, the present best among them, and takes the
// winner over. value prints what the stage chooses.
func (t *tuner) choose(ctx context.Context, stage, key string, limits []engine.Limits, value func(engine.Limits) string) error {
	all, err := t.prune(ctx, limits)
	if err != nil {
		return err
	}
	fitted := t.model
	now := t.arm(stage, t.best)
	arms := []*arm{now}
	for _, c := range all {
		if c.fate == "" && c.limits != t.best {
			arms = append(arms, t.arm(stage, c.limits))
		}
	}
	alive, err := t.halve(ctx, stage, arms)
	t.results = append(t.results, measuredCells(arms)...)
	winner := now
	if err == nil {
		winner = t.winner(now, alive)
		t.reasons[key] = t.reason(now, winner, arms, value)
		t.best = winner.limits
	}
	t.tables = append(t.tables, t.stageTable(stage, fitted, all, arms, winner, value))
	return err
}

// halve measures the arms once and keeps the better half, again and again, until
// two are left besides the first, which stays in all rounds; these get all repeats.
func (t *tuner) halve(ctx context.Context, stage string, arms []*arm) ([]*arm, error) {
	alive := slices.Clone(arms)
	for round := 1; len(alive) > 3 && round < t.o.Repeats; round++ {
		if err := t.measure(ctx, stage, alive, 1); err != nil {
			return alive, err
		}
		alive = slices.DeleteFunc(alive, func(a *arm) bool { return a.memory != nil && a != arms[0] })
		rest := alive[1:]
		slices.SortStableFunc(rest, func(a, b *arm) int {
			return -compareParam(t.score(a), t.score(b))
		})
		alive = alive[:1+min(len(rest), max(2, (len(rest)+1)/2))]
	}
	have := len(alive[0].runs)
	if have < t.o.Repeats {
		if err := t.measure(ctx, stage, alive, t.o.Repeats-have); err != nil {
			return alive, err
		}
	}
	return alive, nil
}

// score is the median of an arm's objective.
func (t *tuner) score(a *arm) float64 {
	c := a.cell()
	return c.medianOf(t.objective)
}

// winner is the arm that beats the present best by the most, or the present best. Steps
// that the spread hides may win: several of them may add up to what the verification at
// the end, which is strict, can tell from noise.
func (t *tuner) winner(now *arm, alive []*arm) *arm {
	present := now.cell()
	old := present.Metrics[t.objective]
	best, most := now, 0.0
	for _, a := range alive {
		c := a.cell()
		m := c.Metrics[t.objective]
		if gain := gains(old, m).Median; c.measured() && beats(m, old) && gain > most {
			best, most = a, gain
		}
	}
	return best
}

// figures prints an arm's objective.
func (t *tuner) figures(a *arm) string {
	c := a.cell()
	m := c.Metrics[t.objective]
	if len(m.Runs) == 1 {
		return fmt.Sprintf("%s tok/s in one run", shortValue(m.Median))
	}
	return fmt.Sprintf("%s tok/s (%s–%s)", shortValue(m.Median), shortValue(m.Min), shortValue(m.Max))
}

// reason says why the winner was chosen, in figures.
func (t *tuner) reason(now, winner *arm, arms []*arm, value func(engine.Limits) string) string {
	var others []string
	for _, a := range arms {
		switch {
		case a == winner:
		case a.memory != nil:
			others = append(others, value(a.limits)+" is out of memory")
		case len(a.runs) > 0:
			others = append(others, value(a.limits)+": "+t.figures(a))
		}
	}
	text := fmt.Sprintf("%s: %s", value(winner.limits), t.figures(winner))
	a, b := now.cell(), winner.cell()
	old, new := a.Metrics[t.objective], b.Metrics[t.objective]
	switch {
	case len(others) == 0:
		text += "; nothing else could win by the simulation"
	case winner == now:
		text += "; no other is better"
	case below(old, new):
		text += "; better beyond the spread than " + value(now.limits) + byRepeat(old, new)
	default:
		text += "; better in the median than " + value(now.limits) + byRepeat(old, new) + ", though not beyond the spread"
	}
	if len(others) > 0 {
		text += " (" + strings.Join(others, "; ") + ")"
	}
	return text
}

// byRepeat says how many times as much b has as a in the repeats; "" where there is
// but one, or nothing to divide by.
func byRepeat(a, b Metric) string {
	low, high, n := math.Inf(1), math.Inf(-1), min(len(a.Runs), len(b.Runs))
	for i := range n {
		low, high = min(low, b.Runs[i]/a.Runs[i]), max(high, b.Runs[i]/a.Runs[i])
	}
	if n < 2 || !finite(low) || !finite(high) {
		return ""
	}
	return fmt.Sprintf(", by repeat %.2f–%.2f×", low, high)
}

// verify compares the start with the outcome, interleaved.
func (t *tuner) verify(ctx context.Context) error {
	if t.start == t.best {
		return nil
	}
	arms := []*arm{t.arm("verify", t.start), t.arm("verify", t.best)}
	err := t.measure(ctx, "verify", arms, max(t.o.Repeats, 3)+2)
	t.results = append(t.results, measuredCells(arms)...)
	if err != nil {
		return err
	}
	start, best := arms[0].cell(), arms[1].cell()
	t.found = t.best
	if old, new := start.Metrics[t.objective], best.Metrics[t.objective]; !below(old, new) {
		// What cannot be told from noise is no reason to change anything.
		t.best = t.start
		for key := range t.reasons {
			t.reasons[key] = fmt.Sprintf("as at the start: all changes together gave %s against %s%s, which is no improvement beyond the spread", t.figures(arms[1]), t.figures(arms[0]), byRepeat(old, new))
		}
	}
	return nil
}

// objectiveName is the objective for people.
func (t *tuner) objectiveName() string {
	if t.objective == "output_throughput" {
		return "throughput"
	}
	var wants []string
	if t.o.SLO.P99ITL > 0 {
		wants = append(wants, fmt.Sprintf("p99 ITL ≤ %v", t.o.SLO.P99ITL))
	}
	if t.o.SLO.P99TTFT > 0 {
		wants = append(wants, fmt.Sprintf("TTFT ≤ %v", t.o.SLO.P99TTFT))
	}
	return "goodput (" + strings.Join(wants, ", ") + ")"
}

// notReserved says that a limit is above what the engine set room aside for when it
// started.
func notReserved(err error) bool {
	return errors.Is(err, engine.ErrConfig) && !errors.Is(err, engine.ErrMemory)
}
