package kvcache

import (
	"fmt"
	"time"

	"github.com/pagoda-engine/pagoda/kernels"
)

// Store is the bytes behind the block ids: the pool of a kernels.Backend. The
// Manager decides, the Store carries out. Like both it belongs to the engine's
// goroutine.
type Store struct {
	pool     kernels.Pool
	scratch  []kernels.BlockCopy
	nan      []uint16
	poisoned []bool
}

// NewStore gives the pool device and host blocks, the reserved device block 0
// included.
func NewStore(pool kernels.Pool, device, host int) (*Store, error) {
	s := &Store{pool: pool}
	if err := s.Resize(device, host); err != nil {
		return nil, err
	}
	return s, nil
}

// Resize changes the number of blocks. No block beyond the new sizes may be in
// use. After an error everything is as it was.
func (s *Store) Resize(device, host int) error {
	if device < 2 || host < 0 {
		panic(fmt.Sprintf("kvcache: Resize to %d device and %d host blocks", device, host))
	}
	if err := s.pool.ResizePool(device, host); err != nil {
		return fmt.Errorf("kv pool of %d device and %d host blocks of %d bytes: %w", device, host, s.pool.KV().BlockBytes(), err)
	}
	return nil
}

// Copy copies whole blocks on the device, after all that was launched before
// and before all that is launched next.
func (s *Store) Copy(copies []Copy) {
	if len(copies) > 0 {
		s.pool.CopyBlocks(s.convert(copies))
	}
}

// SwapOut begins copying device blocks (Src) to host blocks (Dst). The blocks
// are in flight until Done says that the ticket's copies are finished.
func (s *Store) SwapOut(copies []Copy) kernels.Ticket { return s.pool.SwapOut(s.convert(copies)) }

// SwapIn begins copying host blocks (Src) to device blocks (Dst).
func (s *Store) SwapIn(copies []Copy) kernels.Ticket { return s.pool.SwapIn(s.convert(copies)) }

// convert gives the copies the type that a Pool takes; a Pool does not keep them.
func (s *Store) convert(copies []Copy) []kernels.BlockCopy {
	s.scratch = s.scratch[:0]
	for _, c := range copies {
		s.scratch = append(s.scratch, kernels.BlockCopy(c))
	}
	return s.scratch
}

// Done says whether the copies of a SwapOut or SwapIn are finished, and with wait
// blocks until they are; took is the time that the copying took.
func (s *Store) Done(t kernels.Ticket, wait bool) (took time.Duration, done bool, err error) {
	return s.pool.SwapDone(t, wait)
}

// BlockBytes is the size of a block.
func (s *Store) BlockBytes() int64 { return s.pool.KV().BlockBytes() }

// PoisonFree fills the blocks that are free and not cached with NaN, so that a
// kernel which reads one shows it. A block is filled once: PoisonFree must run
// after each step's Schedule and Update to see every change of hands. Only for
// builds with tag invariants.
func (s *Store) PoisonFree(m *Manager, write func(block int32, values []uint16)) {
	if s.nan == nil {
		s.nan = make([]uint16, s.pool.KV().BlockElems())
		for i := range s.nan {
			s.nan[i] = 0x7FC0 // a NaN in bfloat16 and in float16
		}
	}
	if len(s.poisoned) < len(m.blocks) {
		s.poisoned = append(s.poisoned, make([]bool, len(m.blocks)-len(s.poisoned))...)
	}
	for id := 1; id < len(m.blocks); id++ {
		free := m.blocks[id].refs == 0 && m.blocks[id].copies == 0 && !m.blocks[id].published && !m.retired(BlockID(id))
		if free && !s.poisoned[id] {
			write(int32(id), s.nan)
		}
		s.poisoned[id] = free
	}
}
