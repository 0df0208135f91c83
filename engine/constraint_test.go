package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// testRule is a Constraint for tests: what it allows is a hash of the tokens so far.
// It fails when it is used in a way that Constraint does not promise.
type testRule struct {
	state  uint64
	count  *ruleCount // nil: a copy that only says what should be
	mask   []uint32
	tokens int
	whole  int // tokens after which nothing may follow
	fails  int // round that fails; −1 = none
	inUse  atomic.Bool
	closed bool
}

// ruleCount counts the rules of a test.
type ruleCount struct{ open, masks atomic.Int64 }

// maker makes rules of the seed.
func (c *ruleCount) maker(seed uint64) func() (Constraint, error) {
	return func() (Constraint, error) {
		r := &testRule{state: extend(seed, 1), count: c, whole: int(seed % 60), fails: -1}
		if seed%9 == 0 {
			r.fails = int(seed/9) % 12
		}
		c.open.Add(1)
		return r, nil
	}
}

func (r *testRule) enter() {
	if !r.inUse.CompareAndSwap(false, true) || r.closed {
		panic("a rule was used by two, or after its end")
	}
}

// Mask implements Constraint.
func (r *testRule) Mask(mask []uint32) (done bool, err error) {
	r.enter()
	defer r.inUse.Store(false)
	r.count.masks.Add(1)
	if r.tokens == r.fails {
		return false, errors.New("injected")
	}
	if r.tokens >= r.whole {
		return true, nil
	}
	clear(mask)
	for id := range int32(fakeVocab) {
		if extend(r.state, id)>>20%3 == 0 || id == int32(r.state>>30%fakeVocab) {
			mask[id/32] |= 1 << (id % 32)
		}
	}
	r.mask = slices.Clone(mask)
	return false, nil
}

// Accept implements Constraint.
func (r *testRule) Accept(token int32) error {
	r.enter()
	defer r.inUse.Store(false)
	if r.mask[token/32]>>(token%32)&1 == 0 {
		panic(fmt.Sprintf("token %d was not allowed", token))
	}
	r.tokens++
	r.state = extend(r.state, token)
	return nil
}

// Close implements Constraint.
func (r *testRule) Close() {
	r.enter()
	r.closed = true
	r.count.open.Add(-1)
}

// onlyOf says that the mask has no id but these.
func onlyOf(mask []uint32, ids []int32) bool {
	for id := range int32(fakeVocab) {
		if mask[id/32]>>(id%32)&1 == 1 && !slices.Contains(ids, id) {
			return false
		}
	}
	return true
}

// scripted is a Constraint of functions.
type scripted struct {
	mask   func(mask []uint32) (bool, error)
	accept func(int32) error
	closed chan struct{} // closed by Close
}

func (s *scripted) Mask(mask []uint32) (bool, error) { return s.mask(mask) }
func (s *scripted) Accept(token int32) error {
	if s.accept == nil {
		return nil
	}
	return s.accept(token)
}
func (s *scripted) Close() { close(s.closed) }

func constrain(s *scripted) func() (Constraint, error) {
	s.closed = make(chan struct{})
	return func() (Constraint, error) { return s, nil }
}

func all(mask []uint32) (bool, error) {
	for i := range mask {
		mask[i] = ^uint32(0)
	}
	return false, nil
}

// TestMasksAreMadeBesideTheForwardPass: the mask of a row that runs is asked for
// while its step is on the device, and what it allows is drawn.
func TestMasksAreMadeBesideTheForwardPass(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		launched, asked := make(chan struct{}, 100), 0
		f := &fake{}
		only := &scripted{mask: func(mask []uint32) (bool, error) {
			<-launched // if the forward pass waited for the mask, for ever
			asked++
			clear(mask)
			mask[0] = 1 << (asked % 7)
			return asked == 20, nil
		}}
		e := startFakeLaunch(t, f, c, func() { launched <- struct{}{} })
		s, err := e.Submit(context.Background(), Request{Prompt: prompt(1, 5), MaxTokens: 30, IgnoreEOS: true, Constrain: constrain(only)})
		require.NoError(t, err)
		tokens, last := readAll(t, s)
		require.Equal(t, FinishStop, last.Finish)
		require.Equal(t, NoStopID, last.StopID)
		require.False(t, last.HasToken)
		require.Len(t, tokens, 19)
		for i, token := range tokens {
			require.EqualValues(t, (i+1)%7, token)
		}
		<-only.closed
		require.Positive(t, e.Stats().MaskWait)
	})
}

// startFakeLaunch is startFake with a function that each forward pass calls.
func startFakeLaunch(t *testing.T, f *fake, c Config, launched func()) *Engine {
	t.Helper()
	src := fakeSource(f, 1<<12)
	load := src.load
	src.load = func(b kernels.Backend) (*loaded, error) {
		l, err := load(b)
		forward := l.forward
		l.forward = func(b *kernels.Batch) { forward(b); launched() }
		return l, err
	}
	return startSource(t, src, c)
}

