//go:build cuda

package cuda

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unsafe"

	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
)

// pool is the KV cache's blocks on the device and on the host.
type pool struct {
	kv     pagedKV
	tokens tensorMap // of groups of eight tokens, for attention_sm90.cu
	device *cuda.Range
	blocks int // device blocks

	host       []cuda.Pinned // chunks of hostPer blocks each
	hostPer    int
	hostBlocks int

	dst, src []cuda.Ptr // scratch of a batch of copies
	sizes    []uint64
	began    [swapRing]cuda.Event // of the last batches of swaps
	tickets  [swapRing]cuda.Event // their ends
	issued   kernels.Ticket       // swaps
}

const (
	// swapRing is the batches of swaps that may be under way.
	swapRing = 64
	// hostChunk is the pinned memory that is reserved as one, in bytes.
	hostChunk = 64 << 20
)

// initPool reserves addresses for as many blocks as the card could hold.
func (b *Backend) initPool() (err error) {
	p := &b.pool
	if p.device, err = b.device.NewRange(b.device.TotalMemory, cuda.ChunkBytes); err != nil {
		return fmt.Errorf("reserving addresses for the KV pool: %w", err)
	}
	p.kv = newPagedKV(b.kv, p.device.Base)
	if b.arch.hopper && sm90Attention(b.kv.HeadDim).rows > 0 {
		m, err := cuda.NewGroupMap(p.device.Base, p.device.Reserved()/int64(2*b.kv.HeadDim), b.kv.HeadDim, b.kv.BlockSize/8)
		if err != nil {
			return fmt.Errorf("describing the KV pool to the copy engine: %w", err)
		}
		p.tokens = tensorMap(m)
	}
	p.hostPer = int(max(1, hostChunk/b.kv.BlockBytes()))
	for i := range p.tickets {
		if p.began[i], err = cuda.NewEvent(); err != nil {
			return err
		}
		if p.tickets[i], err = cuda.NewEvent(); err != nil {
			return err
		}
	}
	return nil
}

func (p *pool) free() error {
	if p.device == nil {
		return nil
	}
	var errs []error
	for i := range p.tickets {
		errs = append(errs, p.began[i].Destroy(), p.tickets[i].Destroy())
	}
	return errors.Join(append(errs, cuda.FreePinned(p.host), p.device.Free())...)
}

// KV implements kernels.Pool.
func (b *Backend) KV() kernels.PagedKV { return b.kv }

// ResizePool implements kernels.Pool.
func (b *Backend) ResizePool(deviceBlocks, hostBlocks int) error {
	if b.place == nil {
		panic("cuda: ResizePool before Setup")
	}
	if b.drainSteps(); b.err != nil { // swaps under way do not touch what changes
		return b.err
	}
	p, size := &b.pool, b.kv.BlockBytes()
	// Slots are numbered in int32.
	if limit := min(p.device.Reserved()/size, math.MaxInt32/int64(b.limits.BlockSize)); deviceBlocks < 1 || hostBlocks < 0 ||
		int64(deviceBlocks) > limit || int64(hostBlocks) > math.MaxInt32 {
		return fmt.Errorf("cuda: a pool of %d device and %d host blocks of %d bytes; want 1 to %d, and 0 or more", deviceBlocks, hostBlocks, size, limit)
	}
	before := p.device.Backed()
	if err := p.device.Resize(int64(deviceBlocks) * size); err != nil {
		return memory(fmt.Errorf("cuda: resizing the pool to %d blocks of %d bytes: %w", deviceBlocks, size, err))
	}
	if err := p.resizeHost(hostBlocks); err != nil {
		_ = p.device.Resize(before) // was possible before
		return memory(fmt.Errorf("cuda: resizing the swap pool to %d blocks of %d bytes: %w", hostBlocks, size, err))
	}
	p.blocks, p.hostBlocks = deviceBlocks, hostBlocks
	return nil
}

// resizeHost pins or frees whole chunks; when pinning fails, none.
func (p *pool) resizeHost(blocks int) error {
	want, have := ceilDiv(blocks, p.hostPer), len(p.host)
	if want > have {
		more, err := cuda.NewPinned(want-have, p.chunkBytes())
		p.host = append(p.host, more...)
		return err
	}
	surplus := p.host[want:]
	p.host = p.host[:want]
	return cuda.FreePinned(surplus)
}

func (p *pool) chunkBytes() int64 { return int64(p.hostPer) * p.kv.block * 2 }

func (p *pool) deviceBlock(id int32) cuda.Ptr { return p.kv.base + cuda.Ptr(int64(id)*p.kv.block*2) }

func (p *pool) hostBlock(id int32) cuda.Ptr {
	chunk := p.host[int(id)/p.hostPer]
	return cuda.Ptr(uintptr(chunk.Pointer())) + cuda.Ptr(int64(int(id)%p.hostPer)*p.kv.block*2)
}

// CopyBlocks implements kernels.Pool.
func (b *Backend) CopyBlocks(copies []kernels.BlockCopy) {
	b.copyBlocks(kernels.OpCopy, copies, b.pool.deviceBlock, b.pool.deviceBlock, b.pool.blocks, b.pool.blocks, &b.compute)
}

