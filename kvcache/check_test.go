package kvcache

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// idleManager has 20 free blocks, 12 of which are published.
func idleManager(t *testing.T) (m *Manager, tokens []int32) {
	m = newSwapManager(t, 21, 3, 4)
	tokens = prompt(1, 50)
	a, _ := admit(t, m, tokens)
	m.Publish(a, tokens, "", 50)
	m.Release(a)
	check(t, m)
	return m, tokens
}

// calls is how many of CheckIdle it takes until it is done.
func calls(t *testing.T, m *Manager, n int) (calls int) {
	for {
		calls++
		if done, err := m.CheckIdle(n); done || err != nil {
			require.NoError(t, err)
			return calls
		}
	}
}

// TestCheckIdleIsBounded: a call verifies n blocks, and the one after the last block the
// counts; a change begins it anew.
func TestCheckIdleIsBounded(t *testing.T) {
	m, tokens := idleManager(t)
	for n, want := range map[int]int{1: 21, 7: 3, 20: 2, 21: 1, 100: 1} {
		require.Equal(t, want, calls(t, m, n), "%d a call", n)
	}
	for range 20 {
		done, err := m.CheckIdle(1)
		require.NoError(t, err)
		require.False(t, done)
	}
	a, _ := admit(t, m, tokens[:9])
	m.Release(a)
	require.Equal(t, 21, calls(t, m, 1))
	m.ResetPrefixCache()
	require.Equal(t, 21, calls(t, m, 1))
	m.SetLimits(11, 0)
	require.Equal(t, 11, calls(t, m, 1))
	m.SetLimits(31, 5)
	require.Equal(t, 31, calls(t, m, 1))
}

// TestCheckIdleSees: what contradicts that all blocks are free is found, wherever the
// calls divide.
func TestCheckIdleSees(t *testing.T) {
	cached := func(m *Manager) BlockID { return m.blocks[0].prev }
	for name, c := range map[string]struct {
		breach func(m *Manager)
		want   string
	}{
		"block held":    {func(m *Manager) { m.take() }, "the free queue has 19 blocks of 20"},
		"lost block":    {func(m *Manager) { m.remove(m.blocks[0].next) }, "the free queue has 19 blocks of 20"},
		"references":    {func(m *Manager) { m.blocks[cached(m)].refs++ }, "has 1 references"},
		"copy":          {func(m *Manager) { m.blocks[cached(m)].copies++ }, "named by 1 copies"},
		"other content": {func(m *Manager) { m.tokens[int(cached(m))*4]++ }, "a hash that its tokens do not give"},
		"other hash":    {func(m *Manager) { m.blocks[cached(m)].hash[0]++ }, "the index has"},
		"not published": {func(m *Manager) { m.blocks[cached(m)].published = false }, "the index has 12"},
		"queue link":    {func(m *Manager) { m.blocks[cached(m)].prev = 7 }, "links back"},
		"queue end":     {func(m *Manager) { m.blocks[0].prev = 7 }, "the last one 7"},
		"free count":    {func(m *Manager) { m.free-- }, "counted 19"},
		"cached count":  {func(m *Manager) { m.cached-- }, "counted 11"},
		"used":          {func(m *Manager) { m.used++ }, "counted 1 used"},
		"retired":       {func(m *Manager) { m.limit = 20 }, "beyond the limit 20"},
		"host block":    {func(m *Manager) { m.host.take() }, "host block 0 is in 0 tables; held true"},
		"host free":     {func(m *Manager) { m.host.free[0] &^= 2; m.host.numFree-- }, "host block 1 is lost"},
		"loop":          {func(m *Manager) { m.blocks[cached(m)].next = m.blocks[0].next }, "links back"},
		"excess":        {func(m *Manager) { m.excess++ }, "1 in use beyond the limit"},
	} {
		for n := 1; n < 25; n += 4 {
			m, _ := idleManager(t)
			c.breach(m)
			done, err := false, error(nil)
			for range 30 {
				if done, err = m.CheckIdle(n); err != nil || done {
					break
				}
			}
			require.ErrorContains(t, err, c.want, "%s, %d a call", name, n)
			require.False(t, done)
		}
	}
}
