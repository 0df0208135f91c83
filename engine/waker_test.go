package engine

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestManyReadersAreWoken: readers that wait for every token of hundreds of streams get all
// of them, and Close ends the goroutine that wakes them.
func TestManyReadersAreWoken(t *testing.T) {
	const n, tokens = 200, 40
	e := startFake(t, &fake{}, Config{MaxNumSeqs: n, MaxNumBatchedTokens: 2048, NumGPUBlocksOverride: 2000, MaxModelLen: 256})
	var readers sync.WaitGroup
	got := make([]int, n)
	for i := range n {
		s, err := e.Submit(t.Context(), Request{Prompt: []int32{int32(i%50 + 1), 2, 3}, MaxTokens: tokens, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}})
		require.NoError(t, err)
		readers.Go(func() {
			for {
				ev, ok := s.Next(t.Context())
				if !ok {
					return
				}
				if ev.HasToken {
					got[i]++
				}
			}
		})
	}
	readers.Wait()
	for i := range got {
		require.Equal(t, tokens, got[i], "stream %d", i)
	}
	require.NotNil(t, e.loop.waker.told, "steps have readers enough")
	require.NoError(t, e.Close())
	select {
	case <-e.loop.waker.ended:
	default:
		t.Error("the goroutine still runs when Close has returned")
	}
}
