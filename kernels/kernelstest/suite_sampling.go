package kernelstest

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// samplerPair is a pair with room for rows to draw from.
func (s *suite) samplerPair(t *testing.T, vocab, sampleVocab, rows int) *pair {
	shape := tiny.shape()
	shape.Vocab, shape.SampleVocab = vocab, sampleVocab
	return s.newPair(t, shape, limitsFor(rows, rows, 16, 16), 3)
}

func (s *suite) sampling(t *testing.T) {
	t.Run("pairs", s.optionPairs)
	t.Run("greedy_ties", s.greedyTies)
	t.Run("filter_ties", s.filterTies)
	t.Run("extremes", s.extremes)
	t.Run("sample_vocab", s.sampleVocab)
	t.Run("logprobs", s.logprobs)
	t.Run("many_logprobs", s.manyLogprobs)
	t.Run("neighbours", s.neighbours)
	t.Run("not_a_number", s.notANumber)
	t.Run("checks", s.checks)
	t.Run("distribution", s.distribution)
	t.Run("large_vocabulary", s.largeVocabulary)
	t.Run("many_rows", s.manyRows)
}

// optionPairs draws with every option alone and every pair of them, greedy and
// not, three tokens in a row so that counts advance.
func (s *suite) optionPairs(t *testing.T) {
	for i, first := range options {
		for j, second := range options[i:] {
			name, vocab := first.name, tiny.vocab
			if j > 0 {
				name += "+" + second.name
			}
			if (i+j)%2 == 1 {
				vocab = 1000
			}
			t.Run(name, func(t *testing.T) {
				p := s.samplerPair(t, vocab, 0, 12)
				var cases []drawCase
				for n := range 12 {
					c := newCase(p.rng, vocab, []float32{0.8, 0, 1.6, 0.3}[n%4])
					first.apply(&c, p.rng)
					if j > 0 {
						second.apply(&c, p.rng)
					}
					c.Logprobs = []int32{-1, 0, 5}[n%3]
					cases = append(cases, c)
				}
				s.drawThrice(p, cases)
			})
		}
	}
}

// drawThrice draws three tokens a row; each becomes part of its history.
func (s *suite) drawThrice(p *pair, cases []drawCase) {
	p.reset(cases)
	histories := make([]History, len(cases))
	for i := range cases {
		histories[i] = cases[i].history()
	}
	for range 3 {
		for i := range cases {
			cases[i].decided(p.rng, p.shape.SampleVocab, histories[i])
		}
		order := p.rng.Perm(len(cases))
		got, want := p.draw(cases, order)
		p.equalDraws(cases, order, got, want)
		for i, row := range order {
			histories[row].Output[want.Tokens[i]]++
			cases[row].position++
		}
	}
}

// greedyTies: the lower id wins, wherever the equals stand.
func (s *suite) greedyTies(t *testing.T) {
	for _, vocab := range []int{257, 1000} {
		p := s.samplerPair(t, vocab, 0, 40)
		cases := make([]drawCase, 40)
		for i := range cases {
			c := newCase(p.rng, vocab, 0)
			for range i % 4 * 2 {
				c.logits[p.rng.IntN(vocab)] = 50
			}
			switch {
			case i%10 == 0: // all equal
				c.logits = slices.Repeat([]float32{-3}, vocab)
			case i%10 == 1: // the only larger one is the last
				c.logits = slices.Repeat([]float32{-3}, vocab)
				c.logits[vocab-1] = -2
			case i%10 == 2: // zeros of both signs are equal
				c.logits = slices.Repeat([]float32{float32(math.Copysign(0, -1))}, vocab)
				c.logits[vocab/2] = 0
			}
			if i%5 == 4 {
				options[7].apply(&c, p.rng) // a mask
			}
			cases[i] = c
		}
		p.reset(cases)
		got, want := p.draw(cases, everyRow(len(cases)))
		require.Equal(t, want.Tokens, got.Tokens)
	}
}

