//go:build cuda

package cuda

import (
	"fmt"
	"slices"
)

// wideVariant is a kernel of gemm_wide.cu: tiles of bn weight rows × mt tokens.
type wideVariant struct{ bn, mt int }

var wideVariants = []wideVariant{
	{32, 64}, {56, 64}, {64, 64}, {72, 64}, {80, 64}, {112, 64}, {136, 64}, {288, 64},
	{56, 128}, {64, 128}, {72, 128}, {112, 128}, {120, 128}, {136, 128},
}

// wideRing is what StreamParams says of gemm_wide.cu's ring: its stages, the panels of 64
// columns of k in each, and the rows of a box of x.
type wideRing struct{ stages, panels, box int32 }

const (
	wideTokens         = 256      // at most, where the model chooses
	wideMeasuredTokens = 512      // in ways of measured.tsv
	wideStages         = 32       // at most: more would not make a difference
	wideStep           = 40 << 10 // bytes of a stage of several panels at most
	wideThreads        = 320      // THREADS of gemm_wide.cu
	wideGated          = 18 << 10 // bytes of its warps' parts of a tile of gate and up
)

const tilesSuffix = "_tiles" // of the kernel of CTAs that have several

func (v wideVariant) kernel() string { return fmt.Sprintf("gemm_wide_%d_%d", v.bn, v.mt) }

// box is the rows of a box of x: those of a tile that are used, a power of two of them.
func (v wideVariant) box(m int) int {
	for _, rows := range []int{16, 32} {
		if v.mt == 64 && m <= rows {
			return rows
		}
	}
	return v.mt
}

// wBox is the rows of a box of w, of which there are two in a tile of more than 256.
func (v wideVariant) wBox() int {
	if v.bn > 256 {
		return v.bn / 2
	}
	return v.bn
}

// stage is the bytes of a stage.
func (v wideVariant) stage(box, panels int) int { return panels * (box + v.bn) * sm90Step * 2 }

// shared is the ring, with room for what wgmma reads behind it, for a tile's sums and for the warps' parts of one of gate and up, the
// barriers, scales of tokens, and the sums of the cluster for the tokens that a CTA ends.
func (v wideVariant) shared(m int, r wideRing, cluster int) int {
	box, panels, stages, ld := int(r.box), int(r.panels), int(r.stages), v.bn
	if v.bn%16 == 0 {
		ld += 8
	}
	ring := stages * v.stage(box, panels)
	bytes := 1024 + max(ring, ring-(panels*v.bn+box-64)*sm90Step*2, box*ld*4, wideGated) + 16*stages + 32 + 4*v.mt
	if cluster > 1 {
		bytes += ceilDiv(min(m, v.mt), cluster) * cluster * v.bn * 4
	}
	return bytes
}

// wideDeal is a way to deal out the tiles: whole ones, or one to a cluster.
type wideDeal struct {
	wideVariant
	ring       wideRing
	cluster    int
	ctas, ends int // ends: tiles of a CTA
	steps      int // of the CTA with most
}

// wideCandidates are the ways of gemm_wide.cu, for up to 256 tokens on Hopper, or 512 with those that are to be measured.
func wideCandidates(s gemmShape, a arch, measured bool) (all []candidate) {
	most := wideTokens
	if measured {
		most = wideMeasuredTokens
	}
	if !streams(s, a) || s.m > most {
		return nil
	}
	for _, v := range wideVariants {
		if s.m <= 64 && v.mt > 64 {
			continue
		}
		for _, d := range v.deals(s, a) {
			g := gemmPlan{launch: grid("gemm_wide", v.kernel(), d.ctas, 1, wideThreads), tiles: int32(ceilDiv(s.n, v.bn))}
			g.Shared, g.PDL, g.Cluster = uint32(v.shared(s.m, d.ring, d.cluster)), 1, uint32(d.cluster)
			if d.ends > 1 {
				g.per, g.kernel = 1, g.kernel+tilesSuffix
			}
			all = append(all, candidate{productPlan{gemmPlan: g, xBox: int(d.ring.box), wBox: v.wBox(), ring: d.ring}, d.cost(s, a)})
		}
	}
	return all
}

// deals are those whose CTAs are all under way at a time, and most of the card's.
func (v wideVariant) deals(s gemmShape, a arch) (deals []wideDeal) {
	tiles := ceilDiv(s.n, v.bn) * ceilDiv(s.m, v.mt)
	for _, panels := range []int{1, 2, 4} {
		steps := ceilDiv(s.k, panels*sm90Step)
		if panels > 1 && v.stage(v.box(s.m), panels) > wideStep {
			break
		}
		for _, c := range slices.Concat(streamClusters, []clusters{{1, 132}}) {
			if c.size <= steps && tiles <= c.most*a.sms/132 {
				deals = append(deals, wideDeal{v, wideRing{panels: int32(panels)}, c.size, tiles * c.size, 1, ceilDiv(steps, c.size)})
			}
		}
		if rounds := ceilDiv(tiles, a.sms); rounds > 1 {
			deals = append(deals, wideDeal{v, wideRing{panels: int32(panels)}, 1, ceilDiv(tiles, rounds), rounds, rounds * steps})
		}
	}
	fit := deals[:0]
	for _, d := range deals {
		if d.fill(s, a); d.ring.stages >= int32(min(2, d.steps)) {
			fit = append(fit, d)
		}
	}
	return fit
}

// fill gives the ring what stages there is room for.
func (d *wideDeal) fill(s gemmShape, a arch) {
	d.ring.box, d.ring.stages = int32(d.box(s.m)), int32(min(d.steps, wideStages))
	for d.ring.stages > 0 && d.shared(s.m, d.ring, d.cluster) > a.shared {
		d.ring.stages--
	}
}

// cost is the time in µs, to rank deals by: the model of streamDeal.cost, where the ends of
// tiles are of the tokens that there are, and a step has two requests.
func (d wideDeal) cost(s gemmShape, a arch) float64 {
	columns, rows, panels := ceilDiv(s.n, d.bn), ceilDiv(s.m, d.mt), float64(d.steps)*float64(d.ring.panels)
	weights, tokens := 2*float64(s.n)*float64(s.k), 2*float64(columns*rows*int(d.ring.box))*float64(s.k)
	end := float64(min(s.m, d.mt)*d.bn) / (32 * 128)
	us := max(weights/5.2e6, (weights*float64(rows)+tokens)/9.1e6, panels*float64(d.stage(int(d.ring.box), 1))/0.15e6, panels*float64(d.bn*d.mt)/54400)
	us += 1.8 + 0.019*panels + 0.02*float64(d.steps) + 0.2*float64(d.ctas)/float64(a.sms) + 1.1*float64(d.ends)*end
	if d.cluster > 1 {
		us += 0.06 + 0.14*float64(d.cluster) + 0.35*end
	}
	return us * (1 + 0.5*max(0, 0.85-float64(d.ctas)/float64(a.sms))) // CTAs for some of the multiprocessors
}
