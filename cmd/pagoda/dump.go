package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/pagoda-engine/pagoda/bench"
	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/sim"
)

// dumpHead is what a dump begins with and a recording does not.
const dumpHead = `{"dump":`

// isDump looks at the beginning of a file.
func isDump(in *bufio.Reader) bool {
	head, err := in.Peek(len(dumpHead))
	return err == nil && string(head) == dumpHead
}

// dump is what the watchdog wrote of an engine.
type dump struct {
	engine.DumpHeader
	steps      []engine.StepRecord
	sequences  []engine.DumpSequence
	goroutines string
}

// readDump reads a dump as far as it goes: the process may have been killed while
// it was written.
func readDump(in io.Reader) (*dump, error) {
	d := &dump{}
	for dec := json.NewDecoder(in); ; {
		var l engine.DumpLine
		switch err := dec.Decode(&l); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return d, nil
		case err != nil:
			return nil, fmt.Errorf("line after step %d of a dump: %w", len(d.steps), err)
		case l.Dump != nil:
			d.DumpHeader = *l.Dump
		case l.Step != nil:
			d.steps = append(d.steps, *l.Step)
		case l.Sequence != nil:
			d.sequences = append(d.sequences, *l.Sequence)
		default:
			d.goroutines = l.Goroutines
		}
	}
}

// lastSteps are the last n steps; 0 = all.
func (d *dump) lastSteps(n int) []sim.Step {
	steps := d.steps
	if n > 0 && len(steps) > n {
		steps = steps[len(steps)-n:]
	}
	return sim.FromEngine(steps)
}

// head prints what to know before the steps.
func (d *dump) head(w io.Writer) {
	st := &d.Stats
	fmt.Fprintf(w, "%s, %s on %s: %s\n", d.At.Format("2006-01-02 15:04:05"), d.Model, d.Device, d.Reason)
	fmt.Fprintf(w, "%d running, %d waiting, %d jobs; blocks: %d used, %d cached, %d free, %d in flight of %d; step %d, the last took %v\n",
		st.Running, st.Waiting, st.Jobs, st.BlocksUsed, st.BlocksCached, st.BlocksFree, st.BlocksInFlight, st.BlocksTotal, st.Steps, st.LastStep)
	switch {
	case d.Held:
		fmt.Fprintln(w, "the engine's goroutine did not let go of its state: no steps and no sequences; the goroutines tell where it hangs")
	case d.Invariants != "":
		fmt.Fprintln(w, "invariant violated:", d.Invariants)
	default:
		fmt.Fprintln(w, "no invariant is violated")
	}
	fmt.Fprintln(w)
}

// tail prints the sequences and the goroutines.
func (d *dump) tail(w io.Writer) {
	fmt.Fprintln(w)
	if len(d.sequences) > 0 {
		t := bench.NewTable(w)
		t.AppendHeader(table.Row{"seq", "request", "status", "prompt", "tokens", "computed", "in flight", "preempted", "host", "blocks"})
		for i := range d.sequences {
			s := &d.sequences[i]
			t.AppendRow(table.Row{s.ID, s.Request, s.Status, s.PromptLen, fmt.Sprintf("%d of %d", s.Len, s.MaxLen), s.NumComputed, s.Pending, s.Preemptions, s.HostBlocks, blockRanges(s.Blocks)})
		}
		t.Render()
	}
	fmt.Fprintf(w, "\n%s", d.goroutines)
}

// blockRanges writes a table shortly: 1-4 9 12-13.
func blockRanges[ID ~int32](ids []ID) string {
	text := ""
	for i := 0; i < len(ids); {
		n := 1
		for i+n < len(ids) && ids[i+n] == ids[i]+ID(n) {
			n++
		}
		if i > 0 {
			text += " "
		}
		text += fmt.Sprint(ids[i])
		if n > 1 {
			text += fmt.Sprintf("-%d", ids[i]+ID(n)-1)
		}
		i += n
	}
	return text
}
