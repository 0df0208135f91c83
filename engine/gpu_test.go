//go:build cuda

package engine

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/internal/nvml"
	"github.com/pagoda-engine/pagoda/kernels/cuda"
)

// gpuConfig is a true shape with random weights on the GPU; without one the test is
// skipped.
func gpuConfig(t testing.TB) Config {
	if err := cuda.Available(); err != nil {
		t.Skipf("no GPU: %v", err)
	}
	c := quiet(Config{LoadFormat: "dummy", Device: deviceCUDA, NumGPUBlocksOverride: 4000, MaxNumSeqs: 64, MaxNumBatchedTokens: 512, MaxModelLen: 8192})
	c.Model = "qwen2.5-0.5b"
	return c
}

func openGPU(t testing.TB, change func(*Config)) *Engine {
	c := gpuConfig(t)
	change(&c)
	e, err := New(c)
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// TestGPUGreedyEqualsSolo is TestGreedyEqualsSolo on the GPU, and with graphs off.
func TestGPUGreedyEqualsSolo(t *testing.T) {
	gpuConfig(t)
	testGreedyEqualsSolo(t, func(t *testing.T, change func(*Config)) *Engine {
		return openGPU(t, func(c *Config) {
			c.BatchInvariant, c.NumGPUBlocksOverride, c.MaxNumSeqs = true, 40, 6
			change(c)
		})
	}, 196608)
}

// compositions are random companies for fixed requests, whose answers are known.
type compositions struct {
	e      *Engine
	r      *rand.Rand
	probes []Request
	want   []string // of the probes, each alone
}

func newCompositions(t *testing.T, invariant bool) *compositions {
	c := &compositions{r: rand.New(rand.NewPCG(1, 2)), e: openGPU(t, func(c *Config) { c.BatchInvariant = invariant })}
	for i := range 12 {
		c.probes = append(c.probes, Request{Prompt: c.prompt(1 + 23*i), MaxTokens: 8, IgnoreEOS: true, Sampling: Sampling{
			Logprobs: 3, Temperature: float32(i%3) * 0.7, TopK: int32(i % 2 * 40), Seed: uint64(i), FrequencyPenalty: float32(i%4) * 0.1,
		}})
	}
	for i := range c.probes {
		c.want = append(c.want, generate(t, c.e, c.probes[i:i+1])...)
	}
	return c
}

func (c *compositions) prompt(n int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(c.r.IntN(150000))
	}
	return ids
}

// differ runs one composition: probes, some of them with a cold prefix cache, in
// any order among other requests, with any chunking. It returns how many of the
// probes did not answer as they do alone, bit for bit.
func (c *compositions) differ(t *testing.T) int {
	if c.r.IntN(5) == 0 {
		require.NoError(t, c.e.Reconfigure(t.Context(), Limits{MaxNumBatchedTokens: 64 + c.r.IntN(449), MaxNumSeqs: 4 + c.r.IntN(61)}))
	}
	var requests []Request
	var want []string
	for range 1 + c.r.IntN(20) {
		q, known := Request{Prompt: c.prompt(1 + c.r.IntN(200)), MaxTokens: 1 + c.r.IntN(10), IgnoreEOS: true, Sampling: Sampling{Temperature: 1, Logprobs: -1}}, ""
		if i := c.r.IntN(2 * len(c.probes)); i < len(c.probes) {
			q, known = c.probes[i], c.want[i]
		}
		if c.r.IntN(2) == 0 {
			q.CacheSalt = fmt.Sprint(c.r.Uint64())
		}
		requests, want = append(requests, q), append(want, known)
	}
	differ := 0
	for i, text := range generate(t, c.e, requests) {
		if want[i] != "" && want[i] != text {
			differ++
		}
	}
	return differ
}

// TestGPUCompositions: with --batch-invariant the tokens and log probabilities of a
// request are the same to the bit in 1,000 random compositions of its steps;
// without, they are not in all.
func TestGPUCompositions(t *testing.T) {
	gpuConfig(t)
	c := newCompositions(t, true)
	for i := range 1000 {
		require.Zero(t, c.differ(t), "composition %d", i)
	}
	st := c.e.Stats()
	require.Zero(t, st.BlocksUsed+st.BlocksInFlight)
	t.Logf("1,000 compositions, %d steps, %d tokens hit", st.Steps, st.PrefixHits)
	control, differ := newCompositions(t, false), 0
	for range 50 {
		differ += control.differ(t)
	}
	t.Logf("without --batch-invariant: %d answers of 50 compositions differ", differ)
	require.Positive(t, differ, "the test would not notice")
}

// TestGPUNotNumbers is TestNotNumbers on the GPU.
func TestGPUNotNumbers(t *testing.T) {
	gpuConfig(t)
	testNotNumbers(t, openGPU(t, func(c *Config) { c.BatchInvariant = true }))
}

