package cpu

// #include <stdlib.h>
// #include "device.h"
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/pagoda-engine/pagoda/kernels"
)

// step is the Go side of a pg_step: the same arrays as slices of the greatest
// length.
type step struct {
	c      *C.struct_pg_step
	ticket kernels.Ticket
	done   C.uint64_t // number of its last program

	tokens, rows, queryStart, seqLens, logitRows []int32
	tokenSeq, positions, slots                   []int32
	keptRows, keptPositions                      []int32 // of c.kept
	keptStart, keptLogitRows                     []int32
	sampleIndex, sampleRows, samplePositions     []int32
	masks                                        []*C.uint32_t
	maskWords                                    []uint32 // [MaxLogitRows][words]
	words                                        int      // of a mask
	forwardOps, sampleOps                        []C.struct_pg_op
	outTokens, outRanks, outTopIDs               []int32
	outLogprobs, outTopLogprobs                  []float32
	result                                       kernels.Result
	all, kept                                    counts // of the step, and of what is behind PG_KEEP
	keeps                                        bool   // KeepLogitRows was called
}

// counts are what the bytes and the arithmetic of a step's operations are counted by.
type counts struct {
	tokens, logits    int64
	attended, context int64 // Σ tokens seen by each query token; Σ SeqLens
}

// view is C memory as a slice.
func view[T, C any](p *C, n int) []T { return unsafe.Slice((*T)(unsafe.Pointer(p)), n) }

func (s *step) init(c C.struct_pg_step, b *Backend) {
	s.c = (*C.struct_pg_step)(C.malloc(C.sizeof_struct_pg_step))
	*s.c = c
	n, seqs, logits, top := b.limits.MaxBatchedTokens, b.limits.MaxSeqs, b.limits.MaxLogitRows, b.limits.MaxTopLogprobs
	s.words = (b.shape.Vocab + 31) / 32
	s.tokens, s.tokenSeq = view[int32](c.tokens, n), view[int32](c.token_seq, n)
	s.positions, s.slots = view[int32](c.positions, n), view[int32](c.slots, n)
	s.rows, s.seqLens = view[int32](c.rows, seqs), view[int32](c.seq_lens, seqs)
	s.queryStart = view[int32](c.query_start, seqs+1)
	s.logitRows = view[int32](c.logit_rows, logits)
	s.keptRows, s.keptPositions = view[int32](c.kept.rows, seqs), view[int32](c.kept.positions, seqs)
	s.keptStart, s.keptLogitRows = view[int32](c.kept.query_start, seqs+1), view[int32](c.kept.logit_rows, seqs)
	s.sampleIndex, s.sampleRows = view[int32](c.sample_index, logits), view[int32](c.sample_rows, logits)
	s.samplePositions = view[int32](c.sample_positions, logits)
	s.masks, s.maskWords = view[*C.uint32_t](c.masks, logits), view[uint32](c.mask_words, logits*s.words)
	s.forwardOps = unsafe.Slice(c.forward.ops, c.forward.max_ops)
	s.sampleOps = unsafe.Slice(c.sample.ops, c.sample.max_ops)
	s.outTokens, s.outRanks = view[int32](c.out_tokens, logits), view[int32](c.out_ranks, logits)
	s.outTopIDs, s.outTopLogprobs = view[int32](c.out_top_ids, logits*top), view[float32](c.out_top_logprobs, logits*top)
	s.outLogprobs = view[float32](c.out_logprobs, logits)
}

// Launch implements kernels.Backend.
func (b *Backend) Launch(batch *kernels.Batch, forward func()) {
	if b.open != nil {
		panic("cpu: Launch before the last step was sampled")
	}
	s := &b.steps[int(b.issued)%len(b.steps)]
	b.issued++
	s.ticket, b.open = b.issued, s
	if b.err != nil {
		return
	}
	b.completeBusy()
	if b.err != nil {
		return
	}
	C.pg_wait(b.device.pool, s.done)
	C.pg_program_quiet(&s.c.forward)
	C.pg_program_quiet(&s.c.sample)
	b.fill(s, batch)
	s.c.forward.num_ops = 0
	s.c.attention_planned, s.c.angles_planned, s.c.normed_packed, s.keeps = false, false, false, false
	b.layer, b.recording = -1, true
	forward()
	b.recording = false
	if s.c.forward.num_ops > 0 {
		b.submit(s, &s.c.forward)
	}
}

func (b *Backend) submit(s *step, program *C.struct_pg_program) {
	b.submitted = C.pg_submit(b.device, s.c, program)
	s.done = b.submitted
}

