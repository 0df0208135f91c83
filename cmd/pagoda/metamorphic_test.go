package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/invariant"
)

// The whole run is make metamorphic: 1,000 prompts, free blocks filled with NaN.
var (
	metamorphicPrompts = flag.Int("metamorphic-prompts", 16, "prompts of the metamorphic test")
	metamorphicModel   = flag.String("metamorphic-model", "", "model of the metamorphic test, such as demo; default: that of make test-model")
)

// metamorphicTokens are generated for each prompt.
const metamorphicTokens = 20

// axis is a way to run that must not change a token.
type axis struct {
	name    string
	change  func(*engine.Config)
	reached func(engine.Stats) bool // nil = nothing special has to happen
	passes  int                     // over the prompts; 0 = one
	choices int                     // of each prompt; 0 = one
	host    int64                   // blocks of the swap pool; 0 = plenty
}

func swapped(s engine.Stats) bool    { return s.PreemptionsSwap > 0 && s.SwapInBytes > 0 }
func recomputed(s engine.Stats) bool { return s.PreemptionsRecompute > 0 }
func hit(s engine.Stats) bool        { return s.PrefixHits > 0 }

// tight is a pool of a quarter of what the running sequences come to need.
func tight(c *engine.Config) { c.NumGPUBlocksOverride = 24 }

var axes = []axis{
	{name: "blocks of 32", change: func(c *engine.Config) { c.BlockSize = 32 }},
	{name: "blocks of 64", change: func(c *engine.Config) { c.BlockSize = 64 }},
	{name: "chunks of 33", change: func(c *engine.Config) { c.MaxNumBatchedTokens = 33 }},
	{name: "no prefix cache", change: func(c *engine.Config) { c.DisablePrefixCaching = true }},
	{name: "warm prefix cache", change: func(*engine.Config) {}, passes: 2, reached: hit},
	{name: "overlapped", change: func(c *engine.Config) { c.AsyncScheduling = "on" }},
	{name: "synchronous", change: func(c *engine.Config) { c.AsyncScheduling = "off" }},
	{name: "swap", change: func(c *engine.Config) { tight(c); c.PreemptionMode = "swap" }, reached: swapped},
	{name: "recompute", change: func(c *engine.Config) { tight(c); c.PreemptionMode = "recompute" }, reached: recomputed},
	{name: "small swap pool", change: func(c *engine.Config) { tight(c); c.PreemptionMode = "swap" }, host: 5,
		reached: func(s engine.Stats) bool { return swapped(s) && s.SwapPoolFull > 0 }},
	{name: "swap, overlapped, chunks of 33", reached: swapped,
		change: func(c *engine.Config) {
			tight(c)
			c.PreemptionMode, c.AsyncScheduling, c.MaxNumBatchedTokens = "swap", "on", 33
		}},
	{name: "four at once", change: func(c *engine.Config) { c.MaxNumSeqs = 4 }},
	{name: "target ITL", change: func(c *engine.Config) { c.TargetITL = time.Millisecond }},
	{name: "graphs off", change: func(c *engine.Config) { c.EnforceEager = true }},
	{name: "graphs off, overlapped", change: func(c *engine.Config) { c.EnforceEager, c.AsyncScheduling = true, "on" }},
	{name: "two choices", change: func(*engine.Config) {}, choices: 2,
		reached: func(s engine.Stats) bool { return s.Forks > 0 && s.CopiedBlocks > 0 }},
}

// metamorphicTexts are prompts of several families, each with its own beginning.
func metamorphicTexts(n int) []string {
	families := []string{
		"You are a patient teacher who explains things to children in short sentences.\n",
		"The following is a conversation between a curious traveller and an old sailor who has seen every harbour of the world.\n",
		"",
		"Answer in one sentence. Be exact. Do not repeat the question, and do not add anything that was not asked for.\n",
		"Once upon a time, in a village between two rivers,",
	}
	forms := []string{"What is %s?", "Tell me a story about %s.", "Why do people like %s?", "List three facts about %s.", "How would you draw %s?",
		"Is %s older than the sea?", "Write a poem about %s in winter.", "What does %s cost?"}
	things := []string{"the moon", "a red fox", "bread", "the city of Lisbon", "a violin", "rain", "an old clock", "the number seven", "a lighthouse",
		"coffee", "a glacier", "the colour blue", "chess", "a bicycle", "a honey bee", "the letter Q", "a stone bridge", "salt", "a comet",
		"an empty room", "the wind", "a library", "a pair of shoes", "the desert", "an apple tree", "silence"}
	texts := make([]string, n)
	for i := range texts {
		texts[i] = families[i%len(families)] + fmt.Sprintf(forms[i/len(families)%len(forms)], things[i/len(families)/len(forms)%len(things)])
	}
	return texts
}

