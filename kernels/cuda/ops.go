//go:build cuda

package cuda

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/pagoda-engine/pagoda/kernels"
)

// Embed implements kernels.Backend. The layers follow it.
func (b *Backend) Embed(weight kernels.Weight) {
	w := b.operand(kernels.OpEmbed, weight, weightHead, b.shape.Vocab, b.shape.Hidden)
	b.endLayers()
	b.release()
	b.run.layer = -1
	b.begin(kernels.OpEmbed)
	p := embedParams{
		tokens: b.ws.batch.tokens, w: w.data, hidden: b.ws.hidden,
		panel: w.panel(), ld: int64(stride(b.shape.Hidden)), width: int32(b.shape.Hidden),
	}
	if b.run.sampled {
		p.entries, p.state, p.header, p.whole = b.ws.entries, b.ws.state, b.ws.batch.header, b.ws.whole
	}
	b.launch(kernels.OpEmbed, planEmbed(b.run.tokens, b.shape.Hidden), unsafe.Pointer(&p))
	b.finish(kernels.OpEmbed, kernels.Hidden, int64(b.run.tokens)*int64(b.shape.Hidden)*6, 0)
	b.run.layer = 0
	b.beginLayers()
}

// RMSNorm implements kernels.Backend. That of a single token is left to the product behind it, and one between two products
// that can is made by these: a profile counts its time there, and its own record is empty.
func (b *Backend) RMSNorm(weight kernels.Weight) {
	w := b.operand(kernels.OpRMSNorm, weight, weightNorm, b.shape.Hidden, 1)
	if b.later(layerNorm, b.layerAt(), weight) {
		return
	}
	pieces := b.fold(w)
	b.begin(kernels.OpRMSNorm)
	b.run.spent = false
	if pieces > 0 || b.run.tokens == 1 && b.tap == nil && !b.limits.BatchInvariant && b.omit != string(kernels.OpRMSNorm) {
		b.run.norm, b.run.pieces = w, pieces
		b.finish(kernels.OpRMSNorm, kernels.Normed, 0, 0)
		return
	}
	b.rmsnorm(kernels.OpRMSNorm, w, 0, b.ws.normed, b.run.tokens)
	n := int64(b.run.tokens) * int64(b.shape.Hidden)
	b.finish(kernels.OpRMSNorm, kernels.Normed, 6*n+4*int64(b.shape.Hidden), 4*n)
}

// makeNorm makes the norm that was left to an operation that does not.
func (b *Backend) makeNorm() {
	if w := b.run.norm; w != nil {
		b.run.norm, b.run.pieces = nil, 0
		b.rmsnorm(kernels.OpRMSNorm, w, 0, b.ws.normed, b.run.tokens)
	}
}

// rmsnorm norms n rows of Hidden, those of the index array rows or, with 0, the
// first.
func (b *Backend) rmsnorm(op kernels.Op, w *weight, rows, out ptr, n int) {
	ld := int64(stride(b.shape.Hidden))
	p := rmsnormParams{
		hidden: b.ws.hidden, w: w.data, rows: rows, out: out, ld: ld, ldOut: ld, width: int32(b.shape.Hidden), eps: b.shape.RMSEps,
	}
	b.launch(op, planRMSNorm(n, b.shape.Hidden), unsafe.Pointer(&p))
}

// QKV implements kernels.Backend.
func (b *Backend) QKV(layer int, weight kernels.Weight) {
	b.setLayer(kernels.OpQKV, layer)
	s := &b.shape
	rows := (s.Heads + 2*s.KVHeads) * s.HeadDim
	w := b.operand(kernels.OpQKV, weight, weightQKV, rows, s.Hidden)
	if b.later(layerQKV, layer, weight) {
		return
	}
	b.begin(kernels.OpQKV)
	b.gemm(kernels.OpQKV, epilogueQKV, operandX{b.ws.normed, kernels.Normed}, b.run.tokens, w, epilogue{
		out: b.ws.query, ld: int64(stride(s.Heads * s.HeadDim)), heads: int32(s.Heads), kvHeads: int32(s.KVHeads), headDim: int32(s.HeadDim),
		layer: int32(layer), bias: w.bias, rope: b.ws.rope, positions: b.ws.batch.positions, slots: b.ws.batch.slots, kv: b.pool.kv,
	})
	b.finishProduct(kernels.OpQKV, kernels.Query, b.run.tokens, w, 2*rows)
}

