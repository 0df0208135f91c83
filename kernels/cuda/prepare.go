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

// fetchParams is FetchParams.
type fetchParams struct {
	from  unsafe.Pointer
	to    ptr
	words int64
}

var _ [24]byte = [unsafe.Sizeof(fetchParams{})]byte{}

func planFetch(words int) launch { return grid("prepare", "fetch", ceilDiv(words, 4*256), 1, 256) }

// fetch copies words of pinned memory to the device.
func (b *Backend) fetch(to ptr, from unsafe.Pointer, words int) {
	b.launch("fetch", planFetch(words), unsafe.Pointer(&fetchParams{from, to, int64(words)}))
}

// countsParams is CountsParams.
type countsParams struct {
	ids, counts   ptr
	prompt, total int32
}

var _ [24]byte = [unsafe.Sizeof(countsParams{})]byte{}

// planCounts is a thread an id.
func planCounts(ids int) launch { return grid("counts", "counts", ceilDiv(ids, 256), 1, 256) }
