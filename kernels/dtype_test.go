package kernels

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every half comes back, and what lies between two goes to the nearer, ties to the even one.
func TestFloatToFP16(t *testing.T) {
	for bits := range uint16(0x7C00) {
		f, next := FP16ToFloat(bits), FP16ToFloat(bits+1)
		require.Equal(t, bits, FloatToFP16(f))
		require.Equal(t, bits|0x8000, FloatToFP16(-f))
		if bits == 0x7BFF {
			break
		}
		middle := (f + next) / 2
		require.Equal(t, bits+bits&1, FloatToFP16(middle), "between %g and %g", f, next)
		require.Equal(t, bits, FloatToFP16(math.Nextafter32(middle, 0)))
		require.Equal(t, bits+1, FloatToFP16(math.Nextafter32(middle, 1e9)))
	}
	for _, f := range []float32{65504, 65520, 1e9, float32(math.Inf(1))} {
		require.Equal(t, float32(65504), FP16ToFloat(FloatToFP16(f)))
		require.Equal(t, float32(-65504), FP16ToFloat(FloatToFP16(-f)))
	}
	nan := FP16ToFloat(FloatToFP16(float32(math.NaN())))
	require.NotEqual(t, nan, nan)
	require.Zero(t, FloatToFP16(1e-9))
}
