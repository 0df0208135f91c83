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

// cpuCases are sequences with a prompt in two chunks, then a decode: products of a single token make
// its norm, too, gemm_stream takes decodes of nine rows and more.
var cpuCases = []struct{ seqs, first, second int }{{1, 70, 23}, {3, 70, 23}, {16, 9, 4}, {100, 2, 1}}

// TestAgainstCPU runs true shapes on both Backends, with the same random weights.
// Activations in float16 may move a log probability by a little.
func TestAgainstCPU(t *testing.T) {
	for _, path := range paths(t) {
		for i, model := range trueShapes {
			model.shape.Layers = []int{24, 6, 2}[i] // what a CPU computes in seconds
			t.Run(path+"/"+model.name, func(t *testing.T) { againstCPU(t, path, model) })
		}
	}
}

func againstCPU(t *testing.T, path string, model trueShape) {
	shape := model.full()
	host, err := cpu.New(cpu.Config{Threads: runtime.NumCPU()})
	require.NoError(t, err)
	logits := make([][2][][]float32, len(cpuCases))
	for side, b := range []kernels.Backend{host, newBackend(t, Config{Path: path})} {
		limits := kernels.Limits{MaxBatchedTokens: 256, MaxSeqs: 100, MaxModelLen: 128, MaxLogitRows: 100, BlockSize: 16, MaxTopLogprobs: 1}
		require.NoError(t, b.Setup(shape, limits, limits))
		require.NoError(t, b.ResizePool(1+8*limits.MaxSeqs, 0))
		m := loadTrue(t, b, shape, model.tied)
		for i, c := range cpuCases {
			m.resetRows(c.seqs, 8)
			for _, span := range [][2]int{{0, c.first}, {c.first, c.second}, {c.first + c.second, 1}} {
				batch, _ := m.spans(c.seqs, span[0], span[1])
				b.Launch(batch, m.pass)
				_, err := b.Wait(b.Sample(&kernels.SampleBatch{}))
				require.NoError(t, err)
				logits[i][side] = append(logits[i][side], b.ReadActivation(kernels.Logits, c.seqs))
			}
		}
		require.NoError(t, b.Close())
	}
	for i, c := range cpuCases {
		likeProbabilities(t, logits[i], c.seqs, shape.Vocab)
	}
}

// likeProbabilities compares the log probabilities of each step's rows.
func likeProbabilities(t *testing.T, logits [2][][]float32, rows, vocab int) {
	var mean, most float64
	n := 0
	for step := range logits[0] {
		for row := range rows {
			want := logSoftmax(logits[0][step][row*vocab : (row+1)*vocab])
			got := logSoftmax(logits[1][step][row*vocab : (row+1)*vocab])
			for i := range want {
				diff := math.Abs(want[i] - got[i])
				mean, most, n = mean+diff, max(most, diff), n+1
			}
			top := slices.Index(want, slices.Max(want))
			require.InDelta(t, slices.Max(got), got[top], 0.25, "%d rows, step %d, row %d", rows, step, row)
		}
	}
	mean /= float64(n)
	t.Logf("%d rows: difference of log probabilities: mean %.4f, most %.4f", rows, mean, most)
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
