package scheduler

import (
	"fmt"
	"time"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// TraceVersion is the version of the trace that this package writes and reads.
const TraceVersion = 2

// TraceLine is one line of a decision trace: one input of the Scheduler, or, as
// Record, what a Schedule decided. Exactly one of its fields after At is set. A
// trace begins with Config; from there on its inputs determine its records, see
// Replay.
type TraceLine struct {
	// At is when the line was written, since the first one. The TraceWriter sets
	// it; the scheduler knows no time, and no decision depends on it.
	At time.Duration `json:"at_ns"`

	Config           *TraceConfig `json:"config,omitempty"`
	Submit           *TraceSubmit `json:"submit,omitempty"`
	Abort            SequenceID   `json:"abort,omitempty"`
	Limits           *TraceLimits `json:"limits,omitempty"`
	CopyDone         *TraceCopy   `json:"copy_done,omitempty"`
	ResetPrefixCache bool         `json:"reset_prefix_cache,omitempty"`
	Borrow           int          `json:"borrow,omitempty"` // tokens
	GiveBack         bool         `json:"give_back,omitempty"`
	Update           *TraceUpdate `json:"update,omitempty"`
	Record           *Record      `json:"record,omitempty"`
}

// TraceConfig is the configuration of the Scheduler and its Manager, with every
// default filled in.
type TraceConfig struct {
	Version       int           `json:"version"`
	BlockSize     int           `json:"block_size"`
	PrefixCaching bool          `json:"prefix_caching"`
	Policy        Policy        `json:"scheduling_policy"`
	SwapOut       time.Duration `json:"swap_out_ns,omitempty"` // of a block
	SwapIn        time.Duration `json:"swap_in_ns,omitempty"`
	TraceLimits
}

// TraceLimits is what SetLimits was given, with every default filled in.
type TraceLimits struct {
	Limits
	Blocks     int `json:"blocks"` // block 0 included
	HostBlocks int `json:"host_blocks"`
}

// TraceSubmit is a sequence as Add got it.
type TraceSubmit struct {
	ID       SequenceID `json:"id"`
	Tokens   []int32    `json:"tokens"`
	MaxLen   int        `json:"max_len"`
	Priority int        `json:"priority,omitempty"`
	Salt     string     `json:"salt,omitempty"`
	Parent   SequenceID `json:"parent,omitempty"`
}

// TraceCopy is a transfer reported as finished.
type TraceCopy struct {
	ID   TransferID    `json:"id"`
	Took time.Duration `json:"ns,omitempty"`
}

// TraceUpdate is what a step brought.
type TraceUpdate struct {
	Step   int64         `json:"step"`
	Tokens []int32       `json:"tokens,omitempty"` // of the entries with Sample, in order
	Finish []int         `json:"finish,omitempty"` // indices of Tokens whose sequences ended
	Took   time.Duration `json:"ns,omitempty"`
}

// tracer hands lines to Config.Trace. Its memory is reused from line to line.
type tracer struct {
	to     func(*TraceLine)
	line   TraceLine
	submit TraceSubmit
	update TraceUpdate
	record Record
}

// emit hands one line over; fill sets its one field. Nil = tracing is off.
func (t *tracer) emit(fill func(*TraceLine)) {
	if t == nil {
		return
	}
	t.line = TraceLine{}
	fill(&t.line)
	t.to(&t.line)
}

// traceConfig begins the trace.
func (s *Scheduler) traceConfig() {
	if s.cfg.Trace == nil {
		return
	}
	s.trace = &tracer{to: s.cfg.Trace}
	c := &s.cfg
	s.trace.emit(func(l *TraceLine) {
		l.Config = &TraceConfig{
			Version: TraceVersion, BlockSize: s.kv.BlockSize(), PrefixCaching: s.kv.PrefixCaching(),
			Policy: c.Policy, SwapOut: c.SwapOut, SwapIn: c.SwapIn,
			TraceLimits: TraceLimits{c.Limits, s.kv.Capacity() + 1, s.kv.Stats().HostTotal},
		}
	})
}

func (s *Scheduler) traceSubmit(q *Sequence) {
	if s.trace == nil {
		return
	}
	s.trace.emit(func(l *TraceLine) {
		l.Submit = &s.trace.submit
		*l.Submit = TraceSubmit{ID: q.ID, Tokens: q.Tokens, MaxLen: q.MaxLen, Priority: q.Priority, Salt: q.CacheSalt}
		if q.Parent != nil {
			l.Submit.Parent = q.Parent.ID
		}
	})
}

func (s *Scheduler) traceUpdate(out *Output, results []Result, took time.Duration) {
	if s.trace == nil {
		return
	}
	s.trace.emit(func(l *TraceLine) {
		u := &s.trace.update
		*u = TraceUpdate{Step: out.Step, Tokens: u.Tokens[:0], Finish: u.Finish[:0], Took: took}
		for i := range out.Scheduled {
			if !out.Scheduled[i].Sample {
				continue
			}
			if results[i].Finish {
				u.Finish = append(u.Finish, len(u.Tokens))
			}
			u.Tokens = append(u.Tokens, results[i].Token)
		}
		l.Update = u
	})
}

func (s *Scheduler) traceRecord(out *Output) {
	if s.trace == nil {
		return
	}
	s.trace.emit(func(l *TraceLine) {
		s.Record(out, &s.trace.record)
		l.Record = &s.trace.record
	})
}

// ResetPrefixCache forgets all published content: nothing computed before is hit
// again. Sequences that share blocks keep them.
func (s *Scheduler) ResetPrefixCache() {
	s.trace.emit(func(l *TraceLine) { l.ResetPrefixCache = true })
	s.kv.ResetPrefixCache()
}

// Borrow takes blocks for so many tokens outside any sequence, for a computation
// of the caller's own between two steps; ok is false when too few are free. Then nobody
// is admitted beside those that run, until GiveBack: their ends bring what the loan lacks,
// which newcomers would take otherwise, again and again. One loan at a time. The table is
// the Scheduler's. Taking the blocks from the Manager behind the Scheduler's back would
// work, but a trace would not know of it.
func (s *Scheduler) Borrow(tokens int) (t *kvcache.BlockTable, ok bool) {
	if s.borrowed.Len() > 0 || tokens < 1 {
		panic(fmt.Sprintf("scheduler: Borrow for %d tokens with %d blocks on loan", tokens, s.borrowed.Len()))
	}
	s.trace.emit(func(l *TraceLine) { l.Borrow = tokens })
	ok = s.kv.Grow(&s.borrowed, tokens)
	s.wanted = !ok
	return &s.borrowed, ok
}

// GiveBack ends a loan, or the wish for one.
func (s *Scheduler) GiveBack() {
	s.trace.emit(func(l *TraceLine) { l.GiveBack = true })
	s.kv.Release(&s.borrowed)
	s.wanted = false
}
