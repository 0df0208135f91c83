package kernelstest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// invariance checks Limits.BatchInvariant: bit-equal results whatever the
// batch, the chunking and the place of a row. The Oracle takes no part.
func (s *suite) invariance(t *testing.T) {
	for _, g := range []geometry{tiny, smol, qwen15} {
		t.Run("chunks/"+g.String(), func(t *testing.T) { s.chunkInvariance(t, g) })
	}
	for _, g := range []geometry{smol, qwen05, qwen7} {
		t.Run("batch/"+g.String(), func(t *testing.T) { s.batchInvariance(t, g) })
	}
	for _, g := range []geometry{tiny, smol, qwen05, qwen15} {
		t.Run("long/"+g.String(), func(t *testing.T) { s.splitInvariance(t, g) })
	}
}

// gotStep runs a step on the Backend alone.
func (p *pair) gotStep(batch *kernels.Batch, forward func(b kernels.Backend, w []kernels.Weight)) {
	p.got.Launch(batch, func() { forward(p.got, p.loaded[0]) })
	_, err := p.got.Wait(p.got.Sample(&kernels.SampleBatch{}))
	require.NoError(p.t, err)
}

// invariant is limits with the promise asked for and logits of every token.
func invariant(l kernels.Limits) kernels.Limits {
	l.BatchInvariant, l.MaxLogitRows = true, l.MaxBatchedTokens
	return l
}

// chunkInvariance computes one prompt whole, in chunks, and at last token by token,
// with and without neighbours: each token's logits are bit-equal.
func (s *suite) chunkInvariance(t *testing.T, g geometry) {
	const length = 75
	p := s.newPair(t, g.shape(), invariant(limitsFor(200, 4, 100, 16)), 40)
	m := p.loadMini("", true)
	prompt := make([]int32, length)
	for i := range prompt {
		prompt[i] = int32(p.rng.IntN(p.shape.Vocab))
	}
	ones := append([]int{length - 20}, slices.Repeat([]int{1}, 20)...)
	var want []float32
	for i, chunks := range [][]int{{length}, {13, 1, 40, 21}, {16, 16, 16, 16, 11}, {64, 11}, ones} {
		for _, neighbours := range [][]span{nil, {{3, 1}, {30, 1}, {0, 20}}} {
			var got []float32
			for at, rest := 0, chunks; len(rest) > 0; at, rest = at+rest[0], rest[1:] {
				got = append(got, p.chunkLogits(m, prompt[at:at+rest[0]], at, neighbours)...)
			}
			if want == nil {
				want = got
			}
			require.True(t, slices.Equal(want, got), "chunking %d with %d neighbours", i, len(neighbours))
		}
	}
}

// chunkLogits computes a chunk of a sequence, whose blocks stay those of row 0,
// behind the neighbours, and returns the logits of its tokens.
func (p *pair) chunkLogits(m miniModel, chunk []int32, at int, neighbours []span) []float32 {
	const row, blocks = 0, 6
	if at == 0 {
		p.tables[row] = p.tables[row][:0]
		for _, b := range p.rng.Perm(blocks) {
			p.tables[row] = append(p.tables[row], int32(b)+1)
		}
		p.got.UpdateRows([]kernels.RowUpdate{{Row: row, Reset: true, Sampling: kernels.Sampling{Logprobs: -1}, Blocks: p.tables[row]}})
	}
	var rows []int32
	for i, n := range neighbours {
		u := kernels.RowUpdate{Row: int32(i) + 1, Reset: true, Sampling: kernels.Sampling{Logprobs: -1}}
		for j := range (n.context+n.query)/16 + 1 {
			u.Blocks = append(u.Blocks, int32(1+blocks+5*i+j))
		}
		p.got.UpdateRows([]kernels.RowUpdate{u})
		rows = append(rows, u.Row)
	}
	b := p.ragged(append(rows, row), append(slices.Clone(neighbours), span{at, len(chunk)}))
	first := len(b.Tokens) - len(chunk)
	copy(b.Tokens[first:], chunk)
	b.LogitRows = b.LogitRows[:0]
	for i := range b.Tokens {
		b.LogitRows = append(b.LogitRows, int32(i))
	}
	p.gotStep(b, m.forward)
	return p.got.ReadActivation(kernels.Logits, len(b.Tokens))[first*p.shape.Vocab:]
}

