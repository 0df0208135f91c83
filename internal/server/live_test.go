package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// glass is an engine to look at: each look waits to be let through.
type glass struct {
	mu     sync.Mutex
	now    engine.Observation // all steps ever
	looks  atomic.Int64
	blocks int // most that was asked for
}

// change replaces what the next look sees.
func (g *glass) change(f func(o *engine.Observation)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&g.now)
}

func (g *glass) observe(o *engine.Observation, blocks, steps int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.looks.Add(1)
	g.blocks = blocks
	all := g.now.Steps
	fresh := all[max(o.Recorded, len(all)-steps):]
	o.Now, o.Time, o.Stats, o.Recorded = g.now.Now, g.now.Time, g.now.Stats, len(all)
	o.Blocks = append(o.Blocks[:0], g.now.Blocks...)
	o.Requests = append(o.Requests[:0], g.now.Requests...)
	o.Steps = append([]engine.StepRecord(nil), fresh...)
	return nil
}

// newGlass has four blocks, the second shared by two sequences, and two steps.
func newGlass() *glass {
	g := &glass{}
	g.now.Now, g.now.Time = 5*time.Second, time.Unix(100, 0)
	g.now.Stats = engine.Stats{Running: 2, BlocksTotal: 4, BlocksUsed: 2, BlocksShared: 1, BlockSize: 16, GenerationTokens: 7}
	g.now.Blocks = make([]engine.BlockState, 4)
	shared := &g.now.Blocks[1]
	shared.State, shared.Refs, shared.Published, shared.Tokens = 2, 2, true, 16
	shared.Hash[0], shared.Hash[5] = 0xab, 0x1f
	shared.Taken, shared.Touched = time.Second, 2*time.Second
	shared.Owners = [4]engine.SequenceID{3, 9}
	g.now.Requests = []engine.RequestState{
		{ID: "cmpl-late", Sequence: 2, Status: scheduler.Waiting, Prompt: 4},
		{ID: "cmpl-a", Sequence: 3, Status: scheduler.Running, Prompt: 20, Output: 5, Blocks: 2},
	}
	for n := range int64(2) {
		g.step(n + 1)
	}
	return g
}

func (g *glass) step(n int64) {
	r := engine.StepRecord{Start: g.now.Time.Add(-time.Second), Device: 3 * time.Millisecond}
	r.Step, r.Tokens, r.Decodes = n, 10, 4
	r.Decisions = []engine.Decision{{Means: scheduler.BySwap, Seq: 5}}
	g.now.Steps = append(g.now.Steps, r)
}

// viewer reads the stream of a server.
type viewer struct {
	t    *testing.T
	resp *http.Response
	in   *bufio.Reader
}

func (s *served) view(t *testing.T) *viewer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.addr+"/ui/api/stream", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer k")
	resp, err := s.client.Do(req)
	require.NoError(t, err)
	return &viewer{t: t, resp: resp, in: bufio.NewReader(resp.Body)}
}

// next is the data of the next event.
func (v *viewer) next() string {
	v.t.Helper()
	for {
		line, err := v.in.ReadString('\n')
		require.NoError(v.t, err)
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			return data
		}
	}
}

func (v *viewer) frame() Frame { v.t.Helper(); return decode[Frame](v.t, v.next()) }

func serveGlass(t *testing.T, g *glass, before func(*Server)) *served {
	return serveGlassBy(serve, t, g, before)
}

func serveGlassBy(serve func(*testing.T, *fakeEngine, Config, func(*Server)) *served, t *testing.T, g *glass, before func(*Server)) *served {
	t.Helper()
	f := newFakeEngine("x")
	f.observed = g.observe
	explain := func(r *engine.StepRecord) []string { return []string{fmt.Sprintf("step %d ran", r.Step)} }
	return serve(t, f, Config{APIKeys: []string{"k"}, Explain: explain}, before)
}

