package bench

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// compared is a report of cells by batch size with the throughputs of their runs.
func compared(flags map[string]any, throughput map[int][]float64, more map[string]Metric) *Report {
	r := &Report{Schema: 1, Experiment: "baseline", Manifest: Manifest{EffectiveFlags: flags}}
	for _, batch := range []int{1, 16, 32} {
		runs, ok := throughput[batch]
		if !ok {
			continue
		}
		cell := Cell{Params: map[string]any{"batch_size": float64(batch), "prompt_tokens": 64}, Metrics: map[string]Metric{"output_throughput": NewMetric("tokens/s", runs)}}
		for name, m := range more {
			cell.Metrics[name] = m
		}
		r.Cells = append(r.Cells, cell)
	}
	return r
}

func TestCompareFindsAnImprovement(t *testing.T) {
	a := compared(map[string]any{"max_num_seqs": 8.0}, map[int][]float64{1: {100, 101, 99, 100, 100}, 32: {1000, 1010, 990, 995, 1005}}, map[string]Metric{"p99_itl_ms": NewMetric("ms", []float64{10, 11, 10.5, 10.4, 10.6}), "num_preemptions": NewMetric("", []float64{0, 0, 0, 0, 0})})
	b := compared(map[string]any{"max_num_seqs": 32.0}, map[int][]float64{1: {101, 100, 102, 101, 101}, 32: {1500, 1520, 1490, 1495, 1505}}, map[string]Metric{"p99_itl_ms": NewMetric("ms", []float64{20, 21, 22, 21, 21}), "num_preemptions": NewMetric("", []float64{7, 8, 9, 8, 8})})
	r, err := Compare(a, b)
	require.NoError(t, err)
	require.Contains(t, r.Verdict, "Better beyond the spread: output tok/s 1,000 → 1,500 (1.50 ×, 95 % 1.4")
	require.Contains(t, r.Verdict, "at batch-size 32")
	require.NotContains(t, r.Verdict, "no measurable improvement")
	require.Contains(t, r.Verdict, "Worse beyond the spread: ITL p99 10.5 → 21 ms", "a longer latency is worse")
	require.NotContains(t, r.Verdict, "100 →", "what lies inside the spread is not named")
	require.NotContains(t, r.Verdict, "preemptions", "the verdict rests on the headline metrics")

	again, err := Compare(a, b)
	require.NoError(t, err)
	require.Equal(t, r.Cells, again.Cells, "the intervals are seeded")
	ratio := r.Cells[1].Metrics["output_throughput_ratio"]
	require.InDelta(t, 1.5, ratio.Median, 1e-9)
	require.Less(t, ratio.Min, 1.5)
	require.Greater(t, ratio.Max, 1.5)

	var out bytes.Buffer
	r.Print(&out)
	require.Regexp(t, `output tok/s +100 ± 1.0 % +101 ± 1.0 % +1.01 × +[0-9.–]+ +no difference`, out.String())
	require.Regexp(t, `output tok/s +1,000 ± 1.0 % +1,500 ± 1.3 % +1.50 × +[0-9.–]+ +better`, out.String())
	require.Regexp(t, `ITL p99 ms .* worse`, out.String())
	require.Regexp(t, `--max-num-seqs +8 +32`, out.String())
	require.NotContains(t, out.String(), "further metrics", "the others are on the page alone")
	page, err := r.html()
	require.NoError(t, err)
	require.Regexp(t, `(?s)further metrics.*preemptions`, string(page))
	require.NoError(t, r.Write(t.TempDir()))
}

// TestCompareWithItself: of many comparisons of noise with the same noise almost none
// finds anything, whatever the distribution's tail.
func TestCompareWithItself(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 0))
	noisy := func() *Report {
		draw := func() Metric {
			runs := make([]float64, verdictRepeats)
			for i := range runs {
				runs[i] = 1000 * math.Exp(0.1*random.NormFloat64())
			}
			return NewMetric("", runs)
		}
		r := &Report{Schema: 1, Manifest: Manifest{EffectiveFlags: map[string]any{"block_size": 16}}}
		for _, batch := range []int{1, 16, 32} {
			cell := Cell{Params: map[string]any{"batch_size": batch}, Metrics: map[string]Metric{}}
			for _, metric := range append([]string{"median_queue_ms", "num_preemptions", "prefix_hit_rate"}, headline...) {
				cell.Metrics[metric] = draw()
			}
			r.Cells = append(r.Cells, cell)
		}
		return r
	}
	wrong := 0
	for range 30 {
		r, err := Compare(noisy(), noisy())
		require.NoError(t, err)
		if !strings.Contains(r.Verdict, "no measurable improvement") {
			wrong++
		}
	}
	require.Zero(t, wrong)
}

