//go:build cuda

package cuda

import (
	"fmt"
	"math"
	"unsafe"
)

// decodePlanParams is DecodePlanParams.
type decodePlanParams struct {
	batch         batchPtrs
	plan          decodePlanPtrs
	kvHeads, grid int32
}

// decodeParams is DecodeParams.
type decodeParams struct {
	query, out                  ptr
	kv                          pagedKV
	tables                      ptr
	plan                        decodePlanPtrs
	partials, counters          ptr
	ld                          int64
	layer, kvHeads, group, grid int32
	scale                       float32
	_                           int32
}

var (
	_ [120]byte = [unsafe.Sizeof(decodePlanParams{})]byte{}
	_ [112]byte = [unsafe.Offsetof(decodePlanParams{}.kvHeads)]byte{}
	_ [152]byte = [unsafe.Sizeof(decodeParams{})]byte{}
	_ [80]byte  = [unsafe.Offsetof(decodeParams{}.plan)]byte{}
	_ [128]byte = [unsafe.Offsetof(decodeParams{}.layer)]byte{}
)

// scale is the factor of scores that are exponents of 2.
func (s attentionShape) scale() float32 { return float32(math.Log2E / math.Sqrt(float64(s.headDim))) }

const decodeShared = 96 << 10

// planAttentionDecode gives the launch of a layer's decodes and, once a step, of
// their plan. maxSeqs is the most sequences of a step.
func planAttentionDecode(s attentionShape, a arch, maxSeqs int) (layer, plan launch, ok bool) {
	if s.headDim != 64 && s.headDim != 128 || s.group() > decodeHeads || a.shared < decodeShared {
		return launch{}, launch{}, false
	}
	layer = grid("attention_decode", fmt.Sprintf("attention_decode_%d", s.headDim), slotsOf(a), 1, 128)
	layer.Shared, layer.PDL = decodeShared, 1
	plan = grid("attention_decode", "attention_decode_plan", 1, 1, 1024)
	plan.Shared = uint32(4 * (maxSeqs + 1))
	return layer, plan, true
}
