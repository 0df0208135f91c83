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

// keepParams is KeepParams.
type keepParams struct {
	hidden, query                                                     ptr
	hiddenLD, queryLD                                                 int64
	logitRows, header, tokenSeq, positions, rows, queryStart, seqLens ptr
	count, hiddenLines, queryLines                                    int32
	_                                                                 int32
}

var _ [104]byte = [unsafe.Sizeof(keepParams{})]byte{}

const (
	keepThreads = 128  // KEEP_THREADS
	keepMost    = 1024 // KEEP_MOST: sequences that the kernel can make
	keepWorth   = 64   // tokens left out, at least, that are worth three launches that wait for each other
)

// keepsRows says whether n logit rows of a step's tokens are worth going on with alone: the rows are
// moved one group after the other.
func keepsRows(n, tokens, seqs int) bool {
	return n > 0 && n <= min(keepMost, seqs) && tokens-n >= max(keepWorth, n)
}

// planKeepRows is a thread a line of 16 bytes of a row, and a CTA for the batch.
func planKeepRows(lines int32) launch {
	return grid("prepare", "keep_logit_rows", 1+ceilDiv(int(lines), keepThreads), 1, keepThreads)
}

// countsParams is CountsParams.
type countsParams struct {
	ids, counts   ptr
	prompt, total int32
}

var _ [24]byte = [unsafe.Sizeof(countsParams{})]byte{}

// planCounts is a thread an id.
func planCounts(ids int) launch { return grid("counts", "counts", ceilDiv(ids, 256), 1, 256) }
