package model

import "github.com/pagoda-engine/pagoda/kernels"

// Model is a model whose weights are on a device. Like its Backend it belongs
// to one goroutine.
type Model struct {
	Config *Config
	// Notes are remarks about the files, for the user: what was ignored or
	// rounded. Each names its file.
	Notes []string

	backend   kernels.Backend
	embedding kernels.Weight
	layers    [][numLayerWeights]kernels.Weight
	norm      kernels.Weight
	head      kernels.Weight   // = embedding when tied
	weights   []kernels.Weight // all of them
	pass      func()           // forward, bound once: a method value allocates
}

// WeightBytes is the device memory that the weights take (kernels.Weight.Bytes).
func (m *Model) WeightBytes() (n int64) {
	for _, w := range m.weights {
		n += w.Bytes()
	}
	return n
}

// Forward launches the forward pass of b: its logits are in kernels.Logits
// when Sample runs.
func (m *Model) Forward(b *kernels.Batch) { m.backend.Launch(b, m.pass) }

// forward is the decoder of Llama, Qwen2 and Qwen3 (Yang et al., "Qwen2 Technical
// Report", 2024): pre-norm layers of grouped-query attention with RoPE and a SwiGLU MLP,
// each added to the residual stream.
func (m *Model) forward() {
	be := m.backend
	be.Embed(m.embedding)
	for i := range m.layers {
		w := &m.layers[i]
		be.RMSNorm(w[attnNorm])
		be.QKV(i, w[attnQKV])
		if i == len(m.layers)-1 {
			be.KeepLogitRows()
		}
		be.PagedAttention(i)
		be.Linear(w[attnOut], kernels.Attn)
		be.RMSNorm(w[mlpNorm])
		be.GateUp(w[mlpGateUp])
		be.Linear(w[mlpDown], kernels.MLP)
	}
	be.Head(m.norm, m.head)
}
