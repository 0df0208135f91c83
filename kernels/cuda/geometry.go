package cuda

import (
	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
)

// Here is what the size of the workspace depends on, without build tag cuda, so
// that a memory plan can be made for a card that is not there. The files of the
// kernels have the rest.

// ptr is a device address.
type ptr = cuda.Ptr

// batchPtrs is Batch: the step's arrays in device memory.
type batchPtrs struct {
	header, tokens, tokenSeq, positions, slots   ptr
	rows, queryStart, seqLens, logitRows, tables ptr
	tableStride                                  int64
}

// Widths and row counts of device arrays: see common.cuh.
const (
	widthUnit = 64  // elements
	rowUnit   = 256 // rows of activations
)

// Of steps of up to foldedTokens norms may be folded into products (gemm_fold.cuh), whose tiles, of leastColumns outputs and
// more, leave a sum of squares a token; and of so many rows at most a smaller step finds zeros behind its own (clearRows).
const (
	foldedTokens = 512
	leastColumns = 16
)

// stride is the row stride of a width, in elements.
func stride(width int) int { return roundUp(width, widthUnit) }

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }

func ceilDiv(n, d int) int { return (n + d - 1) / d }

// Sizes of what the message and the row state are made of: see message.go.
const (
	rowParamWords = 16 // rowParams
	rowStateBytes = 80 // RowState
	entryWords    = 4  // sampleEntry
	headerWords   = 16
	resetWords    = 3 + rowParamWords // row, offsets of its stop ids and biases, parameters
	maxStopIDs    = 256
	maxBias       = 1024
	maxSplits     = 64 // CTAs of the sampler for a row
	splitGroups   = 16 // of the ids of one, whose largest it leaves: GROUPS of sample_groups.cuh
)

// updateWords is the length of the row updates that a message has room for.
func updateWords(l kernels.Limits) int {
	table := ceilDiv(l.MaxModelLen, l.BlockSize)
	return 2*table + 8*l.MaxSeqs + resetWords*l.MaxSeqs + maxStopIDs + 2*maxBias
}

// messageWords is the length that every step fits.
func messageWords(l kernels.Limits, updateLimit int) int {
	batch := l.MaxBatchedTokens + 3*l.MaxSeqs + 1 + l.MaxLogitRows
	return roundUp(headerWords+updateLimit+batch+entryWords*l.MaxLogitRows, 64)
}

// mmaTile is the side of gemm_mma_128_128's tiles.
const mmaTile = 128

// gemmScratch is the memory of tiles that several CTAs share.
type gemmScratch struct{ partials, counters ptr }

// maxCutTiles is the most tiles of a product that is cut along k.
const maxCutTiles = 1 << 14

// layoutGemmScratch places the scratch from base on and gives its size. The
// counters are zero at Setup; the kernels leave them so.
func layoutGemmScratch(sms int, base ptr) (gemmScratch, int64) {
	partials := int64(2*residentCTAs(sms)) * mmaTile * mmaTile * 4
	return gemmScratch{partials: base, counters: base + ptr(partials)}, partials + maxCutTiles*4
}

// residentCTAs is the CTAs of 128 threads that are resident at a time, at two a
// multiprocessor.
func residentCTAs(sms int) int { return 2 * sms }

// attentionShape is a model's heads.
type attentionShape struct{ heads, kvHeads, headDim int }

func (s attentionShape) group() int { return s.heads / s.kvHeads }

func shapeOfHeads(s kernels.Shape) attentionShape {
	return attentionShape{heads: s.Heads, kvHeads: s.KVHeads, headDim: s.HeadDim}
}

// decodePlanPtrs is DecodePlan: what attention_decode_plan leaves on the device.
type decodePlanPtrs struct{ seqs, starts ptr }

// decodeHeads is the most query heads of a KV head that the decode kernels take.
const decodeHeads = 8

const (
	decodeOfHead = 16 // threads that have a head's state, each with its maximum and sum
	decodeFolded = 8  // FOLDED: partial states that are read at a time, of which the last may be nobody's
)

// decodeScratch is the memory of the decode kernels.
type decodeScratch struct {
	plan     decodePlanPtrs
	partials ptr
}

// layoutDecodeScratch places what does not depend on the number of sequences from base
// on, and gives its size. The partials are zero at Setup; the kernels leave them so.
func layoutDecodeScratch(s attentionShape, sms int, base ptr) (d decodeScratch, bytes int64) {
	take := func(n int) ptr {
		at := base + ptr(bytes)
		bytes += int64(roundUp(n, 256))
		return at
	}
	slots := residentCTAs(sms)
	d.plan = decodePlanPtrs{starts: take(32 * slots)}
	d.partials = take((slots + decodeFolded) * decodeHeads * (s.headDim + 2*decodeOfHead) * 4)
	return d, bytes
}