// TestConstraintFailures: whatever goes wrong in a constraint, it ends that request
// with an error, and no neighbour notices.
func TestConstraintFailures(t *testing.T) {
	broken := errors.New("injected")
	after := func(n int, then func() error) *scripted {
		s := &scripted{mask: all}
		s.accept = func(int32) error {
			if n--; n > 0 {
				return nil
			}
			return then()
		}
		return s
	}
	loops(t, func(t *testing.T, c Config) {
		e := startFake(t, &fake{}, c)
		for name, s := range map[string]*scripted{
			"accept": after(3, func() error { return broken }),
			"panic":  after(3, func() error { panic(broken) }),
			"mask":   {mask: func([]uint32) (bool, error) { return false, broken }},
			"empty":  {mask: func(mask []uint32) (bool, error) { clear(mask); return false, nil }},
		} {
			neighbour := Request{Prompt: prompt(2, 20), MaxTokens: 40, IgnoreEOS: true}
			beside, err := e.Submit(context.Background(), neighbour)
			require.NoError(t, err)
			stream, err := e.Submit(context.Background(), Request{Prompt: prompt(1, 30), MaxTokens: 40, IgnoreEOS: true, Constrain: constrain(s)})
			require.NoError(t, err)
			tokens, last := readAll(t, stream)
			require.Equal(t, FinishError, last.Finish, name)
			want := ErrConstraint
			if name == "panic" {
				want = errConstraintBug
			}
			require.ErrorIs(t, last.Err, want, name)
			if s.accept != nil {
				require.Len(t, tokens, 3, name)
				require.ErrorContains(t, last.Err, "injected", name)
			}
			<-s.closed
			expected, _ := expect(&neighbour, 40, 0)
			got, _ := readAll(t, beside)
			require.Equal(t, expected, got, name)
		}
		s, err := e.Submit(context.Background(), Request{Prompt: prompt(1, 3), Constrain: func() (Constraint, error) { return nil, broken }})
		require.NoError(t, err)
		_, last := readAll(t, s)
		require.ErrorIs(t, last.Err, broken)
	})
}

// TestLateMask: a mask that does not come holds the others up for a bounded time,
// then its request has failed. It is closed when it comes back.
func TestLateMask(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		entered, release := make(chan struct{}), make(chan struct{})
		e := startFakeLaunch(t, &fake{}, c, func() { <-entered }) // a round that did not begin in time has no Constraint to close
		require.NoError(t, e.call(context.Background(), func(l *loop) { l.guides.patience = time.Millisecond }))
		stuck := &scripted{mask: func(mask []uint32) (bool, error) { close(entered); <-release; return all(mask) }}
		slow, err := e.Submit(context.Background(), Request{Prompt: prompt(1, 3), Constrain: constrain(stuck)})
		require.NoError(t, err)
		neighbour := Request{Prompt: prompt(2, 20), MaxTokens: 40, IgnoreEOS: true}
		beside, err := e.Submit(context.Background(), neighbour)
		require.NoError(t, err)
		_, last := readAll(t, slow)
		require.ErrorIs(t, last.Err, ErrMaskLate)
		want, _ := expect(&neighbour, 40, 0)
		got, _ := readAll(t, beside)
		require.Equal(t, want, got)
		close(release)
		<-stuck.closed
	})
}

// TestOnlyTheEndIsAllowed: where a constraint leaves nothing but a stop id, and the
// request is too short for one, it ends there instead of failing.
func TestOnlyTheEndIsAllowed(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		e := startFake(t, &fake{}, c)
		n := 0
		rule := &scripted{mask: func(mask []uint32) (bool, error) {
			clear(mask)
			if n++; n <= 4 {
				mask[1] = 1 << 3
				return false, nil
			}
			mask[0] = 1 | 1<<9 // the end-of-sequence id, and a stop id
			return false, nil
		}}
		r := Request{Prompt: prompt(1, 5), MaxTokens: 20, StopIDs: []int32{9, 9}, Sampling: Sampling{MinTokens: 10}, Constrain: constrain(rule)}
		s, err := e.Submit(context.Background(), r)
		require.NoError(t, err)
		tokens, last := readAll(t, s)
		require.Equal(t, []int32{35, 35, 35, 35}, tokens)
		require.Equal(t, FinishStop, last.Finish)
		require.Equal(t, NoStopID, last.StopID)
	})
}

// TestAbortedConstraint: an aborted request's constraint is closed, in a round or
// not.
func TestAbortedConstraint(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		e := startFake(t, &fake{}, c)
		entered, release := make(chan struct{}), make(chan struct{})
		rule := &scripted{mask: func(mask []uint32) (bool, error) {
			entered <- struct{}{}
			<-release
			return all(mask)
		}}
		ctx, cancel := context.WithCancel(context.Background())
		s, err := e.Submit(ctx, Request{Prompt: prompt(1, 5), MaxTokens: 20, IgnoreEOS: true, Constrain: constrain(rule)})
		require.NoError(t, err)
		<-entered
		cancel()
		for e.aborts.Load() == nil {
			runtime.Gosched() // a cancelled context calls back on a goroutine of its own
		}
		release <- struct{}{}
		close(release)
		go func() {
			for range entered {
			}
		}()
		_, last := readAll(t, s)
		require.Equal(t, FinishAbort, last.Finish)
		<-rule.closed
		close(entered)
	})
}
