package bench

import (
	"bytes"
	"encoding/json"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sampleReport is a report with everything that one can hold.
func sampleReport() *Report {
	cell := func(seqs int, scale float64) Cell {
		runs := func(v float64) []float64 { return []float64{v * scale, v * scale * 1.02, v * scale * 0.97} }
		return Cell{Params: map[string]any{"max_num_seqs": seqs, "batch_size": 32}, Metrics: map[string]Metric{
			"output_throughput": NewMetric("tokens/s", runs(1234)),
			"median_ttft_ms":    NewMetric("ms", runs(21.5)),
			"p99_itl_ms":        NewMetric("ms", runs(9.04)),
			"num_preemptions":   NewMetric("", []float64{0, 0, 0}),
			"gpu_utilization":   NewMetric("share", []float64{0.93, 0.95, 0.94}),
			"swap_out_bytes":    NewMetric("bytes", []float64{3 << 30}),
		}}
	}
	lines := Plot{
		Name: "throughput", Title: "Throughput by max_num_seqs", XLabel: "max_num_seqs", YLabel: "output tokens/s", LogX: true,
		Caption: "More sequences pay until the pool binds.",
		Series: []Series{
			{Name: "swap", X: []float64{64, 128, 256, 512, 1024}, Y: []float64{7678, 10421, 11756, 12208, 12233},
				Low: []float64{7500, 10100, 11500, 12000, 12100}, High: []float64{7800, 10600, 12000, 12400, 12300}},
			{Name: "recompute <i>&", X: []float64{64, 128, 256, 512, 1024}, Y: []float64{7600, 10200, 11000, 9800, 8100}},
		},
	}
	bars := Plot{
		Name: "bars", Title: "Throughput by mode", YLabel: "output tokens/s", Categories: []string{"auto", "swap", "recompute"},
		Series: []Series{{Name: "a", Y: []float64{90, 80, 70}, Low: []float64{85, 78, 60}, High: []float64{93, 83, 75}}, {Name: "b", Y: []float64{50, 40, 61}}},
	}
	roof := Plot{
		Name: "roofline", Title: "Roofline", XLabel: "FLOPs a byte", YLabel: "GFLOP/s", LogX: true, LogY: true,
		Series: []Series{
			{Name: "roof", X: []float64{0.25, 12, 1000}, Y: []float64{10, 480, 480}, Style: Line},
			{Name: "operations", X: []float64{0.9, 1, 1.1, 60}, Y: []float64{30, 31, 33, 400}, Labels: []string{"qkv", "attention", "down", "gate_up"}, Style: Points},
		},
	}
	grid := Plot{Name: "blocks", Title: "Block map", XLabel: "block number", Series: []Series{{Name: "used"}, {Name: "cached"}},
		Grid: [][]int{{0, 0, 1, 1, -1, -1, 0, 1}, {0, 1, 1, -1, -1, -1, -1, -1}}}
	return &Report{
		Experiment: "seqs", Title: "How many sequences at once",
		Manifest: Manifest{Commit: "abc1234", Date: "2026-11-26T00:00:00Z", Machine: "AMD EPYC, 2 cores", Command: "pagoda bench seqs demo", EffectiveFlags: map[string]any{"block_size": 16}},
		Cells:    []Cell{cell(64, 1), cell(256, 1.7), cell(1024, 1.6)}, Best: map[string]any{"max_num_seqs": 256},
		Verdict: "256 sequences at once are the sweet spot: beyond it the pool binds.", Notes: []string{"The prefix cache was reset before each run."},
		Tables: []Table{{Title: "Top operations", Header: []string{"operation", "ms"}, Rows: [][]string{{"gate_up", "1.25"}}, Text: 1}},
		Plots:  []Plot{lines, bars, roof, grid},
	}
}

func TestReportFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "folder")
	r := sampleReport()
	require.NoError(t, r.Write(dir))

	data, err := os.ReadFile(filepath.Join(dir, "report.json"))
	require.NoError(t, err)
	var raw map[string]any
	require.NoError(t, json.Unmarshal(data, &raw))
	require.EqualValues(t, 1, raw["schema"])
	metric := raw["cells"].([]any)[0].(map[string]any)["metrics"].(map[string]any)["output_throughput"].(map[string]any)
	require.Equal(t, "tokens/s", metric["unit"])
	require.EqualValues(t, 1234, metric["median"])
	require.Len(t, metric["runs"], 3)
	require.Subset(t, raw["manifest"], map[string]any{"command": "pagoda bench seqs demo", "commit": "abc1234"})

	back, err := ReadReport(dir)
	require.NoError(t, err)
	require.Equal(t, r.Verdict, back.Verdict)
	require.Equal(t, r.Cells[1].Metrics, back.Cells[1].Metrics)

	for _, plot := range r.Plots {
		file, err := os.Open(filepath.Join(dir, plot.Name+".png"))
		require.NoError(t, err)
		picture, err := png.Decode(file)
		require.NoError(t, err)
		require.NoError(t, file.Close())
		require.Greater(t, picture.Bounds().Dx(), 1000)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".report-*"))
	require.NoError(t, err)
	require.Empty(t, left, "temporary files are gone")
}

