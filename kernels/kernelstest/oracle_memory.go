package kernelstest

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/kernels"
)

// oracleWeight is a [rows, cols] matrix with an optional bias a row.
type oracleWeight struct {
	rows, cols int
	w, bias    []float64
	qkNorm     [][]float64 // of queries and keys; nil = none
}

// Bytes implements kernels.Weight.
func (w *oracleWeight) Bytes() int64 { return 8 * int64(len(w.w)+len(w.bias)) }

func (w *oracleWeight) row(i int) []float64 { return w.w[i*w.cols : (i+1)*w.cols] }

// values reads a tensor; with round they are rounded to bfloat16.
func values(t kernels.HostTensor, round bool) ([]float64, error) {
	n := t.NumElems()
	if t.Data != nil && len(t.Data) != n*t.DType.Size() {
		return nil, fmt.Errorf("%s: %d bytes of data, want %d for %s %v", t.Name, len(t.Data), n*t.DType.Size(), t.DType, t.Shape)
	}
	out := make([]float64, n)
	for i := range out {
		var f float32
		switch {
		case t.Data == nil:
			f = kernels.BF16ToFloat(kernels.FloatToBF16(kernels.Dummy(t.Seed, uint64(i))*t.Scale + t.Offset))
		case t.DType == kernels.FP32:
			f = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
		case t.DType == kernels.FP16:
			f = kernels.FP16ToFloat(binary.LittleEndian.Uint16(t.Data[2*i:]))
		default:
			f = kernels.BF16ToFloat(binary.LittleEndian.Uint16(t.Data[2*i:]))
		}
		if round {
			f = kernels.BF16ToFloat(kernels.FloatToBF16(f))
		}
		out[i] = float64(f)
	}
	return out, nil
}

// LoadLinear implements kernels.Loader.
func (o *Oracle) LoadLinear(spec kernels.LinearSpec) (kernels.Weight, error) {
	w := &oracleWeight{cols: spec.Parts[0].Shape[1]}
	for _, part := range spec.Parts {
		if len(part.Shape) != 2 || part.Shape[1] != w.cols {
			return nil, fmt.Errorf("%s: shape %v, want [·, %d]", part.Name, part.Shape, w.cols)
		}
		v, err := values(part, true)
		if err != nil {
			return nil, err
		}
		w.w, w.rows = append(w.w, v...), w.rows+part.Shape[0]
	}
	for _, bias := range spec.Bias {
		v, err := values(bias, false)
		if err != nil {
			return nil, err
		}
		w.bias = append(w.bias, v...)
	}
	for _, norm := range spec.QKNorm {
		v, err := values(norm, false)
		if err != nil {
			return nil, err
		}
		w.qkNorm = append(w.qkNorm, v)
	}
	return w, nil
}

// LoadNorm implements kernels.Loader.
func (o *Oracle) LoadNorm(t kernels.HostTensor) (kernels.Weight, error) {
	v, err := values(t, false)
	return &oracleWeight{rows: 1, cols: len(v), w: v}, err
}

// LoadEmbedding implements kernels.Loader.
func (o *Oracle) LoadEmbedding(t kernels.HostTensor, _ bool) (kernels.Weight, error) {
	return o.LoadLinear(kernels.LinearSpec{Kind: kernels.LinearHead, Parts: []kernels.HostTensor{t}})
}

// KV implements kernels.Pool.
func (o *Oracle) KV() kernels.PagedKV { return o.kv }

// ResizePool implements kernels.Pool.
func (o *Oracle) ResizePool(deviceBlocks, hostBlocks int) error {
	resize := func(pool [][]uint16, n int) [][]uint16 {
		for len(pool) < n {
			pool = append(pool, make([]uint16, o.kv.BlockElems()))
		}
		return pool[:n:n]
	}
	o.device, o.host = resize(o.device, deviceBlocks), resize(o.host, hostBlocks)
	return nil
}

// CopyBlocks implements kernels.Pool.
func (o *Oracle) CopyBlocks(copies []kernels.BlockCopy) {
	for _, c := range copies {
		copy(o.device[c.Dst], o.device[c.Src])
	}
}

// SwapOut implements kernels.Pool.
func (o *Oracle) SwapOut(copies []kernels.BlockCopy) kernels.Ticket {
	for _, c := range copies {
		copy(o.host[c.Dst], o.device[c.Src])
	}
	return 0
}

// SwapIn implements kernels.Pool.
func (o *Oracle) SwapIn(copies []kernels.BlockCopy) kernels.Ticket {
	for _, c := range copies {
		copy(o.device[c.Dst], o.host[c.Src])
	}
	return 0
}

// SwapDone implements kernels.Pool.
func (o *Oracle) SwapDone(kernels.Ticket, bool) (time.Duration, bool, error) { return 0, true, nil }

// SetLimits implements kernels.Backend.
func (o *Oracle) SetLimits(kernels.Limits) error { return nil }

// row is row i of activation a.
func (o *Oracle) row(a kernels.Activation, i int) []float64 {
	width := o.shape.Width(a)
	return o.acts[a][i*width : (i+1)*width]
}

// ReadActivation implements kernels.Inspector.
func (o *Oracle) ReadActivation(a kernels.Activation, rows int) []float32 {
	out := make([]float32, rows*o.shape.Width(a))
	for i := range out {
		out[i] = float32(o.acts[a][i])
	}
	return out
}

// WriteActivation implements kernels.Inspector.
func (o *Oracle) WriteActivation(a kernels.Activation, values []float32) {
	for i, v := range values {
		o.acts[a][i] = float64(v)
	}
}

// ReadBlock implements kernels.Inspector.
func (o *Oracle) ReadBlock(block int32) []uint16 { return slices.Clone(o.device[block]) }

// WriteBlock implements kernels.Inspector.
func (o *Oracle) WriteBlock(block int32, values []uint16) { copy(o.device[block], values) }

// slot is the [headDim] vector of a token's key or value in the pool.
func (o *Oracle) slot(r *oracleRow, layer int, value bool, head int, position int32) []uint16 {
	block := r.table[int(position)/o.kv.BlockSize]
	at := o.kv.Index(layer, value, head, int(position)%o.kv.BlockSize)
	return o.device[block][at : at+o.kv.HeadDim]
}
