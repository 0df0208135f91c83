package kvcache

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// prompt makes n tokens; equal families share all their tokens.
func prompt(family int32, n int) []int32 {
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = family*1000 + int32(i)
	}
	return tokens
}

func newManager(t testing.TB, blocks, size int) *Manager {
	m, err := NewManager(Config{NumBlocks: blocks, BlockSize: size, Model: "test"})
	require.NoError(t, err)
	return m
}

// admit wants an admission to succeed and returns the table and the hit.
func admit(t testing.TB, m *Manager, tokens []int32) (*BlockTable, int) {
	table := &BlockTable{}
	cached, ok := m.Admit(table, tokens, "", 0)
	require.True(t, ok)
	return table, cached
}

func TestConfigErrorsListAll(t *testing.T) {
	_, err := NewManager(Config{})
	require.ErrorContains(t, err, "NumBlocks is 0")
	require.ErrorContains(t, err, "BlockSize is 0")
}

// The numbered tests restate behaviours of vLLM's block manager, with a pool of
// 10 usable blocks of 16 tokens.

func TestFullBlocksAreShared(t *testing.T) { // 3, 4, 5
	m := newManager(t, 11, 16)
	first := prompt(1, 55)
	a, cached := admit(t, m, first)
	require.Equal(t, 4, a.Len())
	require.Zero(t, cached)
	m.Publish(a, first, "", 55)

	second := append(prompt(1, 48), 7, 7, 7, 7, 7)
	b, cached := admit(t, m, second)
	require.Equal(t, 48, cached)
	require.Equal(t, a.IDs()[:3], b.IDs()[:3])
	require.NotEqual(t, a.IDs()[3], b.IDs()[3])
	require.Equal(t, 5, m.Stats().Used)
	require.NoError(t, m.Check([]*BlockTable{a, b}, nil, nil, nil))

	m.Release(a)
	m.Release(b)
	require.Equal(t, 10, m.NumFree())
	require.Equal(t, 3, m.Stats().Cached)
}

func TestNothingIsPublishedBeforeItIsComputed(t *testing.T) {
	m := newManager(t, 11, 16)
	tokens := prompt(1, 48)
	a, _ := admit(t, m, tokens)
	m.Publish(a, tokens, "", 31)
	b, cached := admit(t, m, tokens)
	require.Equal(t, 16, cached)
	require.NoError(t, m.Check([]*BlockTable{a, b}, nil, nil, nil))
}

func TestHitNeverCoversTheLastToken(t *testing.T) { // 14
	m := newManager(t, 11, 16)
	tokens := prompt(1, 48)
	a, _ := admit(t, m, tokens)
	m.Publish(a, tokens, "", 48)
	_, cached := admit(t, m, tokens)
	require.Equal(t, 32, cached)
}

func TestTailIsEvictedFirst(t *testing.T) { // 6, 8, 9
	m := newManager(t, 11, 16)
	tokens := prompt(1, 80)
	a, _ := admit(t, m, tokens)
	m.Publish(a, tokens, "", 80)
	m.Release(a)
	b, _ := admit(t, m, prompt(2, 6*16)) // five free blocks and an evicted one
	require.EqualValues(t, 1, m.Stats().Evictions)
	c, cached := admit(t, m, tokens[:49])
	require.Equal(t, 48, cached, "the head of the released sequence outlives its tail")
	require.Zero(t, m.NumFree())
	require.NoError(t, m.Check([]*BlockTable{b, c}, nil, nil, nil))
}

func TestUnpublishedBlocksAreReusedFirst(t *testing.T) { // 6
	m := newManager(t, 11, 16)
	tokens := prompt(1, 20)
	a, _ := admit(t, m, tokens)
	partial := a.IDs()[1]
	m.Publish(a, tokens, "", 20)
	m.Release(a)
	b, _ := admit(t, m, prompt(2, 5))
	require.Equal(t, partial, b.IDs()[0])
}

