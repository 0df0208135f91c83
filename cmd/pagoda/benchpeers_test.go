package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/bench"
)

// asCommand, in the environment, makes the test's binary the program itself, for
// commands that start another of their own.
const asCommand = "TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestPeersOnTheDemo measures, small, as a user does, every row but swap, which fails on a
// machine that is too busy.
func TestPeersOnTheDemo(t *testing.T) {
	skipWithoutDemo(t)
	t.Chdir(t.TempDir())
	t.Setenv(asCommand, "1")
	out, err := run(t, "bench", "peers", "demo", "--device", "cpu", "--memory-limit", "400MiB", "--quiet", "--rows", "start,decode,ttft,prefix,prefill,requests,sweep", "--shrink", "64", "--batch-sizes", "4,1,3000", "--repeats", "1")
	require.NoError(t, err)
	words := strings.Join(strings.Fields(out), " ")
	for _, want := range []string{
		"process start to first token, s", "decode, batch 4, ms a step", "decode, batch 3000, ms a step: skipped: 3000 sequences, --max-num-seqs is 1024",
		"first token of a prompt of 468, ms", "the same with 64 in the prefix cache, ms", "prefill of 2 × 16, tok/s", "4 requests at once",
		"8 of 8/4, max_num_seqs 2", "nothing stands beside the peer's figures", "time taken",
	} {
		require.Contains(t, words, want)
	}
	r, err := bench.ReadReport("peers")
	require.NoError(t, err)
	require.FileExists(t, "peers/report.html")
	require.Contains(t, r.Manifest.EffectiveFlags, "max_num_seqs")
	seen := map[string]int{}
	for _, c := range r.Cells {
		name := c.Params["row"].(string)
		seen[name]++
		if c.Note != "" {
			continue
		}
		for metric, m := range c.Metrics {
			require.True(t, m.Median > 0 || metric == "gpu_idle" || metric == "num_preemptions", "%s %v: %s", name, c.Params["at"], metric)
		}
		if name == "decode" {
			require.LessOrEqual(t, c.Metrics["steps"].Median, 4.0, "only the steps at the contexts that count")
			require.NotContains(t, c.Metrics, "peer")
		}
	}
	require.Equal(t, map[string]int{"start": 1, "decode": 3, "ttft": 4, "prefix": 2, "prefill": 1, "requests": 1, "sweep": 4}, seen)
}

// TestPeersWithoutRoom: to have measured nothing is a failure, with every model's reason.
func TestPeersWithoutRoom(t *testing.T) {
	t.Chdir(t.TempDir())
	out, err := run(t, "bench", "peers", "qwen2.5-7b", "qwen2.5-0.5b", "--load-format", "dummy", "--device", "cpu", "--memory-limit", "64MiB", "--quiet", "--rows", "decode")
	require.ErrorContains(t, err, "qwen2.5-7b: not enough memory")
	require.ErrorContains(t, err, "qwen2.5-0.5b: not enough memory")
	require.Equal(t, exitMemory, exitCode(err))
	require.Empty(t, out)
	require.NoDirExists(t, "peers")
}

// TestPeersRefusals: bad settings are told before a model loads and leave no folder.
func TestPeersRefusals(t *testing.T) {
	t.Chdir(t.TempDir())
	for want, args := range map[string][]string{
		"--rows speed: want some of start": {"--rows", "decode,speed"},
		"--batch-sizes 0: want 1":          {"--batch-sizes", "0"},
		"--repeats 0: want at least 1":     {"--repeats", "0"},
		"--shrink -1: want 1 to 1024":      {"--shrink", "-1"},
		"--trace-file: this command":       {"--trace-file", "x"},
		"--block-size 0: must be greater":  {"--block-size", "0"},
	} {
		_, err := run(t, append([]string{"bench", "peers", "nosuch", "--quiet"}, args...)...)
		require.ErrorContains(t, err, want)
		require.Equal(t, exitUsage, exitCode(err), want)
	}
	_, err := run(t, "bench", "peers", "nosuch", "--quiet", "--rows", "decode")
	require.Equal(t, exitModel, exitCode(err))
	left, err := os.ReadDir(".")
	require.NoError(t, err)
	require.Empty(t, left, "no folder of a measurement that did not begin")
}
