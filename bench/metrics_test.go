package bench

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPercentileInterpolatesLikeNumpy(t *testing.T) {
	values := []float64{1, 2, 3, 10}
	require.InDelta(t, 2.5, Percentile(values, 50), 1e-12)
	require.InDelta(t, 7.9, Percentile(values, 90), 1e-12)
	require.InDelta(t, 10, Percentile(values, 100), 1e-12)
	require.InDelta(t, 1, Percentile(values, 0), 1e-12)
}

func TestSummarize(t *testing.T) {
	ms := func(values ...int) (d []time.Duration) {
		for _, v := range values {
			d = append(d, time.Duration(v)*time.Millisecond)
		}
		return d
	}
	s := Summarize([]Sample{
		{Submitted: ms(100)[0], Tokens: ms(150, 160, 180), Ended: ms(180)[0], PromptTokens: 10},
		{Submitted: ms(110)[0], Tokens: ms(210), Ended: ms(210)[0], PromptTokens: 20, CachedTokens: 16},
		{Submitted: ms(0)[0], Ended: ms(900)[0], Err: errors.New("refused")},
	})
	require.Equal(t, 2, s.Completed)
	require.Equal(t, 1, s.Failed)
	require.Equal(t, 110*time.Millisecond, s.Duration, "the failed request does not count")
	require.InDelta(t, 4/0.110, s.OutputThroughput, 1e-9)
	require.InDelta(t, 34/0.110, s.TotalThroughput, 1e-9)
	require.InDelta(t, 75, s.TTFT.Mean, 1e-9)
	require.Equal(t, 1, s.TPOT.N, "a single token has no time per output token")
	require.InDelta(t, 15, s.TPOT.Mean, 1e-9)
	require.InDelta(t, 15, s.ITL.Median, 1e-9)
	require.InDelta(t, 90, s.E2ELatency.Median, 1e-9)
	require.Equal(t, 16, s.CachedTokens)
}

func TestRandomWorkloadIsReproducible(t *testing.T) {
	a := RandomWorkload(7, 50, 1000, 20, 8, Uniform(10, 30))
	require.Equal(t, a, RandomWorkload(7, 50, 1000, 20, 8, Uniform(10, 30)))
	require.NotEqual(t, a, RandomWorkload(8, 50, 1000, 20, 8, Uniform(10, 30)))
	var last time.Duration
	for _, job := range a {
		require.Equal(t, a[0].Prompt[:8], job.Prompt[:8])
		require.GreaterOrEqual(t, len(job.Prompt), 10)
		require.GreaterOrEqual(t, job.At, last)
		last = job.At
	}
	require.InDelta(t, 2.4, last.Seconds(), 0.1, "50 arrivals at 20 a second, whatever the seed")
	b := RandomWorkload(8, 50, 1000, 20, 8, Uniform(10, 30))
	require.InDelta(t, 2.4, b[49].At.Seconds(), 0.1)
}
