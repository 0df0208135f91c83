//go:build cuda

package cuda

import (
	"math"
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

// decodeWalkers is the threads of the four warps that walk. On Hopper, but in clusters, a fifth ends
// pieces, of states that have memory of their own.
const decodeWalkers = 128

// decodeShared is the shared memory of the warps' rings. Behind it lie their states, where there is
// room, or, in clusters, the exchange, which is smaller.
const decodeShared = 96 << 10

// decodeStates is the shared memory of the warps' states: four times Shared.
func decodeStates(headDim int) int { return 4 * decodeHeads * (headDim + 4 + 2) * 4 }

// decodeClusters are those that the kernels _clusters run in, two CTAs a multiprocessor: at most
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

// decodeKernels are those of heads of so many dims.
var decodeKernels = map[int]struct{ line, clusters string }{
	64:  {"attention_decode_64", "attention_decode_64" + clustersSuffix},
	128: {"attention_decode_128", "attention_decode_128" + clustersSuffix},
}

// planAttentionDecode gives the launch of a layer of that many decodes and, once a step, of
// their plan. maxSeqs is the most sequences of a step. ok is false where no kernel takes the heads.
func planAttentionDecode(s attentionShape, a arch, decodes, maxSeqs int) (layer, plan launch, ok bool) {
	kernel, ok := decodeKernels[s.headDim]
	with := decodeShared + decodeStates(s.headDim)
	if !ok || s.group() > decodeHeads || a.shared < decodeShared || a.hopper && a.shared < with {
		return launch{}, launch{}, false
	}
	layer = grid("attention_decode", kernel.line, slotsOf(a), 1, decodeWalkers)
	layer.Shared, layer.PDL = decodeShared, 1
	if with <= a.shared {
		layer.Shared = uint32(with)
	}
	if a.hopper {
		layer.CTA[0] += 32
		for _, c := range decodeClusters {
			if most := c.most * a.sms / 132; decodes*s.kvHeads <= most {
				layer.kernel, layer.Grid[0], layer.Cluster, layer.CTA[0] = kernel.clusters, uint32(most*c.size), uint32(c.size), decodeWalkers
				break
			}
		}
	}
	plan = grid("attention_decode", "attention_decode_plan", 1, 1, 1024)
	plan.Shared = uint32(4 * (maxSeqs + 1))
	return layer, plan, true
}