// KeepLogitRows implements kernels.Backend where enough tokens are left out. Where none has logits,
// which no engine asks for, all go on.
func (b *Backend) KeepLogitRows() {
	s, n := b.run.step, b.run.logits
	if !keepsRows(n, b.run.tokens, b.now.MaxSeqs) {
		return
	}
	b.begin(kernels.OpPrepare)
	batch, hidden, query := &b.ws.batch, 4*b.shape.Hidden, 2*b.shape.Heads*b.shape.HeadDim
	p := keepParams{
		hidden: b.ws.hidden, query: b.ws.query, hiddenLD: int64(4 * stride(b.shape.Hidden)), queryLD: int64(2 * stride(b.shape.Heads*b.shape.HeadDim)),
		logitRows: batch.logitRows, header: batch.header, tokenSeq: batch.tokenSeq, positions: batch.positions,
		rows: batch.rows, queryStart: batch.queryStart, seqLens: batch.seqLens,
		count: int32(n), hiddenLines: int32(ceilDiv(hidden, 16)), queryLines: int32(ceilDiv(query, 16)),
	}
	b.launch("keep", planKeepRows(p.hiddenLines+p.queryLines), unsafe.Pointer(&p))
	b.run.tokens, b.run.seqs, b.run.kept = n, n, true
	s.attended, s.context = s.keptContext, s.keptContext
	b.planAttention(b.identity[:n+1], nil, n)
	b.run.attention.follow()
	b.end(kernels.OpPrepare, int64(n)*2*int64(hidden+query), 0)
}

// PagedAttention implements kernels.Backend.
func (b *Backend) PagedAttention(layer int) {
	b.setLayer(kernels.OpAttention, layer)
	if b.later(layerAttention, layer, nil) {
		return
	}
	if b.run.attention.fresh {
		b.begin(kernels.OpPrepare)
		b.planOnDevice()
		b.end(kernels.OpPrepare, 0, 0)
	}
	b.begin(kernels.OpAttention)
	b.attention(layer)
	s, step := &b.shape, b.run.step
	n := int64(b.run.tokens) * int64(s.Heads*s.HeadDim)
	b.finish(kernels.OpAttention, kernels.Attn, 4*step.context*int64(s.KVHeads*s.HeadDim)+4*n, 4*step.attended*int64(s.Heads*s.HeadDim))
}

func (b *Backend) setLayer(op kernels.Op, layer int) {
	if layer < 0 || layer >= b.shape.Layers {
		panic(fmt.Sprintf("cuda: %s: layer %d of %d", op, layer, b.shape.Layers))
	}
	b.release() // it counts layers
	b.run.layer = layer
}

// Linear implements kernels.Backend. The one that reads MLP ends a layer.
func (b *Backend) Linear(weight kernels.Weight, src kernels.Activation) {
	x, kind, op, part := operandX{b.ws.attn, src}, weightPlain, layerOut, "attn"
	switch src {
	case kernels.Attn:
	case kernels.MLP:
		x.data, kind, op, part = b.ws.mlp, weightDown, layerDown, "mlp"
	default:
		panic(fmt.Sprintf("cuda: linear: source %d, want Attn or MLP", src))
	}
	w := b.operand(kernels.OpLinear, weight, kind, b.shape.Hidden, b.shape.Width(src))
	if b.later(op, b.layerAt(), weight) {
		return
	}
	l := linear{w, x, part}
	if b.folds(l) {
		b.run.held = l
		return
	}
	b.linear(l, nil, 0)
}

// linear is the product of a Linear; part is what it ends of a layer, "attn" or "mlp", for the profiler.
type linear struct {
	w    *weight
	x    operandX
	part string
}

// linear issues a Linear; if norm is not nil, its product leaves what that is made of, in sums of squares of so many pieces of a row.
func (b *Backend) linear(l linear, norm *weight, pieces int32) {
	b.run.part = l.part
	b.begin(kernels.OpLinear)
	e := epilogue{out: b.ws.hidden, ld: int64(stride(b.shape.Hidden))}
	if norm != nil {
		e.squares, e.pieces, e.normed, e.norm = b.ws.squares, pieces, b.ws.normed, norm.data
	}
	b.gemm(kernels.OpLinear, epilogueResidual, l.x, b.run.tokens, l.w, e)
	b.finishProduct(kernels.OpLinear, kernels.Hidden, b.run.tokens, l.w, 8*b.shape.Hidden)
	b.run.part = ""
	if l.x.like == kernels.MLP {
		b.run.layer++
	}
}

