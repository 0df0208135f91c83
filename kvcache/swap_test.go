package kvcache

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func newSwapManager(t testing.TB, blocks, host, size int) *Manager {
	m, err := NewManager(Config{NumBlocks: blocks, HostBlocks: host, BlockSize: size})
	require.NoError(t, err)
	return m
}

// check wants the invariants to hold with these tables and no copies under way.
func check(t testing.TB, m *Manager, tables ...*BlockTable) {
	t.Helper()
	require.NoError(t, m.Check(tables, nil, nil, nil))
}

func TestForkSharesFullBlocksAndCopiesThePartialOne(t *testing.T) {
	m := newSwapManager(t, 11, 0, 4)
	tokens := prompt(1, 10)
	parent, _ := admit(t, m, tokens)
	m.Publish(parent, tokens, "", 10)
	var child BlockTable
	copies, ok := m.Fork(&child, parent, 10, 9, 0, nil)
	require.True(t, ok)
	require.Equal(t, parent.IDs()[:2], child.IDs()[:2])
	require.Equal(t, []Copy{{Src: int32(parent.IDs()[2]), Dst: int32(child.IDs()[2])}}, copies)
	st := m.Stats()
	require.Equal(t, []int{4, 2, 2}, []int{st.Used, st.Shared, st.Saved})
	require.EqualValues(t, 1, st.Copies)
	check(t, m, parent, &child)

	m.Release(parent) // the child keeps what it shares
	check(t, m, &child)
	require.Equal(t, 0, m.Stats().Shared)
	m.Release(&child)
	require.Equal(t, 10, m.NumFree())
}

// A prompt that ends with its block: the last token is computed again, in a copy.
func TestForkOfAFullLastBlock(t *testing.T) {
	m := newSwapManager(t, 11, 0, 4)
	parent, _ := admit(t, m, prompt(1, 8))
	var child BlockTable
	copies, ok := m.Fork(&child, parent, 8, 7, 0, nil)
	require.True(t, ok)
	require.Len(t, copies, 1)
	require.NotEqual(t, parent.IDs()[1], child.IDs()[1])

	var other BlockTable // of 5 computed tokens the first block is shared, the second copied
	copies, ok = m.Fork(&other, parent, 6, 4, 0, nil)
	require.True(t, ok)
	require.Empty(t, copies, "nothing of the second block was computed")
	check(t, m, parent, &child, &other)
}

func TestForkIsAllOrNothing(t *testing.T) {
	m := newSwapManager(t, 5, 0, 4)
	parent, _ := admit(t, m, prompt(1, 12))
	var child BlockTable
	_, ok := m.Fork(&child, parent, 12, 11, 1, nil)
	require.False(t, ok, "the reserve stays free")
	require.Zero(t, child.Len())
	check(t, m, parent)
	_, ok = m.Fork(&child, parent, 12, 11, 0, nil)
	require.True(t, ok)
	check(t, m, parent, &child)
	require.Panics(t, func() { m.Fork(&child, parent, 12, 11, 0, nil) }, "not an empty table")
	require.Panics(t, func() { m.Fork(&BlockTable{}, parent, 20, 16, 0, nil) }, "more than the parent has")
}

