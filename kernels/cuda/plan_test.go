//go:build cuda

package cuda

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// What follows needs no GPU.

func TestChoosePath(t *testing.T) {
	for _, c := range []struct {
		path         string
		major, minor int
		want         string
	}{
		{"", 8, 0, pathGeneric}, {"", 8, 9, pathGeneric}, {"", 9, 0, pathHopper}, {"", 10, 0, pathGeneric}, {"", 12, 1, pathGeneric},
		{pathGeneric, 9, 0, pathGeneric}, {pathPlain, 9, 0, pathPlain}, {pathHopper, 9, 0, pathHopper},
	} {
		got, err := choosePath(c.path, c.major, c.minor)
		require.NoError(t, err)
		require.Equal(t, c.want, got, "%+v", c)
	}
	for _, c := range []struct {
		path         string
		major, minor int
	}{{"", 7, 5}, {pathHopper, 8, 9}, {pathHopper, 10, 0}, {"other", 9, 0}} {
		_, err := choosePath(c.path, c.major, c.minor)
		require.Error(t, err, "%+v", c)
	}
}

func TestGraphSizes(t *testing.T) {
	require.Equal(t, []int{1}, defaultGraphSizes(1))
	require.Equal(t, []int{1, 2, 4, 6}, defaultGraphSizes(6))
	require.Equal(t, []int{1, 2, 4, 8, 16, 20}, defaultGraphSizes(20))
	for _, most := range []int{256, 1000, 1024} {
		sizes := defaultGraphSizes(most)
		require.True(t, slices.IsSorted(sizes))
		require.Equal(t, most, sizes[len(sizes)-1])
		require.Less(t, len(sizes), 60)
		g := graphs{sizes: graphSizes(&Config{}, kernels.Limits{MaxSeqs: most, MaxBatchedTokens: 8192})}
		for n := 1; n <= most; n++ {
			size := g.bucket(n)
			require.GreaterOrEqual(t, size, n)
			require.LessOrEqual(t, size, max(n+7, n+n/8+1), "padding of %d", n)
		}
		require.Zero(t, g.bucket(most+1))
	}
	g := graphs{sizes: graphSizes(&Config{GraphSizes: []int{2, 64, 512}}, kernels.Limits{MaxSeqs: 256, MaxBatchedTokens: 100})}
	require.Equal(t, []int{2, 64}, g.sizes)
	require.Zero(t, newGraphsBucket(&Config{Eager: true}, 1))

	g.all = []*graph{{size: 64}, {size: 2}, {size: 3}}
	require.NoError(t, g.keep([]int{1, 2}))
	require.Len(t, g.all, 1)
	require.Equal(t, 2, g.all[0].size, "graphs of other sizes go")
	require.Equal(t, 1, g.bucket(1))
}

func newGraphsBucket(cfg *Config, n int) int {
	g := graphs{sizes: graphSizes(cfg, kernels.Limits{MaxSeqs: 8, MaxBatchedTokens: 8})}
	return g.bucket(n)
}

// workspaceParts are the arrays in their order.
func workspaceParts(w *workspace) []ptr {
	return []ptr{
		w.hidden, w.normed, w.query, w.attn, w.mlp, w.logits, w.headIn, w.edited, w.rope, w.invFreq, w.message,
		w.batch.header, w.batch.tokens, w.batch.tokenSeq, w.batch.positions, w.batch.slots, w.batch.rows, w.batch.queryStart,
		w.batch.seqLens, w.batch.logitRows, w.batch.tables, w.entries, w.masks, w.parts, w.draws, w.maxima, w.state, w.stopIDs, w.bias, w.counts, w.ids, w.gemm.partials, w.gemm.counters,
		w.decode.plan.starts, w.decode.partials, w.decode.plan.seqs, w.prefill.header, w.prefill.partials, w.prefill.items,
		w.layers.table, w.layers.epoch, w.layers.words,
	}
}

