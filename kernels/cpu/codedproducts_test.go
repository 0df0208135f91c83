package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// product is an operation with a linear weight.
type product struct {
	name        string
	kind        kernels.LinearKind
	from, to    kernels.Activation
	bias, norms bool
	record      func(b *Backend, norm, w kernels.Weight)
}

var products = []product{
	{name: "attn", from: kernels.Attn, to: kernels.Hidden, record: func(b *Backend, _, w kernels.Weight) { b.Linear(w, kernels.Attn) }},
	{name: "mlp", from: kernels.MLP, to: kernels.Hidden, record: func(b *Backend, _, w kernels.Weight) { b.Linear(w, kernels.MLP) }},
	{name: "gate_up", kind: kernels.LinearGateUp, from: kernels.Normed, to: kernels.MLP, record: func(b *Backend, _, w kernels.Weight) { b.GateUp(w) }},
	{name: "qkv", kind: kernels.LinearQKV, from: kernels.Normed, to: kernels.Query, bias: true, record: recordQKV},
	{name: "qkv with norms", kind: kernels.LinearQKV, from: kernels.Normed, to: kernels.Query, bias: true, norms: true, record: recordQKV},
	{name: "head", kind: kernels.LinearHead, from: kernels.Hidden, to: kernels.Logits, record: func(b *Backend, norm, w kernels.Weight) { b.Head(norm, w) }},
}

func recordQKV(b *Backend, _, w kernels.Weight) { b.QKV(0, w) }

// parts are the rows of the product's parts, and their columns.
func (p *product) parts(s *kernels.Shape) (rows []int, cols int) {
	kv := s.KVHeads * s.HeadDim
	switch p.kind {
	case kernels.LinearQKV:
		rows = []int{s.Heads * s.HeadDim, kv, kv}
	case kernels.LinearGateUp:
		rows = []int{s.Intermediate, s.Intermediate}
	case kernels.LinearHead:
		rows = []int{s.Vocab}
	default:
		rows = []int{s.Hidden}
	}
	return rows, s.Width(p.from)
}

// panel is where a row of the parts, one below the other, is packed (weight.h).
func (p *product) panel(s *kernels.Shape, row int) int {
	switch p.kind {
	case kernels.LinearQKV:
		half := s.HeadDim / 2
		return row/s.HeadDim*((half+15)/16) + row%half/16
	case kernels.LinearGateUp:
		return row % s.Intermediate / 16
	}
	return row / 32
}

// hot is the column of a token's only activation that is not zero. The first token's is where
// a last odd step would find what the columns 64 before it left.
func hot(token, cols int) int { return (11*token + cols%64) % cols }

// rate says how many of a weight's values are exceptions.
type rate string

const (
	none rate = "none"
	few  rate = "few"  // three a part; its output 1 has nothing else
	line rate = "line" // each part's output 1, many of a panel
	many rate = "many" // more than coding takes
)

// has says whether a value of a part is an exception.
func (r rate) has(row, col, rows, cols int) bool {
	switch r {
	case few:
		return row == 1 && (col == hot(0, cols) || col == hot(11, cols)) || row == rows-1 && col == hot(1, cols)
	case line:
		return row == 1
	case many:
		return (row+col)%50 == 0
	}
	return false
}

// kept is the number of the product's panels that have more exceptions than one in 400 values.
func (p *product) kept(s *kernels.Shape, exceptions rate) (n int) {
	parts, cols := p.parts(s)
	count, first := make(map[int]int), 0
	for _, rows := range parts {
		for i := range rows * cols {
			if exceptions.has(i/cols, i%cols, rows, cols) {
				count[p.panel(s, first+i/cols)]++
			}
		}
		first += rows
	}
	for _, exceptions := range count {
		if exceptions > 32*cols/400 {
			n++
		}
	}
	return n
}

// tensorSource is where values come from: of a dtype, in memory or a file, or made.
type tensorSource struct {
	name        string
	dtype       kernels.DType
	file, dummy bool
}

// matrix is a part of a product. Each panel's weights have a magnitude of their own, so that
// the codes of one are wrong for its neighbours, and all have few bits, so that every dtype
// holds them.
func (p *product) matrix(t *testing.T, s *kernels.Shape, from tensorSource, exceptions rate, first, rows, cols int) kernels.HostTensor {
	if from.dummy {
		return kernels.HostTensor{Name: p.name, Shape: []int{rows, cols}, Seed: uint64(first), Scale: .3}
	}
	random := rand.New(rand.NewPCG(uint64(first), uint64(cols)))
	w := bf16Tensor(rows, cols, from.dtype, func(row, col int) float32 {
		largest := 9 - 3*(p.panel(s, first+row)%5)
		value, sign := 1+float64(random.IntN(128))/128, float64(1-2*random.IntN(2))
		ordinary, far := math.Ldexp(sign*value, largest-random.IntN(8)), math.Ldexp(sign*1.5, largest-17)
		switch {
		case exceptions.has(row, col, rows, cols):
			return float32(far)
		case exceptions == few && row == 1:
			return 0
		}
		return float32(ordinary)
	})
	if from.file {
		const at = 6
		f, err := os.CreateTemp(t.TempDir(), "")
		require.NoError(t, err)
		t.Cleanup(func() { _ = f.Close() })
		_, err = f.WriteAt(w.Data, at)
		require.NoError(t, err)
		w.File, w.FileAt, w.Data = f, at, nil
	}
	return w
}

