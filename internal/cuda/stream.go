//go:build cuda

package cuda

// #include "driver.h"
//
// #cgo noescape pg_launch
// #cgo nocallback pg_launch
// #cgo noescape pg_replay
// #cgo nocallback pg_replay
// #cgo noescape pg_elapsed
// #cgo nocallback pg_elapsed
// #cgo noescape pg_await
// #cgo nocallback pg_await
import "C"

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"gorgonia.org/cu"
)

// Stream is a queue of device work, not ordered with the default stream.
type Stream struct{ cu.Stream }

// NewStream makes one.
func NewStream() (Stream, error) {
	s, err := cu.MakeStream(cu.NonBlocking)
	return Stream{s}, err
}

// Destroy ends the stream when its work is done. Of the zero Stream it does nothing.
func (s Stream) Destroy() error {
	if s.raw() == 0 {
		return nil
	}
	return check("cuStreamDestroy", C.int(C.cuStreamDestroy(s.c())))
}

func (s *Stream) raw() C.uintptr_t { return raw(&s.Stream) }

// Sync waits for all work of the stream.
func (s *Stream) Sync() error {
	return check("cuStreamSynchronize", C.int(C.cuStreamSynchronize(s.c())))
}

func (s *Stream) c() C.CUstream { return *(*C.CUstream)(unsafe.Pointer(&s.Stream)) }

// Wait makes later work of s wait for the event.
func (s *Stream) Wait(e *Event) error {
	return check("cuStreamWaitEvent", C.int(C.cuStreamWaitEvent(s.c(), e.c(), 0)))
}

// Event marks a point of a stream, with its time.
type Event struct{ cu.Event }

// NewEvent makes one that was not recorded.
func NewEvent() (Event, error) {
	e, err := cu.MakeEvent(cu.DefaultEvent)
	return Event{e}, err
}

func (e *Event) c() C.CUevent { return *(*C.CUevent)(unsafe.Pointer(&e.Event)) }

// Record marks where the stream is now.
func (e *Event) Record(s *Stream) error {
	return check("cuEventRecord", C.int(C.cuEventRecord(e.c(), s.c())))
}

// Done says whether what came before the mark is finished; an error is one of
// that work.
func (e *Event) Done() (bool, error) { return e.DoneWithin(0) }

// DoneWithin is Done after so long, or as soon as it is true. It spins meanwhile.
func (e *Event) DoneWithin(limit time.Duration) (bool, error) {
	r := C.pg_done_within(raw(&e.Event), C.int(limit.Microseconds()))
	if r == C.CUDA_ERROR_NOT_READY {
		return false, nil
	}
	return r == 0, check("cuEventQuery", r)
}

// Sync waits for the mark.
func (e *Event) Sync() error {
	return check("cuEventSynchronize", C.int(C.cuEventSynchronize(e.c())))
}

// Since is the time from the earlier event to e; both must be done.
func (e *Event) Since(earlier *Event) (time.Duration, error) {
	var ms C.float
	err := check("cuEventElapsedTime", C.pg_elapsed(raw(&earlier.Event), raw(&e.Event), &ms))
	return time.Duration(float64(ms) * float64(time.Millisecond)), err
}

// Await is Sync and then Since, in one crossing.
func (e *Event) Await(earlier *Event) (time.Duration, error) {
	var ms C.float
	err := check("cuEventSynchronize", C.pg_await(raw(&earlier.Event), raw(&e.Event), &ms))
	return time.Duration(float64(ms) * float64(time.Millisecond)), err
}

// Destroy frees the event. Of the zero Event it does nothing.
func (e *Event) Destroy() error {
	if e.c() == nil {
		return nil
	}
	return check("cuEventDestroy", C.int(C.cuEventDestroy(e.c())))
}

// Module is a loaded cubin or fatbin.
type Module struct{ cu.Module }

// LoadModule loads an image into the current context.
func LoadModule(image string) (Module, error) {
	if err := allocate("cuModuleLoadData"); err != nil {
		return Module{}, err
	}
	m, err := cu.LoadData(image)
	return Module{m}, err
}

