//go:build cuda

package nvml

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThrottling(t *testing.T) {
	require.Empty(t, throttling(1), "idle")
	require.Equal(t, []string{"software power cap", "power brake"}, throttling(0x85))
}

// TestOpen reads a card, or says why there is none.
func TestOpen(t *testing.T) {
	g, err := Open(0)
	if err != nil {
		require.ErrorContains(t, err, "nvml: ")
		t.Skip(err)
	}
	defer g.Close()
	f := g.Read()
	require.NotEmpty(t, f.Name)
	require.Positive(t, f.MemoryTotal)
	require.Less(t, f.MemoryUsed, f.MemoryTotal)
	require.Positive(t, f.SMClockMHz)
	_, err = Open(99)
	require.ErrorContains(t, err, "99")
}
