package kernelstest

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// pair is the Backend under test and the Oracle, set up alike and given the
// same calls.
type pair struct {
	t      *testing.T
	tol    Tolerance
	rng    *rand.Rand
	got    kernels.Backend
	want   *Oracle
	shape  kernels.Shape
	limits kernels.Limits
	loaded [2][]kernels.Weight // by loadX's index: got's, want's
	blocks int
	tables [][]int32 // by row
}

// newPair sets both up and fills the pool of the given number of blocks, block
// 0 included, with NaN.
func (s *suite) newPair(t *testing.T, shape kernels.Shape, limits kernels.Limits, blocks int) *pair {
	runtime.LockOSThread()
	p := &pair{
		t: t, tol: s.tol, shape: shape, limits: limits, blocks: blocks,
		rng: rand.New(rand.NewPCG(seedOf(t.Name()), 1)),
		got: s.newBackend(t), want: NewOracle(), tables: make([][]int32, limits.MaxSeqs),
	}
	t.Cleanup(func() {
		require.NoError(t, p.got.Close())
		runtime.UnlockOSThread()
	})
	p.each(func(b kernels.Backend, _ []kernels.Weight) {
		require.NoError(t, b.Setup(shape, limits, limits))
		require.NoError(t, b.ResizePool(blocks, 0))
	})
	nan := slices.Repeat([]uint16{nanBits}, p.want.KV().BlockElems())
	for block := range blocks {
		p.writeBlock(int32(block), nan)
	}
	return p
}

const nanBits = 0x7FC0 // NaN in bfloat16 and float16

// seedOf makes a case's random numbers depend on its name alone.
func seedOf(name string) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range []byte(name) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// each calls fn for both, with their weights.
func (p *pair) each(fn func(b kernels.Backend, w []kernels.Weight)) {
	fn(p.got, p.loaded[0])
	fn(p.want, p.loaded[1])
}

// load loads a weight into both and returns its index.
func (p *pair) load(fn func(b kernels.Backend) (kernels.Weight, error)) int {
	for i, b := range []kernels.Backend{p.got, p.want} {
		w, err := fn(b)
		require.NoError(p.t, err)
		require.Positive(p.t, w.Bytes())
		p.loaded[i] = append(p.loaded[i], w)
	}
	return len(p.loaded[0]) - 1
}

func (p *pair) linear(kind kernels.LinearKind, parts ...kernels.HostTensor) int {
	return p.load(func(b kernels.Backend) (kernels.Weight, error) {
		return b.LoadLinear(kernels.LinearSpec{Kind: kind, Parts: parts})
	})
}

func (p *pair) norm(t kernels.HostTensor) int {
	return p.load(func(b kernels.Backend) (kernels.Weight, error) { return b.LoadNorm(t) })
}

func (p *pair) embedding(t kernels.HostTensor, tied bool) int {
	return p.load(func(b kernels.Backend) (kernels.Weight, error) { return b.LoadEmbedding(t, tied) })
}

func (p *pair) writeBlock(block int32, values []uint16) {
	p.each(func(b kernels.Backend, _ []kernels.Weight) { b.WriteBlock(block, values) })
}

// maxRows is the number of rows that an activation has room for.
func (p *pair) maxRows(a kernels.Activation) int {
	if a == kernels.Logits {
		return p.limits.MaxLogitRows
	}
	return p.limits.MaxBatchedTokens
}

// poison fills the activations with NaN.
func (p *pair) poison(activations ...kernels.Activation) {
	for _, a := range activations {
		nan := slices.Repeat([]float32{float32(math.NaN())}, p.maxRows(a)*p.shape.Width(a))
		p.each(func(b kernels.Backend, _ []kernels.Weight) { b.WriteActivation(a, nan) })
	}
}

// random poisons a and writes normal values of the given deviation into its
// leading rows.
func (p *pair) random(a kernels.Activation, rows int, deviation float64) []float32 {
	p.poison(a)
	v := make([]float32, rows*p.shape.Width(a))
	for i := range v {
		v[i] = float32(p.rng.NormFloat64() * deviation)
		if as := p.tol.Activations; as != kernels.FP32 && a != kernels.Logits {
			v[i] = as.Float(as.Bits(v[i]))
		}
	}
	p.each(func(b kernels.Backend, _ []kernels.Weight) { b.WriteActivation(a, v) })
	return v
}

