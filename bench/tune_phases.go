package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/sim"
	"github.com/pagoda-engine/pagoda/kvcache"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// tuneMemory chooses gpu_memory_utilization. Its values are all measured: the edge of
// what fits is looked for beside those that do not.
func (t *tuner) tuneMemory(ctx context.Context) error {
	const stage = "memory"
	make := func(v float64) *arm {
		return t.arm(stage, over(t.best, engine.Limits{GPUMemoryUtilization: v}))
	}
	values := slices.Sorted(slices.Values(t.opt.Utilizations))
	var candidates []engine.Limits
	var arms []*arm
	for _, v := range values {
		a := make(v)
		if _, err := t.enter(ctx, a); errors.Is(err, engine.ErrMemory) {
			a.memory = err
		} else if err != nil {
			return err
		}
		arms = append(arms, a)
		candidates = append(candidates, a.limits)
	}
	edges, err := t.edges(ctx, arms, values, utilizationStep, make)
	if err != nil {
		return err
	}
	for _, a := range edges {
		candidates = append(candidates, a.limits)
	}
	return t.choose(ctx, stage, "gpu_memory_utilization", candidates, func(l engine.Limits) string { return fmt.Sprint(l.GPUMemoryUtilization) })
}

// tuneSeqs chooses max_num_seqs.
func (t *tuner) tuneSeqs(ctx context.Context) error {
	var candidates []engine.Limits
	for _, v := range t.opt.MaxNumSeqs {
		candidates = append(candidates, over(t.best, engine.Limits{MaxNumSeqs: v}))
	}
	return t.choose(ctx, "seqs", "max_num_seqs", candidates, func(l engine.Limits) string { return fmt.Sprint(l.MaxNumSeqs) })
}

// tuneTokens chooses the tokens of a step together with what bounds a prompt's
// chunk in it.
func (t *tuner) tuneTokens(ctx context.Context) error {
	longest := int(float64(t.o.Load.PromptTokens) * (1 + t.o.Load.RangeRatio))
	var candidates []engine.Limits
	for _, tokens := range t.opt.BatchTokens {
		if tokens < t.best.MaxNumSeqs {
			continue
		}
		l := over(t.best, engine.Limits{MaxNumBatchedTokens: tokens})
		candidates = append(candidates, l)
		for _, chunk := range []int{128, 512, 2048} {
			if chunk < tokens && chunk < longest {
				candidates = append(candidates, over(l, engine.Limits{LongPrefillTokenThreshold: chunk}))
			}
		}
		if m := l.MaxNumMixedTokens; m > 0 && m < tokens {
			candidates = append(candidates, over(l, engine.Limits{MaxNumMixedTokens: -1}))
		}
		if t.o.SLO.P99ITL > 0 {
			candidates = append(candidates, over(l, engine.Limits{TargetITL: t.o.SLO.P99ITL * 8 / 10}))
			if tokens > boundedTokens {
				candidates = append(candidates, over(l, engine.Limits{MaxNumMixedTokens: boundedTokens}))
			}
		}
	}
	return t.choose(ctx, "tokens", "max_num_batched_tokens", candidates, func(l engine.Limits) string {
		text := fmt.Sprint(l.MaxNumBatchedTokens)
		if m := l.MaxNumMixedTokens; m > 0 && m < l.MaxNumBatchedTokens {
			text += fmt.Sprintf(", %d beside decodes", m)
		}
		if l.LongPrefillTokenThreshold > 0 {
			text += fmt.Sprintf(", chunks ≤ %d", l.LongPrefillTokenThreshold)
		}
		if l.TargetITL > 0 {
			text += fmt.Sprintf(", target ITL %v", l.TargetITL)
		}
		return text
	})
}

// tuneSwap chooses swap_space.
func (t *tuner) tuneSwap(ctx context.Context) error {
	var candidates []engine.Limits
	for _, v := range t.opt.SwapSpaces {
		if v == 0 {
			v = -1
		}
		candidates = append(candidates, over(t.best, engine.Limits{SwapSpace: v}))
	}
	return t.choose(ctx, "swap", "swap_space", candidates, func(l engine.Limits) string { return fmt.Sprintf("%g GiB", gib(max(l.SwapSpace, 0))) })
}

// candidate is a setting with what the simulator expects of it.
type candidate struct {
	limits       engine.Limits
	blocks, host int
	fate         string // why it is left out; "" = it is measured
	predicted    sim.Summary
	score        float64
}

const (
	// pruneBelow is the share of the best predicted objective below which nothing is
	// measured: the model is off by less.
	pruneBelow = 0.85
	// mostMeasured is the most candidates of a stage that are measured.
	mostMeasured = 5
	// boundedTokens is the max_num_mixed_tokens that is tried where a longest wait counts: a
	// quarter of it for 2 to 3 % of the throughput (docs/tuning.md).
	boundedTokens = 2048
)

// prune asks the engine how large each candidate's pools would be and the simulator
// how it would do, and says of each that cannot win why it is left out.
func (t *tuner) prune(ctx context.Context, limits []engine.Limits) ([]*candidate, error) {
	var all []*candidate
	for _, l := range limits {
		c := &candidate{limits: l}
		all = append(all, c)
		if err := t.foresee(ctx, c); err != nil {
			return nil, err
		}
	}
	t.leaveOut(all)
	return all, nil
}

