package cpu

// #include "device.h"
import "C"

import (
	"fmt"

	"github.com/pagoda-engine/pagoda/kernels"
)

// record appends an operation to the open step. With a tap it runs at once.
func (b *Backend) record(name kernels.Op, op C.struct_pg_op, out kernels.Activation) {
	if !b.recording {
		panic(fmt.Sprintf("cpu: %s outside Launch", name))
	}
	s := b.open
	p := &s.c.forward
	if p.num_ops == p.max_ops {
		panic(fmt.Sprintf("cpu: more than %d operations in a step", p.max_ops))
	}
	if s.keeps && (op.kind == C.PG_EMBED || op.kind == C.PG_QKV) {
		panic(fmt.Sprintf("cpu: %s behind KeepLogitRows", name))
	}
	op.layer = C.int32_t(b.layer)
	s.forwardOps[p.num_ops] = op
	p.num_ops++
	if b.tap != nil {
		b.runTapped(s, name, out)
	}
}

// Embed implements kernels.Backend. The layers follow it.
func (b *Backend) Embed(w kernels.Weight) {
	layout := C.int32_t(C.PG_ROWS)
	if cw, ok := w.(*weight); ok && cw.layout == C.PG_PLAIN { // tied
		layout = C.PG_PLAIN
	}
	b.layer = -1
	b.record(kernels.OpEmbed, C.struct_pg_op{
		kind: C.PG_EMBED, w: operand(kernels.OpEmbed, w, b.shape.Vocab, b.shape.Hidden, layout),
	}, kernels.Hidden)
	b.layer = 0
}

// RMSNorm implements kernels.Backend.
func (b *Backend) RMSNorm(w kernels.Weight) {
	b.record(kernels.OpRMSNorm, C.struct_pg_op{
		kind: C.PG_RMSNORM, w: operand(kernels.OpRMSNorm, w, b.shape.Hidden, 1, C.PG_VECTOR),
	}, kernels.Normed)
}

// QKV implements kernels.Backend.
func (b *Backend) QKV(layer int, w kernels.Weight) {
	b.setLayer(kernels.OpQKV, layer)
	rows := (b.shape.Heads + 2*b.shape.KVHeads) * b.shape.HeadDim
	b.record(kernels.OpQKV, C.struct_pg_op{
		kind: C.PG_QKV, w: operand(kernels.OpQKV, w, rows, b.shape.Hidden, C.PG_QKV_LAYOUT),
	}, kernels.Query)
}

// KeepLogitRows implements kernels.Backend. Where all tokens have logits, none or more than there may
// be sequences, and with a tap, which reads rows of them, all go on.
func (b *Backend) KeepLogitRows() {
	if !b.recording {
		panic("cpu: KeepLogitRows outside Launch")
	}
	s, n := b.open, int(b.open.c.num_logits)
	if s.keeps || n == 0 || n == int(s.c.num_tokens) || n > b.limits.MaxSeqs || b.tap != nil {
		return
	}
	s.keeps = true
	k := s.c.kept
	k.num_tokens, k.num_seqs, k.num_decodes, k.num_logits = C.int32_t(n), C.int32_t(n), C.int32_t(n), C.int32_t(n)
	k.attention_planned, k.normed_packed = false, false
	s.kept = counts{tokens: int64(n), logits: int64(n)}
	s.keptStart[0] = 0
	for i, t := range s.logitRows[:n] {
		s.keptRows[i], s.keptPositions[i], s.keptLogitRows[i] = s.rows[s.tokenSeq[t]], s.positions[t], int32(i)
		s.keptStart[i+1] = int32(i + 1)
		s.kept.context += int64(s.positions[t]) + 1
	}
	s.kept.attended = s.kept.context
	b.record(kernels.OpPrepare, C.struct_pg_op{kind: C.PG_KEEP}, kernels.Query)
}

// PagedAttention implements kernels.Backend.
func (b *Backend) PagedAttention(layer int) {
	b.setLayer(kernels.OpAttention, layer)
	b.record(kernels.OpAttention, C.struct_pg_op{kind: C.PG_ATTENTION}, kernels.Attn)
}

func (b *Backend) setLayer(op kernels.Op, layer int) {
	if layer < 0 || layer >= b.shape.Layers {
		panic(fmt.Sprintf("cpu: %s: layer %d of %d", op, layer, b.shape.Layers))
	}
	b.layer = layer
}

// Linear implements kernels.Backend. The one that reads MLP ends a layer.
func (b *Backend) Linear(w kernels.Weight, src kernels.Activation) {
	cSrc := C.int32_t(C.PG_SRC_ATTN)
	switch src {
	case kernels.Attn:
	case kernels.MLP:
		cSrc = C.PG_SRC_MLP
	default:
		panic(fmt.Sprintf("cpu: linear: source %d, want Attn or MLP", src))
	}
	b.record(kernels.OpLinear, C.struct_pg_op{
		kind: C.PG_LINEAR, src: cSrc, w: operand(kernels.OpLinear, w, b.shape.Hidden, b.shape.Width(src), C.PG_PLAIN),
	}, kernels.Hidden)
	if src == kernels.MLP {
		b.layer++
	}
}

// GateUp implements kernels.Backend.
func (b *Backend) GateUp(w kernels.Weight) {
	b.record(kernels.OpGateUp, C.struct_pg_op{
		kind: C.PG_GATE_UP, w: operand(kernels.OpGateUp, w, 2*b.shape.Intermediate, b.shape.Hidden, C.PG_GATE_UP_LAYOUT),
	}, kernels.MLP)
}

// Head implements kernels.Backend.
func (b *Backend) Head(norm, w kernels.Weight) {
	b.layer = -1
	b.record(kernels.OpHead, C.struct_pg_op{
		kind: C.PG_HEAD, norm: operand(kernels.OpHead, norm, b.shape.Hidden, 1, C.PG_VECTOR),
		w: operand(kernels.OpHead, w, b.shape.Vocab, b.shape.Hidden, C.PG_PLAIN),
	}, kernels.Logits)
}
