//go:build cuda

package engine

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels/cuda"
)

// TestNoDriver: without a GPU the binary says why, and auto is the processor.
func TestNoDriver(t *testing.T) {
	missing := cuda.Available()
	if missing == nil {
		t.Skip("this machine has a GPU")
	}
	_, err := New(Config{Model: "qwen2.5-0.5b", LoadFormat: "dummy", Device: deviceCUDA})
	require.ErrorIs(t, err, ErrDevice)
	require.ErrorContains(t, err, missing.Error())
	b, err := openDevice(&Config{Device: "auto"})
	require.NoError(t, err)
	require.Equal(t, deviceCPU, b.Info().Backend)
	require.NoError(t, b.Close())
}
