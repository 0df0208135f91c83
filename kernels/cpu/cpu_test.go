package cpu

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kernels/kernelstest"
)

// paths are the code paths that this machine has.
func paths() []string {
	if _, err := choosePath(pathAVX512); err != nil {
		return []string{pathScalar}
	}
	return []string{pathScalar, pathAVX512}
}

func newBackend(t testing.TB, cfg Config) *Backend {
	t.Helper()
	b, err := New(cfg)
	require.NoError(t, err)
	return b
}

func TestConformance(t *testing.T) {
	for _, path := range paths() {
		for _, threads := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/%d", path, threads), func(t *testing.T) {
				kernelstest.Run(t, kernelstest.Float32(), func(t *testing.T) kernels.Backend {
					return newBackend(t, Config{ISA: path, Threads: threads})
				})
			})
		}
	}
}
