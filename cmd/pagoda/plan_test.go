package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// execute runs a command line and returns what it printed.
func execute(args ...string) (string, error) {
	root := rootCommand()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs(args)
	err := root.Execute()
	return out.String(), err
}

// TestPlanCommand: a plan for a card that is not here, whose numbers belong
// together.
func TestPlanCommand(t *testing.T) {
	args := []string{"plan", "qwen2.5-7b", "--load-format", "dummy", "--device", "cuda", "--memory-limit", "24GiB", "--max-num-seqs", "64"}
	out, err := execute(append(args, "--json")...)
	require.NoError(t, err)
	var r planReport
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.True(t, r.Fits)
	require.EqualValues(t, 24<<30, r.MemoryLimit)
	var sum int64
	for _, l := range r.Ledger {
		sum += l.Bytes
	}
	require.Equal(t, r.MemoryLimit, sum)
	require.Equal(t, 57344, int(r.KVBytesPerToken))
	require.Equal(t, r.NumGPUBlocks*r.BlockSize, r.KVTokens)
	for _, c := range r.Concurrency {
		require.LessOrEqual(t, c.PoolHolds*c.BlocksPerSequence, r.NumGPUBlocks)
		require.Greater(t, (c.PoolHolds+1)*c.BlocksPerSequence, r.NumGPUBlocks)
		require.Equal(t, min(c.PoolHolds, 64), c.MaxConcurrent)
	}
	require.Equal(t, r.MaxModelLen, r.Concurrency[len(r.Concurrency)-1].Context)
	previous := 0
	for _, u := range r.WhatIf {
		require.GreaterOrEqual(t, u.NumGPUBlocks, previous)
		previous = u.NumGPUBlocks
		if u.Utilization == 0.9 {
			require.Equal(t, r.NumGPUBlocks, u.NumGPUBlocks)
		}
	}
	require.False(t, r.WhatIf[0].Fits, "15 GB of weights in half of 24 GiB")
	out, err = execute(args...)
	require.NoError(t, err)
	require.Contains(t, out, "the longest sequence")
	require.Contains(t, out, "does not fit")
}

func TestPlanThatDoesNotFit(t *testing.T) {
	out, err := execute("plan", "qwen2.5-14b", "--load-format", "dummy", "--device", "cuda", "--memory-limit", "24GiB", "--json")
	require.Equal(t, exitMemory, exitCode(err))
	require.ErrorContains(t, err, "set --memory-limit to at least")
	var r planReport
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.False(t, r.Fits)
	require.Equal(t, err.Error(), r.Error)
	require.Greater(t, r.WeightBytes, int64(24<<30))
}

// testDoctor looks at a machine with a port, directories and procfs of its own.
func testDoctor(t *testing.T) *doctor {
	home := t.TempDir()
	return &doctor{
		device: "cpu", host: "127.0.0.1", profileDir: filepath.Join(home, "profiles"), proc: t.TempDir(),
		lookup: func(name string) (string, bool) { return home, name == "HF_HOME" },
	}
}

// found is the check of that name.
func (d *doctor) found(t *testing.T, name string) check {
	for _, c := range d.checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no check %q in %v", name, d.checks)
	return check{}
}

func TestDoctor(t *testing.T) {
	d := testDoctor(t)
	require.NoError(t, os.WriteFile(filepath.Join(d.proc, "cpuinfo"), []byte("model name : x\nflags : fpu avx2 fma avx512f\n"), 0o600))
	d.machine(t.Context())
	var out bytes.Buffer
	require.NoError(t, d.report(&out, true))
	var r struct {
		OK     bool
		Checks []check
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &r))
	require.True(t, r.OK)
	require.Equal(t, d.checks, r.Checks)
	require.Contains(t, d.found(t, "processor").Detail, "(avx2 fma avx512f)")
	for _, c := range d.checks {
		require.Equal(t, c.Status == statusOK, c.Fix == "", "%+v: what is not ok has a fix", c)
	}
}

// TestDoctorFails: a taken port, a directory that cannot be, a card that is not
// there; each with its fix, and exit code 1.
func TestDoctorFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	d := testDoctor(t)
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	d.port, err = strconv.Atoi(port)
	require.NoError(t, err)
	d.device = "cuda"
	file := filepath.Join(d.proc, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	d.profileDir = filepath.Join(file, "profiles")
	blobs := filepath.Join(hubCacheDir(d.lookup), "models--a--b", "blobs")
	require.NoError(t, os.MkdirAll(blobs, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(blobs, "x.incomplete"), nil, 0o600))
	d.machine(t.Context())
	d.model(t.Context(), "no-such-model")
	var out bytes.Buffer
	err = d.report(&out, false)
	require.Equal(t, exitFailure, exitCode(err))
	for _, name := range []string{"port", "profile directory", "driver", "model"} {
		c := d.found(t, name)
		require.Equal(t, statusFail, c.Status, name)
		require.NotEmpty(t, c.Fix)
		require.Contains(t, out.String(), c.Fix)
	}
	require.Equal(t, statusWarn, d.found(t, "model cache").Status)
}

func TestHubCacheDir(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"HOME": "/h"}, "/h/.cache/huggingface/hub"},
		{map[string]string{"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"},
		{map[string]string{"HOME": "/h", "HF_HOME": "/f"}, "/f/hub"},
		{map[string]string{"HF_HOME": "/f", "HF_HUB_CACHE": "/c"}, "/c"},
	} {
		require.Equal(t, c.want, hubCacheDir(func(name string) (string, bool) { v, ok := c.env[name]; return v, ok }))
	}
}
