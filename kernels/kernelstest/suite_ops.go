package kernelstest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// opCase is a geometry with a number of tokens.
type opCase struct {
	geometry
	tokens int
}

// cross is every geometry with every number of tokens.
func cross(geometries []geometry, tokens ...int) []opCase {
	var cases []opCase
	for _, g := range geometries {
		for _, n := range tokens {
			cases = append(cases, opCase{g, n})
		}
	}
	return cases
}

// runOps runs one subtest a case, on a pair whose pool holds the tokens, given
// a batch of n tokens in up to three sequences.
func (s *suite) runOps(t *testing.T, cases []opCase, fn func(p *pair, b *kernels.Batch, n int)) {
	for _, c := range cases {
		s.oneOfMany(t, fmt.Sprintf("%s/m%d", c.geometry, c.tokens), func(t *testing.T) {
			p := s.newPair(t, c.shape(), limitsFor(c.tokens, 3, c.tokens+40, 16), 3*(c.tokens/16+4)+1)
			fn(p, p.batch(split(c.tokens)), c.tokens)
		})
	}
}

// split makes n tokens a decode and two prefill chunks.
func split(n int) []span {
	switch n {
	case 1:
		return []span{{20, 1}}
	case 2:
		return []span{{15, 1}, {0, 1}}
	default:
		return []span{{16, 1}, {0, n / 2}, {7, n - 1 - n/2}}
	}
}

func (s *suite) embed(t *testing.T) {
	s.runOps(t, cross([]geometry{tiny, oddHead}, 1, 7, 33, 100), func(p *pair, b *kernels.Batch, n int) {
		w := p.embedding(tensor("embed", kernels.BF16, 1, p.shape.Vocab, p.shape.Hidden), n%2 == 0)
		p.poison(kernels.Hidden)
		p.step(b, func(b kernels.Backend, ws []kernels.Weight) { b.Embed(ws[w]) })
		p.sameRows(n)
	})
}

// sameRows requires looked-up rows to be exactly the Oracle's, if weights are.
func (p *pair) sameRows(n int) {
	p.t.Helper()
	if p.tol.LossyWeights {
		p.equal(kernels.Hidden, n)
		return
	}
	require.Equal(p.t, p.want.ReadActivation(kernels.Hidden, n), p.got.ReadActivation(kernels.Hidden, n))
}

// normed requires what a product made of a norm, whose rounding it magnifies so much, to be the Oracle's.
func (p *pair) normed(a kernels.Activation, n int, rounding float64) {
	p.t.Helper()
	require.NoError(p.t, p.tol.loosened(rounding).compare(p.got.ReadActivation(a, n), p.want.ReadActivation(a, n), p.shape.Width(a)))
}

func (s *suite) rmsnorm(t *testing.T) {
	s.runOps(t, cross([]geometry{tiny, smol, qwen05}, 1, 3, 13, 100), func(p *pair, b *kernels.Batch, n int) {
		w := p.norm(tensor("norm", kernels.FP32, 1, p.shape.Hidden))
		p.random(kernels.Hidden, n, 3)
		p.poison(kernels.Normed)
		p.step(b, func(b kernels.Backend, ws []kernels.Weight) { b.RMSNorm(ws[w]) })
		p.equal(kernels.Normed, n)
	})
	for _, hidden := range []int{1546, 3584, 5120, 8456} { // whatever a thread has of a row
		t.Run(fmt.Sprintf("hidden_%d", hidden), func(t *testing.T) {
			shape := tiny.shape()
			shape.Hidden = hidden
			p := s.newPair(t, shape, limitsFor(3, 3, 40, 16), 10)
			w := p.norm(normWeight("norm", hidden))
			p.random(kernels.Hidden, 3, 3)
			p.poison(kernels.Normed)
			p.step(p.batch(split(3)), func(b kernels.Backend, ws []kernels.Weight) { b.RMSNorm(ws[w]) })
			p.equal(kernels.Normed, 3)
		})
	}
	// A product may make the norm before it.
	t.Run("qkv", func(t *testing.T) {
		s.runOps(t, cross([]geometry{tiny, oddHead, qwen05, qwen15, qwen7, wide15, wide7}, 1, 2), func(p *pair, b *kernels.Batch, n int) {
			norm := p.norm(normWeight("norm", p.shape.Hidden))
			spec := qkvSpec(p.shape, "qkv", true)
			qkv := p.load(func(b kernels.Backend) (kernels.Weight, error) { return b.LoadLinear(spec) })
			p.random(kernels.Hidden, n, 3)
			p.poison(kernels.Query)
			p.step(b, func(b kernels.Backend, ws []kernels.Weight) {
				b.RMSNorm(ws[norm])
				b.QKV(1, ws[qkv])
			})
			p.normed(kernels.Query, n, 3)
		})
	})
	t.Run("gate_up", func(t *testing.T) {
		s.runOps(t, cross([]geometry{tiny, oddHead, qwen05, wide15, wide7}, 1, 2), func(p *pair, b *kernels.Batch, n int) {
			norm := p.norm(normWeight("norm", p.shape.Hidden))
			gates := p.linear(kernels.LinearGateUp,
				fanIn("gate", p.shape.Intermediate, p.shape.Hidden), fanIn("up", p.shape.Intermediate, p.shape.Hidden))
			p.random(kernels.Hidden, n, 3)
			p.poison(kernels.MLP)
			p.step(b, func(b kernels.Backend, ws []kernels.Weight) {
				b.RMSNorm(ws[norm])
				b.GateUp(ws[gates])
			})
			p.normed(kernels.MLP, n, 6)
		})
	})
	t.Run("tiny_values", func(t *testing.T) { // where epsilon decides
		p := s.newPair(t, tiny.shape(), limitsFor(2, 2, 40, 16), 9)
		w := p.norm(normWeight("norm", 64))
		p.random(kernels.Hidden, 2, 1e-4)
		p.poison(kernels.Normed)
		p.step(p.batch(split(2)), func(b kernels.Backend, ws []kernels.Weight) { b.RMSNorm(ws[w]) })
		p.equal(kernels.Normed, 2)
	})
}

