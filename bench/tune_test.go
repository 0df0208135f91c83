package bench

import (
	"context"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/pagoda-engine/pagoda/engine"
)

// tuneFake tunes a fake whose throughput has its best at 0.8 of the memory and 64
// sequences, with noise of a few per cent.
func tuneFake(t *testing.T, runs string, resume bool, measured *int, stopAfter int) (*Report, *TunedConfig, error) {
	t.Helper()
	f := newFakeTunable()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	o := TuneOptions{Runs: runs, Resume: resume}
	o.once = func(_ context.Context, a *arm, seed uint64) (map[string]float64, error) {
		if *measured == stopAfter {
			cancel()
			return nil, ctx.Err()
		}
		*measured++
		l := f.limits
		rate := 1000 - 500*math.Abs(l.GPUMemoryUtilization-0.8) - 50*math.Abs(math.Log2(float64(l.MaxNumSeqs)/64))
		return run(rate * (1 + 0.01*float64(seed%3))), nil
	}
	return Tune(ctx, f, o)
}

// TestTuneFindsResumesAndExplains: an interrupted search keeps what is done, goes on
// without measuring anything twice, ends where an uninterrupted one does, and its file
// parses back with its reasons.
func TestTuneFindsResumesAndExplains(t *testing.T) {
	whole, first, second, third := 0, 0, 0, 0
	want, config, err := tuneFake(t, "", false, &whole, -1)
	require.NoError(t, err)
	require.InDelta(t, 0.8, want.Best["gpu_memory_utilization"], 1e-9)
	require.Equal(t, 64, want.Best["max_num_seqs"])
	require.Contains(t, want.Verdict, "improvement beyond the spread")

	dir := t.TempDir()
	runs := filepath.Join(dir, "runs.jsonl")
	part, partial, err := tuneFake(t, runs, false, &first, 9)
	require.ErrorIs(t, err, context.Canceled)
	require.NotEmpty(t, part.Cells)
	require.Contains(t, part.Verdict, "--resume")
	require.Contains(t, partial.String(), "Interrupted")
	got, again, err := tuneFake(t, runs, true, &second, -1)
	require.NoError(t, err)
	require.Equal(t, whole, first+second, "a run was measured twice, or left out")
	require.Equal(t, want.Best, got.Best)
	require.Equal(t, config.String(), again.String())
	_, _, err = tuneFake(t, runs, true, &third, -1)
	require.NoError(t, err)
	require.Zero(t, third, "all was there")

	require.NoError(t, config.Write(dir))
	text, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	require.NoError(t, err)
	var values map[string]any
	require.NoError(t, yaml.Unmarshal(text, &values))
	require.Equal(t, map[string]any{
		"gpu_memory_utilization": 0.8, "max_num_seqs": 64, "max_num_batched_tokens": 2048, "long_prefill_token_threshold": 0, "swap_space": 4,
		"memory_limit": 1000,
	}, values)
	var doc yaml.Node
	require.NoError(t, yaml.Unmarshal(text, &doc))
	for i := 0; i < len(doc.Content[0].Content); i += 2 {
		key := doc.Content[0].Content[i]
		require.NotEmpty(t, key.HeadComment, key.Value)
	}
	require.Contains(t, config.String(), "better beyond the spread than 0.9", "the measured reason stands beside the value")
}

// TestTuneTriesStepsWithoutBound: where steps with decodes have a budget of their own,
// the search tries larger ones without it, too, and its file says which won.
func TestTuneTriesStepsWithoutBound(t *testing.T) {
	f := newFakeTunable()
	f.limits.MaxNumMixedTokens = 512
	var o TuneOptions
	o.once = func(_ context.Context, a *arm, seed uint64) (map[string]float64, error) {
		rate := 1000.0
		if l := f.limits; l.MaxNumMixedTokens < 0 && l.MaxNumBatchedTokens == 4096 {
			rate = 1500
		}
		require.False(t, f.limits.MaxNumMixedTokens < 0 && f.limits.MaxNumBatchedTokens <= 512, "the bound does nothing there")
		return run(rate * (1 + 0.01*float64(seed%3))), nil
	}
	r, config, err := Tune(context.Background(), f, o)
	require.NoError(t, err)
	require.Contains(t, r.Verdict, "max_num_batched_tokens 4096 instead of 2048, max_num_mixed_tokens 0 instead of 512")
	require.Equal(t, "0", config.Values["max_num_mixed_tokens"])
	require.Contains(t, config.String(), "4096: 1,5", "the measured reason")
	require.Contains(t, config.String(), "2048, 512 beside decodes")
}

// TestTuneBoundsStepsForITL: who wants a longest wait for a token has budgets tried with a smaller
// one for steps that decode; who does not, not.
func TestTuneBoundsStepsForITL(t *testing.T) {
	for _, itl := range []time.Duration{0, 50 * time.Millisecond} {
		f := newFakeTunable()
		var o TuneOptions
		o.SLO.P99ITL = itl
		bounded := 0
		o.once = func(_ context.Context, _ *arm, seed uint64) (map[string]float64, error) {
			if l := f.limits; l.MaxNumMixedTokens > 0 {
				require.Greater(t, l.MaxNumBatchedTokens, l.MaxNumMixedTokens)
				bounded++
			}
			return run(1000 * (1 + 0.01*float64(seed%3))), nil
		}
		_, _, err := Tune(context.Background(), f, o)
		require.NoError(t, err)
		require.Equal(t, itl > 0, bounded > 0, itl)
	}
}

