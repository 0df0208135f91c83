//go:build cuda

package cuda

import "unsafe"

// prepareParams is PrepareParams.
type prepareParams struct {
	from, ring                                                                       unsafe.Pointer
	turn, message                                                                    ptr
	header, tokens, tokenSeq, positions, slots, rows, queryStart, seqLens, logitRows ptr
	tables                                                                           ptr
	tableStride                                                                      int64
	state, stopIDs, bias, entries                                                    ptr
	blockShift, words, ringWords, ringSteps                                          int32
}

var _ [168]byte = [unsafe.Sizeof(prepareParams{})]byte{}

func planPrepare() launch { return grid("prepare", "prepare", 1, 1, 1024) }

// likelyWords is the length of most messages of a graph of so many sequences: a decode of each, and
// a block for some. prepare asks for so much before it knows the length.
func likelyWords(size int) int { return roundUp(headerWords+(5+entryWords)*size+1+size/2+64, 4) }

// send makes the device fetch a message and unpack it. begins says that it is a step's first, which
// prepare counts.
func (b *Backend) send(m *message, begins bool) {
	m.set(mWords, m.n)
	b.prepare(unsafe.Pointer(&m.words[0]), roundUp(m.n, 4), begins)
}

// prepareTurn is send for a graph of so many sequences: of the message whose turn it is.
func (b *Backend) prepareTurn(size int) {
	b.prepare(nil, likelyWords(size), true)
}

func (b *Backend) prepare(from unsafe.Pointer, words int, begins bool) {
	w, first := &b.ws.batch, b.steps[0].message.words
	p := prepareParams{
		from: from, ring: unsafe.Pointer(&first[0]), turn: b.ws.turn, message: b.ws.message,
		header: w.header, tokens: w.tokens, tokenSeq: w.tokenSeq, positions: w.positions, slots: w.slots,
		rows: w.rows, queryStart: w.queryStart, seqLens: w.seqLens, logitRows: w.logitRows, tables: w.tables, tableStride: w.tableStride,
		state: b.ws.state, stopIDs: b.ws.stopIDs, bias: b.ws.bias, entries: b.ws.entries, blockShift: b.pool.kv.blockShift,
		words: int32(words), ringWords: int32(len(first)),
	}
	if begins {
		p.ringSteps = stepRing
	}
	b.launch("prepare", planPrepare(), unsafe.Pointer(&p))
}

// fetchParams is FetchParams.
type fetchParams struct {
	from  unsafe.Pointer
	to    ptr
	words int64
}

var _ [24]byte = [unsafe.Sizeof(fetchParams{})]byte{}

func planFetch(words int) launch { return grid("prepare", "fetch", ceilDiv(words, 4*256), 1, 256) }

// fetch copies words of pinned memory to the device: masks.
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
