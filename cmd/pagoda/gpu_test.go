//go:build cuda

package main

import (
	"context"
	"net/http"
	"runtime"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/model/demo"
)

// TestZServerGPUFault: after a fault of the device the streams under way end with an
// error, the server is no longer ready, and it ends. It comes last: no context of this process works any more.
func TestZServerGPUFault(t *testing.T) {
	if cuda.Devices() == 0 || *testDevice == "cpu" {
		t.Skip("no GPU: " + cuda.Status())
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
