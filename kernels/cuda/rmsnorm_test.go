//go:build cuda

package cuda

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// TestFoldedNorms: norms that products make between them give what norms of their own give, of prompts and of decodes of any
// number of tokens, one tile's and several's. Where a way folds, the bits differ, for other things are rounded.
func TestFoldedNorms(t *testing.T) {
	const most, context = 512, 5
	for _, model := range trueShapes {
		t.Run(model.name, func(t *testing.T) {
			paths(t)
			shape := model.full()
			shape.Layers, shape.Vocab = 3, 1024
			b := newBackend(t, Config{Path: *forcePath, Eager: true}) // a graph would be of whichever came first
			defer func() { require.NoError(t, b.Close()) }()
			if !b.arch.hopper {
				t.Skip("no kernel of this path folds norms")
			}
			limits := kernels.Limits{MaxBatchedTokens: most, MaxSeqs: most, MaxModelLen: 16, MaxLogitRows: most, BlockSize: 16, MaxTopLogprobs: 1}
			require.NoError(t, b.Setup(shape, limits, limits))
			require.NoError(t, b.ResizePool(1+most, 0))
			m := loadTrue(t, b, shape, model.tied)
			m.resetRows(most, 1)
			step := func(seqs, first, tokens int) []float32 {
				batch, _ := m.spans(seqs, first, tokens)
				b.Launch(batch, m.pass)
				_, err := b.Wait(b.Sample(&kernels.SampleBatch{}))
				require.NoError(t, err)
				return b.ReadActivation(kernels.Logits, seqs)
			}
			folds := 0
			for _, seqs := range []int{2, 3, 4, 8, 9, 16, 17, 32, 33, 64, 65, 80, 96, 100, 128, 129, 192, 200, 256, 257, 384, most} {
				var logits [2][]float32
				for side := range logits {
					b.cfg.unfolded = true
					b.fillPool(4)
					if seqs*context <= most {
						step(seqs, 0, context)
					}
					b.cfg.unfolded = side == 0
					logits[side] = step(seqs, context, 1)
				}
				equal := true
				for i, v := range logits[0] {
					require.False(t, math.IsNaN(float64(v)))
					require.InDelta(t, v, logits[1][i], 0.15, "%d sequences, logit %d of row %d", seqs, i%shape.Vocab, i/shape.Vocab)
					equal = equal && v == logits[1][i]
				}
				behindAttn, behindMLP := foldsOf(t, b.arch, shape, seqs)
				require.Equal(t, !behindAttn && !behindMLP, equal, "%d sequences", seqs)
				if !equal {
					folds++
				}
			}
			require.Greater(t, folds, 5)
		})
	}
}

// foldsOf says which norms of a decode are folded: behind attention, behind the MLP.
func foldsOf(t *testing.T, a arch, s kernels.Shape, m int) (attn, mlp bool) {
	plans := map[string]productPlan{}
	products := productsOf(&s, m)
	for _, p := range products {
		plan, ok := planProduct(p.shape, a)
		require.True(t, ok, p.name)
		plans[p.name] = plan
	}
	leaves := func(name string) bool { plan := plans[name]; return plan.leavesNorm() }
	takes := func(i int) bool { plan := plans[products[i].name]; return plan.takesNorm(products[i].shape.kind, m) }
	return leaves("o") && takes(2), leaves("down") && takes(0)
}

// TestFolds: the ways that were timed with norms folded fold them, and tiles leave no more sums than there is room for.
func TestFolds(t *testing.T) {
	h200 := arch{sms: measuredSMs, shared: 227 << 10, hopper: true, memory: 4.8e12}
	for i, model := range trueShapes {
		for _, m := range measuredTokens {
			attn, mlp := foldsOf(t, h200, model.full(), m)
			name := fmt.Sprintf("%s, %d", model.name, m)
			if m >= 32 && m <= 128 {
				require.True(t, attn, name)
				require.True(t, mlp || i == 2 || m <= 32, name)
			}
			for _, p := range productsOf(&model.shape, m) {
				for _, c := range candidates(p.shape, h200) {
					if p.shape.kind == epilogueResidual && c.leavesNorm() {
						require.LessOrEqual(t, int(c.tiles), ceilDiv(p.shape.n, leastColumns), "%s: %s", name, c)
					}
				}
			}
		}
	}
}
