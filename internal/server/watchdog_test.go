package server

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

func dumps(t *testing.T, dir string) []string {
	files, err := filepath.Glob(filepath.Join(dir, "pagoda-*.dump.jsonl"))
	require.NoError(t, err)
	return files
}

// TestWatchdogDumpsOnce: an engine that hangs is dumped once for each time that it
// does, and one that idles never.
func TestWatchdogDumpsOnce(t *testing.T) {
	dir := t.TempDir()
	f := newFakeEngine("x")
	s := newTestServer(t, f, Config{StallTimeout: 10 * time.Second, DumpDir: dir})
	now := time.Now()
	later := func(d time.Duration) {
		now = now.Add(d)
		s.guard(now)
	}
	later(time.Second)
	later(time.Hour)
	require.Empty(t, dumps(t, dir), "idle")
	f.stats = engine.Stats{Running: 1, Steps: 5}
	later(time.Second)
	later(9 * time.Second)
	require.Empty(t, dumps(t, dir))
	later(2 * time.Second)
	later(time.Hour)
	require.Len(t, dumps(t, dir), 1)
	var line engine.DumpLine
	text, err := os.ReadFile(dumps(t, dir)[0])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &line))
	require.Contains(t, line.Dump.Reason, "no progress for 11 s")
	f.stats.Steps++
	later(time.Second)
	later(time.Hour)
	require.Len(t, dumps(t, dir), 2)
}

// TestWatchdogPolicy: with the policy to exit Serve ends, and says why; a directory
// that cannot be written to does not keep it.
func TestWatchdogPolicy(t *testing.T) {
	f := newFakeEngine("x")
	s := serve(t, f, Config{ExitOnStall: true, StallTimeout: 10 * time.Second, DumpDir: "/nowhere"}, func(s *Server) {
		s.progress.stalled(&engine.Stats{Running: 1}, time.Now().Add(-time.Hour))
		f.stats.Running = 1
	})
	require.ErrorIs(t, s.wait(t), ErrStalled)
}

// TestFailureIsDumped: what the engine was doing when its device failed is kept.
func TestFailureIsDumped(t *testing.T) {
	dir := t.TempDir()
	f := newFakeEngine("x")
	s := serve(t, f, Config{DumpDir: dir}, nil)
	f.err = engine.ErrDevice
	close(f.done)
	require.ErrorIs(t, s.wait(t), engine.ErrDevice)
	require.Len(t, dumps(t, dir), 1)
}
