package engine

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/internal/invariant"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// newTestLoop makes an engine's loop without its goroutine.
func newTestLoop(t *testing.T, f *fake, c Config) (*Engine, *loop) {
	c = quiet(c)
	require.NoError(t, c.validate())
	e := &Engine{
		cfg: c, inbox: make(chan *request, c.MaxQueuedReqs), calls: make(chan func(*loop)),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	src := fakeSource(f, 1<<12)
	e.info = src.info
	l, err := e.setup(src)
	require.NoError(t, err)
	return e, l
}

// TestDecodeAllocatesNothing: a steady decode step, from schedule to delivery,
// allocates nothing, in both loops.
func TestDecodeAllocatesNothing(t *testing.T) {
	if invariant.Enabled {
		t.Skip("the checks allocate")
	}
	e, l := newTestLoop(t, &fake{}, Config{NumGPUBlocksOverride: 2000, MaxNumSeqs: 16})
	for i := range 16 {
		_, err := e.Submit(context.Background(), Request{Prompt: prompt(i, 40), MaxTokens: 1500, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}})
		require.NoError(t, err)
	}
	require.True(t, l.receive())
	synchronous := func() {
		s := l.schedule()
		l.launch(s)
		l.draw(s)
		if err := l.collect(s); err != nil {
			t.Fatal(err)
		}
	}
	for range 600 { // past the growth of tables
		synchronous()
	}
	require.Zero(t, testing.AllocsPerRun(200, synchronous))
	last := l.schedule()
	l.launch(last)
	l.draw(last)
	require.Zero(t, testing.AllocsPerRun(200, func() {
		l.receive()
		next := l.schedule()
		l.launch(next)
		l.draw(next)
		if err := l.collect(last); err != nil {
			t.Fatal(err)
		}
		last = next
	}))
	require.NoError(t, l.collect(last))
	l.stop(nil)
}

// TestOnlyDeltasTravel: a steady decode updates a row only when it gets a block.
func TestOnlyDeltasTravel(t *testing.T) {
	f := &fake{}
	e, l := newTestLoop(t, f, Config{NumGPUBlocksOverride: 100, MaxNumSeqs: 4})
	for i := range 4 {
		_, err := e.Submit(context.Background(), Request{Prompt: prompt(i, 16), MaxTokens: 100, IgnoreEOS: true})
		require.NoError(t, err)
	}
	l.receive()
	for i := range 33 { // positions 15 to 47 of each
		s := l.schedule()
		l.launch(s)
		l.draw(s)
		require.NoError(t, l.collect(s))
		require.Equal(t, 4*(1+(i+15)/16), f.updates, "step %d", i)
	}
	l.stop(nil)
}

// TestChunksSendPenaltiesOnce: the chunks of a prompt with penalties send nothing
// after the first, for the check of a chunk leaves the row's counts alone.
func TestChunksSendPenaltiesOnce(t *testing.T) {
	f := &fake{}
	e, l := newTestLoop(t, f, Config{NumGPUBlocksOverride: 100, MaxNumSeqs: 4, LongPrefillTokenThreshold: 8})
	_, err := e.Submit(context.Background(), Request{Prompt: prompt(0, 64), MaxTokens: 4, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1, FrequencyPenalty: 1}})
	require.NoError(t, err)
	l.receive()
	for i := range 8 {
		s := l.schedule()
		l.launch(s)
		l.draw(s)
		require.NoError(t, l.collect(s))
		require.Equal(t, 1, f.updates, "chunk %d", i)
	}
	l.stop(nil)
}

