//go:build cuda

package cuda

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

func TestPlanAttentionDecode(t *testing.T) {
	qwen, small := attentionShape{28, 4, 128}, attentionShape{14, 2, 64}
	d, ok := planAttentionDecode(qwen, archs[0], 256, 256)
	require.True(t, ok)
	require.EqualValues(t, 257*4, d.plan.Shared)
	for _, s := range []attentionShape{qwen, small} {
		for _, a := range slices.Concat(archs, hoppers) {
			for decodes := range 200 {
				d, ok := planAttentionDecode(s, a, decodes, 256)
				require.True(t, ok)
				each := int(d.layer.Grid[0]+uint32(a.sms)-1) / a.sms // CTAs a multiprocessor
				require.LessOrEqual(t, each*(int(d.layer.Shared)+1024), a.shared+1024, "all run at a time")
				require.True(t, a.hopper || d.layer.Cluster == 0)
				if d.layer.Cluster > 0 {
					require.Zero(t, d.layer.Grid[0]%d.layer.Cluster)
					require.GreaterOrEqual(t, d.layer.Grid[0]/d.layer.Cluster, uint32(s.kvHeads*decodes), "a cluster a unit")
				}
				require.True(t, decodes == 0 || d.layer.Grid[0] > 0)
			}
		}
	}
	type way struct {
		kernel                       string
		threads, tile, cluster, ctas int
	}
	wide, narrow, of64 := way{kernel: "attention_decode_128_wide", threads: 160, tile: 160}, way{kernel: "attention_decode_128", threads: 128, tile: 64}, way{kernel: "attention_decode_64", threads: 192, tile: 192}
	in := func(w way, cluster, ctas int) way {
		w.cluster, w.ctas = cluster, ctas
		if cluster > 0 {
			w.kernel += clustersSuffix
		}
		return w
	}
	h100, a100, small99 := archs[0], arch{sms: 108, shared: 163 << 10}, arch{sms: 128, shared: 99 << 10}
	for _, c := range []struct {
		s       attentionShape
		a       arch
		decodes int
		want    way
	}{
		{qwen, h100, 1, in(wide, 8, 112)}, {qwen, h100, 3, in(wide, 8, 112)}, {qwen, h100, 4, in(narrow, 8, 224)}, {qwen, h100, 7, in(narrow, 8, 224)},
		{qwen, h100, 8, in(narrow, 6, 222)}, {qwen, h100, 9, in(narrow, 6, 222)}, {qwen, h100, 10, in(wide, 2, 132)}, {qwen, h100, 16, in(wide, 2, 132)},
		{qwen, h100, 17, in(wide, 0, 132)}, {qwen, h100, 256, in(wide, 0, 132)}, {qwen, a100, 1, in(wide, 0, 108)}, {qwen, small99, 1, in(narrow, 0, 128)},
		{small, h100, 1, in(of64, 8, 224)}, {small, h100, 14, in(of64, 8, 224)}, {small, h100, 15, in(of64, 6, 222)}, {small, h100, 19, in(of64, 4, 240)},
		{small, h100, 31, in(of64, 3, 231)}, {small, h100, 66, in(of64, 2, 264)}, {small, h100, 67, in(of64, 0, 264)}, {small, a100, 1, in(of64, 0, 108)},
	} {
		d, _ := planAttentionDecode(c.s, c.a, c.decodes, 256)
		require.Equal(t, c.want, way{d.layer.kernel, int(d.layer.CTA[0]), d.tile, int(d.layer.Cluster), int(d.layer.Grid[0])}, "%v %v %d", c.s, c.a, c.decodes)
	}
	for _, s := range []attentionShape{{4, 2, 16}, {16, 1, 64}, {2, 1, 256}} {
		_, ok := planAttentionDecode(s, archs[0], 1, 256)
		require.False(t, ok, "%+v", s)
	}
	for _, s := range []attentionShape{qwen, small} {
		scratch, bytes := layoutDecodeScratch(s, archs[0].sms, 4096)
		require.EqualValues(t, 4096, scratch.plan.starts)
		require.GreaterOrEqual(t, bytes, int64(scratch.partials-4096)+(264+8)*128*(int64(s.headDim)/16+2)*4)
		require.GreaterOrEqual(t, int(scratch.partials-scratch.plan.starts), 2*16*264)
	}
}

