//go:build cuda

package cuda

import (
	"cmp"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
)

// stepRing is the steps between a slot's uses: a Result is valid until two more
// Samples, and one step may be under way.
const stepRing = 4

// idleEvery is how long Wait looks at the step between calls of the idle function.
const idleEvery = 250 * time.Microsecond

// SetIdle implements kernels.Idler.
func (b *Backend) SetIdle(fn func()) { b.idle = fn }

// step is a slot of the staging ring: what one step sends and receives, in
// pinned memory.
type step struct {
	ticket  kernels.Ticket
	used    bool    // what it last sent may still be read
	message message // the step, of the ring: see prepare.cu
	sample  message // its sample entries, where they go apart
	masks   []uint32
	results []int32 // of the ring: see SampleParams of sample_groups.cuh
	start   cuda.Event
	end     cuda.Event
	began   *cuda.Event // start, or the end of the step before if that was under way when this was launched
	result  kernels.Result

	tokens, seqs, logits int    // of the batch
	graph                *graph // that will run the step once Sample is called
	forward              func() // of a step that waits for its graph
	attended, context    int64  // Σ tokens seen by each query token; Σ SeqLens
	keptContext          int64  // Σ tokens seen by each of LogitRows
	records              []record
}

// runState is the shape of the step that is being issued, as operations see it.
type runState struct {
	issuing      bool // inside Launch's forward
	layer        int
	part         string // of a plain product, for the profiler
	tokens, seqs int    // with the padding of a graph
	decodes      bool   // no prompt among them
	logits       int
	step         *step
	attention    attentionPlan
	sampled      bool    // its sample entries are there already
	tops         int32   // that the head left of each plain row; 0 = all logits are there
	kept         bool    // tokens are LogitRows'
	norm         *weight // of an RMSNorm that the next operation makes, if it is a product that can
	held         linear  // waits for the norm behind it; w is nil if none does
	pieces       int32   // sums of squares of a row that such a norm is left in, 0 if the product has all of it to make
	spent        bool    // Normed is not there: such a product made the norm for itself
	first        bool    // nothing was launched behind prepare yet
}

func (b *Backend) resultWords() int { return b.limits.MaxLogitRows * (3 + 2*b.limits.MaxTopLogprobs) }

func (b *Backend) initSteps() error {
	words, resultWords := messageWords(b.limits, updateWords(b.limits)), b.resultWords()
	masks := b.limits.MaxLogitRows * maskWords(b.shape.Vocab)
	results, err := hostAlloc[int32](b, stepRing*resultWords)
	if err != nil {
		return err
	}
	messages, err := hostAlloc[int32](b, stepRing*words)
	if err != nil {
		return err
	}
	b.run.step, b.last = nil, nil
	for i := range b.steps {
		s := &b.steps[i]
		s.results = results[i*resultWords : (i+1)*resultWords]
		s.message.words = messages[i*words : (i+1)*words : (i+1)*words]
		if s.sample.words, err = hostAlloc[int32](b, headerWords+entryWords*b.limits.MaxLogitRows); err != nil {
			return err
		}
		if s.masks, err = hostAlloc[uint32](b, masks); err != nil {
			return err
		}
		if s.start, err = cuda.NewEvent(); err != nil {
			return err
		}
		if s.end, err = cuda.NewEvent(); err != nil {
			return err
		}
	}
	return nil
}

func (s *step) destroy() error {
	return errors.Join(s.start.Destroy(), s.end.Destroy())
}

