//go:build cuda

package cuda

import (
	"fmt"
	"unsafe"
)

// tensorMap is a CUtensorMap. Those of gemm_sm90.cu have boxes of 64 columns ×
// 128 rows of float16, with 128-byte swizzle.
type tensorMap [128]byte

// sm90Params is Sm90Params and StreamParams. It must lie at a multiple of 64 bytes where the
// driver copies it from.
type sm90Params struct {
	x, w tensorMap
	g    gemmParams
	ring wideRing
	_    [40]byte
}

var (
	_ [512]byte = [unsafe.Sizeof(sm90Params{})]byte{}
	_ [256]byte = [unsafe.Offsetof(sm90Params{}.g)]byte{}
	_ [456]byte = [unsafe.Offsetof(sm90Params{}.ring)]byte{}
)

const (
	sm90BoxRows, sm90BoxColumns = 128, 64
	sm90Step                    = 64 // columns of k of a step
)

// sm90Shared is the shared memory of gemm_sm90_<bn>: ring, outputs, barriers.
func sm90Shared(bn int) int {
	stages := 6
	if bn == 256 {
		stages = 4
	}
	return 1024 + stages*(sm90BoxRows+bn)*sm90Step*2 + 8*16*40*4 + 16*stages
}

// planGemmSM90 takes more than 64 tokens on Hopper, one CTA a multiprocessor, each
// tile after tile: narrow tiles where wide ones leave much of the last of few rounds
// idle.
func planGemmSM90(s gemmShape, a arch) (gemmPlan, bool) {
	if !a.hopper || s.invariant || s.m <= 64 || s.n%8 != 0 || s.k%sm90Step != 0 || sm90Shared(256) > a.shared {
		return gemmPlan{}, false
	}
	rows, bn := ceilDiv(s.m, sm90BoxRows), 256
	if sm90Cost(s, 128, a) < sm90Cost(s, 256, a) {
		bn = 128
	}
	columns := ceilDiv(s.n, bn)
	l := grid("gemm_sm90", fmt.Sprintf("gemm_sm90_%d", bn), min(rows*columns, a.sms), 1, 384)
	l.Shared, l.PDL = uint32(sm90Shared(bn)), 1
	return gemmPlan{launch: l, tiles: int32(columns)}, true
}

// sm90Cost is a kernel's time in µs as measured on an H200: rounds of tiles, by the
// time of a step and of a tile's end.
func sm90Cost(s gemmShape, bn int, a arch) float64 {
	step, end := 0.71, 4.2
	if bn == 128 {
		step, end = 0.37, 2.4
	}
	return 1 + float64(ceilDiv(ceilDiv(s.m, sm90BoxRows)*ceilDiv(s.n, bn), a.sms))*(float64(s.k/sm90Step)*step+end)
}
