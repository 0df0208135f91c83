//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"slices"
	"time"
	"unsafe"

	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
)

// activation is where an activation lies and how.
type activation struct {
	data                ptr
	rows, width, stride int
	float               bool // float32, else bfloat16
}

func (a *activation) rowBytes() int {
	if a.float {
		return 4 * a.stride
	}
	return 2 * a.stride
}

func (b *Backend) initActivations() {
	for a, data := range []ptr{b.ws.hidden, b.ws.normed, b.ws.query, b.ws.attn, b.ws.mlp, b.ws.logits} {
		at, rows := kernels.Activation(a), b.limits.MaxBatchedTokens
		if at == kernels.Logits {
			rows = b.limits.MaxLogitRows
		}
		width := b.shape.Width(at)
		b.acts[a] = activation{data, rows, width, stride(width), at == kernels.Hidden || at == kernels.Logits}
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
	raw := make([]byte, rows*act.rowBytes())
	if rows > 0 {
		b.fail("read", b.compute.ToHost(unsafe.Pointer(&raw[0]), act.data, len(raw)))
		b.fail("read", b.compute.Sync())
	}
	for row := range rows {
		line := raw[row*act.rowBytes():]
		for i := range act.width {
			if act.float {
				out = append(out, *(*float32)(unsafe.Pointer(&line[4*i])))
			} else {
				out = append(out, kernels.BF16ToFloat(*(*uint16)(unsafe.Pointer(&line[2*i]))))
			}
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
			if act.float {
				*(*float32)(unsafe.Pointer(&line[4*i])) = v
			} else {
				*(*uint16)(unsafe.Pointer(&line[2*i])) = kernels.FloatToBF16(v)
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

// profiler times operations by events.
type profiler struct {
	fn     func(kernels.OpRecord)
	origin cuda.Event
	events []cuda.Event // not in use
	from   cuda.Event   // of the operation under way
}

// record is an operation between two events.
type record struct {
	op           kernels.Op
	part         string
	layer        int
	start, end   cuda.Event
	bytes, flops int64
}

// SetProfiler implements kernels.Backend.
func (b *Backend) SetProfiler(fn func(kernels.OpRecord)) {
	b.flush()
	p := &b.profiler
	if p.fn == nil && fn != nil {
		p.origin = p.event(b)
	}
	if p.fn != nil && fn == nil {
		p.events = append(p.events, p.origin)
	}
	if fn != nil {
		b.fail("profile", p.origin.Record(&b.compute))
	}
	p.fn = fn
}

// event takes one that is not in use.
func (p *profiler) event(b *Backend) cuda.Event {
	if n := len(p.events); n > 0 {
		e := p.events[n-1]
		p.events = p.events[:n-1]
		return e
	}
	e, err := cuda.NewEvent()
	b.fail("profile", err)
	return e
}

func (p *profiler) begin(b *Backend) {
	if p.fn != nil && b.err == nil {
		p.from = p.event(b)
		b.fail("profile", p.from.Record(&b.compute))
	}
}

func (p *profiler) end(b *Backend, op kernels.Op, bytes, flops int64) {
	if p.fn == nil || b.err != nil {
		return
	}
	to := p.event(b)
	b.fail("profile", to.Record(&b.compute))
	s := b.run.step
	s.records = append(s.records, record{op, b.run.part, b.run.layer, p.from, to, bytes, flops})
}

// report hands a finished step's records to the profiler.
func (b *Backend) report(s *step) {
	p := &b.profiler
	var out []kernels.OpRecord
	for i := range s.records {
		r := &s.records[i]
		if p.fn != nil {
			start, err := r.start.Since(&p.origin)
			b.fail("profile", err)
			duration, err := r.end.Since(&r.start)
			b.fail("profile", err)
			out = append(out, kernels.OpRecord{Op: r.op, Part: r.part, Layer: r.layer, Start: max(start, 0), Duration: duration, Bytes: r.bytes, FLOPs: r.flops})
		}
		p.events = append(p.events, r.start, r.end)
	}
	s.records = s.records[:0]
	slices.SortStableFunc(out, func(a, b kernels.OpRecord) int { return int((a.Start - b.Start) / time.Nanosecond) })
	for _, r := range out {
		p.fn(r)
	}
}

func (p *profiler) destroy() error {
	var errs []error
	for i := range p.events {
		errs = append(errs, p.events[i].Destroy())
	}
	return errors.Join(errs...)
}
