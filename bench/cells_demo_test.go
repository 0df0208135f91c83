package bench

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

func millisecond(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// together is an engine that begins with its requests when n of them are there, however
// fast they are submitted.
type together struct {
	*engine.Engine
	n    int
	mu   sync.Mutex
	have int
	let  chan struct{} // closed, the engine goes on
}

// SubmitChoices implements Submitter.
func (e *together) SubmitChoices(ctxs []context.Context, r engine.Request) ([]*engine.Stream, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.have%e.n == 0 {
		held, let := make(chan struct{}), make(chan struct{})
		e.let = let
		go func() {
			_ = e.EachLogits(context.Background(), []int32{0}, 1, func(int, []float32) { // between two steps
				close(held)
				<-let
			})
		}()
		<-held
	}
	streams, err := e.Engine.SubmitChoices(ctxs, r)
	if e.have++; e.have%e.n == 0 {
		close(e.let)
	}
	return streams, err
}

// TestCellsOnTheDemo measures a pool that binds and one that does not on the real
// engine: blocks run short in the one alone, the prefix cache of one cell is not
// the next one's, and the requests are all answered whatever happens.
func TestCellsOnTheDemo(t *testing.T) {
	e, err := engine.New(engine.Config{Model: "demo", Device: "cpu", MaxNumSeqs: 16, MaxNumBatchedTokens: 64, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	require.NoError(t, err)
	defer func() { require.NoError(t, e.Close()) }()
	before := e.Limits()
	o := CellOptions{Load: Load{Requests: 6, PromptTokens: 40, OutputTokens: 40, SharedPrefix: 32}}
	c := newCells(&together{Engine: e, n: o.Load.Requests}, o)
	small, large := &arm{limits: engine.Limits{NumGPUBlocksOverride: 8}, load: o.Load}, &arm{limits: engine.Limits{NumGPUBlocksOverride: 60}, load: o.Load, watchBlocks: true}
	require.NoError(t, c.measure(context.Background(), "test", []*arm{small, large}, 1))
	c.restore()
	require.Equal(t, before, e.Limits())
	s, l := small.cell(), large.cell()
	for _, cell := range []Cell{s, l} {
		require.EqualValues(t, 6, cell.medianOf("completed"))
		require.EqualValues(t, 240, cell.medianOf("total_output_tokens"))
		require.Positive(t, cell.medianOf("reconfigure_ms"))
		require.Greater(t, cell.medianOf("kv_block_utilization"), 0.5)
		require.LessOrEqual(t, cell.medianOf("prefix_hit_rate"), 5*32.0/240)
	}
	require.EqualValues(t, 8, s.medianOf("num_gpu_blocks"))
	require.Positive(t, s.medianOf("waiting_for_blocks"))
	require.Zero(t, l.medianOf("waiting_for_blocks"))
	require.Zero(t, l.medianOf("num_preemptions"))
	require.Positive(t, l.medianOf("shared_bytes_saved"))
	require.Len(t, large.blocks, 60)
	require.Positive(t, c.model.Steps, "the step-time model learned")
}
