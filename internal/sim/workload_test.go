package sim

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWorkload(t *testing.T) {
	w := everything(20000, 1)
	w.Turns, w.ForkShare, w.PrefixShare, w.MaxTokens = 1, 0.25, 0, 0
	g, err := newGenerator(w, 8192)
	require.NoError(t, err)
	var prompts, outputs []float64
	forks, impatient := 0, 0
	var last time.Duration
	for {
		if _, ok := g.peek(); !ok {
			break
		}
		a := g.next()
		require.GreaterOrEqual(t, a.at, last)
		last = a.at
		prompts, outputs = append(prompts, float64(len(a.prompt))), append(outputs, float64(a.outputs[0]))
		if len(a.outputs) == 4 {
			forks++
		}
		if a.patience > 0 {
			impatient++
		}
		require.Less(t, len(a.prompt), a.maxLen)
		require.LessOrEqual(t, a.maxLen, 8192)
	}
	require.Len(t, prompts, 20000)
	mean := func(v []float64) (sum float64) {
		for _, x := range v {
			sum += x / float64(len(v))
		}
		return sum
	}
	p95 := func(v []float64) float64 { slices.Sort(v); return v[len(v)*95/100] }
	require.InEpsilon(t, 220, mean(prompts), 0.05)
	require.InEpsilon(t, 800, p95(prompts), 0.08)
	require.InEpsilon(t, 200, mean(outputs), 0.05)
	require.InEpsilon(t, 600, p95(outputs), 0.08)
	require.InEpsilon(t, 5000, forks, 0.1)
	require.InEpsilon(t, 2000, impatient, 0.1)
	require.InEpsilon(t, 20000/60.0, last.Seconds(), 0.1)

	w.MaxTokens = 50
	g, err = newGenerator(w, 8192)
	require.NoError(t, err)
	for range 100 {
		a := g.next()
		require.Equal(t, len(a.prompt)+50, a.maxLen, "what it asks for")
		require.LessOrEqual(t, slices.Max(a.outputs), 50, "what it gets")
	}

	for name, bad := range map[string]Workload{
		"nothing": {}, "rate": {Requests: 1, Rate: -1}, "share": {Requests: 1, AbortShare: 1.1}, "burst": {Requests: 1, Burstiness: -1},
		"lengths": {Requests: 1, Prompt: Lengths{10, 5}}, "tail": {Requests: 1, Output: Lengths{10, 100}}, "n": {Requests: 1, N: -1},
		"prefix": {Requests: 1, PrefixLen: math.MaxInt}, "max_tokens": {Requests: 1, MaxTokens: math.MaxInt},
	} {
		_, err := Simulate(context.Background(), small(10, 0), bad)
		require.ErrorIs(t, err, ErrConfig, name)
	}
}

// TestGamma: mean and variance of the standard gamma are its shape.
func TestGamma(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, shape := range []float64{0.2, 1, 3} {
		var sum, squares float64
		const n = 200000
		for range n {
			x := Gamma(r, shape)
			sum, squares = sum+x, squares+x*x
		}
		mean := sum / n
		require.InEpsilon(t, shape, mean, 0.03)
		require.InEpsilon(t, shape, squares/n-mean*mean, 0.05)
	}
}

// TestSharedPrefixes: families share their prefixes and nothing else.
func TestSharedPrefixes(t *testing.T) {
	w := Workload{Requests: 100, Families: 2, PrefixLen: 64, PrefixShare: 1}
	g, err := newGenerator(w, 1000)
	require.NoError(t, err)
	starts := map[int32]int{}
	for range 100 {
		a := g.next()
		if len(a.prompt) > 64 {
			starts[a.prompt[63]]++
		}
	}
	require.Len(t, starts, 2)
}

// TestHistogram against sorted values.
func TestHistogram(t *testing.T) {
	var h histogram
	r := rand.New(rand.NewPCG(3, 4))
	var values []float64
	for range 50000 {
		v := time.Duration(math.Exp(r.NormFloat64()*3 + 10))
		h.add(v)
		values = append(values, float64(v))
	}
	slices.Sort(values)
	for _, q := range []float64{0, 0.1, 0.5, 0.9, 0.99, 1} {
		want := values[int(q*float64(len(values)-1))]
		require.InDelta(t, want, h.quantile(q), want*0.02+1, "%v", q)
	}
	require.InEpsilon(t, values[len(values)-1], float64(h.max), 1e-9)
	for _, v := range []time.Duration{0, 1, 127, 128, 129, 1 << 20, math.MaxInt64} {
		low, high := bounds(bucket(v))
		require.LessOrEqual(t, low, float64(v))
		require.True(t, float64(v) < high || v == math.MaxInt64)
	}
	require.Zero(t, (&histogram{}).describe())
	var one histogram
	one.add(12345678)
	require.InEpsilon(t, 12.345678, one.describe().Median, 1e-9)
}
