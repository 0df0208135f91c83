package kernelstest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// attentionCase is a geometry, a block size and a ragged batch.
type attentionCase struct {
	name string
	geometry
	blockSize int
	spans     []span
}

// attentionCases covers head layouts × block sizes with lengths around a
// block's end, then the mixes of prefill chunks and decodes, then long contexts, some
// with few query tokens, whose keys a Backend may split.
func attentionCases() []attentionCase {
	var cases []attentionCase
	for _, g := range []geometry{tiny, smol, qwen05, qwen15, qwen7, wideHead, oddHead, noGroup} {
		for _, bs := range []int{16, 32, 64} {
			cases = append(cases, attentionCase{"edges", g, bs, []span{
				{0, 1}, {bs - 2, 1}, {bs - 1, 1}, {bs, 1}, {2*bs + 3, 1}, // lengths 1, bs−1, bs, bs+1
				{0, bs - 1}, {0, bs + 1}, {bs, 3}, {bs - 1, 2},
			}})
		}
	}
	for _, g := range []geometry{tiny, smol, qwen15} {
		cases = append(cases,
			attentionCase{"one_prefill", g, 16, []span{{0, 100}}},
			attentionCase{"chunk", g, 16, []span{{37, 64}}},
			attentionCase{"one_token_chunks", g, 32, []span{{9, 2}, {40, 1}, {0, 1}, {3, 5}}},
			attentionCase{"mixed", g, 16, []span{{70, 1}, {5, 1}, {200, 1}, {0, 33}, {48, 16}, {1, 12}}},
			attentionCase{"many_decodes", g, 16, decodes(33, 45)})
	}
	for _, g := range []geometry{tiny, smol, qwen05, qwen15} {
		cases = append(cases,
			attentionCase{"long_decode", g, 16, []span{{2600, 1}}},
			// One token less than, as many as and one more than a CUDA kernel takes at a time: 32, 160, 192; and twice the last two.
			attentionCase{"round_decodes", g, 16, []span{{30, 1}, {31, 1}, {32, 1}, {158, 1}, {159, 1}, {160, 1}, {190, 1}, {191, 1}, {192, 1}, {319, 1}, {383, 1}}},
			attentionCase{"long_mixed", g, 64, []span{{1023, 1}, {1024, 1}, {511, 3}, {1400, 12}}})
	}
	cases = append(cases, // units enough that a kernel has shares in which some end and others are cut, or several whole ones
		attentionCase{"ragged_decodes", smol, 16, ragged(110)},
		attentionCase{"ragged_decodes", qwen15, 32, ragged(110)},
		attentionCase{"whole_decodes", qwen15, 16, decodes(256, 45)})
	cases = append(cases,
		attentionCase{"cached", smol, 16, []span{{1500, 16}}},
		attentionCase{"cached_uneven", qwen05, 32, []span{{300, 1}, {1290, 9}, {703, 2}, {0, 5}, {130, 40}}},
		attentionCase{"cached", qwen7, 64, []span{{40, 1}, {630, 16}}})
	return append(cases,
		attentionCase{"long_prefill", tiny, 32, []span{{0, 700}}},
		// Chunks enough for kernels that want some for every multiprocessor.
		attentionCase{"many_chunks", qwen05, 16, chunks(34)},
		attentionCase{"many_chunks", qwen7, 64, chunks(17)})
}

// chunks is n chunks of prompts, one of them long, with up to 250 tokens before them.
func chunks(n int) []span {
	spans := []span{{70, 60}}
	for i := range n - 1 {
		spans = append(spans, span{i * 61 % 250, 2 + i%7})
	}
	return spans
}

// ragged is n decodes behind up to 700 tokens.
func ragged(n int) []span {
	var spans []span
	for i := range n {
		spans = append(spans, span{i * 211 % 700, 1})
	}
	return spans
}