// TestSwapOutAndIn: the blocks leave, are in flight until reported, and come back
// in order; the tokens computed are usable again.
func TestSwapOutAndIn(t *testing.T) {
	m := newSwapManager(t, 6, 4, 4)
	tokens := prompt(1, 11)
	var table BlockTable
	var host HostTable
	_, ok := m.Admit(&table, tokens, "", 0)
	require.True(t, ok)
	left := append([]BlockID(nil), table.IDs()...)

	n, ok := m.CanSwapOut(&table, 10)
	require.Equal(t, 3, n)
	require.True(t, ok)
	out := m.SwapOut(&table, &host, 10, nil)
	require.Len(t, out, 3)
	require.NotContains(t, host.ids, dropped)
	require.Equal(t, 3, m.NumInFlight())
	require.Equal(t, 2, m.NumFree(), "nobody gets a block that is being copied")
	require.NoError(t, m.Check(nil, []*HostTable{&host}, [][]Copy{out}, nil))
	other, _ := admit(t, m, prompt(2, 8))
	for _, id := range other.IDs() {
		require.NotContains(t, left, id)
	}
	m.Copied(out, true)
	require.Zero(t, m.NumInFlight())
	require.NoError(t, m.Check([]*BlockTable{other}, []*HostTable{&host}, nil, nil))

	in, usable, ok := m.SwapIn(&table, &host, tokens, "", 10, 0, nil)
	require.True(t, ok)
	require.Equal(t, 10, usable)
	require.Len(t, in, 3)
	for i := range in {
		require.Equal(t, Copy{Src: out[i].Dst, Dst: int32(table.IDs()[i])}, in[i])
	}
	require.Zero(t, host.Len())
	require.Equal(t, 3, m.Stats().HostInFlight, "read until the copy is reported")
	require.NoError(t, m.Check([]*BlockTable{other, &table}, nil, nil, [][]Copy{in}))
	m.Copied(in, false)
	require.Zero(t, m.Stats().HostInFlight)
	check(t, m, other, &table)
	require.Panics(t, func() { m.Copied(in, false) }, "reported twice")
}

func TestSwapInIsAllOrNothing(t *testing.T) {
	m := newSwapManager(t, 4, 4, 4)
	tokens := prompt(1, 9)
	table, _ := admit(t, m, tokens)
	var host HostTable
	out := m.SwapOut(table, &host, 9, nil)
	m.Copied(out, true)
	other, _ := admit(t, m, prompt(2, 4))
	_, _, ok := m.SwapIn(table, &host, append(tokens, 1), "", 9, 0, nil)
	require.False(t, ok)
	require.Equal(t, 3, host.Len())
	require.Zero(t, table.Len())
	require.NoError(t, m.Check([]*BlockTable{other}, []*HostTable{&host}, nil, nil))
	m.DropHost(&host)
	require.Zero(t, m.Stats().HostUsed)
	check(t, m, other)
}

// TestSharedPublishedBlocksAreNotCopiedOut: others hold them, and the prefix index
// finds them on the way back.
func TestSharedPublishedBlocksAreNotCopiedOut(t *testing.T) {
	m := newSwapManager(t, 11, 4, 4)
	tokens := prompt(1, 9)
	a, _ := admit(t, m, tokens)
	m.Publish(a, tokens, "", 9)
	b, cached := admit(t, m, tokens)
	require.Equal(t, 8, cached)
	var host HostTable
	n, _ := m.CanSwapOut(b, 9)
	require.Equal(t, 1, n)
	out := m.SwapOut(b, &host, 9, nil)
	require.Len(t, out, 1)
	require.Equal(t, []HostID{dropped, dropped, 0}, host.ids)
	m.Copied(out, true)
	in, usable, ok := m.SwapIn(b, &host, append(tokens, 7), "", 9, 0, nil)
	require.True(t, ok)
	require.Equal(t, 9, usable)
	require.Len(t, in, 1)
	require.Equal(t, a.IDs()[:2], b.IDs()[:2])
	m.Copied(in, false)
	check(t, m, a, b)
}

// TestSwapInAfterThePrefixWasEvicted: what was not copied is gone, and what lies
// behind the gap is of no use.
func TestSwapInAfterThePrefixWasEvicted(t *testing.T) {
	m := newSwapManager(t, 6, 4, 4)
	tokens := prompt(1, 9)
	a, _ := admit(t, m, tokens)
	m.Publish(a, tokens, "", 9)
	b, _ := admit(t, m, tokens)
	var host HostTable
	out := m.SwapOut(b, &host, 9, nil)
	m.Copied(out, true)
	m.Release(a)
	filler, _ := admit(t, m, prompt(2, 16)) // leaves the head of the prefix, evicts its second block
	m.Release(filler)
	in, usable, ok := m.SwapIn(b, &host, append(tokens, 7), "", 9, 0, nil)
	require.True(t, ok)
	require.Equal(t, 4, usable)
	require.Empty(t, in)
	check(t, m, b)
}

