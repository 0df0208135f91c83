//go:build cuda

package cuda

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// TestWeightsBeyondFloat16: weights that float16 cannot hold are not cut off silently, and
// the greatest that it holds are taken.
func TestWeightsBeyondFloat16(t *testing.T) {
	paths(t)
	for _, c := range []struct {
		kind kernels.LinearKind
		most float32
	}{{kernels.LinearPlain, 65280}, {kernels.LinearDown, 1020}} { // of bfloat16's numbers
		for _, beyond := range []bool{false, true} {
			m := newTiny(t, Config{})
			largest := c.most
			if beyond {
				largest *= 1.01 // the next number, or the one after
			}
			data := make([]byte, 4*m.shape.Hidden*m.shape.Hidden)
			binary.LittleEndian.PutUint32(data, math.Float32bits(-largest))
			_, err := m.LoadLinear(kernels.LinearSpec{Kind: c.kind, Parts: []kernels.HostTensor{
				{Name: "outlier", DType: kernels.FP32, Shape: []int{m.shape.Hidden, m.shape.Hidden}, Data: data},
			}})
			require.NoError(t, err)
			if beyond {
				require.ErrorContains(t, m.CheckLoad(), "1 weights are beyond what float16 holds")
				continue
			}
			require.NoError(t, m.CheckLoad())
			m.reset(1)
			_, err = m.Wait(m.decode(1, 1, false))
			require.NoError(t, err)
		}
	}
}
