package main

import (
	"fmt"
	"io"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/pflag"

	"github.com/pagoda-engine/pagoda/bench"
	"github.com/pagoda-engine/pagoda/engine"
)

// printPlan prints what the engine made of its configuration: effective values
// with their reasons, and where the memory goes. What the engine takes as given
// may be the command's own default.
func printPlan(w io.Writer, e *engine.Engine, flags *pflag.FlagSet, took time.Duration) {
	settings := bench.NewTable(w)
	settings.AppendHeader(table.Row{"setting", "value", "because"})
	for _, s := range e.Settings() {
		if flag := flags.Lookup(s.Name); s.Reason == "given" && flag != nil && !flag.Changed {
			s.Reason = "default of this command"
		}
		settings.AppendRow(table.Row{s.Name, s.Value, s.Reason})
	}
	settings.Render()

	printLedger(w, e.Ledger())
	fmt.Fprintf(w, "ready in %.2f s\n", took.Seconds())
}

// printLedger prints where the memory goes.
func printLedger(w io.Writer, entries []engine.LedgerEntry) {
	ledger := bench.NewTable(w)
	ledger.AppendHeader(table.Row{"memory", "size", "from"})
	rightAligned(ledger, 2)
	for _, l := range entries {
		ledger.AppendRow(table.Row{l.Name, formatBytes(l.Bytes), l.Detail})
	}
	ledger.Render()
}

// rightAligned aligns columns, counted from 1, to the right.
func rightAligned(t table.Writer, columns ...int) {
	var configs []table.ColumnConfig
	for _, n := range columns {
		configs = append(configs, table.ColumnConfig{Number: n, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(configs)
}