func TestHitBlocksAreNotEvictedForTheSameRequest(t *testing.T) { // 7, 10
	m := newManager(t, 3, 16)
	tokens := prompt(1, 32)
	a, _ := admit(t, m, tokens)
	m.Publish(a, tokens, "", 32)
	first := a.IDs()[0]
	m.Release(a)
	b, cached := admit(t, m, append(prompt(1, 16), 5))
	require.Equal(t, 16, cached)
	require.Equal(t, first, b.IDs()[0])
	require.NoError(t, m.Check([]*BlockTable{b}, nil, nil, nil))
}

func TestAdmitIsAllOrNothing(t *testing.T) { // 11, 13
	m := newManager(t, 11, 16)
	tokens := prompt(1, 64)
	a, _ := admit(t, m, tokens)
	m.Publish(a, tokens, "", 64)
	var b BlockTable
	_, ok := m.Admit(&b, append(prompt(1, 64), prompt(2, 7*16)...), "", 0)
	require.False(t, ok)
	require.Zero(t, b.Len())
	require.Equal(t, 6, m.NumFree())
	_, ok = m.Admit(&b, prompt(3, 96), "", 1)
	require.False(t, ok, "the reserve stays free")
	_, ok = m.Admit(&b, prompt(3, 96), "", 0)
	require.True(t, ok)
	require.False(t, m.Grow(&b, 97))
	require.NoError(t, m.Check([]*BlockTable{a, &b}, nil, nil, nil))
}

func TestSaltsAreSpacesOfTheirOwn(t *testing.T) { // 15
	m := newManager(t, 31, 16)
	tokens := prompt(1, 49)
	hit := func(salt string) int {
		var table BlockTable
		cached, ok := m.Admit(&table, tokens, salt, 0)
		require.True(t, ok)
		m.Publish(&table, tokens, salt, len(tokens))
		return cached
	}
	require.Zero(t, hit("one"))
	require.Equal(t, 48, hit("one"))
	require.Zero(t, hit("two"))
	require.Zero(t, hit(""))
}

func TestDuplicatesStayUnpublished(t *testing.T) {
	m := newManager(t, 11, 16)
	tokens := prompt(1, 17)
	a, _ := admit(t, m, tokens)
	b, _ := admit(t, m, tokens) // side by side: nothing was published yet
	m.Publish(a, tokens, "", 17)
	m.Publish(b, tokens, "", 17)
	c, cached := admit(t, m, tokens)
	require.Equal(t, 16, cached)
	require.Equal(t, a.IDs()[0], c.IDs()[0])
	m.Release(b)
	require.NoError(t, m.Check([]*BlockTable{a, c}, nil, nil, nil))
}

func TestCollisionIsAMiss(t *testing.T) {
	m := newManager(t, 11, 16)
	tokens := prompt(1, 17)
	a, _ := admit(t, m, tokens)
	m.Publish(a, tokens, "", 17)
	m.tokens[int(a.IDs()[0])*16]++ // as if another content had the same hash
	_, cached := admit(t, m, tokens)
	require.Zero(t, cached)
}

func TestResetPrefixCache(t *testing.T) { // 18
	m := newManager(t, 11, 16)
	tokens := prompt(1, 40)
	a, _ := admit(t, m, tokens)
	m.Publish(a, tokens, "", 40)
	m.ResetPrefixCache()
	b, cached := admit(t, m, tokens)
	require.Zero(t, cached)
	require.NoError(t, m.Check([]*BlockTable{a, b}, nil, nil, nil))

	// What a holds was computed before: it is not published after.
	more := prompt(1, 64)
	require.True(t, m.Grow(a, 64))
	m.Publish(a, more, "", 64)
	var child BlockTable
	_, ok := m.Fork(&child, a, 64, 63, 0, nil)
	require.True(t, ok)
	m.Publish(&child, more, "", 64)
	require.Zero(t, m.index.count)
	m.Release(a)
	m.Release(&child)
	require.Zero(t, m.Stats().Cached)

	// What b computes is.
	m.Publish(b, tokens, "", 40)
	_, cached = admit(t, m, tokens)
	require.Equal(t, 32, cached)
}