// TestCompareOfFewRuns: three runs are no verdict, however far apart, and the medians
// are said as what they are.
func TestCompareOfFewRuns(t *testing.T) {
	a := compared(map[string]any{"max_num_seqs": 8.0}, map[int][]float64{16: {1000, 1001, 1002}}, nil)
	b := compared(map[string]any{"max_num_seqs": 16.0}, map[int][]float64{16: {2000, 2001, 2002}}, nil)
	r, err := Compare(a, b)
	require.NoError(t, err)
	require.Contains(t, r.Verdict, "no measurable improvement, because the repeats are too few for a verdict: 3, where 5")
	require.Contains(t, r.Verdict, "2.00 ×")
	require.NotContains(t, r.Verdict, "Better")
}

func TestCompareSaysWhyNothingImproved(t *testing.T) {
	same := map[int][]float64{16: {1000, 1010, 990, 1000, 1000}}
	slower := map[int][]float64{16: {1005, 1000, 985, 1000, 1000}}
	flags := func(seqs, utilization float64) map[string]any {
		return map[string]any{"max_num_seqs": seqs, "gpu_memory_utilization": utilization}
	}
	calm := map[string]Metric{"num_preemptions": NewMetric("", []float64{0, 0, 0})}
	busy := map[string]Metric{"gpu_utilization": NewMetric("share", []float64{0.97, 0.96, 0.98})}
	for name, c := range map[string]struct {
		a, b *Report
		want string
	}{
		"as much was free":   {compared(map[string]any{"memory_limit": "11.37 GiB", "num_gpu_blocks": 166706.0}, same, nil), compared(map[string]any{"memory_limit": "11.41 GiB", "num_gpu_blocks": 167290.0}, slower, nil), "the parameters were not in use"},
		"more memory":        {compared(map[string]any{"memory_limit": "11.37 GiB"}, same, calm), compared(map[string]any{"memory_limit": "12.41 GiB"}, slower, calm), "never ran short of KV blocks"},
		"not in use":         {compared(flags(256, 0.9), same, nil), compared(flags(256, 0.9), slower, nil), "the parameters were not in use"},
		"enough concurrency": {compared(flags(256, 0.9), same, nil), compared(flags(512, 0.9), slower, nil), "--max-num-seqs went from 256 to 512, but at most 16 requests ran at once"},
		"enough memory":      {compared(flags(256, 0.8), same, calm), compared(flags(256, 0.9), slower, calm), "never ran short of KV blocks"},
		"compute-bound":      {compared(flags(8, 0.9), same, busy), compared(flags(16, 0.9), slower, busy), "busy 97 % of the time already in the baseline: it is bound by compute or memory"},
		"noise":              {compared(flags(8, 0.9), map[int][]float64{16: {1000, 700, 1100, 1000, 1000}}, nil), compared(flags(16, 0.9), map[int][]float64{16: {1300, 1250, 1050, 1300, 1280}}, nil), "differ by up to 30 %"},
		"does not bind":      {compared(flags(8, 0.9), same, nil), compared(flags(16, 0.9), slower, nil), "what changed (--max-num-seqs) does not bind this workload"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Compare(c.a, c.b)
			require.NoError(t, err)
			require.Contains(t, r.Verdict, "no measurable improvement, because ")
			require.Contains(t, r.Verdict, c.want)
			require.NotContains(t, r.Verdict, "Better")
		})
	}
}

func TestCompareOfZeros(t *testing.T) {
	zero := map[string]Metric{"p99_itl_ms": NewMetric("ms", []float64{0, 0, 0, 0, 0})}
	some := map[string]Metric{"p99_itl_ms": NewMetric("ms", []float64{7, 8, 9, 8, 8})}
	runs := map[int][]float64{16: {1000, 1010, 990, 1000, 1000}}
	r, err := Compare(compared(nil, runs, some), compared(nil, runs, zero))
	require.NoError(t, err)
	require.Contains(t, r.Verdict, "Better beyond the spread: ITL p99 8 → 0")
	r, err = Compare(compared(nil, runs, zero), compared(nil, runs, some))
	require.NoError(t, err)
	require.Contains(t, r.Verdict, "Worse beyond the spread: ITL p99 0 → 8")
	require.NoError(t, r.Write(t.TempDir()))
}