// filterTies draws from integer logits, where filters must cut between equals.
func (s *suite) filterTies(t *testing.T) {
	for _, vocab := range []int{257, 1000, 20_001} {
		p := s.samplerPair(t, vocab, 0, 48)
		var cases []drawCase
		for len(cases) < 48 {
			c := newCase(p.rng, vocab, 1.25)
			for i, z := range c.logits {
				c.logits[i] = float32(math.Round(float64(z)))
			}
			switch len(cases) % 4 {
			case 0: // past the zeros, of both signs
				c.TopK = int32(2 + p.rng.IntN(vocab*2/3))
			case 1:
				c.TopP = float32(0.05 + 0.9*p.rng.Float64())
			case 2:
				c.TopK, c.TopP = int32(2+p.rng.IntN(60)), 0.7
				if len(cases)%8 == 6 && vocab > 300 {
					c.TopK = int32(300 + p.rng.IntN(vocab-300))
				}
			case 3: // flat, zeros of both signs: the first ids are kept
				for i := range c.logits {
					c.logits[i] = float32(math.Copysign(0, p.rng.Float64()-0.5))
				}
				if c.TopP = float32(0.05 + 0.9*p.rng.Float64()); len(cases)%8 == 3 {
					c.TopP, c.TopK = 0, int32(2+p.rng.IntN(vocab/2))
				}
			}
			z := make([]float64, vocab)
			for i, v := range c.logits {
				z[i] = float64(v)
			}
			if _, margin := Draw(z, 0, &c.Sampling, c.history(), nil, c.position); margin >= drawMargin {
				cases = append(cases, c)
			}
		}
		p.reset(cases)
		got, want := p.draw(cases, everyRow(len(cases)))
		p.equalDraws(cases, everyRow(len(cases)), got, want)
	}
}

// extremes are the ends of every parameter's range.
func (s *suite) extremes(t *testing.T) {
	inf := float32(math.Inf(-1))
	edits := []func(c *drawCase){
		func(c *drawCase) { c.TopK = 1 },
		func(c *drawCase) { c.TopK = int32(len(c.logits)) },
		func(c *drawCase) { c.TopK = math.MaxInt32 },
		func(c *drawCase) { c.TopP = 1e-6 },
		func(c *drawCase) { c.TopP = 1 },
		func(c *drawCase) { c.TopP = 0.9999 },
		func(c *drawCase) { c.MinP = 1 },
		func(c *drawCase) { c.MinP = 1e-9 },
		func(c *drawCase) { c.Temperature = 0.01 },
		func(c *drawCase) { c.Temperature = 100 },
		func(c *drawCase) { c.Temperature, c.TopK, c.TopP, c.MinP = 0.05, 50, 0.99, 0.001 },
		func(c *drawCase) { c.RepetitionPenalty = 1 },
		func(c *drawCase) { c.MinTokens, c.StopIDs = 1000, likeliest(c.logits, 30) },
		func(c *drawCase) { c.MinTokens, c.StopIDs = c.position-c.PromptLen, likeliest(c.logits, 30) },
		func(c *drawCase) { c.LogitBias = []kernels.TokenBias{{ID: 0, Bias: 100}, {ID: 5, Bias: -100}} },
		func(c *drawCase) { // one id is possible
			for i := range c.logits {
				c.logits[i] = inf
			}
			c.logits[len(c.logits)-1] = -7
			c.TopK, c.TopP, c.MinP = 3, 0.5, 0.5
		},
		func(c *drawCase) { // the mask leaves the last id
			c.mask = make([]uint32, (len(c.logits)+31)/32)
			c.mask[(len(c.logits)-1)/32] = 1 << ((len(c.logits) - 1) % 32)
		},
		func(c *drawCase) { // large and far apart
			for i := range c.logits {
				c.logits[i] *= 1e4
			}
		},
		func(c *drawCase) { // half impossible
			for i := range c.logits[:len(c.logits)/2] {
				c.logits[i] = inf
			}
			c.TopK, c.Seed, c.Choice = int32(len(c.logits)), math.MaxUint64, math.MaxInt32
		},
	}
	p := s.samplerPair(t, 1000, 0, len(edits))
	cases := make([]drawCase, len(edits))
	for i, edit := range edits {
		for margin := 0.0; margin < drawMargin; {
			cases[i] = newCase(p.rng, 1000, 0.9)
			cases[i].Logprobs = 3
			edit(&cases[i])
			z := make([]float64, 1000)
			for j, v := range cases[i].logits {
				z[j] = float64(v)
			}
			_, margin = Draw(z, 0, &cases[i].Sampling, cases[i].history(), cases[i].mask, cases[i].position)
		}
	}
	p.reset(cases)
	got, want := p.draw(cases, everyRow(len(cases)))
	p.equalDraws(cases, everyRow(len(cases)), got, want)
}