// Launch implements kernels.Backend.
func (b *Backend) Launch(batch *kernels.Batch, forward func()) {
	if b.open != nil {
		panic("cuda: Launch before the last step was sampled")
	}
	s := &b.steps[int(b.issued)%stepRing]
	b.issued++
	s.ticket, b.open = b.issued, s
	if b.err != nil {
		return
	}
	b.fail("load", b.CheckLoad())
	b.ranges.Push("step")
	if s.used {
		b.fail("launch", s.end.Sync())
	}
	s.used = true
	b.checkBatch(s, batch)
	s.graph, s.forward = nil, nil
	tokens, seqs := batch.NumTokens(), batch.NumSeqs()
	if g := b.graphs.find(b, batch, forward); g != nil {
		tokens, seqs, s.graph, s.forward = g.size, g.size, g, forward
	}
	b.clearRows(tokens)
	s.message.start()
	s.message.set(mStep, int(int32(s.ticket-1)))
	b.updates.take(&s.message)
	s.message.batch(batch, tokens, seqs)
	if s.graph == nil {
		b.runForward(s, batch.QueryStart, batch.SeqLens, batch.NumDecodes, forward)
	}
}

// runForward issues the step op by op.
func (b *Backend) runForward(s *step, queryStart, lens []int32, decodes int, forward func()) {
	b.fail("launch", s.start.Record(&b.compute))
	s.began = &s.start
	b.run.step = s
	b.beginPrepare()
	b.send(&s.message, true)
	b.issue(s, queryStart, lens, decodes, s.logits, false, forward)
}

// beginPrepare starts the operation that ends in issue.
func (b *Backend) beginPrepare() {
	b.ranges.Push(string(kernels.OpPrepare))
	b.profiler.begin(b)
}

// issue ends the operation that prepares a step of the sequences, and calls forward. The
// lengths may be nil: those of a graph's are not known.
func (b *Backend) issue(s *step, queryStart, lens []int32, decodes, logits int, sampled bool, forward func()) {
	seqs := len(queryStart) - 1
	b.run = runState{issuing: true, layer: -1, tokens: int(queryStart[seqs]), seqs: seqs, logits: logits, step: s, decodes: decodes == seqs, sampled: sampled}
	b.planAttention(queryStart, lens, decodes)
	b.end(kernels.OpPrepare, 4*int64(s.message.n), 0)
	b.run.first, b.layers.on = true, false
	forward()
	b.endLayers()
	b.makeNorm()
	b.release()
	b.run.issuing = false
}

// flush issues the step that waits for its graph: something comes between its
// Launch and its Sample.
func (b *Backend) flush() {
	if s := b.open; s != nil && s.graph != nil && b.err == nil {
		forward := s.forward
		s.graph, s.forward = nil, nil
		s.message.set(mTokens, s.tokens)
		s.message.set(mSeqs, s.seqs)
		b.runForward(s, b.identity[:s.seqs+1], nil, s.seqs, forward)
	}
}

// checkBatch panics at what a caller may not ask for, and notes the step's shape.
func (b *Backend) checkBatch(s *step, batch *kernels.Batch) {
	n, seqs := batch.NumTokens(), batch.NumSeqs()
	if n > b.now.MaxBatchedTokens || seqs > b.now.MaxSeqs || len(batch.LogitRows) > b.now.MaxLogitRows {
		panic(fmt.Sprintf("cuda: batch of %d tokens, %d sequences, %d logit rows; limits %+v", n, seqs, len(batch.LogitRows), b.now))
	}
	if len(batch.QueryStart) != seqs+1 || len(batch.SeqLens) != seqs || int(batch.QueryStart[seqs]) != n || batch.QueryStart[0] != 0 {
		panic(fmt.Sprintf("cuda: batch of %d tokens and %d sequences: query starts %v, %d lengths", n, seqs, batch.QueryStart, len(batch.SeqLens)))
	}
	for _, id := range batch.Tokens {
		if id != kernels.FromDevice {
			b.checkID(id)
		}
	}
	last := int32(-1)
	for i, t := range batch.LogitRows {
		if t <= last || int(t) >= n {
			panic(fmt.Sprintf("cuda: logits of token %d of %d, the %d-th, behind those of %d", t, n, i, last))
		}
		last = t
	}
	s.tokens, s.seqs, s.logits = n, seqs, len(batch.LogitRows)
	attended, context, most, size := int64(0), int64(0), int64(b.limits.MaxModelLen), int64(b.limits.BlockSize)
	starts, lens, rows, tableLen := batch.QueryStart[:seqs+1], batch.SeqLens[:seqs], uint32(b.now.MaxSeqs), b.tableLen
	for i, row := range batch.Rows {
		if uint32(row) >= rows { // a call for each takes longer than looking
			b.checkRow(row)
		}
		query, length, blocks := int64(starts[i+1]-starts[i]), int64(lens[i]), int64(tableLen[row])
		if query < 0 || length < query || length > most || length > blocks*size {
			panic(fmt.Sprintf("cuda: sequence %d (row %d): %d query tokens of length %d; MaxModelLen %d, table of %d blocks of %d", i, row, query, length, most, blocks, size))
		}
		attended += query*(length-query) + query*(query+1)/2
		context += length
	}
	s.attended, s.context = attended, context
	if len(batch.LogitRows) < n {
		s.keptContext = seenBy(batch)
	}
}