// TestNoiseIsNoImprovement: where settings differ by less than the runs of one, the
// start stays, and the verdict says why.
func TestNoiseIsNoImprovement(t *testing.T) {
	noise := rand.New(rand.NewPCG(0, 0))
	o := TuneOptions{}
	o.once = func(context.Context, *arm, uint64) (map[string]float64, error) {
		return run(1000 + 300*noise.Float64()), nil
	}
	f := newFakeTunable()
	r, config, err := Tune(context.Background(), f, o)
	require.NoError(t, err)
	require.InDelta(t, 0.9, r.Best["gpu_memory_utilization"], 1e-9)
	require.Equal(t, 256, r.Best["max_num_seqs"])
	require.Contains(t, r.Verdict, "no measurable improvement")
	require.Contains(t, r.Verdict, "so the parameters stay as they were")
	require.Equal(t, "256", config.Values["max_num_seqs"])
}

// TestTuneComparesByRepeat: where the requests of the repeats differ more than the settings
// do, what is better with each of them is better.
func TestTuneComparesByRepeat(t *testing.T) {
	f := newFakeTunable()
	var o TuneOptions
	o.once = func(_ context.Context, _ *arm, seed uint64) (map[string]float64, error) {
		rate := []float64{1000, 1500, 700, 1200, 900}[seed]
		if f.limits.MaxNumSeqs == 64 {
			rate *= 1.1
		}
		return run(rate), nil
	}
	r, config, err := Tune(context.Background(), f, o)
	require.NoError(t, err)
	require.Contains(t, r.Verdict, "1.10×, by repeat 1.10–1.10×: an improvement beyond the spread")
	require.Equal(t, 64, r.Best["max_num_seqs"])
	require.Contains(t, config.String(), "better beyond the spread than 256, by repeat 1.10–1.10×")
}

// TestTuneMeasuresWhatIsServed: a CPU is not given a size that the server will not have,
// and a size that the search was given is in the file that the server reads.
func TestTuneMeasuresWhatIsServed(t *testing.T) {
	for _, limit := range []int64{-1, 64 << 20} { // negative: none
		f := newFakeTunable()
		f.limits.MemoryLimit = limit
		var o TuneOptions
		o.once = func(context.Context, *arm, uint64) (map[string]float64, error) {
			require.Equal(t, limit, f.limits.MemoryLimit)
			return run(1000), nil
		}
		r, config, err := Tune(context.Background(), f, o)
		require.NoError(t, err)
		own := slices.ContainsFunc(r.Notes, func(note string) bool { return strings.Contains(note, "the one that pagoda serve has on this machine") })
		require.Equal(t, limit < 0, own, r.Notes)
		require.NotContains(t, r.Manifest.EffectiveFlags, "memory_limit", "it is the engine's own setting")
		if limit < 0 {
			require.NotContains(t, config.String(), "memory_limit")
		} else {
			require.Contains(t, config.String(), "# 64 MiB, as the search was told: everything below was measured with it\nmemory_limit: 67108864\n")
		}
	}
}

// TestTuneLeavesOutWhatIsNeverReached: more sequences than there are requests do as another such number, whatever blocks
// their rows leave, and the present one stands for them; where blocks bind, or something else differs, they do not.
func TestTuneLeavesOutWhatIsNeverReached(t *testing.T) {
	f := newFakeTunable()
	tu := &tuner{cells: &cells{e: f}, best: f.limits}
	tu.o.Load.Requests = 48
	of := func(seqs, blocks int, seconds float64) *candidate {
		c := &candidate{limits: over(tu.best, engine.Limits{MaxNumSeqs: seqs}), blocks: blocks, score: 10}
		c.predicted.Finished, c.predicted.VirtualSeconds, c.predicted.Steps = 48, seconds, 100
		return c
	}
	all := []*candidate{of(32, 960, 1), of(64, 950, 1), of(128, 940, 1), of(256, 900, 1), of(512, 800, 1), of(1024, 50, 1.1)}
	tu.leaveOut(all)
	var measured []int
	for _, c := range all {
		if c.fate == "" {
			measured = append(measured, c.limits.MaxNumSeqs)
		}
	}
	require.Equal(t, []int{32, 256, 1024}, measured)
	require.Equal(t, "left out: does as the present one", all[1].fate)

	other := of(512, 800, 1)
	other.limits.SwapSpace++
	require.False(t, tu.unreached(all[3], other))
}

// TestTuneNamesDemand: where requests come at a rate and none waits, they are what limits
// the throughput; not so where their tokens come too late to count.
func TestTuneNamesDemand(t *testing.T) {
	for _, c := range []struct {
		rate, good float64
		waits      map[string]float64
		want       string
	}{
		{8, 1, nil, "demand: requests come at --request-rate 8 and none waits"},
		{0, 1, nil, "nothing to give to these requests (0.500 of 2 cores busy). They are 48, no more than max_num_seqs: --requests 1024 would"},
		{8, 0.5, nil, "nothing to give to these requests (0.500 of 2 cores busy)"},
		{8, 1, map[string]float64{"waiting_for_blocks": 0.5}, "wait for blocks 50 %"},
	} {
		f := newFakeTunable()
		var o TuneOptions
		o.Load.Rate, o.SLO.P99ITL = c.rate, time.Second
		o.once = func(context.Context, *arm, uint64) (map[string]float64, error) {
			m := run(1000)
			m["output_goodput"], m["cpu_cores_busy"] = 1000*c.good, 0.5
			maps.Copy(m, c.waits)
			return m, nil
		}
		r, _, err := Tune(context.Background(), f, o)
		require.NoError(t, err)
		require.Contains(t, r.Verdict, c.want)
		require.Equal(t, c.rate == 0, strings.Contains(strings.Join(r.Notes, " "), "other processes"), "that cores are idle at a rate says nothing of others")
	}
}
