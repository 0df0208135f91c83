package main

import (
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model/demo"
)

// TestTrainedWeightsAreCoded: where the processor has AVX-512, all weights of models that
// were trained take three quarters of their bytes in bfloat16, exceptions included.
func TestTrainedWeightsAreCoded(t *testing.T) {
	models := map[string]func(t *testing.T) string{
		"smollm2": func(t *testing.T) string { return testModel(t) },
		"demo":    func(t *testing.T) string { skipWithoutDemo(t); return demo.Name },
	}
	for name, model := range models {
		t.Run(name, func(t *testing.T) {
			e, err := engine.New(engine.Config{
				Model: model(t), Device: "cpu", MaxNumSeqs: 1, MaxNumBatchedTokens: 64, MaxModelLen: 128, NumGPUBlocksOverride: 10,
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
}
