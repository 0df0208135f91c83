package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPatternsMatch: each mutant follows the code. Whether it is caught is for `make
// mutants` to show.
func TestPatternsMatch(t *testing.T) {
	t.Chdir(filepath.Join("..", ".."))
	names := map[string]bool{}
	for _, m := range mutants {
		require.False(t, names[m.name], "%s is there twice", m.name)
		names[m.name] = true
		_, err := m.overlay(t.TempDir())
		require.NoError(t, err, m.name)
	}
	require.GreaterOrEqual(t, len(names), 30)
}
