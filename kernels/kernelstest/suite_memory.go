package kernelstest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// fillBlocks gives every block of both pools values of its own and returns them.
func (p *pair) fillBlocks() [][]uint16 {
	blocks := make([][]uint16, p.blocks)
	for i := range blocks {
		blocks[i] = make([]uint16, p.want.KV().BlockElems())
		for j := range blocks[i] {
			blocks[i][j] = uint16(p.rng.Uint32())
		}
		p.writeBlock(int32(i), blocks[i])
	}
	return blocks
}

func (s *suite) pool(t *testing.T) {
	for _, g := range []geometry{tiny, smol, qwen15} {
		for _, blockSize := range []int{16, 32, 64} {
			t.Run(g.String()+"/"+map[int]string{16: "b16", 32: "b32", 64: "b64"}[blockSize], func(t *testing.T) {
				p := s.newPair(t, g.shape(), limitsFor(8, 2, 64, blockSize), 9)
				require.Equal(t, p.want.KV(), p.got.KV())
				s.copyAndSwap(p)
			})
		}
	}
	t.Run("resize", func(t *testing.T) {
		p := s.newPair(t, tiny.shape(), limitsFor(8, 2, 64, 16), 9)
		blocks := p.fillBlocks()
		require.NoError(t, p.got.ResizePool(40, 3))
		for i := range blocks {
			require.Equal(t, blocks[i], p.got.ReadBlock(int32(i)), "growing changed block %d", i)
		}
		p.got.WriteBlock(39, blocks[2])
		require.Equal(t, blocks[2], p.got.ReadBlock(39))
		require.NoError(t, p.got.ResizePool(5, 0))
		for i := range blocks[:5] {
			require.Equal(t, blocks[i], p.got.ReadBlock(int32(i)), "shrinking changed block %d", i)
		}
		require.NoError(t, p.got.ResizePool(9, 0))
		p.got.WriteBlock(8, blocks[3])
		require.Equal(t, blocks[3], p.got.ReadBlock(8))
	})
}

// copyAndSwap copies blocks on the device, out to the host, over, and back.
func (s *suite) copyAndSwap(p *pair) {
	t := p.t
	blocks := p.fillBlocks()
	require.NoError(t, p.got.ResizePool(p.blocks, 4))
	p.got.CopyBlocks([]kernels.BlockCopy{{Src: 3, Dst: 7}, {Src: 1, Dst: 2}})
	require.NoError(t, p.got.Sync())
	require.Equal(t, blocks[3], p.got.ReadBlock(7))
	require.Equal(t, blocks[1], p.got.ReadBlock(2))

	out := p.got.SwapOut([]kernels.BlockCopy{{Src: 7, Dst: 1}, {Src: 4, Dst: 3}})
	took, done, err := p.got.SwapDone(out, true)
	require.NoError(t, err)
	require.True(t, done)
	require.GreaterOrEqual(t, took, time.Duration(0))
	p.got.WriteBlock(7, blocks[8])
	in := p.got.SwapIn([]kernels.BlockCopy{{Src: 3, Dst: 5}, {Src: 1, Dst: 6}})
	_, done, err = p.got.SwapDone(in, true)
	require.NoError(t, err)
	require.True(t, done)
	_, done, err = p.got.SwapDone(in, false)
	require.NoError(t, err)
	require.True(t, done, "a finished copy stays finished")
	want := map[int32]int{0: 0, 1: 1, 2: 1, 3: 3, 4: 4, 5: 4, 6: 3, 7: 8, 8: 8}
	for block, source := range want {
		require.Equal(t, blocks[source], p.got.ReadBlock(block), "block %d", block)
	}
	s.swapRuns(p)
}

// swapRuns swaps blocks that lie together to where they lie together, which may be one copy,
// and some that do so on one side only.
func (s *suite) swapRuns(p *pair) {
	t, blocks := p.t, p.fillBlocks()
	_, _, err := p.got.SwapDone(p.got.SwapOut([]kernels.BlockCopy{{Src: 1, Dst: 0}, {Src: 2, Dst: 1}, {Src: 3, Dst: 3}, {Src: 4, Dst: 2}}), true)
	require.NoError(t, err)
	_, _, err = p.got.SwapDone(p.got.SwapIn([]kernels.BlockCopy{{Src: 0, Dst: 5}, {Src: 1, Dst: 6}, {Src: 2, Dst: 3}, {Src: 3, Dst: 4}}), true)
	require.NoError(t, err)
	p.got.CopyBlocks([]kernels.BlockCopy{{Src: 7, Dst: 1}, {Src: 8, Dst: 2}})
	require.NoError(t, p.got.Sync())
	for block, source := range []int{0, 7, 8, 4, 3, 1, 2, 7, 8} {
		require.Equal(t, blocks[source], p.got.ReadBlock(int32(block)), "block %d", block)
	}
}

