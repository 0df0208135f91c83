package kvcache

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGrowingThePool(t *testing.T) {
	m := newSwapManager(t, 4, 0, 4)
	tokens := prompt(1, 9)
	a, _ := admit(t, m, tokens)
	m.Publish(a, tokens, "", 9)
	m.Release(a)
	require.Equal(t, 2, m.Stats().Cached)
	m.SetLimits(40, 3)
	require.Equal(t, 39, m.NumFree())
	require.Equal(t, 3, m.Stats().HostTotal)
	check(t, m)
	b, _ := admit(t, m, prompt(2, 36*4))
	require.Zero(t, m.Stats().Evictions, "new blocks are used before cached ones")
	c, cached := admit(t, m, tokens)
	require.Equal(t, 8, cached, "the index survives")
	check(t, m, b, c)
}

func TestShrinkingThePool(t *testing.T) {
	m := newSwapManager(t, 11, 0, 4)
	tokens := prompt(1, 21)
	a, _ := admit(t, m, tokens) // blocks 1 … 6
	m.Publish(a, tokens, "", 21)
	m.SetLimits(5, 0)
	require.Equal(t, 4, m.Capacity())
	require.Zero(t, m.NumFree())
	require.Equal(t, 2, m.Excess())
	require.True(t, m.Retired(a))
	require.EqualValues(t, 1, m.Stats().Evictions, "nobody new may come to hold block 5")
	check(t, m, a)

	longer := append(tokens, 1, 2, 3)
	m.Publish(a, longer, "", 24) // block 6 is retired: it is not published
	check(t, m, a)
	m.Release(a)
	require.Zero(t, m.Excess())
	require.Equal(t, 4, m.NumFree())
	check(t, m)
	b, cached := admit(t, m, tokens[:16])
	require.Equal(t, 12, cached)
	require.False(t, m.Retired(b))
	check(t, m, b)

	m.SetLimits(11, 0) // and back
	require.Equal(t, 6, m.NumFree())
	check(t, m, b)
}

func TestShrinkingEvictsCachedTails(t *testing.T) {
	m := newSwapManager(t, 11, 0, 4)
	tokens := prompt(1, 40)
	a, _ := admit(t, m, tokens)
	m.Publish(a, tokens, "", 40)
	m.Release(a)
	m.SetLimits(6, 0)
	require.EqualValues(t, 5, m.Stats().Evictions)
	require.ElementsMatch(t, []BlockID{6, 7, 8, 9, 10}, m.TakeEvicted(nil))
	require.Empty(t, m.TakeEvicted(nil))
	check(t, m)
	_, cached := admit(t, m, tokens[:19])
	require.Equal(t, 16, cached)
}

// TestLimitsWithCopiesUnderWay: blocks beyond the limit that a copy names count as
// excess until it is reported, in both pools and both directions.
func TestLimitsWithCopiesUnderWay(t *testing.T) {
	m := newSwapManager(t, 8, 6, 4)
	a, _ := admit(t, m, prompt(1, 20))
	var host HostTable
	out := m.SwapOut(a, &host, 20, nil)
	m.SetLimits(3, 2)
	require.True(t, m.HostRetired(&host))
	require.Equal(t, 3+3, m.Excess())
	require.NoError(t, m.Check(nil, []*HostTable{&host}, [][]Copy{out}, nil))
	m.SetLimits(6, 6) // changed our mind while they fly
	require.NoError(t, m.Check(nil, []*HostTable{&host}, [][]Copy{out}, nil))
	m.SetLimits(3, 2)
	m.DropHost(&host)
	require.NoError(t, m.Check(nil, nil, [][]Copy{out}, nil))
	require.Equal(t, 3+3, m.Excess())
	require.Equal(t, 2, m.NumInFlight(), "three never come back")
	m.Copied(out, true)
	require.Zero(t, m.Excess())
	check(t, m)
	require.Equal(t, 2, m.NumFree())
	require.Panics(t, func() { m.SetLimits(1, 0) })
}

// TestIndexDeletionClosesTheGap: hashes that fall into the same few homes, in
// random order; after each deletion all others are still found.
func TestIndexDeletionClosesTheGap(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	deletions := 0
	for range 300 {
		const n = 24
		blocks := make([]block, n+1)
		var x index
		x.resize(n, blocks)
		for id := 1; id <= n; id++ {
			home := uint64(len(x.slots)-3) + uint64(r.IntN(5)) // around the end of the table
			binary.LittleEndian.PutUint64(blocks[id].hash[:], home)
			blocks[id].hash[31] = byte(id)
			x.add(x.probe(&blocks[id].hash, blocks), BlockID(id))
		}
		order := r.Perm(n)
		for i, gone := range order {
			x.remove(BlockID(gone+1), blocks)
			deletions++
			require.Zero(t, x.find(&blocks[gone+1].hash, blocks))
			for _, left := range order[i+1:] {
				require.Equal(t, BlockID(left+1), x.find(&blocks[left+1].hash, blocks))
			}
		}
		require.Zero(t, x.count)
	}
	require.Equal(t, 7200, deletions)
}

// TestCheckSees: each breach of an invariant has an error of its own.
func TestCheckSees(t *testing.T) {
	for name, c := range map[string]struct {
		breach func(m *Manager, t *BlockTable)
		want   string
	}{
		"lost block":        {func(m *Manager, _ *BlockTable) { m.remove(m.blocks[0].next) }, "is lost"},
		"wrong references":  {func(m *Manager, t *BlockTable) { m.blocks[t.ids[0]].refs++ }, "has 2 references and is in 1 tables"},
		"free and in use":   {func(m *Manager, t *BlockTable) { m.insert(t.ids[0], 0, m.blocks[0].next) }, "is in 1 tables"},
		"unknown copy":      {func(m *Manager, t *BlockTable) { m.blocks[t.ids[0]].copies++ }, "copies under way, there are 0"},
		"other content":     {func(m *Manager, t *BlockTable) { m.tokens[int(t.ids[0])*4]++ }, "a hash that its tokens do not give"},
		"stale index entry": {func(m *Manager, t *BlockTable) { m.blocks[t.ids[0]].published = false }, "the index has"},
		"wrong count":       {func(m *Manager, _ *BlockTable) { m.used++ }, "counted"},
		"wrong excess":      {func(m *Manager, _ *BlockTable) { m.excess++ }, "in use beyond the limit"},
		"wrong host excess": {func(m *Manager, _ *BlockTable) { m.host.excess++ }, "host blocks are in use beyond the limit"},
		"no such block":     {func(_ *Manager, t *BlockTable) { t.ids[1] = 99 }, "names block 99"},
		"lost host block":   {func(m *Manager, _ *BlockTable) { m.host.take(); m.host.blocks[0].held = false; m.host.used-- }, "host block 0 is lost"},
		"queue link":        {func(m *Manager, _ *BlockTable) { m.blocks[m.blocks[0].next].prev = 7 }, "links back"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newSwapManager(t, 9, 2, 4)
			tokens := prompt(1, 8)
			a, _ := admit(t, m, tokens)
			m.Publish(a, tokens, "", 8)
			check(t, m, a)
			c.breach(m, a)
			require.ErrorContains(t, m.Check([]*BlockTable{a}, nil, nil, nil), c.want)
		})
	}
}
