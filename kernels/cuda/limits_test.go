//go:build cuda && faults

package cuda

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/internal/cuda"
)

// TestSetupWithinLimits: Setup takes the memory of the limits, at no moment more,
// however large the maxima are; they can be had later.
func TestSetupWithinLimits(t *testing.T) {
	paths(t)
	b := newBackend(t, Config{})
	defer func() { require.NoError(t, b.Close()) }()
	most := smallLimits
	most.MaxBatchedTokens, most.MaxSeqs, most.MaxLogitRows = 8192, 1024, 1024
	planned := b.WorkspaceBytes(small(), smallLimits)
	missed := cuda.FailAllocation("cuMemCreate", int(planned/cuda.PatchBytes)+1)
	require.NoError(t, b.Setup(small(), most, smallLimits))
	require.True(t, missed())
	require.Equal(t, planned, b.place.Backed())
	require.NoError(t, b.SetLimits(most))
	require.Equal(t, b.WorkspaceBytes(small(), most), b.place.Backed())
}
