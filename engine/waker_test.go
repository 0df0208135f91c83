package engine

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestManyReadersAreWoken: readers that wait for every token of hundreds of streams get them as
// they come, not at the end alone, and Close ends the goroutine that wakes them.
func TestManyReadersAreWoken(t *testing.T) {
	loops(t, manyReaders)
}

func manyReaders(t *testing.T, c Config) {
	const n, tokens, some = 200, 40, 20
	var began, had, readers sync.WaitGroup
	began.Add(1)
	had.Add(n)
	f, step := &fake{}, 0
	f.onStep = func() {
		began.Wait() // all requests are there
		if step++; step == some+10 {
			had.Wait() // the engine goes no further until all readers have some tokens
		}
	}
	c.MaxNumSeqs, c.MaxNumBatchedTokens, c.NumGPUBlocksOverride, c.MaxModelLen = n, 2048, 2000, 256
	e := startFake(t, f, c)
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
					if got[i]++; got[i] == some {
						had.Done()
					}
				}
			}
		})
	}
	began.Done()
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

// TestLateNews: what a stream has shown is not taken back by news of before, nor is its end.
func TestLateNews(t *testing.T) {
	var s Stream
	s.init([]int32{7, 8, 9}, -1)
	late := []news{{&s, 1}, {&s, 2}}
	s.show(2)
	late[0].tell()
	for _, want := range []int32{7, 8} {
		ev, ok := s.Next(t.Context())
		require.True(t, ok)
		require.Equal(t, want, ev.Token)
	}
	s.finish(3, Event{HasToken: true, Finish: FinishLength})
	late[1].tell()
	ev, ok := s.Next(t.Context())
	require.True(t, ok)
	require.Equal(t, int32(9), ev.Token)
	require.Equal(t, FinishLength, ev.Finish)
	_, ok = s.Next(t.Context())
	require.False(t, ok)
}