// GateUp implements kernels.Backend.
func (b *Backend) GateUp(weight kernels.Weight) {
	w := b.operand(kernels.OpGateUp, weight, weightGateUp, 2*b.shape.Intermediate, b.shape.Hidden)
	if b.later(layerGateUp, b.layerAt(), weight) {
		return
	}
	b.begin(kernels.OpGateUp)
	b.gemm(kernels.OpGateUp, epilogueSwiGLU, operandX{b.ws.normed, kernels.Normed}, b.run.tokens, w, epilogue{out: b.ws.mlp, ld: int64(stride(b.shape.Intermediate))})
	b.finishProduct(kernels.OpGateUp, kernels.MLP, b.run.tokens, w, 2*b.shape.Intermediate)
}

// Head implements kernels.Backend.
func (b *Backend) Head(norm, weight kernels.Weight) {
	n := b.operand(kernels.OpHead, norm, weightNorm, b.shape.Hidden, 1)
	w := b.operand(kernels.OpHead, weight, weightHead, b.shape.Vocab, b.shape.Hidden)
	b.endLayers()
	b.release()
	b.run.layer = -1
	b.begin(kernels.OpHead)
	if b.run.logits > 0 {
		rows := b.ws.batch.logitRows
		if b.run.kept {
			rows = 0
		}
		b.rmsnorm(kernels.OpHead, n, rows, b.ws.headIn, b.run.logits)
		b.gemm(kernels.OpHead, epilogueStore, operandX{b.ws.headIn, kernels.Normed}, b.run.logits, w, epilogue{out: b.ws.logits, ld: int64(stride(b.shape.Vocab))})
	}
	b.finishProduct(kernels.OpHead, kernels.Logits, b.run.logits, w, 4*b.shape.Vocab)
}

// operandX is the left side of a product: rows of the activation's width.
type operandX struct {
	data ptr
	like kernels.Activation
}

// gemm multiplies m rows of x by w and ends with e.
func (b *Backend) gemm(op kernels.Op, kind epilogueKind, x operandX, m int, w *weight, e epilogue) {
	ld := stride(b.shape.Width(x.like))
	e.rows, e.cols = int32(m), int32(w.rows)
	shape := gemmShape{m: m, n: w.rows, k: w.width, kind: kind, invariant: b.limits.BatchInvariant}
	if b.run.spent && x.data == b.ws.normed {
		panic(fmt.Sprintf("cuda: %s (layer %d) of a Normed of %d tokens that another product has read", op, b.run.layer, m))
	}
	if plan, ok := b.planGemm(shape); ok {
		p := plan.params(shape, b.ws.gemm)
		if kind == epilogueStore && b.run.sampled {
			e.whole, e.sampleVocab, b.run.tops = b.ws.whole, int32(b.shape.SampleVocab), plan.tops(shape)
		}
		if b.run.pieces > 0 && plan.takesNorm(kind, m) {
			e.squares, e.pieces, e.inverse, e.eps = b.ws.squares, b.run.pieces, 1/float32(b.shape.Hidden), b.shape.RMSEps
			b.run.norm, b.run.pieces, b.run.spent = nil, 0, true
		}
		p.x, p.w, p.ldX, p.panel, p.e = x.data, w.data, int64(ld), w.panel(), e
		if norm := b.run.norm; norm != nil {
			if plan.normed == nil {
				l, ok := normedLaunch(plan.gemmPlan, shape, b.shape.Hidden)
				plan.normed = &normedPlan{l, ok}
				b.products[shape] = plan
			}
			if plan.normed.ok {
				b.run.norm, b.run.spent = nil, true
				normed := normedParams{g: p, hidden: b.ws.hidden, norm: norm.data, eps: b.shape.RMSEps}
				b.launch(op, plan.normed.launch.of(kind), unsafe.Pointer(&normed))
				return
			}
			b.makeNorm()
		}
		if plan.xBox == 0 {
			b.launch(op, plan.launch.of(kind), unsafe.Pointer(&p))
			return
		}
		panels := max(1, int(plan.ring.panels))
		tiled := sm90Params{g: p, ring: plan.ring}
		tiled.x = b.panelsOf(op, tokensMap(x.data, roundUp(m, rowUnit), ld, plan.xBox, panels))
		tiled.w = b.panelsOf(op, w.tiles(plan.wBox, panels))
		b.launch(op, plan.launch.of(kind), unsafe.Pointer(&tiled))
		return
	}
	b.makeNorm()
	p := gemmPlainParams{x: x.data, w: w.data, ldX: int64(ld), panel: w.panel(), k: int32(w.width), e: e}
	b.launch(op, planGemmPlain(shape), unsafe.Pointer(&p))
}

