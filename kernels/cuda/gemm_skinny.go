//go:build cuda

package cuda

import (
	"fmt"
	"strings"
	"unsafe"
)

// skinnyVariant is a kernel of gemm_skinny.cu: bn weight rows a tile, up to mt
// tokens, a ring of stages; without stages there is only that of clusters, whose ring has
// as many as there is room for.
type skinnyVariant struct {
	bn, mt, stages int
	measuredOnly   bool // timed in whole steps alone, which skinnyCost was not fitted to: measured.tsv takes it
	clusters       bool // there is a kernel of clusters
}

var skinnyVariants = []skinnyVariant{
	{bn: 16, mt: 8, stages: 4, clusters: true}, {bn: 32, mt: 8, stages: 5, clusters: true},
	{bn: 32, mt: 16, stages: 5, measuredOnly: true, clusters: true},
	{bn: 64, mt: 16, stages: 5}, {bn: 64, mt: 32, stages: 4}, {bn: 64, mt: 64, stages: 3},
	{bn: 32, mt: 32, clusters: true},
}

// chunk is the columns of k that a CTA takes at a time, shared its memory.
func (v skinnyVariant) chunk() int { return 4 * 2048 / v.bn }

func (v skinnyVariant) shared() int { return v.stages * v.stage() }

// stage is the bytes of a stage of the rings of all warps.
func (v skinnyVariant) stage() int { return weightStage + 4*v.mt*2*2048/v.bn }

const weightStage = 4 * 4096 // its weights

// head is the bytes before the ring in a cluster: a barrier, and sums.
func (v skinnyVariant) head() int { return 128 + v.bn/8*(v.mt+8)*32 }

func (v skinnyVariant) kernel() string { return fmt.Sprintf("gemm_skinny_%d_%d", v.bn, v.mt) }

// normedParams is NormedParams of gemm_norm.cuh.
type normedParams struct {
	g            gemmParams
	hidden, norm ptr
	eps          float32
	_            int32
}

var _ [272]byte = [unsafe.Sizeof(normedParams{})]byte{}

// normedLaunch is the launch of the kernel that makes the norm of a single token, too, of the way of
// a plan; ok is false where there is none. The row is in shared memory instead of the ring's tokens.
func normedLaunch(g gemmPlan, s gemmShape, width int) (l launch, ok bool) {
	if s.m != 1 || width != s.k || s.kind != epilogueQKV && s.kind != epilogueSwiGLU {
		return launch{}, false
	}
	l = g.launch
	name, cluster := strings.CutSuffix(l.kernel, clustersSuffix)
	for _, v := range skinnyVariants {
		for _, most := range []int{1024, 2048, 4096} {
			if v.mt != 8 || v.kernel() != name || s.k > most {
				continue
			}
			row := 2 * roundUp(s.k, v.chunk()/4)
			// No less than without the norm: a third CTA on a multiprocessor would be missing on another.
			l.kernel, l.Shared = fmt.Sprintf("%s_normed_%d", name, most), max(l.Shared, uint32(row+v.stages*weightStage))
			if cluster {
				stages := (int(g.Shared) - v.head()) / v.stage()
				l.kernel, l.Shared = l.kernel+clustersSuffix, uint32(v.head()+row+stages*weightStage)
			}
			return l, true
		}
	}
	return launch{}, false
}

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
		if v.stages == 0 || v.measuredOnly && !measured || !v.takes(s.m) || v.shared() > a.shared {
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

// takes says whether the variant is for m tokens: there is no smaller one that would do.
func (v skinnyVariant) takes(m int) bool { return m <= v.mt && (v.mt == 8 || m*2 > v.mt) }

// skinnyClusters are the ways of gemm_skinny.cu with a tile a cluster, on Hopper. They were
// timed in whole steps alone: measured.tsv takes them, and they have no model.
func skinnyClusters(s gemmShape, a arch) (all []candidate) {
	if !streams(s, a) {
		return nil
	}
	for _, v := range skinnyVariants {
		for _, c := range []int{2, 3, 4, 6, 8} {
			tiles, runs := ceilDiv(s.n, v.bn), ceilDiv(s.k, v.chunk()/4)
			if !v.clusters || !v.takes(s.m) || c > runs || runs >= skinnyRuns || tiles*c*10 > 11*slotsOf(a) {
				continue
			}
			g := gemmPlan{launch: grid("gemm_skinny", v.kernel()+clustersSuffix, tiles*c, 1, 128), tiles: int32(tiles)}
			g.Shared, g.PDL, g.Cluster = uint32(v.clusterShared(a, tiles, runs, c)), 1, uint32(c)
			all = append(all, candidate{productPlan: productPlan{gemmPlan: g}})
		}
	}
	return all
}

const (
	clustersSuffix = "_clusters" // of the kernel's name
	skinnyRuns     = 8192        // that gemm_skinny.cu divides by the size of a cluster are fewer
)

// clusterShared is the shared memory of a CTA of a cluster of c: a ring for all runs of a
// warp, as far as there is room. Two CTAs share a multiprocessor unless every one can
// have its own; clusters, which do not reach across the parts that a card is made of, leave
// some of those unused.
func (v skinnyVariant) clusterShared(a arch, tiles, runs, c int) int {
	room := a.shared
	if tiles*c*100 > 85*a.sms {
		room = (a.shared+1024)/2 - 1024 // the device reserves 1 KiB a CTA
	}
	return v.head() + min(ceilDiv(ceilDiv(runs, c), 4), (room-v.head())/v.stage())*v.stage()
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
