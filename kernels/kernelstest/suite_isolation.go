package kernelstest

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// mixedRows is n rows with every option among them.
func (p *pair) mixedRows(n int) []drawCase {
	cases := make([]drawCase, n)
	for i := range cases {
		c := newCase(p.rng, p.shape.Vocab, []float32{0.9, 0, 1.3}[i%3])
		options[i%len(options)].apply(&c, p.rng)
		c.Logprobs = 4
		cases[i] = c
	}
	return cases
}

// equalEntry requires entry i of a to be bit-equal to entry j of b.
func (p *pair) equalEntry(a *kernels.Result, i int, b *kernels.Result, j int) {
	p.t.Helper()
	top := p.limits.MaxTopLogprobs
	require.Equal(p.t, a.Tokens[i], b.Tokens[j])
	require.Equal(p.t, a.Logprobs[i], b.Logprobs[j])
	require.Equal(p.t, a.Ranks[i], b.Ranks[j])
	require.Equal(p.t, a.TopIDs[i*top:i*top+4], b.TopIDs[j*top:j*top+4])
	require.Equal(p.t, a.TopLogprobs[i*top:i*top+4], b.TopLogprobs[j*top:j*top+4])
}

// clone copies a Result, which is valid for two steps only.
func clone(r *kernels.Result) *kernels.Result {
	return &kernels.Result{
		Tokens: slices.Clone(r.Tokens), Logprobs: slices.Clone(r.Logprobs), Ranks: slices.Clone(r.Ranks),
		TopIDs: slices.Clone(r.TopIDs), TopLogprobs: slices.Clone(r.TopLogprobs),
	}
}

// neighbours: a row draws the same alone, in a batch, and in any order.
func (s *suite) neighbours(t *testing.T) {
	const n = 30
	p := s.samplerPair(t, 1000, 0, n)
	cases := p.mixedRows(n)
	p.reset(cases)
	got, _ := p.draw(cases, everyRow(n))
	together := clone(got)
	p.reset(cases)
	order := p.rng.Perm(n)
	got, _ = p.draw(cases, order)
	for i, row := range order {
		p.equalEntry(together, row, got, i)
	}
	p.reset(cases)
	for row := range cases {
		got, _ = p.draw(cases, []int{row})
		p.equalEntry(together, row, got, 0)
	}
}

// notANumber spoils each row of a batch in turn, in four ways; that row fails
// and the others do not change by a bit.
func (s *suite) notANumber(t *testing.T) {
	const n = 64
	p := s.samplerPair(t, 257, 0, n)
	cases := p.mixedRows(n)
	p.reset(cases)
	got, _ := p.draw(cases, everyRow(n))
	clean := clone(got)
	for bad := range cases {
		spoiled := slices.Clone(cases)
		c := &spoiled[bad]
		c.logits = slices.Clone(c.logits)
		switch bad / 3 % 4 {
		case 0:
			c.logits[p.rng.IntN(257)] = float32(math.NaN())
		case 1:
			c.logits = slices.Repeat([]float32{float32(math.NaN())}, 257)
		case 2:
			c.logits[256] = float32(math.Inf(1))
		case 3:
			if bad%2 == 0 {
				c.mask = make([]uint32, 9)
			} else {
				c.logits = slices.Repeat([]float32{float32(math.Inf(-1))}, 257)
			}
		}
		p.reset(spoiled)
		got, _ = p.draw(spoiled, everyRow(n))
		for row := range spoiled {
			if row == bad {
				require.Equal(t, kernels.InvalidToken, got.Tokens[row], "row %d", row)
				continue
			}
			p.equalEntry(clean, row, got, row)
		}
	}
}

// checks: half the rows are checked, whatever their Sampling, some of them spoiled; what
// the others draw and what the checked ones draw next is as if nobody had looked.
func (s *suite) checks(t *testing.T) {
	const n = 40
	p := s.samplerPair(t, 1000, 0, n)
	cases := p.mixedRows(n)
	p.reset(cases)
	spoiled := slices.Clone(cases)
	order := p.rng.Perm(n)
	drawing, checked := order[:n/2], order[n/2:]
	bad := map[int]bool{}
	for i, row := range checked[:n/4] {
		c := &spoiled[row]
		c.logits, bad[row] = slices.Clone(c.logits), true
		c.logits[p.rng.IntN(1000)] = []float32{float32(math.NaN()), float32(math.Inf(1))}[i%2]
	}
	got, want := p.drawAndCheck(spoiled, order, len(checked))
	p.equalDraws(cases, drawing, &kernels.Result{
		Tokens: got.Tokens[:len(drawing)], Logprobs: got.Logprobs, Ranks: got.Ranks, TopIDs: got.TopIDs, TopLogprobs: got.TopLogprobs,
	}, &kernels.Result{
		Tokens: want.Tokens[:len(drawing)], Logprobs: want.Logprobs, Ranks: want.Ranks, TopIDs: want.TopIDs, TopLogprobs: want.TopLogprobs,
	})
	for i, row := range checked {
		token := int32(0)
		if bad[row] {
			token = kernels.InvalidToken
		}
		require.Equal(t, token, got.Tokens[len(drawing)+i], "row %d", row)
	}
	got, _ = p.draw(cases, checked)
	next := clone(got)
	p.reset(cases)
	got, _ = p.draw(cases, checked)
	for i := range checked {
		p.equalEntry(next, i, got, i)
	}
}

// distribution draws 9,600 tokens from a few likely ids and compares their
// counts with the softmax by Pearson's chi-square: with 7 degrees of freedom, 40
// is exceeded once in a million.
func (s *suite) distribution(t *testing.T) {
	const rows, steps, kinds = 64, 150, 8
	p := s.samplerPair(t, 257, 0, rows)
	logits := slices.Repeat([]float32{-40}, 257)
	ids, weights, total := p.rng.Perm(257)[:kinds], make([]float64, kinds), 0.0
	for i, id := range ids {
		logits[id] = float32(i) * 0.4
		weights[i] = math.Exp(float64(logits[id]) / 1.5)
		total += weights[i]
	}
	cases := make([]drawCase, rows)
	for i := range cases {
		cases[i] = drawCase{
			Sampling: kernels.Sampling{Temperature: 1.5, Seed: uint64(i / 2), Choice: int32(i % 2), Logprobs: -1},
			logits:   logits,
		}
	}
	p.reset(cases)
	counts := map[int32]float64{}
	for range steps {
		got, _ := p.draw(cases, everyRow(rows))
		for i, id := range got.Tokens {
			counts[id]++
			cases[i].position++
		}
	}
	chi2, seen := 0.0, 0.0
	for i, id := range ids {
		expected := weights[i] / total * rows * steps
		chi2 += math.Pow(counts[int32(id)]-expected, 2) / expected
		seen += counts[int32(id)]
	}
	require.EqualValues(t, rows*steps, seen, "an id of probability 1e-13 was drawn")
	require.Less(t, chi2, 40.0)
}
