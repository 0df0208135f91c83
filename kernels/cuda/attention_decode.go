//go:build cuda

package cuda

import (
	"math"
	"slices"
	"unsafe"
)

// decodePlanParams is DecodePlanParams.
type decodePlanParams struct {
	batch         batchPtrs
	plan          decodePlanPtrs
	kvHeads, grid int32
	cluster       int32
	_             int32
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
	states                      int32
}

var (
	_ [128]byte = [unsafe.Sizeof(decodePlanParams{})]byte{}
	_ [112]byte = [unsafe.Offsetof(decodePlanParams{}.kvHeads)]byte{}
	_ [152]byte = [unsafe.Sizeof(decodeParams{})]byte{}
	_ [80]byte  = [unsafe.Offsetof(decodeParams{}.plan)]byte{}
	_ [128]byte = [unsafe.Offsetof(decodeParams{}.layer)]byte{}
)

// scale is the factor of scores that are exponents of 2.
func (s attentionShape) scale() float32 { return float32(math.Log2E / math.Sqrt(float64(s.headDim))) }

const (
	decodeWalkers = 128                // threads of the four warps that walk
	decodeFive    = decodeWalkers + 32 // with that which ends pieces
)

// decodeShared is the shared memory of the warps' rings. Behind it lie their states, where there is
// room, or, in clusters, the exchange, which is smaller.
const decodeShared = 96 << 10

// decodeStates is the shared memory of the warps' states: four times Shared.
func decodeStates(headDim int) int { return 4 * decodeHeads * (headDim + 4 + 2) * 4 }

// decodeClusters are those that the kernels of four warps run in, two CTAs a multiprocessor: at most
// `most` units (a sequence's KV head), a cluster each. Of all but pairs a few more would fit, but
// the last of them start late (kernels-test, an H200).
var decodeClusters = []clusters{{8, 28}, {6, 37}, {4, 60}, {3, 77}, {2, 132}}

// statesAt is where in its shared memory a launch has the warps' states, 0 if in the rings.
func statesAt(l launch) int32 {
	if l.Shared > decodeShared {
		return decodeShared
	}
	return 0
}

// decodeKernels are those of heads of so many dims, of four and of five warps.
var decodeKernels = map[int]struct{ four, five string }{
	64:  {"attention_decode_64", "attention_decode_64_five"},
	128: {"attention_decode_128", "attention_decode_128_five"},
}

// planAttentionDecode gives the launch of a layer of that many decodes and, once a step, of
// their plan. maxSeqs is the most sequences of a step. ok is false where no kernel takes the heads.
func planAttentionDecode(s attentionShape, a arch, decodes, maxSeqs int) (layer, plan launch, ok bool) {
	kernel, ok := decodeKernels[s.headDim]
	with := decodeShared + decodeStates(s.headDim)
	if !ok || s.group() > decodeHeads || a.shared < decodeShared || a.hopper && a.shared < with {
		return launch{}, launch{}, false
	}
	layer = grid("attention_decode", kernel.four, slotsOf(a), 1, decodeWalkers)
	layer.Shared, layer.PDL = decodeShared, 1
	if with <= a.shared {
		layer.Shared = uint32(with)
	}
	if a.hopper {
		fits := func(c clusters) bool { return decodes*s.kvHeads <= c.most*a.sms/132 }
		if i := slices.IndexFunc(decodeClusters, fits); i >= 0 {
			c := decodeClusters[i]
			layer.Grid[0], layer.Cluster = uint32(c.most*a.sms/132*c.size), uint32(c.size)
		} else {
			layer.kernel, layer.CTA[0] = kernel.five, decodeFive
		}
	}
	plan = grid("attention_decode", "attention_decode_plan", 1, 1, 1024).overlapped()
	plan.Shared = uint32(4 * (maxSeqs + 1))
	return layer, plan, true
}
