package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/bench"
)

// TestBenchProfile: the whole experiment on the demo model, small: what is printed,
// a trace a part and the report.
func TestBenchProfile(t *testing.T) {
	skipWithoutDemo(t)
	dir := t.TempDir()
	text, err := command("bench", "profile", "demo", "-q", "--batch-sizes", "1,2", "--prompt-tokens", "16", "--steps", "3",
		"--profile-dir", filepath.Join(dir, "profiles"), "--output-dir", filepath.Join(dir, "report"))
	require.NoError(t, err)
	for _, want := range []string{
		"roofline: reads ", "prefill, 16 tokens: 3 steps", "decode, batch 1: 3 steps", "decode, batch 2: 3 steps", "busy ", "occupancy ", "copies ",
		"gaps ", "linear.attn", "linear.mlp", "attention", "bound by ", "% of roofline",
	} {
		require.Contains(t, text, want)
	}
	for _, part := range []string{"prefill-16", "decode-batch-1", "decode-batch-2"} {
		traces, err := filepath.Glob(filepath.Join(dir, "profiles", part, "*.pt.trace.json"))
		require.NoError(t, err)
		require.Len(t, traces, 1, part)
		trace, err := os.ReadFile(traces[0])
		require.NoError(t, err)
		require.Equal(t, 3, strings.Count(string(trace), `"name":"ProfilerStep#`))
	}
	report, err := bench.ReadReport(filepath.Join(dir, "report"))
	require.NoError(t, err)
	require.Equal(t, "profile", report.Experiment)
	require.Len(t, report.Cells, 3)
	require.FileExists(t, filepath.Join(dir, "report", "roofline.png"))
	page, err := os.ReadFile(filepath.Join(dir, "report", "report.html"))
	require.NoError(t, err)
	require.Contains(t, string(page), "workers busy")
}

// TestBenchProfileTrouble: what cannot be is told at once with the flag to change;
// a trace that is too large costs the trace alone.
func TestBenchProfileTrouble(t *testing.T) {
	skipWithoutDemo(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := command("bench", "profile", "no-such-model", "--profile-dir", filepath.Join(file, "x"))
	require.Equal(t, exitUsage, exitCode(err))
	require.ErrorContains(t, err, "--profile-dir")
	_, err = command("bench", "profile", "demo", "-q", "--prompt-tokens", "5000", "--profile-dir", dir)
	require.Equal(t, exitUsage, exitCode(err))
	require.ErrorContains(t, err, "--prompt-tokens 5000")

	text, err := command("bench", "profile", "demo", "-q", "--batch-sizes", "1", "--prompt-tokens", "16", "--steps", "2", "--max-trace-mb", "0.001",
		"--profile-dir", dir, "--output-dir", filepath.Join(dir, "report"))
	require.ErrorContains(t, err, "--max-trace-mb")
	require.Contains(t, text, "no trace: ")
	require.Contains(t, text, "decode, batch 1: 2 steps", "the measurement goes on")
}

// TestServeProfileFlags: --profile-dir or vLLM's form turn profiles on.
func TestServeProfileFlags(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "traces")
	for _, c := range []struct {
		flags serveProfile
		dir   string
		steps int
		err   string
	}{
		{flags: serveProfile{}, steps: 12},
		{flags: serveProfile{foreign: `{"profiler":"torch","torch_profiler_dir":"` + dir + `","max_iterations":5,"torch_profiler_with_stack":false}`}, dir: dir, steps: 5},
		{flags: serveProfile{foreign: `{"profiler":null}`}, steps: 12},
		{flags: serveProfile{foreign: `{"profiler":"cuda"}`}, err: "NVTX"},
		{flags: serveProfile{foreign: `{"profiler":"torch"}`}, err: "torch_profiler_dir"},
		{flags: serveProfile{foreign: `{"profile_dir":"x"}`}, err: "profile_dir"},
		{flags: serveProfile{foreign: `torch`}, err: "want such as"},
	} {
		f := pflag.NewFlagSet("serve", pflag.ContinueOnError)
		given := c.flags.foreign
		c.flags.register(f)
		c.flags.foreign = given
		err := c.flags.resolve()
		if c.err != "" {
			require.ErrorContains(t, err, c.err)
			require.Equal(t, exitUsage, exitCode(err))
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.dir, c.flags.config.Dir)
		require.Equal(t, c.steps, c.flags.config.Steps)
		require.EqualValues(t, 12e6, c.flags.config.MaxTraceBytes)
	}
	require.DirExists(t, dir)
}
