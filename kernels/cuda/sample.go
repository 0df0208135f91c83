//go:build cuda

package cuda

import "unsafe"

// sampleParams is SampleParams.
type sampleParams struct {
	logits, edited                                          ptr
	ld                                                      int64
	state, stopIDs, bias, counts                            ptr
	countsStride                                            int64
	entries, masks, header, parts, draws, results           ptr
	resultWords                                             int64
	maskWords, vocab, sampleVocab, splits, capacity, maxTop int32
	tops, _                                                 int32
}

var _ [152]byte = [unsafe.Sizeof(sampleParams{})]byte{}

// planSample is the three kernels for n rows: edit, draw (with a CTA more for rows that
// filter), finish. Rows of the first two that do not fit on the device at a time share CTAs.
func planSample(n, vocab, sms int) [3]launch {
	splits := ceilDiv(vocab, splitIDs)
	rows := func(x, resident int) int { // CTAs that share them, x times
		each := ceilDiv(n, max(resident*sms/x, 1))
		return ceilDiv(n, max(min(each, 32), 1))
	}
	return [3]launch{
		grid("sample", "sample_edit", splits, rows(splits, editResident), 256).overlapped(),
		grid("sample", "sample_draw", splits+1, rows(splits+1, drawResident), 512).overlapped(),
		grid("sample", "sample_finish", n, 1, 512).overlapped(),
	}
}

// CTAs that one of Hopper's multiprocessors has at a time: their threads have up to 64 registers.
const (
	editResident = 4
	drawResident = 2
)
