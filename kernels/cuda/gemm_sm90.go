//go:build cuda

package cuda

import (
	"fmt"
	"slices"
	"unsafe"
)

// tensorMap is a CUtensorMap.
type tensorMap [128]byte

// sm90Params is Sm90Params and StreamParams. It must lie at a multiple of 64 bytes where the
// driver copies it from.
type sm90Params struct {
	x, w tensorMap
	g    gemmParams
	ring wideRing
	_    [60]byte
}

var (
	_ [576]byte = [unsafe.Sizeof(sm90Params{})]byte{}
	_ [256]byte = [unsafe.Offsetof(sm90Params{}.g)]byte{}
	_ [504]byte = [unsafe.Offsetof(sm90Params{}.ring)]byte{}
)

const (
	sm90Step      = 64  // columns of k of a step
	sm90ScaledQKV = 144 // columns of the widest tile of QKV that takes a norm's scales: gemm_sm90.cu, SCALES
)

// sm90Variant is a kernel of gemm_sm90.cu: tiles of so many tokens × bn outputs, of both (or all
// three) warpgroups together or, of SwiGLU, of one by turns; with the ends that it is of use for.
type sm90Variant struct {
	rows, bn int
	turns    bool
	ends     []epilogueKind
}

var sm90Variants = func() []sm90Variant {
	const store, residual, swiglu, qkv = epilogueStore, epilogueResidual, epilogueSwiGLU, epilogueQKV
	all, layers := []epilogueKind{store, residual, swiglu, qkv}, []epilogueKind{residual, swiglu, qkv}
	return []sm90Variant{
		{128, 64, false, layers}, {128, 96, false, layers}, {128, 112, false, []epilogueKind{residual, qkv}},
		{128, 128, false, []epilogueKind{store, residual, qkv}}, {128, 128, true, []epilogueKind{swiglu}}, {128, 144, false, all},
		{128, 160, false, []epilogueKind{swiglu}}, {128, 192, false, all}, {128, 224, false, layers}, {128, 256, false, all},
		{128, 288, false, all}, {192, 96, false, []epilogueKind{store, swiglu}}, {192, 144, false, []epilogueKind{store, swiglu}},
	}
}()

func (v sm90Variant) kernel() string {
	switch {
	case v.turns:
		return fmt.Sprintf("gemm_sm90_turns_%d", v.bn)
	case v.rows > 128:
		return fmt.Sprintf("gemm_sm90_%d_%d", v.bn, v.rows)
	}
	return fmt.Sprintf("gemm_sm90_%d", v.bn)
}

// shared is the ring, the outputs of each warp on their way, the barriers, and scales of tokens.
func (v sm90Variant) shared() int {
	const most, warp, barriers = 227 << 10, 16 * 36 * 4, (2*8 + 2) * 8
	rest, stage := v.rows/16*warp+barriers+4*v.rows, (v.rows+v.bn)*sm90Step*2
	return min(8, (most-rest)/stage)*stage + rest
}

// sm90Candidates are the ways of gemm_sm90.cu, for more than 64 tokens on Hopper: one CTA a
// multiprocessor, alone or in clusters of two, tile after tile.
func sm90Candidates(s gemmShape, a arch) (all []candidate) {
	if !streams(s, a) || s.m <= 64 {
		return nil
	}
	for _, v := range sm90Variants {
		if v.shared() > a.shared || !slices.Contains(v.ends, s.kind) {
			continue
		}
		for cluster := 1; cluster <= 2 && cluster <= ceilDiv(s.m, v.rows); cluster++ {
			columns := ceilDiv(s.n, v.bn)
			tiles := roundUp(ceilDiv(s.m, v.rows), cluster) * columns
			l := grid("gemm_sm90", v.kernel(), min(tiles, a.sms/cluster*cluster), 1, v.rows*2+128)
			l.Shared, l.PDL, l.Cluster = uint32(v.shared()), 1, uint32(cluster)
			plan := productPlan{gemmPlan: gemmPlan{launch: l, tiles: int32(columns)}, xBox: v.rows, wBox: v.bn / 2, ring: wideRing{panels: 1}}
			all = append(all, candidate{plan, v.cost(s, tiles, cluster, a)})
		}
	}
	return all
}

// sameTokens says of a way of gemm_sm90.cu, for up to foldedTokens, whether each CTA's tiles are of the same tokens: of c clusters,
// one has every c-th tile, and a column's tiles, of which so many tokens have one group (Tiles), follow one another.
func (p *productPlan) sameTokens(m int) bool {
	cluster := max(1, int(p.launch.Cluster))
	rows, clusters := ceilDiv(ceilDiv(m, p.xBox), cluster), int(p.launch.Grid[0])/cluster
	return clusters%rows == 0 || rows*int(p.tiles) <= clusters
}

// cost is the time in µs, fitted to kernels-test's table of an H100 (1.7 % slower on average than
// always taking the fastest): rounds of tiles, by the time of a step (products, what a
// multiprocessor can pull alone and all of them from L2) and of a tile's end; or what the card's
// power allows, which is the less the narrower tiles are. Clusters begin later, and need less
// power: in whole prompts, 12 % of the 7B's time.
func (v sm90Variant) cost(s gemmShape, tiles, cluster int, a arch) float64 {
	bn, rows, steps, active := float64(v.bn), float64(v.rows), float64(s.k/sm90Step), float64(min(tiles, a.sms))
	bytes := func(columns float64) float64 { return (rows + columns) * 2 * sm90Step }
	step := steps * max(0.0029*bn*rows/128, bytes(bn)/96e3, bytes(bn/float64(cluster))*active/13.1e6)
	end := 0.4 + 0.0074*bn
	switch {
	case s.kind == epilogueResidual && v.bn%32 != 0:
		end += 0.02 * bn // lines of memory written by halves
	case s.kind == epilogueResidual:
		end += 0.012 * bn
	case s.kind == epilogueQKV:
		end += 1.5 + 0.008*bn
		if bn > 256 && cluster == 1 {
			end += 1.4 // angles come through the ring, which clusters do not feel
		}
	}
	rounds := float64(ceilDiv(tiles, a.sms/cluster*cluster))
	us := 0.2 + rounds*(step+end)
	if v.turns {
		us = 0.2 + rounds*(step+0.2) + end
	}
	power := float64(tiles) * rows * bn * float64(s.k) / 336e6 * measuredSMs / float64(a.sms) * (1 + 0.1*(256/bn-1))
	if cluster > 1 {
		us, power = 0.985*us+0.84, 0.93*power+0.84
	}
	return max(us, power, 2*float64(s.n)*float64(s.k)/5.2e6)
}