func TestDisabledPrefixCaching(t *testing.T) { // 13
	m, err := NewManager(Config{NumBlocks: 11, BlockSize: 16, DisablePrefixCaching: true})
	require.NoError(t, err)
	tokens := prompt(1, 40)
	a, _ := admit(t, m, tokens)
	m.Publish(a, tokens, "", 40)
	b, cached := admit(t, m, tokens)
	require.Zero(t, cached)
	require.NoError(t, m.Check([]*BlockTable{a, b}, nil, nil, nil))
}

// TestRandomAgainstNaive runs random operations on a Manager and on a naive one,
// a map from prefix text to blocks that never evicts, and verifies all
// invariants after each. A hit must hold the very tokens that were asked for.
func TestRandomAgainstNaive(t *testing.T) {
	ops := 200_000
	if testing.Short() {
		ops = 20_000
	}
	type sequence struct {
		table    BlockTable
		tokens   []int32
		computed int
	}
	r := rand.New(rand.NewPCG(1, 2))
	const size = 4
	m := newManager(t, 40, size)
	written := make([]string, 40) // what each block was filled with, whole prefix
	var live []*sequence
	var hits, refusals int
	for range ops {
		switch {
		case len(live) < 8 && r.IntN(3) == 0:
			q := &sequence{tokens: make([]int32, 1+r.IntN(40))}
			for i := range q.tokens {
				q.tokens[i] = int32(r.IntN(12) / 11)
			}
			free := m.NumFree()
			cached, ok := m.Admit(&q.table, q.tokens, "", r.IntN(3))
			if !ok {
				refusals++
				require.Equal(t, free, m.NumFree())
				break
			}
			require.Less(t, cached, len(q.tokens))
			for i := range cached / size {
				require.Equal(t, fmt.Sprint(q.tokens[:(i+1)*size]), written[q.table.IDs()[i]], "a hit on other content")
				hits++
			}
			q.computed = cached
			live = append(live, q)
		case len(live) > 0:
			i := r.IntN(len(live))
			q := live[i]
			switch r.IntN(4) {
			case 0: // compute a chunk
				end := q.computed + r.IntN(len(q.tokens)-q.computed+1)
				for b := q.computed / size; b < end/size; b++ {
					written[q.table.IDs()[b]] = fmt.Sprint(q.tokens[:(b+1)*size])
				}
				q.computed = end
				m.Publish(&q.table, q.tokens, "", end)
			case 1, 2: // one more token
				if q.computed == len(q.tokens) && m.Grow(&q.table, len(q.tokens)+1) {
					q.tokens = append(q.tokens, int32(r.IntN(2)))
				}
			case 3:
				m.Release(&q.table)
				live = append(live[:i], live[i+1:]...)
			}
		}
		tables := make([]*BlockTable, len(live))
		for i, q := range live {
			tables[i] = &q.table
		}
		require.NoError(t, m.Check(tables, nil, nil, nil))
		if r.IntN(8) == 0 {
			requireStates(t, m)
		}
	}
	require.Greater(t, hits, ops/100)
	require.Greater(t, refusals, ops/1000)
	require.Greater(t, m.Stats().Evictions, int64(ops/100))
}

// BenchmarkHashBlock is the cost of the prefix hash of one 16-token block.
func BenchmarkHashBlock(b *testing.B) {
	m := newManager(b, 11, 16)
	tokens := prompt(1, 16)
	parent := m.hasher.seed("")
	b.ReportAllocs()
	for b.Loop() {
		parent = m.hasher.block(parent, tokens)
	}
}

// BenchmarkAdmitCached admits and releases a 2,048-token prompt that is cached,
// hashing it included.
func BenchmarkAdmitCached(b *testing.B) {
	m := newManager(b, 300, 16)
	tokens := prompt(1, 2048)
	var table BlockTable
	m.Admit(&table, tokens, "", 0)
	m.Publish(&table, tokens, "", len(tokens))
	m.Release(&table)
	b.ReportAllocs()
	for b.Loop() {
		table.hashes = table.hashes[:0]
		m.Admit(&table, tokens, "", 0)
		m.Release(&table)
	}
}
