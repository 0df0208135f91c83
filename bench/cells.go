package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/sim"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// Tunable is an engine whose limits the experiments change while it stays loaded.
type Tunable interface {
	Submitter
	Info() engine.Info
	Stats() engine.Stats
	Steps(n int) []engine.StepRecord
	Ledger() []engine.LedgerEntry
	Limits() engine.Limits
	Reconfigure(ctx context.Context, limits engine.Limits) error
	ResetPrefixCache(ctx context.Context) error
	Observe(ctx context.Context, o *engine.Observation, blocks, steps int) error
}

// CellOptions are what every experiment over cells has in common. Zero values are
// defaults.
type CellOptions struct {
	Repeats int    // of each cell, interleaved; default 3
	Seed    uint64 // of the first repeat's requests; the others count on
	Load    Load
	SLO     SLO
	// NoRoom is why the engine was not started with room for the largest values; nil
	// when it was, or was not asked to. It wraps engine.ErrMemory.
	NoRoom error
	// Progress is called before and after each run with the runs done so far and
	// all that are known to come.
	Progress func(stage string, done, total int64)

	store *store // of runs that need not be measured again; nil = none
	// once measures an arm, in tests; nil = on the engine.
	once func(ctx context.Context, a *arm, seed uint64) (map[string]float64, error)
}

