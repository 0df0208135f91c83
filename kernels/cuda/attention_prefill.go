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

// sm90PrefillParams is Sm90PrefillParams.
type sm90PrefillParams struct {
	pool tensorMap
	p    prefillParams
	_    [56]byte
}

var (
	_ [120]byte = [unsafe.Sizeof(prefillPlanParams{})]byte{}
	_ [104]byte = [unsafe.Offsetof(prefillPlanParams{}.group)]byte{}
	_ [200]byte = [unsafe.Sizeof(prefillParams{})]byte{}
	_ [160]byte = [unsafe.Offsetof(prefillParams{}.header)]byte{}
	_ [184]byte = [unsafe.Offsetof(prefillParams{}.layer)]byte{}
	_ [384]byte = [unsafe.Sizeof(sm90PrefillParams{})]byte{}
	_ [128]byte = [unsafe.Offsetof(sm90PrefillParams{}.p)]byte{}
)

// prefillPlan is the launches of a step's prefills: one a layer, and once the
// list of items, each a tile of rows.
type prefillPlan struct {
	layer, plan launch
	items, rows int
	sm90        bool // the parameters are sm90PrefillParams
}

// prefillRows is the rows of attention_prefill.cu's tiles, beside prefillShort; a row is a query
// head of a token.
const prefillRows = 128

// sm90Tiles is how attention_sm90.cu goes about heads of a size: rows of an item, 64 to a
// warpgroup, and tiles of 128 keys, and of as many values, in shared memory.
type sm90Tiles struct{ rows, stages int }

// sm90Attention is none for heads that the kernel does not take.
func sm90Attention(headDim int) sm90Tiles {
	switch headDim {
	case 64:
		return sm90Tiles{192, 4}
	case 128:
		return sm90Tiles{128, 3}
	}
	return sm90Tiles{}
}

// shared is the shared memory: queries (of two items, for heads of 64), keys and values, barriers,
// items dealt.
func (t sm90Tiles) shared(headDim int) int {
	queries := t.rows * 128 / headDim
	return 1024 + (queries+t.stages*2*128)*headDim*2 + t.stages*32 + queries/64*16 + 8*(8+32)
}

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
		tiles := sm90Attention(s.headDim)
		p.rows, p.sm90 = tiles.rows, true
		p.items = prefillItems(queryStart, s.group(), p.rows)
		p.layer = grid("attention_sm90", fmt.Sprintf("attention_sm90_%d", s.headDim), min(p.items*s.kvHeads, a.sms), 1, 128+2*tiles.rows)
		p.layer.Shared, p.layer.PDL = uint32(tiles.shared(s.headDim)), 1
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