// productPlan is a planned product; xBox and wBox are the rows of the boxes of its tensor maps, 0
// for kernels that take addresses.
type productPlan struct {
	gemmPlan
	xBox, wBox int
	ring       wideRing
	normed     *normedPlan // nil: nobody asked
}

// tops are those that a product of the shape leaves of a row of which nobody wants more: see Top in common.cuh.
func (p *productPlan) tops(s gemmShape) int32 {
	if p.image == "gemm_sm90" {
		return p.tiles
	}
	return int32(ceilDiv(s.n, 8))
}

// normedPlan is the launch of the same with the norm before it, if there is one.
type normedPlan struct {
	launch
	ok bool
}

// candidate is a way to make a product, and the time in µs that its model predicts.
type candidate struct {
	productPlan
	us float64
}

// String names the kernel and the deal: clusters of c, tiles in p pieces, panels of k a step.
func (c candidate) String() string {
	name := strings.TrimPrefix(c.kernel, "gemm_")
	for _, deal := range []string{clustersSuffix, tilesSuffix} {
		name = strings.TrimSuffix(name, deal)
	}
	s := fmt.Sprintf("%s c%d", name, c.Cluster)
	if c.per > 0 {
		s += fmt.Sprintf(" p%d", c.per)
	}
	if c.ring.panels > 0 {
		s += fmt.Sprintf(" k%d", c.ring.panels)
	}
	return s
}

// candidates are the ways to make a product that BenchmarkDeals compares.
func candidates(s gemmShape, a arch) []candidate {
	all := bulkCandidates(s, a, true)
	if len(all) == 0 {
		return nil
	}
	if s.m <= 16 {
		all = append(all, skinnyCandidates(s, a, true)...)
	}
	return append(all, skinnyClusters(s, a)...)
}

// bulkCandidates are those of the kernels that take tiles by the bulk copy engine, with or without those that are to
// be measured.
func bulkCandidates(s gemmShape, a arch, measured bool) []candidate {
	return slices.Concat(streamCandidates(s, a), wideCandidates(s, a, measured), sm90Candidates(s, a))
}

// fastest is the one of some candidates that their models find fastest.
func fastest(all []candidate) candidate {
	return slices.MinFunc(all, func(x, y candidate) int { return cmp.Compare(x.us, y.us) })
}

// planProduct chooses the fast kernel of a shape; ok is false where none takes it.
func planProduct(s gemmShape, a arch) (productPlan, bool) {
	if c, ok := measuredWay(s, a); ok {
		return c.productPlan, true
	}
	if s.m > 8 {
		if all := bulkCandidates(s, a, false); len(all) > 0 {
			return fastest(all).productPlan, true
		}
	}
	g, ok := planGemm(s, a)
	return productPlan{gemmPlan: g}, ok
}

// planGemm plans each shape once.
func (b *Backend) planGemm(s gemmShape) (productPlan, bool) {
	if b.info.Path == pathPlain {
		return productPlan{}, false
	}
	plan, ok := b.products[s]
	if !ok {
		if plan, ok = planProduct(s, b.arch); !ok {
			return plan, false
		}
		b.products[s] = plan
	}
	return plan, true
}

// begin starts an operation: it must be issued by Launch's forward. A norm that was left to a product
// is made here, if it is none.
func (b *Backend) begin(op kernels.Op) {
	if !b.run.issuing && op != kernels.OpSample {
		panic(fmt.Sprintf("cuda: %s outside Launch", op))
	}
	if op != kernels.OpQKV && op != kernels.OpGateUp {
		b.makeNorm()
	}
	b.release()
	b.ranges.Push(string(op))
	b.profiler.begin(b)
}

// end notes the operation for the profiler.
func (b *Backend) end(op kernels.Op, bytes, flops int64) {
	b.profiler.end(b, op, bytes, flops)
	b.ranges.Pop()
}

// finish ends an operation whose output is out.
func (b *Backend) finish(op kernels.Op, out kernels.Activation, bytes, flops int64) {
	b.end(op, bytes, flops)
	if b.tap != nil {
		b.runTap(op, out)
	}
}

// finishProduct ends a product of n rows that write outBytes each.
func (b *Backend) finishProduct(op kernels.Op, out kernels.Activation, n int, w *weight, outBytes int) {
	if n == 0 { // the head of a step without logits reads nothing
		b.finish(op, out, 0, 0)
		return
	}
	b.finish(op, out, w.bytes+int64(n)*(2*int64(w.cols)+int64(outBytes)), 2*int64(n)*int64(w.rows)*int64(w.cols))
}
