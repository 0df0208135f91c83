package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/pagoda-engine/pagoda/bench"
	"github.com/pagoda-engine/pagoda/engine"
)

// planFlags are the flags of pagoda plan.
type planFlags struct {
	engineFlags
	whatIf []float64
	json   bool
}

func planCommand() *cobra.Command {
	var f planFlags
	cmd := &cobra.Command{
		Use:   "plan MODEL",
		Short: "Say what fits in memory, without loading anything",
		Long: `Print where the memory goes (weights, workspace, KV blocks), the longest context and
how many sequences of each length run at once. It is the engine's own formula, applied
to config.json: no weights are read, and of a model of the hub only that file is
fetched.

--device cuda --memory-limit 24GiB plans for a card that need not be there.

Exit code 4: it does not fit. The table below the message says what would.`,
		Example: `  pagoda plan ./Qwen2.5-7B-Instruct
  pagoda plan qwen2.5-7b --load-format dummy --device cuda --memory-limit 24GiB
  pagoda plan demo --max-num-seqs 64 --json`,
		Args: exactly(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.plan(cmd, args[0]) },
	}
	f.engineFlags.register(cmd.Flags(), 256)
	cmd.Flags().Float64SliceVar(&f.whatIf, "what-if", []float64{0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95}, "values of --gpu-memory-utilization to compare (default: seven from 0.5 to 0.95)")
	cmd.Flags().BoolVar(&f.json, "json", false, "print one JSON object instead of tables")
	addNegations(cmd.Flags())
	return cmd
}

// planReport is what --json prints. Sizes are in bytes, lengths in tokens.
type planReport struct {
	Model           string            `json:"model"`
	Device          string            `json:"device"`
	Fits            bool              `json:"fits"`
	Error           string            `json:"error,omitempty"` // why it does not fit
	MemoryLimit     int64             `json:"memory_limit"`
	WeightBytes     int64             `json:"weight_bytes"`
	WorkspaceBytes  int64             `json:"workspace_bytes"`
	KVBytesPerToken int64             `json:"kv_bytes_per_token"`
	BlockBytes      int64             `json:"block_bytes"`
	BlockSize       int               `json:"block_size"`
	NumGPUBlocks    int               `json:"num_gpu_blocks"`
	NumHostBlocks   int               `json:"num_host_blocks"`
	KVTokens        int               `json:"kv_tokens"`
	MaxModelLen     int               `json:"max_model_len"`
	MaxNumSeqs      int               `json:"max_num_seqs"`
	Ledger          []planLine        `json:"ledger"`
	Settings        []planSetting     `json:"settings"`
	Warnings        []string          `json:"warnings"`
	Concurrency     []planConcurrency `json:"concurrency"`
	WhatIf          []planWhatIf      `json:"what_if"`
}

type planLine struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	Detail string `json:"detail"`
}

type planSetting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Reason string `json:"reason"`
}

// planConcurrency is how many sequences of a length the pool holds at once when
// they share nothing, and how many of them run.
type planConcurrency struct {
	Context           int `json:"context"`
	BlocksPerSequence int `json:"blocks_per_sequence"`
	PoolHolds         int `json:"pool_holds"`
	MaxConcurrent     int `json:"max_concurrent"`
}

type planWhatIf struct {
	Utilization  float64 `json:"gpu_memory_utilization"`
	Fits         bool    `json:"fits"`
	NumGPUBlocks int     `json:"num_gpu_blocks"`
	KVBytes      int64   `json:"kv_bytes"`
	KVTokens     int     `json:"kv_tokens"`
	MaxModelLen  int     `json:"max_model_len"`
}

func (f *planFlags) plan(cmd *cobra.Command, model string) error {
	for _, share := range f.whatIf {
		if !(share > 0 && share <= 1) { // nor NaN
			return usageError{fmt.Errorf("--what-if %g: want shares of the memory above 0 and at most 1", share)}
		}
	}
	config, err := f.resolve(cmd, model)
	if err != nil {
		return err
	}
	if config.Model, err = f.locate(cmd.Context(), model, shapeFiles); err != nil {
		return err
	}
	p, err := engine.NewPlan(config)
	if p == nil || err != nil && !errors.Is(err, engine.ErrMemory) {
		return err
	}
	r := f.report(p, err)
	if f.json {
		if e := json.NewEncoder(cmd.OutOrStdout()).Encode(r); e != nil {
			return e
		}
		return err
	}
	r.print(cmd.OutOrStdout())
	return err
}

