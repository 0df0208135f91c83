package kernelstest

import (
	"fmt"
	"math"
	"time"

	"github.com/pagoda-engine/pagoda/kernels"
)

// Embed implements kernels.Backend.
func (o *Oracle) Embed(w kernels.Weight) {
	start := time.Now()
	for t, token := range o.tokens {
		copy(o.row(kernels.Hidden, t), w.(*oracleWeight).row(int(token.id)))
	}
	o.done(kernels.OpEmbed, -1, kernels.Hidden, len(o.tokens), start)
}

// RMSNorm implements kernels.Backend.
func (o *Oracle) RMSNorm(w kernels.Weight) {
	start := time.Now()
	o.normed = 1
	for t := range o.tokens {
		o.rmsnorm(o.row(kernels.Normed, t), o.row(kernels.Hidden, t), w.(*oracleWeight).w)
	}
	o.done(kernels.OpRMSNorm, -1, kernels.Normed, len(o.tokens), start)
}

// spend panics where a second product reads what RMSNorm made: see kernels.Backend.
func (o *Oracle) spend(op kernels.Op) {
	if o.normed < 0 {
		panic(fmt.Sprintf("oracle: %s of a Normed of %d tokens that another product has read", op, len(o.tokens)))
	}
	o.normed = -o.normed
}

func (o *Oracle) rmsnorm(dst, x, w []float64) {
	scale := 1 / math.Sqrt(dot(x, x)/float64(len(x))+float64(o.shape.RMSEps))
	for i, weight := range w {
		dst[i] = x[i] * scale * weight
	}
}

// QKV implements kernels.Backend.
func (o *Oracle) QKV(layer int, weight kernels.Weight) {
	start := time.Now()
	o.spend(kernels.OpQKV)
	w, d := weight.(*oracleWeight), o.shape.HeadDim
	for t, token := range o.tokens {
		x := o.row(kernels.Normed, t)
		head := func(h int) []float64 { // head h of the row [queries, keys, values]
			y := make([]float64, d)
			for i := range y {
				y[i] = dot(w.row(h*d+i), x)
				if w.bias != nil {
					y[i] += w.bias[h*d+i]
				}
			}
			return y
		}
		for h := range o.shape.Heads {
			q := o.row(kernels.Query, t)[h*d : (h+1)*d]
			copy(q, head(h))
			if w.qkNorm != nil {
				o.rmsnorm(q, q, w.qkNorm[0])
			}
			o.rope(q, token.position)
		}
		for h := range o.shape.KVHeads {
			k, v := head(o.shape.Heads+h), head(o.shape.Heads+o.shape.KVHeads+h)
			if w.qkNorm != nil {
				o.rmsnorm(k, k, w.qkNorm[1])
			}
			o.rope(k, token.position)
			o.round(o.slot(token.row, layer, false, h, token.position), k)
			o.round(o.slot(token.row, layer, true, h, token.position), v)
		}
	}
	o.done(kernels.OpQKV, layer, kernels.Query, len(o.tokens), start)
}

// rope rotates the pairs (i, i+headDim/2) of x in place (Su et al., RoFormer,
// 2021). The angle is a float32 product, as in the original implementation.
func (o *Oracle) rope(x []float64, position int32) {
	half, scale := len(x)/2, float64(o.shape.RopeScale)
	for i, freq := range o.shape.InvFreq {
		sin, cos := math.Sincos(float64(float32(position) * freq))
		a, b := x[i], x[half+i]
		x[i] = (a*cos - b*sin) * scale
		x[half+i] = (b*cos + a*sin) * scale
	}
}

// KeepLogitRows implements kernels.Backend: all tokens go on.
func (o *Oracle) KeepLogitRows() {}

// PagedAttention implements kernels.Backend.
func (o *Oracle) PagedAttention(layer int) {
	start := time.Now()
	d, group := o.shape.HeadDim, o.shape.Heads/o.shape.KVHeads
	for t, token := range o.tokens {
		p := make([]float64, token.position+1)
		for h := range o.shape.Heads {
			q := o.row(kernels.Query, t)[h*d : (h+1)*d]
			out := o.row(kernels.Attn, t)[h*d : (h+1)*d]
			largest := math.Inf(-1)
			for j := range p {
				p[j] = o.dotKey(q, o.slot(token.row, layer, false, h/group, int32(j))) / math.Sqrt(float64(d))
				largest = math.Max(largest, p[j])
			}
			sum := 0.0
			for j := range p {
				p[j] = math.Exp(p[j] - largest)
				sum += p[j]
			}
			clear(out)
			for j := range p {
				for i, v := range o.slot(token.row, layer, true, h/group, int32(j)) {
					out[i] += p[j] / sum * float64(o.kv.DType.Float(v))
				}
			}
		}
	}
	o.done(kernels.OpAttention, layer, kernels.Attn, len(o.tokens), start)
}

// Linear implements kernels.Backend.
func (o *Oracle) Linear(weight kernels.Weight, src kernels.Activation) {
	start := time.Now()
	w := weight.(*oracleWeight)
	for t := range o.tokens {
		x, y := o.row(src, t), o.row(kernels.Hidden, t)
		for i := range y {
			y[i] += dot(w.row(i), x)
		}
	}
	o.done(kernels.OpLinear, -1, kernels.Hidden, len(o.tokens), start)
	if n := len(o.records); o.profiler != nil {
		r, elements := &o.records[n-1], len(w.row(0))*len(o.row(kernels.Hidden, 0))
		r.Part, r.FLOPs, r.Bytes = "attn", int64(2*elements*len(o.tokens)), int64(8*elements)
		if src == kernels.MLP {
			r.Part = "mlp"
		}
	}
}

// GateUp implements kernels.Backend.
func (o *Oracle) GateUp(weight kernels.Weight) {
	start := time.Now()
	o.spend(kernels.OpGateUp)
	w := weight.(*oracleWeight)
	for t := range o.tokens {
		x, y := o.row(kernels.Normed, t), o.row(kernels.MLP, t)
		for i := range y {
			gate, up := dot(w.row(i), x), dot(w.row(len(y)+i), x)
			y[i] = gate / (1 + math.Exp(-gate)) * up
		}
	}
	o.done(kernels.OpGateUp, -1, kernels.MLP, len(o.tokens), start)
}

// Head implements kernels.Backend.
func (o *Oracle) Head(norm, weight kernels.Weight) {
	start := time.Now()
	w, x := weight.(*oracleWeight), make([]float64, o.shape.Hidden)
	for i, t := range o.logitRows {
		o.rmsnorm(x, o.row(kernels.Hidden, int(t)), norm.(*oracleWeight).w)
		for id := range o.shape.Vocab {
			o.row(kernels.Logits, i)[id] = float64(float32(dot(w.row(id), x)))
		}
	}
	o.done(kernels.OpHead, -1, kernels.Logits, len(o.logitRows), start)
}

func dot(x, y []float64) float64 {
	sum := 0.0
	for i, v := range x {
		sum += v * y[i]
	}
	return sum
}

func (o *Oracle) dotKey(x []float64, key []uint16) float64 {
	sum := 0.0
	for i, v := range x {
		sum += v * float64(o.kv.DType.Float(key[i]))
	}
	return sum
}

func (o *Oracle) round(dst []uint16, src []float64) {
	for i, v := range src {
		dst[i] = o.kv.DType.Bits(float32(v))
	}
}
