//go:build cuda

package cuda

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// TestLayers: one launch for all layers of a single token gives what operations one by one give, and leaves the same keys
// and values: the next token is computed one by one. Contexts are around the sizes of blocks, steps and pieces, keys and
// values so large that few tokens have most of the weight; what lies behind the context's end, NaNs, is not looked at.
func TestLayers(t *testing.T) {
	const most = 20480
	small := trueShape{"135m", kernels.Shape{Hidden: 576, Intermediate: 1536, Heads: 9, KVHeads: 3, HeadDim: 64}, true} // SmolLM2
	for _, model := range []trueShape{trueShapes[0], small} {
		for _, blockSize := range []int{16, 64} {
			t.Run(fmt.Sprintf("%s/blocks_of_%d", model.name, blockSize), func(t *testing.T) {
				paths(t)
				shape := model.full()
				shape.Layers, shape.Vocab = 3, 4096
				b := newBackend(t, Config{Path: *forcePath, Eager: true}) // a graph would be of whichever came first
				defer func() { require.NoError(t, b.Close()) }()
				if !b.arch.hopper {
					t.Skip("no kernel of this path makes all layers")
				}
				limits := kernels.Limits{MaxBatchedTokens: 64, MaxSeqs: 2, MaxModelLen: most, MaxLogitRows: 2, BlockSize: blockSize, MaxTopLogprobs: 1}
				require.NoError(t, b.Setup(shape, limits, limits))
				require.NoError(t, b.ResizePool(1+most/blockSize, 0))
				m := loadTrue(t, b, shape, model.tied)
				m.resetRows(1, most/blockSize)
				step := func(length int, apart bool) []float32 {
					b.cfg.apart = apart
					batch, _ := m.spans(1, length-1, 1)
					b.Launch(batch, m.pass)
					_, err := b.Wait(b.Sample(&kernels.SampleBatch{}))
					require.NoError(t, err)
					return b.ReadActivation(kernels.Logits, 1)
				}
				for _, length := range []int{1, 2, 15, 16, 17, 127, 128, 129, 1000, 1184, 8448, 8449, 8464, most - 1} {
					var logits [2][]float32
					b.layers.table = nil
					for side := range logits {
						b.fillPool(4)
						b.poison(t, length-1)
						logits[side] = slices.Concat(step(length, side == 0), step(length+1, true))
					}
					require.Len(t, b.layers.table, len(layerOps)*shape.Layers)
					for i, v := range logits[0] {
						require.False(t, math.IsNaN(float64(v)))
						require.InDelta(t, v, logits[1][i], 0.15, "%d tokens, logit %d of the token and the next", length, i)
					}
				}
			})
		}
	}
}

// poison makes NaNs of row 0's keys and values from a position on to the end of its block, and of those of the next.
func (b *Backend) poison(t *testing.T, position int) {
	kv, nans := b.pool.kv, make([]uint16, b.shape.HeadDim)
	for i := range nans {
		nans[i] = 0x7FFF
	}
	size := int(kv.blockSize)
	for end := min(roundUp(position+1, size)+size, b.limits.MaxModelLen); position < end; position++ {
		at := int64(1+position/size)*kv.block + int64(position%size)*kv.token
		for layer := range b.shape.Layers {
			for head := range b.shape.KVHeads {
				for _, value := range []int64{0, kv.value} {
					to := kv.base + ptr(2*(at+int64(layer)*kv.layer+int64(head)*kv.head+value))
					require.NoError(t, b.compute.ToDevice(to, unsafe.Pointer(&nans[0]), 2*len(nans)))
				}
			}
		}
	}
}