func (s *suite) qkv(t *testing.T) {
	check := func(p *pair, b *kernels.Batch, n int, spec kernels.LinearSpec) {
		w := p.load(func(b kernels.Backend) (kernels.Weight, error) { return b.LoadLinear(spec) })
		p.random(kernels.Normed, n, 1)
		p.poison(kernels.Query)
		p.step(b, func(b kernels.Backend, ws []kernels.Weight) { b.QKV(1, ws[w]) })
		p.equal(kernels.Query, n)
		p.equalKV()
	}
	cases := append(cross([]geometry{tiny}, tokenCounts...),
		cross([]geometry{smol, qwen15, qwen7, wideHead, oddHead, noGroup}, 1, 13, 33)...)
	cases = append(cases, cross([]geometry{qwen05}, 1, 12)...)
	s.runOps(t, cases, func(p *pair, b *kernels.Batch, n int) { check(p, b, n, qkvSpec(p.shape, "qkv", n != 13)) })
	t.Run("qk_norm", func(t *testing.T) {
		s.runOps(t, cross([]geometry{tiny, qwen3, oddHead, wideHead}, 1, 12, 33), func(p *pair, b *kernels.Batch, n int) {
			spec := qkvSpec(p.shape, "qkv", n == 12)
			if s.tol.NoQKNorm {
				_, err := p.got.LoadLinear(withQKNorm(p.shape, spec))
				require.ErrorContains(t, err, "norm")
				return
			}
			check(p, b, n, withQKNorm(p.shape, spec))
		})
	})
	for name, scale := range map[string]float32{"plain": 1, "yarn": 1.2079} {
		t.Run("far_"+name, func(t *testing.T) {
			shape := smol.shape()
			shape.RopeScale = scale
			p := s.newPair(t, shape, limitsFor(9, 2, 2100, 32), 140)
			check(p, p.batch([]span{{2047, 1}, {1000, 8}}), 9, qkvSpec(p.shape, "qkv", true))
		})
	}
	t.Run("half_range", s.halfRange)
}

// halfRange: keys and values that float16 cannot hold become its greatest, ±65,504, and
// those of a token that is not a number are NaN, whatever kernel writes them.
func (s *suite) halfRange(t *testing.T) {
	if s.tol.LossyWeights {
		t.Skip("sums of such numbers that are near zero may have either sign")
	}
	s.runOps(t, cross([]geometry{tiny, qwen15, oddHead}, 3, 8, 16, 33, 100), func(p *pair, b *kernels.Batch, n int) {
		w := p.load(func(b kernels.Backend) (kernels.Weight, error) { return b.LoadLinear(qkvSpec(p.shape, "qkv", false)) })
		width := p.shape.Width(kernels.Normed)
		deviation, huge := 4e4, float32(1<<80)
		if p.tol.Activations == kernels.FP16 { // sums, not inputs, are beyond it
			deviation, huge = 1e4, 6e4
		}
		x := p.random(kernels.Normed, n, deviation)
		for i := range width {
			x[i] = float32(math.Copysign(float64(huge), float64(x[i])))
			x[2*width+i] = float32(math.NaN())
		}
		p.each(func(b kernels.Backend, _ []kernels.Weight) { b.WriteActivation(kernels.Normed, x) })
		p.step(b, func(b kernels.Backend, ws []kernels.Weight) { b.QKV(1, ws[w]) })
		p.equalKV()
	})
}

// qkvSpec is a fused projection of random parts.
func qkvSpec(s kernels.Shape, name string, bias bool) kernels.LinearSpec {
	spec := kernels.LinearSpec{Kind: kernels.LinearQKV}
	for i, heads := range []int{s.Heads, s.KVHeads, s.KVHeads} {
		part := fmt.Sprintf("%s.%c", name, "qkv"[i])
		spec.Parts = append(spec.Parts, fanIn(part, heads*s.HeadDim, s.Hidden))
		if bias {
			spec.Bias = append(spec.Bias, dummy(part+".bias", 1, heads*s.HeadDim))
		}
	}
	return spec
}