// fill copies the batch, checks it and derives what kernels need of each token.
func (b *Backend) fill(s *step, batch *kernels.Batch) {
	n, seqs := batch.NumTokens(), batch.NumSeqs()
	if n > len(s.tokens) || seqs > len(s.rows) || len(batch.LogitRows) > len(s.logitRows) {
		panic(fmt.Sprintf("cpu: batch of %d tokens, %d sequences, %d logit rows; limits %+v", n, seqs, len(batch.LogitRows), b.limits))
	}
	if len(batch.QueryStart) != seqs+1 || len(batch.SeqLens) != seqs || int(batch.QueryStart[seqs]) != n || batch.QueryStart[0] != 0 {
		panic(fmt.Sprintf("cpu: batch of %d tokens and %d sequences: query starts %v, %d lengths", n, seqs, batch.QueryStart, len(batch.SeqLens)))
	}
	c := s.c
	c.num_tokens, c.num_seqs = C.int32_t(n), C.int32_t(seqs)
	c.num_decodes, c.num_logits = C.int32_t(batch.NumDecodes), C.int32_t(len(batch.LogitRows))
	for _, id := range batch.Tokens {
		if id != kernels.FromDevice {
			b.checkID(id)
		}
	}
	last := int32(-1)
	for i, t := range batch.LogitRows {
		if t <= last || int(t) >= n {
			panic(fmt.Sprintf("cpu: logits of token %d of %d, the %d-th, behind those of %d", t, n, i, last))
		}
		last = t
	}
	copy(s.tokens, batch.Tokens)
	copy(s.rows, batch.Rows)
	copy(s.queryStart, batch.QueryStart)
	copy(s.seqLens, batch.SeqLens)
	copy(s.logitRows, batch.LogitRows)
	s.all = counts{tokens: int64(n), logits: int64(len(batch.LogitRows))}
	for i := range batch.Rows {
		b.fillSequence(s, i)
	}
}

// fillSequence derives the positions and slots of sequence i.
func (b *Backend) fillSequence(s *step, i int) {
	r, first, end, length := s.rows[i], s.queryStart[i], s.queryStart[i+1], s.seqLens[i]
	if r < 0 || int(r) >= len(b.rows) {
		panic(fmt.Sprintf("cpu: sequence %d: row %d, have %d", i, r, len(b.rows)))
	}
	table, size := b.rows[r].blocks(), int32(b.limits.BlockSize)
	if end < first || length < end-first || int(length) > b.limits.MaxModelLen || int(length) > len(table)*int(size) {
		panic(fmt.Sprintf("cpu: sequence %d (row %d): %d query tokens of length %d; MaxModelLen %d, table of %d blocks of %d", i, r, end-first, length, b.limits.MaxModelLen, len(table), size))
	}
	for t := first; t < end; t++ {
		p := length - (end - t)
		block := table[p/size]
		if int(block) >= b.numBlocks {
			panic(fmt.Sprintf("cpu: row %d: block %d of a pool of %d", r, block, b.numBlocks))
		}
		s.tokenSeq[t], s.positions[t], s.slots[t] = int32(i), p, block*size+p%size
		s.all.attended += int64(p) + 1
	}
	s.all.context += int64(length)
}

// Sample implements kernels.Backend.
func (b *Backend) Sample(batch *kernels.SampleBatch) kernels.Ticket {
	s := b.open
	if s == nil {
		panic("cpu: Sample without Launch")
	}
	b.open = nil
	if b.err != nil {
		return s.ticket
	}
	n := len(batch.Index)
	if len(batch.Rows) != n || len(batch.Positions) != n || (batch.Masks != nil && len(batch.Masks) != n) {
		panic(fmt.Sprintf("cpu: sampling %d logit rows: %d rows, %d positions, %d masks", n, len(batch.Rows), len(batch.Positions), len(batch.Masks)))
	}
	for i, index := range batch.Index {
		if index < 0 || index >= int32(s.c.num_logits) || batch.Rows[i] < 0 || int(batch.Rows[i]) >= len(b.rows) {
			panic(fmt.Sprintf("cpu: sampling logit row %d of %d for row %d of %d", index, s.c.num_logits, batch.Rows[i], len(b.rows)))
		}
		s.masks[i] = nil
		if batch.Masks != nil && batch.Masks[i] != nil {
			mask := s.maskWords[i*s.words : (i+1)*s.words]
			clear(mask[copy(mask, batch.Masks[i]):]) // ids past a short mask are not allowed
			s.masks[i] = (*C.uint32_t)(unsafe.Pointer(&mask[0]))
		}
	}
	copy(s.sampleIndex, batch.Index)
	copy(s.sampleRows, batch.Rows)
	copy(s.samplePositions, batch.Positions)
	s.c.num_samples, s.c.num_checks = C.int32_t(n), C.int32_t(batch.Checks)
	s.sampleOps[0] = C.struct_pg_op{kind: C.PG_SAMPLE, layer: -1}
	s.c.sample.num_ops = 1
	b.submit(s, &s.c.sample)
	top := n * b.limits.MaxTopLogprobs
	s.result = kernels.Result{
		Tokens: s.outTokens[:n:n], Logprobs: s.outLogprobs[:n:n], Ranks: s.outRanks[:n:n],
		TopIDs: s.outTopIDs[:top:top], TopLogprobs: s.outTopLogprobs[:top:top],
	}
	return s.ticket
}

// Wait implements kernels.Backend.
func (b *Backend) Wait(t kernels.Ticket) (*kernels.Result, error) {
	if b.err != nil {
		return nil, b.err
	}
	s := &b.steps[int(t-1)%len(b.steps)]
	if s.ticket != t || s == b.open {
		panic(fmt.Sprintf("cpu: waiting for step %d; %d were launched", t, b.issued))
	}
	C.pg_wait(b.device.pool, s.done)
	if err := b.deferred.unreadable(b.device); err != nil {
		b.fail(err)
		return nil, b.err
	}
	sample := &s.sampleOps[0]
	s.result.Duration = nanoseconds(sample.end_ns - sample.start_ns)
	if ops := s.forwardOps[:s.c.forward.num_ops]; len(ops) > 0 {
		s.result.Duration += nanoseconds(ops[len(ops)-1].end_ns - ops[0].start_ns)
	}
	b.report(s)
	return &s.result, nil
}
