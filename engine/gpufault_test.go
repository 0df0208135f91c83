//go:build cuda && faults

package engine

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/internal/cuda"
)

// TestGPUOutOfMemory lets each allocation of a start fail in turn: the message says
// what to set, and the next start finds all memory back.
func TestGPUOutOfMemory(t *testing.T) {
	config := gpuConfig(t)
	config.Model, config.NumGPUBlocksOverride, config.MaxModelLen, config.SwapSpace = tinyModel(t), 20000, 512, 150<<20
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	device, err := cuda.Open(0) // a context of our own: starts are quicker
	require.NoError(t, err)
	defer func() { require.NoError(t, device.Close()) }()
	e, err := New(config)
	require.NoError(t, err)
	require.NoError(t, e.Close())
	before, _, err := device.MemInfo()
	require.NoError(t, err)
	failures := 0
	for _, call := range []string{"cuModuleLoadData", "cuMemAddressReserve", "cuMemCreate", "cuMemHostAlloc", "cuMemHostRegister"} {
		for n := 1; ; n++ {
			missed := cuda.FailAllocation(call, n)
			e, err := New(config)
			if missed() {
				require.NoError(t, err)
				require.NoError(t, e.Close())
				t.Logf("%s: %d allocations", call, n-1)
				require.Greater(t, n, 1, "%s is never called", call)
				break
			}
			failures++
			require.ErrorIs(t, err, ErrMemory, "%s %d", call, n)
			require.False(t, errors.Is(err, ErrDevice))
			if call != "cuModuleLoadData" {
				require.ErrorContains(t, err, "--num-gpu-blocks-override (20000)")
			}
			require.ErrorContains(t, err, "end", "%s %d", call, n)
		}
	}
	after, _, err := device.MemInfo()
	require.NoError(t, err)
	require.InDelta(t, before, after, 8<<20, "%d starts that failed lost memory", failures)
}

// TestGPUOutOfMemoryRunning: while requests run, a graph that gets no memory stays
// eager and limits that get none stay as they were; no request notices.
func TestGPUOutOfMemoryRunning(t *testing.T) {
	e := openGPU(t, func(c *Config) { c.BatchInvariant, c.SwapSpace = true, 150<<20 })
	requests := tinyRequests()
	for i := range requests {
		requests[i].MaxTokens = 100
	}
	eager := generate(t, openGPU(t, func(c *Config) { c.BatchInvariant, c.EnforceEager = true, true }), requests)
	for _, n := range []int{2, 5, 12} { // their graphs have different sizes
		missed := cuda.FailAllocation("cuGraphInstantiate", 1)
		require.Equal(t, eager[:n], generate(t, e, requests[:n]))
		require.False(t, missed(), "no graph of %d", n)
	}
	for i := range requests {
		requests[i].MaxTokens = 2000
	}
	want := generate(t, e, requests)
	before, limits, failures := e.Info(), e.Limits(), 0
	var streams []*Stream
	for _, r := range requests {
		s, err := e.Submit(t.Context(), r)
		require.NoError(t, err)
		streams = append(streams, s)
	}
	grown := Limits{NumGPUBlocksOverride: 5000, MaxNumSeqs: 80, SwapSpace: 450 << 20}
	for _, call := range []string{"cuMemCreate", "cuMemHostRegister"} {
		for n := 1; ; n++ {
			missed := cuda.FailAllocation(call, n)
			err := e.Reconfigure(t.Context(), grown)
			if missed() {
				require.NoError(t, err)
				require.NoError(t, e.Reconfigure(t.Context(), limits))
				break
			}
			failures++
			require.ErrorIs(t, err, ErrMemory)
			require.ErrorContains(t, err, "--num-gpu-blocks-override (5000)")
			require.Equal(t, before, e.Info())
		}
	}
	running := e.Stats().Running
	for i, s := range streams {
		require.Equal(t, want[i], answer(t, s), "request %d", i)
	}
	t.Logf("%d growths failed; %d requests ran on after them", failures, running)
	require.Greater(t, failures, 8)
	require.Positive(t, running)
}

// TestGPUFault: a fault of the device ends every request with ErrDevice and the engine
// with it. It runs in a process of its own: no context of that one works any more.
func TestGPUFault(t *testing.T) {
	c := gpuConfig(t)
	const own = "PAGODA_TEST_GPU_FAULT"
	if os.Getenv(own) == "" {
		cmd := exec.Command(os.Args[0], "-test.v", "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), own+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: "+t.Name())
		return
	}
	e, err := New(c)
	require.NoError(t, err)
	var streams []*Stream
	for _, r := range tinyRequests() {
		r.MaxTokens = 4000
		s, err := e.Submit(t.Context(), r)
		require.NoError(t, err)
		streams = append(streams, s)
	}
	for range 10 {
		_, ok := streams[0].Next(t.Context())
		require.True(t, ok)
	}
	require.NoError(t, e.alone(t.Context(), func(*loop) bool { // on the thread that has the context
		err = cuda.Fault()
		return true
	}))
	require.NoError(t, err)
	for _, s := range streams {
		_, last := readAll(t, s)
		require.Equal(t, FinishError, last.Finish)
		require.ErrorIs(t, last.Err, ErrDevice)
	}
	<-e.Done()
	require.ErrorIs(t, e.Err(), ErrDevice)
	require.ErrorContains(t, e.Err(), "CUDA_ERROR")
	_, err = e.Submit(t.Context(), Request{Prompt: []int32{1}, MaxTokens: 1})
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, e.Close(), ErrDevice)
}
