package kvcache

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func blockOf(m *Manager, id BlockID) (info BlockInfo) {
	m.Block(id, &info)
	return info
}

// requireStates wants what Block says of each block to add up to Stats.
func requireStates(t testing.TB, m *Manager) {
	t.Helper()
	var got Stats
	for id := BlockID(1); int(id) < m.NumIDs(); id++ {
		b := blockOf(m, id)
		switch b.State {
		case Free:
			got.Free++
		case Cached:
			got.Cached++
			require.Equal(t, id, m.index.find(&b.Hash, m.blocks), "a cached block is found under its hash")
		case Used:
			got.Used++
			got.Saved += b.Refs - 1
			if b.Refs > 1 {
				got.Shared++
			}
		case InFlight:
			got.InFlight++
		}
	}
	want := m.Stats()
	require.Equal(t, [...]int{want.Free, want.Cached, want.Used, want.InFlight, want.Shared, want.Saved},
		[...]int{got.Free, got.Cached, got.Used, got.InFlight, got.Shared, got.Saved})
}

// TestBlockAges: a block is as old as its content's first owner, and was touched
// when a table last got it or the last one gave it up.
func TestBlockAges(t *testing.T) {
	m := newManager(t, 11, 16)
	tokens := prompt(1, 40)
	m.Tick(1 * time.Second)
	a, _ := admit(t, m, tokens)
	id := a.IDs()[0]
	require.Equal(t, BlockInfo{State: Used, Refs: 1, Taken: time.Second, Touched: time.Second}, blockOf(m, id))

	m.Tick(2 * time.Second)
	m.Publish(a, tokens, "", 40)
	hash := blockOf(m, id).Hash
	require.NotZero(t, hash)
	require.NotEqual(t, hash, blockOf(m, a.IDs()[1]).Hash)
	m.Tick(3 * time.Second)
	b, _ := admit(t, m, tokens)
	require.Equal(t, BlockInfo{State: Used, Refs: 2, Published: true, Hash: hash, Taken: time.Second, Touched: 3 * time.Second}, blockOf(m, id))

	m.Tick(4 * time.Second)
	m.Release(a)
	require.Equal(t, 3*time.Second, blockOf(m, id).Touched, "another table still has it")
	m.Tick(5 * time.Second)
	m.Release(b)
	require.Equal(t, BlockInfo{State: Cached, Published: true, Hash: hash, Taken: time.Second, Touched: 5 * time.Second}, blockOf(m, id))

	m.Tick(6 * time.Second)
	c, _ := admit(t, m, prompt(2, 160)) // evicts everything
	require.Equal(t, 10, c.Len())
	require.Equal(t, BlockInfo{State: Used, Refs: 1, Taken: 6 * time.Second, Touched: 6 * time.Second}, blockOf(m, id))
	requireStates(t, m)
}

// TestBlockStates: blocks that a copy names, or that the pool is to lose, are told
// apart from free ones.
func TestBlockStates(t *testing.T) {
	m := newSwapManager(t, 11, 8, 4)
	var table BlockTable
	tokens := prompt(1, 9)
	_, ok := m.Admit(&table, tokens, "", 0)
	require.True(t, ok)
	id := table.IDs()[0]
	var host HostTable
	copies := m.SwapOut(&table, &host, 9, nil)
	require.Equal(t, InFlight, blockOf(m, id).State)
	requireStates(t, m)
	m.Copied(copies, true)
	require.Equal(t, Free, blockOf(m, id).State)
	m.SetLimits(4, 8)
	require.Equal(t, Retired, blockOf(m, 9).State)
	require.Equal(t, 11, m.NumIDs())
	requireStates(t, m)
	require.Equal(t, "in flight", InFlight.String())
}