// TestFailedChunkIsNotFound: a prompt whose KV turns out not to be numbers fails at that
// chunk, and a request of the same prompt, which comes while the first would still be
// computed, finds none of it.
func TestFailedChunkIsNotFound(t *testing.T) {
	loops(t, func(t *testing.T, c Config) {
		c.LongPrefillTokenThreshold, c.MaxNumBatchedTokens = 8, 32
		f, began := &fake{}, make(chan struct{})
		e := startFake(t, f, c)
		beside := Request{Prompt: prompt(1, 30), MaxTokens: 100, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1, FrequencyPenalty: 1}}
		r := Request{Prompt: prompt(2, 120), MaxTokens: 10, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1, FrequencyPenalty: 1}}
		require.NotEqual(t, beside.Prompt[20], r.Prompt[20])
		var again *Stream
		var err error
		at := int64(0)
		f.spoil = func(position int, token int32) bool {
			if at > 0 || position != 20 || token != r.Prompt[20] {
				return false
			}
			at = f.step
			return true
		}
		f.onStep = func() { // on the engine's goroutine
			<-began // both requests are there
			if at > 0 && f.step == at+6 {
				again, err = e.Submit(context.Background(), r)
			}
		}
		var streams []*Stream
		for _, q := range []Request{beside, r} {
			s, err := e.Submit(context.Background(), q)
			require.NoError(t, err)
			streams = append(streams, s)
		}
		close(began)
		got, last := readAll(t, streams[1])
		require.Empty(t, got)
		require.ErrorIs(t, last.Err, ErrNotNumbers)
		for _, step := range e.Steps(1000) {
			for _, s := range step.Scheduled {
				require.False(t, s.ID == 2 && s.Start >= 40, "it goes on after it failed")
			}
		}
		got, _ = readAll(t, streams[0])
		want, _ := expect(&beside, 100, 0)
		require.Equal(t, want, got)
		require.NoError(t, err)
		got, _ = readAll(t, again)
		want, _ = expect(&r, 10, 0)
		require.Equal(t, want, got)
	})
}

// TestStatsWords: every field of Stats survives the way through the words.
func TestStatsWords(t *testing.T) {
	var s Stats
	v := reflect.ValueOf(&s).Elem()
	var words []reflect.Value
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Array {
			for j := range f.Len() {
				words = append(words, f.Index(j))
			}
		} else {
			words = append(words, f)
		}
	}
	require.Len(t, words, statWords, "a field is no word")
	for i, word := range words {
		if word.CanInt() {
			word.SetInt(int64(100 + i))
		} else {
			word.SetFloat(0.5 + float64(i))
		}
	}
	var cell statsCell
	cell.store(&s)
	require.Equal(t, s, cell.load())
}

// TestStepSizes: each bound counts for its own bucket, as Prometheus has it.
func TestStepSizes(t *testing.T) {
	var s Stats
	for _, tokens := range []int{1, 2, 8, 9, 16384, 16385} {
		s.countStep(tokens)
	}
	require.Equal(t, [len(StepSizeBounds) + 1]int64{0: 1, 1: 2, 2: 1, 12: 1, 13: 1}, s.StepSizes)
	require.Equal(t, int64(6), s.Steps)
	require.Equal(t, int64(1+2+8+9+16384+16385), s.StepTokens)
}

// TestStatsAreConsistent reads while the loop's side writes: no mixture is seen.
func TestStatsAreConsistent(t *testing.T) {
	var cell statsCell
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range int64(20_000) {
			cell.store(&Stats{Running: int(i), Steps: i, FinishedStop: i})
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		s := cell.load()
		require.Equal(t, int64(s.Running), s.Steps)
		require.Equal(t, s.Steps, s.FinishedStop)
	}
}

func TestRecords(t *testing.T) {
	r := newRecords()
	require.Empty(t, r.last(5))
	add := func(step int64, n int) {
		ran := make([]scheduler.Scheduled, n)
		for i := range ran {
			ran[i] = scheduler.Scheduled{Seq: &scheduler.Sequence{ID: SequenceID(i)}, Start: n, NumTokens: i + 1, Sample: i%2 == 0, Resumed: i%3 == 0}
		}
		r.add(&scheduler.Record{Step: step}, ran, time.Time{}, 0)
	}
	for i := range int64(keptSteps + 10) {
		add(i, int(1+i%40))
	}
	require.Len(t, r.last(1<<20), keptSteps)
	last := r.last(3)
	require.Len(t, last, 3)
	require.EqualValues(t, keptSteps+7, last[0].Step)
	require.EqualValues(t, keptSteps+9, last[2].Step)
	require.Empty(t, r.last(-1))
	for _, s := range r.last(keptSteps) {
		n := 1 + int(s.Step)%40
		require.Len(t, s.Scheduled, n)
		for i, e := range s.Scheduled {
			require.Equal(t, scheduler.RecordScheduled{ID: SequenceID(i), Start: n, Tokens: i + 1, Sample: i%2 == 0, Resumed: i%3 == 0}, e)
		}
	}
	for i := range int64(5) { // large steps push out many small ones
		add(i, keptParts/4)
	}
	require.Len(t, r.last(keptSteps), 4)
}
