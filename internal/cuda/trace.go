//go:build cuda

package cuda

// #include <stdlib.h>
// #include "trace.h"
//
// #cgo noescape pg_trace_now
// #cgo noescape pg_trace_take
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// RecordKind says what a Record is of.
type RecordKind uint32

// The kinds of records. A call is one of the driver, which has the correlation of
// what it issued; a link gives a call the id that was pushed around it.
const (
	KernelRecord RecordKind = C.PG_KERNEL
	CopyRecord   RecordKind = C.PG_COPY
	SetRecord    RecordKind = C.PG_SET
	CallRecord   RecordKind = C.PG_CALL
	LinkRecord   RecordKind = C.PG_LINK
)

// Record is one activity that a Tracer saw. Times are ns of its clock.
type Record struct {
	Kind                        RecordKind
	Name                        string // of a kernel, or the direction of a copy
	Start, End                  uint64
	Correlation                 uint32
	Device, Context, Stream     uint32
	External                    uint64 // of a link
	Bytes                       int64  // of a copy or fill
	Grid, CTA                   [3]int32
	Registers                   int
	StaticShared, DynamicShared int
	InGraph                     bool // of a kernel: the call launched a graph, which has it
}

// Tracer times what the GPU runs, by CUPTI. There is one in a process; its calls
// come from the thread that issues work.
type Tracer struct{}

// OpenTracer loads CUPTI from the first of the paths that has it.
func OpenTracer(paths ...string) (*Tracer, error) {
	var errs []error
	for _, path := range paths {
		var reason [512]C.char
		name := C.CString(path)
		failed := C.pg_trace_open(name, &reason[0], C.size_t(len(reason)))
		C.free(unsafe.Pointer(name))
		if failed == 0 {
			return &Tracer{}, nil
		}
		errs = append(errs, errors.New(C.GoString(&reason[0])))
	}
	return nil, errors.Join(errs...)
}

func traceError(call string, result C.int) error {
	if result == 0 {
		return nil
	}
	return fmt.Errorf("CUPTI: %s: %s (%d)", call, C.GoString(C.pg_trace_error(result)), int(result))
}

// Start begins a trace; records of an earlier one are gone.
func (*Tracer) Start() error { return traceError("start", C.pg_trace_start()) }

// Stop ends it. The device must be idle: what it runs still is lost.
func (*Tracer) Stop() error { return traceError("stop", C.pg_trace_stop()) }

// Push gives the calls from here on an id, until Pop.
func (*Tracer) Push(id uint64) error { return traceError("push", C.pg_trace_push(C.uint64_t(id))) }

// Pop ends Push.
func (*Tracer) Pop() error { return traceError("pop", C.pg_trace_pop()) }

// Now is the time of the tracer's clock.
func (*Tracer) Now() (uint64, error) {
	var ns C.uint64_t
	err := traceError("clock", C.pg_trace_now(&ns))
	return uint64(ns), err
}

// Dropped is the records since Start that there was no room for.
func (*Tracer) Dropped() int { return int(C.pg_trace_dropped()) }

// copyNames are the directions of CUpti_ActivityMemcpyKind.
var copyNames = [...]string{"?", "HtoD", "DtoH", "HtoA", "AtoH", "AtoA", "AtoD", "DtoA", "DtoD", "HtoH", "PtoP"}

// Take gives the records that were delivered, in their order.
func (*Tracer) Take() []Record {
	var out []Record
	names := map[string]string{} // kernels have few
	for buffer := make([]C.struct_pg_activity, 512); ; {
		n := int(C.pg_trace_take(&buffer[0], C.size_t(len(buffer))))
		for i := range buffer[:n] {
			out = append(out, record(&buffer[i], names))
		}
		if n < len(buffer) {
			return out
		}
	}
}

func record(a *C.struct_pg_activity, names map[string]string) Record {
	r := Record{
		Kind: RecordKind(a.kind), Start: uint64(a.start), End: uint64(a.end), Correlation: uint32(a.correlation),
		Device: uint32(a.device), Context: uint32(a.context), Stream: uint32(a.stream), External: uint64(a.external), Bytes: int64(a.bytes),
		Registers: int(a.registers), StaticShared: int(a.static_shared), DynamicShared: int(a.dynamic_shared),
		InGraph: a.in_graph != 0,
	}
	for i := range r.Grid {
		r.Grid[i], r.CTA[i] = int32(a.grid[i]), int32(a.cta[i])
	}
	switch r.Kind {
	case KernelRecord:
		name := C.GoString(&a.name[0])
		if known, ok := names[name]; ok {
			name = known
		} else {
			names[name] = name
		}
		r.Name = name
	case CopyRecord:
		r.Name = copyNames[0]
		if int(a.copy) < len(copyNames) {
			r.Name = copyNames[a.copy]
		}
	}
	return r
}
