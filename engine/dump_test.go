package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/internal/invariant"
	"github.com/pagoda-engine/pagoda/kvcache"
)

// dumped reads a dump back.
func dumped(t *testing.T, e *Engine) (head *DumpHeader, steps []StepRecord, sequences []DumpSequence, goroutines string) {
	var text bytes.Buffer
	require.NoError(t, e.Dump(&text, "because"))
	for dec := json.NewDecoder(&text); ; {
		var l DumpLine
		if err := dec.Decode(&l); err == io.EOF {
			return head, steps, sequences, goroutines
		} else {
			require.NoError(t, err)
		}
		switch {
		case l.Dump != nil:
			head = l.Dump
		case l.Step != nil:
			steps = append(steps, *l.Step)
		case l.Sequence != nil:
			sequences = append(sequences, *l.Sequence)
		default:
			goroutines = l.Goroutines
		}
	}
}

// TestDumpWhileTheDeviceHangs: what a dump is for. The device never answers, and
// yet steps, sequences and their tables are told.
func TestDumpWhileTheDeviceHangs(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		f := &fake{hold: make(chan struct{})}
		c.NumGPUBlocksOverride, c.MaxNumSeqs = 20, 1
		e := startFake(t, f, c)
		var streams []*Stream
		for _, id := range []string{"first", "second"} {
			s, err := e.Submit(context.Background(), Request{ID: id, Prompt: prompt(1, 40), MaxTokens: 3})
			require.NoError(t, err)
			streams = append(streams, s)
		}
		f.hold <- struct{}{} // the first step hangs
		f.hold <- struct{}{}
		f.hold <- struct{}{} // the second one does
		head, steps, sequences, goroutines := dumped(t, e)
		require.Equal(t, "because", head.Reason)
		require.False(t, head.Held)
		require.Empty(t, head.Invariants)
		require.Len(t, steps, 1)
		require.EqualValues(t, 40, steps[0].Scheduled[0].Tokens)
		require.Contains(t, goroutines, "(*loop).collect")
		require.Equal(t, "first", sequences[0].Request)
		require.Equal(t, "running", sequences[0].Status)
		require.Len(t, sequences[0].Blocks, 3)
		require.Equal(t, 41, sequences[0].Len)
		close(f.hold)
		for _, s := range streams {
			readAll(t, s)
		}
		head, _, sequences, _ = dumped(t, e) // idle, too
		require.False(t, head.Held)
		require.Empty(t, sequences)
	})
}

// TestAuditMakesWay: who comes during an audit waits for a slice of it, and it is due again until it is
// done.
func TestAuditMakesWay(t *testing.T) {
	e, l := newTestLoop(t, &fake{}, Config{NumGPUBlocksOverride: 10 * auditSlice})
	serve := func() {
		_, err := e.Submit(t.Context(), Request{Prompt: prompt(1, 40), MaxTokens: 1})
		require.NoError(t, err)
		require.True(t, l.audit(time.Now()))
		require.Len(t, l.requests, 1, "it is taken")
		s := l.schedule()
		l.launch(s)
		l.draw(s)
		require.NoError(t, l.collect(s))
	}
	l.audited = -1
	serve()
	e.poke()
	for range 9 {
		require.False(t, l.audit(time.Now()))
		require.EqualValues(t, -1, l.audited, "more than a slice before it looks who woke it")
	}
	serve() // it begins anew
	for range 10 {
		require.False(t, l.audit(time.Now()))
		require.EqualValues(t, -1, l.audited)
	}
	<-e.wake
	require.False(t, l.audit(time.Now()))
	require.EqualValues(t, 2, l.audited, "it goes on to its end")
	l.stop(nil)
}

// TestAuditStopsTheEngine: bookkeeping that contradicts itself is found when the
// work is done, and nobody is served from it any more.
func TestAuditStopsTheEngine(t *testing.T) {
	if invariant.Enabled {
		t.Skip("the checks of each step find it first")
	}
	e := startFake(t, &fake{}, Config{NumGPUBlocksOverride: 20})
	s, err := e.Submit(context.Background(), Request{Prompt: prompt(1, 40), MaxTokens: 3})
	require.NoError(t, err)
	readAll(t, s)
	require.NoError(t, e.call(context.Background(), func(l *loop) {
		var lost kvcache.BlockTable
		_, ok := l.kv.Admit(&lost, prompt(2, 40), "", 0)
		require.True(t, ok)
		l.auditedAt = l.auditedAt.Add(-auditInterval)
		l.audited = -1
	}))
	<-e.Done()
	require.ErrorIs(t, e.Err(), ErrInvariant)
	_, err = e.Submit(context.Background(), Request{Prompt: prompt(1, 4), MaxTokens: 3})
	require.ErrorIs(t, err, ErrInvariant)
}
