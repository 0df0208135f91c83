//go:build cuda

package cuda

// #include <stdlib.h>
// #include "nvtx.h"
import "C"

import "unsafe"

// Ranges names stretches of the calling thread's time for a tool that is attached
// to the process, such as Nsight Systems; nil = none is.
type Ranges struct{ names map[string]*C.char }

// OpenRanges looks for a tool: it names itself in NVTX_INJECTION64_PATH, where
// NVIDIA's header finds it.
func OpenRanges() *Ranges {
	if C.pg_nvtx_attached() == 0 {
		return nil
	}
	return &Ranges{names: map[string]*C.char{}}
}

// Push begins a range inside the one that is open. Names are kept: there should be
// few.
func (r *Ranges) Push(name string) {
	if r == nil {
		return
	}
	c, ok := r.names[name]
	if !ok {
		c = C.CString(name)
		r.names[name] = c
	}
	C.pg_nvtx_push(c)
}

// Pop ends the innermost range.
func (r *Ranges) Pop() {
	if r != nil {
		C.pg_nvtx_pop()
	}
}

// Close frees the names.
func (r *Ranges) Close() {
	if r == nil {
		return
	}
	for _, c := range r.names {
		C.free(unsafe.Pointer(c))
	}
	r.names = nil
}
