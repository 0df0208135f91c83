package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

// fakeTunable is a device of 1,000 bytes without an engine: shares of its memory
// from 0.3 up to edge fit, and the rest of the limits is believed.
type fakeTunable struct {
	limits   engine.Limits
	edge     float64
	mostSeqs int // more are out of memory; 0 = no matter
}

func newFakeTunable() *fakeTunable {
	return &fakeTunable{edge: 1, limits: engine.Limits{
		MemoryLimit: 1000, GPUMemoryUtilization: 0.9, MaxNumSeqs: 256, MaxNumBatchedTokens: 2048, SwapSpace: 4 << 30,
		PreemptionMode: "auto", Watermark: 0.01, LongPrefillTokenThreshold: -1, TargetITL: -1,
	}}
}

func (f *fakeTunable) Info() engine.Info {
	i := engine.Info{Model: "fake", MaxModelLen: 4096, SampleVocab: 100, BlockSize: 16, BlockBytes: 1, NumBlocks: int(1000 * f.limits.GPUMemoryUtilization), MaxNumSeqs: f.limits.MaxNumSeqs}
	i.Device.Backend, i.Device.Threads = "cpu", 2
	return i
}
func (f *fakeTunable) Stats() engine.Stats                    { return engine.Stats{} }
func (f *fakeTunable) Steps(int) []engine.StepRecord          { return nil }
func (f *fakeTunable) Ledger() []engine.LedgerEntry           { return nil }
func (f *fakeTunable) Limits() engine.Limits                  { return f.limits }
func (f *fakeTunable) ResetPrefixCache(context.Context) error { return nil }
func (f *fakeTunable) Observe(context.Context, *engine.Observation, int, int) error {
	return nil
}
func (f *fakeTunable) SubmitChoices([]context.Context, engine.Request) ([]*engine.Stream, error) {
	return nil, errors.New("the fake serves nothing")
}
func (f *fakeTunable) Reconfigure(_ context.Context, l engine.Limits) error {
	if u := l.GPUMemoryUtilization; u > f.edge || u < 0.3 {
		return fmt.Errorf("%w: %v of the memory", engine.ErrMemory, u)
	}
	if f.mostSeqs > 0 && l.MaxNumSeqs > f.mostSeqs && l != f.limits {
		return fmt.Errorf("%w: %d sequences", engine.ErrMemory, l.MaxNumSeqs)
	}
	f.limits = l
	return nil
}

// run is what a fake measurement brings: the objective, and what an advice needs.
func run(throughput float64) map[string]float64 {
	return map[string]float64{"output_throughput": throughput, "median_tpot_ms": 1e5 / throughput, "completed": 10, "num_gpu_blocks": 100}
}

// TestMemoryFindsTheEdge: values out of memory are results, the last one that fits
// is found in smaller steps and measured, and the engine gets its limits back.
func TestMemoryFindsTheEdge(t *testing.T) {
	f := newFakeTunable()
	f.edge, f.limits.GPUMemoryUtilization = 0.877, 0.8
	before := f.limits
	o := MemoryOptions{Utilizations: []float64{0.1, 0.5, 0.8, 0.95}}
	o.once = func(_ context.Context, a *arm, _ uint64) (map[string]float64, error) {
		require.LessOrEqual(t, f.limits.GPUMemoryUtilization, 0.877)
		return run(1000 * f.limits.GPUMemoryUtilization), nil
	}
	r, err := Memory(context.Background(), f, o)
	require.NoError(t, err)
	var works, fails []float64
	for _, c := range r.Cells {
		v := c.Params["gpu_memory_utilization"].(float64)
		if c.measured() {
			works = append(works, v)
			require.Len(t, c.Metrics["output_throughput"].Runs, 3)
		} else {
			fails = append(fails, v)
			require.EqualValues(t, 1, c.Metrics["out_of_memory"].Median)
			require.Contains(t, c.Note, "out of memory")
		}
	}
	require.Equal(t, []float64{0.1, 0.95}, fails)
	require.InDeltaSlice(t, []float64{0.3, 0.5, 0.8, 0.875}, works, 1e-9)
	require.InDelta(t, 0.875, r.Best["gpu_memory_utilization"], 1e-9)
	require.Contains(t, r.Verdict, "0.875")
	require.Contains(t, r.Verdict, "0.95 is out of memory")
	require.Contains(t, r.Verdict, "0.875 is enough for this load")
	require.Equal(t, before, f.limits)

	o.once = func(context.Context, *arm, uint64) (map[string]float64, error) {
		m := run(1000 * f.limits.GPUMemoryUtilization)
		m["num_preemptions"] = 7
		return m, nil
	}
	r, err = Memory(context.Background(), f, o)
	require.NoError(t, err)
	require.Contains(t, r.Verdict, "0.875 serves this load best, yet the pool binds there, too")
}

