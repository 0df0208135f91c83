//go:build cuda

package cuda

import "fmt"

// streamVariant is a kernel of gemm_stream.cu: up to mt tokens, a ring of stages,
// CTAs of threads, ctas of them a multiprocessor.
type streamVariant struct{ mt, stages, threads, ctas int }

var streamVariants = []streamVariant{{16, 5, 288, 2}, {32, 5, 288, 2}, {64, 4, 288, 2}, {128, 6, 384, 1}, {256, 4, 384, 1}}

const streamRows = 128 // weight rows of a tile

// shared is the ring, the outputs under way and the barriers.
func (v streamVariant) shared() int {
	return 1024 + v.stages*(streamRows+v.mt)*sm90Step*2 + 8*16*20*4 + 16*v.stages
}

// xBox is the rows of the box of x's tensor map.
func (v streamVariant) xBox() int {
	if v.mt < sm90BoxRows {
		return 16
	}
	return sm90BoxRows
}

// planGemmStream takes 9 to 256 tokens on Hopper; its parameters are sm90Params
// with a map of x whose boxes have xBox rows. Few tiles go to clusters that share
// the device's slots, many are dealt out as a line.
func planGemmStream(s gemmShape, a arch) (g gemmPlan, xBox int, ok bool) {
	if !a.hopper || s.invariant || s.m <= 8 || s.m > 256 || s.n%8 != 0 || s.k%sm90Step != 0 {
		return gemmPlan{}, 0, false
	}
	var v streamVariant
	for _, v = range streamVariants {
		if s.m <= v.mt {
			break
		}
	}
	if v.shared() > a.shared {
		return gemmPlan{}, 0, false
	}
	tiles, steps, slots := ceilDiv(s.n, streamRows), s.k/sm90Step, v.ctas*a.sms
	g = gemmPlan{launch: grid("gemm_stream", fmt.Sprintf("gemm_stream_%d", v.mt), tiles, 1, v.threads), tiles: int32(tiles)}
	g.Shared, g.PDL = uint32(v.shared()), 1
	if tiles > slots && tiles <= maxCutTiles {
		g.per = int32(ceilDiv(tiles*steps, slots))
		g.Grid[0] = uint32(ceilDiv(tiles*steps, int(g.per)))
		return g, v.xBox(), true
	}
	cluster := 1
	for cluster < 8 && 2*cluster <= steps && tiles*2*cluster <= slots {
		cluster *= 2
	}
	g.Grid[0] *= uint32(cluster)
	g.Cluster = uint32(cluster)
	return g, v.xBox(), true
}
