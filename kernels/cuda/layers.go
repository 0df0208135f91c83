//go:build cuda

package cuda

import (
	"slices"
	"unsafe"

	"github.com/pagoda-engine/pagoda/kernels"
)

// layerWeights is LayerWeights.
type layerWeights struct {
	maps  [products]tensorMap
	norms [2]ptr
	bias  ptr
	_     [5]int64
}

// layersPart is Share: with the panels of a stage of the ring.
type layersPart struct {
	layersShare
	per int32
}

// layersParams is LayersParams.
type layersParams struct {
	layers                             ptr
	batch                              batchPtrs
	e                                  epilogue
	hidden, words, epoch               ptr
	shares                             [products]layersPart
	count, width, intermediate, pieces int32
	stages, stage, row, normed         int32
	pace                               uint32
	eps, scale, inverse                float32
}

var (
	_ [layerWeightsBytes]byte = [unsafe.Sizeof(layerWeights{})]byte{}
	_ [408]byte               = [unsafe.Sizeof(layersParams{})]byte{}
)

const (
	layersWarps = 8
	layersStage = 16 << 10 // bytes of a stage of the ring, at least
	layersBoxes = 2        // copies that fill one
	layersPace  = 4000     // clocks from one to the next, at most

	// layersMemory is the shared memory of a CTA behind its ring, but for its row and hidden: of attention, and Memory.
	layersMemory = layersWarps*16*layersHeadDim*4 + 3936
)

// planLayers is the launch of layers.cu, with the parameters that depend on the shape alone; ok is false where it does
// not take the shape.
func planLayers(s kernels.Shape, a arch) (l launch, p layersParams, ok bool) {
	if !a.hopper || !layersTake(s, a.sms) {
		return launch{}, layersParams{}, false
	}
	for i, share := range layersShares(s, a.sms) {
		p.shares[i].layersShare = share
	}
	panel := func(share layersPart) int { return int(share.rows) * panelColumns * 2 } // bytes
	longest := panel(slices.MaxFunc(p.shares[:], func(x, y layersPart) int { return int(x.rows - y.rows) }))
	stage := roundUp(longest*roundUp(ceilDiv(layersStage, longest), layersBoxes), 1024)
	for i := range p.shares {
		share := &p.shares[i]
		share.per = int32(min(stage/panel(*share)/layersBoxes*layersBoxes, roundUp(int(share.panels), layersBoxes)))
	}
	row, normed := roundUp(2*stride(max(s.Intermediate, s.Hidden, s.Heads*s.HeadDim)), 128), roundUp(4*s.Hidden, 128)
	rest := layersMemory + row + normed
	stages := (a.shared - rest) / (stage + 16) // and its barriers
	if stages < 2 {
		return launch{}, layersParams{}, false
	}
	l = grid("layers", "layers", a.sms, 1, (layersWarps+4)*32).overlapped()
	l.Shared = uint32(rest + stages*(stage+16))
	p.count, p.width, p.intermediate, p.pieces = int32(s.Layers), int32(s.Hidden), int32(s.Intermediate), int32(layersPieces(s, a.sms))
	p.stages, p.stage, p.row, p.normed = int32(stages), int32(stage), int32(row), int32(normed)
	// Asked for faster than memory gives it, what is on its way is in the way of all that the CTAs wait for.
	if a.memory > 0 { // 0: the driver does not say
		p.pace = uint32(min(float64(stage/layersBoxes)*float64(a.sms)/a.memory*a.clock, layersPace))
	}
	p.eps, p.scale, p.inverse = s.RMSEps, shapeOfHeads(s).scale(), 1/float32(s.Hidden)
	return l, p, true
}

// layerOp is an operation of a decoder's layer.
type layerOp int

const (
	layerNorm layerOp = iota
	layerQKV
	layerAttention
	layerOut
	layerGateUp
	layerDown
)

// layerOps are those of a layer, in order.
var layerOps = [...]layerOp{layerNorm, layerQKV, layerAttention, layerOut, layerNorm, layerGateUp, layerDown}

// layersRun is what a step of one token leaves to layers.cu: its operations, until the head, before which all are one
// launch. In another order, or fewer, they are issued as they came.
type layersRun struct {
	on      bool
	weights []kernels.Weight // of the operations so far; nil of attention
	table   []kernels.Weight // of what the table on the device was made
	plan    launch
	params  layersParams
}

