package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// incomplete is a fake whose loading goes on; each call waits for the test.
type incomplete struct {
	*fake
	called chan int64    // steps that were launched before the call
	answer chan struct{} // lets a call return
	left   int
	err    error
}

func (f *incomplete) CompleteLoad() (bool, error) {
	f.called <- f.step
	<-f.answer
	f.left--
	return f.left > 0, f.err
}

func startIncomplete(t *testing.T, f *incomplete, c Config) *Engine {
	c = quiet(c)
	require.NoError(t, c.validate())
	src := fakeSource(f.fake, 1<<12)
	src.open = func(*Config) (kernels.Backend, error) { return f, nil }
	e, err := start(c, src)
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// TestLoadIsCompletedWhenIdle: an engine without work completes the load, and a request that
// comes meanwhile is served before it goes on.
func TestLoadIsCompletedWhenIdle(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		f := &incomplete{fake: &fake{}, called: make(chan int64), answer: make(chan struct{}), left: 3}
		e := startIncomplete(t, f, c)
		require.Zero(t, <-f.called)
		s, err := e.Submit(context.Background(), Request{Prompt: prompt(1, 9), IgnoreEOS: true, MaxTokens: 4})
		require.NoError(t, err)
		f.answer <- struct{}{}
		tokens, last := readAll(t, s)
		require.NoError(t, last.Err)
		require.Len(t, tokens, 4)
		require.GreaterOrEqual(t, <-f.called, int64(4))
		f.answer <- struct{}{}
		<-f.called
		f.answer <- struct{}{}
		require.NoError(t, e.Close())
	})
}

// TestStepsWhileLoadIsCompleted: an engine that completes the load hangs as little as one that
// waits for the device.
func TestStepsWhileLoadIsCompleted(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		f := &incomplete{fake: &fake{}, called: make(chan int64), answer: make(chan struct{}), left: 1}
		e := startIncomplete(t, f, c)
		<-f.called
		steps := e.Steps(1)
		f.answer <- struct{}{}
		require.NotNil(t, steps)
		require.NoError(t, e.Close())
	})
}

// TestLoadCannotBeCompleted: the engine stops, and says why.
func TestLoadCannotBeCompleted(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		f := &incomplete{fake: &fake{}, called: make(chan int64, 1), answer: make(chan struct{}, 1), left: 1, err: errors.New("no file")}
		f.answer <- struct{}{}
		e := startIncomplete(t, f, c)
		<-e.Done()
		require.ErrorIs(t, e.Err(), ErrDevice)
		require.ErrorContains(t, e.Err(), "no file")
	})
}

// unfit is a fake that fails at the end of loading.
type unfit struct {
	*fake
	err error
}

func (f unfit) CheckLoad() error { return f.err }

// TestLoadIsChecked: an engine whose backend cannot hold the weights does not start, and says that
// it is the model; that of a device that has failed says that it is the device.
func TestLoadIsChecked(t *testing.T) {
	for class, failure := range map[error]error{ErrModel: &kernels.UnfitError{Reason: "3 weights are too large: use --device cpu"}, ErrDevice: errors.New("an illegal address")} {
		c := quiet(Config{})
		require.NoError(t, c.validate())
		f := &fake{}
		src := fakeSource(f, 1<<12)
		src.open = func(*Config) (kernels.Backend, error) { return unfit{f, fmt.Errorf("cuda: %w", failure)}, nil }
		_, err := start(c, src)
		require.ErrorIs(t, err, class)
		require.ErrorIs(t, err, failure)
	}
}
