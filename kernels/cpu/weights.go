package cpu

// #include <stdlib.h>
// #include "device.h"
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/pagoda-engine/pagoda/kernels"
)

// weight implements kernels.Weight.
type weight struct {
	c          *C.struct_pg_weight
	name       string
	layout     C.int32_t
	rows, cols int
}

// Bytes implements kernels.Weight.
func (w *weight) Bytes() int64 { return int64(w.c.bytes) }

// sources describes tensors to C. Their memory is pinned until pinner is
// unpinned; the result is C memory for the caller to free.
func sources(tensors []kernels.HostTensor, pinner *runtime.Pinner) *C.struct_pg_source {
	p := (*C.struct_pg_source)(C.calloc(C.size_t(len(tensors)), C.sizeof_struct_pg_source))
	list := unsafe.Slice(p, len(tensors))
	for i, t := range tensors {
		src := &list[i]
		src.dtype, src.rows = C.int32_t(t.DType), C.int32_t(t.Shape[0])
		src.seed, src.scale, src.offset = C.uint64_t(t.Seed), C.float(t.Scale), C.float(t.Offset)
		src.fd = -1
		switch {
		case t.Data != nil:
			data := unsafe.SliceData(t.Data)
			pinner.Pin(data)
			src.data = unsafe.Pointer(data)
		case t.File != nil:
			src.fd, src.at = C.int32_t(t.File.Fd()), C.int64_t(t.FileAt)
		}
	}
	return p
}

// load packs checked tensors.
func (b *Backend) load(layout C.int32_t, cols int, parts, bias, norms []kernels.HostTensor) (kernels.Weight, error) {
	if b.workspace == nil {
		panic("cpu: a weight is loaded before Setup")
	}
	b.drain()
	var pinner runtime.Pinner
	defer pinner.Unpin()
	cParts := sources(parts, &pinner)
	defer C.free(unsafe.Pointer(cParts))
	var cBias, cNorms *C.struct_pg_source
	if len(bias) > 0 {
		cBias = sources(bias, &pinner)
		defer C.free(unsafe.Pointer(cBias))
	}
	if len(norms) > 0 {
		cNorms = sources(norms, &pinner)
		defer C.free(unsafe.Pointer(cNorms))
	}
	var unreadable C.int
	defer runtime.KeepAlive(parts) // a file that is collected is closed
	c, err := C.pg_weight_new(b.device, C.int(layout), C.int(cols), C.int(b.shape.HeadDim), C.int(len(parts)), cParts, cBias, cNorms, &unreadable)
	switch {
	case c == nil && errors.Is(err, syscall.ENOMEM):
		return nil, fmt.Errorf("%s: no memory for the packed weight: %w: %w", parts[0].Name, kernels.ErrOutOfMemory, err)
	case c == nil:
		return nil, &kernels.UnreadableError{Tensor: parts[unreadable]}
	}
	w := &weight{c: c, name: parts[0].Name, layout: layout, rows: int(c.rows), cols: cols}
	b.weights = append(b.weights, w)
	if c.ready < c.panels {
		return w, b.deferred.add(b.device, w, parts)
	}
	return w, nil
}

// LoadLinear implements kernels.Loader.
func (b *Backend) LoadLinear(spec kernels.LinearSpec) (kernels.Weight, error) {
	cols, err := spec.Check(&b.shape)
	if err != nil {
		return nil, err
	}
	layout := C.int32_t(C.PG_PLAIN)
	switch spec.Kind {
	case kernels.LinearQKV:
		layout = C.PG_QKV_LAYOUT
	case kernels.LinearGateUp:
		layout = C.PG_GATE_UP_LAYOUT
	}
	return b.load(layout, cols, spec.Parts, spec.Bias, spec.QKNorm)
}

// LoadNorm implements kernels.Loader.
func (b *Backend) LoadNorm(t kernels.HostTensor) (kernels.Weight, error) {
	if err := t.Check(b.shape.Hidden); err != nil {
		return nil, err
	}
	return b.load(C.PG_VECTOR, 1, []kernels.HostTensor{t}, nil, nil)
}

// LoadEmbedding implements kernels.Loader. A tied embedding is packed once, for
// the head: a look-up then gathers one value from each cache line of a panel.
func (b *Backend) LoadEmbedding(t kernels.HostTensor, tied bool) (kernels.Weight, error) {
	if err := t.Check(b.shape.Vocab, b.shape.Hidden); err != nil {
		return nil, err
	}
	layout := C.int32_t(C.PG_ROWS)
	if tied {
		layout = C.PG_PLAIN
	}
	return b.load(layout, b.shape.Hidden, []kernels.HostTensor{t}, nil, nil)
}

// operand checks that w is what op needs: [rows, cols] in a layout.
func operand(op kernels.Op, w kernels.Weight, rows, cols int, layout C.int32_t) *C.struct_pg_weight {
	cw, ok := w.(*weight)
	if !ok {
		panic(fmt.Sprintf("cpu: %s: %T is not a weight of this backend", op, w))
	}
	if cw.layout != layout || cw.rows != rows || cw.cols != cols {
		panic(fmt.Sprintf("cpu: %s: %s is [%d, %d] in layout %d, want [%d, %d] in %d", op, cw.name, cw.rows, cw.cols, cw.layout, rows, cols, layout))
	}
	return cw.c
}