// TestWorkspace: parts do not overlap and are aligned, whatever the base.
func TestWorkspace(t *testing.T) {
	s := small()
	w := layoutWorkspace(s, smallLimits, 132, 1<<30)
	parts := workspaceParts(&w)
	require.True(t, slices.IsSorted(parts))
	for i, p := range parts {
		require.Zero(t, p%256, "part %d", i)
	}
	require.GreaterOrEqual(t, w.normed-w.hidden, ptr(256*128*4), "rows to a multiple of 256, hidden 72 to 128")
	require.EqualValues(t, w.bytes, layoutWorkspace(s, smallLimits, 132, 0).bytes)
}

// TestWorkspaceOfLowerLimits: each part lies as far into its area as it does with the
// largest limits, so that what lower ones back of the area has room for it.
func TestWorkspaceOfLowerLimits(t *testing.T) {
	most := kernels.Limits{MaxBatchedTokens: 8192, MaxSeqs: 1024, MaxModelLen: 4096, MaxLogitRows: 1024, BlockSize: 16, MaxTopLogprobs: 20}
	lower := most
	lower.MaxBatchedTokens, lower.MaxSeqs, lower.MaxLogitRows = 64, 3, 3
	w, l := layoutWorkspace(small(), most, 132, 0), layoutWorkspace(small(), lower, 132, 0)
	require.Len(t, l.areas, len(w.areas))
	inArea := func(w *workspace, p ptr) (area int, at int64) {
		for i, a := range w.areas {
			if a.At <= int64(p) {
				area, at = i, int64(p)-a.At
			}
		}
		return area, at
	}
	large, little := workspaceParts(&w), workspaceParts(&l)
	for i := range large {
		area, at := inArea(&w, large[i])
		lowerArea, lowerAt := inArea(&l, little[i])
		require.Equal(t, area, lowerArea, "part %d", i)
		require.Equal(t, at, lowerAt, "part %d", i)
	}
	for i, span := range w.used(&l) {
		require.Equal(t, w.areas[i].At, span.At)
		require.Equal(t, l.areas[i].Bytes, span.Bytes)
	}
}

// TestPairRow: a head's rows 0 … d−1 become 0, d/2, 1, d/2+1, …
func TestPairRow(t *testing.T) {
	const dim = 48
	seen := map[int]bool{}
	for i := range 3 * dim {
		to := pairRow(i, dim)
		require.Equal(t, i/dim, to/dim, "rows stay in their head")
		require.False(t, seen[to])
		seen[to] = true
	}
	for i := range dim / 2 {
		require.Equal(t, pairRow(dim+i, dim)+1, pairRow(dim+i+dim/2, dim))
		require.Zero(t, pairRow(dim+i, dim)%2)
	}
}

// TestLikelyWords: what a graph asks for before it knows a message's length is there, whatever the limits.
func TestLikelyWords(t *testing.T) {
	for _, l := range []kernels.Limits{
		{MaxBatchedTokens: 1, MaxSeqs: 1, MaxModelLen: 16, MaxLogitRows: 1, BlockSize: 16},
		{MaxBatchedTokens: 64, MaxSeqs: 64, MaxModelLen: 16, MaxLogitRows: 1, BlockSize: 64},
		{MaxBatchedTokens: 1024, MaxSeqs: 4096, MaxModelLen: 32768, MaxLogitRows: 4096, BlockSize: 16},
	} {
		most := min(l.MaxSeqs, l.MaxBatchedTokens)
		require.LessOrEqual(t, likelyWords(most), messageWords(l, updateWords(l)), "%+v", l)
		require.Greater(t, likelyWords(1), headerWords)
	}
}

