//go:build cuda

package cuda

import "unsafe"

// tensorMap is a CUtensorMap. Those of gemm_sm90.cu have boxes of 64 columns ×
// 128 rows of bf16, with 128-byte swizzle.
type tensorMap [128]byte

// sm90Params is Sm90Params. It must lie at a multiple of 64 bytes where the driver
// copies it from.
type sm90Params struct {
	x, w tensorMap
	g    gemmParams
	_    [56]byte
}

var (
	_ [512]byte = [unsafe.Sizeof(sm90Params{})]byte{}
	_ [256]byte = [unsafe.Offsetof(sm90Params{}.g)]byte{}
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

// planGemmSM90 takes more than 64 tokens on Hopper, one CTA a multiprocessor. Where
// the last round of whole tiles would leave much of the device idle, narrower
// tiles or cuts along k are chosen.
func planGemmSM90(s gemmShape, a arch) (gemmPlan, bool) {
	if !a.hopper || s.invariant || s.m <= 64 || s.n%8 != 0 || s.k%sm90Step != 0 || sm90Shared(256) > a.shared {
		return gemmPlan{}, false
	}
	rows, steps := ceilDiv(s.m, sm90BoxRows), s.k/sm90Step
	best, least := gemmPlan{}, 0.0
	for _, bn := range []int{256, 128} {
		columns := ceilDiv(s.n, bn)
		tiles := rows * columns
		for _, whole := range []bool{true, false} {
			if !whole && (tiles > 4*a.sms || steps == 1) {
				continue
			}
			g := planTiles(bn, columns, tiles, steps, a, whole)
			if cost := sm90Cost(s, g, bn, tiles, steps, a, whole); best.kernel == "" || cost < least {
				best, least = g, cost
			}
		}
	}
	return best, true
}

func planTiles(bn, columns, tiles, steps int, a arch, whole bool) gemmPlan {
	kernel := "gemm_sm90_256"
	if bn == 128 {
		kernel = "gemm_sm90_128"
	}
	g := gemmPlan{launch: grid("gemm_sm90", kernel, min(tiles, a.sms), 1, 384), tiles: int32(columns)}
	if !whole {
		g.per = int32(ceilDiv(tiles*steps, a.sms))
		g.Grid[0] = uint32(ceilDiv(tiles*steps, int(g.per)))
	}
	g.Shared, g.PDL = uint32(sm90Shared(bn)), 1
	return g
}

// sm90Cost is a kernel's time in µs as the H200 has it, to rank plans by: the
// longest share of steps at the tile's speed, its tiles' ends, the meeting of a cut tile's CTAs.
func sm90Cost(s gemmShape, g gemmPlan, bn, tiles, steps int, a arch, whole bool) float64 {
	step, end := 0.60, 2.5 // µs: 128 × 256 × 64 at 700 TFLOP/s, and the tile's epilogue
	if bn == 128 {
		step, end = 0.33, 1.5
	}
	memory := 2 * float64(s.n) * float64(s.k) / 4.5e6
	if whole {
		rounds := float64(ceilDiv(tiles, a.sms))
		return max(memory, rounds*(float64(steps)*step+end))
	}
	pieces := float64(ceilDiv(int(g.per), steps)) + 1
	return max(memory, float64(g.per)*step+pieces*end) + 2.5
}
