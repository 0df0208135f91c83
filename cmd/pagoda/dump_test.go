package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

// TestTraceOfDump: what the watchdog writes of a real engine, pagoda trace prints.
func TestTraceOfDump(t *testing.T) {
	e, err := engine.New(engine.Config{Model: "demo", Device: "cpu", CPUISA: "scalar", MemoryLimit: 512 << 20, NumGPUBlocksOverride: 256})
	require.NoError(t, err)
	defer e.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, err := e.Submit(ctx, engine.Request{ID: "asked-for", Prompt: make([]int32, 70), IgnoreEOS: true})
	require.NoError(t, err)
	for range 15 { // more, with which the slowest code takes minutes: it goes on whatever holds up this goroutine
		_, err := e.Submit(ctx, engine.Request{Prompt: make([]int32, 1), IgnoreEOS: true})
		require.NoError(t, err)
	}
	_, ok := s.Next(ctx)
	require.True(t, ok)
	var text bytes.Buffer
	require.NoError(t, e.Dump(&text, "it does nothing"))
	path := filepath.Join(t.TempDir(), "x.dump.jsonl")
	require.NoError(t, os.WriteFile(path, text.Bytes(), 0o600))

	out, err := command("trace", path)
	require.NoError(t, err)
	require.Contains(t, out, "demo on ")
	require.Contains(t, out, ": it does nothing\n")
	require.Contains(t, out, "no invariant is violated")
	require.Contains(t, out, "prefill 1 [0,70)")
	require.Regexp(t, `1 +asked-for +running +70 .* 1-`, out)
	require.Contains(t, out, "goroutine ")

	out, err = command("trace", path, "--format", "perfetto")
	require.NoError(t, err)
	require.Contains(t, out, `"traceEvents"`)

	require.NoError(t, os.WriteFile(path, text.Bytes()[:text.Len()/2], 0o600))
	out, err = command("trace", path)
	require.NoError(t, err, "cut off")
	require.Contains(t, out, "it does nothing")
	require.Equal(t, "1-3 9 12-13", blockRanges([]int32{1, 2, 3, 9, 12, 13}))
}