// spec is the product's weight.
func (p *product) spec(t *testing.T, s *kernels.Shape, from tensorSource, exceptions rate) kernels.LinearSpec {
	spec, first := kernels.LinearSpec{Kind: p.kind}, 0
	parts, cols := p.parts(s)
	for i, rows := range parts {
		spec.Parts = append(spec.Parts, p.matrix(t, s, from, exceptions, first, rows, cols))
		if p.bias {
			spec.Bias = append(spec.Bias, kernels.HostTensor{Name: "bias", Shape: []int{rows}, Seed: uint64(i), Scale: .05})
		}
		first += rows
	}
	for i := 0; p.norms && i < 2; i++ {
		spec.QKNorm = append(spec.QKNorm, kernels.HostTensor{Name: "norm", Shape: []int{s.HeadDim}, Seed: uint64(i), Scale: .3, Offset: 1})
	}
	return spec
}

// newOneLayer is a backend for the shape, without weights.
func newOneLayer(t *testing.T, cfg Config, s kernels.Shape) *Backend {
	b := newBackend(t, cfg)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	limits := kernels.Limits{MaxBatchedTokens: 128, MaxSeqs: 128, MaxModelLen: 16, MaxLogitRows: 128, BlockSize: 16}
	require.NoError(t, b.Setup(s, limits, limits))
	require.NoError(t, b.ResizePool(130, 0))
	return b
}

// multiply runs the product of n one-hot tokens: what it gives are values of the weight, each
// token's of another column. What lies between the rows of activations must not count.
func (p *product) multiply(t *testing.T, b *Backend, norm, w kernels.Weight, n int) (out []float32, kv [][]uint16) {
	x := &b.acts[p.from]
	launch(t, b, make([]int32, n), func() {
		b.WriteActivation(p.to, make([]float32, n*b.shape.Width(p.to)))
		for i := range n {
			row := x.values[i*x.stride : (i+1)*x.stride]
			clear(row)
			row[hot(i, x.width)] = 1
			for j := x.width; j < x.stride; j++ {
				row[j] = float32(math.NaN())
			}
		}
		p.record(b, norm, w)
	})
	for i := 0; p.to == kernels.Query && i < n; i++ {
		kv = append(kv, b.ReadBlock(int32(1+i)))
	}
	return b.ReadActivation(p.to, n), kv
}

// requireSame compares bits.
func requireSame(t *testing.T, want, got []float32, width int, text string) {
	for i := range want {
		if math.Float32bits(want[i]) != math.Float32bits(got[i]) {
			require.Fail(t, text, "token %d, output %d: %g, want %g", i/width, i%width, got[i], want[i])
		}
	}
}

// oneLayer is a shape by its sizes.
func oneLayer(hidden, intermediate, heads, kvHeads, headDim, vocab int) kernels.Shape {
	s := kernels.Shape{
		Layers: 1, Hidden: hidden, Intermediate: intermediate, Heads: heads, KVHeads: kvHeads, HeadDim: headDim, Vocab: vocab,
		RMSEps: 1e-6, RopeScale: 1, InvFreq: make([]float32, headDim/2),
	}
	for i := range s.InvFreq {
		s.InvFreq[i] = 1 / float32(1+i)
	}
	return s
}

