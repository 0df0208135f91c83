package cpu

// #include "device.h"
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/pagoda-engine/pagoda/kernels"
)

// row is the Go side's view of a row's state in C.
type row struct {
	c     *C.struct_pg_row
	table []int32 // the row's table, of the greatest length
}

func (b *Backend) initRows() {
	entries := (b.limits.MaxModelLen + b.limits.BlockSize - 1) / b.limits.BlockSize
	b.rows = make([]row, b.limits.MaxSeqs)
	states := unsafe.Slice(b.device.rows, b.limits.MaxSeqs)
	for i := range states {
		b.rows[i] = row{c: &states[i], table: view[int32](states[i].table, entries)}
	}
}

// blocks is the part of the table in use.
func (r *row) blocks() []int32 { return r.table[:r.c.table_len] }

// UpdateRows implements kernels.Backend. It waits for the step under way, whose
// rows it may change.
func (b *Backend) UpdateRows(updates []kernels.RowUpdate) {
	if len(updates) == 0 || b.err != nil {
		return
	}
	b.drain()
	for i := range updates {
		u := &updates[i]
		if u.Row < 0 || int(u.Row) >= len(b.rows) {
			panic(fmt.Sprintf("cpu: update of row %d, have %d", u.Row, len(b.rows)))
		}
		if u.Reset {
			b.resetRow(u)
		}
		b.setBlocks(u)
	}
}

// setBlocks writes the update's blocks, after which the table ends.
func (b *Backend) setBlocks(u *kernels.RowUpdate) {
	if len(u.Blocks) == 0 {
		return
	}
	r := &b.rows[u.Row]
	first, end := int(u.FirstBlock), int(u.FirstBlock)+len(u.Blocks)
	if first < 0 || first > len(r.blocks()) || end > len(r.table) {
		panic(fmt.Sprintf("cpu: row %d: blocks for entries %d to %d of a table that has %d and room for %d", u.Row, first, end, len(r.blocks()), len(r.table)))
	}
	for _, block := range u.Blocks {
		if block < 1 || int(block) >= b.numBlocks {
			panic(fmt.Sprintf("cpu: row %d: block %d, want 1 to %d", u.Row, block, b.numBlocks-1))
		}
	}
	copy(r.table[first:end], u.Blocks)
	r.c.table_len = C.int32_t(end)
}

// resetRow gives the row to another sequence.
func (b *Backend) resetRow(u *kernels.RowUpdate) {
	s := &u.Sampling
	if int(s.Logprobs) > b.limits.MaxTopLogprobs {
		panic(fmt.Sprintf("cpu: row %d: %d logprobs, MaxTopLogprobs is %d", u.Row, s.Logprobs, b.limits.MaxTopLogprobs))
	}
	prompt, output := u.Prompt, u.Output
	if !s.UsesPenalties() {
		prompt, output = nil, nil
	}
	for _, ids := range [][]int32{prompt, output} {
		for _, id := range ids {
			b.checkID(id)
		}
	}
	// Ids beyond the vocabulary are never drawn: nothing to bias or to stop at.
	b.stopIDs, b.bias = b.stopIDs[:0], b.bias[:0]
	for _, id := range s.StopIDs {
		if b.inVocab(id) {
			b.stopIDs = append(b.stopIDs, id)
		}
	}
	for _, bias := range s.LogitBias {
		if b.inVocab(bias.ID) {
			b.bias = append(b.bias, bias)
		}
	}
	c := C.struct_pg_sampling{
		temperature: C.float(s.Temperature), top_p: C.float(s.TopP), min_p: C.float(s.MinP),
		repetition_penalty: C.float(s.RepetitionPenalty), presence_penalty: C.float(s.PresencePenalty),
		frequency_penalty: C.float(s.FrequencyPenalty), seed: C.uint64_t(s.Seed), top_k: C.int32_t(s.TopK),
		choice: C.int32_t(s.Choice), prompt_len: C.int32_t(s.PromptLen), min_tokens: C.int32_t(s.MinTokens),
		logprobs: C.int32_t(s.Logprobs), num_stop_ids: C.int32_t(len(b.stopIDs)), num_bias: C.int32_t(len(b.bias)),
		penalties: C.bool(s.UsesPenalties()),
	}
	ok := C.pg_row_reset(b.device, C.int(u.Row), &c, ints(b.stopIDs),
		(*C.struct_pg_token_bias)(unsafe.Pointer(unsafe.SliceData(b.bias))),
		ints(prompt), C.int(len(prompt)), ints(output), C.int(len(output)))
	if !ok {
		b.fail(fmt.Errorf("cpu: row %d: no memory for %d stop ids and %d biases", u.Row, len(b.stopIDs), len(b.bias)))
	}
}

func (b *Backend) inVocab(id int32) bool { return id >= 0 && int(id) < b.shape.Vocab }

func (b *Backend) checkID(id int32) {
	if !b.inVocab(id) {
		panic(fmt.Sprintf("cpu: token %d, vocabulary of %d", id, b.shape.Vocab))
	}
}

// ints is the C pointer to a slice's data.
func ints(s []int32) *C.int32_t { return (*C.int32_t)(unsafe.Pointer(unsafe.SliceData(s))) }
