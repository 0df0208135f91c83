//go:build cuda

package cuda

// #include "driver.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pagoda-engine/pagoda/internal/machine"
)

// Pinned is pinned host memory in pages of 2 MiB where the system has them, for pools
// of gigabytes.
type Pinned struct {
	pages  []byte // what is mapped
	memory []byte // what is registered
}

// Pointer is the memory's address, for the device as well.
func (p Pinned) Pointer() unsafe.Pointer { return unsafe.Pointer(&p.memory[0]) }

const (
	hugePage = 2 << 20
	// populators make pages at a time; more of them hardly gain, and one, as in cuMemHostAlloc,
	// takes many times as long.
	populators = 8
)

// NewPinned reserves n pieces of so many bytes each, or, on an error, none. More than the
// machine or a cgroup has available is refused before any page is made: making them would end
// the process.
func NewPinned(n int, bytes int64) (pieces []Pinned, err error) {
	if room, ok := machine.AvailableMemory(); ok && int64(n)*bytes > room {
		return nil, fmt.Errorf("%d bytes of pinned host memory, %d are available: %w", int64(n)*bytes, room, unix.ENOMEM)
	}
	defer func() {
		if err != nil {
			_ = FreePinned(pieces) // the first error says more
			pieces = nil
		}
	}()
	mapped := make([]Pinned, 0, n)
	for range n {
		p, err := mapPages(bytes)
		if err != nil {
			return nil, errors.Join(err, unmap(mapped))
		}
		mapped = append(mapped, p)
	}
	var enough atomic.Bool
	made := populate(mapped, &enough)
	for i, p := range mapped {
		if err = <-made[i]; err == nil {
			err = p.register()
		}
		if err != nil {
			enough.Store(true)
			for _, other := range made[i+1:] {
				<-other // nobody is making pages of what is unmapped
			}
			return pieces, errors.Join(err, unmap(mapped[i:]))
		}
		pieces = append(pieces, p)
	}
	return pieces, nil
}

// FreePinned returns NewPinned's memory.
func FreePinned(pieces []Pinned) error {
	var errs []error
	for _, p := range pieces {
		errs = append(errs, check("cuMemHostUnregister", C.int(C.cuMemHostUnregister(p.Pointer()))))
	}
	return errors.Join(append(errs, unmap(pieces))...)
}

func (p Pinned) register() error {
	if err := allocate("cuMemHostRegister"); err != nil {
		return err
	}
	return check("cuMemHostRegister", C.int(C.cuMemHostRegister(p.Pointer(), C.size_t(len(p.memory)), C.CU_MEMHOSTREGISTER_PORTABLE|C.CU_MEMHOSTREGISTER_DEVICEMAP)))
}

// mapPages reserves addresses that begin with a huge page.
func mapPages(bytes int64) (Pinned, error) {
	pages, err := unix.Mmap(-1, 0, int(bytes)+hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return Pinned{}, fmt.Errorf("mapping %d bytes of host memory: %w", bytes, err)
	}
	first := -uintptr(unsafe.Pointer(&pages[0])) % hugePage
	p := Pinned{pages, pages[first : first+uintptr(bytes)]}
	_ = unix.Madvise(p.memory, unix.MADV_HUGEPAGE) // small pages serve as well
	_ = unix.Madvise(pages, unix.MADV_DONTFORK)    // the device writes to these pages, not to copies
	return p, nil
}

func unmap(pieces []Pinned) error {
	var errs []error
	for _, p := range pieces {
		errs = append(errs, unix.Munmap(p.pages))
	}
	return errors.Join(errs...)
}

// populate has all pages made by several threads, piece after piece, until there are enough; a
// piece's channel gives its outcome.
func populate(pieces []Pinned, enough *atomic.Bool) []chan error {
	made, next := make([]chan error, len(pieces)), make(chan int, len(pieces))
	for i := range pieces {
		made[i] = make(chan error, 1)
		next <- i
	}
	close(next)
	for range min(populators, runtime.NumCPU(), len(pieces)) {
		go func() {
			for i := range next {
				var err error
				if !enough.Load() {
					err = pieces[i].populate()
				}
				made[i] <- err
			}
		}()
	}
	return made
}

func (p Pinned) populate() error {
	err := unix.Madvise(p.memory, unix.MADV_POPULATE_WRITE)
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%d bytes of host memory: %w", len(p.memory), err)
	}
	for at := 0; at < len(p.memory); at += os.Getpagesize() { // before Linux 5.14
		p.memory[at] = 0
	}
	return nil
}