// step launches forward on both and ends the step without drawing.
func (p *pair) step(batch *kernels.Batch, forward func(b kernels.Backend, w []kernels.Weight)) {
	p.each(func(b kernels.Backend, w []kernels.Weight) {
		b.Launch(batch, func() { forward(b, w) })
		_, err := b.Wait(b.Sample(&kernels.SampleBatch{}))
		require.NoError(p.t, err)
	})
}

// equal requires the leading rows of a to be the Oracle's.
func (p *pair) equal(a kernels.Activation, rows int) {
	p.t.Helper()
	got, want := p.got.ReadActivation(a, rows), p.want.ReadActivation(a, rows)
	require.NoError(p.t, p.tol.compare(got, want, p.shape.Width(a)), "activation %d", a)
}

// equalKV requires all blocks but 0, which takes padding writes, to be the
// Oracle's, poison included.
func (p *pair) equalKV() {
	p.t.Helper()
	for block := int32(1); block < int32(p.blocks); block++ {
		require.NoError(p.t, p.tol.compareKV(p.want.kv.DType, p.got.ReadBlock(block), p.want.ReadBlock(block)), "block %d", block)
	}
}

// span is one sequence's part in a step: context tokens were computed before,
// query tokens are computed now.
type span struct{ context, query int }

// batch gives each span a row and shuffled blocks, in both row states, and
// makes the step's Batch with random ids. Leading spans of one query token are
// its decodes; LogitRows are the last token of each span.
func (p *pair) batch(spans []span) *kernels.Batch {
	free := p.rng.Perm(p.blocks - 1)
	rows := p.rng.Perm(p.limits.MaxSeqs)
	var updates []kernels.RowUpdate
	for i, s := range spans {
		n := (s.context + s.query + p.limits.BlockSize - 1) / p.limits.BlockSize
		require.LessOrEqual(p.t, n, len(free), "the case needs more blocks")
		table := make([]int32, n)
		for j := range table {
			table[j] = int32(free[j]) + 1
		}
		free = free[n:]
		p.tables[rows[i]] = table
		updates = append(updates, kernels.RowUpdate{
			Row: int32(rows[i]), Reset: true, Sampling: kernels.Sampling{Logprobs: -1}, Blocks: table,
		})
	}
	p.each(func(b kernels.Backend, _ []kernels.Weight) { b.UpdateRows(updates) })
	order := make([]int32, len(spans))
	for i := range order {
		order[i] = int32(rows[i])
	}
	return p.ragged(order, spans)
}

// ragged makes the Batch of the spans over rows that have their tables already.
func (p *pair) ragged(rows []int32, spans []span) *kernels.Batch {
	b := &kernels.Batch{Rows: rows, QueryStart: []int32{0}}
	for i, s := range spans {
		for range s.query {
			b.Tokens = append(b.Tokens, int32(p.rng.IntN(p.shape.Vocab)))
		}
		n := int32(len(b.Tokens))
		b.QueryStart = append(b.QueryStart, n)
		b.SeqLens = append(b.SeqLens, int32(s.context+s.query))
		b.LogitRows = append(b.LogitRows, n-1)
		if s.query == 1 && b.NumDecodes == i {
			b.NumDecodes++
		}
	}
	return b
}

// fillKV writes random keys and values for the first lengths[i] tokens of
// sequence i of b, all layers; the other slots stay NaN.
func (p *pair) fillKV(b *kernels.Batch, lengths []int) {
	kv := p.want.KV()
	for i, row := range b.Rows {
		for j, block := range p.tables[row] {
			v := slices.Repeat([]uint16{nanBits}, kv.BlockElems())
			for token := range min(kv.BlockSize, lengths[i]-j*kv.BlockSize) {
				p.fillSlot(v, token)
			}
			p.writeBlock(block, v)
		}
	}
}

func (p *pair) fillSlot(block []uint16, token int) {
	kv := p.want.KV()
	for layer := range kv.Layers {
		for head := range kv.KVHeads {
			for _, value := range []bool{false, true} {
				at := kv.Index(layer, value, head, token)
				for d := range kv.HeadDim {
					block[at+d] = kv.DType.Bits(float32(p.rng.NormFloat64()))
				}
			}
		}
	}
}