// seenBy is the tokens that those of LogitRows see.
func seenBy(batch *kernels.Batch) (n int64) {
	seq := 0
	for _, t := range batch.LogitRows {
		for t >= batch.QueryStart[seq+1] {
			seq++
		}
		n += int64(batch.SeqLens[seq] - (batch.QueryStart[seq+1] - 1 - t))
	}
	return n
}

func (b *Backend) checkRow(row int32) {
	if row < 0 || int(row) >= b.now.MaxSeqs {
		panic(fmt.Sprintf("cuda: row %d, have %d", row, b.now.MaxSeqs))
	}
}

func (b *Backend) checkID(id int32) {
	if id < 0 || int(id) >= b.shape.Vocab {
		panic(fmt.Sprintf("cuda: token %d, vocabulary of %d", id, b.shape.Vocab))
	}
}

// Sample implements kernels.Backend.
func (b *Backend) Sample(batch *kernels.SampleBatch) kernels.Ticket {
	s := b.open
	if s == nil {
		panic("cuda: Sample without Launch")
	}
	if b.err != nil {
		b.open = nil
		return s.ticket
	}
	defer b.ranges.Pop() // of the step
	b.checkSamples(s, batch)
	masked := b.stageMasks(s, batch)
	slot := int(s.ticket-1) % stepRing
	if masked || s.graph != nil && !s.graph.takes(batch.Index) {
		b.flush() // no graph has masks
	}
	b.graphs.masked = masked
	if g := s.graph; g != nil {
		s.message.samples(batch, slot)
		b.open, s.graph, s.forward = nil, nil, nil
		b.profiler.beginReplay(b)
		b.replay(s, g)
		b.profiler.endReplay(b, s, g, len(batch.Index))
		b.setResult(s, len(batch.Index))
		return s.ticket
	}
	b.open = nil
	s.sample.start()
	masks := s.sample.samples(batch, slot)
	if len(batch.Index) > 0 {
		b.run.step = s
		b.begin(kernels.OpSample)
		if masks > 0 {
			b.fetch(b.ws.masks, unsafe.Pointer(&s.masks[0]), masks*maskWords(b.shape.Vocab))
		}
		b.send(&s.sample, false)
		b.runSample(len(batch.Index), false)
		b.end(kernels.OpSample, sampleBytes(len(batch.Index), b.shape.Vocab), 0)
	}
	b.fail(kernels.OpSample, s.end.Record(&b.compute))
	b.last = &s.end
	b.setResult(s, len(batch.Index))
	b.graphs.captureWanted(b)
	return s.ticket
}

func (b *Backend) checkSamples(s *step, batch *kernels.SampleBatch) {
	n := len(batch.Index)
	if len(batch.Rows) != n || len(batch.Positions) != n || (batch.Masks != nil && len(batch.Masks) != n) {
		panic(fmt.Sprintf("cuda: sampling %d logit rows: %d rows, %d positions, %d masks", n, len(batch.Rows), len(batch.Positions), len(batch.Masks)))
	}
	rows, logits := uint32(b.now.MaxSeqs), uint32(s.logits)
	for _, row := range batch.Rows {
		if uint32(row) >= rows {
			b.checkRow(row)
		}
	}
	for _, index := range batch.Index {
		if uint32(index) >= logits {
			panic(fmt.Sprintf("cuda: sampling logit row %d of %d", index, s.logits))
		}
	}
}

