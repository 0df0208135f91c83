//go:build cuda

package cuda

const mmaStep = 64 // columns of k of a step

// planGemmMMA takes any number of tokens. With few tiles k is cut, unless results
// must not depend on the number of tokens; then few tokens have tiles of their
// own, which sum in the same order.
func planGemmMMA(s gemmShape, a arch) (gemmPlan, bool) {
	steps := s.k / mmaStep
	if s.m <= 16 {
		const shared = 6 * (16 + 64) * mmaStep * 2
		return wholeTiles("gemm_mma_16_64", 16, 64, shared, steps, s), shared <= a.shared
	}
	const shared = 3 * 2 * mmaTile * mmaStep * 2
	if shared > a.shared {
		return gemmPlan{}, false
	}
	tiles := ceilDiv(s.m, mmaTile) * ceilDiv(s.n, mmaTile)
	// Cut where that saves more steps, at about 1 µs each, than the meeting of a
	// tile's CTAs costs.
	const meeting = 60
	if !s.invariant && tiles <= maxCutTiles && ceilDiv(tiles, slotsOf(a))*steps > ceilDiv(tiles*steps, slotsOf(a))+meeting {
		return deal("gemm_mma", "gemm_mma_128_128", ceilDiv(s.n, mmaTile), tiles, steps, slotsOf(a), 128, shared, false), true
	}
	return wholeTiles("gemm_mma_128_128", mmaTile, mmaTile, shared, steps, s), true
}

// wholeTiles is a CTA a tile.
func wholeTiles(kernel string, bm, bn, shared, steps int, s gemmShape) gemmPlan {
	columns := ceilDiv(s.n, bn)
	tiles := ceilDiv(s.m, bm) * columns
	return deal("gemm_mma", kernel, columns, tiles, steps, tiles, 128, shared, true)
}
