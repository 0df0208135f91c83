package scheduler

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kvcache"
)

// traced is a random client whose run is recorded.
type traced struct {
	r        *rand.Rand
	s        *Scheduler
	kv       *kvcache.Manager
	live     []*Sequence
	inFlight []*Output
	overlap  bool
	slots    int // of the smallest pool that SetLimits may choose
	seen     map[string]int
}

// recordRun plays a random client for some steps and returns its trace.
func recordRun(t testing.TB, seed uint64, steps int, seen map[string]int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	size := []int{2, 4, 16}[r.IntN(3)]
	var trace bytes.Buffer
	w := NewTraceWriter(&trace, 0, nil)
	d := &traced{r: r, overlap: r.IntN(2) == 0, slots: 80, seen: seen}
	var key [32]byte
	key[0] = byte(seed) + 1 // a replay has another one
	var err error
	d.kv, err = kvcache.NewManager(kvcache.Config{
		NumBlocks: 2 + (d.slots+r.IntN(100))/size, HostBlocks: r.IntN(3) * 100 / size, BlockSize: size,
		DisablePrefixCaching: r.IntN(5) == 0, Key: key,
	})
	require.NoError(t, err)
	cfg := Config{
		Limits: d.limits(2 + r.IntN(8)), Policy: []Policy{FCFS, Priority}[r.IntN(2)],
		SwapOut: 200 * time.Microsecond, SwapIn: 250 * time.Microsecond, Trace: w.Line,
	}
	d.s, err = New(cfg, d.kv)
	require.NoError(t, err)
	for range steps {
		d.act(t)
		d.step(t)
	}
	for bound := 0; len(d.live)+len(d.inFlight) > 0; bound++ {
		require.Less(t, bound, 20000, "livelock")
		d.step(t)
	}
	require.NoError(t, w.Flush())
	return trace.Bytes()
}

func (d *traced) limits(seqs int) Limits {
	return Limits{
		MaxNumSeqs: seqs, MaxBatchedTokens: seqs + d.r.IntN(64),
		PreemptionMode: []Mode{Auto, OnlySwap, OnlyRecompute}[d.r.IntN(3)], Watermark: []float64{0, -1, 0.05}[d.r.IntN(3)],
		MaxMixedTokens: d.r.IntN(3) * 10, LongPrefillThreshold: d.r.IntN(2) * 20, TargetITL: time.Duration(d.r.IntN(2)*3) * time.Millisecond,
	}
}

// act does what a client may do between two steps.
func (d *traced) act(t testing.TB) {
	for range d.r.IntN(3) {
		d.submit()
	}
	switch d.r.IntN(12) {
	case 0:
		if len(d.live) > 0 {
			d.s.Abort(d.live[d.r.IntN(len(d.live))])
			d.seen["abort"]++
			d.forget()
		}
	case 1:
		blocks := 2 + (d.slots+d.r.IntN(100))/d.kv.BlockSize()
		require.NoError(t, d.s.SetLimits(d.limits(1+d.r.IntN(8)), blocks, d.r.IntN(100)/d.kv.BlockSize()))
		d.seen["limits"]++
	case 2:
		d.s.ResetPrefixCache()
	case 3:
		if _, ok := d.s.Borrow(1 + d.r.IntN(20)); ok {
			d.seen["loan"]++
		} else if d.seen["refused loan"]++; d.r.IntN(2) == 0 {
			return // the wish stays for some steps
		}
		d.s.GiveBack()
	}
}

func (d *traced) submit() {
	q := &Sequence{Priority: d.r.IntN(3), CacheSalt: []string{"", "<&>\n"}[d.r.IntN(6)/5]}
	for i, family := range make([]int32, 1+d.r.IntN(50)) {
		if family = int32(i % 3); d.r.IntN(30) == 0 {
			family = int32(d.r.IntN(3))
		}
		q.Tokens = append(q.Tokens, family)
	}
	q.MaxLen = len(q.Tokens) + 1 + d.r.IntN(29)
	prompt := slices.Clone(q.Tokens)
	d.s.Add(q)
	d.live = append(d.live, q)
	for range d.r.IntN(8) / 6 {
		fork := &Sequence{Tokens: slices.Clone(prompt), MaxLen: q.MaxLen, Priority: q.Priority, CacheSalt: q.CacheSalt, Parent: q}
		d.s.Add(fork)
		d.live = append(d.live, fork)
	}
}

func (d *traced) forget() {
	d.live = slices.DeleteFunc(d.live, func(q *Sequence) bool { return q.Status == Finished })
}

func (d *traced) step(t testing.TB) {
	out := d.s.Schedule()
	if !out.Empty() {
		d.inFlight = append(d.inFlight, out)
	}
	for i := range out.Decisions {
		d.seen[string(out.Decisions[i].Means)]++
	}
	for i := range out.Admitted {
		d.seen[string(out.Admitted[i].How)]++
	}
	d.seen["evicted"] += len(out.Evicted)
	d.seen["target_itl"] += b2i(out.ChunkReason == WaitITL)
	d.seen["max_num_mixed_tokens"] += b2i(out.ChunkReason == WaitMixed)
	for _, id := range d.s.Transfers(nil) {
		if out.Empty() && len(d.inFlight) == 0 || d.r.IntN(3) == 0 {
			d.s.CopyDone(id, time.Duration(1+d.r.IntN(1e6)))
		}
	}
	ahead := b2i(d.overlap && !out.Empty())
	for len(d.inFlight) > ahead {
		d.update()
	}
	require.NoError(t, d.s.Check())
}

