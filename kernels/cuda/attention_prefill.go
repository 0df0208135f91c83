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
	per           int32 // tiles of keys of a piece at most, 0: nothing is cut
}

// prefillParams is PrefillParams.
type prefillParams struct {
	query, out            ptr
	kv                    pagedKV
	batch                 batchPtrs
	header, items         ptr
	partials              ptr
	ld                    int64
	layer, kvHeads, group int32
	scale                 float32
}

var (
	_ [120]byte = [unsafe.Sizeof(prefillPlanParams{})]byte{}
	_ [104]byte = [unsafe.Offsetof(prefillPlanParams{}.group)]byte{}
	_ [208]byte = [unsafe.Sizeof(prefillParams{})]byte{}
	_ [160]byte = [unsafe.Offsetof(prefillParams{}.header)]byte{}
	_ [192]byte = [unsafe.Offsetof(prefillParams{}.layer)]byte{}
)

// prefillPlan is the launches of a step's prefills: one or two a layer, and once the
// list of items, each a tile of rows and the keys that they see, or a piece of these.
type prefillPlan struct {
	layer, plan launch
	merge       launch // of the pieces; none where nothing is cut
	items, rows int
	per         int // tiles of keys of a piece at most, 0 where nothing is cut
}

// Rows of the tiles of attention_prefill.cu and attention_sm90.cu; a row is a query head of a token.
const prefillRows = 128 // and prefillShort

// prefillBatch is the sequences that the prefill kernels take: prefix sums of their query
// tokens, and their lengths, nil where a graph will run for any.
type prefillBatch struct{ queryStart, lens []int32 }

// planAttentionPrefill plans the sequences. Tiles are short where long ones would leave
// the device half empty, and where results must not depend on the batch; otherwise the
// keys that short ones see are cut into pieces where that is faster.
func planAttentionPrefill(s attentionShape, a arch, b prefillBatch, invariant bool) (p prefillPlan, ok bool) {
	if s.headDim != 64 && s.headDim != 128 {
		return prefillPlan{}, false
	}
	p.plan = grid("attention_prefill", "attention_prefill_plan", 1, 1, 1024)
	p.rows = prefillRows
	p.items = prefillItems(b.queryStart, s.group(), p.rows)
	ctas := p.items * s.kvHeads
	if a.hopper && !invariant && ctas >= a.sms/2 {
		p.layer = grid("attention_sm90", fmt.Sprintf("attention_sm90_%d", s.headDim), ctas, 1, 384)
		p.layer.Shared, p.layer.PDL = uint32(1024+(prefillRows+4*128)*s.headDim*2+72), 1
		return p, int(p.layer.Shared) <= a.shared
	}
	suffix := fmt.Sprint(s.headDim)
	if invariant || ctas < slotsOf(a) {
		suffix += "_short"
		p.rows = prefillShort
		p.items = prefillItems(b.queryStart, s.group(), p.rows)
		if !invariant && b.lens != nil {
			p.cut(s, b, slotsOf(a))
		}
	}
	p.layer = grid("attention_prefill", "attention_prefill_"+suffix, p.items*s.kvHeads, 1, 128)
	p.layer.Shared, p.layer.PDL = uint32((p.rows+2*2*64)*s.headDim*2), 1
	if p.per > 0 {
		p.merge = grid("attention_prefill", "attention_prefill_merge_"+suffix, p.items*s.kvHeads, 1, 128).overlapped()
	}
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

// Of attention_prefill.cu: keys of a tile, the fewest tiles of a piece, and what cutting
// costs in the time of a tile: a launch, and the states of as many pieces as run at a time.
const (
	prefillKeys = 64
	leastPiece  = 2
	mergeCost   = 1.5
	statesCost  = 2.0
)

// cut cuts the keys of the plan's tiles of rows into pieces of so many tiles of keys that
// the last CTA ends soonest, slots of them running at a time and prefillPieces times as
// many at most in all.
func (p *prefillPlan) cut(s attentionShape, b prefillBatch, slots int) {
	longest, all := 0, 0
	b.keyTiles(s.group(), p.rows, func(tiles int) {
		longest = max(longest, tiles)
		all += tiles
	})
	share := float64(all*s.kvHeads) / float64(slots) // of a slot
	best := max(float64(longest), share)
	for per := max(leastPiece, ceilDiv(all*s.kvHeads, prefillPieces*slots)); float64(per) < best; per += max(1, per/16) {
		items := 0
		b.keyTiles(s.group(), p.rows, func(tiles int) { items += ceilDiv(tiles, per) })
		ctas := items * s.kvHeads
		time := min(float64(ceilDiv(ctas, slots)*per), share+float64(per)) + mergeCost + statesCost*float64(ctas)/float64(slots)
		if ctas <= prefillPieces*slots && time < best {
			best, p.items, p.per = time, items, per
		}
	}
}

// keyTiles calls fn with the tiles of keys that each tile of rows sees, as
// attention_prefill_plan counts them.
func (b prefillBatch) keyTiles(group, rows int, fn func(tiles int)) {
	for i, length := range b.lens {
		tokens := int(b.queryStart[i+1] - b.queryStart[i])
		for end := rows; end < tokens*group+rows; end += rows {
			last := int(length) - tokens + (min(end, tokens*group)-1)/group
			fn(last/prefillKeys + 1)
		}
	}
}