func TestPageIsSelfContained(t *testing.T) {
	page, err := sampleReport().html()
	require.NoError(t, err)
	text := string(page)
	for _, want := range []string{"256 sequences at once", "pagoda bench seqs demo", "abc1234", `viewport`, "prefers-color-scheme: dark", "Top operations", "best"} {
		require.Contains(t, text, want)
	}
	require.Equal(t, 8, strings.Count(text, "<svg "), "a wide and a narrow picture of each plot")
	require.NotContains(t, text, "<script")
	require.NotContains(t, text, "<i>&", "names are escaped")
	for _, network := range []string{"src=", "@import", "url("} {
		require.NotContains(t, text, network)
	}
	for _, link := range strings.Split(text, "http")[1:] {
		require.True(t, strings.HasPrefix(link, "://www.w3.org/2000/svg"), "no address but SVG's namespace: http%.40s", link)
	}
	require.NotContains(t, text, "#0072B2", "series take the colours of the page, light or dark")
}

func TestPrintedReport(t *testing.T) {
	var out bytes.Buffer
	r := sampleReport()
	r.Columns = []string{"output_throughput", "p99_itl_ms", "gpu_utilization", "not_measured"}
	r.Print(&out)
	text := out.String()
	require.Regexp(t, `max-num-seqs +output tok/s +ITL p99 ms +GPU busy`, text)
	require.Regexp(t, `256 +2,098 ± 3.0 % +15.4 ± 3.0 % +94 % ± 1.0 % +◀ chosen`, text)
	require.Contains(t, text, "batch-size 32", "what all cells share stands above the table")
	require.NotContains(t, text, "TTFT", "only the chosen columns")
	require.Equal(t, 1, strings.Count(text, "chosen"))
	require.Less(t, strings.Index(text, "1,234"), strings.Index(text, "sweet spot"))
}

func TestCellsNotesAreShown(t *testing.T) {
	r := sampleReport()
	r.Cells[2] = Cell{Params: r.Cells[2].Params, Note: "out of memory: needs 3 GiB"}
	var out bytes.Buffer
	r.Print(&out)
	require.Regexp(t, `1024 .*– +out of memory: needs 3 GiB`, out.String())
	page, err := r.html()
	require.NoError(t, err)
	require.Contains(t, string(page), `<td class="note" colspan="6">out of memory: needs 3 GiB</td>`, "in the place of the figures")
}

func TestReportKeepsWhatJSONCannotSay(t *testing.T) {
	r := Report{Experiment: "x", Cells: []Cell{{Metrics: map[string]Metric{
		"median_tpot_ms": NewMetric("ms", []float64{math.NaN(), math.NaN()}),
		"p99_tpot_ms":    NewMetric("ms", []float64{1, math.NaN(), 3}),
	}}}}
	dir := t.TempDir()
	require.NoError(t, r.Write(dir))
	back, err := ReadReport(dir)
	require.NoError(t, err)
	require.NotContains(t, back.Cells[0].Metrics, "median_tpot_ms")
	require.Equal(t, []float64{1, 3}, back.Cells[0].Metrics["p99_tpot_ms"].Runs)
}

func TestReadReportSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	_, err := ReadReport(dir)
	require.ErrorContains(t, err, "give the folder")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "report.json"), []byte(`{"schema": 7}`), 0o644))
	_, err = ReadReport(dir)
	require.ErrorContains(t, err, "schema 7")
}

func TestFailedWriteKeepsTheOldReport(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	require.ErrorContains(t, sampleReport().Write(file), "choose another folder")

	broken := sampleReport()
	require.NoError(t, broken.Write(dir))
	broken.Verdict = "new"
	broken.Plots[0].Series[0].Y = broken.Plots[0].Series[0].Y[:2]
	require.ErrorContains(t, broken.Write(dir), `plot throughput, series "swap": 2 Y for 5 X`)
	back, err := ReadReport(dir)
	require.NoError(t, err)
	require.NotEqual(t, "new", back.Verdict)
}

