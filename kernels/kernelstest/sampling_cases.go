package kernelstest

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// drawCase is one row to draw from.
type drawCase struct {
	kernels.Sampling
	prompt, output []int32
	mask           []uint32
	position       int32
	logits         []float32
}

// history is the case's ids as penalties see them.
func (c *drawCase) history() History { return NewHistory(c.prompt, c.output) }

// option is one field of Sampling, or a mask, at a telling value.
type option struct {
	name  string
	apply func(c *drawCase, rng *rand.Rand)
}

var options = []option{
	{"top_k", func(c *drawCase, _ *rand.Rand) { c.TopK = 7 }},
	{"top_p", func(c *drawCase, _ *rand.Rand) { c.TopP = 0.8 }},
	{"min_p", func(c *drawCase, _ *rand.Rand) { c.MinP = 0.05 }},
	{"repetition", func(c *drawCase, _ *rand.Rand) { c.RepetitionPenalty = 1.4 }},
	{"presence", func(c *drawCase, _ *rand.Rand) { c.PresencePenalty = 1.5 }},
	{"frequency", func(c *drawCase, _ *rand.Rand) { c.FrequencyPenalty = 0.7 }},
	{"bias", func(c *drawCase, rng *rand.Rand) {
		for _, id := range rng.Perm(len(c.logits))[:9] {
			c.LogitBias = append(c.LogitBias, kernels.TokenBias{ID: int32(id), Bias: float32(rng.NormFloat64() * 6)})
		}
	}},
	{"mask", func(c *drawCase, rng *rand.Rand) {
		c.mask = make([]uint32, (len(c.logits)+31)/32)
		for i := range c.mask {
			c.mask[i] = rng.Uint32() & rng.Uint32()
		}
	}},
	{"min_tokens", func(c *drawCase, _ *rand.Rand) {
		c.MinTokens = c.position - c.PromptLen + 2 // two draws without, then with
		c.StopIDs = likeliest(c.logits, 5)
	}},
}

// likeliest is the n ids of the largest logits.
func likeliest(logits []float32, n int) []int32 {
	z, ids := make([]float64, len(logits)), make([]int32, n)
	for i, v := range logits {
		z[i] = float64(v)
	}
	topLogprobs(z, ids, make([]float32, n))
	return ids
}

// newCase is a row of normal logits with a history of its likely ids.
func newCase(rng *rand.Rand, vocab int, temperature float32) drawCase {
	c := drawCase{Sampling: kernels.Sampling{
		Temperature: temperature, Seed: rng.Uint64(), Choice: int32(rng.IntN(3)),
		PromptLen: 20, Logprobs: -1,
	}}
	c.position = c.PromptLen + int32(rng.IntN(4))
	c.logits = normals(rng, vocab, 3)
	for _, id := range likeliest(c.logits, 12) {
		if rng.IntN(2) == 0 {
			c.prompt = append(c.prompt, id)
		}
		for range rng.IntN(3) {
			c.output = append(c.output, id)
		}
	}
	return c
}

func normals(rng *rand.Rand, n int, deviation float64) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64() * deviation)
	}
	return v
}

// drawMargin is the least margin at which a float32 Backend must draw the
// Oracle's token from the same logits.
const drawMargin = 2e-4

// decided redraws the logits of c until its token is beyond rounding.
func (c *drawCase) decided(rng *rand.Rand, sampleVocab int, history History) {
	for {
		z := make([]float64, len(c.logits))
		for i, v := range c.logits {
			z[i] = float64(v)
		}
		if _, margin := Draw(z, sampleVocab, &c.Sampling, history, c.mask, c.position); margin >= drawMargin {
			return
		}
		c.logits = normals(rng, len(c.logits), 3)
	}
}

// reset gives rows 0, 1, … to the cases.
func (p *pair) reset(cases []drawCase) {
	var updates []kernels.RowUpdate
	for i, c := range cases {
		updates = append(updates, kernels.RowUpdate{
			Row: int32(i), Reset: true, Sampling: c.Sampling, Prompt: c.prompt, Output: c.output, Blocks: []int32{1},
		})
	}
	p.each(func(b kernels.Backend, _ []kernels.Weight) { b.UpdateRows(updates) })
}

// draw runs a step that only samples: entry i of order draws for row order[i],
// from the Logits row of that index. With cases of unequal history the rows
// must have been reset before.
func (p *pair) draw(cases []drawCase, order []int) (got, want *kernels.Result) {
	return p.drawAndCheck(cases, order, 0)
}

// drawAndCheck is draw whose last entries, so many, are checks.
func (p *pair) drawAndCheck(cases []drawCase, order []int, checks int) (got, want *kernels.Result) {
	n := len(cases)
	batch := &kernels.Batch{QueryStart: []int32{0}, NumDecodes: n}
	logits := make([]float32, 0, n*p.shape.Vocab)
	for i, c := range cases {
		batch.Tokens = append(batch.Tokens, 0)
		batch.Rows = append(batch.Rows, int32(i))
		batch.QueryStart = append(batch.QueryStart, int32(i)+1)
		batch.SeqLens = append(batch.SeqLens, 1)
		batch.LogitRows = append(batch.LogitRows, int32(i))
		logits = append(logits, c.logits...)
	}
	sample := &kernels.SampleBatch{Checks: checks}
	for _, i := range order {
		sample.Index = append(sample.Index, int32(i))
		sample.Rows = append(sample.Rows, int32(i))
		sample.Positions = append(sample.Positions, cases[i].position)
		sample.Masks = append(sample.Masks, cases[i].mask)
	}
	if !slices.ContainsFunc(sample.Masks, func(m []uint32) bool { return m != nil }) {
		sample.Masks = nil
	}
	p.poison(kernels.Logits)
	var results []*kernels.Result
	p.each(func(b kernels.Backend, _ []kernels.Weight) {
		b.Launch(batch, func() {})
		b.WriteActivation(kernels.Logits, logits)
		res, err := b.Wait(b.Sample(sample))
		require.NoError(p.t, err)
		results = append(results, res)
	})
	return results[0], results[1]
}

// everyRow is 0 … n−1.
func everyRow(n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	return order
}

// equalDraws requires the Oracle's results for the entries in order.
func (p *pair) equalDraws(cases []drawCase, order []int, got, want *kernels.Result) {
	p.t.Helper()
	require.Equal(p.t, want.Tokens, got.Tokens)
	top := p.limits.MaxTopLogprobs
	near := func(want, got float32) {
		p.t.Helper()
		if math.IsInf(float64(want), -1) {
			require.Equal(p.t, want, got)
			return
		}
		require.InDelta(p.t, want, got, 2e-5+2e-6*math.Abs(float64(want)))
	}
	for i, row := range order {
		k := int(cases[row].Logprobs)
		if k < 0 || want.Tokens[i] == kernels.InvalidToken {
			continue
		}
		near(want.Logprobs[i], got.Logprobs[i])
		require.Equal(p.t, want.Ranks[i], got.Ranks[i], "rank of entry %d", i)
		require.Equal(p.t, want.TopIDs[i*top:i*top+k], got.TopIDs[i*top:i*top+k], "likeliest of entry %d", i)
		for j := range k {
			near(want.TopLogprobs[i*top+j], got.TopLogprobs[i*top+j])
		}
	}
}
