//go:build cuda

package cuda

import (
	"fmt"
	"slices"
	"unsafe"

	"github.com/pagoda-engine/pagoda/kernels"
)

// activation is where an activation lies and how.
type activation struct {
	data                ptr
	rows, width, stride int
	dtype               kernels.DType
	scale               float32 // that values lie multiplied by
}

func (a *activation) rowBytes() int { return a.dtype.Size() * a.stride }

func (b *Backend) initActivations() {
	for a, data := range []ptr{b.ws.hidden, b.ws.normed, b.ws.query, b.ws.attn, b.ws.mlp, b.ws.logits} {
		at, rows := kernels.Activation(a), b.now.MaxBatchedTokens
		if at == kernels.Logits {
			rows = b.now.MaxLogitRows
		}
		width, dtype, scale := b.shape.Width(at), kernels.FP16, float32(1)
		switch at {
		case kernels.Hidden, kernels.Logits:
			dtype = kernels.FP32
		case kernels.MLP:
			scale = mlpScale
		}
		b.acts[a] = activation{data, rows, width, stride(width), dtype, scale}
	}
}

// ReadActivation implements kernels.Inspector.
func (b *Backend) ReadActivation(a kernels.Activation, rows int) []float32 {
	b.drain()
	return b.readActivation(nil, a, rows)
}

// readActivation appends to out; the compute stream must be idle.
func (b *Backend) readActivation(out []float32, a kernels.Activation, rows int) []float32 {
	act := &b.acts[a]
	if rows < 0 || rows > act.rows {
		panic(fmt.Sprintf("cuda: %d rows of an activation of %d", rows, act.rows))
	}
	if act.dtype == kernels.FP32 && act.stride == act.width && rows > 0 { // logits, 600 KB a row: no second copy
		at, n := len(out), rows*act.width
		out = slices.Grow(out, n)[:at+n]
		b.fail("read", b.compute.ToHost(unsafe.Pointer(&out[at]), act.data, 4*n))
		b.fail("read", b.compute.Sync())
		return out
	}
	raw := make([]byte, rows*act.rowBytes())
	if rows > 0 {
		b.fail("read", b.compute.ToHost(unsafe.Pointer(&raw[0]), act.data, len(raw)))
		b.fail("read", b.compute.Sync())
	}
	for row := range rows {
		line := raw[row*act.rowBytes():]
		if act.dtype == kernels.FP32 {
			out = append(out, unsafe.Slice((*float32)(unsafe.Pointer(&line[0])), act.width)...)
			continue
		}
		for i := range act.width {
			out = append(out, act.dtype.Float(*(*uint16)(unsafe.Pointer(&line[2*i])))/act.scale)
		}
	}
	return out
}

// WriteActivation implements kernels.Inspector. The padding stays zero.
func (b *Backend) WriteActivation(a kernels.Activation, values []float32) {
	act := &b.acts[a]
	if len(values)%act.width != 0 || len(values) > act.rows*act.width {
		panic(fmt.Sprintf("cuda: %d values for an activation of [%d, %d]", len(values), act.rows, act.width))
	}
	b.drain()
	raw := make([]byte, len(values)/act.width*act.rowBytes())
	for row := 0; row*act.width < len(values); row++ {
		line := raw[row*act.rowBytes():]
		for i, v := range values[row*act.width : (row+1)*act.width] {
			if act.dtype == kernels.FP32 {
				*(*float32)(unsafe.Pointer(&line[4*i])) = v
			} else {
				*(*uint16)(unsafe.Pointer(&line[2*i])) = act.dtype.Bits(v * act.scale)
			}
		}
	}
	if len(raw) > 0 {
		b.fail("write", b.compute.ToDevice(act.data, unsafe.Pointer(&raw[0]), len(raw)))
		b.fail("write", b.compute.Sync())
	}
}

// SetTap implements kernels.Backend.
func (b *Backend) SetTap(fn func(op kernels.Op, layer int, out kernels.Activation, values []float32)) {
	b.flush()
	b.tap = fn
}

// runTap waits for the operation that was just issued and hands its output over.
func (b *Backend) runTap(op kernels.Op, out kernels.Activation) {
	b.fail(op, b.compute.Sync())
	rows := b.run.tokens
	if out == kernels.Logits {
		rows = b.run.logits
	}
	b.tap(op, b.run.layer, out, b.readActivation(nil, out, rows))
}