// sampleVocab: ids that the tokenizer lacks are not drawn, but have logprobs.
func (s *suite) sampleVocab(t *testing.T) {
	for _, temperature := range []float32{0, 1} {
		p := s.samplerPair(t, 257, 201, 16)
		cases := make([]drawCase, 16)
		for i := range cases {
			c := newCase(p.rng, 257, temperature)
			c.Logprobs = 20
			c.decided(p.rng, 201, c.history())
			for id := 201; id < 257; id++ {
				c.logits[id] += 20
			}
			cases[i] = c
		}
		p.reset(cases)
		got, want := p.draw(cases, everyRow(16))
		p.equalDraws(cases, everyRow(16), got, want)
		require.Less(t, slices.Max(got.Tokens), int32(201))
	}
}

// logprobs are of the raw logits, whatever else is on.
func (s *suite) logprobs(t *testing.T) {
	p := s.samplerPair(t, 1000, 0, 21)
	cases := make([]drawCase, 21)
	for i := range cases {
		c := newCase(p.rng, 1000, 1.1)
		c.Logprobs = int32(i)
		for j := range c.logits { // ties among the likeliest
			if c.logits[j] > 6 {
				c.logits[j] = 6
			}
		}
		c.RepetitionPenalty, c.TopK = 1.5, 40
		options[6].apply(&c, p.rng)
		cases[i] = c
	}
	p.reset(cases)
	got, want := p.draw(cases, everyRow(21))
	for i := range cases { // the draw itself may hang on rounding here
		if got.Tokens[i] != want.Tokens[i] {
			cases[i].Logprobs = -1
			got.Tokens[i] = want.Tokens[i]
		}
	}
	p.equalDraws(cases, everyRow(21), got, want)
}

// manyLogprobs are as many as an engine allows.
func (s *suite) manyLogprobs(t *testing.T) {
	shape, limits := tiny.shape(), limitsFor(3, 3, 16, 16)
	shape.Vocab, limits.MaxTopLogprobs = 2000, 1024
	p := s.newPair(t, shape, limits, 3)
	cases := make([]drawCase, 3)
	for i := range cases {
		cases[i] = newCase(p.rng, 2000, 0)
		cases[i].Logprobs = []int32{300, 600, 1024}[i]
	}
	p.reset(cases)
	got, want := p.draw(cases, everyRow(3))
	p.equalDraws(cases, everyRow(3), got, want)
}

// largeVocabulary is Qwen2.5's, whose length is not that of a mask word.
func (s *suite) largeVocabulary(t *testing.T) {
	const vocab = 151936 - 7
	temperatures := []float32{0, 0.7, 1, 1, 1, 2, 2, 2, 1.5, 1.5, 1}
	p := s.samplerPair(t, vocab, vocab-250, len(temperatures))
	cases := make([]drawCase, len(temperatures))
	for i := range cases {
		c := newCase(p.rng, vocab, temperatures[i])
		c.Logprobs = 20
		switch i {
		case 1:
			c.TopK, c.TopP = 20, 0.8
		case 2:
			c.TopP = 0.95
		case 3:
			c.MinP, c.TopK = 0.001, 3000
		case 4:
			options[7].apply(&c, p.rng)
		case 6: // leaves out most of what is likeliest to be drawn
			c.TopP = 0.1
		case 7:
			c.TopP, c.TopK = 0.5, 2000
		case 8:
			c.TopP, c.MinP = 0.6, 0.01
		case 9:
			c.TopP = 0.3
			options[7].apply(&c, p.rng)
		case 10:
			c.TopK, c.MinP = 400, 1e-4
		}
		c.decided(p.rng, vocab-250, c.history())
		cases[i] = c
	}
	p.reset(cases)
	got, want := p.draw(cases, everyRow(len(cases)))
	p.equalDraws(cases, everyRow(len(cases)), got, want)
}

// manyRows are more than a device works on at a time, greedy and not, with each option and without, some with log
// probabilities, in any order.
func (s *suite) manyRows(t *testing.T) {
	const rows = 700
	p := s.samplerPair(t, 257, 0, rows)
	cases := make([]drawCase, rows)
	for i := range cases {
		cases[i] = newCase(p.rng, 257, []float32{0.8, 0, 1.4}[i%3])
		if option := i % (len(options) + 1); option > 0 {
			options[option-1].apply(&cases[i], p.rng)
		}
		if i%7 == 0 {
			cases[i].Logprobs = 4
		}
	}
	s.drawThrice(p, cases)
}