// batchInvariance computes the projections of 40 rows at once and of some of
// them in smaller batches.
func (s *suite) batchInvariance(t *testing.T, g geometry) {
	const total = 40
	p := s.newPair(t, g.shape(), invariant(limitsFor(total, 3, total+20, 16)), 24)
	w := projectionWeights{
		norm:   p.norm(normWeight("norm", g.hidden)),
		gateUp: p.linear(kernels.LinearGateUp, fanIn("gate", g.intermediate, g.hidden), fanIn("up", g.intermediate, g.hidden)),
		down:   p.linear(kernels.LinearDown, fanIn("down", g.hidden, g.intermediate)),
		head:   p.linear(kernels.LinearHead, fanIn("head", g.vocab, g.hidden)),
	}
	hidden := p.random(kernels.Hidden, total, 1)
	all := p.projections(w, hidden, total)
	width := p.shape.Hidden
	for _, n := range []int{1, 2, 7, 12, 13, 16, 33} {
		first := p.rng.IntN(total - n)
		part := p.projections(w, hidden[first*width:(first+n)*width], n)
		for a, values := range all {
			w := p.shape.Width(a)
			require.True(t, slices.Equal(values[first*w:(first+n)*w], part[a]), "activation %d, %d rows", a, n)
		}
	}
}

// projectionWeights are load indices.
type projectionWeights struct{ norm, gateUp, down, head int }

// projections runs one step of the row-wise operations over hidden.
func (p *pair) projections(m projectionWeights, hidden []float32, n int) map[kernels.Activation][]float32 {
	b := p.batch([]span{{0, n}})
	b.LogitRows = b.LogitRows[:0]
	for i := range n {
		b.LogitRows = append(b.LogitRows, int32(i))
	}
	p.got.WriteActivation(kernels.Hidden, hidden)
	p.gotStep(b, func(b kernels.Backend, w []kernels.Weight) {
		b.RMSNorm(w[m.norm])
		b.GateUp(w[m.gateUp])
		b.Linear(w[m.down], kernels.MLP)
		b.Head(w[m.norm], w[m.head])
	})
	out := map[kernels.Activation][]float32{}
	for _, a := range []kernels.Activation{kernels.Normed, kernels.MLP, kernels.Hidden, kernels.Logits} {
		out[a] = p.got.ReadActivation(a, n)
	}
	return out
}

// splitInvariance computes the last tokens of a long sequence as one chunk, as
// decodes alone, and as decodes among many, where a Backend may split the KV.
func (s *suite) splitInvariance(t *testing.T, g geometry) {
	const length, last = 1290, 12
	p := s.newPair(t, g.shape(), invariant(limitsFor(64, 33, length, 32)), 120)
	whole := p.batch([]span{{length - last, last}})
	p.fillKV(whole, []int{length})
	row := whole.Rows[0]
	query := p.random(kernels.Query, last, 1)
	attend := func(b *kernels.Batch, query []float32) []float32 {
		p.got.WriteActivation(kernels.Query, query)
		p.gotStep(b, func(b kernels.Backend, _ []kernels.Weight) { b.PagedAttention(1) })
		return p.got.ReadActivation(kernels.Attn, b.NumTokens())
	}
	want := attend(whole, query)
	width := p.shape.Width(kernels.Query)
	for i := range last {
		q, w := query[i*width:(i+1)*width], want[i*width:(i+1)*width]
		context := length - last + i
		alone := attend(p.ragged([]int32{row}, []span{{context, 1}}), q)
		require.True(t, slices.Equal(w, alone), "token %d alone", i)

		n := 1 + p.rng.IntN(32) // the row itself serves as its neighbours
		rows, spans := slices.Repeat([]int32{row}, n), decodes(n, 700)
		spans[n-1].context = context
		queries := append(slices.Repeat(q, n-1), q...)
		among := attend(p.ragged(rows, spans), queries)
		require.True(t, slices.Equal(w, among[(n-1)*width:]), fmt.Sprintf("token %d among %d", i, n))
	}
}