func (d *traced) update() {
	out := d.inFlight[0]
	d.inFlight = d.inFlight[1:]
	results := make([]Result, len(out.Scheduled))
	for i := range out.Scheduled {
		if e := &out.Scheduled[i]; e.Sample {
			results[i] = Result{int32(d.r.IntN(3)), len(e.Seq.Tokens)+1 >= e.Seq.MaxLen || d.r.IntN(25) == 0}
		}
	}
	d.s.Update(out, results, time.Millisecond+time.Duration(out.NumTokens)*50*time.Microsecond)
	d.forget()
}

// TestReplay: a recorded run replays to identical decisions, whatever happened in
// it.
func TestReplay(t *testing.T) {
	seen := map[string]int{}
	runs := 120
	if testing.Short() {
		runs = 40
	}
	for seed := range uint64(runs) {
		trace := recordRun(t, seed, 60, seen)
		done, err := Replay(NewTraceReader(bytes.NewReader(trace)), nil)
		require.NoError(t, err, "seed %d", seed)
		require.Greater(t, done.Steps, int64(60))
		require.Positive(t, done.Submitted)
	}
	t.Log(seen)
	for _, what := range []string{
		string(ByRecompute), string(BySwap), string(ByWaiting), string(Fresh), string(Forked), string(SwappedIn),
		"abort", "limits", "loan", "refused loan", "evicted", "target_itl", "max_num_mixed_tokens",
	} {
		require.Greater(t, seen[what], runs/20, "the runs reached %q too rarely to mean anything", what)
	}
}

// TestReplaySeesOneChangedByte changes one digit of a recorded decision and wants
// to be told.
func TestReplaySeesOneChangedByte(t *testing.T) {
	trace := recordRun(t, 3, 80, map[string]int{})
	r := rand.New(rand.NewPCG(1, 1))
	start, changes := 0, 0
	for line := range bytes.Lines(trace) {
		from := start
		start += len(line)
		body := bytes.Index(line, []byte(`"record":`))
		if body < 0 {
			continue
		}
		i := body + r.IntN(len(line)-body)
		key := line[:bytes.LastIndexByte(line[:i], '"')]
		if line[i] < '0' || line[i] > '9' || bytes.HasSuffix(key, []byte("_ns")) {
			continue
		}
		changed := slices.Clone(trace)
		changed[from+i] = '1' + (line[i]-'0'+byte(r.IntN(8)))%9 // never a leading zero
		_, err := Replay(NewTraceReader(bytes.NewReader(changed)), nil)
		require.ErrorIs(t, err, ErrDiffers, "byte %d of %s", i, line)
		changes++
	}
	require.Greater(t, changes, 15)
}

func TestDifferenceNamesStepAndField(t *testing.T) {
	trace := string(recordRun(t, 1, 30, map[string]int{}))
	_, err := Replay(NewTraceReader(strings.NewReader(strings.Replace(trace, `"used":`, `"used":1`, 9))), nil)
	require.ErrorIs(t, err, ErrDiffers)
	require.ErrorContains(t, err, "step 1: pool is {Free:")
}

func TestTraceReader(t *testing.T) {
	trace := recordRun(t, 2, 5, map[string]int{})
	first := trace[:bytes.IndexByte(trace, '\n')+1]
	for name, c := range map[string]struct{ text, want string }{
		"empty":      {"", "the trace is empty"},
		"middle":     {string(trace[len(first):]), "trace line 1: a trace begins with its configuration"},
		"twice":      {string(first) + string(first), "trace line 2: a configuration in the middle"},
		"two kinds":  {string(first) + `{"at_ns":0,"abort":3,"give_back":true}` + "\n", "trace line 2: it holds 2 inputs"},
		"nothing":    {string(first) + "{}\n", "trace line 2: it holds 0"},
		"field":      {string(first) + `{"abrt":3}` + "\n", `unknown field "abrt"`},
		"not json":   {string(first) + "hello\n", "trace line 2: invalid character"},
		"two values": {string(first) + `{"abort":3}{"abort":4}` + "\n", "more than one value"},
		"cut":        {string(trace[:len(trace)-9]), "is cut off: unexpected EOF"},
		"dead":       {string(first) + `{"abort":9}` + "\n", "abort of sequence 9, which is not alive"},
		"limits":     {string(first) + `{"limits":{"blocks":100,"max_num_seqs":2000000000,"max_num_batched_tokens":2000000000}}` + "\n", "trace line 2: limits of 2000000000 sequences"},
		"seqs":       {`{"config":{"version":2,"block_size":16,"blocks":100,"max_num_seqs":2000000000,"max_num_batched_tokens":2000000000}}` + "\n", "for 2000000000 sequences"},
		"version":    {strings.Replace(string(first), `"version":2`, `"version":1`, 1), "version 1, this program reads version 2"},
	} {
		_, err := Replay(NewTraceReader(strings.NewReader(c.text)), nil)
		require.ErrorContains(t, err, c.want, name)
	}
}

