//go:build cuda && faults

package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/model/demo"
)

// TestServerGPUFault: after a fault of the device the streams under way end with an
// error, the server is no longer ready, and it ends. It runs in a process of its own: no
// context of that one works any more.
func TestServerGPUFault(t *testing.T) {
	if cuda.Devices() == 0 || *testDevice == "cpu" {
		t.Skip("no GPU: " + cuda.Status())
	}
	const own = "PAGODA_TEST_GPU_FAULT"
	if os.Getenv(own) == "" {
		cmd := exec.Command(os.Args[0], "-test.v", "-test.run", "^"+t.Name()+"$", "-device", "cuda")
		cmd.Env = append(os.Environ(), own+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: "+t.Name())
		return
	}
	s := startServer(t, engine.Config{MaxNumSeqs: 8, MaxModelLen: 1024, NumGPUBlocksOverride: 300})
	s.broken = true
	ask := openai.ChatCompletionNewParams{
		Model: demo.Name, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Tell me a story.")}, MaxTokens: openai.Int(900),
	}
	// ready is false, too, when nobody listens any more.
	ready := func() bool {
		response, err := s.http.Get(s.url + "/health")
		if err != nil {
			return false
		}
		require.NoError(t, response.Body.Close())
		return response.StatusCode == http.StatusOK
	}
	require.True(t, ready())
	stream := s.client.Chat.Completions.NewStreaming(context.Background(), ask)
	require.True(t, stream.Next())
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, err := cuda.Open(0) // the same context as the engine's
	require.NoError(t, err)
	require.NoError(t, cuda.Fault())
	for stream.Next() { // what had been sent
	}
	require.Error(t, stream.Err())
	<-s.engine.Done()
	require.ErrorIs(t, s.engine.Err(), engine.ErrDevice)
	require.False(t, ready())
	require.ErrorIs(t, <-s.served, engine.ErrDevice) // the process ends with it
	require.ErrorIs(t, s.engine.Close(), engine.ErrDevice)
}
