package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Report is what an experiment found: report.json in the experiment's folder,
// and the source of the pictures, of report.html and of the table in the console.
type Report struct {
	Schema     int            `json:"schema"` // 1
	Experiment string         `json:"experiment"`
	Manifest   Manifest       `json:"manifest"`
	Cells      []Cell         `json:"cells"`
	Best       map[string]any `json:"best"`    // params of the best cell; empty when there is none
	Verdict    string         `json:"verdict"` // sentences: what to conclude, and why

	Notes []string `json:"notes,omitempty"` // caveats and advice, a sentence each

	Title   string   `json:"-"` // heading; empty = the experiment's name
	Columns []string `json:"-"` // metrics that tables show, in order; empty = all
	Tables  []Table  `json:"-"` // before the cells
	Plots   []Plot   `json:"-"`

	hideCells bool // in the console and on the page: the tables say it all
}

// Table is a table of a report that is not its cells, such as the top operations of
// a profile.
type Table struct {
	Title  string
	Header []string
	Rows   [][]string
	Text   int // so many columns from the left are words; the others are aligned as numbers
}

// Manifest says what was measured, where and how, so that a reader can judge and
// repeat it.
type Manifest struct {
	Commit         string         `json:"commit"`
	Date           string         `json:"date"`    // RFC 3339
	Machine        string         `json:"machine"` // processor or GPU, cores, memory, clocks
	Command        string         `json:"command"`
	EffectiveFlags map[string]any `json:"effective_flags"` // names with _
}

// Cell is one setting of the parameters and what was measured there.
type Cell struct {
	Params  map[string]any    `json:"params"` // flag names with _
	Metrics map[string]Metric `json:"metrics"`
	Note    string            `json:"note,omitempty"` // why it has no results, or not all
}

// Metric is one quantity over the repeats of a cell, as NewMetric makes it. Units
// that are shown in a way of their own: "bytes", and "share" for 0–1.
type Metric struct {
	Unit   string    `json:"unit"` // "tokens/s", "requests/s", "ms", "bytes", "share"; "" = a count
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Runs   []float64 `json:"runs"`
}

// Plot is a picture of a report: lines with points over numbers, bars over names,
// or a map of cells.
type Plot struct {
	Name           string // of the file, without extension
	Title          string
	XLabel, YLabel string // with the unit: "output tokens/s"
	LogX, LogY     bool
	Categories     []string // bars: one a value; nil = lines over X
	Series         []Series
	// Grid is a map of cells, such as the KV blocks of a pool, instead of lines:
	// rows from the top, each cell a number of Series, whose names are the legend;
	// -1 = nothing there. Labels on the left and below are YLabel and XLabel.
	Grid    [][]int
	Caption string // a sentence below the picture: what to see in it
}

// Series is one line or one colour of bars.
type Series struct {
	Name   string
	X      []float64 // lines only
	Y      []float64
	Low    []float64 // ends of the error bars, or nil
	High   []float64
	Labels []string // text beside each point, or nil
	Style  Style
}

// Style is how a Series over numbers is drawn.
type Style int

// Lines with a point at each value, which many values do without; lines alone, such
// as a roof; points alone; a broken line, such as a limit.
const (
	LinePoints Style = iota
	Line
	Points
	Dashed
)

// NewMetric is the metric of a cell's repeats.
func NewMetric(unit string, runs []float64) Metric {
	m := Metric{Unit: unit, Runs: runs}
	if len(runs) > 0 {
		sorted := slices.Sorted(slices.Values(runs))
		m.Median, m.Min, m.Max = Percentile(sorted, 50), sorted[0], sorted[len(sorted)-1]
	}
	return m
}

// Write makes dir with report.json in it.
func (r *Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "report.json"), append(text, '\n'), 0o644)
}

// Print writes the verdict.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintln(w, r.Verdict)
}