// TestNothingFits: then the verdict is the engine's own arithmetic.
func TestNothingFits(t *testing.T) {
	f := newFakeTunable()
	f.edge = 0.2
	r, err := Memory(context.Background(), f, MemoryOptions{})
	require.NoError(t, err)
	require.Contains(t, r.Verdict, "not enough memory")
	require.Empty(t, r.Best)
}

// TestArmsAreInterleaved: every repeat has every arm, and begins with another.
func TestArmsAreInterleaved(t *testing.T) {
	f := newFakeTunable()
	var order []string
	o := SeqsOptions{MaxNumSeqs: []int{4, 1, 2}}
	o.once = func(_ context.Context, a *arm, seed uint64) (map[string]float64, error) {
		order = append(order, fmt.Sprintf("%v/%d", a.params["max_num_seqs"], seed))
		return run(100), nil
	}
	_, err := Seqs(context.Background(), f, o)
	require.NoError(t, err)
	require.Equal(t, "1/0 2/0 4/0 2/1 4/1 1/1 4/2 1/2 2/2", strings.Join(order, " "))
}

// TestSpreadRule: a difference inside the spread is no improvement, so the first
// setting that is as good wins.
func TestSpreadRule(t *testing.T) {
	cell := func(values ...float64) Cell {
		return Cell{Metrics: map[string]Metric{"output_throughput": NewMetric("", values)}}
	}
	m := func(c Cell) Metric { return c.Metrics["output_throughput"] }
	require.True(t, below(m(cell(1, 2, 3)), m(cell(2, 3, 4))), "each repeat has one more, whatever its requests are")
	require.False(t, below(m(cell(1, 2, 3)), m(cell(2, 3, 2.9))), "one repeat has less")
	require.False(t, below(m(cell(1, 2, 3)), m(cell(1.1, 2.4, 4))), "the repeats differ more than the least gain")
	require.True(t, beats(m(cell(1.1, 2.4, 4)), m(cell(1, 2, 3))), "5 % more in the median, and none has less")
	require.False(t, beats(m(cell(1.04, 2.04, 3.2)), m(cell(1, 2, 3))))
	require.False(t, beats(m(cell(0, 0)), m(cell(0, 0))))
	require.True(t, below(m(cell(1, 2)), m(cell(2, 3, -9))), "an interrupted cell compares by the repeats it has")
	require.False(t, below(m(cell()), m(cell(1))), "nothing was measured")
	require.False(t, below(m(cell(1)), m(cell(9))), "one run has no spread")
	cells := []Cell{cell(50, 51, 52), cell(96, 99, 104), cell(97, 100, 103), cell(99, 101, 105)}
	bound := func(*Cell) bool { return false }
	require.Equal(t, 1, firstAsGood(cells, "output_throughput", bound))
	require.Equal(t, 3, bestOf(cells, "output_throughput"))
	require.Equal(t, -1, firstAsGood([]Cell{{}}, "output_throughput", bound))
	noisy := []Cell{cell(80, 100, 91), cell(100, 90, 102)}
	require.Zero(t, firstAsGood(noisy, "output_throughput", bound), "9 % less in the median, yet not in every repeat")
	single := []Cell{cell(90), cell(96), cell(100)}
	require.Equal(t, 1, firstAsGood(single, "output_throughput", bound), "one repeat has no spread: within 5 %")
}