// pairFor makes the pair of a batch's case, with a few blocks to spare.
func (s *suite) pairFor(t *testing.T, shape kernels.Shape, blockSize int, spans []span) *pair {
	tokens, longest, blocks := 0, 0, 4
	for _, q := range spans {
		tokens, longest = tokens+q.query, max(longest, q.context+q.query)
		blocks += (q.context + q.query + blockSize - 1) / blockSize
	}
	return s.newPair(t, shape, limitsFor(tokens, len(spans), longest, blockSize), blocks)
}

// totals is the length of each span's sequence.
func totals(spans []span) []int {
	n := make([]int, len(spans))
	for i, q := range spans {
		n[i] = q.context + q.query
	}
	return n
}

func (s *suite) attention(t *testing.T) {
	for i, c := range attentionCases() {
		s.oneOfMany(t, fmt.Sprintf("%s/b%d/%s", c.geometry, c.blockSize, c.name), func(t *testing.T) {
			p := s.pairFor(t, c.shape(), c.blockSize, c.spans)
			batch := p.batch(c.spans)
			n := batch.NumTokens()
			p.fillKV(batch, totals(c.spans))
			p.random(kernels.Query, n, 1+2*float64(i%2)) // flat and peaked softmax
			p.poison(kernels.Attn)
			p.step(batch, func(b kernels.Backend, _ []kernels.Weight) { b.PagedAttention(i % 2) })
			p.equal(kernels.Attn, n)
		})
	}
	for name, c := range map[string]attentionCase{ // exp overflows without the maximum
		"large_scores":        {geometry: tiny, spans: []span{{60, 1}, {0, 40}}},
		"large_scores_cached": {geometry: smol, spans: []span{{600, 16}}},
	} {
		t.Run(name, func(t *testing.T) {
			p := s.pairFor(t, c.shape(), 16, c.spans)
			batch := p.batch(c.spans)
			n := batch.NumTokens()
			p.fillKV(batch, totals(c.spans))
			p.random(kernels.Query, n, 300)
			p.poison(kernels.Attn)
			p.step(batch, func(b kernels.Backend, _ []kernels.Weight) { b.PagedAttention(0) })
			require.NoError(t, p.tol.loosened(30).compare(p.got.ReadActivation(kernels.Attn, n),
				p.want.ReadActivation(kernels.Attn, n), p.shape.Width(kernels.Attn)))
		})
	}
	t.Run("shared_blocks", s.sharedBlocks)
}

// loosened multiplies the tolerance, for inputs that magnify rounding.
func (tol Tolerance) loosened(by float64) Tolerance {
	tol.Rel, tol.Abs, tol.Diff = tol.Rel*by, tol.Abs*by, tol.Diff*by*by
	return tol
}

// chained is for what several operations in a row make, KV rounded in between.
func (tol Tolerance) chained(by float64) Tolerance {
	if tol.LossyWeights {
		return tol.loosened(by)
	}
	return bfloat16().loosened(by)
}

// sharedBlocks lets two rows share their first blocks, as prefix hits do.
func (s *suite) sharedBlocks(t *testing.T) {
	p := s.newPair(t, smol.shape(), limitsFor(3, 4, 100, 16), 12)
	first := p.batch([]span{{40, 1}})
	p.fillKV(first, []int{48})
	shared, other := p.tables[first.Rows[0]], (first.Rows[0]+1)%4
	table := append([]int32(nil), shared[:2]...)
	table = append(table, shared[2]%11+1)
	p.tables[other] = table
	nan := make([]uint16, p.want.KV().BlockElems())
	p.writeBlock(table[2], nan)
	p.each(func(b kernels.Backend, _ []kernels.Weight) {
		b.UpdateRows([]kernels.RowUpdate{{Row: other, Reset: true, Sampling: kernels.Sampling{Logprobs: -1}, Blocks: table}})
	})
	p.random(kernels.Query, 3, 1)
	p.poison(kernels.Attn)
	batch := p.ragged([]int32{first.Rows[0], other}, []span{{40, 1}, {33, 2}})
	p.step(batch, func(b kernels.Backend, _ []kernels.Weight) { b.PagedAttention(1) })
	p.equal(kernels.Attn, 3)
}
