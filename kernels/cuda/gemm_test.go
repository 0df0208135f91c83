//go:build cuda

package cuda

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

var archs = []arch{{sms: 132, shared: 227 << 10, hopper: true, memory: 3.352e12}, {sms: 108, shared: 163 << 10}, {sms: 84, shared: 99 << 10}, {sms: 132, shared: 227 << 10}}

// hoppers are cards of sm_90, and one that does not exist.
var hoppers = []arch{archs[0], {sms: 114, shared: 227 << 10, hopper: true}, {sms: 78, shared: 227 << 10, hopper: true}, {sms: 16, shared: 227 << 10, hopper: true}}

// gemmShapes are the projections of Qwen2.5, some of SmolLM2, and awkward ones.
func gemmShapes() []gemmShape {
	var shapes []gemmShape
	for _, nk := range [][2]int{
		{4608, 3584}, {3584, 3584}, {37888, 3584}, {3584, 18944}, {152064, 3584}, {2048, 1536}, {1536, 1536}, {17920, 1536},
		{1536, 8960}, {1152, 896}, {896, 896}, {9728, 896}, {896, 4864}, {151936, 896}, {2048, 11008}, {27648, 5120}, {5120, 13824},
		{960, 576}, {3072, 576}, {576, 1536}, {8, 64}, {200, 128},
	} {
		for _, m := range []int{1, 2, 8, 9, 16, 17, 33, 64, 65, 128, 200, 256, 450, 512, 1000, 8192} {
			shapes = append(shapes, gemmShape{m: m, n: nk[0], k: nk[1], kind: epilogueStore})
		}
	}
	return shapes
}

// TestPlanGemm: every chunk of every tile belongs to one CTA, partials and
// counters have room, and shared memory suffices.
func TestPlanGemm(t *testing.T) {
	for _, a := range archs {
		_, scratch := layoutGemmScratch(a.sms, 0)
		for _, s := range gemmShapes() {
			for _, s.invariant = range []bool{false, true} {
				name := fmt.Sprintf("%+v on %+v", s, a)
				g, ok := planGemm(s, a)
				require.True(t, ok, name)
				var bm, bn int
				prefix, chunk := "gemm_mma", mmaStep
				if g.image == "gemm_skinny" {
					prefix = "gemm_skinny"
				}
				_, err := fmt.Sscanf(g.kernel, prefix+"_%d_%d", &bm, &bn)
				require.NoError(t, err, name)
				rows := 1
				if prefix == "gemm_skinny" {
					bm, bn = bn, bm
					chunk = 4 * 2048 / bn
					require.LessOrEqual(t, s.m, bm, name)
				} else {
					rows = ceilDiv(s.m, bm)
				}
				require.EqualValues(t, ceilDiv(s.n, bn), g.tiles, name)
				chunks := ceilDiv(s.k, chunk)
				total, per := rows*int(g.tiles)*chunks, int(g.per)
				require.EqualValues(t, ceilDiv(total, per), g.Grid[0], name)
				require.LessOrEqual(t, int(g.Shared), a.shared, name)
				if per%chunks != 0 { // cut
					require.False(t, s.invariant, name)
					require.LessOrEqual(t, rows*int(g.tiles), maxCutTiles, name)
					require.LessOrEqual(t, int64(2*g.Grid[0])*int64(bm*bn*4)+maxCutTiles*4, scratch, name)
				}
			}
		}
	}
}

// TestPlanGemmSM90: as many CTAs as there are tiles, or as multiprocessors; clusters have tiles
// one above the other, and shared memory suffices.
func TestPlanGemmSM90(t *testing.T) {
	for _, a := range hoppers {
		for _, s := range gemmShapes() {
			for _, s.kind = range []epilogueKind{epilogueStore, epilogueResidual, epilogueSwiGLU, epilogueQKV} {
				checkSM90Plans(t, s, a)
			}
		}
	}
	for _, s := range []gemmShape{{m: 128, n: 256, k: 64, invariant: true}, {m: 128, n: 257, k: 64}} {
		require.Empty(t, sm90Candidates(s, archs[0]), "%+v", s)
	}
	require.Empty(t, sm90Candidates(gemmShape{m: 128, n: 256, k: 64}, archs[1]), "not on an A100")
}

