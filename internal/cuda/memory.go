//go:build cuda

package cuda

// #include "driver.h"
//
// #cgo noescape pg_copy_batch
// #cgo nocallback pg_copy_batch
import "C"

import (
	"fmt"
	"unsafe"
)

// Malloc reserves device memory, aligned to 256 bytes.
func Malloc(bytes int64) (Ptr, error) {
	if err := allocate("cuMemAlloc"); err != nil {
		return 0, err
	}
	var p C.CUdeviceptr
	err := check("cuMemAlloc", C.int(C.cuMemAlloc(&p, C.size_t(bytes))))
	return Ptr(p), err
}

// Free returns Malloc's memory; 0 is none.
func Free(p Ptr) error {
	if p == 0 {
		return nil
	}
	return check("cuMemFree", C.int(C.cuMemFree(C.CUdeviceptr(p))))
}

// HostAlloc reserves pinned host memory for buffers, which the device reads and writes at
// the same address.
func HostAlloc(bytes int64) (unsafe.Pointer, error) {
	if err := allocate("cuMemHostAlloc"); err != nil {
		return nil, err
	}
	var p unsafe.Pointer
	err := check("cuMemHostAlloc", C.int(C.cuMemHostAlloc(&p, C.size_t(bytes), C.CU_MEMHOSTALLOC_PORTABLE|C.CU_MEMHOSTALLOC_DEVICEMAP)))
	return p, err
}

// HostFree returns HostAlloc's memory.
func HostFree(p unsafe.Pointer) error { return check("cuMemFreeHost", C.int(C.cuMemFreeHost(p))) }

// ToDevice copies pinned host memory to the device, in the stream's order.
func (s *Stream) ToDevice(dst Ptr, src unsafe.Pointer, bytes int) error {
	return check("cuMemcpyHtoDAsync", C.int(C.cuMemcpyHtoDAsync(C.CUdeviceptr(dst), src, C.size_t(bytes), s.c())))
}

// ToHost copies device memory to pinned host memory, in the stream's order.
func (s *Stream) ToHost(dst unsafe.Pointer, src Ptr, bytes int) error {
	return check("cuMemcpyDtoHAsync", C.int(C.cuMemcpyDtoHAsync(dst, C.CUdeviceptr(src), C.size_t(bytes), s.c())))
}

// Clear sets bytes of device memory, a multiple of 4, to zero, in the stream's
// order.
func (s *Stream) Clear(dst Ptr, bytes int64) error {
	return check("cuMemsetD32Async", C.int(C.cuMemsetD32Async(C.CUdeviceptr(dst), 0, C.size_t(bytes/4), s.c())))
}

// CopyBatch queues copies of sizes[i] bytes from src[i] to dst[i], each a device
// or pinned host address; they may run in any order among themselves.
func (s *Stream) CopyBatch(dst, src []Ptr, sizes []uint64) error {
	if len(dst) == 0 {
		return nil
	}
	return check("cuMemcpyBatchAsync", C.pg_copy_batch((*C.uint64_t)(unsafe.Pointer(&dst[0])), (*C.uint64_t)(unsafe.Pointer(&src[0])),
		(*C.size_t)(unsafe.Pointer(&sizes[0])), C.size_t(len(dst)), s.raw()))
}

// Range is a range of device addresses that was reserved once. Parts of it, in
// whole units, are backed by memory; backing more or less never moves it.
type Range struct {
	Base       Ptr
	device     int
	unit, size uint64
	units      []backing
	backed     int // units
}

// backing is the memory behind a unit.
type backing struct {
	handle C.uint64_t
	there  bool
}

// NewRange reserves addresses for up to bytes, backed in units of ChunkBytes or
// PatchBytes; no memory yet.
func (d *Device) NewRange(bytes, unit int64) (*Range, error) {
	if err := allocate("cuMemAddressReserve"); err != nil {
		return nil, err
	}
	size := (uint64(bytes) + uint64(unit) - 1) / uint64(unit) * uint64(unit)
	var base C.uint64_t
	if err := check("cuMemAddressReserve", C.pg_range_reserve(C.uint64_t(size), &base)); err != nil {
		return nil, err
	}
	return &Range{Base: Ptr(base), device: int(d.dev), unit: uint64(unit), size: size, units: make([]backing, size/uint64(unit))}, nil
}

// Reserved is the most bytes that Resize can back.
func (r *Range) Reserved() int64 { return int64(r.size) }

