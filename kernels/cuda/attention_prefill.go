//go:build cuda

package cuda

import (
	"fmt"
	"math"
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

// sm90PrefillParams is Sm90PrefillParams.
type sm90PrefillParams struct {
	pool tensorMap
	p    prefillParams
	_    [48]byte
}

var (
	_ [120]byte = [unsafe.Sizeof(prefillPlanParams{})]byte{}
	_ [104]byte = [unsafe.Offsetof(prefillPlanParams{}.group)]byte{}
	_ [208]byte = [unsafe.Sizeof(prefillParams{})]byte{}
	_ [160]byte = [unsafe.Offsetof(prefillParams{}.header)]byte{}
	_ [192]byte = [unsafe.Offsetof(prefillParams{}.layer)]byte{}
	_ [384]byte = [unsafe.Sizeof(sm90PrefillParams{})]byte{}
	_ [128]byte = [unsafe.Offsetof(sm90PrefillParams{}.p)]byte{}
)

// prefillPlan is the launches of a step's prefills: one or two a layer, and once the
// list of items, each a tile of rows and the keys that they see, or a piece of these.
type prefillPlan struct {
	layer, plan launch
	merge       launch // of the pieces; none where nothing is cut
	items, rows int
	per         int  // tiles of keys of a piece at most, 0 where nothing is cut
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

// prefillBatch is the sequences that the prefill kernels take: prefix sums of their query
// tokens, and their lengths, nil where a graph will run for any.
type prefillBatch struct{ queryStart, lens []int32 }

// planAttentionPrefill plans the sequences. Tiles are short where long ones would leave
// the device half empty, and where results must not depend on the batch; but where
// cutting the keys into pieces is faster, they are what is best for that.
func planAttentionPrefill(s attentionShape, a arch, b prefillBatch, invariant bool) (p prefillPlan, ok bool) {
	if s.headDim != 64 && s.headDim != 128 {
		return prefillPlan{}, false
	}
	p.plan = grid("attention_prefill", "attention_prefill_plan", 1, 1, 1024).overlapped()
	p.rows = prefillRows
	p.items = prefillItems(b.queryStart, s.group(), p.rows)
	ctas := p.items * s.kvHeads
	if a.hopper && !invariant && ctas >= a.sms/2 {
		tiles := sm90Attention(s.headDim)
		p.rows, p.sm90 = tiles.rows, true
		p.items = prefillItems(b.queryStart, s.group(), p.rows)
		p.layer = grid("attention_sm90", fmt.Sprintf("attention_sm90_%d", s.headDim), min(p.items*s.kvHeads, a.sms), 1, 128+2*tiles.rows)
		p.layer.Shared, p.layer.PDL = uint32(tiles.shared(s.headDim)), 1
		return p, int(p.layer.Shared) <= a.shared
	}
	if invariant || ctas < slotsOf(a) {
		p.rows = prefillShort
		p.items = prefillItems(b.queryStart, s.group(), p.rows)
		if !invariant && b.lens != nil {
			p.cut(s, a, b)
		}
	}
	suffix := fmt.Sprint(s.headDim)
	if p.rows == prefillShort {
		suffix += "_short"
	}
	p.layer = grid("attention_prefill", "attention_prefill_"+suffix, p.items*s.kvHeads, 1, 128)
	p.layer.Shared, p.layer.PDL = prefillShared(s.headDim, p.rows), 1
	if p.per > 0 {
		p.merge = grid("attention_prefill", "attention_prefill_merge_"+suffix, p.items*s.kvHeads, 1, 128).overlapped()
	}
	return p, int(p.layer.Shared) <= a.shared
}

// prefillShared is the shared memory of attention_prefill.cu: queries, two tiles of keys and values.
func prefillShared(headDim, rows int) uint32 { return uint32((rows + 2*2*prefillKeys) * headDim * 2) }

// prefillItems counts the tiles of the sequences.
func prefillItems(queryStart []int32, group, rows int) int {
	n := 0
	for i := range len(queryStart) - 1 {
		n += ceilDiv(int(queryStart[i+1]-queryStart[i])*group, rows)
	}
	return n
}

const prefillKeys = 64 // keys of a tile of attention_prefill.cu

// prefillTiles is what attention_prefill.cu does with tiles of some rows: CTAs on a
// multiprocessor as far as registers go, µs that each takes for a tile of keys then, and alone.
type prefillTiles struct {
	rows, ctas      int
	crowded, lonely float64
}

// prefillTimes are measured (kernels-test time prefill, H100): by head size. So is what pieces
// cost: the merge, and the states of as many rows as two CTAs of short tiles a multiprocessor have.
var prefillTimes = map[int][]prefillTiles{
	64:  {{prefillShort, 3, 1.7, 1}, {prefillRows, 2, 2, 1.5}},
	128: {{prefillShort, 2, 2.1, 1.6}, {prefillRows, 2, 3.6, 2.4}},
}

const mergeTime, statesTime = 3, 3

// cut cuts the keys that tiles of rows see into pieces of so many tiles of keys that the
// last CTA ends soonest, if that is sooner than the plan's short tiles would end uncut.
func (p *prefillPlan) cut(s attentionShape, a arch, b prefillBatch) {
	best := math.Inf(1)
	for _, t := range prefillTimes[s.headDim] {
		longest, all := 0, 0
		b.keyTiles(s.group(), t.rows, func(tiles int) {
			longest = max(longest, tiles)
			all += tiles * s.kvHeads
		})
		fit := (a.shared + 1024) / (int(prefillShared(s.headDim, t.rows)) + 1024) // the device reserves 1 KiB a CTA
		slots, most := max(1, min(t.ctas, fit))*a.sms, pieceRows(a.sms)/t.rows
		share := float64(all) / float64(slots) // of a slot
		if t.rows == prefillShort {
			best = min(best, max(float64(longest)*t.lonely, share*t.crowded))
		}
		for per := max(1, ceilDiv(all, most)); float64(per)*t.lonely < best; per += max(1, per/16) {
			items := 0
			b.keyTiles(s.group(), t.rows, func(tiles int) { items += ceilDiv(tiles, per) })
			ctas := items * s.kvHeads
			time := min(float64(ceilDiv(ctas, slots)*per), share+float64(per)) * t.crowded
			if ctas <= a.sms {
				time = float64(per) * t.lonely
			}
			states := float64(ctas*t.rows) / float64(slotsOf(a)*prefillShort)
			if time += mergeTime + statesTime*states; ctas <= most && time < best {
				best, p.rows, p.items, p.per = time, t.rows, items, per
			}
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
