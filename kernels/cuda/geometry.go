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
type decodePlanPtrs struct{ header, seqs, starts ptr }

// decodeHeads is the most query heads of a KV head that the decode kernels take.
const decodeHeads = 8

// decodeScratch is the memory of the decode kernels.
type decodeScratch struct {
	plan               decodePlanPtrs
	partials, counters ptr
}

// layoutDecodeScratch places what does not depend on the number of sequences from base
// on, and gives its size. The counters are zero at Setup; the kernels leave them so.
func layoutDecodeScratch(s attentionShape, sms int, base ptr) (d decodeScratch, bytes int64) {
	take := func(n int) ptr {
		at := base + ptr(bytes)
		bytes += int64(roundUp(n, 256))
		return at
	}
	slots := residentCTAs(sms)
	d.plan = decodePlanPtrs{header: take(16), starts: take(32 * slots)}
	d.partials = take(2 * slots * decodeHeads * (s.headDim + 2) * 4)
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
