package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/kernels"
)

// fake is a device whose KV cache holds token ids and whose "model" draws a hash
// of the context as it is read back through the block table. Any fault of
// paging, sharing or scheduling changes what comes out, or breaks a rule that it
// checks: every slot read was written for that position, block 0 is in no table,
// and nobody writes what another row of the step sees.
type fake struct {
	kernels.Backend // nil: an operation of the layers would panic

	limits kernels.Limits
	vocab  int
	info   kernels.Info

	tokens    []int32 // [slots] −1 = not written, nan = it was spoiled
	positions []int32 // [slots]
	writers   []writer
	rows      []fakeRow
	numBlocks int

	hostTokens    []int32 // [host slots]
	hostPositions []int32
	numHost       int
	now           kernels.Limits // in force; limits are Setup's
	swaps         []*fakeSwap
	swapPolls     int // how often a swap is not yet done

	step    int64 // launched
	drawn   int64 // valid tokens
	batch   *kernels.Batch
	hashes  []uint64 // of the contexts of batch's logit rows
	spoiled []bool   // likewise: a NaN is in them
	logits  []float32
	results [2]kernels.Result
	err     error

	failAt  int64                                // the step whose Wait fails; 0 = none
	invalid int32                                // an id that comes out as InvalidToken; 0 = none
	onStep  func()                               // called between launch and collection
	hold    chan struct{}                        // Wait takes two values: the first says that it is there; nil = it does not wait
	closed  int                                  // calls of Close
	spoil   func(position int, token int32) bool // what is written becomes NaN: who reads it draws InvalidToken; nil = nothing
	updates int                                  // RowUpdates so far

	// See profile_test.go.
	profiler    func(kernels.OpRecord)
	reportsLate bool
	late        []kernels.OpRecord
}

const nan = -2

type writer struct {
	step int64
	row  int32
}

type fakeRow struct {
	table    []int32
	sampling kernels.Sampling
	last     int32
	lastPos  int32 // position of last; −1 = none drawn
}

func (f *fake) Info() kernels.Info                                 { return f.info }
func (f *fake) WorkspaceBytes(kernels.Shape, kernels.Limits) int64 { return 1 << 20 }
func (f *fake) KV() kernels.PagedKV {
	return kernels.NewPagedKV(fakeShape(f.vocab), f.limits.BlockSize)
}
func (f *fake) Sync() error { return f.err }
func (f *fake) ReadActivation(_ kernels.Activation, n int) []float32 {
	return slices.Clone(f.logits[:n*f.vocab])
}

func (f *fake) Setup(_ kernels.Shape, l, now kernels.Limits) error {
	f.limits, f.now = l, now
	f.rows = make([]fakeRow, l.MaxSeqs)
	for i := range f.results {
		f.results[i] = kernels.Result{
			Tokens: make([]int32, l.MaxLogitRows), Logprobs: make([]float32, l.MaxLogitRows), Ranks: make([]int32, l.MaxLogitRows),
			TopIDs: make([]int32, l.MaxLogitRows*l.MaxTopLogprobs), TopLogprobs: make([]float32, l.MaxLogitRows*l.MaxTopLogprobs),
		}
	}
	return nil
}

// ResizePool keeps what the blocks hold that stay.
func (f *fake) ResizePool(device, host int) error {
	f.numBlocks, f.numHost = device, host
	resize := func(old []int32, blocks int) []int32 {
		fresh := make([]int32, blocks*f.limits.BlockSize)
		for i := range fresh {
			fresh[i] = -1
		}
		copy(fresh, old)
		return fresh
	}
	f.tokens, f.positions = resize(f.tokens, device), resize(f.positions, device)
	f.hostTokens, f.hostPositions = resize(f.hostTokens, host), resize(f.hostPositions, host)
	writers := make([]writer, device)
	copy(writers, f.writers)
	f.writers = writers
	return nil
}

// SetLimits forgets the rows that go.
func (f *fake) SetLimits(l kernels.Limits) error {
	f.now = l
	clear(f.rows[l.MaxSeqs:])
	return nil
}

// move copies whole blocks.
func (f *fake) move(copies []kernels.BlockCopy, to, from, toPos, fromPos []int32) {
	size := f.limits.BlockSize
	for _, c := range copies {
		src, dst := int(c.Src)*size, int(c.Dst)*size
		copy(to[dst:dst+size], from[src:src+size])
		copy(toPos[dst:dst+size], fromPos[src:src+size])
	}
}

func (f *fake) CopyBlocks(copies []kernels.BlockCopy) {
	f.move(copies, f.tokens, f.tokens, f.positions, f.positions)
}

// A swap happens at the last moment at which it may: when it is reported as done.
// Whoever reuses its blocks before then changes what it carries.
type fakeSwap struct {
	copies []kernels.BlockCopy
	out    bool
	polls  int
	done   bool
}

