package main

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCompareEqual(t *testing.T) {
	logits := [][]float32{{1, 3, 2}, {0, -1, -2}}
	c, err := compare(logits, logits)
	require.NoError(t, err)
	require.Equal(t, comparison{positions: 2, agreeing: 2}, c)
	require.True(t, c.within(tolerance{}))
}

func TestCompareFindsLargestDeltaAndFirstDifference(t *testing.T) {
	want := [][]float32{{1, 3, 2}, {5, 4.5, 0}, {0, 1, 0}}
	got := [][]float32{{1, 3, 2}, {4.75, 5, 0}, {0, 1, 0.25}}
	c, err := compare(want, got)
	require.NoError(t, err)
	require.Equal(t, 0.5, c.maxDelta)
	require.Equal(t, 1, c.maxAt)
	require.Equal(t, 2, c.agreeing)
	require.Equal(t, &difference{position: 1, want: 0, got: 1, gap: 0.5}, c.first)
	require.True(t, c.within(tolerance{logit: 0.5, logprob: 1}))
	require.False(t, c.within(tolerance{logit: 0.49, logprob: 1}))
}

// A shift of all logits leaves probabilities alone: only the logits differ.
func TestCompareMeanLogprob(t *testing.T) {
	want := [][]float32{{2, 1, 0}}
	c, err := compare(want, [][]float32{{3, 2, 1}})
	require.NoError(t, err)
	require.InDelta(t, 0, c.meanLogprob, 1e-9)
	require.Equal(t, 1.0, c.maxDelta)

	c, err = compare(want, [][]float32{{2, 2, 0}})
	require.NoError(t, err)
	// log softmax of {2,1,0} at 0 minus that of {2,2,0} at 0.
	expected := math.Log(1+1+math.Exp(-2)) - math.Log(1+math.Exp(-1)+math.Exp(-2))
	require.InDelta(t, expected, c.meanLogprob, 1e-9)
	require.True(t, c.within(tolerance{logit: 1, logprob: expected + 1e-9}))
	require.False(t, c.within(tolerance{logit: 1, logprob: expected - 1e-9}))
}

func TestCompareRefusesWhatIsNotANumberOrMisshapen(t *testing.T) {
	want := [][]float32{{1, 2}}
	c, err := compare(want, [][]float32{{1, float32(math.NaN())}})
	require.NoError(t, err)
	require.False(t, c.within(tolerance{logit: 1e9, logprob: 1e9}))

	_, err = compare(want, nil)
	require.ErrorContains(t, err, "0 positions, expected 1")
	_, err = compare(want, [][]float32{{1, 2, 3}})
	require.ErrorContains(t, err, "3 logits, expected 2")
}

func TestWriteTableCountsFailures(t *testing.T) {
	var out strings.Builder
	failed, err := writeTable(&out, []comparison{
		{positions: 4, maxDelta: 0.01, agreeing: 4},
		{positions: 4, maxDelta: 2, maxAt: 3, agreeing: 3, first: &difference{3, 17, 18, 0.5}},
	}, tolerance{logit: 0.1, logprob: 0.1})
	require.NoError(t, err)
	require.Equal(t, 1, failed)
	require.Contains(t, out.String(), "at 3: 18, expected 17 (gap 0.5000)")
	require.Contains(t, out.String(), "FAIL")
}
