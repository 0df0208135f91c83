package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/pagoda-engine/pagoda/kvcache"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// ErrConfig marks a workload or a configuration that makes no sense.
var ErrConfig = errors.New("cannot simulate that")

// Config configures a simulation.
type Config struct {
	Scheduler scheduler.Config
	Cache     kvcache.Config
	// StepTime is what steps take. Scheduler.SwapOut and SwapIn are what copies of
	// a block take.
	StepTime   StepTime
	BlockBytes int64 // for the summary; 0 = not known
	// Overlapped schedules a step ahead of the last one's results.
	Overlapped bool
	// MaxQueued is the most sequences that wait in the scheduler; clients beyond
	// stand in line outside while their clocks run. Default 1024; not negative.
	MaxQueued int
	// MaxModelLen bounds prompt and output, beside the pool. Default 8192.
	MaxModelLen int
	// Record receives the decision trace; nil = none.
	Record io.Writer
	// Progress is called now and then with the requests that ended; nil = never.
	Progress func(done, total int)
}

// sequenceLimit is the most tokens that a sequence can have.
func (c *Config) sequenceLimit() int {
	return min(orDefault(c.MaxModelLen, 8192), (c.Cache.NumBlocks-1)*c.Cache.BlockSize+1)
}

const (
	maxSlots = 1 << 31 // of a pool: blocks × block size
	maxSeqs  = 1 << 20 // at a time: a step has an entry for each
)

func (c *Config) check() error {
	if c.MaxQueued < 0 {
		return fmt.Errorf("%d sequences wait at most, want at least 1", c.MaxQueued)
	}
	if kv := &c.Cache; kv.BlockSize > 0 && (kv.NumBlocks > maxSlots/kv.BlockSize || kv.HostBlocks > maxSlots/kv.BlockSize) {
		return fmt.Errorf("pools of %d blocks and %d on the host, of %d tokens, want at most %d tokens each",
			kv.NumBlocks, kv.HostBlocks, kv.BlockSize, maxSlots)
	}
	if c.Scheduler.MaxNumSeqs > maxSeqs {
		return fmt.Errorf("%d sequences at once, want at most %d", c.Scheduler.MaxNumSeqs, maxSeqs)
	}
	return nil
}

