package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWorkIsSeenWhileItHangs: Stats has a request that waits for its first step, alone in the engine
// or after another, and a job, while the device is at it: what hangs then is seen by whoever looks.
func TestWorkIsSeenWhileItHangs(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		f := &fake{hold: make(chan struct{})}
		c.MaxNumSeqs = 1
		e := startFake(t, f, c)
		defer close(f.hold)
		var streams []*Stream
		submit := func(seed int) {
			s, err := e.Submit(t.Context(), Request{Prompt: prompt(seed, 20), MaxTokens: 1})
			require.NoError(t, err)
			streams = append(streams, s)
		}
		seen := func(running, waiting, jobs int) {
			st := e.Stats()
			require.Equal(t, []int{running, waiting, jobs}, []int{st.Running, st.Waiting, st.Jobs})
		}
		submit(1)
		f.hold <- struct{}{} // the device is at the first step
		seen(1, 0, 0)
		submit(2)
		submit(3)
		for waiting := 2; ; waiting-- {
			seen(1, waiting, 0)
			f.hold <- struct{}{}
			if waiting == 0 {
				break
			}
			f.hold <- struct{}{} // the next request's only step
		}
		for _, s := range streams {
			readAll(t, s)
		}
		seen(0, 0, 0)
		scored := make(chan error, 1)
		go func() {
			_, err := e.Logits(t.Context(), prompt(4, 1))
			scored <- err
		}()
		f.hold <- struct{}{}
		seen(0, 0, 1)
		f.hold <- struct{}{}
		require.NoError(t, <-scored)
		seen(0, 0, 0)
	})
}

// TestSteadyStepsPublishOnce: a step that admits nobody publishes when it is delivered, and not before.
func TestSteadyStepsPublishOnce(t *testing.T) {
	e, l := newTestLoop(t, &fake{}, Config{NumGPUBlocksOverride: 100})
	_, err := e.Submit(t.Context(), Request{Prompt: prompt(1, 20), MaxTokens: 40, IgnoreEOS: true})
	require.NoError(t, err)
	require.True(t, l.receive())
	for i := range 30 {
		before := e.stats.version.Load()
		s := l.schedule()
		l.launch(s)
		l.draw(s)
		require.NoError(t, l.collect(s))
		require.EqualValues(t, 2*(1+b2i(i == 0)), e.stats.version.Load()-before, "step %d", i)
	}
	l.stop(nil)
}