// TestStream: a full frame, then what changed; nothing when nothing did.
func TestStream(t *testing.T) {
	g := newGlass()
	s := serveGlass(t, g, nil)
	v := s.view(t)
	require.Equal(t, "text/event-stream; charset=utf-8", v.resp.Header.Get("Content-Type"))
	first := v.frame()
	require.True(t, first.Full)
	require.Equal(t, &FrameInfo{Model: "m", BlockSize: 16, MaxModelLen: 4096, MaxLogprobs: 20, Chat: true, Text: true}, first.Info)
	require.Equal(t, int64(5000), first.NowMs)
	require.Equal(t, []int{2, 4, 1, 4}, []int{first.Stats.Running, first.Stats.BlocksTotal, first.Stats.BlocksShared, first.Stats.BlocksShown})
	require.Equal(t, []FrameBlock{{ID: 2, State: "u", Refs: 2, Tokens: 16, Hash: "ab000000001f", TakenMs: 1000, TouchMs: 2000, Owners: []int64{3, 9}}}, first.Blocks)
	require.Equal(t, "cmpl-a", first.Requests[0].ID, "what runs comes first")
	require.Equal(t, "waiting", first.Requests[1].Status)
	require.Len(t, first.Steps, 2)
	require.Equal(t, FrameStep{Step: 2, AtMs: 4000, TookUs: 3000, Prefill: 6, Decodes: 4, Swaps: 1, Why: []string{"step 2 ran"}}, first.Steps[1])

	g.change(func(o *engine.Observation) {
		o.Blocks[3].State, o.Blocks[3].Refs, o.Blocks[3].Owners[0] = 2, 1, 3
		o.Requests = o.Requests[1:]
	})
	second := v.frame()
	require.False(t, second.Full)
	require.Equal(t, first.Seq+1, second.Seq)
	require.Empty(t, second.Steps)
	require.Len(t, second.Blocks, 1)
	require.Equal(t, 4, second.Blocks[0].ID)
	require.Len(t, second.Requests, 1)

	looks := g.looks.Load()
	eventually(t, "more looks that see nothing new", func() bool { return g.looks.Load() > looks+1 })
	g.change(func(*engine.Observation) { g.step(3) })
	third := v.frame()
	require.Equal(t, second.Seq+1, third.Seq, "nothing was sent in between")
	require.Len(t, third.Steps, 1)
	require.Equal(t, int64(3), third.Steps[0].Step)

	late := s.view(t).frame() // another viewer gets what there is
	require.True(t, late.Full)
	require.Equal(t, third.Seq, late.Seq)
	require.Len(t, late.Steps, 3)
	require.Len(t, late.Blocks, 2)

	g.change(func(o *engine.Observation) { o.Now, o.Time = 65*time.Second, time.Unix(160, 0) })
	looks = g.looks.Load()
	eventually(t, "looks that see an idle engine", func() bool { return g.looks.Load() > looks+1 })
	idle := s.view(t).frame()
	require.Equal(t, late.Seq, idle.Seq)
	require.Equal(t, int64(65_000), idle.NowMs, "the clock goes on")
	g.mu.Lock()
	defer g.mu.Unlock()
	require.Equal(t, shownBlocks, g.blocks)
}

// TestStreamCostsNothingUnseen: looks end with the last viewer.
func TestStreamCostsNothingUnseen(t *testing.T) {
	g := newGlass()
	s := serveGlass(t, g, nil)
	require.Zero(t, g.looks.Load())
	a, b := s.view(t), s.view(t)
	a.frame()
	b.frame()
	a.resp.Body.Close()
	looks := g.looks.Load()
	eventually(t, "the other one still sees", func() bool { return g.looks.Load() > looks })
	b.resp.Body.Close()
	eventually(t, "nobody is counted", func() bool {
		s.live.mu.Lock()
		defer s.live.mu.Unlock()
		return s.live.viewers == 0 && s.live.frame == nil
	})
	require.True(t, s.view(t).frame().Full, "and it begins anew")
}

