package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/kernels"
)

// PeersEngine is an engine that Peers can measure.
type PeersEngine interface {
	Tunable
	Probe(ctx context.Context) (kernels.Ceilings, error)
	Close() error
}

// PeersOptions configure Peers. Zero values are defaults.
type PeersOptions struct {
	Rows    []string // of PeerRows; default: all but those of which the peer has no figures of a model that it has others of
	Batches []int    // of the decode rows; default 1, 16, 32, 64, 128, 256, 512
	Repeats int      // default 2
	// Shrink divides the tokens and requests of every row, so that a small machine
	// can run them. What is shrunk is compared with nothing; default 1.
	Shrink int
	// Start starts a process that answers one prompt of the model, and returns the time
	// from there to its first token; nil = there is no such row.
	Start func(ctx context.Context, model string) (time.Duration, error)
	// Progress is called before each measurement with those done and those known to come.
	Progress func(stage string, done, total int64)
}

func (o *PeersOptions) fill() {
	if len(o.Batches) == 0 {
		o.Batches = []int{1, 16, 32, 64, 128, 256, 512}
	}
	if o.Repeats == 0 {
		o.Repeats = 2
	}
	o.Shrink = max(o.Shrink, 1)
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
}

// Check says what is wrong with the options.
func (o *PeersOptions) Check() error {
	for _, row := range o.Rows {
		if !slices.Contains(PeerRows(), row) {
			return badLoad("--rows %s: want some of %s", row, strings.Join(PeerRows(), ", "))
		}
	}
	if o.Repeats < 0 || o.Repeats > mostRepeats {
		return badLoad("--repeats %d: want 1 to %d", o.Repeats, mostRepeats)
	}
	if o.Shrink < 0 || o.Shrink > 1024 {
		return badLoad("--shrink %d: want 1 to 1024", o.Shrink)
	}
	return checkValues("--batch-sizes", o.Batches, 1, mostInFlight)
}

// scaled is a number of tokens or requests, shrunk.
func (o *PeersOptions) scaled(n int) int { return max(n/o.Shrink, 2) }

// peerRow is one figure of a model.
type peerRow struct {
	model   string
	part    *peerPart
	at      int
	what    string
	figure  *peerFigure // the peer's and what is wanted; nil = there are none
	floor   float64     // in the row's unit; 0 = none
	runs    []map[string]float64
	skipped string // why it has no runs
}

// peers is a measurement of several models.
type peers struct {
	o           PeersOptions
	figures     *peerFigures
	rows        []*peerRow
	walls       [][]string // model, part, seconds
	notes       []string
	failures    []error // of what was left out
	device      string
	done, total int64
}

// peerRun is the part of peers that measures one model.
type peerRun struct {
	*peers
	e        PeersEngine
	cells    *cells // for limits and warming up
	info     engine.Info
	model    string
	shape    *peerModel // nil = the peer has no figures of it
	ceilings peerCeilings
}

// Peers measures models as the figures of another engine, which are in the binary,
// were measured, and puts ours beside them and beside what the device would allow. open
// starts an engine; it is closed before the next. What fails by itself is left out. A
// report of what is done comes with an error, too; nil = nothing was.
func Peers(ctx context.Context, models []string, open func(model string) (PeersEngine, error), o PeersOptions) (*Report, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	o.fill()
	p := &peers{o: o, figures: readPeerFigures()}
	for _, part := range p.parts() {
		p.total += int64(len(models) * len(part.values(&p.o)) * o.Repeats)
	}
	begin := time.Now()
	var err error
	for _, model := range models {
		if err = p.measure(ctx, model, open); err != nil {
			err = fmt.Errorf("%s: %w", model, err)
			break
		}
	}
	if !slices.ContainsFunc(p.rows, func(r *peerRow) bool { return len(r.runs) > 0 }) {
		if err = cmp.Or(err, errors.Join(p.failures...)); err != nil {
			return nil, err
		}
	}
	return p.report(time.Since(begin)), err
}

