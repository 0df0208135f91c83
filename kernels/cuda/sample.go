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
// filter), finish. Rows of draw that do not fit on the device at a time share CTAs.
func planSample(n, vocab, sms int) [3]launch {
	splits := ceilDiv(vocab, splitIDs)
	draw := max(min(n, ceilDiv(drawResident*sms, splits+1)), ceilDiv(n, 32))
	return [3]launch{
		grid("sample", "sample_edit", splits, n, 256).overlapped(),
		grid("sample", "sample_draw", splits+1, draw, 512).overlapped(),
		grid("sample", "sample_finish", n, 1, 512).overlapped(),
	}
}

// drawResident is about the CTAs of sample_draw that a multiprocessor has at a time.
const drawResident = 4