// foresee finds a candidate's pools and simulates it.
func (t *tuner) foresee(ctx context.Context, c *candidate) error {
	switch err := t.e.Reconfigure(ctx, c.limits); {
	case ctx.Err() != nil:
		return ctx.Err()
	case notReserved(err):
		c.fate = "no room reserved at start"
		return nil
	case err != nil:
		return nil // measured all the same: out of memory is a result
	}
	info := t.e.Info()
	c.blocks, c.host = info.NumBlocks, info.HostBlocks
	if t.model.Steps == 0 {
		return nil
	}
	l, load := &c.limits, &t.o.Load
	spread := func(mean int) sim.Lengths { // the 95th percentile of an even distribution
		return sim.Lengths{Mean: float64(mean), P95: float64(mean) * (1 + 0.9*load.RangeRatio)}
	}
	w := sim.Workload{
		Requests: load.Requests, Seed: t.o.Seed, Rate: load.Rate, Prompt: spread(load.PromptTokens), Output: spread(load.OutputTokens),
	}
	if load.SharedPrefix > 0 {
		w.Prompt = spread(max(load.PromptTokens-load.SharedPrefix, 1))
		w.Families, w.PrefixLen, w.PrefixShare = 1, load.SharedPrefix, 1
	}
	s, err := sim.Simulate(ctx, sim.Config{
		Scheduler: scheduler.Config{Limits: scheduler.Limits{
			MaxNumSeqs: l.MaxNumSeqs, MaxBatchedTokens: l.MaxNumBatchedTokens, PreemptionMode: scheduler.Mode(l.PreemptionMode),
			Watermark: l.Watermark, MaxMixedTokens: max(l.MaxNumMixedTokens, 0), LongPrefillThreshold: max(l.LongPrefillTokenThreshold, 0), TargetITL: max(l.TargetITL, 0),
		}, SwapOut: t.model.SwapBlock, SwapIn: t.model.SwapBlock},
		Cache:    kvcache.Config{NumBlocks: c.blocks + 1, HostBlocks: c.host, BlockSize: info.BlockSize},
		StepTime: t.model.StepTime, BlockBytes: info.BlockBytes, Overlapped: info.Overlapped, MaxQueued: load.Requests, MaxModelLen: info.MaxModelLen,
	}, w)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil { // a setting that cannot be simulated is measured
		c.predicted, c.score = s, t.predictedScore(&s)
	}
	return nil
}

// predictedScore is the simulated objective: throughput, less where the latencies
// wanted are missed.
func (t *tuner) predictedScore(s *sim.Summary) float64 {
	score := s.OutputThroughput
	if want := float64(t.o.SLO.P99ITL) / float64(time.Millisecond); want > 0 && s.ITL.P99 > want {
		score *= want / s.ITL.P99
	}
	if want := float64(t.o.SLO.P99TTFT) / float64(time.Millisecond); want > 0 && s.TTFT.P99 > want {
		score *= want / s.TTFT.P99
	}
	return score
}

// unreached says that two candidates differ in a max_num_seqs that is never reached, and in what its memory leaves the pool.
func (t *tuner) unreached(a, b *candidate) bool {
	x, y := a.limits, b.limits
	if min(x.MaxNumSeqs, y.MaxNumSeqs) < t.o.Load.Requests {
		return false
	}
	x.MaxNumSeqs = y.MaxNumSeqs
	return x == y
}

// leaveOut marks the candidates that cannot win, those that do the same as another,
// and, of the rest, all but the most promising.
func (t *tuner) leaveOut(all []*candidate) {
	top := 0.0
	for _, c := range all {
		top = max(top, c.score)
	}
	var kept []*candidate
	for _, c := range all {
		if c.fate != "" {
			continue
		}
		if c.score > 0 && c.score < pruneBelow*top {
			c.fate = fmt.Sprintf("left out: %.0f %% of the best", 100*c.score/top)
			continue
		}
		same := func(o *candidate) bool {
			return c.predicted.Finished > 0 && (o.blocks == c.blocks || t.unreached(c, o)) && o.predicted.VirtualSeconds == c.predicted.VirtualSeconds && o.predicted.Steps == c.predicted.Steps
		}
		if i := slices.IndexFunc(kept, same); i >= 0 {
			if c.limits != t.best {
				c.fate = "left out: does as another"
				continue
			}
			kept[i].fate = "left out: does as the present one"
			kept = slices.Delete(kept, i, i+1)
		}
		kept = append(kept, c)
	}
	slices.SortStableFunc(kept, func(a, b *candidate) int { return -compareParam(a.score, b.score) })
	measured := 0
	for _, c := range kept {
		if c.score == 0 { // out of memory, or not simulated
			continue
		}
		if measured++; measured > mostMeasured && c.limits != t.best {
			c.fate = fmt.Sprintf("left out: %d are expected to do as well", mostMeasured)
		}
	}
}
