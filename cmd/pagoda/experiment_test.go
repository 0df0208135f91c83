package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/bench"
	"github.com/pagoda-engine/pagoda/engine"
)

// tiny makes any experiment take less than a second on the demo.
var tiny = []string{"--quiet", "--device", "cpu", "--requests", "4", "--prompt-tokens", "16", "--output-tokens", "6"}

// TestExperimentsOnTheDemo runs each command as a user does: it prints its table and
// verdict and leaves a folder that compare reads.
func TestExperimentsOnTheDemo(t *testing.T) {
	skipWithoutDemo(t)
	if testing.Short() {
		t.Skip("TestTuneOnTheDemo runs experiments, too, for the race detector to see")
	}
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		name  string
		args  []string
		cells int
		want  []string // of the output
		flags []string // of the manifest
		files []string
	}{
		{"baseline", []string{"--batch-sizes", "1,2"}, 2, []string{"batch-size", "peak memory", "Batch 2: "}, []string{"max_num_seqs", "swap_space"}, []string{"throughput.png"}},
		{"memory", []string{"--gpu-memory-utilization", "0.1,0.95", "--repeats", "1"}, 2, []string{"engine memory", "The highest value that works is 0.95"}, []string{"memory_limit", "num_gpu_blocks"}, []string{"usage.png"}},
		{"seqs", []string{"--max-num-seqs", "1,4", "--repeats", "1"}, 2, []string{"Sweet spot: max_num_seqs", "One repeat has no spread"}, []string{"num_gpu_blocks_override"}, nil},
		{"swap", []string{"--swap-space", "0,1MiB", "--repeats", "1"}, 4, []string{"swaps", "GiB is enough"}, []string{"num_gpu_blocks_override"}, []string{"tradeoff.png"}},
		{"paged", []string{"--repeats", "1"}, 4, []string{"KV block utilization is", "waste if contiguous"}, nil, []string{"waste.png"}},
		{"optimized", []string{"--batch-sizes", "2", "--max-num-seqs", "4"}, 1, []string{"Against the baseline, interleaved", "--max-num-seqs"}, []string{"max_num_seqs"}, []string{"baseline/report.json"}},
	} {
		out, err := run(t, append(append([]string{"bench", c.name, "demo"}, tiny...), c.args...)...)
		require.NoError(t, err, c.name)
		for _, want := range c.want {
			require.Contains(t, strings.Join(strings.Fields(out), " "), want, c.name)
		}
		r, err := bench.ReadReport(c.name)
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(r.Cells), c.cells, c.name)
		if c.name == "paged" {
			require.Empty(t, r.Best, "its rows are other requests")
		}
		for _, name := range c.flags {
			require.Contains(t, r.Manifest.EffectiveFlags, name, c.name)
		}
		for _, file := range append(c.files, "report.html") {
			require.FileExists(t, filepath.Join(c.name, file))
		}
	}
	out, err := run(t, "bench", "compare", "baseline", "optimized/baseline", "--output-dir", "compare")
	require.NoError(t, err)
	require.Contains(t, strings.Join(strings.Fields(out), " "), "measured one after the other")
	require.Contains(t, out, "ITL p99 ms")
	require.FileExists(t, "compare/report.html")
}

// TestTuneOnTheDemo: the search ends with a file of parameters, having tried the largest
// values too.
func TestTuneOnTheDemo(t *testing.T) {
	skipWithoutDemo(t)
	t.Chdir(t.TempDir())
	args := append([]string{"tune", "demo", "--repeats", "1", "--gpu-memory-utilization", "0.9,0.95", "--max-num-seqs", "2,1100",
		"--max-num-batched-tokens", "64,9000", "--swap-space", "0", "--memory-limit", "1GiB", "--output-dir", "tuned"}, tiny...)
	out, err := run(t, args...)
	require.NoError(t, err)
	require.Contains(t, out, "baseline")
	require.NotContains(t, out, "no room reserved", "the engine starts with the largest values to try")
	config, err := os.ReadFile("tuned/optimal_config.yaml")
	require.NoError(t, err)
	require.Contains(t, string(config), "max_num_seqs: ")
	out, err = run(t, "plan", "demo", "--device", "cpu", "--config", "tuned/optimal_config.yaml")
	require.NoError(t, err)
	require.Contains(t, out, "1.00 GiB", "what it is served with is what it was measured with")
	require.FileExists(t, "tuned/runs.jsonl")
	r, err := bench.ReadReport("tuned")
	require.NoError(t, err)
	require.Less(t, r.Manifest.EffectiveFlags["max_num_seqs"], 1100.0, "the flags are those of the start")
	require.Equal(t, "inf", r.Manifest.EffectiveFlags["request_rate"])
}

