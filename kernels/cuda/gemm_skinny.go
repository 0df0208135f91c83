//go:build cuda

package cuda

import "fmt"

// skinnyVariant is a kernel of gemm_skinny.cu: bn weight rows a tile, up to mt
// tokens, a ring of stages.
type skinnyVariant struct {
	bn, mt, stages int
	measuredOnly   bool // timed in whole steps alone, which skinnyCost was not fitted to: measured.tsv takes it
}

var skinnyVariants = []skinnyVariant{
	{bn: 16, mt: 8, stages: 4}, {bn: 32, mt: 8, stages: 5}, {bn: 16, mt: 16, stages: 4, measuredOnly: true}, {bn: 32, mt: 16, stages: 5, measuredOnly: true},
	{bn: 64, mt: 16, stages: 5}, {bn: 64, mt: 32, stages: 4}, {bn: 64, mt: 64, stages: 3},
}

// chunk is the columns of k that a CTA takes at a time, shared its memory.
func (v skinnyVariant) chunk() int { return 4 * 2048 / v.bn }

func (v skinnyVariant) shared() int { return 4 * v.stages * (4096 + v.mt*2*2048/v.bn) }

func (v skinnyVariant) kernel() string { return fmt.Sprintf("gemm_skinny_%d_%d", v.bn, v.mt) }

// planGemmSkinny takes up to 64 tokens: of the variants, whole or cut, the one
// that the model below finds fastest.
func planGemmSkinny(s gemmShape, a arch) (gemmPlan, bool) {
	all := skinnyCandidates(s, a, false)
	if len(all) == 0 {
		return gemmPlan{}, false
	}
	return fastest(all).gemmPlan, true
}

// skinnyCandidates are the ways of gemm_skinny.cu, with or without those that are to be
// measured.
func skinnyCandidates(s gemmShape, a arch, measured bool) (all []candidate) {
	for _, v := range skinnyVariants {
		if v.measuredOnly && !measured || s.m > v.mt || v.mt > 8 && s.m*2 <= v.mt || v.shared() > a.shared {
			continue
		}
		tiles, chunks := ceilDiv(s.n, v.bn), ceilDiv(s.k, v.chunk())
		for _, whole := range []bool{true, false} {
			if !whole && (chunks == 1 || tiles > maxCutTiles) {
				continue
			}
			g := deal("gemm_skinny", v.kernel(), tiles, tiles, chunks, slotsOf(a), 128, v.shared(), whole)
			all = append(all, candidate{productPlan{gemmPlan: g}, skinnyCost(s, v, g, tiles, chunks, whole)})
		}
	}
	return all
}

// skinnyCost is a kernel's time in µs, to rank plans by: bytes through memory, and
// through L2 with the tokens that every tile reads again; what a CTA can pull alone
// (45 KB a µs, measured on an H100); the longest share; the meeting of a cut tile's
// CTAs (4 µs and more with the tokens, measured likewise).
func skinnyCost(s gemmShape, v skinnyVariant, g gemmPlan, tiles, chunks int, whole bool) float64 {
	weights := 2 * float64(s.n) * float64(s.k)
	tokens := 2 * float64(tiles) * float64(s.m) * float64(s.k)
	ctas := float64(g.Grid[0])
	us := max(weights/4.5e6, (weights+tokens)/7e6, weights/(ctas*0.045e6))
	us *= float64(g.per) * ctas / float64(tiles*chunks)
	if !whole {
		us += 4 + float64(v.mt)/16
	}
	return us
}