func TestCompareMatchesCells(t *testing.T) {
	// An optimization's own parameters are no obstacle; of several cells the best
	// one counts.
	a := compared(map[string]any{"max_num_seqs": 256.0}, map[int][]float64{16: {1, 2}, 32: {3, 4}}, nil)
	b := compared(map[string]any{"max_num_seqs": 64.0}, map[int][]float64{16: {1, 2}, 32: {3, 4}}, nil)
	for i := range a.Cells {
		a.Cells[i].Params["max_num_seqs"] = 256
		b.Cells[i].Params["max_num_seqs"] = 64
	}
	r, err := Compare(a, b)
	require.NoError(t, err)
	require.Len(t, r.Cells, 2)

	b.Cells = append(b.Cells, Cell{Params: map[string]any{"batch_size": 32, "prompt_tokens": 64, "max_num_seqs": 128}, Metrics: map[string]Metric{"output_throughput": NewMetric("tokens/s", []float64{9, 9})}})
	b.Best = map[string]any{"batch_size": 32, "max_num_seqs": 128}
	r, err = Compare(a, b)
	require.NoError(t, err)
	require.Len(t, r.Cells, 2)
	require.InDelta(t, 9/3.5, r.Cells[1].Metrics["output_throughput_ratio"].Median, 1e-9)

	_, err = Compare(compared(nil, map[int][]float64{1: {1}}, nil), compared(nil, map[int][]float64{32: {1}}, nil))
	require.ErrorContains(t, err, "nothing to compare")
	require.ErrorContains(t, err, "batch-size 32")
}

// TestCompareWantsTheSameLoad: shorter answers are no improvement, and clocks of a
// moment make no other machine.
func TestCompareWantsTheSameLoad(t *testing.T) {
	runs := map[int][]float64{16: {1000, 1010, 990, 1000, 1000}}
	_, err := Compare(compared(map[string]any{"output_tokens": 128.0}, runs, nil), compared(map[string]any{"output_tokens": 64.0}, runs, nil))
	require.ErrorContains(t, err, "--output-tokens 128, the other with 64")
	a, b := compared(map[string]any{"model": "demo"}, runs, nil), compared(map[string]any{"model": "demo"}, runs, nil)
	a.Manifest.Machine = "NVIDIA H200, driver 1.2, SM 1980 MHz, 4 threads, 16 cores, 2.1 GHz, 23.5 GiB of memory"
	b.Manifest.Machine = "NVIDIA H200, driver 1.2, SM 1815 MHz, held down by power cap and heat, 2 threads, 16 cores, 2.0 GHz, 23.4 GiB of memory"
	r, err := Compare(a, b)
	require.NoError(t, err)
	require.Contains(t, r.Verdict, "no measurable improvement")
	require.Equal(t, a.Manifest.Machine, r.Manifest.Machine)
}

// TestCompareOfUnlikeThings: a smaller model is faster, not better, and no output of the
// comparison says otherwise.
func TestCompareOfUnlikeThings(t *testing.T) {
	fast, slow := map[int][]float64{1: {150, 150, 150, 150, 150}, 16: {3000, 3010, 2990, 3000, 3000}}, map[int][]float64{1: {100, 101, 99, 100, 100}, 16: {1000, 1010, 990, 1000, 1000}}
	late := map[string]Metric{"p99_itl_ms": NewMetric("ms", []float64{20, 21, 22, 21, 21})}
	soon := map[string]Metric{"p99_itl_ms": NewMetric("ms", []float64{10, 11, 10, 10, 11})}
	for _, c := range []struct {
		flag, a, b, machineA, machineB string
		want                           string
	}{
		{"model", "demo", "qwen2.5-0.5b", "x, 2 cores", "x, 2 cores", "Not the same model (demo against qwen2.5-0.5b): ratios only.\n"},
		{"quantization", "none", "int8", "x", "x", "Not the same quantization (none against int8): ratios only.\n"},
		{"model", "demo", "demo", "NVIDIA H100, sm_90a, 16 cores", "NVIDIA H200, sm_90a, 16 cores", "Not the same machine (NVIDIA H100 against NVIDIA H200): ratios only.\n"},
		{"model", "a", "b", "x, 2 cores", "x", "Not the same model (a against b) nor the same machine (2 cores against –): ratios only.\n"},
	} {
		a, b := compared(map[string]any{c.flag: c.a}, slow, soon), compared(map[string]any{c.flag: c.b}, fast, late)
		a.Manifest.Machine, b.Manifest.Machine = c.machineA, c.machineB
		r, err := Compare(a, b)
		require.NoError(t, err)
		require.Equal(t, c.want+"Optimized ÷ baseline: output tok/s 1.50–3.00 ×, ITL p99 2.10 ×.", r.Verdict)
		var text bytes.Buffer
		r.Print(&text)
		page, err := r.html()
		require.NoError(t, err)
		data, err := json.Marshal(r.forJSON())
		require.NoError(t, err)
		for _, out := range []string{text.String(), string(page), string(data)} {
			require.Contains(t, out, "ratios only")
			require.NotRegexp(t, "better|worse|[Ii]mprove|no difference", out)
		}
	}
}
