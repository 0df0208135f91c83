//go:build cuda && faults

package cuda

// #include "driver.h"
import "C"

import (
	"errors"
	"sync"
	"unsafe"
)

// Here is what tests break things with: build tag faults, which no pagoda that is given
// to anybody has.

// injected is the allocation that is to fail: the left-th of those that call names.
var injected struct {
	sync.Mutex
	call string
	left int
}

// FailAllocation makes the n-th allocation from now on, counted from 1, fail as if
// the device had no memory left; call names the driver's function, "" any. Missed
// says, and ends it, that so many never came.
func FailAllocation(call string, n int) (missed func() bool) {
	injected.Lock()
	defer injected.Unlock()
	injected.call, injected.left = call, n
	return func() bool {
		injected.Lock()
		defer injected.Unlock()
		left := injected.left
		injected.left = 0
		return left > 0
	}
}

// allocate is asked before each allocation.
func allocate(call string) error {
	injected.Lock()
	defer injected.Unlock()
	if injected.left == 0 || injected.call != "" && injected.call != call {
		return nil
	}
	if injected.left--; injected.left > 0 {
		return nil
	}
	return &Error{Call: call, Code: C.CUDA_ERROR_OUT_OF_MEMORY}
}

// faulty stores to an address that nothing is mapped at.
const faulty = `.version 7.0
.target sm_80
.address_size 64
.visible .entry faulty(.param .u64 at)
{
	.reg .u64 %rd<2>;
	.reg .u32 %r<2>;
	ld.param.u64 %rd1, [at];
	mov.u32 %r1, 1;
	st.global.u32 [%rd1], %r1;
	ret;
}
`

// Fault makes the current context of this process unusable, as a defective kernel
// does: all work under way, and all that comes, fails.
func Fault() error {
	m, err := LoadModule(faulty)
	if err != nil {
		return err
	}
	k, err := m.Kernel("faulty")
	if err != nil {
		return err
	}
	s, err := NewStream()
	if err != nil {
		return err
	}
	at := uint64(1 << 20)
	if err := k.Launch(&s, &Launch{Grid: [3]uint32{1, 1, 1}, CTA: [3]uint32{1, 1, 1}}, unsafe.Pointer(&at)); err != nil {
		return err
	}
	if s.Sync() == nil {
		return errors.New("cuda: a store to nowhere went well")
	}
	return nil
}