// stageMasks copies the masks, one behind the other; ids past a short one are
// not allowed.
func (b *Backend) stageMasks(s *step, batch *kernels.SampleBatch) bool {
	words, at := maskWords(b.shape.Vocab), 0
	for _, mask := range batch.Masks {
		if mask == nil {
			continue
		}
		to := s.masks[at : at+words]
		clear(to[copy(to, mask):])
		at += words
	}
	return at > 0
}

// sampleBytes is what the sampler reads for n entries, if all logits are there: the host does not know which rows' are.
func sampleBytes(n, vocab int) int64 { return 4 * int64(n) * int64(vocab) }

// runSample issues the sampler for n entries, which prepare has unpacked before the layers or, where
// the step is not one message, just now.
func (b *Backend) runSample(n int, before bool) {
	p := sampleParams{
		logits: b.ws.logits, edited: b.ws.edited, ld: int64(stride(b.shape.Vocab)),
		state: b.ws.state, stopIDs: b.ws.stopIDs, bias: b.ws.bias, counts: b.ws.counts, countsStride: int64(countStride(b.shape.Vocab)),
		entries: b.ws.entries, masks: b.ws.masks, header: b.ws.batch.header, parts: b.ws.parts, draws: b.ws.draws, maxima: b.ws.maxima,
		results: ptr(uintptr(unsafe.Pointer(&b.steps[0].results[0]))), resultWords: int64(b.resultWords()),
		maskWords: int32(maskWords(b.shape.Vocab)), vocab: int32(b.shape.Vocab), sampleVocab: int32(b.shape.SampleVocab),
		splits: int32(ceilDiv(b.shape.Vocab, splitIDs)), capacity: int32(b.limits.MaxLogitRows), maxTop: int32(b.limits.MaxTopLogprobs),
		tops: b.run.tops,
	}
	plan := planSample(n, b.shape.Vocab, cmp.Or(b.cfg.splitters, b.arch.sms))
	if !before {
		plan[0].PDL = 0 // it reads them without waiting
	}
	for _, l := range plan {
		b.launch(kernels.OpSample, l, unsafe.Pointer(&p))
	}
}

// setResult cuts the Result from the slot.
func (b *Backend) setResult(s *step, n int) {
	capacity, top := b.limits.MaxLogitRows, n*b.limits.MaxTopLogprobs
	part := func(at, n int) []int32 { return s.results[at : at+n : at+n] }
	likeliest := 3 * capacity
	s.result = kernels.Result{
		Tokens: part(0, n), Logprobs: floats(part(capacity, n)), Ranks: part(2*capacity, n),
		TopIDs: part(likeliest, top), TopLogprobs: floats(part(likeliest+capacity*b.limits.MaxTopLogprobs, top)),
	}
}

// floats is the same memory.
func floats(s []int32) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(s))), len(s))
}

// Wait implements kernels.Backend.
func (b *Backend) Wait(t kernels.Ticket) (*kernels.Result, error) {
	if b.err != nil {
		return nil, b.err
	}
	if t < 1 || t > b.issued {
		panic(fmt.Sprintf("cuda: waiting for step %d; %d were launched", t, b.issued))
	}
	s := &b.steps[int(t-1)%stepRing]
	if s.ticket != t || s == b.open {
		panic(fmt.Sprintf("cuda: waiting for step %d; %d were launched", t, b.issued))
	}
	b.run.layer, b.run.tokens, b.run.seqs, b.run.kept = -1, s.tokens, s.seqs, false
	var err error
	for done := b.idle == nil; !done && err == nil; {
		if done, err = s.end.DoneWithin(idleEvery); !done && err == nil {
			b.idle()
		}
	}
	if err == nil {
		s.result.Duration, err = s.end.Await(s.began)
	}
	if err != nil {
		b.fail("step", err)
		return nil, b.err
	}
	s.used = false
	b.report(s)
	return &s.result, nil
}
