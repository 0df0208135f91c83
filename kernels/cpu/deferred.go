package cpu

// #include "deferred.h"
// #include "device.h"
import "C"

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pagoda-engine/pagoda/kernels"
)

// While nothing else is to be done, a call of CompleteLoad packs little, so that a request that
// comes meanwhile hardly waits even where the system is slow to give memory (7 ms, at 0.3 GB/s), and
// on one worker, since the rest of the process starts meanwhile, its tokenizer above all. A step
// packs one part in busyParts: what is left each step packs once more for itself, so there should be
// few steps, and the memory of all at once could take seconds.
const (
	idleBytes = 2 << 20
	busyParts = 4
)

// deferred is what loading left for later (deferred.h).
type deferred struct {
	weights []*weight
	bytes   int64 // of their values
	steps   int   // launched since
	files   []weightFile
}

// weightFile is a file that weights are read from.
type weightFile struct {
	of, own *os.File // the caller's, which it may close, and ours
	found   os.FileInfo
}

// add takes over a weight that is not ready.
func (l *deferred) add(d *C.struct_pg_device, w *weight, parts []kernels.HostTensor) error {
	for i, src := range unsafe.Slice(w.c.sources, len(parts)) {
		own, err := l.open(parts[i].File)
		if err != nil { // too many files are open, say: the caller's will do if they are read now
			return l.pack(d, w, int64(w.c.value_bytes), false)
		}
		src.fd = C.int32_t(own.Fd())
		unsafe.Slice(w.c.sources, len(parts))[i] = src
	}
	l.weights = append(l.weights, w)
	l.bytes += int64(w.c.value_bytes)
	return nil
}

// open gives a file of ours for one of the caller's.
func (l *deferred) open(f *os.File) (*os.File, error) {
	for i := range l.files {
		if l.files[i].of == f {
			return l.files[i].own, nil
		}
	}
	found, err := f.Stat()
	if err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := weightFile{of: f, own: os.NewFile(uintptr(fd), f.Name()), found: found}
	l.files = append(l.files, file)
	return file.own, nil
}

// pack packs at least `bytes` of w, or what is left.
func (l *deferred) pack(d *C.struct_pg_device, w *weight, bytes int64, alone bool) error {
	panel := int64(w.c.value_bytes) / int64(w.c.panels)
	if ok, err := C.pg_complete(d, w.c, C.int((bytes+panel-1)/panel), C.bool(alone)); !ok {
		if err := l.unchanged(); err != nil { // then this is why
			return err
		}
		return fmt.Errorf("cpu: %s: packing the weight: %w", w.name, err)
	}
	return nil
}

// complete packs at least `bytes` of what is left. Nothing is under way.
func (l *deferred) complete(d *C.struct_pg_device, bytes int64, alone bool) error {
	for bytes > 0 && len(l.weights) > 0 {
		w := l.weights[0]
		before := w.c.ready
		if err := l.pack(d, w, bytes, alone); err != nil {
			return err
		}
		bytes -= int64(w.c.ready-before) * (int64(w.c.value_bytes) / int64(w.c.panels))
		if w.c.ready == w.c.panels {
			l.weights = l.weights[1:]
		}
	}
	if len(l.weights) > 0 {
		return nil
	}
	defer l.close(d)
	return l.unchanged()
}

// unchanged fails if a file was written since its weights were loaded: those that were read
// later would not go with the others.
func (l *deferred) unchanged() error {
	for _, f := range l.files {
		now, err := f.own.Stat()
		if err != nil {
			return fmt.Errorf("cpu: weights: %w", err)
		}
		if now.Size() != f.found.Size() || !now.ModTime().Equal(f.found.ModTime()) {
			return fmt.Errorf("cpu: %s was written while weights were read from it: start again", f.own.Name())
		}
	}
	return nil
}

// unreadable fails if a step could not read a file.
func (l *deferred) unreadable(d *C.struct_pg_device) error {
	if d.held == nil || !bool(d.held.unreadable) {
		return nil
	}
	if err := l.unchanged(); err != nil {
		return err
	}
	return fmt.Errorf("cpu: %s, or another file of weights, cannot be read: does the disk fail?", l.files[0].own.Name())
}

func (l *deferred) close(d *C.struct_pg_device) {
	C.pg_held_free(d)
	for _, f := range l.files {
		_ = f.own.Close() // it was only read
	}
	*l = deferred{}
}

// CompleteLoad implements kernels.Completer.
func (b *Backend) CompleteLoad() (more bool, err error) {
	b.complete(idleBytes, true)
	return len(b.deferred.weights) > 0, b.err
}

// complete packs at least `bytes` of what loading left.
func (b *Backend) complete(bytes int64, alone bool) {
	if len(b.deferred.weights) == 0 || b.err != nil {
		return
	}
	b.drain()
	err := b.deferred.unreadable(b.device) // a step that nobody waited for yet: done with the load, nobody would know
	if err == nil {
		err = b.deferred.complete(b.device, bytes, alone)
	}
	if err != nil {
		b.fail(err)
	}
}

// completeBusy is complete before a step. The first one does without: whoever waits for it has
// waited since the start of the process.
func (b *Backend) completeBusy() {
	if b.deferred.steps++; b.deferred.steps > 1 {
		b.complete(b.deferred.bytes/busyParts+1, false)
	}
}
