package bench

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// consoleColumns is how many metrics fit beside each other in a terminal.
const consoleColumns = 8

// NewTable is the one style of table that Pagoda prints.
func NewTable(w io.Writer) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	t.Style().Format.Header = text.FormatDefault
	return t
}

// Print writes what a person in front of a terminal wants: what was measured, the
// table of cells with the best one marked, the verdict and the notes.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintln(w, r.heading())
	if r.Manifest.Machine != "" {
		fmt.Fprintln(w, r.Manifest.Machine)
	}
	if len(r.Cells) > 0 && !r.hideCells {
		r.printCells(w)
	}
	for i := range r.Tables {
		if !r.Tables[i].pageOnly {
			r.Tables[i].print(w)
		}
	}
	fmt.Fprintln(w)
	if r.Verdict != "" {
		fmt.Fprintln(w, wrapped(r.Verdict, ""))
	}
	for _, note := range r.Notes {
		fmt.Fprintln(w, wrapped("· "+note, "  "))
	}
}

// wrapWidth is the length of lines in the console.
const wrapWidth = 110

// wrapped breaks each line at spaces; what follows is indented.
func wrapped(s, indent string) string {
	var out []string
	for _, paragraph := range strings.Split(s, "\n") {
		line := ""
		for _, word := range strings.Fields(paragraph) {
			switch {
			case line == "":
				line = word
			case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > wrapWidth:
				out = append(out, line)
				line = indent + word
			default:
				line += " " + word
			}
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func (r *Report) printCells(w io.Writer) {
	varied, same := r.params()
	if len(same) > 0 {
		fmt.Fprintln(w, wrapped(paramList(r.Cells[0].Params, same), "  "))
	}
	fmt.Fprintln(w)
	columns := r.columns()
	if r.Columns == nil {
		columns = columns[:min(len(columns), consoleColumns)]
	}
	t := NewTable(w)
	var header table.Row
	var config []table.ColumnConfig
	for _, name := range varied {
		header = append(header, flagName(name))
	}
	for _, name := range columns {
		header = append(header, displayName(name)+unitSuffix(name, r.unit(name)))
	}
	for i := range header {
		config = append(config, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	header = append(header, "") // the best one's mark, and what a cell has to say
	t.AppendHeader(header)
	t.SetColumnConfigs(config)
	for _, cell := range r.Cells {
		var row table.Row
		for _, name := range varied {
			row = append(row, paramText(cell.Params[name]))
		}
		for _, name := range columns {
			text := "–"
			if m, ok := cell.Metrics[name]; ok {
				if text = m.median(); m.spread() != "" {
					text += " " + m.spread()
				}
			}
			row = append(row, text)
		}
		mark := clip(cell.Note, 60)
		if r.isBest(cell) {
			mark = strings.TrimSpace("◀ chosen " + mark)
		}
		t.AppendRow(append(row, mark))
	}
	t.Render()
}

func (t *Table) print(w io.Writer) {
	fmt.Fprintln(w)
	if t.Title != "" {
		fmt.Fprintln(w, t.Title)
	}
	out := NewTable(w)
	var config []table.ColumnConfig
	for i := t.Text; i < len(t.Header); i++ {
		config = append(config, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	out.SetColumnConfigs(config)
	out.AppendHeader(cellsOf(t.Header))
	for _, row := range t.Rows {
		out.AppendRow(cellsOf(row))
	}
	out.Render()
}

func cellsOf(words []string) (row table.Row) {
	for _, word := range words {
		row = append(row, word)
	}
	return row
}
