package engine

import (
	"encoding/json"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/kvcache"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// DumpLine is a line of a dump: one of its fields is set. The header comes first;
// pagoda trace prints such a file.
type DumpLine struct {
	Dump       *DumpHeader   `json:"dump,omitempty"`
	Step       *StepRecord   `json:"step,omitempty"`
	Sequence   *DumpSequence `json:"sequence,omitempty"`
	Goroutines string        `json:"goroutines,omitempty"` // the stacks of all, as a Go traceback
}

// DumpHeader says what was dumped and why.
type DumpHeader struct {
	Reason   string    `json:"reason"`
	At       time.Time `json:"at"`
	Model    string    `json:"model"`
	Device   string    `json:"device"`
	Stats    Stats     `json:"stats"`
	Settings []Setting `json:"settings"`
	// Held says that the engine's goroutine did not let go of its state in time,
	// because it hangs in a call that launches work or loops: there are no steps
	// and no sequences then, and the goroutines tell where.
	Held bool `json:"held,omitempty"`
	// Invariants is the violated one; "" = none, or Held.
	Invariants string `json:"invariants,omitempty"`
}

// DumpSequence is one live sequence with its block tables.
type DumpSequence struct {
	ID          scheduler.SequenceID `json:"id"`
	Request     string               `json:"request,omitempty"` // Request.ID
	Status      string               `json:"status"`
	PromptLen   int                  `json:"prompt_len"` // tokens, like the next four
	Len         int                  `json:"len"`
	MaxLen      int                  `json:"max_len"`
	NumComputed int                  `json:"num_computed"`
	Pending     int                  `json:"pending,omitempty"`
	Preemptions int                  `json:"preemptions,omitempty"`
	Blocks      []kvcache.BlockID    `json:"blocks,omitempty"`
	HostBlocks  int                  `json:"host_blocks,omitempty"` // entries in the swap pool
}

// dumpPatience is how long a dump waits for the engine's goroutine to let go of
// its state. Between two waits for the device it works for microseconds.
const dumpPatience = time.Second

// Dump writes what is known of the engine as JSON lines: the last steps, every live
// sequence with its block tables, the stacks of all goroutines. It is for an engine
// that hangs: it works while the engine's goroutine waits for the device, for
// however long.
func (e *Engine) Dump(w io.Writer, reason string) error {
	head := &DumpHeader{
		Reason: reason, At: time.Now(), Model: e.info.Model, Device: e.info.Device.Device,
		Stats: e.Stats(), Settings: e.Settings(),
	}
	lines := []DumpLine{{Dump: head}}
	if e.loop.tryHold(dumpPatience) {
		lines = e.loop.dump(head, lines)
		e.loop.hold.Unlock()
	} else {
		head.Held = true
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	lines = append(lines, DumpLine{Goroutines: string(stacks)})
	out := json.NewEncoder(w)
	for i := range lines {
		if err := out.Encode(&lines[i]); err != nil {
			return err
		}
	}
	return nil
}

// tryHold takes the loop's state, unless its goroutine keeps it for longer than
// patience.
func (l *loop) tryHold(patience time.Duration) bool {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if l.hold.TryLock() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// dump adds the lines of the loop's state, which the caller holds.
func (l *loop) dump(head *DumpHeader, lines []DumpLine) []DumpLine {
	if err := l.sched.Check(); err != nil {
		head.Invariants = err.Error()
	}
	steps := l.records.last(keptSteps)
	for i := range steps {
		lines = append(lines, DumpLine{Step: &steps[i]})
	}
	for s := range l.sched.Live() {
		d := &DumpSequence{
			ID: s.ID, Status: s.Status.String(), PromptLen: s.PromptLen, Len: len(s.Tokens), MaxLen: s.MaxLen,
			NumComputed: s.NumComputed, Pending: s.Pending, Preemptions: s.Preemptions,
			Blocks: slices.Clone(s.Table.IDs()), HostBlocks: s.Host.Len(),
		}
		if q := l.requests[s]; q != nil {
			d.Request = q.id
		}
		lines = append(lines, DumpLine{Sequence: d})
	}
	return lines
}
