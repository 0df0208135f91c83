//go:build cuda

package cuda

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// trueShape is a published size of Qwen2.5.
type trueShape struct {
	name  string
	shape kernels.Shape
	tied  bool
}

var trueShapes = []trueShape{
	{"0.5b", kernels.Shape{Layers: 24, Hidden: 896, Intermediate: 4864, Heads: 14, KVHeads: 2, HeadDim: 64, Vocab: 151936}, true},
	{"1.5b", kernels.Shape{Layers: 28, Hidden: 1536, Intermediate: 8960, Heads: 12, KVHeads: 2, HeadDim: 128, Vocab: 151936}, true},
	{"7b", kernels.Shape{Layers: 28, Hidden: 3584, Intermediate: 18944, Heads: 28, KVHeads: 4, HeadDim: 128, Vocab: 152064}, false},
}

// full completes the shape.
func (s trueShape) full() kernels.Shape {
	shape := s.shape
	shape.RMSEps, shape.RopeScale = 1e-6, 1
	for i := range shape.HeadDim / 2 {
		shape.InvFreq = append(shape.InvFreq, float32(math.Pow(1e6, -2*float64(i)/float64(shape.HeadDim))))
	}
	return shape
}

// trueModel is a model with random weights on some Backend, set up before.
type trueModel struct {
	kernels.Backend
	shape           kernels.Shape
	embedding, head kernels.Weight
	final           kernels.Weight      // norm before the head
	norms           [][2]kernels.Weight // of a layer, before qkv and gate_up
	layers          [][4]kernels.Weight
	pass            func() // forward, bound once, as package model does
}

func loadTrue(t testing.TB, b kernels.Backend, s kernels.Shape, tied bool) *trueModel {
	m := &trueModel{Backend: b, shape: s}
	seed := uint64(0)
	tensor := func(scale float64, shape ...int) kernels.HostTensor {
		seed++
		return kernels.HostTensor{Name: "w", Shape: shape, Seed: seed, Scale: float32(scale)}
	}
	fanIn := func(rows, cols int) kernels.HostTensor { return tensor(math.Sqrt(3/float64(cols)), rows, cols) }
	keep := func(w kernels.Weight, err error) kernels.Weight {
		require.NoError(t, err)
		return w
	}
	linear := func(kind kernels.LinearKind, parts ...kernels.HostTensor) kernels.Weight {
		return keep(b.LoadLinear(kernels.LinearSpec{Kind: kind, Parts: parts}))
	}
	m.embedding = keep(b.LoadEmbedding(fanIn(s.Vocab, s.Hidden), tied))
	if m.head = m.embedding; !tied {
		m.head = linear(kernels.LinearHead, fanIn(s.Vocab, s.Hidden))
	}
	norm := func(offset float32) kernels.Weight {
		t := tensor(.1, s.Hidden)
		t.Offset = offset
		return keep(b.LoadNorm(t))
	}
	m.final = norm(2) // logits with a deviation of about two
	q, kv := s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	for range s.Layers {
		m.norms = append(m.norms, [2]kernels.Weight{norm(1), norm(1)})
		m.layers = append(m.layers, [4]kernels.Weight{
			keep(b.LoadLinear(kernels.LinearSpec{
				Kind:  kernels.LinearQKV,
				Parts: []kernels.HostTensor{fanIn(q, s.Hidden), fanIn(kv, s.Hidden), fanIn(kv, s.Hidden)},
				Bias:  []kernels.HostTensor{tensor(.5, q), tensor(.5, kv), tensor(.5, kv)},
			})),
			linear(kernels.LinearPlain, fanIn(s.Hidden, q)),
			linear(kernels.LinearGateUp, fanIn(s.Intermediate, s.Hidden), fanIn(s.Intermediate, s.Hidden)),
			linear(kernels.LinearDown, fanIn(s.Hidden, s.Intermediate)),
		})
	}
	m.pass = m.forward
	return m
}

func (m *trueModel) forward() {
	m.Embed(m.embedding)
	for i, w := range m.layers {
		m.RMSNorm(m.norms[i][0])
		m.QKV(i, w[0])
		if i == len(m.layers)-1 {
			m.KeepLogitRows()
		}
		m.PagedAttention(i)
		m.Linear(w[1], kernels.Attn)
		m.RMSNorm(m.norms[i][1])
		m.GateUp(w[2])
		m.Linear(w[3], kernels.MLP)
	}
	m.Head(m.final, m.head)
}

// resetRows gives each row per blocks, which lie apart.
func (m *trueModel) resetRows(rows, per int) {
	m.resetRowsTo(rows, per, kernels.Sampling{Logprobs: -1})
}

// resetRowsTo is resetRows for rows that are sampled so, each with a seed of its own.
func (m *trueModel) resetRowsTo(rows, per int, sampling kernels.Sampling) {
	for row := range rows {
		sampling.Seed = uint64(row)
		u := kernels.RowUpdate{Row: int32(row), Reset: true, Sampling: sampling}
		for i := range per {
			u.Blocks = append(u.Blocks, int32(1+i*rows+row))
		}
		m.UpdateRows([]kernels.RowUpdate{u})
	}
}

// spans makes the Batch of n sequences with query tokens each after the context.
func (m *trueModel) spans(n, context, query int) (*kernels.Batch, *kernels.SampleBatch) {
	batch, sample := &kernels.Batch{QueryStart: []int32{0}}, &kernels.SampleBatch{}
	for row := range n {
		for i := range query {
			batch.Tokens = append(batch.Tokens, int32((row*7919+(context+i)*104729)%m.shape.Vocab))
		}
		batch.Rows = append(batch.Rows, int32(row))
		end := int32(len(batch.Tokens))
		batch.QueryStart = append(batch.QueryStart, end)
		batch.SeqLens = append(batch.SeqLens, int32(context+query))
		batch.LogitRows = append(batch.LogitRows, end-1)
		sample.Index = append(sample.Index, int32(row))
		sample.Rows = append(sample.Rows, int32(row))
		sample.Positions = append(sample.Positions, int32(context+query))
	}
	if query == 1 {
		batch.NumDecodes = n
	}
	return batch, sample
}
