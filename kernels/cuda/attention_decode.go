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
	query, out            ptr
	kv                    pagedKV
	tables                ptr
	plan                  decodePlanPtrs
	partials              ptr
	ld                    int64
	layer, kvHeads, group int32
	scale                 float32
}

var (
	_ [120]byte = [unsafe.Sizeof(decodePlanParams{})]byte{}
	_ [104]byte = [unsafe.Offsetof(decodePlanParams{}.kvHeads)]byte{}
	_ [128]byte = [unsafe.Sizeof(decodeParams{})]byte{}
	_ [80]byte  = [unsafe.Offsetof(decodeParams{}.plan)]byte{}
	_ [112]byte = [unsafe.Offsetof(decodeParams{}.layer)]byte{}
)

// scale is the factor of scores that are exponents of 2.
func (s attentionShape) scale() float32 { return float32(math.Log2E / math.Sqrt(float64(s.headDim))) }

// decodeForm is a Form of attention_decode.cuh: a kernel of so many warps, which take so many tokens at
// a step, of which their rings hold so many. It is made for so many CTAs a multiprocessor, if they fit.
type decodeForm struct {
	kernel                             string
	headDim, warps, step, stages, most int
}

var (
	decode64      = decodeForm{kernel: "attention_decode_64", headDim: 64, warps: 6, step: 32, stages: 2, most: 2}
	decode128     = decodeForm{kernel: "attention_decode_128", headDim: 128, warps: 4, step: 16, stages: 3, most: 2}
	decode128Wide = decodeForm{kernel: "attention_decode_128_wide", headDim: 128, warps: 5, step: 32, stages: 2, most: 1}
)

// rings is their shared memory.
func (f decodeForm) rings() int { return f.warps * f.step * f.stages * f.headDim * 4 }

// decodeWay is a form in clusters of so many CTAs, for at most so many units (a sequence's KV head), a
// cluster each, on 132 multiprocessors; or in none, for any number.
type decodeWay struct {
	decodeForm
	size, units int
}

// decodeWays are tried in order: those with clusters on Hopper, and what there is shared memory for. Large
// CTAs read with less done for each token; small ones find room beside those of the products before, which
// counts where there are more units than clusters of eight large CTAs and no more than of six small
// ones (whole steps, an H100, 2026-11-27; other cards were not timed). Of small clusters but pairs a
// few more would fit, but the last of them start late (kernels-test, an H200); large CTAs have half as many.
var decodeWays = []decodeWay{
	{decode64, 8, 28}, {decode64, 6, 37}, {decode64, 4, 60}, {decode64, 3, 77}, {decode64, 2, 132}, {decode64, 0, 0},
	{decode128Wide, 8, 14}, {decode128, 8, 28}, {decode128, 6, 37}, {decode128Wide, 2, 66}, {decode128Wide, 0, 0}, {decode128, 0, 0},
}

// decodeSpare is shared memory that nothing uses: ways of products were timed with it. Without it o finds room beside attention
// on more multiprocessors, and steps of the 1.5B with 96 and 256 sequences take 2 % longer (H200, 2026-11-29).
const decodeSpare = 128

// decodeExchange is the shared memory of Exchange. Kernels without clusters have no use for it, but were timed with it.
func decodeExchange(headDim int) int { return 14*(headDim+4)*4 + 8 + decodeSpare }

// decodeAttention is how a step's decodes are made: the launch of a layer and, once a step, of their
// plan, and the tokens of a tile.
type decodeAttention struct {
	layer, plan launch
	tile        int
}

// planAttentionDecode chooses for so many decodes. maxSeqs is the most sequences of a step. ok is
// false where no kernel takes the heads.
func planAttentionDecode(s attentionShape, a arch, decodes, maxSeqs int) (d decodeAttention, ok bool) {
	shared := func(w decodeWay) int {
		if a.hopper {
			return w.rings() + decodeExchange(s.headDim)
		}
		return w.rings()
	}
	i := slices.IndexFunc(decodeWays, func(w decodeWay) bool {
		fits := w.size == 0 || a.hopper && decodes*s.kvHeads <= w.units*a.sms/132
		return w.headDim == s.headDim && fits && shared(w) <= a.shared
	})
	if i < 0 || s.group() > decodeHeads {
		return decodeAttention{}, false
	}
	w := decodeWays[i]
	d.tile = w.warps * w.step
	each := min(w.most, (a.shared+1024)/(shared(w)+1024)) // the device reserves 1 KiB a CTA
	d.layer = grid("attention_decode", w.kernel, a.sms*each, 1, 32*w.warps)
	if w.size > 0 {
		d.layer.Grid[0], d.layer.Cluster = uint32(w.units*a.sms/132*w.size), uint32(w.size)
		d.layer.kernel += clustersSuffix
	}
	d.layer.Shared, d.layer.PDL = uint32(shared(w)), 1
	d.plan = grid("attention_decode", "attention_decode_plan", 1, 1, 1024).overlapped()
	d.plan.Shared = uint32(4 * (maxSeqs + 1))
	return d, true
}
