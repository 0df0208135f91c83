//go:build cuda

package cuda

import (
	"fmt"
	"unsafe"
)

// prefillPlanParams is PrefillPlanParams.
type prefillPlanParams struct {
	batch         batchPtrs
	header, items ptr
	group, rows   int32
	decodes       int32 // 1: decodes are items too
	_             int32
}

// prefillParams is PrefillParams.
type prefillParams struct {
	query, out            ptr
	kv                    pagedKV
	batch                 batchPtrs
	header, items         ptr
	ld                    int64
	layer, kvHeads, group int32
	scale                 float32
}

var (
	_ [120]byte = [unsafe.Sizeof(prefillPlanParams{})]byte{}
	_ [104]byte = [unsafe.Offsetof(prefillPlanParams{}.group)]byte{}
	_ [200]byte = [unsafe.Sizeof(prefillParams{})]byte{}
	_ [160]byte = [unsafe.Offsetof(prefillParams{}.header)]byte{}
	_ [184]byte = [unsafe.Offsetof(prefillParams{}.layer)]byte{}
)

// prefillPlan is the launches of a step's prefills: one a layer, and once the
// list of items, each a tile of rows.
type prefillPlan struct {
	layer, plan launch
	items, rows int
}

// Rows of the tiles of attention_prefill.cu and attention_sm90.cu; a row is a query head of a token.
const prefillRows = 128 // and prefillShort

// planAttentionPrefill plans the sequences with the given prefix sums of query
// tokens. Tiles are short where long ones would leave the device half empty, and
// where results must not depend on the batch.
func planAttentionPrefill(s attentionShape, a arch, queryStart []int32, invariant bool) (p prefillPlan, ok bool) {
	if s.headDim != 64 && s.headDim != 128 {
		return prefillPlan{}, false
	}
	p.plan = grid("attention_prefill", "attention_prefill_plan", 1, 1, 1024)
	p.rows = prefillRows
	p.items = prefillItems(queryStart, s.group(), p.rows)
	ctas := p.items * s.kvHeads
	if a.hopper && !invariant && ctas >= a.sms/2 {
		p.layer = grid("attention_sm90", fmt.Sprintf("attention_sm90_%d", s.headDim), ctas, 1, 384)
		p.layer.Shared, p.layer.PDL = uint32(1024+(prefillRows+4*128)*s.headDim*2+72), 1
		return p, int(p.layer.Shared) <= a.shared
	}
	kernel := fmt.Sprintf("attention_prefill_%d", s.headDim)
	if invariant || ctas < slotsOf(a) {
		kernel += "_short"
		p.rows = prefillShort
		p.items = prefillItems(queryStart, s.group(), p.rows)
	}
	p.layer = grid("attention_prefill", kernel, p.items*s.kvHeads, 1, 128)
	p.layer.Shared, p.layer.PDL = uint32((p.rows+2*2*64)*s.headDim*2), 1
	return p, int(p.layer.Shared) <= a.shared
}

// prefillItems counts the tiles of the sequences.
func prefillItems(queryStart []int32, group, rows int) int {
	n := 0
	for i := range len(queryStart) - 1 {
		n += ceilDiv(int(queryStart[i+1]-queryStart[i])*group, rows)
	}
	return n
}