// TestGPUChunkNotNumbers is TestChunkNotNumbers on the GPU.
func TestGPUChunkNotNumbers(t *testing.T) {
	gpuConfig(t)
	testChunkNotNumbers(t, openGPU(t, func(c *Config) { c.BatchInvariant, c.LongPrefillTokenThreshold = true, 24 }))
}

// TestGPUReconfigure: pool, rows, tokens and swap space grow and shrink under
// requests whose output stays what it was, and the card really gets the memory.
func TestGPUReconfigure(t *testing.T) {
	gpuConfig(t)
	card, err := nvml.Open(0)
	require.NoError(t, err)
	defer card.Close()
	e := openGPU(t, func(c *Config) {
		c.BatchInvariant, c.NumGPUBlocksOverride, c.MaxNumSeqs, c.MaxNumBatchedTokens, c.SwapSpace = true, 10000, 64, 1024, 1<<30
	})
	var requests []Request
	for range 4 {
		for _, r := range tinyRequests() {
			r.MaxTokens = 600
			requests = append(requests, r)
		}
	}
	want := generate(t, e, requests)
	var streams []*Stream
	for _, r := range requests {
		s, err := e.Submit(t.Context(), r)
		require.NoError(t, err)
		streams = append(streams, s)
	}
	// The ledger's sum but what is unused.
	planned := func() (sum int64) {
		for _, entry := range e.Ledger()[:3] {
			sum += entry.Bytes
		}
		return sum
	}
	used, plan := card.Read().MemoryUsed, planned()
	for _, l := range []Limits{
		{NumGPUBlocksOverride: 40000},
		{MaxNumSeqs: 1024, MaxNumBatchedTokens: 8192},
		{MaxNumSeqs: 16},
		{NumGPUBlocksOverride: 1500, MaxNumBatchedTokens: 64},
		{MaxNumSeqs: 48, SwapSpace: 4 << 30},
		{NumGPUBlocksOverride: 10000, MaxNumSeqs: 64, MaxNumBatchedTokens: 1024, SwapSpace: 1 << 30},
	} {
		require.NoError(t, e.Reconfigure(t.Context(), l), "%+v", l)
		moved, want := card.Read().MemoryUsed-used, planned()-plan
		t.Logf("%d blocks, %d sequences, %d tokens: plan %+d MiB, card %+d MiB", e.Info().NumBlocks, e.Limits().MaxNumSeqs, e.Limits().MaxNumBatchedTokens, want>>20, moved>>20)
		require.InDelta(t, want, moved, 64<<20, "%+v", l)
	}
	running := e.Stats().Running
	for i, s := range streams {
		require.Equal(t, want[i], answer(t, s), "request %d", i)
	}
	st := e.Stats()
	require.Zero(t, st.BlocksUsed+st.HostBlocksUsed)
	t.Logf("%d requests still ran at the end; %d swaps, %d recomputes", running, st.PreemptionsSwap, st.PreemptionsRecompute)
	require.Positive(t, running, "nothing ran meanwhile")
}

// TestGPUSwap: a pool of a quarter of the demand of the 7B: outputs are those of a
// pool that holds all. The prompts are short and the outputs long, so that many are
// admitted who then have to go.
func TestGPUSwap(t *testing.T) {
	gpuConfig(t)
	var requests []Request
	for i := range 96 {
		requests = append(requests, Request{Prompt: prompt(i, 60+2*i), MaxTokens: 500, IgnoreEOS: true, Sampling: Sampling{Logprobs: 0}})
	}
	demand := 0
	for _, r := range requests {
		demand += blocksFor(len(r.Prompt)+r.MaxTokens, 16)
	}
	run := func(blocks int) ([]string, Stats) {
		e := openGPU(t, func(c *Config) {
			c.Model, c.BatchInvariant, c.NumGPUBlocksOverride, c.PreemptionMode, c.SwapSpace = "qwen2.5-7b", true, blocks, "swap", 4<<30
			c.DisablePrefixCaching, c.MaxNumSeqs, c.Watermark = true, len(requests), -1
		})
		out := generate(t, e, requests)
		st := e.Stats()
		require.NoError(t, e.Close())
		require.Zero(t, st.BlocksUsed+st.BlocksInFlight+st.HostBlocksUsed+st.HostBlocksInFlight)
		return out, st
	}
	want, st := run(demand)
	require.Zero(t, st.PreemptionsSwap+st.PreemptionsRecompute)
	got, st := run(demand / 4)
	require.Equal(t, want, got)
	require.Greater(t, st.PreemptionsSwap, int64(50))
	t.Logf("%d blocks, %d wanted: %d swaps; out %.1f GiB at %.1f GB/s, in %.1f GiB at %.1f GB/s", demand/4, demand, st.PreemptionsSwap,
		float64(st.SwapOutBytes)/(1<<30), float64(st.SwapOutBytes)/float64(st.SwapOutTime.Nanoseconds()),
		float64(st.SwapInBytes)/(1<<30), float64(st.SwapInBytes)/float64(st.SwapInTime.Nanoseconds()))
}
