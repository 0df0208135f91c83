package kernelstest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// forward generates with a model of two layers, prefill chunks and decodes
// mixed, two steps in flight: the tokens must be the Oracle's.
func (s *suite) forward(t *testing.T) {
	for _, g := range []geometry{tiny, smol, qwen15} {
		s.oneOfMany(t, fmt.Sprintf("%s/kept", g), func(t *testing.T) { s.kept(t, g, limitsFor(330, 160, 150, 16)) })
		s.oneOfMany(t, fmt.Sprintf("%s/kept/invariant", g), func(t *testing.T) { s.kept(t, g, invariant(limitsFor(330, 160, 150, 16))) })
		s.oneOfMany(t, fmt.Sprintf("%s/kept/long", g), func(t *testing.T) { s.keptLong(t, g) })
	}
	if s.tol.LossyWeights {
		t.Skip("coarse weights choose other tokens than the Oracle")
	}
	for _, g := range []geometry{tiny, smol, qwen15} {
		for _, blockSize := range []int{16, 64} {
			for _, tied := range []bool{false, true} {
				s.oneOfMany(t, fmt.Sprintf("%s/b%d/tied_%v", g, blockSize, tied), func(t *testing.T) {
					s.generate(t, g, blockSize, tied)
				})
			}
		}
	}
}

// generationSteps: a short prompt in one chunk, one that is chunked, one that
// joins late; then decodes alone, two of them across a block's end.
func generationSteps() []miniStep {
	steps := []miniStep{{12, 10, 0}, {1, 7, 20}, {1, 1, 10}}
	for range 6 {
		steps = append(steps, miniStep{1, 1, 1})
	}
	return steps
}

func (s *suite) generate(t *testing.T, g geometry, blockSize int, tied bool) {
	p := s.newPair(t, g.shape(), limitsFor(40, 3, 64, blockSize), 16)
	m := p.loadMini("", tied)
	for range 100 {
		sequences := p.miniSequences([]int{12, 17, 30})
		p.want.margin = math.Inf(1)
		p.startMini(p.want, sequences)
		require.NoError(t, m.generate(p.want, p.loaded[1], sequences, generationSteps()))
		if p.want.Margin() < p.tol.Margin {
			continue // these prompts lead to a choice that rounding may turn
		}
		again := make([]*miniSequence, len(sequences))
		for i, q := range sequences {
			again[i] = &miniSequence{prompt: q.prompt, sampling: q.sampling}
		}
		p.startMini(p.got, again)
		require.NoError(t, m.generate(p.got, p.loaded[0], again, generationSteps()))
		for i := range sequences {
			require.Equal(t, sequences[i].tokens, again[i].tokens, "sequence %d", i)
		}
		return
	}
	t.Fatal("no prompts found whose tokens are beyond rounding")
}

// keptSpans are 330 tokens, of which keptRows have logits: some anywhere, several of a sequence and of
// others none; all of the first and some behind; one alone; more than there are rows, so that all go on.
var keptSpans = []span{{50, 1}, {90, 1}, {0, 140}, {30, 41}, {100, 5}, {0, 2}, {0, 140}}

func keptRows(limits kernels.Limits) [][]int32 {
	front := func(n, step int) []int32 {
		var rows []int32
		for t := int32(0); t < 330; t++ {
			if int(t) < n || step > 0 && (int(t)-329)%step == 0 {
				rows = append(rows, t)
			}
		}
		return rows
	}
	return [][]int32{{0, 2, 30, 31, 71, 112, 113, 329}, front(8, 330), front(0, 19), front(140, 19), {329}, front(limits.MaxSeqs+1, 0)}
}