// TestExperimentRefusals: bad settings are told before a model loads, and leave no
// folder behind.
func TestExperimentRefusals(t *testing.T) {
	t.Chdir(t.TempDir())
	for want, args := range map[string][]string{
		"--requests 1000000000: want 1 to 100000":             {"bench", "baseline", "nosuch", "--requests", "1000000000"},
		"--batch-sizes 0: want 1":                             {"bench", "baseline", "nosuch", "--batch-sizes", "1,0"},
		"--gpu-memory-utilization [0.5 1.5]":                  {"tune", "nosuch", "--gpu-memory-utilization", "0.5,1.5"},
		"--max-num-batched-tokens -1":                         {"tune", "nosuch", "--max-num-batched-tokens", "-1"},
		"--num-gpu-blocks-override: this command varies":      {"bench", "memory", "nosuch", "--num-gpu-blocks-override", "10"},
		"--kv-cache-memory-bytes: this command varies":        {"tune", "nosuch", "--kv-cache-memory-bytes", "1GiB"},
		"--repeats 0: want at least 1":                        {"bench", "swap", "nosuch", "--repeats", "0"},
		"--n 1: want 2":                                       {"bench", "paged", "nosuch", "--n", "1"},
		"--max-num-seqs 20000: want 1 to 16384":               {"bench", "seqs", "nosuch", "--max-num-seqs", "4,20000"},
		"--requests and --repeats: want at most 100000, 1000": {"bench", "preemption", "nosuch", "--requests", "1000000000"},
	} {
		_, err := run(t, append(args, "--quiet")...)
		require.ErrorContains(t, err, want)
		require.Equal(t, exitUsage, exitCode(err), want)
	}
	_, err := run(t, "tune", "nosuch", "--quiet", "--output-dir", "a/b/c")
	require.Equal(t, exitModel, exitCode(err))
	_, err = run(t, "bench", "profile", "nosuch", "--quiet")
	require.Equal(t, exitModel, exitCode(err))
	left, err := os.ReadDir(".")
	require.NoError(t, err)
	require.Empty(t, left, "no folder of a measurement that did not begin")
}

// TestMoreThanFits: values that the memory has no room for are results; the engine
// starts with smaller ones.
func TestMoreThanFits(t *testing.T) {
	skipWithoutDemo(t)
	t.Chdir(t.TempDir())
	out, err := run(t, append([]string{"bench", "seqs", "demo", "--max-num-seqs", "4,16000", "--memory-limit", "120MiB", "--repeats", "1"}, tiny...)...)
	require.NoError(t, err)
	require.Contains(t, strings.Join(strings.Fields(out), " "), "16000 is out of memory")
	text, err := os.ReadFile("seqs/report.json")
	require.NoError(t, err)
	var r bench.Report
	require.NoError(t, json.Unmarshal(text, &r))
	require.EqualValues(t, 1, r.Cells[len(r.Cells)-1].Metrics["out_of_memory"].Median)
	_, err = run(t, append([]string{"bench", "seqs", "demo", "--max-num-seqs", "4,16000", "--memory-limit", "1MiB", "--repeats", "1"}, tiny...)...)
	require.ErrorIs(t, err, engine.ErrMemory)
	require.ErrorContains(t, err, "--max-num-seqs (16000)", "smaller ones are not tried where the weights alone are too much")
}
