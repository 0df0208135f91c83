//go:build cuda

package cuda

import "fmt"

// streamVariant is a kernel of gemm_stream.cu: tiles of bn weight rows × mt tokens, a
// ring of stages.
type streamVariant struct{ bn, mt, stages int }

var streamVariants = []streamVariant{
	{128, 16, 11}, {128, 32, 10}, {128, 64, 8}, {128, 128, 6}, {128, 256, 4},
}

func (v streamVariant) threads() int {
	if v.bn*v.mt >= 1<<15 {
		return 384
	}
	return 288
}

// shared is the ring, the outputs under way and the barriers.
func (v streamVariant) shared() int {
	return 1024 + v.stages*(v.bn+v.mt)*sm90Step*2 + 8*16*20*4 + 16*v.stages
}

// xBox is the rows of the box of x's tensor map.
func (v streamVariant) xBox() int {
	if v.mt < 128 {
		return 16
	}
	return 32
}

// planGemmStream takes 9 to 512 tokens on Hopper: of the variants and clusters, those that
// the model below finds fastest, unless gemm_sm90.cu is. Its parameters are sm90Params
// with a map of x whose boxes have xBox rows.
func planGemmStream(s gemmShape, a arch) (g gemmPlan, xBox int, ok bool) {
	if !a.hopper || s.invariant || s.m <= 8 || s.m > 512 || s.n%8 != 0 || s.k%sm90Step != 0 {
		return gemmPlan{}, 0, false
	}
	least := 0.0
	if _, ok := planGemmSM90(s, a); ok {
		least = sm90Best(s, a)
	}
	for _, v := range streamVariants {
		if v.shared() > a.shared || v.mt > 16 && s.m*2 <= v.mt || s.m > 8*v.mt {
			continue
		}
		for _, cluster := range []int{-4, -2, -1, 2, 4, 8} {
			p, us := v.plan(s, a, cluster)
			if us > 0 && (least == 0 || us < least) {
				g, xBox, least, ok = p, v.xBox(), us, true
			}
		}
	}
	return g, xBox, ok
}

// plan is the launch with clusters of that size that share a tile or, of −cluster, have
// tiles side by side, and its time in µs; 0 where it does not fit.
func (v streamVariant) plan(s gemmShape, a arch, cluster int) (gemmPlan, float64) {
	columns, rows, steps := ceilDiv(s.n, v.bn), ceilDiv(s.m, v.mt), s.k/sm90Step
	clusters := clustersOf(a, max(cluster, -cluster))
	ctas, longest, per, sharing := 0, 0, 0, 1
	if cluster > 0 {
		if cluster > steps || columns*rows > clusters {
			return gemmPlan{}, 0
		}
		ctas, longest = columns*rows*cluster, ceilDiv(steps, cluster)
	} else {
		sharing = -cluster
		groups := ceilDiv(columns, sharing) * rows
		if groups < clusters || sharing*16 > v.mt { // the others are for fewer
			return gemmPlan{}, 0
		}
		per = 1
		longest = groups / clusters * steps
		if cut := groups % clusters; cut > 0 {
			per = max(1, min(clusters/cut, steps))
			longest += ceilDiv(steps, per)
		}
		ctas = clusters * sharing
	}
	g := gemmPlan{launch: grid("gemm_stream", fmt.Sprintf("gemm_stream_%d_%d", v.bn, v.mt), ctas, 1, v.threads()), per: int32(per), tiles: int32(columns)}
	g.Shared, g.PDL, g.Cluster = uint32(v.shared()), 1, uint32(max(cluster, -cluster))
	return g, v.cost(s, columns, rows, ctas, longest, sharing, max(cluster, 1))
}