// TestCodedProducts: every product with coded weights has the bits that it has with weights
// that are not, of weights that cannot be coded too.
func TestCodedProducts(t *testing.T) {
	bf16, bf16File := tensorSource{name: "bf16"}, tensorSource{name: "bf16 file", file: true}
	fp32, fp32File := tensorSource{name: "fp32", dtype: kernels.FP32}, tensorSource{name: "fp32 file", dtype: kernels.FP32, file: true}
	fp16, dummy := tensorSource{name: "fp16", dtype: kernels.FP16}, tensorSource{name: "dummy", dummy: true}
	for _, c := range []struct {
		shape      kernels.Shape
		threads    int
		from       tensorSource
		exceptions rate
	}{
		{oneLayer(70, 102, 3, 1, 32, 333), 1, bf16, few},       // odd numbers of steps, 11 panels of the head
		{oneLayer(70, 102, 3, 1, 32, 333), 2, fp32, few},       // rows that are not packed as they are
		{oneLayer(72, 100, 2, 1, 32, 160), 2, bf16, none},      // 5 panels of the head
		{oneLayer(64, 128, 6, 2, 16, 224), 1, bf16, few},       // whole chunks, heads of half a panel
		{oneLayer(34, 134, 8, 4, 32, 100), 2, fp16, few},       // less than a chunk
		{oneLayer(130, 70, 2, 2, 48, 97), 1, bf16File, few},    // heads of one panel and a half
		{oneLayer(160, 202, 2, 1, 64, 65), 2, fp32File, few},   // 5 panels of hidden
		{oneLayer(70, 90, 3, 1, 32, 1100), 1, fp16, few},       // units of 4 panels, the last of 3
		{oneLayer(70, 90, 3, 1, 32, 1100), 2, bf16, line},      // the head alone can be coded
		{oneLayer(222, 142, 3, 1, 32, 144), 1, bf16, none},     // 7 panels of hidden
		{oneLayer(102, 326, 2, 2, 80, 250), 2, bf16File, none}, // 21 panels of gate and up
		{oneLayer(70, 102, 3, 1, 32, 333), 1, dummy, none},
		{oneLayer(70, 102, 3, 1, 32, 333), 2, bf16, many},
		{oneLayer(130, 70, 2, 2, 48, 97), 1, bf16File, many},
		{oneLayer(72, 100, 2, 1, 32, 160), 2, fp32, many},
	} {
		if c.threads == 1 && testing.Short() {
			continue // nothing for the race detector
		}
		for _, path := range codingPaths(t) {
			s := c.shape
			t.Run(fmt.Sprintf("%s, %d, %d, %d, %s, %s exceptions", path, s.Hidden, s.Intermediate, s.Vocab, c.from.name, c.exceptions), func(t *testing.T) {
				coded := newOneLayer(t, Config{ISA: path, Threads: c.threads}, s)
				plain := newOneLayer(t, Config{ISA: path, Threads: c.threads, Uncoded: true}, s)
				for i := range products {
					products[i].compare(t, coded, plain, c.from, c.exceptions)
				}
			})
		}
	}
}

// compare runs the product on both backends.
func (p *product) compare(t *testing.T, coded, plain *Backend, from tensorSource, exceptions rate) {
	spec := p.spec(t, &plain.shape, from, exceptions)
	load := func(b *Backend) (norm, w kernels.Weight) {
		norm, err := b.LoadNorm(kernels.HostTensor{Name: "norm", Shape: []int{b.shape.Hidden}, Offset: 1})
		require.NoError(t, err)
		w, err = b.LoadLinear(spec)
		require.NoError(t, err)
		return norm, w
	}
	plainNorm, plainWeight := load(plain)
	norm, w := load(coded)
	require.Equal(t, from.file, len(coded.deferred.weights) > 0)
	for _, n := range []int{1, 2, 12, 13, 24, 100} {
		want, wantKV := p.multiply(t, plain, plainNorm, plainWeight, n)
		width, text := plain.shape.Width(p.to), fmt.Sprintf("%s, %d tokens", p.name, n)
		if exceptions == few {
			require.NotZero(t, want[1], "%s: output 1 of the first token", text)
			if n > 11 {
				require.NotZero(t, want[11*width+1], "%s: output 1 of the twelfth token", text)
			}
		}
		coded.deferred.steps = 0 // nothing is packed before the step
		got, gotKV := p.multiply(t, coded, norm, w, n)
		requireSame(t, want, got, width, text)
		require.Equal(t, wantKV, gotKV, text)
	}
	require.Equal(t, from.file, len(coded.deferred.weights) > 0)
	completeLoad(t, coded)
	require.EqualValues(t, p.kept(&plain.shape, exceptions), w.(*weight).c.num_kept, p.name)
	for _, n := range []int{1, 2, 12, 13, 24, 100} {
		want, wantKV := p.multiply(t, plain, plainNorm, plainWeight, n)
		got, gotKV := p.multiply(t, coded, norm, w, n)
		text := fmt.Sprintf("%s, %d tokens, packed", p.name, n)
		requireSame(t, want, got, plain.shape.Width(p.to), text)
		require.Equal(t, wantKV, gotKV, text)
	}
}

// TestCodedNoMemory: where there are no addresses left for a weight, loading says so, and a
// smaller one can be loaded.
func TestCodedNoMemory(t *testing.T) {
	p, s := products[0], oneLayer(72, 100, 6, 2, 16, 160)
	for _, path := range codingPaths(t) {
		b := newOneLayer(t, Config{ISA: path, Threads: 2}, s)
		w, err := b.LoadLinear(p.spec(t, &s, tensorSource{}, none))
		require.NoError(t, err)
		d, reserved := b.device, b.device.weights.reserved
		d.weights_used, d.weights.reserved = d.weights.bytes-w.(*weight).c.value_bytes+64, d.weights.bytes
		_, err = b.LoadLinear(p.spec(t, &s, tensorSource{}, none))
		require.ErrorContains(t, err, "no memory for the packed weight")
		require.ErrorIs(t, err, kernels.ErrOutOfMemory)
		require.ErrorIs(t, err, syscall.ENOMEM)
		d.weights.reserved = reserved
		_, err = b.LoadLinear(p.spec(t, &s, tensorSource{}, many))
		require.NoError(t, err)
	}
}
