package kernels

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestUnion: what overlaps counts once, and of what reaches over a window only the part
// inside.
func TestUnion(t *testing.T) {
	union := Union([]Span{{50, 60}, {0, 10}, {8, 12}, {12, 13}, {9, 11}, {30, 30}, {40, 55}})
	require.Equal(t, []Span{{0, 13}, {40, 60}}, union)
	require.EqualValues(t, 33, Within(union, 0, 100))
	require.EqualValues(t, 8+5, Within(union, 5, 45))
	require.Zero(t, Within(union, 13, 40))
	require.Zero(t, Within(nil, 0, 100))
}