// prefillShort is the rows of attention_prefill.cu's short tiles; a row is a query
// head of a token.
const prefillShort = 64

// pieceRows is the most rows that pieces of keys leave states of.
func pieceRows(sms int) int { return 2 * residentCTAs(sms) * prefillShort }

// prefillScratch is the memory of the prefill kernels.
type prefillScratch struct{ header, partials, items ptr }

// layoutPrefillScratch places header, partial states and items for steps of at most
// maxTokens and maxSeqs from base on and gives their size.
func layoutPrefillScratch(s attentionShape, maxTokens, maxSeqs, sms int, base ptr) (p prefillScratch, bytes int64) {
	partials := roundUp(pieceRows(sms)*(s.headDim+2)*4, 256)
	items := max(ceilDiv(maxTokens*s.group(), prefillShort)+maxSeqs, pieceRows(sms)/prefillShort)
	p = prefillScratch{header: base, partials: base + 256, items: base + 256 + ptr(partials)}
	return p, 256 + int64(partials) + int64(roundUp(16*items, 256))
}

// The products of a layer, as in layers.cu.
const (
	productQKV = iota
	productOut
	productGateUp
	productDown
	products
)

// layersShare is a CTA's part of a product: rows of cols, as in the weight, and panels of k.
type layersShare struct{ rows, cols, panels int32 }

// What layers.cu is compiled for.
const (
	layersHeadDim = 64
	layersRows    = 80   // of a product in a CTA, at most
	layersFewRows = 16   // of all but gate_up
	layersWidth   = 1024 // of the residual stream, at most

	layerWeightsBytes = 576 // layerWeights
)

// layersScratch is the memory of layers.cu: the table of weights, the epoch, and words on their way.
type layersScratch struct{ table, epoch, words ptr }

// layersPieces is how many pieces a KV head's tokens are cut into at most: a CTA has one.
func layersPieces(s kernels.Shape, sms int) int { return sms / s.KVHeads }

// layoutLayersScratch places it from base on and gives its size: 0 where layers.cu does not take the shape. The
// epoch is zero at Setup.
func layoutLayersScratch(s kernels.Shape, sms int, base ptr) (layersScratch, int64) {
	if !layersTake(s, sms) {
		return layersScratch{}, 0
	}
	table := roundUp(s.Layers*layerWeightsBytes, 256)
	words := (s.Heads+2*s.KVHeads)*s.HeadDim + s.KVHeads*layersPieces(s, sms)*decodeHeads*(s.HeadDim+2) + s.Heads*s.HeadDim/2 + 2*s.Hidden + s.Intermediate/2
	return layersScratch{table: base, epoch: base + ptr(table), words: base + ptr(table+256)}, int64(table + 256 + 8*words)
}

// layersShares are the rows of each product that a CTA of sms has: pairs that RoPE turns, and two gates with what they
// gate, stay together.
func layersShares(s kernels.Shape, sms int) [products]layersShare {
	share := func(rows, k, unit int) layersShare {
		return layersShare{rows: int32(roundUp(ceilDiv(rows, sms), unit)), cols: int32(rows), panels: int32(stride(k) / widthUnit)}
	}
	return [products]layersShare{
		productQKV:    share((s.Heads+2*s.KVHeads)*s.HeadDim, s.Hidden, 2),
		productOut:    share(s.Hidden, s.Heads*s.HeadDim, 1),
		productGateUp: share(2*s.Intermediate, s.Hidden, 4),
		productDown:   share(s.Hidden, s.Intermediate, 1),
	}
}

// layersTake says whether layers.cu is made for the shape. Larger models gain nothing: their bytes take longer than
// what a layer waits for (1.5B: 1.21 ms a step either way, an H100).
func layersTake(s kernels.Shape, sms int) bool {
	shares := layersShares(s, sms)
	return s.HeadDim == layersHeadDim && shapeOfHeads(s).group() <= decodeHeads && s.KVHeads <= sms &&
		s.Hidden <= layersWidth && s.Hidden%2 == 0 && s.Intermediate%4 == 0 &&
		max(shares[productQKV].rows, shares[productOut].rows) <= layersFewRows && shares[productGateUp].rows <= layersRows
}
