//go:build cuda

package cuda

import "unsafe"

// prepareParams is PrepareParams.
type prepareParams struct {
	message                                                                          ptr
	header, tokens, tokenSeq, positions, slots, rows, queryStart, seqLens, logitRows ptr
	tables                                                                           ptr
	tableStride                                                                      int64
	state, stopIDs, bias, entries                                                    ptr
	blockShift                                                                       int32
	_                                                                                int32
}

var _ [136]byte = [unsafe.Sizeof(prepareParams{})]byte{}

func planPrepare() launch { return grid("prepare", "prepare", 1, 1, 1024) }

// countsParams is CountsParams.
type countsParams struct {
	ids, counts   ptr
	prompt, total int32
}

var _ [24]byte = [unsafe.Sizeof(countsParams{})]byte{}

// planCounts is a thread an id.
func planCounts(ids int) launch { return grid("counts", "counts", ceilDiv(ids, 256), 1, 256) }