// report gathers what is printed; failed says why the plan does not fit.
func (f *planFlags) report(p *engine.Plan, failed error) *planReport {
	i := p.Info
	r := &planReport{
		Model: i.Model, Device: i.Device.Backend + " (" + i.Device.Device + ")", Fits: failed == nil, MemoryLimit: p.LimitBytes(),
		WeightBytes: i.WeightBytes, WorkspaceBytes: p.WorkspaceBytes(), KVBytesPerToken: i.KVBytesPerToken, BlockBytes: i.BlockBytes, BlockSize: i.BlockSize,
		NumGPUBlocks: i.NumBlocks, NumHostBlocks: i.HostBlocks, KVTokens: i.NumBlocks * i.BlockSize, MaxModelLen: i.MaxModelLen, MaxNumSeqs: i.MaxNumSeqs,
		Ledger: []planLine{}, Settings: []planSetting{}, Warnings: append([]string{}, p.Warnings...), Concurrency: []planConcurrency{}, WhatIf: []planWhatIf{},
	}
	if failed != nil {
		r.Error = failed.Error()
	}
	for _, l := range p.Ledger {
		r.Ledger = append(r.Ledger, planLine(l))
	}
	for _, s := range p.Settings {
		r.Settings = append(r.Settings, planSetting(s))
	}
	for _, tokens := range contexts(i.MaxModelLen) {
		need := p.BlocksFor(tokens)
		holds := i.NumBlocks / need
		r.Concurrency = append(r.Concurrency, planConcurrency{tokens, need, holds, min(holds, i.MaxNumSeqs)})
	}
	for _, share := range f.whatIf {
		line := planWhatIf{Utilization: share}
		if other, err := p.AtUtilization(share); err == nil {
			o := other.Info
			line = planWhatIf{share, true, o.NumBlocks, int64(o.NumBlocks) * o.BlockBytes, o.NumBlocks * o.BlockSize, o.MaxModelLen}
		}
		r.WhatIf = append(r.WhatIf, line)
	}
	return r
}

// contexts are powers of two up to the longest sequence, and that one.
func contexts(longest int) []int {
	var lengths []int
	for n := 512; n < longest; n *= 2 {
		lengths = append(lengths, n)
	}
	if longest > 0 {
		lengths = append(lengths, longest)
	}
	return lengths
}

func (r *planReport) print(w io.Writer) {
	fmt.Fprintf(w, "%s on %s: weights %s, workspace %s, %s a token of context\n\n", r.Model, r.Device, formatBytes(r.WeightBytes), formatBytes(r.WorkspaceBytes), formatBytes(r.KVBytesPerToken))
	if r.Fits {
		entries := make([]engine.LedgerEntry, len(r.Ledger))
		for i, l := range r.Ledger {
			entries[i] = engine.LedgerEntry(l)
		}
		printLedger(w, entries)
		fmt.Fprintln(w)
		t := bench.NewTable(w)
		t.AppendHeader(table.Row{"context", "blocks each", "pool holds", "at once", ""})
		for _, c := range r.Concurrency {
			note := ""
			switch {
			case c.MaxConcurrent < c.PoolHolds:
				note = "bound by max_num_seqs"
			case c.Context == r.MaxModelLen:
				note = "the longest sequence"
			}
			t.AppendRow(table.Row{c.Context, c.BlocksPerSequence, c.PoolHolds, c.MaxConcurrent, note})
		}
		rightAligned(t, 1, 2, 3, 4)
		t.Render()
		fmt.Fprintln(w)
	}
	t := bench.NewTable(w)
	t.AppendHeader(table.Row{"gpu-memory-utilization", "KV pool", "blocks", "tokens", "max-model-len"})
	for _, u := range r.WhatIf {
		row := table.Row{strconv.FormatFloat(u.Utilization, 'g', 4, 64), "does not fit", "", "", ""}
		if u.Fits {
			row = table.Row{row[0], formatBytes(u.KVBytes), u.NumGPUBlocks, u.KVTokens, u.MaxModelLen}
		}
		t.AppendRow(row)
	}
	rightAligned(t, 2, 3, 4, 5)
	t.Render()
	for _, text := range r.Warnings {
		fmt.Fprintln(w, "warning:", text)
	}
}
