package bench

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGridOfLoads: a sweep over rates and concurrencies has a line a rate, each over the
// concurrencies in order, however they were given.
func TestGridOfLoads(t *testing.T) {
	var cells []ServeCell
	for _, rate := range []float64{8, 32, AtOnce} {
		for _, n := range []int{4, 1, 16} {
			one, two := knownRun().Result(nil), knownRun().Result(nil)
			one.OutputThroughput = math.Min(20*rate, 150*math.Sqrt(float64(n)))
			two.OutputThroughput = 1.1 * one.OutputThroughput
			cells = append(cells, ServeCell{Load: ServeLoad{RequestRate: rate, MaxConcurrency: n}, Results: []*ServeResult{one, two}})
		}
	}
	r := ServeReport(cells, nil, ServeOptions{Model: "m"})
	require.NoError(t, r.Write(t.TempDir()))
	var names []string
	for _, p := range r.Plots {
		names = append(names, p.Name)
		require.Len(t, p.Series, 3, p.Name)
		for i, rate := range []string{"8", "32", "inf"} {
			require.Equal(t, "request-rate "+rate, p.Series[i].Name)
			require.Equal(t, []float64{1, 4, 16}, p.Series[i].X, p.Name)
		}
	}
	require.Equal(t, []string{"throughput", "ttft", "ttft-p99", "itl", "itl-p99"}, names)
	require.InDeltaSlice(t, []float64{157.5, 315, 630}, r.Plots[0].Series[2].Y, 1e-9)
}

// TestEqualLoads: a load that was given twice is no sweep.
func TestEqualLoads(t *testing.T) {
	cell := ServeCell{Load: ServeLoad{RequestRate: 4}, Results: []*ServeResult{knownRun().Result(nil)}}
	r := ServeReport([]ServeCell{cell, cell}, nil, ServeOptions{Model: "m"})
	require.NoError(t, r.Write(t.TempDir()))
	require.NotContains(t, r.Verdict, "Most at")
}