// TestMessage unpacks a message as prepare.cu does.
func TestMessage(t *testing.T) {
	l := kernels.Limits{MaxBatchedTokens: 16, MaxSeqs: 4, MaxModelLen: 64, MaxLogitRows: 4, BlockSize: 16}
	const table = 4
	u := newUpdates(l)
	m := message{words: make([]int32, messageWords(l, u.limit))}
	u.reset(2, &kernels.Sampling{
		Temperature: 0.5, Seed: 7<<32 | 9, TopK: 3, StopIDs: []int32{5, 99, -1}, LogitBias: []kernels.TokenBias{{ID: 98, Bias: 1}, {ID: 4, Bias: -2}},
		PresencePenalty: 1,
	}, 50)
	u.blocks(&kernels.RowUpdate{Row: 2, Blocks: []int32{8, 6}}, table)
	u.blocks(&kernels.RowUpdate{Row: 1, FirstBlock: 3, Blocks: []int32{5}}, table)
	m.start()
	u.take(&m)
	batch := &kernels.Batch{
		Tokens: []int32{kernels.FromDevice, 4, 5}, Rows: []int32{1, 2}, QueryStart: []int32{0, 1, 3}, SeqLens: []int32{9, 2},
		LogitRows: []int32{0, 2}, NumDecodes: 1,
	}
	m.batch(batch, 8, 4)
	masks := m.samples(&kernels.SampleBatch{
		Index: []int32{0, 1}, Rows: []int32{1, 2}, Positions: []int32{9, 2}, Masks: [][]uint32{nil, {1}},
	}, 3)
	require.Equal(t, 1, masks)
	require.Less(t, m.n, len(m.words))
	w, minusTwo := m.words, math.Float32bits(-2)
	section := func(at, n int32) []int32 { return w[at : at+n] }
	require.Equal(t, []int32{3, 2, 1, 2, 2, 8, 4}, section(0, 7))
	require.Equal(t, []int32{8, 8, 9, 6, 7, 5}, section(w[mWritesAt], 2*w[mWrites]))
	require.EqualValues(t, 1, w[mResets])
	reset := section(w[mResetsAt], int32(resetWords))
	require.EqualValues(t, 2, reset[0])
	require.Equal(t, []int32{5}, section(reset[1], 1), "ids outside the vocabulary are dropped")
	require.Equal(t, []int32{4, int32(minusTwo)}, section(reset[2], 2))
	require.Equal(t, []int32{9, 7, 3}, reset[3+6:3+9])
	require.Equal(t, []int32{1, 1, 1}, reset[3+13:], "a stop id, a bias, penalties")
	require.Equal(t, []int32{-1, 4, 5, 1, 2, 0, 1, 3, 9, 2, 0, 2}, section(w[mBatch], 12))
	require.Equal(t, []int32{0, 1, 9, -1, 1, 2, 2, 0}, section(w[mSample], 8))
	require.EqualValues(t, 3, w[mSlot])
	require.Empty(t, u.writes)
	require.Empty(t, u.resets)
}

// TestUpdatesFit: updates whose order matters do not share a message, nor do more
// than it holds.
func TestUpdatesFit(t *testing.T) {
	l := kernels.Limits{MaxBatchedTokens: 16, MaxSeqs: 4, MaxModelLen: 1 << 16, MaxLogitRows: 4, BlockSize: 16}
	u := newUpdates(l)
	long := &kernels.RowUpdate{Row: 1, Reset: true, Blocks: make([]int32, 4096), Sampling: kernels.Sampling{
		StopIDs: make([]int32, maxStopIDs), LogitBias: make([]kernels.TokenBias, maxBias),
	}}
	require.True(t, u.fits(long), "the greatest update fits an empty message")
	u.reset(1, &long.Sampling, 10)
	u.blocks(long, 4096)
	require.False(t, u.fits(&kernels.RowUpdate{Row: 2, Blocks: make([]int32, 4096)}))
	require.False(t, u.fits(&kernels.RowUpdate{Row: 1, Reset: true}), "a second reset")
	require.False(t, u.fits(&kernels.RowUpdate{Row: 1, FirstBlock: 9, Blocks: []int32{1}}), "an entry again")
	require.True(t, u.fits(&kernels.RowUpdate{Row: 2, Blocks: []int32{1}}))
	m := message{words: make([]int32, messageWords(l, u.limit))}
	m.start()
	u.take(&m)
	require.True(t, u.fits(&kernels.RowUpdate{Row: 1, Reset: true}))
	require.LessOrEqual(t, m.n, len(m.words))
}