// TestTraceWriterStopsAtItsLimit: what was written before is a whole trace.
func TestTraceWriterStopsAtItsLimit(t *testing.T) {
	trace := recordRun(t, 5, 20, map[string]int{})
	var small bytes.Buffer
	w := NewTraceWriter(&small, int64(len(trace)/2), func() time.Duration { return 0 })
	r := NewTraceReader(bytes.NewReader(trace))
	for {
		l, err := r.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		w.Line(l)
	}
	require.ErrorIs(t, w.Flush(), ErrTraceFull)
	require.LessOrEqual(t, small.Len(), len(trace)/2)
	require.True(t, bytes.HasPrefix(trace, small.Bytes()))
	done, err := Replay(NewTraceReader(&small), nil)
	require.NoError(t, err)
	require.Equal(t, w.Lines(), done.Steps+done.Inputs)
}

type failingWriter struct{ after int }

// Write implements io.Writer.
func (f *failingWriter) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func TestTraceWriterKeepsTheFirstError(t *testing.T) {
	w := NewTraceWriter(&failingWriter{1 << 16}, 0, nil)
	for range 10 {
		w.Line(&TraceLine{Submit: &TraceSubmit{Tokens: make([]int32, 1<<14)}})
	}
	require.ErrorIs(t, w.Flush(), io.ErrClosedPipe)
	require.ErrorIs(t, w.Flush(), io.ErrClosedPipe)
}

// FuzzReplay: no trace makes the reader or the scheduler panic. Large pools are
// left out, for the fuzzer's memory.
func FuzzReplay(f *testing.F) {
	for seed := range uint64(6) {
		f.Add(recordRun(f, seed, 4, map[string]int{}))
	}
	f.Fuzz(func(t *testing.T, trace []byte) {
		r := NewTraceReader(bytes.NewReader(trace))
		for l, err := r.Next(); err == nil; l, err = r.Next() {
			c := l.Config
			if c == nil && l.Limits != nil {
				c = &TraceConfig{TraceLimits: *l.Limits}
			}
			if c != nil && (c.Blocks > 1<<12 || c.BlockSize > 64 || c.HostBlocks > 1<<12 || c.MaxNumSeqs > 1<<10) {
				t.Skip()
			}
		}
		if done, err := Replay(NewTraceReader(bytes.NewReader(trace)), nil); err == nil {
			require.Positive(t, done.Inputs)
		}
	})
}

// TestRecordAllocatesNothing: neither a record nor tracing switched off costs
// memory in the steady state.
func TestRecordAllocatesNothing(t *testing.T) {
	kv, err := kvcache.NewManager(kvcache.Config{NumBlocks: 1 << 12, BlockSize: 16})
	require.NoError(t, err)
	s, err := New(Config{Limits: Limits{MaxNumSeqs: 64, MaxBatchedTokens: 256}}, kv)
	require.NoError(t, err)
	for range 64 {
		s.Add(&Sequence{Tokens: make([]int32, 1, 1024), MaxLen: 1 << 13})
	}
	var r Record
	results := make([]Result, 64)
	step := func() {
		out := s.Schedule()
		s.Record(out, &r)
		s.Update(out, results[:len(out.Scheduled)], time.Millisecond)
	}
	step()
	// Block tables grow now and then, and only they.
	require.Less(t, testing.AllocsPerRun(100, step), 64.0/16)
	require.Equal(t, 64, len(r.Scheduled))
	require.Equal(t, kv.Stats().Used, r.Pool.Used)
	require.Equal(t, kv.Capacity(), r.Pool.Total())

	var other Record
	r.CopyTo(&other)
	require.Empty(t, other.Difference(&r))
	r.Scheduled[3].Start++
	require.Contains(t, other.Difference(&r), "scheduled[3]")
}

// BenchmarkTrace is what tracing adds to a step of 256 decodes.
func BenchmarkTrace(b *testing.B) {
	kv, err := kvcache.NewManager(kvcache.Config{NumBlocks: 1 << 18, BlockSize: 16})
	require.NoError(b, err)
	w := NewTraceWriter(io.Discard, 0, nil)
	s, err := New(Config{Limits: Limits{MaxNumSeqs: 256, MaxBatchedTokens: 8192}, Trace: w.Line}, kv)
	require.NoError(b, err)
	for i := range 256 {
		q := &Sequence{Tokens: make([]int32, 16, 1<<16), MaxLen: 1 << 16}
		q.Tokens[0] = int32(i)
		s.Add(q)
	}
	results := make([]Result, 256)
	b.ReportAllocs()
	for b.Loop() {
		out := s.Schedule()
		s.Update(out, results[:len(out.Scheduled)], 0)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
