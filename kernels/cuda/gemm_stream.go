//go:build cuda

package cuda

import (
	"fmt"
	"slices"
)

// streamVariant is a kernel of gemm_stream.cu: tiles of bn weight rows × mt tokens, a
// ring of stages; and the kinds of products that there is a kernel for, nil if all.
type streamVariant struct {
	bn, mt, stages int
	ends           []epilogueKind
}

var streamVariants = []streamVariant{
	{128, 16, 11, nil}, {128, 64, 8, nil}, {128, 128, 6, nil}, {128, 160, 5, []epilogueKind{epilogueResidual, epilogueQKV}},
	{128, 192, 5, nil}, {128, 224, 4, []epilogueKind{epilogueResidual}},
}

func (v streamVariant) kernel() string { return fmt.Sprintf("gemm_stream_%d_%d", v.bn, v.mt) }

// shared is the ring, the outputs under way and the barriers.
func (v streamVariant) shared() int {
	return 1024 + v.stages*(v.bn+v.mt)*sm90Step*2 + 8*16*20*4 + 16*v.stages
}

const streamTokens = 512 // beyond, gemm_sm90.cu always has tiles enough

// streamCandidates are the ways of gemm_stream.cu, for 9 to 512 tokens on Hopper. Their
// parameters are sm90Params with boxes of xBox rows of x and 128 of w.
func streamCandidates(s gemmShape, a arch) (all []candidate) {
	if !streams(s, a) || s.m > streamTokens {
		return nil
	}
	for _, v := range streamVariants {
		if v.ends != nil && !slices.Contains(v.ends, s.kind) {
			continue
		}
		if v.shared() > a.shared || v.mt > 16 && s.m*2 <= v.mt || s.m > 8*v.mt {
			continue
		}
		if roundUp(s.m, v.mt) > roundUp(s.m, rowUnit) {
			continue // the last tile would read past the rows that there are
		}
		for _, d := range v.deals(s, a) {
			g := gemmPlan{launch: grid("gemm_stream", v.kernel(), d.ctas, 1, 288), per: int32(d.pieces), tiles: int32(ceilDiv(s.n, v.bn))}
			g.Shared, g.PDL, g.Cluster = uint32(v.shared()), 1, uint32(d.cluster)
			if d.pieces == 0 {
				g.kernel += clustersSuffix
			}
			all = append(all, candidate{productPlan{gemmPlan: g, xBox: v.mt, wBox: 128}, d.cost(s, a)})
		}
	}
	return all
}

// streams says whether a product is one of those that gemm_stream.cu, gemm_wide.cu and gemm_sm90.cu are for.
func streams(s gemmShape, a arch) bool {
	return a.hopper && !s.invariant && s.n%8 == 0 && s.k%sm90Step == 0 && s.k <= 1<<16 // wgmma.cuh: Over
}

// streamDeal is a way to deal out the tiles: clusters of CTAs with a tile each, or, with
// pieces, whole tiles to CTAs of their own and what remains in pieces.
type streamDeal struct {
	streamVariant
	cluster, pieces int
	ctas            int
	ended           int // tiles that a CTA ends, pieces included
	longest         int // steps of the CTA with most
}

// clusters are of a size; so many were found to run at a time on 132 multiprocessors.
type clusters struct{ size, most int }

var streamClusters = []clusters{{2, 64}, {3, 38}, {4, 30}, {8, 14}}

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
	us += 1.8 + 0.039*longest + 0.2*float64(d.ctas)/float64(a.sms) + 1.43*float64(d.ended)*end
	switch {
	case d.cluster > 1:
		us += 0.06 + 0.14*float64(d.cluster) + 0.35*end
	case d.pieces > 1:
		us += 3.1 + 0.08*float64(d.pieces)*end
	case d.ended == 1: // tiles for some of the multiprocessors, each with all of k
		us *= 1.15
	}
	return us
}
