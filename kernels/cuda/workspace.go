package cuda

import (
	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
)

// workspace is where everything lies that Setup reserves, in one range of
// addresses. Each array begins at a unit of backing, so that smaller limits give the
// memory of its end back; what several lie in does not depend on the limits, or grows
// at its end alone:
//
//	│ hidden ······░░░░░│ normed ···░░│ …     · backed for the limits in force
//	└ unit                └ unit              ░ addresses alone
type workspace struct {
	hidden, normed, query, attn, mlp, logits ptr
	squares                                  ptr // that a product leaves for a norm: float32 [tiles of its outputs][tokens]
	headIn                                   ptr // normed rows of the head, float16 [MaxLogitRows][stride(hidden)]
	edited                                   ptr // logits after bias, masks and penalties, where they change
	rope, invFreq                            ptr

	message ptr
	turn    ptr // steps so far: see prepare.cu
	batch   batchPtrs
	entries ptr // [MaxLogitRows] sampleEntry
	whole   ptr // [MaxLogitRows] bytes: rows of which more than the likeliest id is wanted
	masks   ptr // [MaxLogitRows][mask words]
	parts   ptr // [MaxLogitRows][maxSplits] Part
	draws   ptr // [MaxLogitRows][maxSplits·splitGroups] Drawn
	maxima  ptr // [MaxLogitRows][2][maxSplits·splitGroups]f32

	state, stopIDs, bias, counts ptr // by row
	ids                          ptr // of a row whose penalty state is made

	gemm    gemmScratch
	decode  decodeScratch
	prefill prefillScratch
	layers  layersScratch

	areas []cuda.Span // of the arrays, in the order of layoutWorkspace
	bytes int64       // whole units
}

const (
	partBytes  = 24 // Part
	drawnBytes = 8  // Drawn
)

// maskWords is the length of a mask.
func maskWords(vocab int) int { return ceilDiv(vocab, 32) }

// countStride is the row stride of penalty counts, in 16-bit elements.
func countStride(vocab int) int { return roundUp(vocab, 8) }

// layoutWorkspace places everything from base on.
func layoutWorkspace(s kernels.Shape, l kernels.Limits, sms int, base ptr) workspace {
	w := workspace{}
	take := func(elems, size int) ptr {
		area := cuda.Span{At: w.bytes, Bytes: (int64(elems)*int64(size) + cuda.PatchBytes - 1) / cuda.PatchBytes * cuda.PatchBytes}
		w.areas = append(w.areas, area)
		w.bytes += area.Bytes
		return base + ptr(area.At)
	}
	tokens, seqs, logits := roundUp(l.MaxBatchedTokens, rowUnit), l.MaxSeqs, roundUp(l.MaxLogitRows, rowUnit)
	table := ceilDiv(l.MaxModelLen, l.BlockSize)
	w.hidden = take(tokens*stride(s.Hidden), 4)
	w.normed = take(tokens*stride(s.Hidden), 2)
	w.query = take(tokens*stride(s.Heads*s.HeadDim), 2)
	w.attn = take(tokens*stride(s.Heads*s.HeadDim), 2)
	w.mlp = take(tokens*stride(s.Intermediate), 2)
	w.logits = take(logits*stride(s.Vocab), 4)
	w.headIn = take(logits*stride(s.Hidden), 2)
	w.edited = take(logits*stride(s.Vocab), 4)
	w.rope = take(l.MaxModelLen*s.HeadDim/2, 8)
	w.invFreq = take(s.HeadDim/2, 4)

	w.message = take(messageWords(l, updateWords(l)), 4)
	w.batch = batchPtrs{
		header: take(headerWords+1, 4), tokens: take(tokens, 4), tokenSeq: take(tokens, 4), positions: take(tokens, 4), slots: take(tokens, 4),
		rows: take(seqs, 4), queryStart: take(seqs+1, 4), seqLens: take(seqs, 4), logitRows: take(max(logits, seqs), 4),
		tables: take(seqs*table, 4), tableStride: int64(table),
	}
	w.turn = w.batch.header + 4*headerWords
	w.entries = take(logits, entryWords*4)
	w.whole = take(logits, 1)
	w.masks = take(logits*maskWords(s.Vocab), 4)
	w.parts = take(logits*maxSplits, partBytes)
	w.draws = take(logits*maxSplits*splitGroups, drawnBytes)
	w.maxima = take(logits*2*maxSplits*splitGroups, 4)

	w.state = take(seqs, rowStateBytes)
	w.stopIDs = take(seqs*maxStopIDs, 4)
	w.bias = take(seqs*maxBias, 8)
	w.counts = take(seqs*countStride(s.Vocab), 2)
	w.ids = take(l.MaxModelLen+1, 4)
	w.squares = take(min(tokens, foldedTokens)*ceilDiv(s.Hidden, leastColumns), 4)

	heads := shapeOfHeads(s)
	var n int64
	w.gemm, n = layoutGemmScratch(sms, base+ptr(w.bytes))
	take(int(n), 1)
	w.decode, n = layoutDecodeScratch(heads, sms, base+ptr(w.bytes))
	take(int(n), 1)
	w.decode.plan.seqs = take(seqs, 16)
	w.prefill, n = layoutPrefillScratch(heads, l.MaxBatchedTokens, seqs, sms, base+ptr(w.bytes))
	take(int(n), 1)
	w.layers, n = layoutLayersScratch(s, sms, base+ptr(w.bytes))
	take(int(n), 1)
	return w
}

// WorkspaceBytes is what Backend.WorkspaceBytes would answer on a card with the
// given number of multiprocessors.
func WorkspaceBytes(s kernels.Shape, l kernels.Limits, sms int) int64 {
	return layoutWorkspace(s, l, sms, 0).bytes
}