// SwapOut implements kernels.Pool.
func (b *Backend) SwapOut(copies []kernels.BlockCopy) kernels.Ticket {
	return b.swapBlocks(kernels.OpSwapOut, copies, b.pool.deviceBlock, b.pool.hostBlock, b.pool.blocks, b.pool.hostBlocks)
}

// SwapIn implements kernels.Pool.
func (b *Backend) SwapIn(copies []kernels.BlockCopy) kernels.Ticket {
	return b.swapBlocks(kernels.OpSwapIn, copies, b.pool.hostBlock, b.pool.deviceBlock, b.pool.hostBlocks, b.pool.blocks)
}

// swapBlocks copies on the swap stream, behind what the compute stream was given
// so far.
func (b *Backend) swapBlocks(op kernels.Op, copies []kernels.BlockCopy, src, dst func(int32) cuda.Ptr, srcBlocks, dstBlocks int) kernels.Ticket {
	p := &b.pool
	p.issued++
	done := &p.tickets[int(p.issued)%swapRing]
	if b.err == nil {
		b.flush()
		b.fail(op, b.swapAfter.Record(&b.compute))
		b.fail(op, b.swap.Wait(&b.swapAfter))
		b.fail(op, p.began[int(p.issued)%swapRing].Record(&b.swap))
	}
	b.copyBlocks(op, copies, src, dst, srcBlocks, dstBlocks, &b.swap)
	if b.err == nil {
		b.fail(op, done.Record(&b.swap))
	}
	return p.issued
}

// SwapDone implements kernels.Pool.
func (b *Backend) SwapDone(t kernels.Ticket, wait bool) (took time.Duration, done bool, err error) {
	p := &b.pool
	if t < 1 || t > p.issued {
		panic(fmt.Sprintf("cuda: swap %d; %d were issued", t, p.issued))
	}
	if b.err != nil {
		return 0, false, b.err
	}
	// An older ticket's events serve a later batch by now, which ends after it.
	began, ended := &p.began[int(t)%swapRing], &p.tickets[int(t)%swapRing]
	if wait {
		done, err = true, ended.Sync()
	} else {
		done, err = ended.Done()
	}
	b.fail("swap", err)
	if !done || b.err != nil {
		return 0, false, b.err
	}
	took, err = ended.Since(began)
	b.fail("swap", err)
	return took, b.err == nil, b.err
}

func (b *Backend) copyBlocks(op kernels.Op, copies []kernels.BlockCopy, src, dst func(int32) cuda.Ptr, srcBlocks, dstBlocks int, stream *cuda.Stream) {
	if len(copies) == 0 || b.err != nil {
		return
	}
	b.flush()
	p, bytes := &b.pool, b.kv.BlockBytes()
	p.dst, p.src, p.sizes = p.dst[:0], p.src[:0], p.sizes[:0]
	for _, c := range copies {
		if c.Src < 0 || int(c.Src) >= srcBlocks || c.Dst < 0 || int(c.Dst) >= dstBlocks {
			panic(fmt.Sprintf("cuda: %s: block %d to %d; have %d and %d", op, c.Src, c.Dst, srcBlocks, dstBlocks))
		}
		p.add(dst(c.Dst), src(c.Src), uint64(bytes))
	}
	// Events are of the compute stream: they do not see swaps.
	seen := b.profiler.tracer != nil || stream == &b.compute
	if seen {
		b.profiler.begin(b)
	}
	b.fail(op, stream.CopyBatch(p.dst, p.src, p.sizes))
	if seen {
		b.profiler.end(b, op, 2*bytes*int64(len(copies)), 0)
	}
}

// add adds a copy to the batch. Blocks that lie together and come to lie together are one copy,
// for each takes the copy engine about a microsecond beyond its bytes, and the host nearly as
// long; chunks of host memory never touch.
func (p *pool) add(dst, src cuda.Ptr, bytes uint64) {
	if n := len(p.sizes) - 1; n >= 0 && p.dst[n]+cuda.Ptr(p.sizes[n]) == dst && p.src[n]+cuda.Ptr(p.sizes[n]) == src {
		p.sizes[n] += bytes
		return
	}
	p.dst, p.src, p.sizes = append(p.dst, dst), append(p.src, src), append(p.sizes, bytes)
}

// blockAddress panics on an id outside the pool.
func (b *Backend) blockAddress(block int32) cuda.Ptr {
	if block < 0 || int(block) >= b.pool.blocks {
		panic(fmt.Sprintf("cuda: block %d of %d", block, b.pool.blocks))
	}
	return b.pool.deviceBlock(block)
}

// ReadBlock implements kernels.Inspector.
func (b *Backend) ReadBlock(block int32) []uint16 {
	from, out := b.blockAddress(block), make([]uint16, b.kv.BlockElems())
	b.drain()
	b.fail("read", b.compute.ToHost(unsafe.Pointer(&out[0]), from, 2*len(out)))
	b.fail("read", b.compute.Sync())
	return out
}

// WriteBlock implements kernels.Inspector.
func (b *Backend) WriteBlock(block int32, values []uint16) {
	if len(values) != b.kv.BlockElems() {
		panic(fmt.Sprintf("cuda: %d values for a block of %d", len(values), b.kv.BlockElems()))
	}
	to := b.blockAddress(block)
	b.drain()
	b.fail("write", b.compute.ToDevice(to, unsafe.Pointer(&values[0]), 2*len(values)))
	b.fail("write", b.compute.Sync())
}
