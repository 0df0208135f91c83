//go:build cuda

package cuda

import "unsafe"

// gemmParams is GemmParams.
type gemmParams struct {
	x, w               ptr
	ldX, panel         int64
	partials, counters ptr
	m, n, k            int32
	per, tiles, _      int32
	e                  epilogue
}

var (
	_ [248]byte = [unsafe.Sizeof(gemmParams{})]byte{}
	_ [48]byte  = [unsafe.Offsetof(gemmParams{}.m)]byte{}
	_ [72]byte  = [unsafe.Offsetof(gemmParams{}.e)]byte{}
)

// gemmPlan is a launch of one of these kernels and how it deals out the work:
// per is a CTA's share of the line of chunks, tiles the tiles along n.
type gemmPlan struct {
	launch
	per, tiles int32
}

// params completes the parameters that depend on the plan.
func (g gemmPlan) params(s gemmShape, scratch gemmScratch) gemmParams {
	return gemmParams{
		m: int32(s.m), n: int32(s.n), k: int32(s.k), per: g.per, tiles: g.tiles,
		partials: scratch.partials, counters: scratch.counters,
	}
}

// planGemm chooses among the kernels that take any activations and weights; ok is
// false where none does.
func planGemm(s gemmShape, a arch) (g gemmPlan, ok bool) {
	if s.n%8 != 0 || s.k%widthUnit != 0 || s.m < 1 {
		return gemmPlan{}, false
	}
	if !s.invariant {
		if g, ok := planGemmSkinny(s, a); ok {
			return g, true
		}
	}
	return planGemmMMA(s, a)
}

// deal cuts a line of tiles·chunks into runs of `per` chunks for at most slots
// CTAs.
func deal(image, kernel string, columns, tiles, chunks, slots, threads, shared int, whole bool) gemmPlan {
	per := ceilDiv(tiles*chunks, slots)
	if whole {
		per = ceilDiv(tiles, slots) * chunks
	}
	l := grid(image, kernel, ceilDiv(tiles*chunks, per), 1, threads)
	l.Shared, l.PDL = uint32(shared), 1
	return gemmPlan{l, int32(per), int32(columns)}
}