// TestDecodesBehindTheirPlan: the plan is made beside the products before it, or behind what writes its
// batch; a step's first attention begins behind it, the others beside what is before them.
func TestDecodesBehindTheirPlan(t *testing.T) {
	a := attentionPlan{fresh: true}
	a.decodes, _ = planAttentionDecode(attentionShape{28, 4, 128}, archs[0], 256, 256)
	require.EqualValues(t, 1, a.decodes.plan.PDL)
	require.EqualValues(t, []uint32{0, 1, 1}, []uint32{a.nextDecodes().PDL, a.nextDecodes().PDL, a.nextDecodes().PDL})
	a.follow()
	require.Zero(t, a.decodes.plan.PDL)
}

// chunks are sequences of some query tokens each behind a context.
func chunks(spans ...[2]int) prefillBatch {
	b := prefillBatch{queryStart: []int32{5}, lens: []int32{}} // behind five decodes
	for i, s := range spans {
		b.queryStart = append(b.queryStart, b.queryStart[i]+int32(s[1]))
		b.lens = append(b.lens, int32(s[0]+s[1]))
	}
	return b
}

func TestPlanAttentionPrefill(t *testing.T) {
	qwen, long := attentionShape{28, 4, 128}, chunks([2]int{0, 1}, [2]int{0, 8191})
	p, ok := planAttentionPrefill(qwen, archs[0], long, false)
	require.True(t, ok)
	require.Equal(t, "attention_sm90_128", p.layer.kernel)
	require.Equal(t, 1+448, p.items)
	require.EqualValues(t, 132, p.layer.Grid[0], "a CTA a multiprocessor, item after item")
	few, ok := planAttentionPrefill(qwen, archs[0], chunks([2]int{0, 320}), false)
	require.True(t, ok)
	require.Equal(t, "attention_sm90_128", few.layer.kernel)
	require.EqualValues(t, 4*18, few.layer.Grid[0], "no more CTAs than items of a KV head")
	for _, s := range []attentionShape{qwen, {14, 2, 64}} {
		for _, a := range hoppers {
			p, ok := planAttentionPrefill(s, a, long, false)
			require.True(t, ok)
			require.LessOrEqual(t, int(p.layer.Shared), a.shared)
			require.Equal(t, prefillItems(long.queryStart, s.group(), p.rows), p.items, "the list is in the kernel's rows")
		}
	}
	for _, a := range archs[1:] {
		p, ok := planAttentionPrefill(qwen, a, long, false)
		require.True(t, ok)
		require.Equal(t, "attention_prefill_128", p.layer.kernel)
		require.EqualValues(t, 96<<10, p.layer.Shared)
		p, ok = planAttentionPrefill(qwen, a, long, true)
		require.True(t, ok)
		require.Equal(t, "attention_prefill_128_short", p.layer.kernel)
	}
	short, ok := planAttentionPrefill(qwen, archs[0], chunks([2]int{0, 90}), false)
	require.True(t, ok)
	require.Equal(t, "attention_prefill_128_short", short.layer.kernel)
	require.EqualValues(t, 4*10, short.layer.Grid[0])
	require.Zero(t, short.per, "two tiles of keys")
	for _, s := range []attentionShape{{4, 2, 16}, {2, 1, 256}} {
		_, ok := planAttentionPrefill(s, archs[0], long, false)
		require.False(t, ok, "%+v", s)
	}
}

