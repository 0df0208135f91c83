package main

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// shifted answers with the reference's logits, one of them off by delta.
type shifted struct {
	logits map[int][][]float32 // by prompt length
	delta  float32
}

func (s shifted) logitsOf(_ context.Context, ids []int32) ([][]float32, error) {
	rows, ok := s.logits[len(ids)]
	if !ok {
		return nil, errors.New("no such prompt")
	}
	last := append([]float32{}, rows[len(rows)-1]...)
	last[0] += s.delta
	return append(append([][]float32{}, rows[:len(rows)-1]...), last), nil
}

func (shifted) close() {}

func TestCompareAllFindsTheShiftedLogit(t *testing.T) {
	ref, err := openReference("../../testdata/golden/tiny-tied", nil)
	require.NoError(t, err)
	defer ref.close()
	prompts, err := makePrompts("../../testdata/golden/tiny-tied", 3, 9, ref.cfg.Vocab)
	require.NoError(t, err)
	require.Len(t, prompts, 3)
	require.Len(t, prompts[0], 3)
	require.Len(t, prompts[2], 9)
	want, err := ref.logits(t.Context(), prompts)
	require.NoError(t, err)

	source := shifted{logits: map[int][][]float32{}, delta: 0.75}
	for i, ids := range prompts {
		source.logits[len(ids)] = want[i]
	}
	list, err := compareAll(t.Context(), source, prompts, want)
	require.NoError(t, err)
	for i, c := range list {
		require.InDelta(t, 0.75, c.maxDelta, 1e-5)
		require.Equal(t, len(prompts[i])-1, c.maxAt)
		require.False(t, c.within(tolerance{logit: 0.5, logprob: 10}))
	}

	_, err = compareAll(t.Context(), shifted{}, prompts, want)
	require.EqualError(t, err, "prompt 1: no such prompt")
}

func TestOptionsAreChecked(t *testing.T) {
	for _, args := range [][]string{
		{}, {"a", "b"}, {"a", "--prompts", "0"}, {"a", "--tokens", "0"}, {"a", "--chunk", "0"}, {"a", "--threads", "-1"}, {"a", "--nonsense"},
	} {
		cmd := command()
		cmd.SetArgs(args)
		err := cmd.ExecuteContext(t.Context())
		require.Error(t, err, "%v", args)
		require.Equal(t, 2, exitCode(err), "%v", args)
	}
}