// TestSwapInRematchesWhatCameBack: a block that was published when it left stays
// findable on the device; only the rest is copied in.
func TestSwapInRematchesWhatIsStillCached(t *testing.T) {
	m := newSwapManager(t, 11, 4, 4)
	tokens := prompt(1, 10)
	a, _ := admit(t, m, tokens)
	first := a.IDs()[0]
	m.Publish(a, tokens, "", 7) // the first block only
	var host HostTable
	out := m.SwapOut(a, &host, 9, nil)
	require.Len(t, out, 3)
	b, cached := admit(t, m, tokens) // hits a block that is on its way to the host
	require.Equal(t, 4, cached)
	require.Equal(t, first, b.IDs()[0])
	require.NoError(t, m.Check([]*BlockTable{b}, []*HostTable{&host}, [][]Copy{out}, nil))
	m.Copied(out, true)
	in, usable, ok := m.SwapIn(a, &host, tokens, "", 9, 0, nil)
	require.True(t, ok)
	require.Equal(t, 9, usable)
	require.Len(t, in, 2)
	require.Equal(t, first, a.IDs()[0])
	m.Copied(in, false)
	check(t, m, a, b)
}

// TestAbortInFlight: tables and host tables go while copies are under way; the
// blocks are free once these are reported.
func TestAbortInFlight(t *testing.T) {
	m := newSwapManager(t, 6, 4, 4)
	tokens := prompt(1, 9)
	table, _ := admit(t, m, tokens)
	var host HostTable
	out := m.SwapOut(table, &host, 9, nil)
	m.DropHost(&host) // abort in swap-out
	require.Equal(t, []int{3, 3}, []int{m.NumInFlight(), m.Stats().HostInFlight})
	n, ok := m.CanSwapOut(&BlockTable{ids: []BlockID{5, 5}}, 8)
	require.Equal(t, 2, n)
	require.False(t, ok, "a host block in flight is not free")
	require.NoError(t, m.Check(nil, nil, [][]Copy{out}, nil))
	m.Copied(out, true)
	check(t, m)

	table, _ = admit(t, m, tokens)
	out = m.SwapOut(table, &host, 8, nil)
	m.Copied(out, true)
	in, _, ok := m.SwapIn(table, &host, tokens, "", 8, 0, nil)
	require.True(t, ok)
	m.Release(table) // abort in swap-in
	require.Equal(t, []int{2, 2}, []int{m.NumInFlight(), m.Stats().HostInFlight})
	require.NoError(t, m.Check(nil, nil, nil, [][]Copy{in}))
	m.Copied(in, false)
	check(t, m)
	require.Equal(t, 5, m.NumFree())
	require.Equal(t, Stats{Total: 5, Free: 5, HostTotal: 4}, m.Stats())
}

func TestSwapOutClaimsBeforeItFrees(t *testing.T) {
	m := newSwapManager(t, 6, 2, 4)
	table, _ := admit(t, m, prompt(1, 12))
	n, ok := m.CanSwapOut(table, 12)
	require.Equal(t, 3, n)
	require.False(t, ok)
	n, ok = m.CanSwapOut(table, 8)
	require.Equal(t, 2, n)
	require.True(t, ok, "only what was computed has to go")
	require.Panics(t, func() { m.SwapOut(table, &HostTable{ids: []HostID{0}}, 4, nil) })
}

// TestReleaseOfAnEntryTwicePanics: freeing takes a set (I2).
func TestReleaseOfAnEntryTwicePanics(t *testing.T) {
	m := newSwapManager(t, 6, 2, 4)
	table, _ := admit(t, m, prompt(1, 8))
	table.ids = append(table.ids, table.ids[0])
	require.ErrorContains(t, m.Check([]*BlockTable{table}, nil, nil, nil), "has 1 references and is in 2 tables")
	require.Panics(t, func() { m.Release(table) })

	var host HostTable
	other, _ := admit(t, m, prompt(2, 4))
	out := m.SwapOut(other, &host, 4, nil)
	m.Copied(out, true)
	host.ids = append(host.ids, host.ids[0])
	require.Panics(t, func() { m.DropHost(&host) })
}

