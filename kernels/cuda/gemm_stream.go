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

// planGemmStream takes 9 to 256 tokens on Hopper, but not where gemm_sm90.cu was
// found faster: more than 64 tokens with tiles for every slot, more than 128 with a
// short k. Its parameters are sm90Params with a map of x whose boxes have xBox rows.
// Clusters are as large as lets all tiles be under way at once, four at most from 33
// tokens on, where what CTAs read of each other weighs more.
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
	tiles, steps, slots := ceilDiv(s.n, streamRows), s.k/sm90Step, v.ctas*a.sms
	if v.shared() > a.shared || s.m > 64 && tiles > slots || s.m > 128 && steps < 70 {
		return gemmPlan{}, 0, false
	}
	cluster, most := 1, 8
	if s.m > 32 {
		most = 4
	}
	for cluster < most && 2*cluster <= steps && tiles*2*cluster <= slots {
		cluster *= 2
	}
	g = gemmPlan{launch: grid("gemm_stream", fmt.Sprintf("gemm_stream_%d", v.mt), tiles*cluster, 1, v.threads), tiles: int32(tiles)}
	g.Shared, g.PDL, g.Cluster = uint32(v.shared()), 1, uint32(cluster)
	return g, v.xBox(), true
}
