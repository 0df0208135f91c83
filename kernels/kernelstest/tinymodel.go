package kernelstest

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// TinyShape is a shape with an odd vocabulary and widths that backends pad.
func TinyShape(headDim int) kernels.Shape {
	s := kernels.Shape{
		Layers: 2, Hidden: 72, Intermediate: 100, Heads: 6, KVHeads: 2, HeadDim: headDim, Vocab: 333, RMSEps: 1e-6, RopeScale: 1,
	}
	for i := range s.HeadDim / 2 {
		s.InvFreq = append(s.InvFreq, float32(math.Pow(100, -2*float64(i)/float64(headDim))))
	}
	return s
}

// Tiny is a model of random weights, the same in every layer, for tests of a Backend
// that are its own.
type Tiny struct {
	Embedding, Head, Norm  kernels.Weight
	QKV, Out, GateUp, Down kernels.Weight
}

// LoadTiny loads a Tiny of the shape that the Backend was set up with.
func LoadTiny(t testing.TB, b kernels.Backend, s kernels.Shape) Tiny {
	seed := uint64(0)
	tensor := func(shape ...int) kernels.HostTensor {
		seed++
		return kernels.HostTensor{Name: "w", Shape: shape, Seed: seed, Scale: .3}
	}
	keep := func(w kernels.Weight, err error) kernels.Weight {
		require.NoError(t, err)
		return w
	}
	linear := func(kind kernels.LinearKind, parts ...kernels.HostTensor) kernels.Weight {
		return keep(b.LoadLinear(kernels.LinearSpec{Kind: kind, Parts: parts}))
	}
	q, kv := s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	return Tiny{
		Embedding: keep(b.LoadEmbedding(tensor(s.Vocab, s.Hidden), false)),
		Head:      linear(kernels.LinearHead, tensor(s.Vocab, s.Hidden)),
		Norm:      keep(b.LoadNorm(tensor(s.Hidden))),
		QKV:       linear(kernels.LinearQKV, tensor(q, s.Hidden), tensor(kv, s.Hidden), tensor(kv, s.Hidden)),
		Out:       linear(kernels.LinearPlain, tensor(s.Hidden, q)),
		GateUp:    linear(kernels.LinearGateUp, tensor(s.Intermediate, s.Hidden), tensor(s.Intermediate, s.Hidden)),
		Down:      linear(kernels.LinearDown, tensor(s.Hidden, s.Intermediate)),
	}
}

// Forward is the forward pass over so many layers, for Launch.
func (m *Tiny) Forward(b kernels.Backend, layers int) {
	b.Embed(m.Embedding)
	for layer := range layers {
		b.RMSNorm(m.Norm)
		b.QKV(layer, m.QKV)
		if layer == layers-1 {
			b.KeepLogitRows()
		}
		b.PagedAttention(layer)
		b.Linear(m.Out, kernels.Attn)
		b.RMSNorm(m.Norm)
		b.GateUp(m.GateUp)
		b.Linear(m.Down, kernels.MLP)
	}
	b.Head(m.Norm, m.Head)
}