// Kernel is a __global__ function of one params struct.
type Kernel struct {
	fn     cu.Function
	shared uint32 // the dynamic shared memory it was allowed so far
	waits  bool   // it was compiled for an architecture that can wait for its predecessor
}

// Kernel finds a kernel by its C name.
func (m Module) Kernel(name string) (*Kernel, error) {
	fn, err := m.Function(name)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", name, err)
	}
	k := &Kernel{fn: fn}
	var version C.int
	err = check("cuFuncGetAttribute", C.int(C.cuFuncGetAttribute(&version, C.CU_FUNC_ATTRIBUTE_PTX_VERSION, k.c())))
	k.waits = version >= 90
	return k, err
}

func (k *Kernel) c() C.CUfunction { return *(*C.CUfunction)(unsafe.Pointer(&k.fn)) }

// Launch is a launch's shape: grid and CTA in CTAs and threads.
type Launch struct {
	Grid, CTA [3]uint32
	Shared    uint32 // bytes of dynamic shared memory
	Cluster   uint32 // CTAs of a cluster along x; 0 = none
	PDL       uint32 // 1: may start before the kernel ahead of it has ended, if its code waits for that
}

var _ [unsafe.Sizeof(Launch{})]byte = [C.sizeof_struct_pg_launch]byte{}

// unaskedShared is the dynamic shared memory that a kernel has without asking: of the 48 KiB that CUDA gives it what it
// declares itself is to be left.
const unaskedShared = 32 << 10

// Launch queues the kernel. params points to its params struct, which is copied.
func (k *Kernel) Launch(s *Stream, l *Launch, params unsafe.Pointer) error {
	if l.Shared > unaskedShared && l.Shared > k.shared {
		if err := check("cuFuncSetAttribute", C.int(C.cuFuncSetAttribute(k.c(), C.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, C.int(l.Shared)))); err != nil {
			return err
		}
		k.shared = l.Shared
	}
	local := *l
	if !k.waits {
		local.PDL = 0
	}
	return check("cuLaunchKernelEx", C.pg_launch(raw(&k.fn), s.raw(), (*C.struct_pg_launch)(unsafe.Pointer(&local)), params))
}

// Graph is captured work that one call launches.
type Graph struct {
	exec  C.CUgraphExec
	Nodes int
}

// BeginCapture makes s collect work instead of doing it.
func (s *Stream) BeginCapture() error {
	return check("cuStreamBeginCapture", C.int(C.cuStreamBeginCapture(s.c(), C.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)))
}

// EndCapture makes a graph of the work and loads it onto the device.
func (s *Stream) EndCapture() (Graph, error) {
	var g Graph
	var nodes C.size_t
	if err := check("stream capture", C.pg_capture_end(s.raw(), &g.exec, &nodes)); err != nil {
		return Graph{}, err
	}
	if err := allocate("cuGraphInstantiate"); err != nil {
		return Graph{}, errors.Join(err, g.Destroy())
	}
	g.Nodes = int(nodes)
	return g, nil
}

// Replay launches the graph between two events, all in one crossing, and gives the event at which it begins. An event
// between two graphs takes the device a few microseconds: if before, the last event of the stream or nil, is
// still to come, it is that one, and start is left out.
func (g *Graph) Replay(s *Stream, before, start, end *Event) (began *Event, err error) {
	last, behind := C.uintptr_t(0), C.int(0)
	if before != nil {
		last = raw(&before.Event)
	}
	if err := check("graph launch", C.pg_replay(s.raw(), g.exec, last, raw(&start.Event), raw(&end.Event), &behind)); err != nil {
		return nil, err
	}
	if behind != 0 {
		return before, nil
	}
	return start, nil
}

// Destroy frees the graph.
func (g *Graph) Destroy() error {
	return check("cuGraphExecDestroy", C.int(C.cuGraphExecDestroy(g.exec)))
}

// Unload frees the module.
func (m Module) Unload() error { return m.Module.Unload() }
