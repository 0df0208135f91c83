package bench

import (
	"math"
	"strings"
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

// TestHighestLoad: that more may come beyond is said of the largest load, in whatever order loads were given, and
// never of one without a bound.
func TestHighestLoad(t *testing.T) {
	result := func(rate, throughput float64) ServeCell {
		res := knownRun().Result(nil)
		res.OutputThroughput = throughput
		return ServeCell{Load: ServeLoad{RequestRate: rate}, Results: []*ServeResult{res}}
	}
	for want, cells := range map[string][]ServeCell{
		"4, first":     {result(4, 9), result(2, 5)},
		"not 2, last":  {result(4, 5), result(2, 9)},
		"not inf":      {result(4, 5), result(AtOnce, 9)},
		"not 4 of inf": {result(AtOnce, 5), result(4, 9)},
	} {
		verdict := ServeReport(cells, nil, ServeOptions{Model: "m"}).Verdict
		require.Equal(t, want == "4, first", strings.Contains(verdict, "highest load tried"), "%s: %s", want, verdict)
	}
}

// A repeat that was cut is no measurement of a load that has whole ones.
func TestServeReportLeavesOutACutRepeat(t *testing.T) {
	whole, cut := knownRun().Result(nil), knownRun().Result(nil)
	cut.OutputThroughput, cut.Unfinished = 0.1, 4
	o := ServeOptions{Model: "m", Load: ServeLoad{RequestRate: AtOnce}}
	r := ServeReport([]ServeCell{{Load: o.Load, Results: []*ServeResult{whole, whole, cut}}}, nil, o)
	require.Equal(t, []float64{2.5, 2.5}, r.Cells[0].Metrics["output_throughput"].Runs)
	require.Contains(t, r.Notes, "Interrupted: the last repeat was cut and is left out.")
	require.NotContains(t, r.Columns, "unfinished")
}