// parts are the parts that were asked for.
func (p *peers) parts() []*peerPart {
	return slices.DeleteFunc(peerParts(), func(part *peerPart) bool {
		return len(p.o.Rows) > 0 && !slices.Contains(p.o.Rows, part.name) || part.name == "start" && p.o.Start == nil
	})
}

// measure measures a model. Processes of their own come first, while the device's
// memory is free.
func (p *peers) measure(ctx context.Context, model string, open func(string) (PeersEngine, error)) error {
	m := &peerRun{peers: p, model: model}
	parts := p.parts()
	var starts []*peerRow
	if len(parts) > 0 && parts[0].name == "start" {
		starts = m.add(parts[0])
		if err := m.part(ctx, parts[0], starts); err != nil {
			return p.unlessMemory(model, err)
		}
		parts = parts[1:]
	}
	begin := time.Now()
	e, err := open(model)
	if err != nil {
		return p.unlessMemory(model, err)
	}
	defer func() { _ = e.Close() }() // the measurements are done, or say what went wrong
	if err := m.settle(ctx, e); err != nil {
		return err
	}
	p.wall(model, "load", begin)
	defer m.cells.restore()
	for _, row := range starts {
		row.figure = m.figure(row)
	}
	for _, part := range parts {
		if len(p.o.Rows) == 0 && m.shape != nil && !part.always && !m.shape.has(part.name) {
			p.notes = append(p.notes, fmt.Sprintf("%s: %s was not measured at the rows %q, so they are left out; --rows %s has them.", model, p.figures.Peer, part.name, part.name))
			p.total -= int64(len(part.values(&p.o)) * p.o.Repeats)
			continue
		}
		if err := m.part(ctx, part, m.add(part)); err != nil {
			return err
		}
	}
	return nil
}

// unlessMemory is no error but a note where a model does not fit the memory.
func (p *peers) unlessMemory(model string, err error) error {
	if !errors.Is(err, engine.ErrMemory) {
		return err
	}
	p.leaveOut(model, err)
	return nil
}

// leaveOut notes what was not measured, and why.
func (p *peers) leaveOut(what string, err error) {
	p.notes = append(p.notes, fmt.Sprintf("%s was left out: %v", what, err))
	p.failures = append(p.failures, fmt.Errorf("%s: %w", what, err))
}

// settle looks at the engine that was opened.
func (m *peerRun) settle(ctx context.Context, e PeersEngine) error {
	m.e, m.info = e, e.Info()
	m.cells = newCells(e, CellOptions{Repeats: m.o.Repeats})
	m.shape = m.figures.model(&m.info)
	probed, err := e.Probe(ctx)
	if err != nil {
		return err
	}
	var from string
	m.ceilings, from = m.figures.ceilings(&m.info, probed)
	if m.device == "" {
		note := "Floors: " + from + ". Of a decode step: the weights' bytes or the products' FLOPs, whichever take longer, and the KV's bytes; of a prompt: products and attention, or the weights' bytes; of requests at once: all prompts, then the steps of those that are left."
		if !m.ceilings.known() {
			note = "There are no floors, for want of a ceiling: " + from + "."
		}
		m.notes = append(m.notes, note)
	}
	m.device = m.info.Device.Device
	return nil
}

// wall notes how long a part of the work took.
func (p *peers) wall(model, part string, begin time.Time) {
	p.walls = append(p.walls, []string{model, part, fmt.Sprintf("%.1f", time.Since(begin).Seconds())})
}

// add makes the rows of a part.
func (m *peerRun) add(part *peerPart) []*peerRow {
	var rows []*peerRow
	for _, at := range part.values(&m.o) {
		row := &peerRow{model: m.model, part: part, at: at, what: part.what(&m.o, at)}
		if m.e != nil {
			row.figure, row.skipped = m.figure(row), m.unfit(part, at)
			if part.floor != nil && m.ceilings.known() {
				row.floor = part.floor(m, at)
			}
		}
		rows = append(rows, row)
	}
	m.rows = append(m.rows, rows...)
	return rows
}

