//go:build cuda

package cuda

import (
	"unsafe"

	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
)

// The structs of common.cuh and sampling.cuh, field by field. Their sizes and
// offsets are asserted here and there.

// pagedKV is PagedKV: where the pool is and its strides in elements.
type pagedKV struct {
	base                             ptr
	block, layer, value, head, token int64
	blockSize, blockShift            int32
}

// rowParams is RowParams: kernels.Sampling without its lists.
type rowParams struct {
	temperature, topP, minP, repetition, presence, frequency float32
	seed                                                     [2]uint32
	topK, choice, promptLen, minTokens, logprobs             int32
	numStopIDs, numBias, penalties                           int32
}

// weightUnit is what the rows of weights are rounded up to: see common.cuh.
const weightUnit = 128

// epilogue is Epilogue.
type epilogue struct {
	out                            ptr
	ld                             int64
	rows, cols                     int32
	heads, kvHeads, headDim, layer int32
	bias, rope, positions, slots   ptr
	kv                             pagedKV
	whole                          ptr
	sampleVocab, pieces            int32
	squares, normed, norm          ptr // see gemm_fold.cuh
	inverse, eps                   float32
}

const splitIDs = 8192 // ids of a CTA of the sampler

var (
	_ [56]byte                = [unsafe.Sizeof(pagedKV{})]byte{}
	_ [88]byte                = [unsafe.Sizeof(batchPtrs{})]byte{}
	_ [176]byte               = [unsafe.Sizeof(epilogue{})]byte{}
	_ [40]byte                = [unsafe.Offsetof(epilogue{}.bias)]byte{}
	_ [72]byte                = [unsafe.Offsetof(epilogue{}.kv)]byte{}
	_ [4 * rowParamWords]byte = [unsafe.Sizeof(rowParams{})]byte{}
	_ [4 * entryWords]byte    = [unsafe.Sizeof(sampleEntry{})]byte{}
)

// epilogueKind is EpilogueKind; the names are the kernels' suffixes.
type epilogueKind string

const (
	epilogueStore    epilogueKind = "store"
	epilogueResidual epilogueKind = "residual"
	epilogueSwiGLU   epilogueKind = "swiglu"
	epilogueQKV      epilogueKind = "qkv"
)

// arch is what a plan needs to know of the device.
type arch struct {
	sms    int     // multiprocessors
	shared int     // bytes of shared memory that a CTA can have
	hopper bool    // wgmma and the bulk copy engine may be used (sm_90a)
	memory float64 // bytes a second by the data sheet
	clock  float64 // of a multiprocessor, in Hz, at most
}

// slotsOf is the CTAs of 128 threads that are resident at a time.
func slotsOf(a arch) int { return residentCTAs(a.sms) }

// launch is a planned launch: the kernel of an image (cubin/<image>.fatbin), its
// grid and CTA.
type launch struct {
	image, kernel string
	cuda.Launch
}

// grid makes a launch of x × y CTAs.
func grid(image, kernel string, x, y, threads int) launch {
	return launch{image, kernel, cuda.Launch{
		Grid: [3]uint32{uint32(x), uint32(y), 1}, CTA: [3]uint32{uint32(threads), 1, 1},
	}}
}

// overlapped lets the launch start while its predecessor ends: its kernel calls
// grid_wait before it reads what that wrote.
func (l launch) overlapped() launch {
	l.PDL = 1
	return l
}

// of is the launch of the kernel with the end.
func (l launch) of(kind epilogueKind) launch {
	l.kernel += "_" + string(kind)
	return l
}

// newPagedKV describes the pool at base.
func newPagedKV(kv kernels.PagedKV, base ptr) pagedKV {
	shift := int32(0)
	for 1<<shift < kv.BlockSize {
		shift++
	}
	return pagedKV{
		base: base, block: int64(kv.Block), layer: int64(kv.Layer), value: int64(kv.Value), head: int64(kv.Head), token: int64(kv.Token),
		blockSize: int32(kv.BlockSize), blockShift: shift,
	}
}
