//go:build cuda

package cuda

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPlanGemmSkinnyClusters: a CTA of a cluster has a share of its tile's runs of k, its ring
// a stage at least and no more than its warps use, and those that are to share a multiprocessor
// have room for it.
func TestPlanGemmSkinnyClusters(t *testing.T) {
	names := map[string]bool{}
	for _, a := range hoppers {
		for _, s := range gemmShapes() {
			for _, g := range skinnyClusters(s, a) {
				name := fmt.Sprintf("%+v %s", s, g)
				names[g.String()] = true
				var bn, mt int
				_, err := fmt.Sscanf(g.String(), "skinny_%d_%d", &bn, &mt)
				require.NoError(t, err, name)
				require.LessOrEqual(t, s.m, mt, name)
				require.LessOrEqual(t, bn*mt/8, 128, "a group a thread: %s", name)
				require.Zero(t, g.per, name)
				require.EqualValues(t, ceilDiv(s.n, bn), g.tiles, name)
				require.EqualValues(t, int(g.tiles)*int(g.Cluster), g.Grid[0], name)
				require.Less(t, int(g.Grid[0]), skinnyRuns, name)
				runs := ceilDiv(s.k, 2048/bn)
				require.LessOrEqual(t, int(g.Cluster), runs, "each CTA has some of k: %s", name)
				require.Less(t, runs, skinnyRuns, name)
				longest := ceilDiv(ceilDiv(runs, int(g.Cluster)), 4) // share of a warp
				head, stage := 128+bn/8*(mt+8)*32, 4*(4096+2*mt*2048/bn)
				require.Zero(t, head%128, name)
				require.LessOrEqual(t, 128+ceilDiv(s.m, int(g.Cluster))*int(g.Cluster)*bn/8*32, head, "room for sums: %s", name)
				require.Zero(t, (int(g.Shared)-head)%stage, name)
				stages := (int(g.Shared) - head) / stage
				require.True(t, stages >= 1 && stages <= longest, "%d stages: %s", stages, name)
				room := a.shared
				if int(g.Grid[0]) > a.sms {
					room = room/2 - 512
				}
				require.LessOrEqual(t, int(g.Shared), room, name)
			}
		}
	}
	require.True(t, names["skinny_16_8 c4"] && names["skinny_32_16 c8"] && names["skinny_32_32 c4"], "%v", names)
	require.Empty(t, skinnyClusters(gemmShape{m: 1, n: 896, k: 896, invariant: true}, archs[0]))
	require.Empty(t, skinnyClusters(gemmShape{m: 33, n: 896, k: 896}, archs[0]))
	require.Empty(t, skinnyClusters(gemmShape{m: 1, n: 896, k: 896}, archs[1]), "not on an A100")
}

// TestNormedLaunch: in a step of one token gate_up makes its norm, whatever the card, and qkv on those
// that were measured, but for the 7B's, for which some have another kernel; the row that it reads has room, and the ring keeps its stages.
func TestNormedLaunch(t *testing.T) {
	for _, a := range slices.Concat(archs, hoppers) {
		for _, model := range trueShapes {
			width := model.shape.Hidden
			for _, p := range productsOf(&model.shape, 1) {
				plan, ok := planProduct(p.shape, a)
				require.True(t, ok)
				l, ok := normedLaunch(plan.gemmPlan, p.shape, width)
				name := fmt.Sprintf("%+v %s %s", a, model.name, p.name)
				require.True(t, ok || p.name != "gate_up" || model.name == "7b", name)
				require.True(t, ok || p.name != "qkv" || model.name == "7b" || a.sms != measuredSMs, name)
				if !ok {
					continue
				}
				require.True(t, p.name == "qkv" || p.name == "gate_up", name)
				var bn, most int
				_, err := fmt.Sscanf(l.kernel, "gemm_skinny_%d_8_normed_%d", &bn, &most)
				require.NoError(t, err, name)
				require.LessOrEqual(t, width, most, name)
				require.Greater(t, 2*width, most, "a smaller one does not do: %s", name)
				require.Equal(t, strings.HasSuffix(plan.kernel, clustersSuffix), strings.HasSuffix(l.kernel, clustersSuffix), name)
				require.Equal(t, plan.Grid, l.Grid, name)
				require.LessOrEqual(t, int(l.Shared), a.shared, name)
				if l.Cluster == 0 {
					require.Equal(t, plan.Shared, l.Shared, "as many on a multiprocessor: %s", name)
					require.GreaterOrEqual(t, int(l.Shared), 2*width+(3+bn/16)*4*4096, "the row and the ring: %s", name)
					continue
				}
				head := 128 + bn/8*(8+8)*32
				require.Zero(t, (int(l.Shared)-head-2*width)%(4*4096), name) // these widths are whole runs
				require.Equal(t, (int(plan.Shared)-head)/(4*(4096+2*8*2048/bn)), (int(l.Shared)-head-2*width)/(4*4096), "stages: %s", name)
			}
		}
	}
	qkv := gemmShape{m: 1, n: 1152, k: 896, kind: epilogueQKV}
	plan, _ := planProduct(qkv, archs[0])
	_, ok := normedLaunch(plan.gemmPlan, qkv, 890)
	require.False(t, ok, "a row with padding")
	qkv.m = 2
	_, ok = normedLaunch(plan.gemmPlan, qkv, 896)
	require.False(t, ok)
	half := gemmShape{m: 1, n: 1600, k: 960, kind: epilogueQKV} // the last run of 128 columns is half one
	plan, _ = planProduct(half, archs[1])
	require.Equal(t, "gemm_skinny_16_8", plan.kernel)
	l, ok := normedLaunch(plan.gemmPlan, half, 960)
	require.True(t, ok)
	require.GreaterOrEqual(t, int(l.Shared), 2*1024+4*4*4096, "the row and the ring")
}

// TestOver: how kernels divide by the size of a cluster is right up to where they do.
func TestOver(t *testing.T) {
	for size := 1; size <= 8; size++ {
		for x := range 8192 + 1 {
			require.Equal(t, x/size, x*(65536/size+1)>>16, "%d over %d", x, size)
		}
	}
}
