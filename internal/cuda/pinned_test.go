//go:build cuda

package cuda

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// TestPagesAreMade: what is registered begins with a huge page, and all of its pages are
// there before the driver asks for them one by one.
func TestPagesAreMade(t *testing.T) {
	resident := func() int {
		data, err := os.ReadFile("/proc/self/statm")
		require.NoError(t, err)
		pages, err := strconv.Atoi(strings.Fields(string(data))[1])
		require.NoError(t, err)
		return pages * os.Getpagesize()
	}
	const n, bytes = 5, 9<<20 + 4096
	before := resident()
	var pieces []Pinned
	for range n {
		p, err := mapPages(bytes)
		require.NoError(t, err)
		require.Len(t, p.memory, bytes)
		require.Zero(t, uintptr(unsafe.Pointer(&p.memory[0]))%hugePage)
		pieces = append(pieces, p)
	}
	for _, made := range populate(pieces, new(atomic.Bool)) {
		require.NoError(t, <-made)
	}
	require.Greater(t, resident()-before, n*bytes/2) // the system counts in batches
	for _, p := range pieces {
		p.memory[0], p.memory[bytes-1] = 1, 2
	}
	require.NoError(t, unmap(pieces))
	require.Less(t, resident()-before, n*bytes/4)
}

// TestNoMorePagesThanThereAre: what the machine does not have is an error, and no page is made.
func TestNoMorePagesThanThereAre(t *testing.T) {
	pieces, err := NewPinned(1<<20, 64<<20)
	require.Empty(t, pieces)
	require.True(t, OutOfMemory(err))
	require.ErrorContains(t, err, "70368744177664 bytes of pinned host memory")
}
