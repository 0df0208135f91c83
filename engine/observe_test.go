package engine

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kvcache"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// requireObserved takes an observation and wants its parts to agree with each
// other and with what kvcache counts.
func requireObserved(t *testing.T, l *loop, o *Observation) {
	t.Helper()
	had := o.Recorded
	l.observe(o, 1<<20, 1<<20)
	require.NoError(t, l.sched.Check())
	require.Len(t, o.Blocks, l.kv.NumIDs()-1)
	counts := map[kvcache.State]int{}
	shared, saved, owners := 0, 0, map[SequenceID]int{}
	for i, b := range o.Blocks {
		counts[b.State]++
		named := slices.Index(append(b.Owners[:], 0), 0)
		require.Equal(t, min(b.Refs, ShownOwners), named, "block %d: %+v", i+1, b)
		require.True(t, slices.IsSorted(b.Owners[:named]))
		require.LessOrEqual(t, b.Tokens, l.kv.BlockSize())
		require.LessOrEqual(t, b.Taken, b.Touched)
		require.LessOrEqual(t, b.Touched, o.Now)
		if b.Refs > 1 {
			shared++
			saved += b.Refs - 1
		}
		if b.Refs <= ShownOwners {
			for _, id := range b.Owners[:named] {
				owners[id]++
			}
		}
	}
	st := &o.Stats
	require.Equal(t, [...]int{st.BlocksUsed, st.BlocksCached, st.BlocksFree, st.BlocksInFlight, st.BlocksShared, st.BlocksSaved},
		[...]int{counts[kvcache.Used], counts[kvcache.Cached], counts[kvcache.Free], counts[kvcache.InFlight], shared, saved})
	status := map[scheduler.Status]int{}
	for _, q := range o.Requests {
		status[q.Status]++
		require.LessOrEqual(t, owners[q.Sequence], q.Blocks)
		if q.Status != scheduler.Running {
			require.Zero(t, q.Blocks)
		}
	}
	require.Equal(t, [...]int{st.Running, st.Waiting, st.Swapped},
		[...]int{status[scheduler.Running], status[scheduler.Waiting] + status[scheduler.Swapped], status[scheduler.Swapped]})
	require.Equal(t, l.records.count, o.Recorded)
	if had > 0 {
		require.Len(t, o.Steps, min(o.Recorded-had, len(l.records.last(keptSteps))), "each step is told once")
	}
}

// TestObserve: who has which blocks, from outside, while requests run.
func TestObserve(t *testing.T) {
	loops(t, func(t *testing.T, c Config) { synctest.Test(t, func(t *testing.T) { testObserve(t, c) }) })
}

func testObserve(t *testing.T, c Config) {
	c.NumGPUBlocksOverride, c.BlockSize = 40, 16
	f := &fake{hold: make(chan struct{})}
	e := startFake(t, f, c)
	ctx := context.Background()
	r := Request{ID: "first", Prompt: prompt(1, 40), MaxTokens: 200, IgnoreEOS: true}
	step := func() { f.hold <- struct{}{}; f.hold <- struct{}{} }
	first, err := e.Submit(ctx, r)
	require.NoError(t, err)
	for range 2 { // the prompt is computed and published
		step()
	}
	r.ID = "second"
	second, err := e.Submit(ctx, r)
	require.NoError(t, err)
	for range 3 {
		step()
	}
	observed := make(chan Observation, 1)
	go func() {
		var o Observation
		if e.Observe(ctx, &o, 10, 3) == nil {
			observed <- o
		}
	}()
	synctest.Wait() // the call waits for the end of a step
	step()
	o := <-observed
	require.Len(t, o.Blocks, 10)
	require.Len(t, o.Requests, 2)
	a, b := o.Requests[0], o.Requests[1]
	require.Equal(t, []string{"first", "second"}, []string{a.ID, b.ID})
	require.Equal(t, []int{0, 32, 40, 200}, []int{a.Cached, b.Cached, b.Prompt, b.MaxTokens})
	sharing := 0
	for _, block := range o.Blocks {
		if block.Refs == 2 {
			sharing++
			require.Equal(t, [ShownOwners]SequenceID{a.Sequence, b.Sequence}, block.Owners)
			require.Equal(t, 16, block.Tokens)
		}
	}
	require.Equal(t, 2, sharing)
	require.Len(t, o.Steps, 3)
	close(f.hold)
	_, last := readAll(t, first)
	require.Equal(t, a.Sequence, last.Sequence)
	readAll(t, second)
	synctest.Wait() // the overlapped loop may do one step more

	recorded := o.Recorded
	require.NoError(t, e.Observe(ctx, &o, 10, 1<<20))
	require.Empty(t, o.Requests)
	require.Equal(t, o.Recorded-recorded, len(o.Steps), "what was recorded since")
	steps, err := e.StepsOf(ctx, b.Sequence, 1<<20)
	require.NoError(t, err)
	require.Equal(t, scheduler.Fresh, steps[0].Admitted[0].How)
	require.Zero(t, steps[0].Decodes, "its prompt")
	require.Equal(t, 1, steps[len(steps)-1].Decodes)
	tokens := 0
	for _, s := range steps {
		for _, part := range s.Scheduled {
			require.Equal(t, b.Sequence, part.ID)
			tokens += part.Tokens
		}
	}
	require.GreaterOrEqual(t, tokens, 40-32+199, "what was computed of it; the overlapped loop may do one more")
	require.LessOrEqual(t, tokens, 40-32+200)
	last3, err := e.StepsOf(ctx, b.Sequence, 3)
	require.NoError(t, err)
	require.Equal(t, steps[len(steps)-3:], last3)
}

// BenchmarkObserve looks at 32,768 blocks, half of them in 64 tables.
func BenchmarkObserve(b *testing.B) {
	kv, err := kvcache.NewManager(kvcache.Config{NumBlocks: 1<<15 + 1, BlockSize: 16})
	require.NoError(b, err)
	sched, err := scheduler.New(scheduler.Config{Limits: scheduler.Limits{MaxNumSeqs: 64, MaxBatchedTokens: 64}}, kv)
	require.NoError(b, err)
	l := &loop{e: &Engine{}, kv: kv, sched: sched, records: newRecords(), requests: map[*scheduler.Sequence]*request{}}
	for i := range 64 {
		q := &request{}
		q.seq.ID = SequenceID(i + 1)
		_, ok := kv.Admit(&q.seq.Table, prompt(i, 256*16), "", 0)
		require.True(b, ok)
		l.requests[&q.seq] = q
	}
	var o Observation
	b.ReportAllocs()
	for b.Loop() {
		l.observe(&o, 1<<15, 256)
	}
}
