//go:build cuda

package cuda

import (
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kernels/cpu"
)

// TestAgainstCPU runs true shapes on both Backends, with the same random weights:
// a prompt in two chunks of three sequences, then a decode. Activations in
// bfloat16 may move a log probability by a little.
func TestAgainstCPU(t *testing.T) {
	for _, path := range paths(t) {
		for i, model := range trueShapes {
			model.shape.Layers = []int{24, 6, 2}[i] // what a CPU computes in seconds
			t.Run(path+"/"+model.name, func(t *testing.T) { againstCPU(t, path, model) })
		}
	}
}

func againstCPU(t *testing.T, path string, model trueShape) {
	const seqs, first, second = 3, 70, 23
	shape := model.full()
	host, err := cpu.New(cpu.Config{Threads: runtime.NumCPU()})
	require.NoError(t, err)
	var logits [2][][]float32
	for i, b := range []kernels.Backend{host, newBackend(t, Config{Path: path})} {
		limits := kernels.Limits{
			MaxBatchedTokens: seqs * first, MaxSeqs: seqs, MaxModelLen: 128, MaxLogitRows: seqs, BlockSize: 16, MaxTopLogprobs: 1,
		}
		require.NoError(t, b.Setup(shape, limits, limits))
		require.NoError(t, b.ResizePool(1+8*seqs, 0))
		m := loadTrue(t, b, shape, model.tied)
		m.resetRows(seqs, 8)
		for _, span := range [][2]int{{0, first}, {first, second}, {first + second, 1}} {
			batch, _ := m.spans(seqs, span[0], span[1])
			b.Launch(batch, m.pass)
			_, err := b.Wait(b.Sample(&kernels.SampleBatch{}))
			require.NoError(t, err)
			logits[i] = append(logits[i], b.ReadActivation(kernels.Logits, seqs))
		}
		require.NoError(t, b.Close())
	}
	var mean, most float64
	n := 0
	for step := range logits[0] {
		for row := range seqs {
			want := logSoftmax(logits[0][step][row*shape.Vocab : (row+1)*shape.Vocab])
			got := logSoftmax(logits[1][step][row*shape.Vocab : (row+1)*shape.Vocab])
			for i := range want {
				diff := math.Abs(want[i] - got[i])
				mean, most, n = mean+diff, max(most, diff), n+1
			}
			top := slices.Index(want, slices.Max(want))
			require.InDelta(t, slices.Max(got), got[top], 0.25, "step %d, row %d", step, row)
		}
	}
	mean /= float64(n)
	t.Logf("difference of log probabilities: mean %.4f, most %.4f", mean, most)
	require.LessOrEqual(t, mean, 0.02)
	require.LessOrEqual(t, most, 0.25)
}

// logSoftmax is log softmax of z in float64.
func logSoftmax(z []float32) []float64 {
	out, largest, sum := make([]float64, len(z)), slices.Max(z), 0.0
	for _, v := range z {
		sum += math.Exp(float64(v - largest))
	}
	for i, v := range z {
		out[i] = float64(v-largest) - math.Log(sum)
	}
	return out
}
