//go:build cuda

package cuda

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
)

// TestRunsAreOneCopy: what lies together on both sides is one copy.
func TestRunsAreOneCopy(t *testing.T) {
	var p pool
	for _, c := range [][2]cuda.Ptr{{100, 500}, {110, 510}, {120, 520}, {140, 530}, {150, 550}, {90, 490}, {100, 500}, {80, 480}} {
		p.add(c[0], c[1], 10)
	}
	require.Equal(t, []cuda.Ptr{100, 140, 150, 90, 80}, p.dst)
	require.Equal(t, []cuda.Ptr{500, 530, 550, 490, 480}, p.src)
	require.Equal(t, []uint64{30, 10, 10, 20, 10}, p.sizes)
}

// TestSwapAcrossChunks: neighbours on the host that lie in two pieces of pinned memory.
func TestSwapAcrossChunks(t *testing.T) {
	paths(t)
	m := newBackend(t, Config{})
	t.Cleanup(func() { _ = m.Close() })
	require.NoError(t, m.Setup(trueShapes[0].full(), smallLimits, smallLimits))
	const most = 6
	per := m.pool.hostPer
	require.NoError(t, m.ResizePool(2*most, per+most))
	var out, in []kernels.BlockCopy
	for i := range int32(most - 1) {
		values := make([]uint16, m.kv.BlockElems())
		for j := range values {
			values[j] = uint16(j) * uint16(i+1)
		}
		m.WriteBlock(1+i, values)
		host := int32(per) - 2 + i
		out, in = append(out, kernels.BlockCopy{Src: 1 + i, Dst: host}), append(in, kernels.BlockCopy{Src: host, Dst: most + i})
	}
	for _, ticket := range []kernels.Ticket{m.SwapOut(out), m.SwapIn(in)} {
		_, _, err := m.SwapDone(ticket, true)
		require.NoError(t, err)
	}
	for i := range int32(most - 1) {
		require.Equal(t, m.ReadBlock(1+i), m.ReadBlock(most+i))
	}
}

// TestLimitsBesideSwaps: limits and pools change while blocks are on their way, which takes
// some milliseconds.
func TestLimitsBesideSwaps(t *testing.T) {
	paths(t)
	m := newBackend(t, Config{})
	t.Cleanup(func() { _ = m.Close() })
	shape, lower := trueShapes[0].full(), smallLimits
	lower.MaxSeqs, lower.MaxLogitRows, lower.MaxBatchedTokens = 4, 4, 16
	require.NoError(t, m.Setup(shape, smallLimits, smallLimits))
	const n = 2000 // 375 MiB
	require.NoError(t, m.ResizePool(4*n, 4*n))
	values := make([]uint16, m.kv.BlockElems())
	var out, in []kernels.BlockCopy
	for i := range int32(n) {
		for j := range values {
			values[j] = uint16(i)
		}
		m.WriteBlock(1+i, values)
		out = append(out, kernels.BlockCopy{Src: 1 + i, Dst: (i*37 + 5) % n})
		in = append(in, kernels.BlockCopy{Src: (i*37 + 5) % n, Dst: n + 1 + (i*53)%n})
	}
	for _, swap := range []func() kernels.Ticket{func() kernels.Ticket { return m.SwapOut(out) }, func() kernels.Ticket { return m.SwapIn(in) }} {
		ticket := swap()
		require.NoError(t, m.SetLimits(lower))
		require.NoError(t, m.ResizePool(2*n+2, n))
		require.NoError(t, m.SetLimits(smallLimits))
		require.NoError(t, m.ResizePool(5*n, 5*n))
		_, _, err := m.SwapDone(ticket, true)
		require.NoError(t, err)
	}
	for i := range int32(n) {
		got := m.ReadBlock(n + 1 + (i*53)%n)
		require.EqualValues(t, []uint16{uint16(i), uint16(i)}, []uint16{got[0], got[len(got)-1]}, "block %d", i)
	}
}