// TestPlanAttentionPieces: a short chunk behind a long context fills the card.
func TestPlanAttentionPieces(t *testing.T) {
	for _, c := range []struct {
		name  string
		batch prefillBatch
		rows  int // of a tile
		least int // CTAs, of 264
	}{
		{"4,096 cached", chunks([2]int{4080, 16}), prefillShort, 256},
		{"30,000 cached", chunks([2]int{29990, 9}), prefillShort, 230},
		{"one token", chunks([2]int{30000, 1}), prefillShort, 230},
		{"several", chunks([2]int{4080, 16}, [2]int{9000, 3}, [2]int{0, 5}), prefillShort, 220},
		{"256 tokens", chunks([2]int{29984, 256}), prefillRows, 220},
	} {
		p, ok := planAttentionPrefill(attentionShape{28, 4, 128}, archs[0], c.batch, false)
		require.True(t, ok)
		require.Equal(t, c.rows, p.rows, c.name)
		require.Equal(t, strings.Replace(p.layer.kernel, "prefill", "prefill_merge", 1), p.merge.kernel, c.name)
		require.Equal(t, p.layer.Grid, p.merge.Grid, c.name)
		require.GreaterOrEqual(t, int(p.layer.Grid[0]), c.least, c.name)
		require.LessOrEqual(t, int(p.layer.Grid[0]), 264, c.name)
	}
	known := chunks([2]int{4080, 16})
	for name, plan := range map[string]func() (prefillPlan, bool){
		"bits must not depend on the batch": func() (prefillPlan, bool) {
			return planAttentionPrefill(attentionShape{28, 4, 128}, archs[0], known, true)
		},
		"lengths of a graph": func() (prefillPlan, bool) {
			return planAttentionPrefill(attentionShape{28, 4, 128}, archs[0], prefillBatch{queryStart: known.queryStart}, false)
		},
	} {
		p, ok := plan()
		require.True(t, ok)
		require.Zero(t, p.per, name)
		require.EqualValues(t, 4*2, p.layer.Grid[0], name)
	}
}

// TestPlanAttentionPiecesFit: whatever the batch, the grid is that of the items that
// attention_prefill_plan makes, and what they leave has room.
func TestPlanAttentionPiecesFit(t *testing.T) {
	const maxTokens, maxSeqs = 8192, 64
	rng, cut := rand.New(rand.NewPCG(1, 2)), 0
	for range 3000 {
		s := attentionShape{headDim: 64 << rng.IntN(2), kvHeads: 1 + rng.IntN(8)}
		s.heads = s.kvHeads * (1 + rng.IntN(9))
		var spans [][2]int
		for range 1 + rng.IntN(1<<rng.IntN(6)) {
			spans = append(spans, [2]int{rng.IntN(1 << rng.IntN(17)), 1 + rng.IntN(1<<rng.IntN(7))})
		}
		a, b := archs[rng.IntN(len(archs))], chunks(spans...)
		p, ok := planAttentionPrefill(s, a, b, false)
		require.True(t, ok)
		items, longest := 0, 0
		for _, c := range spans { // the kernel's arithmetic
			for first := 0; first < c[1]*s.group(); first += p.rows {
				last := c[0] + (min(first+p.rows, c[1]*s.group())-1)/s.group()
				tiles, pieces := last/64+1, 1
				if p.per > 0 {
					pieces = ceilDiv(tiles, p.per)
				}
				items, longest = items+pieces, max(longest, ceilDiv(tiles, pieces))
			}
		}
		require.Equal(t, items, p.items, "%+v %v", s, spans)
		ctas := items * s.kvHeads
		if p.sm90 { // take one item after the other
			ctas = min(ctas, a.sms)
		}
		require.EqualValues(t, ctas, p.layer.Grid[0])
		scratch, bytes := layoutPrefillScratch(s, maxTokens, maxSeqs, a.sms, 0)
		require.LessOrEqual(t, int64(scratch.items)+16*int64(items), bytes)
		if p.per == 0 {
			require.Empty(t, p.merge.kernel)
			continue
		}
		cut++
		require.LessOrEqual(t, longest, p.per)
		require.LessOrEqual(t, int(scratch.partials)+items*s.kvHeads*p.rows*(s.headDim+2)*4, int(scratch.items))
	}
	require.Greater(t, cut, 300)
}