func (f *fake) swap(copies []kernels.BlockCopy, out bool) kernels.Ticket {
	f.swaps = append(f.swaps, &fakeSwap{copies: slices.Clone(copies), out: out})
	if !out { // until it has arrived it is not there
		for _, c := range copies {
			f.WriteBlock(c.Dst, nil)
		}
	}
	return kernels.Ticket(len(f.swaps) - 1)
}

func (f *fake) SwapOut(c []kernels.BlockCopy) kernels.Ticket { return f.swap(c, true) }
func (f *fake) SwapIn(c []kernels.BlockCopy) kernels.Ticket  { return f.swap(c, false) }

func (f *fake) SwapDone(t kernels.Ticket, wait bool) (time.Duration, bool, error) {
	s := f.swaps[t]
	if s.polls++; !wait && s.polls <= f.swapPolls {
		return 0, false, f.err
	}
	if !s.done {
		s.done = true
		if s.out {
			f.move(s.copies, f.hostTokens, f.tokens, f.hostPositions, f.positions)
		} else {
			f.move(s.copies, f.tokens, f.hostTokens, f.positions, f.hostPositions)
		}
	}
	return time.Duration(len(s.copies)) * time.Microsecond, true, f.err
}

// WriteBlock is called to poison a block: nothing in it may be read any more.
func (f *fake) WriteBlock(block int32, _ []uint16) {
	for i := range f.limits.BlockSize {
		f.tokens[int(block)*f.limits.BlockSize+i] = -1
	}
}

func (f *fake) UpdateRows(updates []kernels.RowUpdate) {
	f.updates += len(updates)
	for _, u := range updates {
		r := &f.rows[u.Row]
		if u.Reset {
			*r = fakeRow{table: r.table[:0], sampling: u.Sampling, lastPos: -1}
		}
		if int(u.FirstBlock) != len(r.table) {
			panic(fmt.Sprintf("fake: row %d: blocks from entry %d of a table of %d", u.Row, u.FirstBlock, len(r.table)))
		}
		for _, b := range u.Blocks {
			if b < 1 || int(b) >= f.numBlocks {
				panic(fmt.Sprintf("fake: row %d gets block %d of %d", u.Row, b, f.numBlocks))
			}
			r.table = append(r.table, b)
		}
	}
}

func (f *fake) slot(r *fakeRow, position int) int {
	size := f.limits.BlockSize
	if position/size >= len(r.table) {
		panic(fmt.Sprintf("fake: position %d in a table of %d blocks", position, len(r.table)))
	}
	return int(r.table[position/size])*size + position%size
}

func (f *fake) Launch(b *kernels.Batch, _ func()) {
	f.step++
	f.checkBatch(b)
	for i, row := range b.Rows {
		f.write(b, i, row)
	}
	f.hashes, f.spoiled = f.hashes[:0], f.spoiled[:0]
	next := 0
	for i, row := range b.Rows {
		next = f.read(b, i, row, next)
	}
	f.batch = b
	f.logits = f.logits[:0]
	for _, h := range f.hashes { // logits that tell which context they follow
		for id := range f.vocab {
			f.logits = append(f.logits, float32(extend(h, int32(id))>>40))
		}
	}
}

func (f *fake) checkBatch(b *kernels.Batch) {
	if b.NumTokens() == 0 || b.NumTokens() > f.now.MaxBatchedTokens || b.NumSeqs() > f.now.MaxSeqs || len(b.LogitRows) > f.now.MaxLogitRows {
		panic(fmt.Sprintf("fake: %d tokens, %d sequences, %d logit rows; limits %+v", b.NumTokens(), b.NumSeqs(), len(b.LogitRows), f.now))
	}
	strictly := func(row, before int32) int { return int(row - before - 1) }
	if !slices.IsSortedFunc(b.LogitRows, strictly) || int(b.QueryStart[b.NumSeqs()]) != b.NumTokens() {
		panic(fmt.Sprintf("fake: logit rows %v, query starts %v of %d tokens", b.LogitRows, b.QueryStart, b.NumTokens()))
	}
	for i := range b.NumSeqs() {
		if n := b.QueryStart[i+1] - b.QueryStart[i]; n < 1 || i < b.NumDecodes && n != 1 || int(b.SeqLens[i]) > f.limits.MaxModelLen {
			panic(fmt.Sprintf("fake: sequence %d of %d decodes has %d query tokens of %d", i, b.NumDecodes, n, b.SeqLens[i]))
		}
		if slices.Index(b.Rows, b.Rows[i]) != i || int(b.Rows[i]) >= f.now.MaxSeqs {
			panic(fmt.Sprintf("fake: row %d is twice in a step, or not below %d", b.Rows[i], f.now.MaxSeqs))
		}
	}
}

