package bench

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"
)

//go:embed report.html.tmpl
var pageSource string

var pageTemplate = template.Must(template.New("report").Parse(pageSource))

// page is what the template shows.
type page struct {
	Heading, Experiment string
	Verdict             []string
	Notes               []string
	Tables, More        []pageTable // More is folded
	Same                string
	Plots               []pagePlot
	All                 *pageTable // every metric of every cell
	Manifest            Manifest
	Flags               []pageFlag
}

type pageTable struct {
	Title  string
	Header []pageCell
	Rows   []pageRow
}

type pageRow struct {
	Cells []pageCell
	Best  bool
}

type pageCell struct {
	Text, Spread, Title string
	Number              bool
	Span                int // columns that it takes, when more than one
}

type pagePlot struct {
	Name, Caption string
	Wide, Narrow  template.HTML // drawn by svg, which escapes all text
}

type pageFlag struct{ Name, Value string }

// html makes the page: one file with its pictures in it, that asks the network for
// nothing and runs no script.
func (r *Report) html() ([]byte, error) {
	p := page{
		Heading: r.heading(), Experiment: r.Experiment, Notes: r.Notes, Manifest: r.Manifest,
		Verdict: strings.Split(strings.TrimSpace(r.Verdict), "\n"),
	}
	if len(r.Cells) > 0 {
		varied, same := r.params()
		p.Same = paramList(r.Cells[0].Params, same)
		if !r.hideCells {
			p.Tables = append(p.Tables, r.cellTable(varied, r.columns(), false))
		}
		all := r.allMetrics()
		if detailed := r.cellTable(varied, all, true); len(all) > 0 {
			p.All = &detailed
		}
	}
	for i := range r.Tables {
		into := &p.Tables
		if r.Tables[i].pageOnly {
			into = &p.More
		}
		*into = append(*into, r.Tables[i].forPage())
	}
	for i := range r.Plots {
		plot := pagePlot{Name: r.Plots[i].Name, Caption: r.Plots[i].Caption}
		for narrow, into := range map[bool]*template.HTML{false: &plot.Wide, true: &plot.Narrow} {
			svg, err := r.Plots[i].svg(narrow)
			if err != nil {
				return nil, err
			}
			*into = template.HTML(svg)
		}
		p.Plots = append(p.Plots, plot)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Manifest.EffectiveFlags)) {
		p.Flags = append(p.Flags, pageFlag{"--" + flagName(name), paramText(r.Manifest.EffectiveFlags[name])})
	}
	var out bytes.Buffer
	if err := pageTemplate.Execute(&out, p); err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	return out.Bytes(), nil
}

// allMetrics are those of all cells, whatever Columns chooses.
func (r *Report) allMetrics() []string {
	all := Report{Cells: r.Cells}
	return all.columns()
}

// cellTable is the table of cells, or, turned, of metrics with a column a cell:
// many metrics are read better below each other.
func (r *Report) cellTable(varied, metrics []string, turned bool) pageTable {
	if turned {
		return r.turnedTable(varied, metrics)
	}
	var t pageTable
	for _, name := range varied {
		t.Header = append(t.Header, pageCell{Text: flagName(name)})
	}
	for _, name := range metrics {
		t.Header = append(t.Header, pageCell{Text: displayName(name) + unitSuffix(name, r.unit(name)), Title: name, Number: true})
	}
	has := func(c Cell) bool {
		return slices.ContainsFunc(metrics, func(name string) bool { _, ok := c.Metrics[name]; return ok })
	}
	noted := slices.ContainsFunc(r.Cells, func(c Cell) bool { return c.Note != "" && has(c) })
	if noted {
		t.Header = append(t.Header, pageCell{Text: "note"})
	}
	for _, cell := range r.Cells {
		row := pageRow{Best: r.isBest(cell)}
		for _, name := range varied {
			row.Cells = append(row.Cells, pageCell{Text: paramText(cell.Params[name])})
		}
		if !has(cell) && cell.Note != "" { // why stands where the figures would
			row.Cells = append(row.Cells, pageCell{Text: cell.Note, Span: len(t.Header) - len(varied)})
			t.Rows = append(t.Rows, row)
			continue
		}
		for _, name := range metrics {
			row.Cells = append(row.Cells, metricCell(cell, name))
		}
		if noted {
			row.Cells = append(row.Cells, pageCell{Text: clip(cell.Note, 100), Title: cell.Note})
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func metricCell(cell Cell, name string) pageCell {
	m, ok := cell.Metrics[name]
	if !ok {
		return pageCell{Text: "–", Number: true}
	}
	out := pageCell{Text: m.median(), Spread: m.spread(), Number: true}
	if len(m.Runs) > 1 {
		out.Title = fmt.Sprintf("%d runs, %s to %s", len(m.Runs), formatAs(m.Unit, m.Min), formatAs(m.Unit, m.Max))
	}
	return out
}

func (r *Report) turnedTable(varied, metrics []string) pageTable {
	t := pageTable{Header: []pageCell{{Text: "metric"}}}
	for _, cell := range r.Cells {
		t.Header = append(t.Header, pageCell{Text: paramList(cell.Params, varied), Number: true})
	}
	for _, name := range metrics {
		row := pageRow{Cells: []pageCell{{Text: name + unitSuffix(name, r.unit(name))}}}
		for _, cell := range r.Cells {
			row.Cells = append(row.Cells, metricCell(cell, name))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func (t *Table) forPage() pageTable {
	out := pageTable{Title: t.Title}
	cells := func(words []string) (cells []pageCell) {
		for i, word := range words {
			cell := pageCell{Text: word, Number: i >= t.Text}
			if value, spread, ok := strings.Cut(word, " ± "); ok && cell.Number {
				cell.Text, cell.Spread = value, "± "+spread
			}
			cells = append(cells, cell)
		}
		return cells
	}
	out.Header = cells(t.Header)
	for _, row := range t.Rows {
		out.Rows = append(out.Rows, pageRow{Cells: cells(row)})
	}
	return out
}
