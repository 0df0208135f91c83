//go:build cuda

package cuda

import "fmt"

// streamVariant is a kernel of gemm_stream.cu: tiles of bn weight rows × mt tokens, a
// ring of stages.
type streamVariant struct{ bn, mt, stages int }

var streamVariants = []streamVariant{
	{128, 16, 11}, {128, 32, 10}, {128, 64, 8}, {128, 128, 6}, {128, 256, 4}, {256, 16, 6}, {256, 32, 5}, {256, 64, 5}, {256, 128, 4},
}

func (v streamVariant) kernel() string { return fmt.Sprintf("gemm_stream_%d_%d", v.bn, v.mt) }

// threads is the two warpgroups and the producer.
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

const streamTokens = 512 // beyond, gemm_sm90.cu always has tiles enough

// planGemmStream takes 9 to 512 tokens on Hopper: of all variants and ways to deal, the
// one that the model below finds fastest, unless gemm_sm90.cu is faster. Its parameters
// are sm90Params with a map of x whose boxes have xBox rows.
func planGemmStream(s gemmShape, a arch) (g gemmPlan, xBox int, ok bool) {
	if !a.hopper || s.invariant || s.m <= 8 || s.m > streamTokens || s.n%8 != 0 || s.k%sm90Step != 0 {
		return gemmPlan{}, 0, false
	}
	var best streamDeal
	least := 0.0
	if s.m > 64 {
		least = min(sm90Cost(s, 128, a), sm90Cost(s, 256, a))
	}
	for _, v := range streamVariants {
		if v.shared() > a.shared || v.mt > 16 && s.m*2 <= v.mt || s.m > 8*v.mt {
			continue
		}
		for _, d := range v.deals(s, a) {
			if us := d.cost(s, a); least == 0 || us < least {
				best, least = d, us
			}
		}
	}
	if best.ctas == 0 {
		return gemmPlan{}, 0, false
	}
	g = gemmPlan{launch: grid("gemm_stream", best.kernel(), best.ctas, 1, best.threads()), per: int32(best.pieces), tiles: int32(ceilDiv(s.n, best.bn))}
	g.Shared, g.PDL, g.Cluster = uint32(best.shared()), 1, uint32(best.cluster)
	return g, best.mt, true
}

// streamDeal is a way to deal out the tiles: clusters of CTAs with a tile each, or, with
// pieces, whole tiles to CTAs of their own and what remains in pieces.
type streamDeal struct {
	streamVariant
	cluster, pieces int
	ctas            int
	ends            int // tiles that a CTA ends, pieces included
	longest         int // steps of the CTA with most
}

// streamClusters are sizes of clusters and how many were found to run at a time on
// 132 multiprocessors.
var streamClusters = []struct{ size, most int }{{2, 64}, {3, 38}, {4, 30}, {8, 14}}

func (v streamVariant) deals(s gemmShape, a arch) []streamDeal {
	tiles, steps := ceilDiv(s.n, v.bn)*ceilDiv(s.m, v.mt), s.k/sm90Step
	var deals []streamDeal
	for _, c := range streamClusters {
		if c.size <= steps && tiles <= c.most*a.sms/132 {
			deals = append(deals, streamDeal{v, c.size, 0, tiles * c.size, 1, ceilDiv(steps, c.size)})
		}
	}
	whole, cut := tiles/a.sms, tiles%a.sms
	if cut == 0 {
		return append(deals, streamDeal{v, 1, 1, a.sms, whole, whole * steps})
	}
	if whole == 0 { // clusters cut better
		return append(deals, streamDeal{v, 1, 1, tiles, 1, steps})
	}
	pieces := min(a.sms/cut, steps)
	return append(deals, streamDeal{v, 1, pieces, a.sms, whole + 1, whole*steps + ceilDiv(steps, pieces)})
}

// cost is the time in µs, to rank deals by, fitted to kernels-test's table of an H200 (of
// commit c45c833, before the ends of clusters' tiles became shorter):
// 1.8 % slower on average than always taking the fastest, 33 % at worst. Bytes through memory, and
// through L2; what a multiprocessor can pull alone; products; ends of tiles, which grow
// with their size; the meeting of a cluster, and of a cut tile's pieces.
func (d streamDeal) cost(s gemmShape, a arch) float64 {
	columns, rows := ceilDiv(s.n, d.bn), ceilDiv(s.m, d.mt)
	weights, tokens := 2*float64(s.n)*float64(s.k), 2*float64(columns*rows*d.mt)*float64(s.k)
	end, longest := float64(d.mt*d.bn)/(32*128), float64(d.longest)
	us := max(weights/5.2e6, (weights*float64(rows)+tokens)/9.1e6, longest*float64(2*sm90Step*(d.bn+d.mt))/0.15e6, longest*float64(d.bn*d.mt)/54400)
	us += 1.8 + 0.039*longest + 0.2*float64(d.ctas)/float64(a.sms) + 1.43*float64(d.ends)*end
	switch {
	case d.cluster > 1:
		us += 0.06 + 0.14*float64(d.cluster) + 0.35*end
	case d.pieces > 1:
		us += 3.1 + 0.08*float64(d.pieces)*end
	case d.ends == 1: // tiles for some of the multiprocessors, each with all of k
		us *= 1.15
	}
	if d.bn > 128 {
		us *= 1.04
	}
	return us
}
