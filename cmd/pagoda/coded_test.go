package main

import (
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kernels/cpu"
	"github.com/pagoda-engine/pagoda/model"
	"github.com/pagoda-engine/pagoda/model/demo"
)

// TestTrainedWeightsAreCoded: where the processor has AVX-512, all weights of models that
// were trained take three quarters of their bytes in bfloat16, exceptions included.
func TestTrainedWeightsAreCoded(t *testing.T) {
	t.Run("smollm2", func(t *testing.T) {
		dir := testModel(t)
		config, err := model.ReadConfig(dir)
		require.NoError(t, err)
		checkpoint, err := model.OpenCheckpoint(dir)
		require.NoError(t, err)
		defer checkpoint.Close()
		be, err := cpu.New(cpu.Config{})
		require.NoError(t, err)
		defer be.Close()
		if !strings.HasPrefix(be.Info().Path, "avx512") {
			t.Skip("no AVX-512")
		}
		limits := kernels.Limits{MaxBatchedTokens: 64, MaxSeqs: 1, MaxModelLen: 128, MaxLogitRows: 1, BlockSize: 16}
		require.NoError(t, be.Setup(config.Shape(), limits, limits))
		m, err := model.Load(be, config, checkpoint, nil)
		require.NoError(t, err)
		before := m.WeightBytes()
		for more := true; more; {
			more, err = be.CompleteLoad()
			require.NoError(t, err)
		}
		require.Greater(t, m.WeightBytes(), before, "exceptions are known once weights are packed")
		share := float64(m.WeightBytes()) / float64(config.WeightBytes())
		t.Logf("%d bytes of weights, %.2f %% of their bytes in bfloat16", m.WeightBytes(), 100*share)
		require.Less(t, share, 0.77)
	})
	t.Run("demo", func(t *testing.T) {
		skipWithoutDemo(t)
		e, err := engine.New(engine.Config{
			Model: demo.Name, Device: "cpu", MaxNumSeqs: 1, MaxNumBatchedTokens: 64, MaxModelLen: 128, NumGPUBlocksOverride: 10,
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		require.NoError(t, err)
		defer e.Close()
		i := e.Info()
		if !strings.HasPrefix(i.Device.Path, "avx512") {
			t.Skip("no AVX-512")
		}
		plain := i.LayerFLOPsPerToken + i.HeadFLOPs // two of either a weight
		share := float64(i.StreamedWeightBytes) / float64(plain)
		t.Logf("%d bytes of weights, %.2f %% of their bytes in bfloat16", i.StreamedWeightBytes, 100*share)
		require.Less(t, share, 0.77)
	})
}