func checkSM90Plans(t *testing.T, s gemmShape, a arch) {
	all := sm90Candidates(s, a)
	require.Equal(t, s.m > 64, len(all) > 0, "%+v", s)
	for _, g := range all {
		name := fmt.Sprintf("%+v %s", s, g)
		var bn int
		_, err := fmt.Sscanf(strings.Replace(g.kernel, "_turns", "", 1), "gemm_sm90_%d", &bn)
		require.NoError(t, err, name)
		require.EqualValues(t, ceilDiv(s.n, bn), g.tiles, name)
		require.Equal(t, bn, 2*g.wBox, name)
		require.Zero(t, g.wBox%8, name)
		require.Contains(t, []uint32{1, 2}, g.Cluster, name)
		require.Zero(t, g.Grid[0]%g.Cluster, name)
		require.Positive(t, g.us, name)
		require.LessOrEqual(t, int(g.Shared), a.shared, name)
		rows := roundUp(ceilDiv(s.m, g.xBox), int(g.Cluster))
		require.EqualValues(t, 2*g.xBox+128, g.CTA[0], name)
		require.EqualValues(t, min(a.sms, rows*int(g.tiles)), g.Grid[0], name)
		if s.m <= foldedTokens {
			require.Equal(t, sameTokens(rows/int(g.Cluster), int(g.tiles), int(g.Grid[0]/g.Cluster), 8/int(g.Cluster)), g.sameTokens(s.m), name)
		}
	}
}

// sameTokens deals tiles out as Tiles of gemm_sm90.cu does, in groups of so many tiles of tokens: whether each cluster has those of the same tokens.
func sameTokens(rows, columns, clusters, group int) bool {
	row := func(at int) int {
		above := at / (group * columns) * group
		return above + (at-above*columns)%min(group, rows-above)
	}
	for cluster := range clusters {
		for at := cluster; at < rows*columns; at += clusters {
			if row(at) != row(cluster) {
				return false
			}
		}
	}
	return true
}

// TestPlanGemmStream: a cluster a tile, each of its CTAs with some of k; or whole tiles
// for all CTAs and pieces of the rest, for which partials and counters have room.
func TestPlanGemmStream(t *testing.T) {
	for _, a := range hoppers {
		checkStreamPlans(t, a)
	}
}

func checkStreamPlans(t *testing.T, a arch) {
	_, scratch := layoutGemmScratch(a.sms, 0)
	for _, s := range gemmShapes() {
		all := streamCandidates(s, a)
		require.Equal(t, s.m <= streamTokens, len(all) > 0, "%+v", s)
		for _, g := range all {
			name := fmt.Sprintf("%+v %s", s, g)
			var bn, mt int
			_, err := fmt.Sscanf(g.kernel, "gemm_stream_%d_%d", &bn, &mt)
			require.NoError(t, err, name)
			require.Equal(t, mt, g.xBox, name)
			require.Equal(t, 128, g.wBox, "BOX of gemm_stream.cu: %s", name)
			require.EqualValues(t, 288, g.CTA[0], name)
			require.LessOrEqual(t, roundUp(s.m, mt), roundUp(s.m, rowUnit), "rows that activations have: %s", name)
			require.LessOrEqual(t, int(g.Shared), a.shared, name)
			require.LessOrEqual(t, g.Cluster, uint32(8), "share adds up so many: %s", name)
			require.EqualValues(t, ceilDiv(s.n, bn), g.tiles, name)
			tiles, steps, ctas := int(g.tiles)*ceilDiv(s.m, mt), s.k/sm90Step, int(g.Grid[0])
			if g.per == 0 {
				require.Equal(t, tiles*int(g.Cluster), ctas, name)
				require.LessOrEqual(t, int(g.Cluster), min(8, steps), name)
				continue
			}
			require.EqualValues(t, 1, g.Cluster, name)
			require.LessOrEqual(t, ctas, a.sms, name)
			require.LessOrEqual(t, tiles%ctas*int(g.per), ctas, name)
			require.LessOrEqual(t, int(g.per), steps, name)
			require.LessOrEqual(t, int64(ctas)*int64(bn*mt*4)+maxCutTiles*4, scratch, name)
		}
	}
}

