package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model/demo"
)

// closeness is how far the engine, which rounds keys and values to float16, may be
// from transformers in float32.
type closeness struct {
	gap       float64 // top-2 gap in nats below which tokens may part
	max, mean float64 // |Δ log probability| of any of the five likeliest ids
}

var allowed = closeness{gap: 0.1, max: 0.25, mean: 0.02}

// goldens are outputs of transformers; see scripts/goldens.
type goldens struct {
	Prompts []struct {
		Name      string
		Text      string
		IDs       []int32
		GreedyIDs []int32 `json:"greedy_ids"`
		Generated []struct {
			IDs       []int32
			Logits    []float64
			LogSumExp float64
			Gap       float64
		}
	}
}

// TestGreedyEqualsTransformers: on every prompt the greedy tokens are those of
// transformers in float32, or part first where its two best ids are closer than
// a gap; up to there the log probabilities agree.
func TestGreedyEqualsTransformers(t *testing.T) {
	t.Run("smollm2", func(t *testing.T) { testGreedy(t, "smollm2.json", testModel(t)) })
	t.Run("demo", func(t *testing.T) {
		skipWithoutDemo(t)
		testGreedy(t, "demo.json", demo.Name)
	})
}

func testGreedy(t *testing.T, golden, dir string) {
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "golden", golden))
	require.NoError(t, err)
	var g goldens
	require.NoError(t, json.Unmarshal(data, &g))
	require.GreaterOrEqual(t, len(g.Prompts), 8)
	text, err := openTokenizer(dir)
	require.NoError(t, err)
	defer text.Close()
	e, err := engine.New(engine.Config{
		Model: dir, MaxNumSeqs: 8, MaxNumBatchedTokens: 256, MaxModelLen: 2048, NumGPUBlocksOverride: 300,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	require.NoError(t, err)
	defer e.Close()
	equal, compared := 0, 0
	var worst, sum float64
	for _, p := range g.Prompts {
		ids, err := text.Encode(p.Text)
		require.NoError(t, err)
		require.Equal(t, p.IDs, ids, p.Name)
		stream, err := e.Submit(t.Context(), engine.Request{
			ID: p.Name, Prompt: p.IDs, MaxTokens: len(p.GreedyIDs), IgnoreEOS: true, Sampling: engine.Sampling{Logprobs: 5},
		})
		require.NoError(t, err)
		var events []engine.Event
		_, err = collect(context.Background(), stream, func(ev engine.Event) { events = append(events, ev) })
		require.NoError(t, err)
		same := true
		for i, want := range p.GreedyIDs[:len(events)] {
			ref := p.Generated[i]
			for j, id := range ref.IDs {
				for k, ours := range events[i].TopIDs {
					if ours == id {
						d := math.Abs(float64(events[i].TopLogprobs[k]) - (ref.Logits[j] - ref.LogSumExp))
						worst, sum, compared = max(worst, d), sum+d, compared+1
					}
				}
			}
			if events[i].Token != want {
				require.Less(t, ref.Gap, allowed.gap, "%s: token %d is %d, want %d", p.Name, i, events[i].Token, want)
				same = false
				break // what follows has another context
			}
		}
		if same {
			equal++
		}
	}
	t.Logf("%d of %d prompts equal; |Δ logprob| mean %.4f, max %.4f over %d values", equal, len(g.Prompts), sum/float64(compared), worst, compared)
	require.Greater(t, compared, 100*len(g.Prompts))
	require.Less(t, worst, allowed.max)
	require.Less(t, sum/float64(compared), allowed.mean)
}