// figure is the peer's of a row; nil where there is none, or where the row is another
// one than the peer's.
func (m *peerRun) figure(row *peerRow) *peerFigure {
	if m.o.Shrink > 1 {
		return nil
	}
	if row.part.name == "swap" && m.shape != nil { // of which nothing was measured
		return &peerFigure{Row: "swap", At: row.at, Least: m.figures.Wanted.SwapRate}
	}
	return m.shape.figure(row.part.name, row.at)
}

// unfit says why a row cannot be measured on this engine; "" = it can.
func (m *peerRun) unfit(part *peerPart, at int) string {
	n, tokens := part.load(&m.o, at)
	blocks := (tokens + m.info.BlockSize - 1) / m.info.BlockSize
	most := m.cells.base.MaxNumSeqs
	switch {
	case n > most:
		return fmt.Sprintf("skipped: %d sequences, --max-num-seqs is %d", n, most)
	case part.name == "sweep" && at > most:
		return fmt.Sprintf("skipped: --max-num-seqs is %d", most)
	case tokens > m.info.MaxModelLen:
		return fmt.Sprintf("skipped: sequences of %d tokens, max_model_len is %d", tokens, m.info.MaxModelLen)
	case part.name == "swap":
		return m.noSwap(at)
	case n*blocks > m.info.NumBlocks:
		return fmt.Sprintf("skipped: %d sequences of %d blocks, the KV pool has %d", n, blocks, m.info.NumBlocks)
	}
	return ""
}

// part measures the rows of a part. Repeats are the outer loop, so that a machine that
// gets slower or faster shows in the spread of every row. A row that fails, as timing
// may have it, is tried again in the next repeat and keeps no other from being measured.
func (m *peerRun) part(ctx context.Context, part *peerPart, rows []*peerRow) error {
	begin := time.Now()
	rows = slices.DeleteFunc(slices.Clone(rows), func(r *peerRow) bool {
		if r.skipped != "" {
			m.total -= int64(m.o.Repeats)
		}
		return r.skipped != ""
	})
	if len(rows) == 0 {
		return nil
	}
	if part.prepare != nil {
		m.o.Progress(m.model+" "+part.name, m.done, m.total)
		if err := part.prepare(m, ctx, rows[len(rows)-1].at); err != nil {
			return m.failed(ctx, part.name, err, rows...)
		}
	}
	for repeat := range m.o.Repeats {
		for _, row := range rows {
			m.o.Progress(m.model+" "+part.name, m.done, m.total)
			values, err := part.measure(m, ctx, row.at, uint64(repeat))
			if err == nil {
				row.runs, row.skipped = append(row.runs, values), ""
			} else if err = m.failed(ctx, fmt.Sprintf("%s, repeat %d", row.what, repeat+1), err, row); err != nil {
				return err
			}
			m.done++
			m.o.Progress(m.model+" "+part.name, m.done, m.total)
		}
	}
	m.wall(m.model, part.name, begin)
	return nil
}

// failed leaves rows out, those without an earlier repeat as skipped. It returns an error
// after which nothing more of the model can be measured.
func (m *peerRun) failed(ctx context.Context, what string, err error, rows ...*peerRow) error {
	over := func(target error) bool { return errors.Is(err, target) }
	switch {
	case ctx.Err() != nil, slices.ContainsFunc([]error{engine.ErrClosed, engine.ErrDevice, engine.ErrInvariant}, over):
		return fmt.Errorf("%s: %w", what, err)
	case m.e == nil && over(engine.ErrMemory): // nor is there room for an engine
		return fmt.Errorf("%s: %w", what, err)
	}
	m.leaveOut(m.model+", "+what, err)
	for _, row := range rows {
		if len(row.runs) == 0 {
			row.skipped = "failed: " + err.Error()
		}
	}
	return nil
}
