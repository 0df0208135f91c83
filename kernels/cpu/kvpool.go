package cpu

// #include "device.h"
import "C"

import (
	"fmt"
	"math"
	"syscall"
	"time"
	"unsafe"

	"github.com/pagoda-engine/pagoda/kernels"
)

// reservePool reserves addresses for as many blocks as the machine's memory
// could hold, on the device's side and on the host's, and for as many weights.
func (b *Backend) reservePool() error {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return fmt.Errorf("cpu: reading the size of the machine's memory: %w", err)
	}
	bytes := C.int64_t(info.Totalram)*C.int64_t(info.Unit) + 4<<20 // room for whole huge pages
	for _, r := range []*C.struct_pg_blocks{&b.device.device_blocks, &b.device.host_blocks, &b.device.weights} {
		if errno := C.pg_blocks_reserve(r, bytes); errno != 0 {
			b.freePool()
			return fmt.Errorf("cpu: reserving addresses for %d bytes of KV blocks and weights: %w", bytes, syscall.Errno(errno))
		}
	}
	b.device.kv_blocks = (*C.uint16_t)(unsafe.Pointer(b.device.device_blocks.base))
	return nil
}

func (b *Backend) freePool() {
	C.pg_blocks_free(&b.device.device_blocks)
	C.pg_blocks_free(&b.device.host_blocks)
	C.pg_blocks_free(&b.device.weights)
}

// KV implements kernels.Pool.
func (b *Backend) KV() kernels.PagedKV { return b.kv }

// ResizePool implements kernels.Pool.
func (b *Backend) ResizePool(deviceBlocks, hostBlocks int) error {
	if b.workspace == nil {
		panic("cpu: ResizePool before Setup")
	}
	b.drain()
	size := b.kv.BlockBytes()
	// Slots are numbered in int32.
	if limit := min(int64(b.device.device_blocks.reserved)/size, math.MaxInt32/int64(b.limits.BlockSize)); deviceBlocks < 1 || hostBlocks < 0 ||
		int64(deviceBlocks) > limit || int64(hostBlocks) > limit {
		return fmt.Errorf("cpu: a pool of %d device and %d host blocks of %d bytes; want 1 to %d, and 0 to %d", deviceBlocks, hostBlocks, size, limit, limit)
	}
	if errno := C.pg_blocks_resize(&b.device.device_blocks, C.int64_t(int64(deviceBlocks)*size)); errno != 0 {
		return fmt.Errorf("cpu: resizing the pool to %d blocks of %d bytes: %w", deviceBlocks, size, syscall.Errno(errno))
	}
	if errno := C.pg_blocks_resize(&b.device.host_blocks, C.int64_t(int64(hostBlocks)*size)); errno != 0 {
		// The size before was possible, so it is again.
		C.pg_blocks_resize(&b.device.device_blocks, C.int64_t(int64(b.numBlocks)*size))
		return fmt.Errorf("cpu: resizing the swap pool to %d blocks of %d bytes: %w", hostBlocks, size, syscall.Errno(errno))
	}
	b.numBlocks, b.hostBlocks = deviceBlocks, hostBlocks
	return nil
}

// CopyBlocks implements kernels.Pool.
func (b *Backend) CopyBlocks(copies []kernels.BlockCopy) {
	b.copyBlocks(kernels.OpCopy, copies, &b.device.device_blocks, &b.device.device_blocks, b.numBlocks, b.numBlocks)
}

// SwapOut implements kernels.Pool. The copies are done when it returns.
func (b *Backend) SwapOut(copies []kernels.BlockCopy) kernels.Ticket {
	return b.swapped(b.copyBlocks(kernels.OpSwapOut, copies, &b.device.device_blocks, &b.device.host_blocks, b.numBlocks, b.hostBlocks))
}

// SwapIn implements kernels.Pool. The copies are done when it returns.
func (b *Backend) SwapIn(copies []kernels.BlockCopy) kernels.Ticket {
	return b.swapped(b.copyBlocks(kernels.OpSwapIn, copies, &b.device.host_blocks, &b.device.device_blocks, b.hostBlocks, b.numBlocks))
}

// swapped issues a ticket for copies that are done.
func (b *Backend) swapped(took time.Duration) kernels.Ticket {
	b.swaps++
	b.swapTook[int(b.swaps)%len(b.swapTook)] = took
	return b.swaps
}

// SwapDone implements kernels.Pool.
func (b *Backend) SwapDone(t kernels.Ticket, _ bool) (time.Duration, bool, error) {
	return b.swapTook[int(t)%len(b.swapTook)], true, b.err
}

// copyBlocks returns the time that the copies took.
func (b *Backend) copyBlocks(name kernels.Op, copies []kernels.BlockCopy, src, dst *C.struct_pg_blocks, srcCount, dstCount int) time.Duration {
	if len(copies) == 0 || b.err != nil {
		return 0
	}
	for _, c := range copies {
		if c.Src < 0 || int(c.Src) >= srcCount || c.Dst < 0 || int(c.Dst) >= dstCount {
			panic(fmt.Sprintf("cpu: %s: block %d to %d; have %d and %d", name, c.Src, c.Dst, srcCount, dstCount))
		}
	}
	b.drain()
	bytes := b.kv.BlockBytes()
	var op C.struct_pg_op
	C.pg_copy_blocks(b.device, &op, src.base, dst.base, C.int64_t(bytes), C.int(len(copies)),
		(*C.int32_t)(unsafe.Pointer(unsafe.SliceData(copies))))
	if b.profiler != nil {
		b.records = append(b.records, kernels.OpRecord{
			Op: name, Layer: -1, Start: nanoseconds(op.start_ns - C.int64_t(b.origin)),
			Duration: nanoseconds(op.end_ns - op.start_ns), Busy: nanoseconds(op.busy_ns), Bytes: 2 * bytes * int64(len(copies)),
		})
	}
	return nanoseconds(op.end_ns - op.start_ns)
}

// block is a device block's values.
func (b *Backend) block(id int32) []uint16 {
	if id < 0 || int(id) >= b.numBlocks {
		panic(fmt.Sprintf("cpu: block %d of %d", id, b.numBlocks))
	}
	n := b.kv.BlockElems()
	return view[uint16](b.device.kv_blocks, n*b.numBlocks)[int(id)*n : (int(id)+1)*n]
}

// ReadBlock implements kernels.Inspector.
func (b *Backend) ReadBlock(block int32) []uint16 {
	b.drain()
	return append([]uint16(nil), b.block(block)...)
}

// WriteBlock implements kernels.Inspector.
func (b *Backend) WriteBlock(block int32, values []uint16) {
	if len(values) != b.kv.BlockElems() {
		panic(fmt.Sprintf("cpu: %d values for a block of %d", len(values), b.kv.BlockElems()))
	}
	b.drain()
	copy(b.block(block), values)
}
