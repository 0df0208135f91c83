package model

import (
	"os"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is a file in memory, read only. Another process may truncate the
// file, or its disk may fail; touching a page that is gone then raises SIGBUS.
// read turns that into an error, which works for Go code only.
type mapping struct {
	path    string // for messages
	file    *os.File
	size    int64
	modTime time.Time
	data    []byte
}

// mapFile maps an open regular file of size bytes, at least one, and owns it
// from then on.
func mapFile(path string, f *os.File, size int64, modTime time.Time) (*mapping, error) {
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fileError(path, "file", "cannot be mapped: %v", err)
	}
	return &mapping{path: path, file: f, size: size, modTime: modTime, data: data}, nil
}

func (m *mapping) close() error {
	err := unix.Munmap(m.data)
	m.data = nil
	if cerr := m.file.Close(); err == nil {
		err = cerr
	}
	return err
}

// unchanged fails if the file was written or truncated since it was mapped.
func (m *mapping) unchanged() error {
	info, err := m.file.Stat()
	if err != nil {
		return fileError(m.path, "file", "%v", cause(err))
	}
	if info.Size() != m.size {
		return fileError(m.path, "size", "was %d bytes when it was opened, now %d", m.size, info.Size())
	}
	if !info.ModTime().Equal(m.modTime) {
		return fileError(m.path, "file", "was written after it was opened")
	}
	return nil
}

// read copies the bytes from offset into dst. It fails if they can no longer
// be read. A range outside the mapping is the caller's bug and panics.
func (m *mapping) read(dst []byte, offset int64) (err error) {
	src := m.data[offset : offset+int64(len(dst))]
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		fault, ok := r.(interface{ Addr() uintptr })
		start := uintptr(unsafe.Pointer(unsafe.SliceData(m.data)))
		if !ok || fault.Addr() < start || fault.Addr() >= start+uintptr(len(m.data)) {
			panic(r)
		}
		err = fileError(m.path, "file", "cannot be read at byte %d: it was truncated while in use, or its disk fails", fault.Addr()-start)
	}()
	copy(dst, src)
	return nil
}

// release tells the kernel that the bytes are not needed again soon, so that a
// model being loaded does not count twice in the process's resident memory.
func (m *mapping) release(offset, n int64) {
	page := int64(os.Getpagesize())
	first, last := (offset+page-1)/page*page, (offset+n)/page*page
	if first < last {
		_ = unix.Madvise(m.data[first:last], unix.MADV_DONTNEED) // advice: a refusal costs nothing
	}
}