// beginLayers lets the layers of this step come together, if it is a decode of one sequence. A profile, and whoever
// looks at activations, has the operations one by one.
func (b *Backend) beginLayers() {
	r := &b.layers
	r.weights = r.weights[:0]
	r.on = r.plan.kernel != "" && b.run.tokens == 1 && b.run.decodes && b.run.logits == 1 &&
		!b.limits.BatchInvariant && !b.cfg.apart && b.tap == nil && b.omit == ""
	if r.on && b.profiler.fn != nil {
		r.on = false
		b.profiler.note("decode steps of one sequence ran operation by operation, not as one launch for all layers: they take longer than without the profiler")
	}
}

// later leaves an operation to layers.cu, if it is the one that comes next.
func (b *Backend) later(op layerOp, layer int, w kernels.Weight) bool {
	r := &b.layers
	if !r.on {
		return false
	}
	n := len(r.weights)
	if n == len(layerOps)*b.shape.Layers || op != layerOps[n%len(layerOps)] || layer != n/len(layerOps) {
		b.endLayers()
		return false
	}
	r.weights = append(r.weights, w)
	return true
}

// layerAt is the layer of the operation that comes next, for those that do not say.
func (b *Backend) layerAt() int { return len(b.layers.weights) / len(layerOps) }

// endLayers issues what was left to layers.cu: as one launch, if that is all layers.
func (b *Backend) endLayers() {
	r := &b.layers
	if !r.on {
		return
	}
	r.on = false
	if len(r.weights) == len(layerOps)*b.shape.Layers && b.makeTable() {
		b.launchLayers()
		return
	}
	for i, w := range r.weights {
		layer := i / len(layerOps)
		switch layerOps[i%len(layerOps)] {
		case layerNorm:
			b.RMSNorm(w)
		case layerQKV:
			b.QKV(layer, w)
		case layerAttention:
			b.PagedAttention(layer)
		case layerOut:
			b.Linear(w, kernels.Attn)
		case layerGateUp:
			b.GateUp(w)
		case layerDown:
			b.Linear(w, kernels.MLP)
		}
	}
}

// makeTable brings the table of weights to the device, once, and says whether it is there: while a graph is captured
// it cannot be brought.
func (b *Backend) makeTable() bool {
	r := &b.layers
	if slices.Equal(r.table, r.weights) {
		return true
	}
	if b.profiler.state == capturing || b.err != nil {
		return false
	}
	table := make([]layerWeights, b.shape.Layers)
	for i := range table {
		var norms, linears []*weight
		for j, op := range layerOps {
			w, _ := r.weights[i*len(layerOps)+j].(*weight) // operand checked it
			switch op {
			case layerNorm:
				norms = append(norms, w)
			case layerAttention:
			default:
				linears = append(linears, w)
			}
		}
		for product, w := range linears {
			share := r.params.shares[product]
			table[i].maps[product] = b.panelsOf(kernels.OpLinear, w.tiles(int(share.rows), int(share.per/layersBoxes)))
		}
		table[i].norms, table[i].bias = [2]ptr{norms[0].data, norms[1].data}, linears[productQKV].bias
	}
	b.fail("layers", b.compute.ToDevice(b.ws.layers.table, unsafe.Pointer(&table[0]), len(table)*int(unsafe.Sizeof(table[0])))) // staged by the driver
	r.table = slices.Clone(r.weights)
	return b.err == nil
}

func (b *Backend) launchLayers() {
	s, p := &b.shape, b.layers.params
	p.layers, p.batch, p.hidden, p.words, p.epoch = b.ws.layers.table, b.ws.batch, b.ws.hidden, b.ws.layers.words, b.ws.layers.epoch
	p.e = epilogue{
		rows: 1, cols: p.shares[productQKV].cols, heads: int32(s.Heads), kvHeads: int32(s.KVHeads), headDim: int32(s.HeadDim),
		rope: b.ws.rope, positions: b.ws.batch.positions, slots: b.ws.batch.slots, kv: b.pool.kv,
	}
	b.launch("layers", b.layers.plan, unsafe.Pointer(&p))
}
