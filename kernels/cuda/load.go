//go:build cuda

package cuda

import "unsafe"

// loadParams is LoadParams.
type loadParams struct {
	src, dst       ptr
	panel, first   int64
	seed           uint64
	scale, offset  float32
	rows, cols     int32
	dtype, headDim int32
	rowStep, rowAt int32
	gain           float32
	_              int32
	beyond         ptr
}

// loadDummy is the dtype of values that the device makes; the others are
// kernels.DType's.
const loadDummy = 3

// ropeTableParams is RopeTableParams.
type ropeTableParams struct {
	invFreq, table  ptr
	positions, half int32
	scale           float32
	_               int32
}

var (
	_ [88]byte = [unsafe.Sizeof(loadParams{})]byte{}
	_ [80]byte = [unsafe.Offsetof(loadParams{}.beyond)]byte{}
	_ [32]byte = [unsafe.Sizeof(ropeTableParams{})]byte{}
)

// loadTo is for rows of cols values as they are, in panels of so many elements.
func loadTo(dst ptr, panel int64, cols int) loadParams {
	return loadParams{dst: dst, panel: panel, cols: int32(cols), rowStep: 1, gain: 1}
}

// dummies are for that many rows that the device makes.
func (p loadParams) dummies(rows int, seed uint64, scale, offset float32) loadParams {
	p.rows, p.dtype, p.seed, p.scale, p.offset = int32(rows), loadDummy, seed, scale, offset
	return p
}

// planLoad is a CTA for up to 4 Ki elements of a row.
func planLoad(rows, cols int) launch {
	l := grid("load", "load", ceilDiv(cols, 4096), min(rows, 65535), 256)
	l.Grid[2] = uint32(ceilDiv(rows, 65535))
	return l
}

func planRopeTable(positions, half int) launch {
	return grid("load", "rope_table", ceilDiv(positions*half, 256), 1, 256)
}