// kept computes a step whose logits few tokens have, so that KeepLogitRows is worth it: keptRows, and
// the last token of each sequence, as an engine wants them. Then a decode of each, which reads the KV
// of tokens that had no logits. Where results may not depend on the batch, neither do they on which
// tokens have logits, bit for bit.
func (s *suite) kept(t *testing.T, g geometry, limits kernels.Limits) {
	p := s.newPair(t, g.shape(), limits, 60)
	m := p.loadMini("", false)
	batch := p.batch(keptSpans)
	last := batch.LogitRows
	p.fillKV(batch, []int{50, 90, 0, 30, 100, 0, 0})
	p.keeps(m, batch, append(keptRows(limits), last))
	p.step(p.ragged(batch.Rows, []span{{51, 1}, {91, 1}, {140, 1}, {71, 1}, {105, 1}, {2, 1}, {140, 1}}), m.forward)
	p.near(p.got.ReadActivation(kernels.Logits, len(last)), p.want.ReadActivation(kernels.Logits, len(last)))
}

// keptLong is a chunk of a prompt behind so many tokens that a kernel may split their keys.
func (s *suite) keptLong(t *testing.T, g geometry) {
	p := s.newPair(t, g.shape(), invariant(limitsFor(103, 2, 1200, 16)), 90)
	batch := p.batch([]span{{1100, 100}, {5, 3}})
	p.fillKV(batch, []int{1100, 5})
	p.keeps(p.loadMini("", false), batch, [][]int32{batch.LogitRows, {99}})
}

// near compares logits, unless weights are so coarse that they are others.
func (p *pair) near(got, want []float32) {
	p.t.Helper()
	if !p.tol.LossyWeights {
		require.NoError(p.t, p.tol.chained(4).compare(got, want, p.shape.Vocab))
	}
}

// keeps computes the batch with logits of all tokens, and of some: those are the Oracle's, and, where
// results may not depend on the batch, the same bits.
func (p *pair) keeps(m miniModel, batch *kernels.Batch, rows [][]int32) {
	t, width, every := p.t, p.shape.Vocab, make([]int32, len(batch.Tokens))
	for i := range every {
		every[i] = int32(i)
	}
	batch.LogitRows = every
	p.step(batch, m.forward)
	got, want := p.got.ReadActivation(kernels.Logits, len(every)), p.want.ReadActivation(kernels.Logits, len(every))
	p.near(got, want)
	for _, batch.LogitRows = range rows {
		p.poison(kernels.Logits)
		p.gotStep(batch, m.forward)
		few := p.got.ReadActivation(kernels.Logits, len(batch.LogitRows))
		var same, right []float32
		for _, token := range batch.LogitRows {
			same = append(same, got[int(token)*width:(int(token)+1)*width]...)
			right = append(right, want[int(token)*width:(int(token)+1)*width]...)
		}
		p.near(few, right)
		require.True(t, !p.limits.BatchInvariant || slices.Equal(same, few), "other bits with logits of %d tokens", len(batch.LogitRows))
	}
}

// miniSequences makes random prompts, greedy and sampled.
func (p *pair) miniSequences(prompts []int) []*miniSequence {
	var out []*miniSequence
	for i, n := range prompts {
		q := &miniSequence{sampling: kernels.Sampling{Logprobs: -1, PromptLen: int32(n)}}
		for range n {
			q.prompt = append(q.prompt, int32(p.rng.IntN(p.shape.Vocab)))
		}
		switch i % 3 {
		case 1:
			q.sampling.Temperature, q.sampling.TopK, q.sampling.Seed = 0.8, 10, p.rng.Uint64()
		case 2:
			q.sampling.FrequencyPenalty, q.sampling.RepetitionPenalty = 0.3, 1.2
		}
		out = append(out, q)
	}
	return out
}

// startMini gives each sequence its row and disjoint blocks from 1 on.
func (p *pair) startMini(b kernels.Backend, sequences []*miniSequence) {
	each := (p.blocks - 1) / len(sequences)
	var updates []kernels.RowUpdate
	for i, q := range sequences {
		u := kernels.RowUpdate{Row: int32(i), Reset: true, Sampling: q.sampling, Prompt: q.prompt}
		for j := range min(each, p.limits.MaxModelLen/p.limits.BlockSize) {
			u.Blocks = append(u.Blocks, int32(1+i+j*len(sequences)))
		}
		updates = append(updates, u)
	}
	b.UpdateRows(updates)
}

