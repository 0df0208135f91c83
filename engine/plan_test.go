package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPlanIsTheEngines: a plan made without weights is what the engine then has.
func TestPlanIsTheEngines(t *testing.T) {
	c := Config{Model: "../testdata/golden/tiny-tied", Device: deviceCPU, Threads: 1, MemoryLimit: 1 << 28, MaxNumSeqs: 4, MaxNumBatchedTokens: 64, MaxModelLen: 256, Log: quiet(Config{}).Log}
	p, err := NewPlan(c)
	require.NoError(t, err)
	e, err := New(c)
	require.NoError(t, err)
	defer e.Close()
	require.Equal(t, e.Settings(), p.Settings)
	require.Equal(t, e.Ledger(), p.Ledger)
	require.Equal(t, e.Info().NumBlocks, p.Info.NumBlocks)

	half, err := p.AtUtilization(0.45)
	require.NoError(t, err)
	require.Less(t, half.Info.NumBlocks, p.Info.NumBlocks)
	require.NoError(t, e.Reconfigure(t.Context(), Limits{GPUMemoryUtilization: 0.45}))
	require.Equal(t, e.Info().NumBlocks, half.Info.NumBlocks)
}

// TestPlanPretendsACard: what a card that is not here would hold, with its own
// workspace and defaults.
func TestPlanPretendsACard(t *testing.T) {
	c := Config{Model: "qwen2.5-7b", LoadFormat: "dummy", Device: deviceCUDA, MemoryLimit: 24 << 30, Log: quiet(Config{}).Log}
	p, err := NewPlan(c)
	require.NoError(t, err)
	require.Equal(t, deviceCUDA, p.Info.Device.Backend)
	require.EqualValues(t, 24<<30, p.LimitBytes())
	require.Greater(t, p.WorkspaceBytes(), int64(1<<29), "8192 tokens a step")
	var sum int64
	for _, l := range p.Ledger {
		sum += l.Bytes
	}
	require.EqualValues(t, 24<<30, sum, "the ledger is the card")
	c.Model = "qwen2.5-72b"
	p, err = NewPlan(c)
	require.ErrorIs(t, err, ErrMemory)
	require.Empty(t, p.Settings)
	require.NotZero(t, p.Info.WeightBytes)
}

// TestPlanRefusesWhatTheDeviceLacks: before anything is made.
func TestPlanRefusesWhatTheDeviceLacks(t *testing.T) {
	c := Config{Model: "../testdata/golden/tiny-qwen3", Device: deviceCUDA, MemoryLimit: 1 << 30, Log: quiet(Config{}).Log}
	_, err := NewPlan(c)
	require.ErrorIs(t, err, ErrModel)
	require.ErrorContains(t, err, "--device cpu")
	c.Device = deviceCPU
	_, err = NewPlan(c)
	require.NoError(t, err)
}
