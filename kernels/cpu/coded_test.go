package cpu

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// codingPaths are the paths of this machine that code bfloat16 weights.
func codingPaths(t *testing.T) []string {
	var names []string
	for _, p := range []string{"avx512", "avx512bf16"} {
		if _, err := choosePath(p); err == nil {
			names = append(names, p)
		}
	}
	if len(names) == 0 {
		t.Skip("no AVX-512")
	}
	return names
}

// bf16Tensor is a matrix of float32 values that bfloat16 holds.
func bf16Tensor(rows, cols int, dtype kernels.DType, value func(row, col int) float32) kernels.HostTensor {
	var data []byte
	for row := range rows {
		for col := range cols {
			bits := math.Float32bits(value(row, col)) &^ 0xFFFF
			switch dtype {
			case kernels.FP32:
				data = binary.LittleEndian.AppendUint32(data, bits)
			case kernels.FP16:
				data = binary.LittleEndian.AppendUint16(data, kernels.FloatToFP16(math.Float32frombits(bits)))
			default:
				data = binary.LittleEndian.AppendUint16(data, uint16(bits>>16))
			}
		}
	}
	return kernels.HostTensor{Name: "w", DType: dtype, Shape: []int{rows, cols}, Data: data}
}

// tied is a model of nothing but a tied embedding of 70 columns, an odd number of steps.
type tied struct {
	*Backend
	embedding kernels.Weight
}

func newTied(t *testing.T, path string, w kernels.HostTensor) *tied {
	s := small()
	s.Vocab, s.Hidden = w.Shape[0], w.Shape[1]
	m := &tied{Backend: newBackend(t, Config{ISA: path, Threads: 2})}
	t.Cleanup(func() { _ = m.Close() })
	limits := kernels.Limits{MaxBatchedTokens: 128, MaxSeqs: 128, MaxModelLen: 64, MaxLogitRows: 128, BlockSize: 16}
	require.NoError(t, m.Setup(s, limits, limits))
	require.NoError(t, m.ResizePool(130, 0))
	var err error
	m.embedding, err = m.LoadEmbedding(w, true)
	require.NoError(t, err)
	return m
}

// launch runs a step of the tokens, a sequence each, whose operations forward records.
func launch(t *testing.T, b *Backend, tokens []int32, forward func()) {
	batch, sample := &kernels.Batch{Tokens: tokens, QueryStart: []int32{0}, NumDecodes: len(tokens)}, &kernels.SampleBatch{}
	for i := range int32(len(tokens)) {
		b.UpdateRows([]kernels.RowUpdate{{Row: i, Reset: true, Blocks: []int32{1 + i}, Sampling: kernels.Sampling{Logprobs: -1}}})
		batch.Rows, batch.LogitRows = append(batch.Rows, i), append(batch.LogitRows, i)
		batch.QueryStart, batch.SeqLens = append(batch.QueryStart, i+1), append(batch.SeqLens, 1)
	}
	b.Launch(batch, forward)
	_, err := b.Wait(b.Sample(sample))
	require.NoError(t, err)
}

// TestCodedWeights: coding loses nothing, whatever the values, and takes three quarters of the
// memory where they lie within a few powers of two, which is what trained weights do.
func TestCodedWeights(t *testing.T) {
	const vocab, hidden = 100, 70
	random := rand.New(rand.NewPCG(1, 2))
	ordinary := func(int, int) float32 { return float32(random.NormFloat64()) * 0.02 }
	rare := []float32{0, float32(math.Copysign(0, -1)), 1e-9, -3e-12, math.Float32frombits(5 << 16), math.Float32frombits(0x80010000)}
	for name, c := range map[string]struct {
		value func(row, col int) float32
		coded bool
	}{
		"ordinary": {ordinary, true},
		"rare": {func(row, col int) float32 {
			if (row*hidden+col)%401 == 7 {
				return rare[(row+col)%len(rare)]
			}
			return ordinary(row, col)
		}, true},
		"zero": {func(int, int) float32 { return 0 }, true},
		"all magnitudes": {func(int, int) float32 {
			return float32(math.Ldexp(random.Float64()-0.5, random.IntN(200)-100))
		}, false},
		"infinite": {func(row, col int) float32 {
			if row == 40 && col == 9 {
				return float32(math.Inf(-1))
			}
			return ordinary(row, col)
		}, true}, // its panel alone is kept as it is
	} {
		for _, dtype := range []kernels.DType{kernels.BF16, kernels.FP32} {
			var want []float32
			w := bf16Tensor(vocab, hidden, dtype, func(row, col int) float32 {
				v := c.value(row, col)
				want = append(want, math.Float32frombits(math.Float32bits(v)&^0xFFFF))
				return v
			})
			tokens := make([]int32, vocab)
			for i := range tokens {
				tokens[i] = int32(i)
			}
			for _, path := range codingPaths(t) {
				m := newTied(t, path, w)
				launch(t, m.Backend, tokens, func() { m.Embed(m.embedding) })
				got := m.ReadActivation(kernels.Hidden, vocab)
				for i := range want {
					require.Equal(t, math.Float32bits(want[i]), math.Float32bits(got[i]), "%s, %s, %s: value %d: %g, want %g", name, dtype, path, i, got[i], want[i])
				}
				plain := int64(128 * hidden * 2) // whole panels
				require.Equal(t, c.coded, m.embedding.Bytes() < plain*9/10, "%s, %s, %s: %d bytes, %d as they are", name, dtype, path, m.embedding.Bytes(), plain)
			}
		}
	}
}

// TestCodedExceptions: products count what a panel's codes cannot say, for one token and for
// many alike. Output 1 has nothing else.
func TestCodedExceptions(t *testing.T) {
	const vocab, hidden = 64, 70
	random := rand.New(rand.NewPCG(3, 4))
	at := map[int]float32{3: 0.5, 30: -0.25, 69: 2}
	w := bf16Tensor(vocab, hidden, kernels.BF16, func(row, col int) float32 {
		if row == 1 {
			return at[col]
		}
		return float32(1e6 * (1 + random.Float64()))
	})
	for _, path := range codingPaths(t) {
		m := newTied(t, path, w)
		norm, err := m.LoadNorm(kernels.HostTensor{Name: "norm", Shape: []int{hidden}, Offset: 1})
		require.NoError(t, err)
		var first float32
		for _, n := range []int{1, 2, 12, 13, 100} {
			hiddens := make([]float32, n*hidden)
			for i := range hiddens {
				hiddens[i] = float32(i%hidden) - 30
			}
			launch(t, m.Backend, make([]int32, n), func() {
				m.WriteActivation(kernels.Hidden, hiddens)
				m.Head(norm, m.embedding)
			})
			logits := m.ReadActivation(kernels.Logits, n)
			var squares float64
			for col := range hidden {
				squares += math.Pow(float64(col)-30, 2)
			}
			want := (0.5*(3-30) - 0.25*0 + 2*(69-30)) / math.Sqrt(squares/hidden+1e-6)
			for i := range n {
				require.InDelta(t, want, logits[i*vocab+1], 0.02, "%s, %d tokens", path, n)
				if n == 1 {
					first = logits[1]
				}
				require.Equal(t, first, logits[i*vocab+1], "%s, %d tokens", path, n)
			}
		}
	}
}
