package scheduler

import (
	"cmp"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// TestOrderSurvivesExtremePriorities: priorities are a client's numbers.
func TestOrderSurvivesExtremePriorities(t *testing.T) {
	kv, err := kvcache.NewManager(kvcache.Config{NumBlocks: 11, BlockSize: 16})
	require.NoError(t, err)
	s, err := New(Config{Limits: Limits{MaxNumSeqs: 1, MaxBatchedTokens: 16}, Policy: Priority}, kv)
	require.NoError(t, err)
	for _, priority := range []int{1, math.MinInt, 2, math.MaxInt, -2} {
		s.Add(&Sequence{Tokens: []int32{1}, MaxLen: 2, Priority: priority})
	}
	var got []int
	for s.NumWaiting() > 0 {
		out := s.Schedule()
		got = append(got, out.Scheduled[0].Seq.Priority)
		s.Update(out, []Result{{Token: 1, Finish: true}}, 0)
	}
	require.Equal(t, []int{math.MinInt, -2, 1, 2, math.MaxInt}, got)
}

// TestRefusedHeadTriesAgainWhenItsPrefixIsThere: two equal prompts, a pool for
// little more than one; the second starts as soon as the first has published
// its prompt, not when it ends.
func TestRefusedHeadTriesAgainWhenItsPrefixIsThere(t *testing.T) {
	kv, err := kvcache.NewManager(kvcache.Config{NumBlocks: 16, BlockSize: 16})
	require.NoError(t, err)
	s, err := New(Config{Limits: Limits{MaxNumSeqs: 4, MaxBatchedTokens: 256, LongPrefillThreshold: 64}}, kv)
	require.NoError(t, err)
	prompt := make([]int32, 170)
	s.Add(&Sequence{Tokens: slices.Clone(prompt), MaxLen: 200})
	second := &Sequence{Tokens: slices.Clone(prompt), MaxLen: 200}
	s.Add(second)
	for range 4 {
		require.Equal(t, Waiting, second.Status)
		out := s.Schedule()
		results := make([]Result, len(out.Scheduled))
		s.Update(out, results, 0)
		if second.Status == Running {
			break
		}
	}
	require.Equal(t, Running, second.Status)
	require.Positive(t, second.CachedTokens)
}

// TestRefusedLoan: while a loan is wanted, blocks that come free are not given to who
// waits; without a loan, or with nobody running, they are.
func TestRefusedLoan(t *testing.T) {
	kv, err := kvcache.NewManager(kvcache.Config{NumBlocks: 11, BlockSize: 16})
	require.NoError(t, err)
	s, err := New(Config{Limits: Limits{MaxNumSeqs: 4, MaxBatchedTokens: 256}}, kv)
	require.NoError(t, err)
	var all []*Sequence
	add := func(tokens int) *Sequence {
		q := &Sequence{Tokens: make([]int32, tokens), MaxLen: tokens + 8}
		q.Tokens[0] = int32(len(all)) // nothing is shared
		all = append(all, q)
		s.Add(q)
		return q
	}
	step := func(ends ...*Sequence) WaitReason {
		out := s.Schedule()
		results := make([]Result, len(out.Scheduled))
		for i := range results {
			results[i].Finish = slices.Contains(ends, out.Scheduled[i].Seq)
		}
		s.Update(out, results, 0)
		return out.WaitReason
	}
	first, second, third := add(60), add(60), add(20)
	step()
	require.Equal(t, Running, third.Status)
	_, ok := s.Borrow(16 * 8)
	require.False(t, ok)
	late := add(10)
	step(first)
	require.Equal(t, WaitLoan, step())
	require.Equal(t, Waiting, late.Status)
	_, ok = s.Borrow(16 * 4)
	require.True(t, ok)
	s.GiveBack()
	require.Equal(t, WaitNone, step())
	require.Equal(t, Running, late.Status)

	_, ok = s.Borrow(16 * 10)
	require.False(t, ok)
	last := add(10)
	step(second, third, late)
	require.Equal(t, Waiting, last.Status)
	step()
	require.Equal(t, Running, last.Status, "nobody else runs")
}

// TestChunkReason: a step that takes its whole budget says so only if somebody got
// less for it.
func TestChunkReason(t *testing.T) {
	for name, c := range map[string]struct {
		prompts []int
		limits  Limits
		want    []WaitReason // of the first steps
	}{
		"fits exactly":         {[]int{40, 24}, Limits{}, []WaitReason{"", ""}},
		"one token more":       {[]int{40, 25}, Limits{}, []WaitReason{WaitBudget, ""}},
		"head kept out":        {[]int{64, 5}, Limits{}, []WaitReason{WaitBudget, ""}},
		"kept out by seqs":     {[]int{64, 5}, Limits{MaxNumSeqs: 1}, []WaitReason{"", ""}},
		"cut by the threshold": {[]int{100, 32}, Limits{LongPrefillThreshold: 32}, []WaitReason{"", "", "", ""}},
		"no room at all":       {[]int{60, 60, 60}, Limits{}, []WaitReason{WaitBudget, WaitBudget, ""}},
		"nothing for itl":      {[]int{10}, Limits{TargetITL: 1}, []WaitReason{"", ""}},
		"beside a decode":      {[]int{32, 60}, Limits{MaxMixedTokens: 20}, []WaitReason{WaitBudget, WaitMixed, ""}},
		"mixed fits exactly":   {[]int{32, 51}, Limits{MaxMixedTokens: 20}, []WaitReason{WaitBudget, "", ""}},
		"mixed beyond all":     {[]int{32, 60, 60}, Limits{MaxMixedTokens: 200}, []WaitReason{WaitBudget, WaitBudget, ""}},
		"mixed, then itl":      {[]int{32, 60}, Limits{MaxMixedTokens: 20, TargetITL: 1}, []WaitReason{WaitBudget, WaitITL, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			kv, err := kvcache.NewManager(kvcache.Config{NumBlocks: 100, BlockSize: 16})
			require.NoError(t, err)
			c.limits.MaxNumSeqs, c.limits.MaxBatchedTokens = cmp.Or(c.limits.MaxNumSeqs, 4), 64
			s, err := New(Config{Limits: c.limits}, kv)
			require.NoError(t, err)
			for i := range 400 { // a step is longer than the target
				l := Load{PrefillTokens: i * 7 % 50, Decodes: i * 3 % 8}
				s.Model().Observe(l, time.Duration(10+2*l.PrefillTokens+l.Decodes)*time.Microsecond)
			}
			for i, n := range c.prompts {
				s.Add(&Sequence{Tokens: promptOf(i, n), MaxLen: n + 9})
			}
			var got []WaitReason
			for range c.want {
				out := s.Schedule()
				got = append(got, out.ChunkReason)
				s.Update(out, make([]Result, len(out.Scheduled)), 0)
			}
			require.Equal(t, c.want, got)
		})
	}
}

// TestLookupsAreOfFirstAdmissions: a sequence's prompt counts as looked up once, with what was found
// of it then, also if the sequence comes back, from the host or to be computed again.
func TestLookupsAreOfFirstAdmissions(t *testing.T) {
	for _, mode := range []Mode{OnlyRecompute, OnlySwap} {
		kv, err := kvcache.NewManager(kvcache.Config{NumBlocks: 12, HostBlocks: 12, BlockSize: 16})
		require.NoError(t, err)
		s, err := New(Config{Limits: Limits{MaxNumSeqs: 8, MaxBatchedTokens: 256, PreemptionMode: mode}}, kv)
		require.NoError(t, err)
		var all []*Sequence
		for i := range 5 {
			q := &Sequence{Tokens: make([]int32, 40), MaxLen: 160}
			q.Tokens[39] = int32(i) // the first two blocks are shared
			if i == 4 {
				q.Tokens[39], q.Parent = 3, all[3]
			}
			s.Add(q)
			all = append(all, q)
		}
		preempted, found := 0, 0
		for step := 0; s.NumRunning()+s.NumWaiting() > 0; step++ {
			require.Less(t, step, 10_000, mode)
			out := s.Schedule()
			for i := range out.Decisions {
				preempted += b2i(out.Decisions[i].Means != ByWaiting)
			}
			results := make([]Result, len(out.Scheduled))
			for i := range results {
				q := out.Scheduled[i].Seq
				results[i] = Result{Token: 1, Finish: len(q.Tokens) == q.MaxLen-1}
			}
			s.Update(out, results, time.Millisecond)
			for _, id := range s.Transfers(nil) {
				s.CopyDone(id, time.Millisecond)
			}
		}
		for _, q := range all {
			found += q.CachedTokens
		}
		require.Positive(t, preempted, mode)
		st := kv.Stats()
		require.EqualValues(t, []int64{5 * 40, int64(found)}, []int64{st.Queries, st.Hits}, mode)
		require.Positive(t, st.Hits, mode)
	}
}

// TestFinishedSequencesAreForgotten: the memory of steps that is used again keeps none alive, neither behind a shorter
// step nor when there is no more work; to a sequence belongs all that its request has.
func TestFinishedSequencesAreForgotten(t *testing.T) {
	kv, err := kvcache.NewManager(kvcache.Config{NumBlocks: 60, BlockSize: 16})
	require.NoError(t, err)
	s, err := New(Config{Limits: Limits{MaxNumSeqs: 32, MaxBatchedTokens: 512}}, kv)
	require.NoError(t, err)
	var gone []weak.Pointer[Sequence]
	add := func(i, length int) {
		q := &Sequence{Tokens: promptOf(i, 20), MaxLen: 20 + length}
		s.Add(q)
		gone = append(gone, weak.Make(q))
	}
	for i := range 32 {
		add(i, 10)
	}
	add(32, 40) // goes on alone
	for s.NumRunning()+s.NumWaiting() > 0 {
		out := s.Schedule()
		results := make([]Result, len(out.Scheduled))
		for i := range results {
			q := out.Scheduled[i].Seq
			results[i] = Result{Token: 1, Finish: len(q.Tokens) == q.MaxLen-1}
		}
		s.Update(out, results, time.Millisecond)
		if s.NumRunning() == 1 && out.Step > 20 {
			requireGone(t, gone[:32], "while another runs")
		}
	}
	require.True(t, s.Schedule().Empty())
	requireGone(t, gone, "without work")
	runtime.KeepAlive(s)
}

func requireGone(t *testing.T, sequences []weak.Pointer[Sequence], when string) {
	t.Helper()
	runtime.GC()
	for i, q := range sequences {
		require.Nil(t, q.Value(), "sequence %d is still there %s", i, when)
	}
}

// TestCheckIdle: sequences, copies under way and loans are none of an idle scheduler's.
func TestCheckIdle(t *testing.T) {
	kv, err := kvcache.NewManager(kvcache.Config{NumBlocks: 11, BlockSize: 16})
	require.NoError(t, err)
	s, err := New(Config{Limits: Limits{MaxNumSeqs: 4, MaxBatchedTokens: 256}}, kv)
	require.NoError(t, err)
	idle := func(want string) {
		_, err := s.CheckIdle(100)
		require.ErrorContains(t, err, want)
	}
	q := &Sequence{Tokens: make([]int32, 20), MaxLen: 30}
	s.Add(q)
	idle("1 wait")
	out := s.Schedule()
	idle("1 sequences run")
	s.Update(out, []Result{{Token: 1, Finish: true}}, 0)
	_, ok := s.Borrow(16 * 3)
	require.True(t, ok)
	idle("3 blocks are lent")
	s.GiveBack()
	done, err := s.CheckIdle(10)
	require.NoError(t, err)
	require.False(t, done)
	done, err = s.CheckIdle(10)
	require.NoError(t, err)
	require.True(t, done)
}

// TestLostSequence: a queue that does not have whom it should give up says so.
func TestLostSequence(t *testing.T) {
	var q queue
	q.insert(&Sequence{ID: 1})
	require.PanicsWithValue(t, "scheduler: sequence 2 is not in its queue", func() { q.remove(&Sequence{ID: 2}) })
}

// BenchmarkStep is the scheduler's own cost of a step of 256 decodes. At their full
// length the sequences are replaced, off the clock.
func BenchmarkStep(b *testing.B) {
	const maxLen = 1 << 12
	var s *Scheduler
	all := make([]Sequence, 256)
	fill := func() {
		kv, err := kvcache.NewManager(kvcache.Config{NumBlocks: 1 << 17, BlockSize: 16})
		require.NoError(b, err)
		s, err = New(Config{Limits: Limits{MaxNumSeqs: 256, MaxBatchedTokens: 8192}}, kv)
		require.NoError(b, err)
		for i := range all {
			all[i] = Sequence{Tokens: append(make([]int32, 0, maxLen), make([]int32, 16)...), MaxLen: maxLen}
			all[i].Tokens[0] = int32(i)
			s.Add(&all[i])
		}
	}
	fill()
	results := make([]Result, 256)
	b.ReportAllocs()
	for b.Loop() {
		if len(all[0].Tokens) == maxLen-1 {
			b.StopTimer()
			fill()
			b.StartTimer()
		}
		out := s.Schedule()
		s.Update(out, results[:len(out.Scheduled)], time.Millisecond)
	}
}