// write puts the query tokens of sequence i into their slots.
func (f *fake) write(b *kernels.Batch, i int, row int32) {
	r := &f.rows[row]
	first, end := int(b.QueryStart[i]), int(b.QueryStart[i+1])
	for t := first; t < end; t++ {
		position := int(b.SeqLens[i]) - (end - t)
		token := b.Tokens[t]
		if token == kernels.FromDevice {
			if int(r.lastPos) != position {
				panic(fmt.Sprintf("fake: row %d wants its last token at position %d, it was drawn for %d", row, position, r.lastPos))
			}
			token = max(r.last, 0)
		}
		slot := f.slot(r, position)
		block := slot / f.limits.BlockSize
		if w := &f.writers[block]; w.step == f.step && w.row != row {
			panic(fmt.Sprintf("fake: rows %d and %d write block %d in one step", w.row, row, block))
		}
		f.writers[block] = writer{f.step, row}
		if f.spoil != nil && f.spoil(position, token) {
			token = nan
		}
		f.tokens[slot], f.positions[slot] = token, int32(position)
	}
}

// read hashes the contexts of sequence i's logit rows, of which next is the
// first, and returns the first of the next sequence.
func (f *fake) read(b *kernels.Batch, i int, row int32, next int) int {
	r := &f.rows[row]
	length := int(b.SeqLens[i])
	h, spoiled := uint64(0), false
	for p := range length {
		slot := f.slot(r, p)
		if f.tokens[slot] == -1 || int(f.positions[slot]) != p {
			panic(fmt.Sprintf("fake: row %d reads position %d in slot %d, which holds token %d of position %d", row, p, slot, f.tokens[slot], f.positions[slot]))
		}
		if w := f.writers[slot/f.limits.BlockSize]; w.step == f.step && w.row != row {
			panic(fmt.Sprintf("fake: row %d reads block %d while row %d writes it", row, slot/f.limits.BlockSize, w.row))
		}
		h = extend(h, f.tokens[slot])
		spoiled = spoiled || f.tokens[slot] == nan
		if next < len(b.LogitRows) && p == length-(int(b.QueryStart[i+1])-int(b.LogitRows[next])) {
			f.hashes, f.spoiled = append(f.hashes, h), append(f.spoiled, spoiled)
			next++
		}
	}
	return next
}

// extend and draw are the model: the hash of a context, and the token after it.
func extend(h uint64, token int32) uint64 {
	h = (h ^ uint64(token+1)) * 0x9E3779B97F4A7C15
	return h ^ h>>29
}

// mask is nil or what is allowed, which must be something.
func draw(h uint64, s *kernels.Sampling, position, vocab int, mask []uint32) int32 {
	for attempt := uint64(0); attempt < 1<<20; attempt++ {
		x := (h + attempt + s.Seed<<20 + uint64(s.Choice)<<40) * 0xBF58476D1CE4E5B9
		id := int32((x ^ x>>31) % uint64(vocab))
		if mask != nil && mask[id/32]>>(id%32)&1 == 0 {
			continue
		}
		if position-int(s.PromptLen) >= int(s.MinTokens) || !slices.Contains(s.StopIDs, id) {
			return id
		}
	}
	panic(fmt.Sprintf("fake: the mask %x allows nothing to draw", mask))
}

func (f *fake) Sample(s *kernels.SampleBatch) kernels.Ticket {
	res := &f.results[f.step%2]
	res.Tokens = res.Tokens[:len(s.Index)]
	top := f.limits.MaxTopLogprobs
	for i, index := range s.Index {
		r := &f.rows[s.Rows[i]]
		if slices.Index(f.batch.Rows, s.Rows[i]) < 0 {
			panic(fmt.Sprintf("fake: sampling for row %d, which is not in the step", s.Rows[i]))
		}
		var mask []uint32
		if s.Masks != nil {
			if len(s.Masks) != len(s.Index) {
				panic(fmt.Sprintf("fake: %d masks for %d rows", len(s.Masks), len(s.Index)))
			}
			mask = s.Masks[i]
		}
		if i >= len(s.Index)-s.Checks {
			res.Tokens[i] = 0
			if f.spoiled[index] {
				res.Tokens[i] = kernels.InvalidToken
			}
			continue
		}
		id := draw(f.hashes[index], &r.sampling, int(s.Positions[i]), f.vocab, mask)
		if f.invalid != 0 && id == f.invalid || f.spoiled[index] {
			id = kernels.InvalidToken
			f.drawn--
		}
		f.drawn++
		r.last, r.lastPos = id, s.Positions[i]
		res.Tokens[i], res.Logprobs[i], res.Ranks[i] = id, -float32(id), id+1
		for j := range top {
			res.TopIDs[i*top+j], res.TopLogprobs[i*top+j] = id+int32(j), -float32(j)
		}
	}
	if f.onStep != nil {
		f.onStep()
	}
	return kernels.Ticket(f.step)
}

func (f *fake) Wait(t kernels.Ticket) (*kernels.Result, error) {
	if f.hold != nil {
		<-f.hold
		<-f.hold
	}
	if f.failAt != 0 && int64(t) >= f.failAt && f.err == nil {
		f.err = fmt.Errorf("injected: step %d", t)
	}
	f.report(t)
	res := &f.results[int64(t)%2]
	res.Duration = time.Microsecond
	return res, f.err
}

func (f *fake) Close() error {
	f.closed++
	return nil
}
