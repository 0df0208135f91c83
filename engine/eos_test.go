package engine

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestAddedEOSID: an id that is added ends requests, is ignored and is held back as the
// model's own are.
func TestAddedEOSID(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		e := startFake(t, &fake{}, c)
		free := Request{Prompt: prompt(3, 20), MaxTokens: 200, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}}
		chain, _ := expect(&free, 200, 0)
		at := 4
		for indexOf(t, chain, chain[at]) != at || chain[at] == 0 {
			at++
		}
		e.AddEOSID(chain[at])
		e.AddEOSID(chain[at])
		e.AddEOSID(0)
		require.Equal(t, []int32{0, chain[at]}, e.Info().EOSIDs)
		require.Less(t, at, indexOf(t, chain, 0))
		run := func(r Request) ([]int32, Event) {
			s, err := e.Submit(context.Background(), r)
			require.NoError(t, err)
			return readAll(t, s)
		}
		ended := free
		ended.IgnoreEOS = false
		got, last := run(ended)
		require.Equal(t, chain[:at+1], got)
		require.Equal(t, FinishStop, last.Finish)
		require.Equal(t, chain[at], last.StopID)
		got, _ = run(free)
		require.Equal(t, chain, got)
		held := ended
		held.Sampling.MinTokens = int32(at + 2)
		got, _ = run(held)
		require.Greater(t, len(got), at+1)
		require.NotContains(t, got[:at+2], chain[at])
	})
	e := startFake(t, &fake{}, Config{})
	require.PanicsWithValue(t, "engine: the end of sequence is id 61 of 61", func() { e.AddEOSID(fakeVocab) })
}
