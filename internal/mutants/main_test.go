package main

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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

// TestHarness plays the tests: what they print decides what counts.
func TestHarness(t *testing.T) {
	t.Chdir(filepath.Join("..", ".."))
	failing := errors.New("exit status 1")
	for name, c := range map[string]struct {
		baseline, mutated string // output; "" = the tests pass
		caught            int
		problem           string
	}{
		"caught":             {"", "--- FAIL: TestMachine (0.1s)\nFAIL", 2, ""},
		"hangs":              {"", "panic: test timed out after 1m0s", 2, ""},
		"not caught":         {"", "", 0, "not caught"},
		"does not compile":   {"", "FAIL x [build failed]", 0, "does not compile"},
		"fails without name": {"", "signal: killed", 0, "no test failed"},
		"broken before":      {"--- FAIL: TestMachine (0.1s)\nFAIL", "--- FAIL: TestMachine (0.1s)\nFAIL", 0, "the tests fail without a mutant"},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var runs [][]string
			h := harness{parallel: 2, test: func(args ...string) ([]byte, error) {
				mu.Lock()
				defer mu.Unlock()
				runs = append(runs, args)
				out := c.baseline
				if slices.Contains(args, "-overlay") {
					out = c.mutated
				}
				if out != "" {
					return []byte(out), failing
				}
				return nil, nil
			}}
			caught, err := h.run([]mutant{mutants[0], mutants[len(mutants)-1]})
			require.Equal(t, c.caught, caught)
			if c.problem != "" {
				require.ErrorContains(t, err, c.problem)
			} else {
				require.NoError(t, err)
			}
			require.NotContains(t, runs[0], "-overlay", "the tests as they are come first")
			require.Contains(t, runs[0], "./kvcache", "all that some mutant needs")
			if c.baseline != "" {
				require.Len(t, runs, 1)
				return
			}
			require.Len(t, runs, 3)
			require.Equal(t, time.Minute, h.timeout, "the least")
			require.Contains(t, strings.Join(runs[1], " "), "-timeout=1m0s")
		})
	}
	_, err := new(harness).run(nil)
	require.ErrorContains(t, err, "no such mutant")
}