// TestLimitsThatNeverBind: beyond a value that was never reached all run the same, and the
// smallest of them is chosen, whatever noise says of the others.
func TestLimitsThatNeverBind(t *testing.T) {
	runs := func(a *arm, throughput float64, more map[string]float64) (map[string]float64, error) {
		m := run(throughput * float64(1+len(a.runs)))
		maps.Copy(m, more)
		return m, nil
	}
	seqs := SeqsOptions{MaxNumSeqs: []int{16, 64, 128, 256}}
	seqs.Load.Requests = 100
	seqs.once = func(_ context.Context, a *arm, _ uint64) (map[string]float64, error) {
		n := a.limits.MaxNumSeqs
		return runs(a, float64(n), map[string]float64{"peak_running": float64(min(n, 90))})
	}
	r, err := Seqs(context.Background(), newFakeTunable(), seqs)
	require.NoError(t, err)
	require.Equal(t, 128, r.Best["max_num_seqs"], r.Verdict)
	seqs.MaxNumSeqs = []int{16, 64, 80}
	r, err = Seqs(context.Background(), newFakeTunable(), seqs)
	require.NoError(t, err)
	require.Equal(t, 80, r.Best["max_num_seqs"], "each bound, and was better than the one before")

	memory := MemoryOptions{Utilizations: []float64{0.5, 0.7, 0.9}}
	memory.once = func(_ context.Context, a *arm, _ uint64) (map[string]float64, error) {
		u := a.limits.GPUMemoryUtilization
		return runs(a, 1000*u, map[string]float64{"num_preemptions": max(0, 0.6-u), "waiting_for_blocks": 0})
	}
	r, err = Memory(context.Background(), newFakeTunable(), memory)
	require.NoError(t, err)
	require.InDelta(t, 0.7, r.Best["gpu_memory_utilization"], 0, r.Verdict)

	swap := SwapOptions{SwapSpaces: []int64{0, 1 << 30, 2 << 30, 4 << 30}}
	swap.once = func(_ context.Context, a *arm, _ uint64) (map[string]float64, error) {
		n := gib(max(a.limits.SwapSpace, 0))
		return runs(a, 100*(1+n), map[string]float64{"num_preemptions": 9, "num_cpu_blocks": n, "swap_pool_full": max(0, 2-n) * n})
	}
	r, err = Swap(context.Background(), newFakeTunable(), swap)
	require.NoError(t, err)
	require.InDelta(t, 2, r.Best["swap_space"], 0, r.Verdict)
}

// TestWhyTheSweetSpotEnds: each reason has its own figures.
func TestWhyTheSweetSpotEnds(t *testing.T) {
	cell := func(seqs int, values map[string]float64) Cell {
		c := Cell{Params: map[string]any{"max_num_seqs": seqs}, Metrics: map[string]Metric{}}
		for name, v := range values {
			c.Metrics[name] = NewMetric("", []float64{v})
		}
		return c
	}
	for want, c := range map[seqsBound]struct{ now, next Cell }{
		boundDemand: {cell(64, map[string]float64{"output_throughput": 10, "peak_running": 40}), Cell{}},
		boundKV: {cell(64, map[string]float64{"output_throughput": 10, "peak_running": 20, "waiting_for_blocks": 0.5, "preemptions_recompute": 9, "num_preemptions": 9}),
			Cell{}},
		boundSwapping: {cell(64, map[string]float64{"output_throughput": 10, "peak_running": 20, "waiting_for_blocks": 0.5, "preemptions_swap": 9, "num_preemptions": 9}),
			Cell{}},
		boundCompute: {cell(8, map[string]float64{"output_throughput": 10, "mean_running": 8, "median_tpot_ms": 2}),
			cell(16, map[string]float64{"output_throughput": 10, "mean_running": 16, "median_tpot_ms": 4})},
	} {
		why, text := boundOf(&c.now, &c.next, 40)
		require.Equal(t, want, why, text)
		require.Contains(t, seqsVerdict([]Cell{c.now, c.next}, 0, 40), string(want))
	}
}