// TestLayersInOtherOrder: a pass that is no decoder's, or ends early, is issued as it came.
func TestLayersInOtherOrder(t *testing.T) {
	paths(t)
	shape := trueShapes[0].full()
	shape.Layers, shape.Vocab = 2, 512
	b := newBackend(t, Config{Path: *forcePath, Eager: true})
	defer func() { require.NoError(t, b.Close()) }()
	limits := kernels.Limits{MaxBatchedTokens: 8, MaxSeqs: 1, MaxModelLen: 64, MaxLogitRows: 1, BlockSize: 16, MaxTopLogprobs: 1}
	require.NoError(t, b.Setup(shape, limits, limits))
	require.NoError(t, b.ResizePool(8, 0))
	m := loadTrue(t, b, shape, true)
	m.resetRows(1, 4)
	mlp := func(layer int) {
		m.RMSNorm(m.norms[layer][1])
		m.GateUp(m.layers[layer][2])
		m.Linear(m.layers[layer][3], kernels.MLP)
	}
	attention := func(layer int) {
		m.RMSNorm(m.norms[layer][0])
		m.QKV(layer, m.layers[layer][0])
		m.PagedAttention(layer)
		m.Linear(m.layers[layer][1], kernels.Attn)
	}
	for name, layers := range map[string]func(){
		"MLPs first":    func() { mlp(0); attention(0); mlp(1); attention(1) },
		"one layer":     func() { attention(0); mlp(0) },
		"without MLPs":  func() { attention(0); attention(1) },
		"a layer twice": func() { attention(0); mlp(0); attention(0); mlp(0) },
	} {
		var logits [2][]float32
		for side := range logits {
			b.cfg.apart = side == 0
			batch, _ := m.spans(1, 0, 1)
			b.Launch(batch, func() { m.Embed(m.embedding); layers(); m.Head(m.final, m.head) })
			_, err := b.Wait(b.Sample(&kernels.SampleBatch{}))
			require.NoError(t, err)
			logits[side] = b.ReadActivation(kernels.Logits, 1)
		}
		require.Equal(t, logits[0], logits[1], name)
		require.Empty(t, b.layers.table, name)
	}
}

// TestPlanLayers: the CTAs' shares are all rows of each product, a stage holds its boxes, and what does not fit one CTA
// a multiprocessor is not taken.
func TestPlanLayers(t *testing.T) {
	hopper := arch{sms: 132, shared: 227 << 10, hopper: true, memory: 3.35e12, clock: 1.98e9}
	for _, a := range []arch{hopper, {sms: 114, shared: 227 << 10, hopper: true, memory: 2e12, clock: 1.7e9}} {
		for _, s := range []kernels.Shape{trueShapes[0].full(), small()} {
			l, p, ok := planLayers(s, a)
			if a.sms == 114 && s.Hidden > 512 {
				require.False(t, ok, "88 rows of gate_up a CTA")
				continue
			}
			require.True(t, ok)
			require.EqualValues(t, a.sms, l.Grid[0])
			require.LessOrEqual(t, int(l.Shared), a.shared)
			require.Greater(t, 2*int(l.Shared), a.shared, "two CTAs of a multiprocessor")
			require.Positive(t, p.pace)
			for product, share := range p.shares {
				require.GreaterOrEqual(t, a.sms*int(share.rows), int(share.cols), product)
				require.Less(t, (int(share.cols)-1)/int(share.rows), a.sms, product)
				require.LessOrEqual(t, int(share.per*share.rows)*2*panelColumns, int(p.stage), product)
				require.Zero(t, share.per%layersBoxes, product)
			}
			require.Equal(t, p.shares[productOut].rows, p.shares[productDown].rows, "a thread's element of the residual stream")
			require.Zero(t, p.shares[productQKV].rows%2)
			require.Zero(t, p.shares[productGateUp].rows%4)
			require.Zero(t, p.stage%1024)
		}
	}
	generic := hopper
	generic.hopper = false
	_, _, ok := planLayers(trueShapes[0].full(), generic)
	require.False(t, ok)
	for _, model := range trueShapes[1:] {
		_, _, ok := planLayers(model.full(), hopper)
		require.False(t, ok, model.name)
	}
	per, bytes := layoutLayersScratch(trueShapes[0].full(), 132, 0)
	require.Greater(t, int64(per.words), int64(per.epoch))
	require.Less(t, bytes, int64(4<<20))
	_, bytes = layoutLayersScratch(trueShapes[2].full(), 132, 0)
	require.Zero(t, bytes)
}
