//go:build cuda

package cuda

import (
	"math"
	"unsafe"

	"github.com/pagoda-engine/pagoda/kernels"
)

// attentionPlan is how a step's attention is split among kernels: decodes, then
// prefill chunks; all by the plain kernel where neither takes the heads.
type attentionPlan struct {
	plain           bool
	decode, prefill bool
	prefills        prefillPlan
	withDecodes     bool // the prefill kernel takes the decodes, too
	decodes         decodeAttention
	fresh           bool // the next attention is the first
}

// follow makes the plans, which else are made beside the products before them, begin when all
// has ended: keep_logit_rows writes the batch.
func (a *attentionPlan) follow() { a.decodes.plan.PDL, a.prefills.plan.PDL = 0, 0 }

// nextDecodes is the launch of the next layer's decodes. The first begins behind its plan, which it
// reads without waiting, as it does the keys and values of all tokens but the last of each sequence: a
// whole chunk of them, where keep_logit_rows went before.
func (a *attentionPlan) nextDecodes() launch {
	l := a.decodes.layer
	if a.fresh {
		a.fresh, l.PDL = false, 0
	}
	return l
}

// planAttention chooses for a step of the sequences. lens is nil where a graph is captured.
func (b *Backend) planAttention(queryStart, lens []int32, decodes int) {
	a := &b.run.attention
	*a = attentionPlan{plain: true}
	shape, invariant := shapeOfHeads(b.shape), b.limits.BatchInvariant
	seqs := len(queryStart) - 1
	if b.info.Path == pathPlain || seqs == 0 {
		return
	}
	var ok bool
	a.decodes, ok = planAttentionDecode(shape, b.arch, decodes, b.limits.MaxSeqs)
	a.withDecodes = invariant || !ok
	first := decodes
	if a.withDecodes {
		first = 0
	}
	if first < seqs {
		prefills := prefillBatch{queryStart: queryStart[first:]}
		if lens != nil {
			prefills.lens = lens[first:]
		}
		if a.prefills, a.prefill = planAttentionPrefill(shape, b.arch, prefills, invariant); !a.prefill {
			return
		}
	}
	a.plain, a.decode, a.fresh = false, !a.withDecodes && decodes > 0, true
}

// planOnDevice issues what attention's kernels need once a step, before the first of them: plans
// that are made while the products before them still run.
func (b *Backend) planOnDevice() {
	shape, a := shapeOfHeads(b.shape), &b.run.attention
	if a.decode {
		p := decodePlanParams{
			batch: b.ws.batch, plan: b.ws.decode.plan, kvHeads: int32(shape.kvHeads), grid: int32(a.decodes.layer.Grid[0]), cluster: int32(a.decodes.layer.Cluster),
			tile: int32(a.decodes.tile),
		}
		b.launch(kernels.OpAttention, a.decodes.plan, unsafe.Pointer(&p))
	}
	if a.prefill {
		p := prefillPlanParams{
			batch: b.ws.batch, header: b.ws.prefill.header, items: b.ws.prefill.items,
			group: int32(shape.group()), rows: int32(a.prefills.rows), per: int32(a.prefills.per),
		}
		if a.withDecodes {
			p.decodes = 1
		}
		b.launch(kernels.OpAttention, a.prefills.plan, unsafe.Pointer(&p))
	}
}

// attention runs the attention of the step in the layer.
func (b *Backend) attention(layer int) {
	shape, a := shapeOfHeads(b.shape), &b.run.attention
	ld := int64(stride(b.shape.Heads * b.shape.HeadDim))
	if a.plain {
		p := attentionPlainParams{
			query: b.ws.query, attn: b.ws.attn, ld: ld, batch: b.ws.batch, kv: b.pool.kv,
			layer: int32(layer), heads: int32(shape.heads), kvHeads: int32(shape.kvHeads), headDim: int32(shape.headDim),
			scale: float32(1 / math.Sqrt(float64(shape.headDim))), tokens: int32(b.run.tokens),
		}
		b.launch(kernels.OpAttention, planAttentionPlain(b.run.tokens, shape.heads), unsafe.Pointer(&p))
		return
	}
	decodes := a.nextDecodes()
	if a.decode {
		p := decodeParams{
			query: b.ws.query, out: b.ws.attn, kv: b.pool.kv, tables: b.ws.batch.tables, plan: b.ws.decode.plan,
			partials: b.ws.decode.partials, ld: ld, layer: int32(layer), kvHeads: int32(shape.kvHeads),
			group: int32(shape.group()), scale: shape.scale(),
		}
		b.launch(kernels.OpAttention, decodes, unsafe.Pointer(&p))
	}
	if a.prefill {
		p := prefillParams{
			query: b.ws.query, out: b.ws.attn, kv: b.pool.kv, batch: b.ws.batch, header: b.ws.prefill.header, items: b.ws.prefill.items,
			partials: b.ws.prefill.partials, ld: ld, layer: int32(layer), kvHeads: int32(shape.kvHeads), group: int32(shape.group()), scale: shape.scale(),
		}
		if a.prefills.sm90 {
			tiled := sm90PrefillParams{pool: b.pool.tokens, p: p}
			b.launch(kernels.OpAttention, a.prefills.layer, unsafe.Pointer(&tiled))
			return
		}
		b.launch(kernels.OpAttention, a.prefills.layer, unsafe.Pointer(&p))
		if a.prefills.per > 0 {
			b.launch(kernels.OpAttention, a.prefills.merge, unsafe.Pointer(&p))
		}
	}
}