// TestPlanGemmWide: every step of every tile belongs to one CTA, as Parts deals them out; boxes
// are such as a tensor map may have; and what wgmma reads and what a tile leaves lies in
// shared memory, before the barriers.
func TestPlanGemmWide(t *testing.T) {
	for _, a := range hoppers {
		checkWidePlans(t, a)
	}
	require.NotEmpty(t, wideCandidates(gemmShape{m: wideMeasuredTokens, n: 1152, k: 896, kind: epilogueQKV}, hoppers[0], true))
}

func checkWidePlans(t *testing.T, a arch) {
	for _, s := range gemmShapes() {
		require.False(t, s.m > wideTokens && len(wideCandidates(s, a, false)) > 0, "%+v", s)
		all := wideCandidates(s, a, true)
		require.False(t, s.m > wideMeasuredTokens && len(all) > 0, "%+v", s)
		for _, g := range all {
			name, r := fmt.Sprintf("%+v %s", s, g), g.ring
			var bn, mt int
			_, err := fmt.Sscanf(g.kernel, "gemm_wide_%d_%d", &bn, &mt)
			require.NoError(t, err, name)
			require.EqualValues(t, ceilDiv(s.n, bn), g.tiles, name)
			require.Contains(t, []int{16, 32, 64, 128}, g.xBox, name)
			require.GreaterOrEqual(t, g.xBox, min(s.m, mt), name)
			require.LessOrEqual(t, g.xBox, mt, name)
			require.Zero(t, bn%g.wBox, name)
			require.True(t, g.wBox <= 256 && g.wBox%8 == 0, name)
			require.LessOrEqual(t, int(g.Shared), a.shared, name)
			panel := 2 * sm90Step
			barriers := int(g.Shared) - 1024 - 16*int(r.stages) - 32 - 4*mt
			if g.Cluster > 1 {
				barriers -= ceilDiv(min(s.m, mt), int(g.Cluster)) * int(g.Cluster) * bn * 4
			}
			last := ((int(r.stages)-1)*(g.xBox+bn)*int(r.panels) + (int(r.panels)-1)*g.xBox) * panel
			require.LessOrEqual(t, last+mt*panel, barriers, "tokens of the last panel: %s", name)
			require.LessOrEqual(t, int(r.stages)*(g.xBox+bn)*int(r.panels)*panel, barriers, name)
			ld := bn // of a tile's sums: 8 more than a multiple of 16
			if bn%16 == 0 {
				ld += 8
			}
			require.LessOrEqual(t, min(s.m, mt)*ld*4, barriers, name)
			require.GreaterOrEqual(t, r.stages, int32(1), name)
			covered(t, name, a.sms, g, int(g.tiles)*ceilDiv(s.m, mt), ceilDiv(s.k, int(r.panels)*sm90Step))
		}
	}
}

// covered deals the tiles out as Parts does.
func covered(t *testing.T, name string, sms int, g candidate, tiles, steps int) {
	ctas, cluster, times := int(g.Grid[0]), int(g.Cluster), make([]int, tiles)
	if g.per == 0 {
		require.LessOrEqual(t, cluster, min(8, steps), "each CTA has some of k: %s", name)
		require.Equal(t, tiles*cluster, ctas, name)
		return
	}
	require.EqualValues(t, 1, g.per, name)
	require.LessOrEqual(t, ctas, sms, name)
	for cta := range ctas {
		cut := tiles % ctas
		if cta < cut {
			times[cta]++
		}
		for tile := cut + cta; tile < tiles; tile += ctas {
			times[tile]++
		}
	}
	for tile, n := range times {
		require.Equal(t, 1, n, "tile %d: %s", tile, name)
	}
}

// TestPlanProduct: on Hopper, products of few tokens are those of a model's time.
func TestPlanProduct(t *testing.T) {
	for _, s := range gemmShapes() {
		g, ok := planProduct(s, archs[0])
		require.True(t, ok)
		if _, known := measuredWay(s, archs[0]); !known {
			require.Equal(t, s.m > 8, g.xBox > 0, "%+v", s)
		}
		s.invariant = true
		g, ok = planProduct(s, archs[0])
		require.True(t, ok)
		require.Equal(t, "gemm_mma", g.image)
	}
}

