package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// step is one step between its launch and its collection. There are two, used
// in turn: one may be packed while the other is on the device.
type step struct {
	out     *scheduler.Output
	resumed []*request // those whose rows are new to them
	results []scheduler.Result
	ends    []ending // of those that go no further
	checked []int    // places in out.Scheduled of what draws no token: the last entries of sample
	record  scheduler.Record

	batch   kernels.Batch
	sample  kernels.SampleBatch
	memory  stepMemory
	updates []kernels.RowUpdate
	blocks  []int32 // what the updates' Blocks are cut from

	guides bool       // a sequence has a Constraint
	guided bool       // one that draws a token has
	masks  [][]uint32 // of sample's entries, then
	ticket kernels.Ticket
	start  time.Time
	host   time.Duration
}

// stepMemory is an empty batch and sample with room for all.
type stepMemory struct {
	batch  kernels.Batch
	sample kernels.SampleBatch
}

// newStep reserves what a step can need. blocks alone may grow, with the tables
// of long sequences.
func newStep(maxTokens, maxSeqs int) *step {
	return &step{
		resumed: make([]*request, 0, maxSeqs),
		results: make([]scheduler.Result, 0, maxSeqs),
		ends:    make([]ending, 0, maxSeqs),
		checked: make([]int, 0, maxSeqs),
		memory: stepMemory{
			kernels.Batch{
				Tokens:     make([]int32, 0, maxTokens),
				Rows:       make([]int32, 0, maxSeqs),
				QueryStart: make([]int32, 0, maxSeqs+1),
				SeqLens:    make([]int32, 0, maxSeqs),
				LogitRows:  make([]int32, 0, maxSeqs),
			},
			kernels.SampleBatch{
				Index:     make([]int32, 0, maxSeqs),
				Rows:      make([]int32, 0, maxSeqs),
				Positions: make([]int32, 0, maxSeqs),
			},
		},
		updates: make([]kernels.RowUpdate, 0, maxSeqs),
		blocks:  make([]int32, 0, 4*maxSeqs),
	}
}

func (s *step) reset(out *scheduler.Output) {
	clear(s.resumed)
	clear(s.ends)
	clear(s.updates)
	s.out = out
	s.resumed, s.results, s.ends, s.checked = s.resumed[:0], s.results[:0], s.ends[:0], s.checked[:0]
	s.batch, s.sample = s.memory.batch, s.memory.sample
	s.batch.NumDecodes = out.NumDecodes
	s.updates, s.blocks = s.updates[:0], s.blocks[:0]
	clear(s.masks)
	s.guides, s.guided = false, false
}

// request is that of the i-th of out.Scheduled.
func (s *step) request(i int) *request { return requestOf(s.out.Scheduled[i].Seq) }

// runner turns the scheduler's output into batches. It keeps a row of device
// state for each sequence from admission to its end or preemption, so that a
// step sends only what changed.
type runner struct {
	backend kernels.Backend
	forward func(*kernels.Batch)
	free    []int32 // rows that no sequence has; a stack
	beyond  []int32 // likewise, but past the limit in force
	limit   int     // rows that may be given
	steps   [2]*step
	turn    int

	identity []int32 // 0, 1, 2, …: what decodes are called in a step; never written
}

func newRunner(backend kernels.Backend, forward func(*kernels.Batch), maxTokens, maxSeqs int) *runner {
	r := &runner{backend: backend, forward: forward, free: make([]int32, 0, maxSeqs), beyond: make([]int32, 0, maxSeqs), limit: maxSeqs}
	for row := maxSeqs - 1; row >= 0; row-- {
		r.free = append(r.free, int32(row))
	}
	for i := range r.steps {
		r.steps[i] = newStep(maxTokens, maxSeqs)
	}
	for i := range maxSeqs + 1 {
		r.identity = append(r.identity, int32(i))
	}
	return r
}

// setRows lets only rows below n be given from now on.
func (r *runner) setRows(n int) {
	rows := append(r.free, r.beyond...)
	slices.SortFunc(rows, func(a, b int32) int { return int(b - a) }) // lower rows first
	r.limit, r.free, r.beyond = n, make([]int32, 0, cap(r.free)), make([]int32, 0, cap(r.beyond))
	for _, row := range rows {
		r.giveBack(row)
	}
}

func (r *runner) giveBack(row int32) {
	if int(row) < r.limit {
		r.free = append(r.free, row)
	} else {
		r.beyond = append(r.beyond, row)
	}
}

// takeRow gives q a row. There is always one: no more sequences run than there
// are rows.
func (r *runner) takeRow(q *request) {
	if len(r.free) == 0 || q.row >= 0 {
		panic(fmt.Sprintf("engine: sequence %d with row %d asks for one of %d free rows", q.seq.ID, q.row, len(r.free)))
	}
	q.row = r.free[len(r.free)-1]
	r.free = r.free[:len(r.free)-1]
}

// dropRow takes q's row back. A step in flight may still use it: what the next
// owner does to it is ordered after that step.
func (r *runner) dropRow(q *request) {
	if q.row >= 0 {
		r.giveBack(q.row)
		q.row = -1
	}
}