func TestPlans(t *testing.T) {
	l := planGemmPlain(gemmShape{m: 65, n: 257, k: 64, kind: epilogueSwiGLU})
	require.Equal(t, "gemm_plain_swiglu", l.kernel)
	require.Equal(t, [3]uint32{5, 2, 1}, l.Grid)
	for _, hidden := range []int{64, 72, 896, 3584, 18944} {
		for _, l := range []launch{planRMSNorm(7, hidden), planEmbed(7, hidden)} {
			require.EqualValues(t, 7, l.Grid[0])
			require.Zero(t, l.CTA[0]%32, "whole warps of width %d", hidden)
			require.LessOrEqual(t, l.CTA[0], uint32(512))
		}
	}
	for hidden := 2; hidden < 10_000; hidden += 2 {
		l, each := planRMSNorm(1, hidden), 0
		_, err := fmt.Sscanf(l.kernel, "rmsnorm_%d", &each)
		require.NoError(t, err)
		require.True(t, each == 4 || 4*each*int(l.CTA[0]) >= hidden, "%s has no loop for width %d", l.kernel, hidden)
	}
	for _, n := range []int{1, 13, 20, 21, 64, 512, 4096} {
		for _, vocab := range []int{257, 151936} {
			for _, sms := range []int{16, 78, 132} {
				plan := planSample(n, vocab, sms)
				require.Equal(t, [3]uint32{uint32(min(n*ceilDiv(vocab, splitIDs), splitResident*sms)), 1, 1}, plan[0].Grid, "no more than the device has at a time")
				require.Equal(t, [3]uint32{uint32(n), 1, 1}, plan[1].Grid)
			}
		}
	}
	l = planLoad(151936, 896)
	require.GreaterOrEqual(t, int(l.Grid[1]*l.Grid[2]), 151936)
}

func TestCheckShape(t *testing.T) {
	require.NoError(t, checkShape(small(), smallLimits))
	for name, spoil := range map[string]func(s *kernels.Shape, l *kernels.Limits){
		"heads of 24":  func(s *kernels.Shape, _ *kernels.Limits) { s.HeadDim = 24 },
		"heads of 512": func(s *kernels.Shape, _ *kernels.Limits) { s.HeadDim = 512 },
		"5 KV heads":   func(s *kernels.Shape, _ *kernels.Limits) { s.KVHeads = 5 },
		"frequencies":  func(s *kernels.Shape, _ *kernels.Limits) { s.InvFreq = nil },
		"SampleVocab":  func(s *kernels.Shape, _ *kernels.Limits) { s.SampleVocab = 1000 },
		"vocabulary":   func(s *kernels.Shape, _ *kernels.Limits) { s.Vocab = 1 << 20 },
		"limits":       func(_ *kernels.Shape, l *kernels.Limits) { l.MaxLogitRows = 1 },
	} {
		s, l := small(), smallLimits
		spoil(&s, &l)
		require.ErrorContains(t, checkShape(s, l), name)
	}
}

// TestKeepsRows: rows are moved where as many tokens as stay, and 64, are left out, and the batch of
// decodes that they become has room.
func TestKeepsRows(t *testing.T) {
	require.True(t, keepsRows(1, 65, 8))
	require.False(t, keepsRows(1, 64, 8))
	require.True(t, keepsRows(257, 514, 512))
	require.False(t, keepsRows(257, 513, 512))
	require.False(t, keepsRows(9, 4096, 8), "more than there are sequences")
	require.True(t, keepsRows(keepMost, 4096, 4096))
	require.False(t, keepsRows(keepMost+1, 4096, 4096), "more than the kernel can make")
	require.False(t, keepsRows(0, 4096, 8))
	require.Equal(t, [3]uint32{1 + 2, 1, 1}, planKeepRows(keepThreads+1).Grid)
}
