package engine

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOnlyIDsThatAreDrawn: a constraint that leaves nothing but ids that the tokenizer lacks is at fault itself. It is
// not taken for numbers that are none, for which everybody's cached prefixes are forgotten.
func TestOnlyIDsThatAreDrawn(t *testing.T) {
	e := openTiny(t, func(c *Config) { c.SampleVocab = 290 })
	mask := func(mask []uint32) (bool, error) {
		clear(mask)
		mask[295/32] = 1 << (295 % 32)
		return false, nil
	}
	shared := Request{Prompt: prompt(1, 48), MaxTokens: 1}
	for range 2 {
		s, err := e.Submit(context.Background(), shared)
		require.NoError(t, err)
		_, _ = readAll(t, s)
		s, err = e.Submit(context.Background(), Request{Prompt: prompt(2, 20), MaxTokens: 2, Constrain: constrain(&scripted{mask: mask})})
		require.NoError(t, err)
		_, last := readAll(t, s)
		require.ErrorIs(t, last.Err, ErrConstraint)
	}
	require.Positive(t, e.Stats().PrefixHits)
}

// TestNoRequestLooksLikeABrokenModel: whatever a request forbids, biases or cuts, by the sampler that
// serves, it gets a token, an end or an error of its own; the prefixes that others share stay.
func TestNoRequestLooksLikeABrokenModel(t *testing.T) {
	ids := func(n int32) (ids []int32) {
		for id := range n {
			ids = append(ids, id)
		}
		return ids
	}
	var biases []TokenBias
	for _, id := range ids(100) {
		biases = append(biases, TokenBias{ID: id, Bias: -MaxBias})
	}
	masked := func(ids ...int32) func() (Constraint, error) {
		return constrain(&scripted{mask: func(mask []uint32) (bool, error) {
			clear(mask)
			for _, id := range ids {
				mask[id/32] |= 1 << (id % 32)
			}
			return false, nil
		}})
	}
	for _, async := range []string{"off", "on"} {
		e := openTiny(t, func(c *Config) { c.SampleVocab, c.AsyncScheduling = 100, async })
		shared := Request{Prompt: prompt(1, 48), MaxTokens: 1}
		run := func(r Request) ([]int32, Event) {
			s, err := e.Submit(t.Context(), r)
			if err != nil {
				return nil, Event{Err: err}
			}
			return readAll(t, s)
		}
		run(shared)
		for name, c := range map[string]struct {
			r    Request
			want error
			says string
		}{
			"all ids end it, and none may":   {Request{StopIDs: ids(100), Sampling: Sampling{MinTokens: 1}}, ErrInvalid, "min_tokens"},
			"likewise, some twice":           {Request{StopIDs: append(ids(100), ids(20)...), Sampling: Sampling{MinTokens: 4}}, ErrInvalid, "min_tokens"},
			"all ids end it":                 {Request{StopIDs: ids(100)}, nil, ""},
			"all ids but one end it":         {Request{StopIDs: ids(99), Sampling: Sampling{MinTokens: 4}}, nil, ""},
			"as many, but not all":           {Request{StopIDs: append(ids(99), 100, 101), Sampling: Sampling{MinTokens: 4}}, nil, ""},
			"none is allowed":                {Request{Constrain: masked()}, ErrConstraint, "no token"},
			"only what is never drawn":       {Request{Constrain: masked(100, 299)}, ErrConstraint, "no token"},
			"only what ends it, too early":   {Request{StopIDs: []int32{7}, Sampling: Sampling{MinTokens: 4}, Constrain: masked(7, 299)}, nil, ""},
			"only one":                       {Request{Constrain: masked(7)}, nil, ""},
			"only the one that is disliked":  {Request{Constrain: masked(7), Sampling: Sampling{Temperature: 1, LogitBias: biases}}, nil, ""},
			"all are disliked":               {Request{Sampling: Sampling{LogitBias: biases, PresencePenalty: 2, FrequencyPenalty: 2, RepetitionPenalty: 100}}, nil, ""},
			"all are disliked and repeated":  {Request{Sampling: Sampling{Temperature: 1, LogitBias: biases, RepetitionPenalty: 0.01}}, nil, ""},
			"everything is cut":              {Request{Sampling: Sampling{Temperature: minTemperature, TopK: 1, TopP: 1e-30, MinP: 1}}, nil, ""},
			"everything is cut, though flat": {Request{Sampling: Sampling{Temperature: 1e30, TopK: 1, TopP: 1e-30, MinP: 1}}, nil, ""},
		} {
			c.r.Prompt, c.r.MaxTokens, c.r.Sampling.Logprobs = prompt(2, 20), 5, -1
			_, last := run(c.r)
			if c.want == nil {
				require.NoError(t, last.Err, name)
			} else {
				require.ErrorIs(t, last.Err, c.want, name)
				require.ErrorContains(t, last.Err, c.says, name)
			}
			_, last = run(shared)
			require.Equal(t, 32, last.CachedTokens, "%s: the prefix is forgotten", name)
		}
	}
}
