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
	cluster, tile int32
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
	_ [128]byte = [unsafe.Sizeof(decodePlanParams{})]byte{}
	_ [112]byte = [unsafe.Offsetof(decodePlanParams{}.kvHeads)]byte{}
	_ [152]byte = [unsafe.Sizeof(decodeParams{})]byte{}
	_ [80]byte  = [unsafe.Offsetof(decodeParams{}.plan)]byte{}
	_ [128]byte = [unsafe.Offsetof(decodeParams{}.layer)]byte{}
)

// scale is the factor of scores that are exponents of 2.
func (s attentionShape) scale() float32 { return float32(math.Log2E / math.Sqrt(float64(s.headDim))) }

// decodeForm is a Form of attention_decode.cuh: a kernel of so many warps, which take so many tokens at
// a step, of which their rings hold so many. So many CTAs lie on a multiprocessor.
type decodeForm struct {
	kernel              string
	warps, step, stages int
	each                int
}

// decodeForms are those for heads of so many dims, of which the first is taken whose rings there is
// room for: that is every card's but Hopper's (and its like) that has 128 dims.
var decodeForms = map[int][]decodeForm{
	64:  {{"attention_decode_64", 6, 32, 2, 2}},
	128: {{"attention_decode_128_wide", 6, 32, 2, 1}, {"attention_decode_128", 4, 16, 3, 2}},
}

// decodeExchange is the shared memory of Exchange.
func decodeExchange(headDim int) int { return 14*(headDim+4)*4 + 8 }

// decodeClusters are those that the kernels run in, with two CTAs a multiprocessor: at most
// `most` units (a sequence's KV head), a cluster each; with one, half as many. Of all but pairs a few
// more would fit, but the last of them start late (kernels-test, an H200).
var decodeClusters = []clusters{{8, 28}, {6, 37}, {4, 60}, {3, 77}, {2, 132}}

// decodeAttention is how a step's decodes are made: the launch of a layer and, once a step, of their
// plan, and the tokens of a tile.
type decodeAttention struct {
	layer, plan launch
	tile        int
}

// planAttentionDecode chooses for so many decodes. maxSeqs is the most sequences of a step. ok is
// false where no kernel takes the heads.
func planAttentionDecode(s attentionShape, a arch, decodes, maxSeqs int) (d decodeAttention, ok bool) {
	exchange := 0
	if a.hopper {
		exchange = decodeExchange(s.headDim)
	}
	shared := func(f decodeForm) int { return f.warps*f.step*f.stages*s.headDim*4 + exchange }
	forms := decodeForms[s.headDim]
	i := slices.IndexFunc(forms, func(f decodeForm) bool { return shared(f) <= a.shared })
	if i < 0 || s.group() > decodeHeads {
		return decodeAttention{}, false
	}
	f := forms[i]
	d.tile = f.warps * f.step
	d.layer = grid("attention_decode", f.kernel, a.sms*f.each, 1, 32*f.warps)
	d.layer.Shared, d.layer.PDL = uint32(shared(f)), 1
	if a.hopper {
		most := func(c clusters) int { return c.most * f.each * a.sms / (2 * 132) }
		if i := slices.IndexFunc(decodeClusters, func(c clusters) bool { return decodes*s.kvHeads <= most(c) }); i >= 0 {
			c := decodeClusters[i]
			d.layer.Grid[0], d.layer.Cluster = uint32(most(c)*c.size), uint32(c.size)
		}
	}
	d.plan = grid("attention_decode", "attention_decode_plan", 1, 1, 1024).overlapped()
	d.plan.Shared = uint32(4 * (maxSeqs + 1))
	return d, true
}
