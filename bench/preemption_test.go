package bench

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// TestPreemptionPrintsTwice: printing changes nothing.
func TestPreemptionPrintsTwice(t *testing.T) {
	ones := []float64{1}
	r := PreemptionReport{Arms: []PreemptionArm{{
		Mode: "auto", Throughput: ones, E2EMedian: ones, E2EP99: ones, ITLP99: ones, Swaps: ones, Recomputes: ones, Waits: ones,
		SwapBytes: []float64{3 << 20}, Computed: ones, Decisions: []engine.Decision{{Seq: 7}}, Lost: true,
	}}}
	var first, second strings.Builder
	r.Print(&first)
	r.Print(&second)
	require.Equal(t, first.String(), second.String())
	require.Equal(t, []float64{3 << 20}, r.Arms[0].SwapBytes)
	require.Contains(t, first.String(), "the first that are still kept")
}

func TestFirstDecisions(t *testing.T) {
	step := func(n int64, decisions ...engine.Decision) engine.StepRecord {
		return engine.StepRecord{Record: scheduler.Record{Step: n, Decisions: decisions}}
	}
	a, b, c := engine.Decision{Seq: 1}, engine.Decision{Seq: 2}, engine.Decision{Seq: 3}
	steps := []engine.StepRecord{step(4, a), step(5), step(6, b, c)}
	first, lost := firstDecisions(steps, 4, 5)
	require.Equal(t, []engine.Decision{b, c}, first)
	require.False(t, lost)
	first, lost = firstDecisions(steps, 2, 2)
	require.Equal(t, []engine.Decision{a, b}, first)
	require.True(t, lost, "step 3 is gone")
	first, lost = firstDecisions(nil, 2, 2)
	require.Empty(t, first)
	require.False(t, lost)
}

func TestPreemptionBlocks(t *testing.T) {
	require.Equal(t, 3, PreemptionOptions{Requests: 4, PromptTokens: 15, OutputTokens: 2, Share: 0.75}.Blocks(16))
	require.Equal(t, 2, PreemptionOptions{Requests: 1, PromptTokens: 15, OutputTokens: 2, Share: 1}.Blocks(16), "max_model_len is 17")
	_, err := Preemption(context.Background(), nil, 0, PreemptionOptions{})
	require.ErrorContains(t, err, "blocks of 0 tokens")
}