// pack begins a step: rows, deltas and batch of out.
func (r *runner) pack(out *scheduler.Output) *step {
	s := r.steps[r.turn]
	r.turn = 1 - r.turn
	s.reset(out)
	n, guides := len(out.Scheduled), false
	rows, lens := s.batch.Rows[:n], s.batch.SeqLens[:n]
	for i := range out.Scheduled {
		e := &out.Scheduled[i]
		q := requestOf(e.Seq)
		if q.moved || e.FirstNewBlock < e.Seq.Table.Len() { // all blocks are new to who resumes
			if e.Resumed {
				r.takeRow(q)
				s.resumed = append(s.resumed, q)
			}
			s.update(q, e)
		}
		rows[i], lens[i] = q.row, int32(e.Start+e.NumTokens)
		guides = guides || q.guide != nil
		if !e.Sample {
			s.checked = append(s.checked, i)
		}
	}
	s.batch.Rows, s.batch.SeqLens, s.guides = rows, lens, guides
	s.guided = guides && slices.ContainsFunc(out.Scheduled, func(e scheduler.Scheduled) bool { return e.Sample && requestOf(e.Seq).guide != nil })
	s.addDecodes(r.identity)
	for i := out.NumDecodes; i < n; i++ {
		s.add(s.request(i), &out.Scheduled[i])
	}
	for _, i := range s.checked {
		s.check(s.request(i), &out.Scheduled[i], i)
	}
	return s
}

// update packs what changed for q's row.
func (s *step) update(q *request, e *scheduler.Scheduled) {
	whole, from := e.Resumed || q.moved, e.FirstNewBlock
	if q.moved {
		q.moved, from = false, 0
	}
	ids := e.Seq.Table.IDs()[from:]
	first := len(s.blocks)
	for _, id := range ids {
		s.blocks = append(s.blocks, int32(id))
	}
	u := kernels.RowUpdate{Row: q.row, FirstBlock: int32(from), Blocks: s.blocks[first:]}
	if whole {
		u.Reset, u.Sampling = true, q.sampling
		if q.sampling.UsesPenalties() {
			u.Prompt, u.Output = q.seq.Tokens[:q.seq.PromptLen], q.seq.Tokens[q.seq.PromptLen:]
		}
	}
	s.updates = append(s.updates, u)
}

// addDecodes packs the decodes, each of which draws a token. Where they are alone, lists that
// would say the same are one, and those that are the same in each step are identity: what a step
// of hundreds writes nobody has looked at since the last but one, and it is not in the
// processor's caches.
func (s *step) addDecodes(identity []int32) {
	n, b, sample := s.out.NumDecodes, &s.batch, &s.sample
	tokens := b.Tokens[:n]
	for i := range tokens {
		e := &s.out.Scheduled[i]
		token := kernels.FromDevice
		if e.Start < len(e.Seq.Tokens) {
			token = e.Seq.Tokens[e.Start]
		}
		tokens[i] = token
	}
	b.Tokens = tokens
	starts, places := identity[:n+1], identity[:n]
	if n == len(s.out.Scheduled) {
		b.QueryStart, b.LogitRows = starts, places
		sample.Index, sample.Rows, sample.Positions = places, b.Rows, b.SeqLens
		return
	}
	b.QueryStart, b.LogitRows = append(b.QueryStart, starts...), append(b.LogitRows, places...)
	sample.Index, sample.Rows, sample.Positions = append(sample.Index, places...), append(sample.Rows, b.Rows[:n]...), append(sample.Positions, b.SeqLens[:n]...)
}

// add packs q's tokens. The one that the last step draws, which the host does
// not know yet, comes from the row.
func (s *step) add(q *request, e *scheduler.Scheduled) {
	b := &s.batch
	end := e.Start + e.NumTokens
	known := min(end, len(e.Seq.Tokens))
	b.Tokens = append(b.Tokens, e.Seq.Tokens[e.Start:known]...)
	for range end - known {
		b.Tokens = append(b.Tokens, kernels.FromDevice)
	}
	b.QueryStart = append(b.QueryStart, int32(len(b.Tokens)))
	b.LogitRows = append(b.LogitRows, int32(len(b.Tokens)-1))
	if e.Sample {
		s.draw(q, end, len(b.LogitRows)-1)
	}
}

// check lets the last token of a chunk tell whether what the chunk left in its blocks
// are numbers, for it attends to all of that: others may find the blocks before q draws
// a token.
func (s *step) check(q *request, e *scheduler.Scheduled, i int) {
	s.draw(q, e.Start+e.NumTokens, i)
	s.sample.Checks++
}

func (s *step) draw(q *request, position, logitRow int) {
	s.sample.Index = append(s.sample.Index, int32(logitRow))
	s.sample.Rows = append(s.sample.Rows, q.row)
	s.sample.Positions = append(s.sample.Positions, int32(position))
}

// launch gives the step's forward pass to the device.
func (r *runner) launch(s *step) {
	if len(s.updates) > 0 {
		r.backend.UpdateRows(s.updates)
	}
	r.forward(&s.batch)
}

// sample ends the step that was launched.
func (r *runner) sample(s *step) { s.ticket = r.backend.Sample(&s.sample) }
