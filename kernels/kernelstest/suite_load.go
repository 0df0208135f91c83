package kernelstest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// load checks that every source type gives the weights of its values, and that
// what does not fit is an error that names the tensor.
func (s *suite) load(t *testing.T) {
	const tokens = 5
	newPair := func(t *testing.T) *pair {
		return s.newPair(t, tiny.shape(), limitsFor(tokens, 3, 60, 16), 20)
	}
	for _, dtype := range []kernels.DType{kernels.BF16, kernels.FP16, kernels.FP32} {
		t.Run(dtype.String(), func(t *testing.T) {
			p := newPair(t)
			embed := p.embedding(tensor("embed", dtype, 1, p.shape.Vocab, p.shape.Hidden), true)
			norm := p.norm(tensor("norm", dtype, 1, p.shape.Hidden))
			down := p.linear(kernels.LinearDown, tensor("down", dtype, 0.1, p.shape.Hidden, p.shape.Intermediate))
			p.random(kernels.MLP, tokens, 1)
			p.step(p.batch(split(tokens)), func(b kernels.Backend, w []kernels.Weight) {
				b.Embed(w[embed])
				b.Linear(w[down], kernels.MLP)
				b.RMSNorm(w[norm])
				b.Head(w[norm], w[embed])
			})
			p.equal(kernels.Hidden, tokens)
			p.equal(kernels.Normed, tokens)
			p.equal(kernels.Logits, 3)
		})
	}
	for _, dtype := range []kernels.DType{kernels.BF16, kernels.FP16, kernels.FP32} {
		t.Run("file_"+dtype.String(), func(t *testing.T) { newPair(t).fromFiles(dtype, tokens) })
	}
	t.Run("short", func(t *testing.T) {
		p := newPair(t)
		bad := tensor("layers.3.bad", kernels.BF16, 1, p.shape.Vocab, p.shape.Hidden)
		bad.Data = bad.Data[:len(bad.Data)-2]
		_, err := p.got.LoadEmbedding(bad, true)
		require.ErrorContains(t, err, bad.Name)
		_, err = p.got.LoadLinear(kernels.LinearSpec{Kind: kernels.LinearHead, Parts: []kernels.HostTensor{bad}})
		require.ErrorContains(t, err, bad.Name)
	})
	t.Run("narrow", func(t *testing.T) {
		p := newPair(t)
		gate, up := fanIn("gate", 100, 64), fanIn("layers.3.up", 100, 60)
		_, err := p.got.LoadLinear(kernels.LinearSpec{Kind: kernels.LinearGateUp, Parts: []kernels.HostTensor{gate, up}})
		require.ErrorContains(t, err, up.Name)
	})
}

// fromFiles holds matrices of each kind that the Backend reads from a file against the
// Oracle's, which are in memory; a file that ends too early is an error.
func (p *pair) fromFiles(dtype kernels.DType, tokens int) {
	if !p.got.Info().ReadsFiles {
		return
	}
	file, err := os.Create(filepath.Join(p.t.TempDir(), "weights"))
	require.NoError(p.t, err)
	defer file.Close()
	at := int64(0)
	stored := func(b kernels.Backend, name string, scale float64, rows, cols int) kernels.HostTensor {
		t := tensor(name, dtype, scale, rows, cols)
		if b == kernels.Backend(p.want) {
			return t
		}
		at += 7 // nothing in a file is aligned
		_, err := file.WriteAt(t.Data, at)
		require.NoError(p.t, err)
		t.File, t.FileAt, at = file, at, at+int64(len(t.Data))
		t.Data = nil
		return t
	}
	s := p.shape
	parts := func(kind kernels.LinearKind, scale float64, cols int, rows ...int) int {
		return p.load(func(b kernels.Backend) (kernels.Weight, error) {
			spec := kernels.LinearSpec{Kind: kind}
			for i, n := range rows {
				spec.Parts = append(spec.Parts, stored(b, fmt.Sprint(kind, i), scale, n, cols))
			}
			return b.LoadLinear(spec)
		})
	}
	var embeds [2]int
	for i := range embeds {
		embeds[i] = p.load(func(b kernels.Backend) (kernels.Weight, error) {
			return b.LoadEmbedding(stored(b, "embed", 1, s.Vocab, s.Hidden), i == 1)
		})
	}
	norm := p.norm(tensor("norm", dtype, 1, s.Hidden))
	qkv := parts(kernels.LinearQKV, 0.1, s.Hidden, s.Heads*s.HeadDim, s.KVHeads*s.HeadDim, s.KVHeads*s.HeadDim)
	gateUp := parts(kernels.LinearGateUp, 0.1, s.Hidden, s.Intermediate, s.Intermediate)
	down := parts(kernels.LinearDown, 0.1, s.Intermediate, s.Hidden)
	p.random(kernels.Normed, tokens, 1)
	p.step(p.batch(split(tokens)), func(b kernels.Backend, w []kernels.Weight) {
		b.Embed(w[embeds[0]])
		b.QKV(0, w[qkv])
		b.GateUp(w[gateUp])
		b.Linear(w[down], kernels.MLP)
		b.Head(w[norm], w[embeds[1]])
	})
	p.equal(kernels.Query, tokens)
	p.equalKV()
	p.equal(kernels.MLP, tokens)
	p.equal(kernels.Hidden, tokens)
	p.equal(kernels.Logits, 3)

	require.NoError(p.t, file.Truncate(at-1))
	last := kernels.HostTensor{Name: "layers.3.cut", DType: dtype, Shape: []int{s.Vocab, s.Hidden}, File: file}
	last.FileAt = at - int64(last.NumElems()*dtype.Size())
	whole := tensor("layers.3.whole", dtype, 1, s.Hidden, s.Hidden)
	for _, load := range []func() (kernels.Weight, error){
		func() (kernels.Weight, error) { return p.got.LoadEmbedding(last, false) },
		func() (kernels.Weight, error) { return p.got.LoadEmbedding(last, true) },
		func() (kernels.Weight, error) {
			return p.got.LoadLinear(kernels.LinearSpec{Kind: kernels.LinearPlain, Parts: []kernels.HostTensor{whole, last}})
		},
	} {
		_, err = load()
		var unreadable *kernels.UnreadableError
		require.ErrorAs(p.t, err, &unreadable)
		require.Equal(p.t, last.Name, unreadable.Tensor.Name)
	}
}