// hooks checks taps, profiles and what a Backend says of itself.
func (s *suite) hooks(t *testing.T) {
	t.Run("tap", s.tapped)
	t.Run("profile", s.profiled)
	t.Run("info", func(t *testing.T) {
		b := s.newBackend(t)
		info := b.Info()
		require.NotEmpty(t, info.Backend)
		require.NotEmpty(t, info.Path)
		small, large := limitsFor(16, 4, 64, 16), limitsFor(1<<15, 1<<10, 128, 16)
		require.Positive(t, b.WorkspaceBytes(tiny.shape(), small))
		require.Greater(t, b.WorkspaceBytes(tiny.shape(), large), b.WorkspaceBytes(tiny.shape(), small))
		require.NoError(t, b.Close())
	})
}

// tapEntry is one call of a tap.
type tapEntry struct {
	op     kernels.Op
	layer  int
	out    kernels.Activation
	values []float32
}

// tapped compares the taps of a step with the Oracle's: the same operations,
// and each output near (rounding of KV adds up over the layers).
func (s *suite) tapped(t *testing.T) {
	p := s.newPair(t, smol.shape(), limitsFor(13, 3, 60, 16), 20)
	m := p.loadMini("", false)
	taps := map[kernels.Backend][]tapEntry{}
	p.each(func(b kernels.Backend, _ []kernels.Weight) {
		b.SetTap(func(op kernels.Op, layer int, out kernels.Activation, values []float32) {
			taps[b] = append(taps[b], tapEntry{op, layer, out, append([]float32(nil), values...)})
		})
	})
	batch := p.batch([]span{{0, 1}, {0, 12}})
	p.step(batch, m.forward)
	got, want := taps[p.got], taps[p.want]
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, want[i].op, got[i].op)
		require.Equal(t, want[i].out, got[i].out)
		if want[i].op == kernels.OpQKV || want[i].op == kernels.OpAttention {
			require.Equal(t, want[i].layer, got[i].layer)
		}
		require.NoError(t, s.tol.chained(4).compare(got[i].values, want[i].values, p.shape.Width(want[i].out)), want[i].op)
	}
	p.each(func(b kernels.Backend, _ []kernels.Weight) { b.SetTap(nil) })
	p.step(p.batch([]span{{0, 1}, {0, 12}}), m.forward)
	require.Len(t, taps[p.got], len(want), "a tap was called after it was removed")
}

// profiled expects a record of each operation, in order.
func (s *suite) profiled(t *testing.T) {
	p := s.newPair(t, tiny.shape(), limitsFor(13, 3, 60, 16), 20)
	m := p.loadMini("", true)
	var records []kernels.OpRecord
	p.got.SetProfiler(func(r kernels.OpRecord) { records = append(records, r) })
	p.step(p.batch([]span{{0, 1}, {0, 12}}), m.forward)
	if len(records) == 0 { // it tells at the end
		p.got.SetProfiler(nil)
	}
	var ops []kernels.Op
	var parts []string
	for i, r := range records {
		if r.Op == kernels.OpLinear {
			parts = append(parts, r.Part)
			require.Positive(t, r.Bytes)
			require.Positive(t, r.FLOPs)
		}
		require.GreaterOrEqual(t, r.Start.Nanoseconds(), int64(0))
		require.GreaterOrEqual(t, r.Duration.Nanoseconds(), int64(0))
		if i > 0 {
			require.GreaterOrEqual(t, r.Start, records[i-1].Start)
		}
		if r.Op != kernels.OpSample && r.Op != kernels.OpPrepare {
			ops = append(ops, r.Op)
		}
	}
	layer := []kernels.Op{kernels.OpRMSNorm, kernels.OpQKV, kernels.OpAttention, kernels.OpLinear,
		kernels.OpRMSNorm, kernels.OpGateUp, kernels.OpLinear}
	want := append([]kernels.Op{kernels.OpEmbed}, layer...)
	want = append(append(want, layer...), kernels.OpHead)
	require.Equal(t, want, ops)
	require.Equal(t, []string{"attn", "mlp", "attn", "mlp"}, parts)
	p.got.SetProfiler(nil)
	p.step(p.batch([]span{{0, 1}, {0, 12}}), m.forward)
	require.Equal(t, kernels.OpHead, ops[len(ops)-1])
}