// fill sets defaults.
func (o *CellOptions) fill() {
	if o.Repeats <= 0 {
		o.Repeats = 3
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
}

// SLO are the latencies that goodput wants; 0 = no matter.
type SLO struct {
	P99ITL  time.Duration // of a request's inter-token latencies, the 99th percentile
	P99TTFT time.Duration // of a cell's; a single request's is wanted below it
}

// learned is a step-time model fitted to the runs so far.
type learned struct {
	StepTime  sim.StepTime  `json:"step_time"`
	Steps     int64         `json:"steps"`
	Error     float64       `json:"error"`      // mean of |predicted − measured| / measured
	SwapBlock time.Duration `json:"swap_block"` // to copy a block one way; 0 = none was
	// Fit is where the fitting stands, so that a resumed search goes on with it.
	Fit scheduler.StepModel `json:"fit"`
}

// arm is one setting of an experiment: a Cell while it is measured.
type arm struct {
	stage       string // of a search: its runs count for no other's
	params      map[string]any
	limits      engine.Limits
	load        Load
	concurrency int // requests in flight; 0 = all at once
	watchBlocks bool

	runs   []map[string]float64 // a repeat each
	trace  []moment             // of the last repeat
	blocks []engine.BlockState  // at its fullest moment, with watchBlocks
	memory error                // it did not fit; wraps engine.ErrMemory, or is notReserved
	failed error                // of requests, the first
}

// key tells arms apart across processes.
func (a *arm) key() string {
	text, err := json.Marshal(struct {
		Stage       string
		Limits      engine.Limits
		Load        Load
		Concurrency int
	}{a.stage, a.limits, a.load, a.concurrency})
	if err != nil {
		panic(fmt.Sprintf("bench: an arm cannot be written: %v", err)) // plain numbers
	}
	return string(text)
}

// cells measures arms on one engine, which stays loaded.
type cells struct {
	e Tunable
	o CellOptions
	// base are the limits that the arms change: those in force when the experiment
	// began, started, with a pool that it may have chosen itself.
	base, started engine.Limits
	done          int64
	total         int64
	// expect is the runs that are expected in all, where a search does not know yet.
	expect int64
	fit    scheduler.StepModel
	model  learned
}

// newCells begins an experiment. The engine's limits come back with restore.
func newCells(e Tunable, o CellOptions) *cells {
	o.fill()
	now := e.Limits()
	return &cells{e: e, o: o, base: now, started: now}
}

// restore puts the limits back that the engine had.
func (c *cells) restore() {
	// They were in force once, and nobody else's memory is in question here.
	_ = c.e.Reconfigure(context.Background(), c.started)
}

// over is the limits of base with those that l sets.
func over(base, l engine.Limits) engine.Limits {
	if l.GPUMemoryUtilization != 0 || l.NumGPUBlocksOverride != 0 || l.KVCacheMemoryBytes != 0 {
		base.NumGPUBlocksOverride, base.KVCacheMemoryBytes = l.NumGPUBlocksOverride, l.KVCacheMemoryBytes
	}
	set := func(to *float64, v float64) {
		if v != 0 {
			*to = v
		}
	}
	set(&base.GPUMemoryUtilization, l.GPUMemoryUtilization)
	set(&base.Watermark, l.Watermark)
	for to, v := range map[*int]int{
		&base.MaxNumSeqs: l.MaxNumSeqs, &base.MaxNumBatchedTokens: l.MaxNumBatchedTokens,
		&base.MaxNumMixedTokens: l.MaxNumMixedTokens, &base.LongPrefillTokenThreshold: l.LongPrefillTokenThreshold,
	} {
		if v != 0 {
			*to = v
		}
	}
	for to, v := range map[*int64]int64{&base.SwapSpace: l.SwapSpace, &base.MemoryLimit: l.MemoryLimit} {
		if v != 0 {
			*to = v
		}
	}
	if l.PreemptionMode != "" {
		base.PreemptionMode = l.PreemptionMode
	}
	if l.TargetITL != 0 {
		base.TargetITL = l.TargetITL
	}
	// A step must have room for one token of every sequence.
	base.MaxNumBatchedTokens = max(base.MaxNumBatchedTokens, base.MaxNumSeqs)
	return base
}

// measure runs every arm so many times more. Repeats are the outer loop and each
// begins with another arm, so that a machine that gets slower or faster is no
// arm's gain. An arm that does not fit the memory says so and is left out; the
// error is the context's or the engine's end.
func (c *cells) measure(ctx context.Context, stage string, arms []*arm, repeats int) error {
	c.total += int64(len(arms) * repeats)
	for repeat := range repeats {
		for i := range arms {
			a := arms[(i+repeat)%len(arms)]
			c.o.Progress(stage, c.done, max(c.total, c.expect))
			if err := c.measureOnce(ctx, a); err != nil {
				return fmt.Errorf("%s: %w", settingText(a.params), err)
			}
			c.done++
			c.o.Progress(stage, c.done, max(c.total, c.expect))
		}
	}
	return nil
}

// measureOnce runs an arm's next repeat.
func (c *cells) measureOnce(ctx context.Context, a *arm) error {
	if a.memory != nil {
		return nil
	}
	repeat := len(a.runs)
	if values, model, ok := c.o.store.recall(a.key(), repeat); ok {
		a.runs, c.model, c.fit = append(a.runs, values), model, model.Fit
		return nil
	}
	took, err := c.enter(ctx, a)
	switch {
	case notReserved(err) && c.o.NoRoom != nil:
		a.memory = c.o.NoRoom
		return nil
	case errors.Is(err, engine.ErrMemory), notReserved(err):
		a.memory = err
		return nil
	case err != nil:
		return err
	}
	run := c.run
	if c.o.once != nil {
		run = c.o.once
	}
	values, err := run(ctx, a, c.o.Seed+uint64(repeat))
	if err != nil {
		return err
	}
	a.describe(values, c.e)
	values["reconfigure_ms"] = float64(took) / float64(time.Millisecond)
	a.runs = append(a.runs, values)
	return c.o.store.keep(a.key(), repeat, values, c.model)
}

// describe adds what follows from the limits alone: how many of the mean requests the
// pool holds, and what the engine takes by its own plan.
func (a *arm) describe(values map[string]float64, e Tunable) {
	info := e.Info()
	if bytes := ledgerBytes(e.Ledger(), "weights", "workspace", "kv cache"); bytes > 0 {
		values["engine_memory_bytes"] = float64(bytes)
	}
	if blocks := (a.load.PromptTokens + a.load.OutputTokens + info.BlockSize - 1) / info.BlockSize; blocks > 0 {
		values["max_concurrency"] = float64(info.NumBlocks / blocks)
	}
}

// enter puts an arm's limits in force and says how long that took.
func (c *cells) enter(ctx context.Context, a *arm) (time.Duration, error) {
	start := time.Now()
	err := c.e.Reconfigure(ctx, over(c.base, a.limits))
	return time.Since(start), err
}

// run measures an arm once, on an empty prefix cache, after a warm-up.
func (c *cells) run(ctx context.Context, a *arm, seed uint64) (map[string]float64, error) {
	vocab := c.e.Info().SampleVocab
	work := a.load.workload(seed, vocab)
	if err := c.warmUp(ctx, a, len(work), vocab); err != nil {
		return nil, err
	}
	if err := c.e.ResetPrefixCache(ctx); err != nil {
		return nil, err
	}
	m := watch(c.e, a.watchBlocks)
	samples, err := Run(ctx, c.e, work, Options{MaxConcurrency: a.concurrency, Sampling: engine.Sampling{Logprobs: -1}})
	seen := m.stop()
	if err != nil {
		return nil, err
	}
	for i := range samples {
		if err := samples[i].Err; err != nil && a.failed == nil {
			a.failed = err
		}
		if errors.Is(samples[i].Err, engine.ErrClosed) || errors.Is(samples[i].Err, engine.ErrDevice) {
			return nil, samples[i].Err
		}
	}
	a.trace, a.blocks = seen.moments, seen.blocks
	c.learn(seen.moments)
	return metricsOf(samples, seen, c.o.SLO), nil
}

// learn fits the step-time model to the steps of a run.
func (c *cells) learn(trace []moment) {
	for i := range trace {
		m := &trace[i]
		c.fit.Observe(m.load, m.took)
		if m.swapBlock > 0 {
			c.model.SwapBlock = m.swapBlock
		}
	}
	if c.fit.Ready() {
		c.model.StepTime, c.model.Steps, c.model.Error = sim.Coefficients(&c.fit), c.fit.Count(), c.fit.Error()
	}
	c.model.Fit = c.fit
}

// warmUp brings code, caches and clocks to where the run will find them: short
// requests, as many as will run together.
func (c *cells) warmUp(ctx context.Context, a *arm, n, vocab int) error {
	n = min(n, c.e.Info().MaxNumSeqs, 32)
	if a.concurrency > 0 {
		n = min(n, a.concurrency)
	}
	_, err := Run(ctx, c.e, RandomWorkload(1<<40, n, vocab, 0, 0, Fixed(16, 4)), Options{Sampling: engine.Sampling{Logprobs: -1}})
	return err
}

// cell is what came of an arm.
func (a *arm) cell() Cell {
	cell := Cell{Params: a.params, Metrics: map[string]Metric{}}
	names := map[string]bool{}
	for _, run := range a.runs {
		for name := range run {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		var values []float64
		for _, run := range a.runs {
			if v, ok := run[name]; ok {
				values = append(values, v)
			}
		}
		cell.Metrics[name] = NewMetric(unitOf(name), values)
	}
	switch {
	case notReserved(a.memory):
		cell.Note = "not measured: " + a.memory.Error()
	case a.memory != nil:
		cell.Metrics["out_of_memory"] = NewMetric("", []float64{1})
		cell.Note = "out of memory: " + a.memory.Error()
	case a.failed != nil:
		cell.Note = a.failed.Error()
	}
	return cell
}

// measuredCells lists what was measured, in the arms' order.
func measuredCells(arms []*arm) []Cell {
	out := make([]Cell, 0, len(arms))
	for _, a := range arms {
		if len(a.runs) > 0 || a.memory != nil {
			out = append(out, a.cell())
		}
	}
	return out
}

// settingText prints params as flags.
func settingText(params map[string]any) string {
	text := ""
	for _, name := range slices.Sorted(maps.Keys(params)) {
		if text != "" {
			text += ", "
		}
		text += fmt.Sprintf("%s %v", name, params[name])
	}
	return text
}
