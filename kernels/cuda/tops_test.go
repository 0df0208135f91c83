//go:build cuda

package cuda

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// TestTops: where the head leaves the likeliest ids of greedy rows instead of their logits, tokens and log
// probabilities are what they are where all rows want log probabilities, so that all logits are there: beside rows
// that draw, want log probabilities or change their logits, with a graph that is not full, of a row with a NaN, and
// by every kernel that may make the head.
func TestTops(t *testing.T) {
	model := trueShapes[0]
	model.shape.Layers, model.shape.SampleVocab = 2, 151665
	const broken, drawn, listed, biased = 5, 1, 2, 3 // a row; of every five, those that want more than the likeliest id
	limits := kernels.Limits{MaxBatchedTokens: 128, MaxSeqs: 128, MaxModelLen: 128, MaxLogitRows: 128, BlockSize: 16, MaxTopLogprobs: 3}
	run := func(t *testing.T, cfg Config, pin func(*Backend), n int, logprobs int32) (results []kernels.Result) {
		b := newBackend(t, cfg)
		require.NoError(t, b.Setup(model.full(), limits, limits))
		pin(b)
		require.NoError(t, b.ResizePool(1+8*limits.MaxSeqs, 0))
		b.fillPool(1)
		m := loadTrue(t, b, model.full(), model.tied)
		m.resetRows(n, 8)
		for row := range n {
			s := kernels.Sampling{Logprobs: logprobs}
			switch row % 5 {
			case drawn:
				s.Temperature, s.Seed = 0.8, uint64(row)
			case listed:
				s.Logprobs = 3
			case biased:
				s.LogitBias = []kernels.TokenBias{{ID: int32(row), Bias: 50}}
			}
			var blocks []int32
			for i := range 8 {
				blocks = append(blocks, int32(1+i*n+row))
			}
			m.UpdateRows([]kernels.RowUpdate{{Row: int32(row), Reset: true, Sampling: s, Blocks: blocks}})
		}
		nan := make([]uint16, b.kv.BlockElems())
		for i := range nan {
			nan[i] = 0x7e00
		}
		m.WriteBlock(1+broken, nan)
		for context := 20; context < 26; context++ {
			batch, sample := m.spans(n, context, 1)
			b.Launch(batch, m.pass)
			r, err := b.Wait(b.Sample(sample))
			require.NoError(t, err)
			kept := *r
			kept.Tokens, kept.Logprobs, kept.TopIDs = slices.Clone(r.Tokens), slices.Clone(r.Logprobs), slices.Clone(r.TopIDs)
			results = append(results, kept)
		}
		require.NotZero(t, b.graphs.all[0].exec.Nodes)
		return results
	}
	compare := func(t *testing.T, path string, n, graph int, pin func(*Backend)) {
		cfg := Config{Path: path, GraphSizes: []int{graph}}
		want, got := run(t, cfg, pin, n, 0), run(t, cfg, pin, n, -1)
		for step := range want {
			require.EqualValues(t, -1, want[step].Tokens[broken])
			require.Equal(t, want[step].Tokens, got[step].Tokens, "step %d", step)
			for row := listed; row < n; row += 5 {
				require.Equal(t, want[step].Logprobs[row], got[step].Logprobs[row], "step %d, row %d", step, row)
				require.Equal(t, want[step].TopIDs[3*row:3*row+3], got[step].TopIDs[3*row:3*row+3])
			}
		}
	}
	for _, path := range paths(t) {
		for _, size := range []struct{ n, graph int }{{6, 8}, {30, 32}, {60, 64}, {100, 128}} {
			t.Run(fmt.Sprintf("%s/%d_of_%d", path, size.n, size.graph), func(t *testing.T) {
				compare(t, path, size.n, size.graph, func(*Backend) {})
			})
			if path != pathHopper {
				continue
			}
			head := gemmShape{m: size.graph, n: model.shape.Vocab, k: model.shape.Hidden, kind: epilogueStore}
			b := newBackend(t, Config{Path: path})
			seen := map[string]bool{}
			for _, c := range candidates(head, b.arch) {
				if seen[c.kernel] || testing.Short() && seen[c.image] {
					continue
				}
				seen[c.kernel], seen[c.image] = true, true
				t.Run(fmt.Sprintf("%s/%d_of_%d/%s", path, size.n, size.graph, c), func(t *testing.T) {
					compare(t, path, size.n, size.graph, func(b *Backend) { b.products[head] = c.productPlan })
				})
			}
		}
	}
}
