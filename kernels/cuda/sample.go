//go:build cuda

package cuda

import "unsafe"

// sampleParams is SampleParams.
type sampleParams struct {
	logits, edited                                          ptr
	ld                                                      int64
	state, stopIDs, bias, counts                            ptr
	countsStride                                            int64
	entries, masks, header, parts, draws, maxima, results   ptr
	resultWords                                             int64
	maskWords, vocab, sampleVocab, splits, capacity, maxTop int32
	tops, _                                                 int32
}

var _ [160]byte = [unsafe.Sizeof(sampleParams{})]byte{}

// planSample is the two kernels for n rows. Parts of rows that do not fit on the device at a time share CTAs.
func planSample(n, vocab, sms int) [2]launch {
	return [2]launch{
		grid("sample", "sample_split", min(n*ceilDiv(vocab, splitIDs), splitResident*sms), 1, 256).overlapped(),
		grid("sample", "sample_finish", n, 1, 512).overlapped(),
	}
}

const splitResident = 3 // CTAs of sample_split that one of Hopper's multiprocessors has at a time, by their registers