// TestSlowViewer: one that does not read holds up nobody, misses frames, and is cut
// in the end; what it would have missed another got.
func TestSlowViewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGlass()
		g.change(func(o *engine.Observation) { o.Blocks = make([]engine.BlockState, shownBlocks) })
		s := serveGlassBy(serveInBubble, t, g, func(s *Server) { s.writeTimeout = 5 * liveInterval })
		conn, err := s.dial()
		require.NoError(t, err)
		defer conn.Close()
		_, err = fmt.Fprint(conn, "GET /ui/api/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n\r\n")
		require.NoError(t, err)
		v := s.view(t)
		viewers := func() int {
			synctest.Wait()
			s.live.mu.Lock()
			defer s.live.mu.Unlock()
			return s.live.viewers
		}
		require.Equal(t, 2, viewers())
		last, frames := v.frame().Seq, 0
		for ; viewers() == 2; frames++ {
			g.change(func(o *engine.Observation) {
				for b := range o.Blocks {
					o.Blocks[b].Tokens = 1 + frames%16
				}
			})
			seq := v.frame().Seq
			require.Equal(t, last+1, seq, "a reader that reads misses nothing")
			last = seq
			require.Less(t, frames, 6, "the other one is never cut")
		}
		require.Greater(t, frames, 3, "it was cut too early")
	})
}

// TestMissedFrames: who was slow gets a full frame in place of what it missed.
func TestMissedFrames(t *testing.T) {
	g := newGlass()
	s := newTestServer(t, newFakeEngine("x"), Config{})
	v := &s.live
	v.first = make(chan struct{})
	var o engine.Observation
	look := func() {
		require.NoError(t, g.observe(&o, shownBlocks, shownSteps))
		v.mu.Lock()
		defer v.mu.Unlock()
		o = v.show(o)
	}
	frame := func(had int64) Frame {
		f, data := v.newest(had)
		require.NotNil(t, f)
		return decode[Frame](t, string(data))
	}
	look()
	require.True(t, frame(-2).Full)
	for n := range int64(shownSteps + 10) {
		g.step(n + 3)
		g.now.Blocks[0].Tokens = int(n % 7)
		look()
	}
	had := v.frame.seq - 1
	require.False(t, frame(had).Full)
	require.Len(t, frame(had).Steps, 1)
	full := frame(had - 1)
	require.True(t, full.Full)
	require.Len(t, full.Steps, shownSteps, "no more than are shown")
	require.Equal(t, int64(shownSteps+12), full.Steps[shownSteps-1].Step)
}

// TestStreamEnds: with the server's drain, at once, and with the engine.
func TestStreamEnds(t *testing.T) {
	s := serveGlass(t, newGlass(), func(s *Server) { s.drainTimeout = time.Hour })
	v := s.view(t)
	v.frame()
	s.drain()
	require.NoError(t, s.wait(t), "nobody waits for viewers")
	_, err := io.ReadAll(v.in)
	require.NoError(t, err, "the stream ends as it should")

	f := newFakeEngine("x")
	f.observed = func(*engine.Observation, int, int) error { return engine.ErrClosed }
	w := do(newTestServer(t, f, Config{}).Handler(), "GET", "/ui/api/stream", "")
	_, _, _, code := errorOf(t, w)
	require.Equal(t, "engine_closed", code)
}

func TestTooManyViewers(t *testing.T) {
	f := newFakeEngine("x")
	f.observed = newGlass().observe
	s := newTestServer(t, f, Config{})
	for range mostViewers {
		require.NoError(t, s.live.join())
	}
	require.ErrorIs(t, s.live.join(), errTooManyViewers)
	w := do(s.Handler(), "GET", "/ui/api/stream", "")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	s.live.leave()
	require.NoError(t, s.live.join())
	s.live.close()
	require.True(t, errors.Is(s.live.join(), engine.ErrClosed))
	for range mostViewers {
		s.live.leave()
	}
}
