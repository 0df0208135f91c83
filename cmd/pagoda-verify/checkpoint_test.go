package main

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFloat16(t *testing.T) {
	for bits, want := range map[uint16]float32{
		0x0000: 0, 0x3C00: 1, 0xC000: -2, 0x7BFF: 65504, // largest
		0x0400: 0x1p-14, 0x0001: 0x1p-24, // smallest normal and subnormal
		0x3555: 0.33325195, 0x7C00: float32(math.Inf(1)), 0xFC00: float32(math.Inf(-1)),
	} {
		require.Equal(t, want, float16([]byte{byte(bits), byte(bits >> 8)}), "%#04x", bits)
	}
	require.True(t, math.IsNaN(float64(float16([]byte{0x01, 0x7C}))))
}

func TestReadRows(t *testing.T) {
	c, err := openCheckpoint("../../testdata/golden/tiny-yarn") // two shards
	require.NoError(t, err)
	defer c.close()
	all, err := c.read("lm_head.weight", 96, 96)
	require.NoError(t, err)
	part, err := c.readRows("lm_head.weight", 5, 7, 96, 96)
	require.NoError(t, err)
	require.Equal(t, all[5*96:7*96], part)

	_, err = c.read("lm_head.weight", 96, 95)
	require.ErrorContains(t, err, "shape [96 96], expected [96 95]")
	_, err = c.read("missing.weight", 1)
	require.ErrorContains(t, err, "missing.weight")
}