// rows checks the row state: tables that grow, rows given to others, and last
// tokens that only the device knows.
func (s *suite) rows(t *testing.T) {
	t.Run("append", func(t *testing.T) { s.appendBlocks(t, 16) })
	t.Run("append_b64", func(t *testing.T) { s.appendBlocks(t, 64) })
	t.Run("reset", s.resetRow)
	t.Run("from_device", s.fromDevice)
}

// appendBlocks computes one sequence in chunks of three tokens, whose blocks
// come one by one. A key that was rounded otherwise moves the outputs by up to a
// unit of bfloat16, so that this is their tolerance.
func (s *suite) appendBlocks(t *testing.T, blockSize int) {
	p := s.newPair(t, tiny.shape(), limitsFor(4, 2, 4*blockSize, blockSize), 9)
	w := p.load(func(b kernels.Backend) (kernels.Weight, error) { return b.LoadLinear(qkvSpec(p.shape, "qkv", true)) })
	update := func(u kernels.RowUpdate) {
		p.each(func(b kernels.Backend, _ []kernels.Weight) { b.UpdateRows([]kernels.RowUpdate{u}) })
	}
	update(kernels.RowUpdate{Row: 1, Reset: true, Sampling: kernels.Sampling{Logprobs: -1}})
	order := []int32{5, 2, 7, 4}
	for at := 0; at < 4*blockSize-3; at += 3 {
		if entry := (at + 2) / blockSize; at == 0 || entry != (at-1)/blockSize {
			update(kernels.RowUpdate{Row: 1, FirstBlock: int32(entry), Blocks: order[entry : entry+1]})
		}
		p.random(kernels.Normed, 3, 1)
		p.poison(kernels.Query, kernels.Attn)
		p.step(p.ragged([]int32{1}, []span{{at, 3}}), func(b kernels.Backend, ws []kernels.Weight) {
			b.QKV(0, ws[w])
			b.PagedAttention(0)
		})
		require.NoError(t, p.tol.chained(2).compare(p.got.ReadActivation(kernels.Attn, 3),
			p.want.ReadActivation(kernels.Attn, 3), p.shape.Width(kernels.Attn)), "context %d", at)
	}
	p.equalKV()
}

// resetRow gives a row with a long table to a sequence with a short one.
func (s *suite) resetRow(t *testing.T) {
	p := s.newPair(t, smol.shape(), limitsFor(4, 1, 100, 16), 9)
	first := p.batch([]span{{90, 1}})
	p.fillKV(first, []int{91})
	row, tail := first.Rows[0], p.tables[first.Rows[0]][5]
	p.tables[row] = []int32{tail}
	p.each(func(b kernels.Backend, _ []kernels.Weight) {
		b.UpdateRows([]kernels.RowUpdate{{Row: row, Reset: true, Sampling: kernels.Sampling{Logprobs: -1}, Blocks: p.tables[row]}})
	})
	second := p.ragged([]int32{row}, []span{{6, 2}})
	p.fillKV(second, []int{8})
	p.random(kernels.Query, 2, 1)
	p.poison(kernels.Attn)
	p.step(second, func(b kernels.Backend, _ []kernels.Weight) { b.PagedAttention(0) })
	p.equal(kernels.Attn, 2)
}

// fromDevice embeds tokens that the last Sample drew, among known ones, rows in
// another order.
func (s *suite) fromDevice(t *testing.T) {
	p := s.newPair(t, tiny.shape(), limitsFor(8, 4, 40, 16), 12)
	w := p.embedding(tensor("embed", kernels.BF16, 1, p.shape.Vocab, p.shape.Hidden), true)
	first := p.batch([]span{{3, 1}, {4, 1}, {0, 5}})
	p.each(func(b kernels.Backend, _ []kernels.Weight) { b.Launch(first, func() {}) })
	p.random(kernels.Logits, 3, 3)
	p.each(func(b kernels.Backend, _ []kernels.Weight) {
		_, err := b.Wait(b.Sample(&kernels.SampleBatch{
			Index: []int32{2, 0, 1}, Rows: []int32{first.Rows[2], first.Rows[0], first.Rows[1]}, Positions: []int32{5, 4, 5},
		}))
		require.NoError(t, err)
	})
	second := p.ragged([]int32{first.Rows[1], first.Rows[2], first.Rows[0]}, []span{{5, 1}, {5, 1}, {4, 1}})
	second.Tokens[0], second.Tokens[1] = kernels.FromDevice, kernels.FromDevice
	p.poison(kernels.Hidden)
	p.step(second, func(b kernels.Backend, ws []kernels.Weight) { b.Embed(ws[w]) })
	p.sameRows(3)
}
