//go:build !cuda

package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNoCUDA(t *testing.T) {
	_, err := New(Config{Model: "qwen2.5-0.5b", LoadFormat: "dummy", Device: deviceCUDA})
	require.ErrorIs(t, err, ErrDevice)
	require.ErrorContains(t, err, "without CUDA")
}