// TestMetamorphic: with --batch-invariant the greedy tokens of every prompt are the
// same whatever the block size, chunking, prefix cache, preemption, loop, pool and
// company.
func TestMetamorphic(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute, and ten times that under the race detector, for which TestConcurrentStreams is")
	}
	dir := *metamorphicModel
	if dir == "" {
		dir = testModel(t)
	}
	text, err := openTokenizer(dir)
	require.NoError(t, err)
	defer text.Close()
	var prompts [][]int32
	for _, s := range metamorphicTexts(*metamorphicPrompts) {
		ids, err := text.Encode(s)
		require.NoError(t, err)
		prompts = append(prompts, ids)
	}
	base := engine.Config{
		Model: dir, Device: *testDevice, BatchInvariant: true, MaxNumSeqs: 24, MaxNumBatchedTokens: 512, MaxModelLen: 1024, NumGPUBlocksOverride: 1000,
		MaxQueuedReqs: 4096, SwapSpace: 256 << 20, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	want, alone := answers(t, base, axis{}, prompts)
	distinct := map[string]bool{}
	for _, tokens := range want {
		distinct[fmt.Sprint(tokens)] = true
	}
	require.Greater(t, len(distinct), len(prompts)/2, "the model answers the same to everything")
	pairs := 0
	for _, a := range axes {
		t.Run(a.name, func(t *testing.T) {
			config := base
			a.change(&config)
			if a.host > 0 {
				config.SwapSpace = a.host * alone.BlockBytes
			}
			got, st := answers(t, config, a, prompts)
			for i := range prompts {
				require.Equal(t, want[i], got[i], "prompt %d", i)
			}
			pairs += len(prompts)
			t.Logf("%d prompts; %d swaps, %d recomputes, %d waits, %d tokens hit, %d forks, %d steps", len(prompts),
				st.PreemptionsSwap, st.PreemptionsRecompute, st.BlockWaits, st.PrefixHits, st.Forks, st.Steps)
			require.True(t, a.reached == nil || a.reached(st), "the run never came to what it is about: %+v", st)
		})
	}
	t.Logf("%s, %d axes, %d pairs compared; free blocks poisoned: %t", dir, len(axes), pairs, invariant.Enabled)
}

// answers generates for every prompt; of several choices or passes all must agree.
func answers(t *testing.T, config engine.Config, a axis, prompts [][]int32) ([][]int32, engine.Stats) {
	e, err := engine.New(config)
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	out := make([][]int32, len(prompts))
	for range max(a.passes, 1) {
		streams, release := make([][]*engine.Stream, len(prompts)), hold(t, e)
		for i, ids := range prompts {
			streams[i], err = e.SubmitChoices(slices.Repeat([]context.Context{t.Context()}, max(a.choices, 1)), engine.Request{
				ID: fmt.Sprint(i), Prompt: ids, MaxTokens: metamorphicTokens, IgnoreEOS: true, Sampling: engine.Sampling{Logprobs: -1},
			})
			require.NoError(t, err)
		}
		release()
		for i := range streams {
			for _, s := range streams[i] {
				var tokens []int32
				_, err := collect(context.Background(), s, func(ev engine.Event) { tokens = append(tokens, ev.Token) })
				require.NoError(t, err)
				require.True(t, out[i] == nil || slices.Equal(out[i], tokens), "prompt %d differs from itself", i)
				out[i] = tokens
			}
		}
	}
	st := e.Stats()
	require.Zero(t, st.BlocksUsed+st.HostBlocksUsed)
	return out, st
}