// TestMeasuredWays: each line of measured.tsv names a way that there is, which serves
// fewer tokens, too, down to the line before, on cards like that one, and not where bits may not
// depend on the number of tokens.
func TestMeasuredWays(t *testing.T) {
	require.NotEmpty(t, measured())
	for s, way := range measured() {
		a := archs[0]
		a.memory = map[string]float64{"h100": 3.352e12, "h200": 4.917e12}[s.card]
		require.NotZero(t, a.memory, s.card)
		i := slices.Index(measuredTokens, s.m)
		require.GreaterOrEqual(t, i, 0, "%+v", s)
		least := s.m // of the tokens that the way serves
		for i--; i >= 0; i-- {
			before := s
			if before.m = measuredTokens[i]; measured()[before] != "" {
				least = before.m + 1
				break
			}
		}
		for m := least; m <= s.m; m++ {
			like := s.gemmShape
			like.m = m
			c, ok := measuredWay(like, a)
			require.True(t, ok, "%+v: no way %s", like, way)
			require.Equal(t, way, c.String())
			plan, ok := planProduct(like, a)
			require.True(t, ok)
			require.Equal(t, c.productPlan, plan)
			like.invariant = true
			_, ok = measuredWay(like, a)
			require.False(t, ok)
		}
		other := a
		other.sms = 114
		_, ok := measuredWay(s.gemmShape, other)
		require.False(t, ok)
		other = a
		other.hopper = false
		_, ok = measuredWay(s.gemmShape, other)
		require.False(t, ok)
	}
}

// TestVariantsAreChosen: no kernel of the tables is there for nothing. Each is what some product
// of a model that fits a card, with its tokens, is planned with.
func TestVariantsAreChosen(t *testing.T) {
	left := map[string]bool{}
	for _, v := range skinnyVariants {
		if v.stages > 0 {
			left[v.kernel()] = true
		}
		if v.clusters {
			left[v.kernel()+clustersSuffix] = true
		}
	}
	for _, v := range streamVariants {
		left[v.kernel()] = true
	}
	for _, v := range wideVariants {
		left[v.kernel()] = true
	}
	for _, v := range sm90Variants {
		for _, end := range v.ends {
			left[v.kernel()+" "+string(end)] = true
		}
	}
	models := []kernels.Shape{ // 3B, 14B, 32B
		{Hidden: 2048, Intermediate: 11008, Heads: 16, KVHeads: 2, HeadDim: 128, Vocab: 151936},
		{Hidden: 5120, Intermediate: 13824, Heads: 40, KVHeads: 8, HeadDim: 128, Vocab: 152064},
		{Hidden: 5120, Intermediate: 27648, Heads: 40, KVHeads: 8, HeadDim: 128, Vocab: 152064},
	}
	for _, m := range trueShapes {
		models = append(models, m.shape)
	}
	h200 := archs[0]
	h200.memory = 4.917e12
	for _, a := range []arch{archs[0], h200, archs[1]} {
		for i := range models {
			for _, p := range productsOf(&models[i], 1) {
				for s := p.shape; s.m <= 8192; {
					plan, ok := planProduct(s, a)
					require.True(t, ok, "%+v", s)
					delete(left, plan.kernel)
					delete(left, plan.kernel+" "+string(s.kind))
					if plan.image != "gemm_skinny" { // a tile that is worth its while in one deal has the other, too
						delete(left, strings.TrimSuffix(strings.TrimSuffix(plan.kernel, clustersSuffix), tilesSuffix))
					}
					s.m++
					if s.m > streamTokens { // prompts
						s.m = roundUp(s.m, 64)
					}
				}
			}
		}
	}
	require.Empty(t, left)
}

// TestPlanGemmRefuses: widths that the kernels' 16-byte accesses do not cover.
func TestPlanGemmRefuses(t *testing.T) {
	for _, s := range []gemmShape{{m: 1, n: 257, k: 64}, {m: 1, n: 64, k: 72}, {m: 0, n: 64, k: 64}} {
		s.kind = epilogueStore
		_, ok := planGemm(s, archs[0])
		require.False(t, ok, "%+v", s)
	}
}