func TestPlotsOfOddData(t *testing.T) {
	for name, plot := range map[string]Plot{
		"one point":    {Series: []Series{{X: []float64{3}, Y: []float64{5}}}},
		"no point":     {Series: []Series{{}}},
		"no series":    {},
		"equal values": {LogX: true, LogY: true, Series: []Series{{X: []float64{3, 3}, Y: []float64{5, 5}}}},
		"zeros":        {LogX: true, LogY: true, Series: []Series{{X: []float64{0, 4, 8}, Y: []float64{0, 0, 0}}}},
		"gaps":         {Series: []Series{{X: []float64{0, 4, math.NaN()}, Y: []float64{math.Inf(1), 1, 2}}}},
		"bars":         {Categories: []string{"a name that is far too long to stand below a bar", "b"}, Series: []Series{{Y: []float64{-4, math.NaN()}}}},
		"no bars":      {Categories: []string{}},
		"map":          {Grid: [][]int{{}, {-1}}},
	} {
		t.Run(name, func(t *testing.T) {
			plot.Name = "x"
			_, err := plot.PNG()
			require.NoError(t, err)
			_, err = plot.svg(true)
			require.NoError(t, err)
		})
	}
}

// TestErrorBarsAreCut: an interval far beyond the bars leaves their scale alone and goes
// on as an arrow; one of bars that are all zero has no other scale.
func TestErrorBarsAreCut(t *testing.T) {
	wide := Plot{Name: "x", Categories: []string{"a", "b"}, Series: []Series{{Y: []float64{1.1, 0.9}, Low: []float64{0.07, 0.8}, High: []float64{10.98, 1}}}}
	low, high := wide.bounds(false)
	require.Equal(t, []float64{0.07, 2.2}, []float64{low, high})
	arrow := regexp.MustCompile(`<path d="M[^L"]*L[^L"]*L[^L"Z]*" style="fill:none`)
	arrows := func() int {
		svg, err := wide.svg(false)
		require.NoError(t, err)
		return len(arrow.FindAllString(svg, -1))
	}
	require.Equal(t, 1, arrows())
	wide.Series[0].High[0] = 2.1
	require.Zero(t, arrows())
	_, high = (&Plot{Categories: []string{"a"}, Series: []Series{{Y: []float64{0}, Low: []float64{0}, High: []float64{8}}}}).bounds(false)
	require.Equal(t, 8.0, high)
	_, high = (&Plot{Series: []Series{{X: []float64{1}, Y: []float64{1}, High: []float64{8}}}}).bounds(false)
	require.Equal(t, 8.0, high, "lines have room")
}

// TestNamesOfPointsStandApart: names in a line leave a gap, wherever the points are.
func TestNamesOfPointsStandApart(t *testing.T) {
	text := regexp.MustCompile(`<text x="([0-9.]+)" y="([-0-9.]+)"[^>]*>16 GiB`)
	number := func(s string) float64 { v, _ := strconv.ParseFloat(s, 64); return v }
	width, beside := float64(textStyle(10, ink).Width("16 GiB")), 0
	for apart := 0.0; apart < 10; apart += 0.05 {
		p := Plot{Name: "x", Series: []Series{{X: []float64{0, 20 - apart, 20}, Y: []float64{0, 5, 5}, Labels: []string{"", "16 GiB", "16 GiB, forced"}, Style: Points}}}
		svg, err := p.svg(false)
		require.NoError(t, err)
		found := text.FindAllStringSubmatch(svg, -1)
		if len(found) == 2 && found[0][2] == found[1][2] {
			require.GreaterOrEqual(t, math.Abs(number(found[0][1])-number(found[1][1]))-width, 3.9, "%.2f apart", apart)
			beside++
		}
	}
	require.Greater(t, beside, 5)
}

func TestTicks(t *testing.T) {
	labels := func(ticks fixedTicks) (out []string) {
		for _, t := range ticks {
			out = append(out, t.Label)
		}
		return out
	}
	ticks, from, to := niceTicks(0, 12233, 5)
	require.Equal(t, []string{"0", "5,000", "10,000", "15,000"}, labels(ticks))
	require.Equal(t, []float64{0, 15000}, []float64{from, to})
	ticks, _, _ = niceTicks(0, 0.93, 5)
	require.Equal(t, []string{"0.0", "0.2", "0.4", "0.6", "0.8", "1.0"}, labels(ticks))
	require.Equal(t, []string{"64", "128", "256", "512", "1,024"}, labels(valueTicks([]float64{1024, 64, 128, 256, 512, 64}, math.Log, 600)))
	require.Equal(t, []string{"0.7", "0.8", "0.9", "0.95"}, labels(valueTicks([]float64{0.7, 0.8, 0.9, 0.95}, func(v float64) float64 { return v }, 600)))
	require.Equal(t, []string{"1", "", "64"}, labels(valueTicks([]float64{1, 2, 64}, func(v float64) float64 { return v }, 100)), "no room for the 2")
	require.Equal(t, []string{"20", "50", "100", "200"}, labels(logTicks(12, 300, 10)))
	require.Equal(t, []string{"1", "10", "100", "1,000", "10,000"}, labels(logTicks(1, 20000, 10)))
}
