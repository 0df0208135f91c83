package bench

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// TestOptionsAreChecked: what could not be measured is refused with the flag's name,
// before there is an engine.
func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]interface{ Check() error }{
		"--requests 1000000000: want 1 to 100000": &CellOptions{Load: Load{Requests: 1e9}},
		"--repeats -1":                 &CellOptions{Repeats: -1},
		"--output-tokens 1000000000":   &CellOptions{Load: Load{OutputTokens: 1e9}},
		"--random-range-ratio":         &CellOptions{Load: Load{RangeRatio: 1}},
		"--request-rate":               &CellOptions{Load: Load{Rate: math.NaN()}},
		"--batch-sizes 0":              &BaselineOptions{Batches: []int{1, 0}},
		"--gpu-memory-utilization":     &MemoryOptions{Utilizations: []float64{0.5, 1.5}},
		"--max-num-seqs 1000000":       &SeqsOptions{MaxNumSeqs: []int{1e6}},
		"--swap-space -1":              &SwapOptions{SwapSpaces: []int64{-1}},
		"--share 2":                    &SwapOptions{Share: 2},
		"--n 1":                        &PagedOptions{Choices: 1},
		"--max-num-batched-tokens 0":   &TuneOptions{BatchTokens: []int{0}},
		"--p99-itl-ms and --p99-ttft":  &TuneOptions{CellOptions: CellOptions{SLO: SLO{P99ITL: -time.Second}}},
		"--max-num-seqs: 65 values":    &TuneOptions{MaxNumSeqs: make([]int, 65)},
		"--gpu-memory-utilization: 65": &MemoryOptions{Utilizations: make([]float64, 65)},
	} {
		err := o.Check()
		require.ErrorContains(t, err, want)
		require.ErrorIs(t, err, engine.ErrConfig)
	}
	require.NoError(t, new(TuneOptions).Check())
	huge := Load{Requests: 100_000, PromptTokens: 4000, OutputTokens: 4000}
	require.ErrorContains(t, huge.check(engine.Info{MaxModelLen: 1 << 20}), "800000000 tokens a run")
}

// TestTimes: a ratio says when it may be chance.
func TestTimes(t *testing.T) {
	m := func(runs ...float64) Metric { return NewMetric("", runs) }
	require.Equal(t, "2.00×", times(m(2, 2.1, 1.9), m(1, 1.1, 0.9)))
	require.Equal(t, "0.50×", times(m(1, 1.1, 0.9), m(2, 2.1, 1.9)))
	require.Equal(t, "1.10×", times(m(1.1, 1.2, 1), m(1, 1.1, 0.9)), "in each repeat")
	require.Equal(t, "1.10× (no difference beyond the spread)", times(m(1.1, 1, 1.2), m(1, 1.1, 0.9)))
	require.Equal(t, "2.00× (by one repeat, whose spread is not known)", times(m(2), m(1)))
	require.Equal(t, "not measured", times(m(2), m()))
}

// TestOneRepeatHasNoSpread: the verdict of a baseline with one repeat says the ratio,
// and that it has no spread, and not that batching brings nothing.
func TestOneRepeatHasNoSpread(t *testing.T) {
	f := newFakeTunable()
	o := BaselineOptions{Batches: []int{1, 32}}
	o.Repeats = 1
	o.once = func(_ context.Context, a *arm, _ uint64) (map[string]float64, error) {
		values := run(265)
		values["median_itl_ms"] = 3.8
		if a.concurrency == 32 {
			values["output_throughput"], values["median_itl_ms"] = 6038, 5.3
		}
		return values, nil
	}
	r, err := Baseline(context.Background(), f, o)
	require.NoError(t, err)
	require.Contains(t, r.Verdict, "From batch 1 to 32 throughput is 22.78× (by one repeat, whose spread is not known)")
	require.NotContains(t, r.Verdict, "brings no throughput")
}

// TestSeqsSaysWhatIsOutOfMemory: a value that does not fit is in the verdict, as is the
// largest that does.
func TestSeqsSaysWhatIsOutOfMemory(t *testing.T) {
	f := newFakeTunable()
	f.mostSeqs = 100
	o := SeqsOptions{MaxNumSeqs: []int{16, 64, 256, 512}}
	o.once = func(_ context.Context, a *arm, _ uint64) (map[string]float64, error) {
		return run(float64(100 + a.limits.MaxNumSeqs)), nil
	}
	r, err := Seqs(context.Background(), f, o)
	require.NoError(t, err)
	require.Contains(t, r.Verdict, "256, 512 are out of memory; the largest that works is 100")
}

// TestOptimizedMeasuresBoth: the parameters found and those to beat are measured in
// turn, and the verdict compares them.
func TestOptimizedMeasuresBoth(t *testing.T) {
	f := newFakeTunable()
	var order []int
	o := BaselineOptions{Batches: []int{1, 8}, Limits: engine.Limits{MaxNumSeqs: 64}, Against: engine.Limits{MaxNumSeqs: 4}}
	o.once = func(_ context.Context, a *arm, seed uint64) (map[string]float64, error) {
		if seed == 0 {
			order = append(order, f.limits.MaxNumSeqs)
		}
		return run(float64(1000 + 100*f.limits.MaxNumSeqs + int(seed))), nil
	}
	optimized, baseline, err := Optimized(context.Background(), f, o)
	require.NoError(t, err)
	require.Equal(t, []int{4, 64, 4, 64}, order)
	require.Contains(t, optimized.Verdict, "interleaved with it: Better beyond the spread: output tok/s 1,402 → 7,402")
	require.Equal(t, 4, baseline.Manifest.EffectiveFlags["max_num_seqs"])
	require.Equal(t, 64, optimized.Manifest.EffectiveFlags["max_num_seqs"])
	require.Len(t, baseline.Cells[0].Metrics["output_throughput"].Runs, verdictRepeats)
	require.Contains(t, baseline.Notes[len(baseline.Notes)-2], "--max-num-seqs 4 of 8 requests")
}

// TestResumedSearchKeepsItsModel: what earlier runs taught the step-time model is there
// after a restart, and a line that was half written costs no other.
func TestResumedSearchKeepsItsModel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runs.jsonl")
	taught := func(resume bool, once func(c *cells)) *cells {
		s, err := openStore(path, "model", resume)
		require.NoError(t, err)
		c := newCells(newFakeTunable(), CellOptions{store: s})
		c.o.once = func(context.Context, *arm, uint64) (map[string]float64, error) {
			once(c)
			return run(1), nil
		}
		require.NoError(t, c.measure(context.Background(), "test", []*arm{{params: map[string]any{}}}, 3))
		require.NoError(t, s.close())
		return c
	}
	n := 0
	learn := func(c *cells) {
		for range 20 {
			n++
			c.learn([]moment{{took: time.Duration(100+10*(n%7)) * time.Microsecond, load: scheduler.Load{Decodes: n % 7, Context: int64(n)}}})
		}
	}
	first := taught(false, learn)
	require.Positive(t, first.model.Steps)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, text[:len(text)-9], 0o644), "the third run's line is torn")

	runs, before := 0, n
	resumed := taught(true, func(c *cells) {
		runs++
		require.EqualValues(t, 40, c.fit.Count(), "two runs' steps are known")
		n = 40
		learn(c)
	})
	require.Equal(t, 1, runs, "only the torn run is measured again")
	require.Equal(t, before, n)
	require.Equal(t, first.fit, resumed.fit)
	require.Equal(t, first.model, resumed.model)
	taught(true, func(*cells) { t.Error("a run was measured twice") })
}