// withQKNorm adds norms far from neutral, and from each other.
func withQKNorm(s kernels.Shape, spec kernels.LinearSpec) kernels.LinearSpec {
	for _, name := range []string{"q_norm", "k_norm"} {
		spec.QKNorm = append(spec.QKNorm, normWeight(name, s.HeadDim))
	}
	return spec
}

// linearKind is the kind of the weights that src enters.
func linearKind(src kernels.Activation) kernels.LinearKind {
	if src == kernels.MLP {
		return kernels.LinearDown
	}
	return kernels.LinearPlain
}

func (s *suite) linear(t *testing.T) {
	for name, src := range map[string]kernels.Activation{"attn": kernels.Attn, "mlp": kernels.MLP} {
		cases := append(cross([]geometry{tiny}, tokenCounts...), cross([]geometry{smol, qwen7}, 3, 16)...)
		cases = append(cases, cross([]geometry{qwen05}, 1, 7, 25)...)
		t.Run(name, func(t *testing.T) {
			s.runOps(t, cases, func(p *pair, b *kernels.Batch, n int) {
				w := p.linear(linearKind(src), fanIn("linear", p.shape.Hidden, p.shape.Width(src)))
				p.random(src, n, 1)
				p.random(kernels.Hidden, n, 1)
				p.step(b, func(b kernels.Backend, ws []kernels.Weight) { b.Linear(ws[w], src) })
				p.equal(kernels.Hidden, n)
			})
		})
	}
}

func (s *suite) gateUp(t *testing.T) {
	cases := append(cross([]geometry{tiny, oddHead}, tokenCounts...), cross([]geometry{qwen05}, 1, 3)...)
	s.runOps(t, cases, func(p *pair, b *kernels.Batch, n int) {
		w := p.linear(kernels.LinearGateUp,
			fanIn("gate", p.shape.Intermediate, p.shape.Hidden), fanIn("up", p.shape.Intermediate, p.shape.Hidden))
		p.random(kernels.Normed, n, 2)
		p.poison(kernels.MLP)
		p.step(b, func(b kernels.Backend, ws []kernels.Weight) { b.GateUp(ws[w]) })
		p.equal(kernels.MLP, n)
	})
	t.Run("large", s.largeGates)
}

// largeGates: the MLP's inner values, products of two, may be beyond what float16 holds (trained
// models have such outliers), and enter the next product as they are.
func (s *suite) largeGates(t *testing.T) {
	s.runOps(t, cross([]geometry{tiny, qwen05}, 3, 16, 100), func(p *pair, b *kernels.Batch, n int) {
		gates := p.linear(kernels.LinearGateUp,
			fanIn("gate", p.shape.Intermediate, p.shape.Hidden), fanIn("up", p.shape.Intermediate, p.shape.Hidden))
		down := p.linear(kernels.LinearDown, fanIn("down", p.shape.Hidden, p.shape.Intermediate))
		p.random(kernels.Normed, n, 400)
		p.random(kernels.Hidden, n, 1)
		p.poison(kernels.MLP)
		p.step(b, func(b kernels.Backend, ws []kernels.Weight) {
			b.GateUp(ws[gates])
			b.Linear(ws[down], kernels.MLP)
		})
		p.equal(kernels.MLP, n)
		p.equal(kernels.Hidden, n)
		require.Greater(t, slices.Max(p.want.ReadActivation(kernels.MLP, n)), float32(65504))
	})
}

func (s *suite) head(t *testing.T) {
	cases := append(cross([]geometry{tiny, qwen7}, 1, 2, 3, 8, 13, 33), cross([]geometry{qwen05}, 1, 7)...)
	for _, tied := range []bool{false, true} {
		t.Run(map[bool]string{false: "untied", true: "tied"}[tied], func(t *testing.T) {
			s.runOps(t, cases, func(p *pair, b *kernels.Batch, n int) {
				norm := p.norm(normWeight("norm", p.shape.Hidden))
				w := fanIn("head", p.shape.Vocab, p.shape.Hidden)
				head := 0
				if tied {
					head = p.embedding(w, true)
				} else {
					head = p.linear(kernels.LinearHead, w)
				}
				if n == 13 { // logits of every token, as prompt logprobs want them
					b.LogitRows = b.LogitRows[:0]
					for i := range n {
						b.LogitRows = append(b.LogitRows, int32(i))
					}
				}
				p.random(kernels.Hidden, n, 2)
				p.poison(kernels.Logits)
				p.step(b, func(b kernels.Backend, ws []kernels.Weight) { b.Head(ws[norm], ws[head]) })
				p.equal(kernels.Logits, len(b.LogitRows))
			})
		})
	}
}
