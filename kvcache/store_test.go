package kvcache

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// pool records what a Store asks of it.
type pool struct {
	kernels.Pool
	device, host int
	copies       []kernels.BlockCopy
	out, in      []kernels.BlockCopy
	err          error
}

func (p *pool) KV() kernels.PagedKV {
	return kernels.NewPagedKV(kernels.Shape{Layers: 2, KVHeads: 1, HeadDim: 4}, 16)
}

func (p *pool) ResizePool(device, host int) error {
	if p.err == nil {
		p.device, p.host = device, host
	}
	return p.err
}

func (p *pool) CopyBlocks(c []kernels.BlockCopy)             { p.copies = append(p.copies, c...) }
func (p *pool) SwapOut(c []kernels.BlockCopy) kernels.Ticket { p.out = c; return 1 }
func (p *pool) SwapIn(c []kernels.BlockCopy) kernels.Ticket  { p.in = c; return 2 }
func (p *pool) SwapDone(t kernels.Ticket, wait bool) (time.Duration, bool, error) {
	return time.Second, t == 1 && !wait, p.err
}

func TestStore(t *testing.T) {
	p := &pool{}
	s, err := NewStore(p, 10, 3)
	require.NoError(t, err)
	require.Equal(t, []int{10, 3}, []int{p.device, p.host})
	one := []kernels.BlockCopy{{Src: 1, Dst: 2}}
	copies := []Copy{{Src: 1, Dst: 2}}
	s.Copy(nil)
	s.Copy(copies)
	require.Equal(t, one, p.copies)
	require.EqualValues(t, 1, s.SwapOut(copies))
	require.EqualValues(t, 2, s.SwapIn(copies))
	require.Equal(t, one, p.out)
	require.Equal(t, one, p.in)
	took, done, err := s.Done(1, false)
	require.NoError(t, err)
	require.True(t, done)
	require.Equal(t, time.Second, took)
	_, done, err = s.Done(1, true)
	require.NoError(t, err)
	require.False(t, done, "wait is passed on")
	_, done, err = s.Done(2, false)
	require.NoError(t, err)
	require.False(t, done)
	p.err = errors.New("full")
	require.ErrorIs(t, s.Resize(20, 3), p.err)
	require.ErrorContains(t, s.Resize(20, 3), "20 device and 3 host blocks of 512 bytes")
	require.Panics(t, func() { _ = s.Resize(1, 0) })
	_, err = NewStore(p, 10, 3)
	require.ErrorIs(t, err, p.err)
}

// TestPoisonFree: blocks are poisoned when they become free and unpublished,
// once, and never while somebody can still ask for them.
func TestPoisonFree(t *testing.T) {
	m, err := NewManager(Config{NumBlocks: 6, BlockSize: 2})
	require.NoError(t, err)
	s, err := NewStore(&pool{}, 6, 0)
	require.NoError(t, err)
	var poisoned []int32
	poison := func() []int32 {
		poisoned = nil
		s.PoisonFree(m, func(block int32, values []uint16) {
			require.Len(t, values, 256)
			require.NotEqual(t, kernels.BF16ToFloat(values[0]), kernels.BF16ToFloat(values[0]), "not a NaN")
			poisoned = append(poisoned, block)
		})
		return poisoned
	}
	require.Equal(t, []int32{1, 2, 3, 4, 5}, poison())
	require.Empty(t, poison())
	var table BlockTable
	_, ok := m.Admit(&table, []int32{7, 8, 9}, "", 0)
	require.True(t, ok)
	blocks := append([]BlockID{}, table.IDs()...)
	require.Empty(t, poison())
	m.Publish(&table, []int32{7, 8, 9}, "", 3) // the first block is full
	m.Release(&table)
	require.Equal(t, []int32{int32(blocks[1])}, poison(), "the partial block alone")
	m.ResetPrefixCache()
	require.Equal(t, []int32{int32(blocks[0])}, poison())
}
