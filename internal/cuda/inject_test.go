//go:build cuda && faults

package cuda

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestBackWithoutMemory: with no memory for one of three units nothing changes.
func TestBackWithoutMemory(t *testing.T) {
	d := device(t)
	r, err := d.NewRange(8*PatchBytes, PatchBytes)
	require.NoError(t, err)
	_, err = r.Back([]Span{{4 * PatchBytes, PatchBytes}})
	require.NoError(t, err)
	for n := 1; n <= 3; n++ {
		missed := FailAllocation("cuMemCreate", n)
		_, err = r.Back([]Span{{0, 3 * PatchBytes}})
		require.True(t, OutOfMemory(err), err)
		require.False(t, missed())
		require.EqualValues(t, PatchBytes, r.Backed())
	}
	fresh, err := r.Back([]Span{{0, 3 * PatchBytes}, {4 * PatchBytes, 1}})
	require.NoError(t, err)
	require.Len(t, fresh, 3)
	require.NoError(t, r.Free())
}