// TestAttentionPieces compares what a GPU makes of long contexts in pieces, twice, with the
// simple kernel's.
func TestAttentionPieces(t *testing.T) {
	want := map[string][]float32{}
	for _, path := range paths(t) { // the plain one first
		for _, model := range []trueShape{trueShapes[0], trueShapes[2]} {
			for name, spans := range map[string][][2]int{
				"16":    {{29984, 16}},
				"64":    {{29936, 64}},
				"mixed": {{20000, 1}, {29000, 1}, {9000, 33}, {0, 70}, {29990, 2}, {4095, 17}},
			} {
				t.Run(path+"/"+model.name+"/"+name, func(t *testing.T) {
					m := newAttention(t, path, model.full(), len(spans))
					first := m.run(t, spans)
					require.Equal(t, first, m.run(t, spans), "the same bits again")
					if path == pathPlain || want[model.name+name] == nil {
						want[model.name+name] = first
						return
					}
					difference, norm := 0.0, 0.0
					for i, w := range want[model.name+name] {
						difference += math.Pow(float64(first[i]-w), 2)
						norm += math.Pow(float64(w), 2)
					}
					require.Positive(t, norm)
					require.Less(t, math.Sqrt(difference/norm), 6e-3)
				})
			}
		}
	}
}

// attentionOnly is a backend of one layer whose pool has random numbers.
type attentionOnly struct{ *Backend }

func newAttention(t *testing.T, path string, s kernels.Shape, seqs int) attentionOnly {
	const length = 30000
	m := attentionOnly{newBackend(t, Config{Path: path})}
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	s.Layers, s.Vocab = 1, 1000
	limits := kernels.Limits{MaxBatchedTokens: 256, MaxSeqs: seqs, MaxModelLen: length, MaxLogitRows: seqs, BlockSize: 16}
	require.NoError(t, m.Setup(s, limits, limits))
	per := ceilDiv(length, 16)
	require.NoError(t, m.ResizePool(1+per*seqs, 0))
	m.fillPool(1)
	for row := range seqs {
		u := kernels.RowUpdate{Row: int32(row), Reset: true, Sampling: kernels.Sampling{Logprobs: -1}}
		for i := range per {
			u.Blocks = append(u.Blocks, int32(1+i*seqs+row))
		}
		m.UpdateRows([]kernels.RowUpdate{u})
	}
	return m
}

// fillPool gives all blocks, which lie one behind the other, random numbers up to scale: weights of 64 columns are rows
// without gaps.
func (b *Backend) fillPool(scale float32) {
	rows := int(int64(b.pool.blocks) * b.pool.kv.block / panelColumns)
	fill := loadTo(b.pool.kv.base, 0, panelColumns).dummies(rows, 7, scale, 0)
	b.launch("test", planLoad(rows, panelColumns), unsafe.Pointer(&fill))
}

// run is the attention of the spans {context, query tokens} for random queries.
func (m attentionOnly) run(t *testing.T, spans [][2]int) []float32 {
	b := &kernels.Batch{QueryStart: []int32{0}}
	for row, s := range spans {
		b.Tokens = append(b.Tokens, make([]int32, s[1])...)
		b.Rows = append(b.Rows, int32(row))
		b.QueryStart = append(b.QueryStart, int32(len(b.Tokens)))
		b.SeqLens = append(b.SeqLens, int32(s[0]+s[1]))
		if s[1] == 1 && b.NumDecodes == row {
			b.NumDecodes++
		}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	query := make([]float32, len(b.Tokens)*m.shape.Width(kernels.Query))
	for i := range query {
		query[i] = float32(rng.NormFloat64())
	}
	m.WriteActivation(kernels.Query, query)
	m.Launch(b, func() { m.PagedAttention(0) })
	_, err := m.Wait(m.Sample(&kernels.SampleBatch{}))
	require.NoError(t, err)
	return m.ReadActivation(kernels.Attn, len(b.Tokens))
}