// Simulate runs a generated workload to its end.
func Simulate(ctx context.Context, cfg Config, w Workload) (Summary, error) {
	g, err := newGenerator(w, cfg.sequenceLimit())
	if err != nil {
		return Summary{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return run(ctx, cfg, g)
}

// request is one client's request: one sequence a choice.
type request struct {
	*arrival
	seqs   []choice
	open   int // choices that have not ended
	served bool
}

// choice is one sequence of a request.
type choice struct {
	scheduler.Sequence
	of     *request
	index  int
	output int           // tokens that it will generate
	last   time.Duration // its latest token; 0 = none yet
}

// launched is a step on the device.
type launched struct {
	out       *scheduler.Output
	end, took time.Duration
}

// simulation is the state of a run.
type simulation struct {
	cfg     Config
	s       *scheduler.Scheduler
	kv      *kvcache.Manager
	source  source
	tally   tally
	choices map[scheduler.SequenceID]*choice // live ones
	ids     map[scheduler.SequenceID]*choice // the same by the ids of a recorded trace
	events  events

	now      time.Duration
	device   time.Duration    // is free from then on
	streams  [2]time.Duration // so are the copies in and out
	inFlight []launched
	results  []scheduler.Result
	record   scheduler.Record
	ended    int
	trace    *scheduler.TraceWriter
}

func run(ctx context.Context, cfg Config, from source) (Summary, error) {
	cfg.MaxQueued = orDefault(cfg.MaxQueued, 1024)
	if err := cfg.check(); err != nil {
		return Summary{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	m := &simulation{
		cfg: cfg, source: from, choices: map[scheduler.SequenceID]*choice{}, ids: map[scheduler.SequenceID]*choice{},
		tally: tally{blockSize: cfg.Cache.BlockSize},
	}
	var err error
	if m.kv, err = kvcache.NewManager(cfg.Cache); err != nil {
		return Summary{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if cfg.Record != nil {
		m.trace = scheduler.NewTraceWriter(cfg.Record, 0, func() time.Duration { return m.now })
		cfg.Scheduler.Trace = m.trace.Line
	}
	if m.s, err = scheduler.New(cfg.Scheduler, m.kv); err != nil {
		return Summary{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if err := m.loop(ctx); err != nil {
		return Summary{}, err
	}
	if m.trace != nil {
		if err := m.trace.Flush(); err != nil {
			return Summary{}, fmt.Errorf("the trace: %w", err)
		}
	}
	m.tally.sum.PredictionError = m.s.Model().Error()
	return m.tally.summary(m.kv.Stats(), cfg.BlockBytes), nil
}

// loop is the engine's loop on the virtual clock.
func (m *simulation) loop(ctx context.Context) error {
	for n := 0; ; n++ {
		if n%256 == 0 {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			m.progress()
		}
		m.receive()
		out := m.s.Schedule()
		m.s.Record(out, &m.record)
		m.tally.step(&m.record)
		m.copy(out.SwapOut, 1)
		m.copy(out.SwapIn, 0)
		ahead := 0
		if !out.Empty() {
			m.launch(out)
			if m.cfg.Overlapped {
				ahead = 1
			}
		}
		if len(m.inFlight) > ahead {
			for len(m.inFlight) > ahead {
				m.collect()
			}
			continue
		}
		if len(m.inFlight) > 0 {
			continue // the first step of an overlapped run
		}
		if more, err := m.sleep(); !more || err != nil {
			m.progress()
			return err
		}
	}
}

func (m *simulation) progress() {
	if m.cfg.Progress != nil {
		m.cfg.Progress(m.ended, m.source.total())
	}
}

// sleep jumps to the next event while nothing runs; more is false when there is
// none, and nothing left to do. A full queue takes no arrivals, so those are no
// events.
func (m *simulation) sleep() (more bool, err error) {
	at, ok := time.Duration(0), false
	if m.s.NumWaiting() < m.cfg.MaxQueued {
		at, ok = m.source.peek()
	}
	if e, any := m.events.peek(); any && (!ok || e < at) {
		at, ok = e, true
	}
	switch {
	case ok:
		m.now = max(m.now, at)
		return true, nil
	case len(m.choices) > 0:
		return false, fmt.Errorf("stuck at step %d: %d sequences run and %d wait (%s), nothing is scheduled and nothing under way",
			m.record.Step, m.s.NumRunning(), m.s.NumWaiting(), m.record.WaitReason)
	}
	return false, nil
}

// receive takes in what has happened by now.
func (m *simulation) receive() {
	for {
		at, ok := m.events.peek()
		if !ok || at > m.now {
			break
		}
		switch e := m.events.pop(); {
		case e.transfer != 0:
			m.s.CopyDone(e.transfer, e.took)
		case e.arrival != nil:
			m.submit(e.arrival)
		default:
			m.abort(e.request)
		}
	}
	for m.s.NumWaiting() < m.cfg.MaxQueued {
		if at, ok := m.source.peek(); !ok || at > m.now {
			break
		}
		m.submit(m.source.next())
	}
}

// submit adds the sequences of a request.
func (m *simulation) submit(a *arrival) {
	q := &request{arrival: a, seqs: make([]choice, len(a.outputs)), open: len(a.outputs)}
	m.tally.arrive(a.at)
	if a.maxLen > m.cfg.sequenceLimit() {
		m.tally.sum.Refused++
		m.ended++
		return
	}
	prompt := a.prompt
	for i := range q.seqs {
		c := &q.seqs[i]
		*c = choice{of: q, index: i, output: a.outputs[i]}
		c.Tokens, c.MaxLen, c.Priority, c.CacheSalt = prompt, a.maxLen, a.priority, a.salt
		if i > 0 {
			c.Tokens, c.Parent = append(make([]int32, 0, len(prompt)+c.output), prompt...), &q.seqs[0].Sequence
		} else if p := m.ids[a.parent]; p != nil {
			c.Parent = &p.Sequence
		}
		m.s.Add(&c.Sequence)
		m.choices[c.ID] = c
		if a.id != 0 {
			m.ids[a.id] = c
		}
		m.tally.sum.PromptTokens += int64(c.PromptLen)
	}
	if a.patience > 0 {
		m.events.push(event{at: a.at + a.patience, request: q})
	}
}

// abort ends a request that was not answered in time.
func (m *simulation) abort(q *request) {
	if q.open == 0 {
		return
	}
	for i := range q.seqs {
		c := &q.seqs[i]
		if c.Status != scheduler.Finished {
			m.s.Abort(&c.Sequence)
			m.forget(c)
		}
	}
	q.open = 0
	m.end(q, true)
}

func (m *simulation) forget(c *choice) {
	delete(m.choices, c.ID)
	if c.of.id != 0 {
		delete(m.ids, c.of.id)
	}
}

func (m *simulation) end(q *request, aborted bool) {
	m.ended++
	m.tally.end(q.at, m.now, aborted)
	if !aborted {
		if next := m.source.follow(q.arrival, q.seqs[0].Tokens, m.now); next != nil {
			m.events.push(event{at: next.at, arrival: next})
		}
	}
}

// copy begins a transfer on the stream of its direction.
func (m *simulation) copy(t scheduler.Transfer, direction int) {
	if t.ID == 0 {
		return
	}
	each := m.cfg.Scheduler.SwapIn
	if direction == 1 {
		each = m.cfg.Scheduler.SwapOut
	}
	took := max(1, each*time.Duration(len(t.Copies)))
	begin := max(m.now, m.streams[direction])
	m.streams[direction] = begin + took
	m.events.push(event{at: begin + took, transfer: t.ID, took: took})
}

func (m *simulation) launch(out *scheduler.Output) {
	took := m.cfg.StepTime.Of(out.Load)
	m.device = max(m.device, m.now) + took
	m.inFlight = append(m.inFlight, launched{out, m.device, took})
}

// collect waits for the oldest step and hands its tokens out.
func (m *simulation) collect() {
	l := m.inFlight[0]
	m.inFlight = append(m.inFlight[:0], m.inFlight[1:]...)
	m.now = max(m.now, l.end)
	m.results = m.results[:0]
	for i := range l.out.Scheduled {
		e, r := &l.out.Scheduled[i], scheduler.Result{}
		if e.Sample && e.Live() {
			r = m.token(m.choices[e.Seq.ID])
		}
		m.results = append(m.results, r)
	}
	m.s.Update(l.out, m.results, l.took)
	for i := range l.out.Scheduled {
		if m.results[i].Finish {
			m.finished(m.choices[l.out.Scheduled[i].Seq.ID])
		}
	}
}

// token is the next token of c, and whether it is the last.
func (m *simulation) token(c *choice) (r scheduler.Result) {
	n := len(c.Tokens) - c.PromptLen
	if n < len(c.of.tokens) {
		r.Token = c.of.tokens[n]
	} else {
		r.Token = madeUp(^c.of.seed+uint64(c.index), n)
	}
	r.Finish = n+1 >= c.output
	m.tally.sum.OutputTokens++
	if c.last > 0 {
		m.tally.itl.add(m.now - c.last)
	} else if !c.of.served {
		c.of.served = true
		m.tally.ttft.add(m.now - c.of.at)
	}
	c.last = m.now
	return r
}

func (m *simulation) finished(c *choice) {
	m.forget(c)
	if c.of.open--; c.of.open == 0 {
		m.end(c.of, false)
	}
}
