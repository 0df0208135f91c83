//go:build cuda

package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// TestFoldedNorms: norms that products make between them give what norms of their own give, with any number of sequences, one
// tile's and several's. Where a way folds, the bits differ, for other things are rounded.
func TestFoldedNorms(t *testing.T) {
	const most, context = 512, 5
	for _, model := range trueShapes {
		t.Run(model.name, func(t *testing.T) {
			b, m := foldingModel(t, model, 3, most)
			shape := m.shape
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
					if d := math.Abs(float64(v - logits[1][i])); !(d <= 0.15) {
						require.Failf(t, "norms folded", "%d sequences, logit %d of row %d: %g, want %g", seqs, i%shape.Vocab, i/shape.Vocab, logits[1][i], v)
					}
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

// foldingModel is a model of few layers, for up to `most` sequences of a block.
func foldingModel(t *testing.T, model trueShape, layers, most int) (*Backend, *trueModel) {
	paths(t)
	shape := model.full()
	shape.Layers, shape.Vocab = layers, 1024
	b := newBackend(t, Config{Path: *forcePath, Eager: true}) // a graph would be of whichever came first
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	if !b.arch.hopper {
		t.Skip("no kernel of this path folds norms")
	}
	limits := kernels.Limits{MaxBatchedTokens: most, MaxSeqs: most, MaxModelLen: 16, MaxLogitRows: most, BlockSize: 16, MaxTopLogprobs: 1}
	require.NoError(t, b.Setup(shape, limits, limits))
	require.NoError(t, b.ResizePool(1+most, 0))
	m := loadTrue(t, b, shape, model.tied)
	m.resetRows(most, 1)
	return b, m
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

// TestFoldingKernels: every kernel, in every way, that leaves what a norm is made of, or makes of that what is left to do. Rows'
// norms differ by factors, so that none may pass for another's, some columns weigh more than others, and a NaN stays in its row.
func TestFoldingKernels(t *testing.T) {
	const most, spoilt = foldedTokens, 1
	b, m := foldingModel(t, trueShapes[0], 2, most)
	shape := m.shape
	random := rand.New(rand.NewPCG(1, 2))
	rows := func(width int, scale func(row, column int) float64) []float32 {
		v := make([]float32, most*width)
		for i := range v {
			v[i] = float32(random.NormFloat64() * scale(i/width, i%width))
		}
		return v
	}
	hidden := rows(shape.Hidden, func(row, column int) float64 {
		scale := math.Ldexp(1, row*5%9-4)
		if column%160 < 8 {
			scale *= 4
		}
		return scale
	})
	hidden[spoilt*shape.Hidden+3] = float32(math.NaN())
	inputs := map[kernels.Activation][]float32{
		kernels.Hidden: hidden,
		kernels.Attn:   rows(shape.Heads*shape.HeadDim, func(row, _ int) float64 { return math.Ldexp(0.25, row*5%9-4) }),
		kernels.MLP:    rows(shape.Intermediate, func(row, _ int) float64 { return math.Ldexp(0.25, row*5%9-4) }),
	}
	for _, c := range []struct {
		out                  kernels.Activation
		residual, behind     string
		residualAt, behindAt int // in productsOf
		forward              func()
	}{
		{kernels.MLP, "o", "gate_up", 1, 2, func() {
			m.Linear(m.layers[0][1], kernels.Attn)
			m.RMSNorm(m.norms[0][1])
			m.GateUp(m.layers[0][2])
		}},
		{kernels.Query, "down", "qkv", 3, 0, func() {
			m.Linear(m.layers[0][3], kernels.MLP)
			m.RMSNorm(m.norms[1][0])
			m.QKV(1, m.layers[1][0])
		}},
	} {
		for _, n := range []int{2, 7, 16, 31, 64, 100, 128, 192, 256, 300, most} {
			width := shape.Width(c.out)
			run := func() []float32 {
				for a, v := range inputs {
					b.WriteActivation(a, v[:n*shape.Width(a)])
				}
				batch, _ := m.spans(n, 0, 1)
				b.Launch(batch, c.forward)
				spent := b.run.spent
				_, err := b.Wait(b.Sample(&kernels.SampleBatch{}))
				require.NoError(t, err)
				require.Equal(t, !b.cfg.unfolded, spent, "the product behind took the norm")
				return b.ReadActivation(c.out, n)
			}
			products := productsOf(&shape, n)
			residual, behind := products[c.residualAt].shape, products[c.behindAt].shape
			leaving := slices.DeleteFunc(candidates(residual, b.arch), func(way candidate) bool { return !way.leavesNorm() })
			taking := slices.DeleteFunc(candidates(behind, b.arch), func(way candidate) bool { return !way.takesNorm(behind.kind, n) })
			require.NotEmpty(t, leaving)
			require.NotEmpty(t, taking)
			if behind.kind == epilogueSwiGLU && n > 128 && b.arch.sms == measuredSMs {
				for _, way := range []string{"sm90_160 c1 k1", "sm90_288 c2 k1", "sm90_turns_128 c1 k1"} { // of several tiles of tokens
					require.True(t, slices.ContainsFunc(taking, func(c candidate) bool { return c.String() == way }), way)
				}
			}
			check := func(left, taken candidate) {
				b.products[residual], b.products[behind] = left.productPlan, taken.productPlan
				b.cfg.unfolded = true
				want := run()
				b.cfg.unfolded = false
				got := run()
				name := fmt.Sprintf("%d tokens, %s by %s, %s by %s", n, c.residual, left, c.behind, taken)
				for row := range n {
					w, g, peak := want[row*width:][:width], got[row*width:][:width], 0.0
					for _, x := range w {
						peak = max(peak, math.Abs(float64(x)))
					}
					for i, x := range w {
						nan := math.IsNaN(float64(g[i]))
						if nan != (row == spoilt) || !nan && math.Abs(float64(x-g[i])) > 0.01*peak { // millions: testify takes a minute
							require.Failf(t, "a norm between products", "%s: row %d, %d: %g, want %g", name, row, i, g[i], x)
						}
					}
				}
			}
			for _, left := range leaving {
				check(left, taking[0])
			}
			for _, taken := range taking[1:] {
				check(leaving[0], taken)
			}
		}
	}
}

// TestFolds: the ways that were timed with norms folded fold them, and tiles leave no more sums than there is room for.
func TestFolds(t *testing.T) {
	h200 := arch{sms: measuredSMs, shared: 227 << 10, hopper: true, memory: 4.8e12}
	for i, model := range trueShapes {
		for _, m := range measuredTokens {
			attn, mlp := foldsOf(t, h200, model.full(), m)
			name := fmt.Sprintf("%s, %d", model.name, m)
			if m >= 32 && m <= 128 || i == 0 && m == 512 || i < 2 && m == 256 {
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

// TestRowsBehindASmallStep: a step leaves nothing of a larger one's in the rows that its tiles multiply as well.
func TestRowsBehindASmallStep(t *testing.T) {
	const most, few = 100, 40
	b, m := foldingModel(t, trueShapes[0], 1, most)
	activations := []kernels.Activation{kernels.Normed, kernels.Attn, kernels.MLP}
	step := func(n int) {
		batch, sample := m.spans(n, 0, 1)
		b.Launch(batch, m.forward)
		_, err := b.Wait(b.Sample(sample))
		require.NoError(t, err)
	}
	step(most)
	left := map[kernels.Activation][]float32{}
	for _, a := range activations {
		left[a] = b.ReadActivation(a, most)
	}
	step(few)
	for _, a := range activations {
		width := m.shape.Width(a)
		require.NotZero(t, slices.Max(left[a][few*width:]), "%v: what would be left", a)
		for _, v := range b.ReadActivation(a, most)[few*width:] {
			require.Zero(t, v, "%v", a)
		}
	}
}