// TestSwapDoesNotOutliveAReset: what comes back from the host was computed before
// the reset: it is used, not published.
func TestSwapDoesNotOutliveAReset(t *testing.T) {
	m := newSwapManager(t, 11, 4, 4)
	tokens := prompt(1, 10)
	a, _ := admit(t, m, tokens)
	m.Publish(a, tokens, "", 9)
	var host HostTable
	m.Copied(m.SwapOut(a, &host, 9, nil), true)
	m.ResetPrefixCache()
	in, usable, ok := m.SwapIn(a, &host, tokens, "", 9, 0, nil)
	require.True(t, ok)
	require.Equal(t, 9, usable)
	require.Len(t, in, 3)
	m.Copied(in, false)
	m.Publish(a, tokens, "", 9)
	_, cached := admit(t, m, tokens)
	require.Zero(t, cached)
}

// TestSwapKeepsRuns: blocks that lie together are copied to where they lie together, and back,
// however often they go and whichever way round they come free, with the table's content in
// its order.
func TestSwapKeepsRuns(t *testing.T) {
	m := newSwapManager(t, 41, 24, 4)
	run := func(copies []Copy) {
		require.Len(t, copies, 8)
		for i, c := range copies {
			require.Equal(t, Copy{Src: copies[0].Src + int32(i), Dst: copies[0].Dst + int32(i)}, c)
		}
	}
	content := map[Copy]int32{} // by pool (Src) and id: what the blocks hold
	perform := func(copies []Copy, from, to int32) {
		for _, c := range copies {
			content[Copy{to, c.Dst}] = content[Copy{from, c.Src}]
		}
	}
	var host, other HostTable
	turned, _ := admit(t, m, prompt(3, 32))
	m.Copied(m.SwapOut(turned, &other, 32, nil), true)
	m.DropHost(&other)
	tokens := prompt(2, 32)
	table, _ := admit(t, m, tokens)
	require.Greater(t, table.IDs()[0], table.IDs()[7], "what came free first is handed out last")
	first, _ := admit(t, m, prompt(1, 32))
	for i, id := range table.IDs() {
		content[Copy{0, int32(id)}] = int32(i + 1)
	}
	for range 4 {
		out := m.SwapOut(table, &host, 32, nil)
		run(out)
		perform(out, 0, 1)
		m.Copied(out, true) // not published: what comes first is handed out last
		if first.Len() > 0 {
			m.Copied(m.SwapOut(first, &other, 32, nil), true)
			m.DropHost(&other)
		}
		in, _, ok := m.SwapIn(table, &host, append(tokens, 1), "", 32, 0, nil)
		require.True(t, ok)
		run(in)
		perform(in, 1, 0)
		m.Copied(in, false)
		for i, id := range table.IDs()[:8] {
			require.EqualValues(t, i+1, content[Copy{0, int32(id)}])
		}
		check(t, m, table)
	}
}

// TestHostPool: of hundreds of host blocks the lowest that is free is taken, whichever came free
// last and however the pool shrinks and grows.
func TestHostPool(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var p hostPool
	var held []HostID
	most := 0
	p.setLimit(300)
	for i := range 20000 {
		fills := i/700%2 == 0
		switch n := r.IntN(100); {
		case n == 0:
			p.setLimit(50 + r.IntN(300))
		case fills == (n < 80) && p.numFree > 0:
			lowest := HostID(0)
			for slices.Contains(held, lowest) {
				lowest++
			}
			require.Equal(t, lowest, p.take())
			held = append(held, lowest)
		case len(held) > 0:
			at := r.IntN(len(held))
			p.drop(held[at])
			held = slices.Delete(held, at, at+1)
		}
		excess := 0
		for _, id := range held {
			if int(id) >= p.limit {
				excess++
			}
		}
		require.Equal(t, []int{p.limit - len(held) + excess, len(held), excess}, []int{p.numFree, p.used, p.excess})
		most = max(most, len(held))
	}
	require.Greater(t, most, 256)
}