// Backed is the bytes that are backed by memory.
func (r *Range) Backed() int64 { return int64(r.backed) * int64(r.unit) }

// Resize backs the first bytes of the range, rounded up to units, and gives the
// memory of the rest back. Nothing on the device may use what goes. On an error
// the range is as it was.
func (r *Range) Resize(bytes int64) error {
	_, err := r.Back([]Span{{0, bytes}})
	return err
}

// Back backs the units that the spans touch and gives the memory of all others
// back; fresh are those that had none. Nothing on the device may use what goes. On
// an error the range is as it was.
func (r *Range) Back(spans []Span) (fresh []Span, err error) {
	want := make([]bool, len(r.units))
	for _, s := range spans {
		for i := uint64(s.At) / r.unit; s.Bytes > 0 && i <= uint64(s.At+s.Bytes-1)/r.unit; i++ {
			if i >= uint64(len(want)) {
				return nil, fmt.Errorf("cuda: backing %d bytes at %d of a range of %d", s.Bytes, s.At, r.size)
			}
			want[i] = true
		}
	}
	for i := range r.units {
		if !want[i] || r.units[i].there {
			continue
		}
		if err := r.mapUnit(i); err != nil {
			for _, s := range fresh {
				_ = r.unmapUnit(int(uint64(s.At) / r.unit)) // the first error says more
			}
			return nil, err
		}
		fresh = append(fresh, Span{int64(i) * int64(r.unit), int64(r.unit)})
	}
	for i := len(r.units) - 1; i >= 0; i-- {
		if !want[i] && r.units[i].there {
			if err := r.unmapUnit(i); err != nil {
				return fresh, err
			}
		}
	}
	return fresh, nil
}

func (r *Range) mapUnit(i int) error {
	if err := allocate("cuMemCreate"); err != nil {
		return err
	}
	if err := check("cuMemCreate", C.pg_range_map(C.int(r.device), C.uint64_t(r.Base), C.uint64_t(r.unit), C.uint64_t(i), &r.units[i].handle)); err != nil {
		return err
	}
	r.units[i].there = true
	r.backed++
	return nil
}

func (r *Range) unmapUnit(i int) error {
	if err := check("cuMemUnmap", C.pg_range_unmap(C.uint64_t(r.Base), C.uint64_t(r.unit), C.uint64_t(i), r.units[i].handle)); err != nil {
		return err
	}
	r.units[i].there = false
	r.backed--
	return nil
}

// Free gives memory and addresses back.
func (r *Range) Free() error {
	if err := r.Resize(0); err != nil {
		return err
	}
	return check("cuMemAddressFree", C.int(C.cuMemAddressFree(C.CUdeviceptr(r.Base), C.size_t(r.size))))
}

// TensorMap is a CUtensorMap: how the bulk copy engine sees a matrix.
type TensorMap [128]byte

var _ TensorMap = [C.sizeof_CUtensorMap]byte{}

// NewPanelMap describes a float16 matrix [rows, cols], of a multiple of 64 columns, as panels of 64
// columns, whose rows lie rowStride bytes apart, and which lie panelStride bytes apart (multiples of
// 16): a box is boxRows rows of boxPanels neighbouring panels, one panel behind the other, swizzled by
// 128 bytes; what is outside reads as zero.
func NewPanelMap(base Ptr, rows, cols int, rowStride, panelStride int64, boxRows, boxPanels int) (TensorMap, error) {
	var m TensorMap
	err := check("cuTensorMapEncodeTiled", C.pg_panel_map(unsafe.Pointer(&m), C.uint64_t(base), C.uint64_t(rows), C.uint64_t(cols),
		C.uint64_t(rowStride), C.uint64_t(panelStride), C.uint32_t(boxRows), C.uint32_t(boxPanels)))
	return m, err
}

// NewGroupMap describes rows of cols 16-bit values without gaps, cols a multiple of 64, as
// groups of eight rows: a box is boxGroups groups, each the panels of 64 columns of its rows,
// one behind the other, swizzled by 128 bytes. What is not read need not be backed.
func NewGroupMap(base Ptr, rows int64, cols, boxGroups int) (TensorMap, error) {
	var m TensorMap
	err := check("cuTensorMapEncodeTiled", C.pg_group_map(unsafe.Pointer(&m), C.uint64_t(base), C.uint64_t(rows), C.uint64_t(cols), C.uint32_t(boxGroups)))
	return m, err
}