// TestAdviceOnASmallPool: a pool that is too small ends with what to do about it.
func TestAdviceOnASmallPool(t *testing.T) {
	info := engine.Info{BlockSize: 16}
	load := Load{PromptTokens: 64, OutputTokens: 96}
	values := map[string]float64{"completed": 20, "num_preemptions": 30, "waiting_for_blocks": 0.8, "num_gpu_blocks": 45}
	c := Cell{Params: map[string]any{"max_num_seqs": 256}, Metrics: map[string]Metric{}}
	for name, v := range values {
		c.Metrics[name] = NewMetric("", []float64{v})
	}
	text := advice([]Cell{{}, c}, "", load, info)
	require.Contains(t, text, "max_num_seqs 256")
	require.Contains(t, text, "--gpu-memory-utilization")
	require.Contains(t, text, "--max-num-seqs to about 6", "7 blocks a request, halfway")
	load.SharedPrefix = 48
	require.Contains(t, advice([]Cell{c}, "", load, info), "--max-num-seqs to about 10", "42 blocks for 4 of its own each")
	c.Metrics["failed"] = NewMetric("", []float64{5})
	c.Note = "request can never fit the KV cache"
	require.Contains(t, advice([]Cell{c}, "", load, info), "can never fit")
	require.Empty(t, advice([]Cell{{}}, "", load, info))
}

func TestPeakBlocks(t *testing.T) {
	job := func(prompt, output int) Job { return Job{Prompt: make([]int32, prompt), MaxTokens: output} }
	// 16 tokens are one block, the 17th needs another; the last token needs none.
	require.Equal(t, 1, peakBlocks(Workload{job(16, 1)}, 16, 0, 0))
	require.Equal(t, 2, peakBlocks(Workload{job(16, 2)}, 16, 0, 0))
	require.Equal(t, 4, peakBlocks(Workload{job(16, 2), job(16, 2)}, 16, 0, 0))
	require.Equal(t, 2, peakBlocks(Workload{job(16, 2), job(16, 2)}, 16, 1, 0), "one after the other")
	require.Equal(t, 3, peakBlocks(Workload{job(16, 2), job(16, 2)}, 16, 0, 16), "the prefix is shared")
}

// TestResumeRefusesOthersRuns: runs of another model or machine do not count.
func TestResumeRefusesOthersRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runs.jsonl")
	s, err := openStore(path, "a", false)
	require.NoError(t, err)
	require.NoError(t, s.keep("arm", 0, run(1), learned{}))
	require.NoError(t, s.close())
	_, err = openStore(path, "b", true)
	require.ErrorContains(t, err, "another model, machine or setting")
	s, err = openStore(path, "a", true)
	require.NoError(t, err)
	values, _, ok := s.recall("arm", 0)
	require.True(t, ok)
	require.Equal(t, run(1), values)
	_, _, ok = s.recall("arm", 1)
	require.False(t, ok)
	require.NoError(t, s.close())
}

// TestGoodput: only requests within the latencies wanted count.
func TestGoodput(t *testing.T) {
	ms := func(values ...int) Sample {
		s := Sample{}
		for _, v := range values {
			s.Tokens = append(s.Tokens, millisecond(v))
		}
		return s
	}
	samples := []Sample{ms(10, 20, 30), ms(10, 20, 90), ms(50, 60, 70), {Err: errAborted}}
	requests, tokens := goodput(samples, SLO{P99ITL: millisecond(40), P99TTFT: millisecond(40)}, millisecond(1000))
	require.InDelta(t, 1, requests, 1e-9)
	require.InDelta(t, 3, tokens, 1e-9)
	requests, _ = goodput(samples, SLO{P99ITL: millisecond(40)}, millisecond(1000))
	require.InDelta(t, 2, requests, 1e-9)
}
