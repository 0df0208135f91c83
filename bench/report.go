package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
	Tables  []Table  `json:"-"` // after the cells
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

	pageOnly bool // too much for the console
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

	reference float64 // a line across the bars at this value; 0 = none
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

// Write makes the folder dir: report.json, report.html and a PNG of each plot.
// Each file appears whole or not at all.
func (r *Report) Write(dir string) error {
	if r.Schema == 0 {
		r.Schema = 1
	}
	text, err := json.MarshalIndent(r.forJSON(), "", "  ")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	page, err := r.html()
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	files := map[string][]byte{reportFile: append(text, '\n'), "report.html": page}
	for i := range r.Plots {
		picture, err := r.Plots[i].PNG()
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		files[r.Plots[i].Name+".png"] = picture
	}
	return writeFolder(dir, files)
}

// writeFolder writes files into a folder, which it makes.
func writeFolder(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("the results cannot be written, choose another folder: %w", err)
	}
	for name, data := range files {
		if err := writeWhole(filepath.Join(dir, name), data); err != nil {
			return fmt.Errorf("the results cannot be written, make room or choose another folder: %w", err)
		}
	}
	return nil
}

// writeWhole replaces a file in one step, so that a full disk or an interruption
// leaves the old one.
func writeWhole(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".report-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// reportFile is the report's data in its folder.
const reportFile = "report.json"

// ReadReport reads a folder that Write made, without plots.
func ReadReport(dir string) (*Report, error) {
	path := dir
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		path = filepath.Join(dir, reportFile)
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: no report there: give the folder that a pagoda bench command wrote, with report.json in it", dir)
	}
	if err != nil {
		return nil, err
	}
	r := new(Report)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s is no report: %w", path, err)
	}
	if r.Schema != 1 {
		return nil, fmt.Errorf("%s: report of schema %d, this pagoda reads schema 1", path, r.Schema)
	}
	return r, nil
}

// forJSON is the report with its lists and maps made, and without numbers that
// JSON has no word for.
func (r *Report) forJSON() *Report {
	out := *r
	out.Best = orEmpty(r.Best)
	out.Manifest.EffectiveFlags = orEmpty(r.Manifest.EffectiveFlags)
	out.Cells = make([]Cell, len(r.Cells))
	for i, cell := range r.Cells {
		out.Cells[i] = Cell{Params: orEmpty(cell.Params), Metrics: map[string]Metric{}, Note: cell.Note}
		for name, m := range cell.Metrics {
			// A quantity that no run had a value of is not in the report.
			if runs := slices.DeleteFunc(slices.Clone(m.Runs), func(v float64) bool { return !finite(v) }); len(runs) < len(m.Runs) {
				if len(runs) == 0 {
					continue
				}
				m = NewMetric(m.Unit, runs)
			}
			if m.Runs == nil {
				m.Runs = []float64{}
			}
			if finite(m.Median) && finite(m.Min) && finite(m.Max) {
				out.Cells[i].Metrics[name] = m
			}
		}
	}
	return &out
}

func orEmpty(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}
