package main

import (
	"errors"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

func TestSize(t *testing.T) {
	for text, want := range map[string]int64{
		"4096": 4096, "8k": 8192, "512MiB": 512 << 20, "1.5GiB": 3 << 29, "2GB": 2e9, "0": 0, "10 MiB": 10 << 20,
	} {
		var s size
		require.NoError(t, s.Set(text), text)
		require.Equal(t, want, s.bytes, text)
	}
	gib := size{unit: 1 << 30}
	require.NoError(t, gib.Set("4"))
	require.EqualValues(t, 4<<30, gib.bytes, "a bare number counts units")
	for _, text := range []string{"", "x", "-1", "4 apples", "1e30GiB", "nan"} {
		require.Error(t, new(size).Set(text), text)
	}
}

// resolve parses a command line with an environment, as every command does.
func resolve(t *testing.T, environment map[string]string, args ...string) (engine.Config, error) {
	t.Helper()
	var f engineFlags
	cmd := &cobra.Command{}
	f.register(cmd.Flags(), 256)
	addNegations(cmd.Flags())
	if err := cmd.ParseFlags(args); err != nil {
		return engine.Config{}, usageError{err}
	}
	err := setFromEnvironment(cmd, func(name string) (string, bool) { v, ok := environment[name]; return v, ok })
	if err != nil {
		return engine.Config{}, err
	}
	return f.resolve(cmd, "model")
}

func TestFlags(t *testing.T) {
	c, err := resolve(t, nil, "--max-model-len", "8k", "--kv-cache-memory-bytes", "64MiB", "--swap-space", "0", "--no-enable-prefix-caching", "--no-async-scheduling",
		"--enforce-eager", "--cuda-graph-sizes", "1,8,64")
	require.NoError(t, err)
	require.True(t, c.EnforceEager)
	require.Equal(t, []int{1, 8, 64}, c.CUDAGraphSizes)
	require.Equal(t, 8192, c.MaxModelLen)
	require.EqualValues(t, 64<<20, c.KVCacheMemoryBytes)
	require.Negative(t, c.SwapSpace, "0 is off")
	require.True(t, c.DisablePrefixCaching)
	require.Equal(t, "off", c.AsyncScheduling)

	c, err = resolve(t, nil)
	require.NoError(t, err)
	require.Zero(t, c.MaxModelLen)
	require.EqualValues(t, 4<<30, c.SwapSpace)
	require.False(t, c.DisablePrefixCaching)
	require.Empty(t, c.AsyncScheduling)
}

func TestCommandLineBeatsEnvironment(t *testing.T) {
	c, err := resolve(t, map[string]string{"PAGODA_MAX_NUM_SEQS": "7", "PAGODA_BLOCK_SIZE": "32"}, "--max-num-seqs", "9")
	require.NoError(t, err)
	require.Equal(t, 9, c.MaxNumSeqs)
	require.Equal(t, 32, c.BlockSize)
	c, err = resolve(t, map[string]string{"PAGODA_NO_ENABLE_PREFIX_CACHING": "true"}, "--enable-prefix-caching")
	require.NoError(t, err)
	require.False(t, c.DisablePrefixCaching, "a flag and its --no- form count as one")
	_, err = resolve(t, map[string]string{"PAGODA_BLOCK_SIZE": "many"})
	require.ErrorContains(t, err, "PAGODA_BLOCK_SIZE=many")
}

func TestUsageErrorsExitWithTwo(t *testing.T) {
	for _, args := range [][]string{
		{"nosuch"}, {"bench", "nosuch"}, {"run"}, {"run", "a", "b", "c"}, {"serve", "m", "--nosuch"},
		{"run", "m", "p", "--temperature", "-1"}, {"run", "m", "p", "--max-model-len", "long"},
		{"run", "m", "p", "--memory-limit", "0"}, {"bench", "roofline", "m", "--batch-sizes", "0"},
		{"plan", "demo", "--what-if", "nan"}, {"top", "--url", "localhost:8000"}, {"run", "m", "p", "--load-format", "gguf"},
		{"serve", "m", "--api-key", ""}, {"serve", "m", "--served-model-name", ""}, {"serve", "m", "--drain-timeout", "-1s"},
		{"bench", "serve", "--output-dir", "/dev/null/x"}, {"bench", "serve", "--save-result", "--result-dir", "/dev/null/x"}, {"bench", "profile", "m", "--output-dir", "/dev/null/x"},
	} {
		root := rootCommand()
		root.SetArgs(args)
		require.Equal(t, exitUsage, exitCode(root.Execute()), "%v", args)
	}
	root := rootCommand()
	root.SetArgs([]string{"run", "no-such-model", "p"})
	err := root.Execute()
	require.Equal(t, exitModel, exitCode(err))
	require.ErrorContains(t, err, "no-such-model is no directory")
	require.Equal(t, exitMemory, exitCode(errors.Join(engine.ErrMemory)))
}

func TestTextWriterCutsAtStop(t *testing.T) {
	w := &textWriter{stop: []string{"END", "EN!"}}
	require.Equal(t, "some ", w.cut(w.held+"some E"))
	require.Equal(t, "", w.cut(w.held+"N"))
	require.Equal(t, "", w.cut(w.held+"D and more"))
	require.True(t, w.stopped)
}
