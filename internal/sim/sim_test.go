package sim

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kvcache"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// small is a machine with too few blocks.
func small(blocks, host int) Config {
	p, _ := FindPreset("h200-7b", 16)
	return Config{
		Scheduler: scheduler.Config{
			Limits: scheduler.Limits{MaxNumSeqs: 64, MaxBatchedTokens: 2048}, SwapOut: p.SwapOut, SwapIn: p.SwapIn,
		},
		Cache:    kvcache.Config{NumBlocks: blocks, HostBlocks: host, BlockSize: 16},
		StepTime: p.StepTime, BlockBytes: p.BlockBytes,
	}
}

// everything is a workload with all that there is.
func everything(n int, seed uint64) Workload {
	return Workload{
		Requests: n, Seed: seed, Rate: 60, Burstiness: 0.3, Families: 3, PrefixLen: 100, PrefixShare: 0.5,
		Turns: 3, ThinkTime: 100 * time.Millisecond, AbortShare: 0.1, Patience: time.Second, ForkShare: 0.1, Priorities: 3, MaxTokens: 700,
	}
}

// simulate runs and records.
func simulate(t testing.TB, c Config, w Workload) (Summary, []byte) {
	t.Helper()
	var trace bytes.Buffer
	c.Record = &trace
	s, err := Simulate(context.Background(), c, w)
	require.NoError(t, err)
	return s, trace.Bytes()
}

func reader(trace []byte) *scheduler.TraceReader {
	return scheduler.NewTraceReader(bytes.NewReader(trace))
}

// configs are the corners that every property is tested in.
func configs() map[string]Config {
	out := map[string]Config{"swap": small(600, 600), "small swap": small(600, 60), "recompute": small(600, 600), "roomy": small(9000, 0)}
	c := out["recompute"]
	c.Scheduler.PreemptionMode, c.Overlapped = scheduler.OnlyRecompute, true
	out["recompute"] = c
	c = out["swap"]
	c.Scheduler.Policy, c.Scheduler.TargetITL = scheduler.Priority, 20*time.Millisecond
	out["priority"] = c
	c.Overlapped = true
	out["overlapped"] = c
	return out
}

// TestConservation: each request ends exactly once, each sequence is submitted
// once, and all blocks are free at the end. The same seed gives the same trace,
// another one another.
func TestConservation(t *testing.T) {
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			w := everything(250, 1)
			s, trace := simulate(t, c, w)
			require.EqualValues(t, 250, s.Requests)
			require.Equal(t, s.Requests, s.Finished+s.Aborted)
			require.Greater(t, s.Aborted, int64(10))
			require.Greater(t, s.Forks, int64(20))
			require.Greater(t, s.HitRate, 0.2)
			if name != "roomy" {
				require.Greater(t, s.Preemptions+s.Waits, int64(20), "the pool was never short")
				require.Greater(t, s.Evictions, int64(1000))
			}

			ends := map[scheduler.SequenceID]int{}
			outputs := int64(0)
			require.NoError(t, ReadSteps(reader(trace), func(step *Step) error {
				for _, a := range step.Submitted {
					require.NotContains(t, ends, a.ID)
					ends[a.ID] = 0
				}
				for _, e := range slices.Concat(step.Finished, step.Aborted) {
					ends[e.ID]++
				}
				for _, e := range step.Scheduled {
					if !c.Overlapped && !contains(step.Finished, e.ID) {
						require.Zero(t, ends[e.ID], "%d runs after its end", e.ID)
					}
				}
				outputs += int64(len(step.Scheduled))
				return nil
			}))
			require.GreaterOrEqual(t, len(ends), 250)
			unended := 0
			for id, n := range ends {
				require.LessOrEqual(t, n, 1, "sequence %d", id)
				unended += 1 - n
			}
			// Those aborted after the last step are in no step.
			require.Less(t, unended, 5)
			require.GreaterOrEqual(t, outputs, s.OutputTokens)
			_, done, err := Replay(reader(trace))
			require.NoError(t, err)
			require.Zero(t, done.Cache.Used+done.Cache.InFlight+done.Cache.HostUsed+done.Cache.HostInFlight)

			again, same := simulate(t, c, w)
			require.Equal(t, s, again)
			require.True(t, bytes.Equal(trace, same))
			w.Seed++
			_, other := simulate(t, c, w)
			require.False(t, bytes.Equal(trace, other))
		})
	}
}

func contains(ends []SequenceEnd, id scheduler.SequenceID) bool {
	return slices.ContainsFunc(ends, func(e SequenceEnd) bool { return e.ID == id })
}

// TestReplayOfItsOwnRecord: identical decisions, and by the trace's clock the same
// summary but for what only the simulator knows: which choices are one request,
// how large a block is.
func TestReplayOfItsOwnRecord(t *testing.T) {
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			w := everything(120, 2)
			w.ForkShare = 0
			s, trace := simulate(t, c, w)
			got, done, err := Replay(reader(trace))
			require.NoError(t, err)
			require.EqualValues(t, 120, done.Submitted)
			s.SwapInBytes, s.SwapOutBytes, s.PredictionError = 0, 0, 0
			// A request that stood in line outside arrived before its submit line.
			s.TTFT, s.Latency, got.TTFT, got.Latency = Distribution{}, Distribution{}, Distribution{}, Distribution{}
			s.VirtualSeconds, s.OutputThroughput, s.RequestThroughput = got.VirtualSeconds, got.OutputThroughput, got.RequestThroughput
			require.Equal(t, s, got)
		})
	}
}

// TestWhatIf: the recorded requests under the recorded settings and step times
// give the recorded run; under others another one, with the same answers.
func TestWhatIf(t *testing.T) {
	c := small(600, 300)
	w := everything(200, 3)
	s, trace := simulate(t, c, w)
	recorded, err := ReadRecorded(reader(trace))
	require.NoError(t, err)
	require.Equal(t, c.Cache.NumBlocks, recorded.Config.Blocks)
	c.MaxModelLen = math.MaxInt32
	c.MaxQueued = math.MaxInt32
	same, err := SimulateRecorded(context.Background(), c, recorded)
	require.NoError(t, err)
	require.Equal(t, s.Steps, same.Steps)
	require.Equal(t, s.OutputTokens, same.OutputTokens)
	require.InDelta(t, s.VirtualSeconds, same.VirtualSeconds, 1e-3)

	c.Scheduler.MaxNumSeqs, c.Scheduler.PreemptionMode = 4, scheduler.OnlyRecompute
	fewer, err := SimulateRecorded(context.Background(), c, recorded)
	require.NoError(t, err)
	require.Equal(t, same.Requests, fewer.Requests)
	require.Equal(t, fewer.Requests, fewer.Finished+fewer.Aborted)
	require.Greater(t, fewer.Steps, s.Steps)
	require.Zero(t, fewer.SwapOutBlocks)

	c.Cache.NumBlocks = 30
	tiny, err := SimulateRecorded(context.Background(), c, recorded)
	require.NoError(t, err)
	require.Positive(t, tiny.Refused)
	require.Equal(t, tiny.Requests, tiny.Finished+tiny.Aborted+tiny.Refused)
}

// TestFit finds the coefficients that a run was made with.
func TestFit(t *testing.T) {
	c := small(600, 300)
	c.StepTime = StepTime{Step: 3e6, Prefill: 40000, Decode: 30000, Context: 25, Pair: 1.5}
	s, trace := simulate(t, c, everything(300, 4))
	require.Positive(t, s.SwapInBlocks)
	f, err := Fit(reader(trace))
	require.NoError(t, err)
	require.Equal(t, s.Steps, f.Steps)
	require.Less(t, f.Error, 0.01)
	for i, want := range []float64{c.StepTime.Step, c.StepTime.Prefill, c.StepTime.Decode, c.StepTime.Context, c.StepTime.Pair} {
		require.InEpsilon(t, want, []float64{f.Step, f.Prefill, f.Decode, f.Context, f.Pair}[i], 0.02)
	}
	require.Equal(t, c.Scheduler.SwapOut, f.SwapOut)
	require.Equal(t, c.Scheduler.SwapIn, f.SwapIn)
	var parsed StepTime
	require.NoError(t, parsed.Set(f.StepTime.String()))
	require.InEpsilon(t, f.Pair, parsed.Pair, 0.001)
	for _, bad := range []string{"", "step", "steps=3ms", "step=3", "step=-1ms", "step=xms", "pair=infs"} {
		require.Error(t, new(StepTime).Set(bad), bad)
	}
}

// TestLatenciesByHand: one request, whose times follow from the coefficients.
func TestLatenciesByHand(t *testing.T) {
	c := small(100, 0)
	c.StepTime = StepTime{Step: 1e6, Prefill: 1e4, Decode: 1e5}
	s, _ := simulate(t, c, Workload{Requests: 1, Prompt: Lengths{100, 100}, Output: Lengths{11, 11}})
	require.InEpsilon(t, 1+100*0.01, s.TTFT.Mean, 1e-9)
	require.InEpsilon(t, 1.1, s.ITL.Mean, 1e-9)
	require.InEpsilon(t, 2+10*1.1, s.Latency.Mean, 1e-9)
	require.InEpsilon(t, 11/0.013, s.OutputThroughput, 1e-9)
	require.EqualValues(t, 11, s.Steps)
	require.EqualValues(t, 10, s.ITL.N)
}

// TestOverlapHidesNothingButTheOverrun: without host time the overlapped loop
// computes the same tokens, one step later at most.
func TestOverlapComputesOneStepTooFar(t *testing.T) {
	c := small(9000, 0)
	w := Workload{Requests: 50, Seed: 1}
	plain, _ := simulate(t, c, w)
	c.Overlapped = true
	ahead, _ := simulate(t, c, w)
	require.Equal(t, plain.OutputTokens, ahead.OutputTokens)
	// A sequence that reaches its longest is not run again: none goes too far here.
	require.Equal(t, plain.ComputedTokens, ahead.ComputedTokens)
	w.MaxTokens = 4000
	ahead, _ = simulate(t, c, w)
	require.Equal(t, plain.ComputedTokens+50, ahead.ComputedTokens)
}

func TestWorkload(t *testing.T) {
	w := everything(20000, 1)
	w.Turns, w.ForkShare, w.PrefixShare = 1, 0.25, 0
	g, err := newGenerator(w, 8192)
	require.NoError(t, err)
	var prompts, outputs []float64
	forks, impatient := 0, 0
	var last time.Duration
	for {
		if _, ok := g.peek(); !ok {
			break
		}
		a := g.next()
		require.GreaterOrEqual(t, a.at, last)
		last = a.at
		prompts, outputs = append(prompts, float64(len(a.prompt))), append(outputs, float64(a.outputs[0]))
		if len(a.outputs) == 4 {
			forks++
		}
		if a.patience > 0 {
			impatient++
		}
		require.Less(t, len(a.prompt), a.maxLen)
		require.LessOrEqual(t, a.maxLen, 8192)
	}
	require.Len(t, prompts, 20000)
	mean := func(v []float64) (sum float64) {
		for _, x := range v {
			sum += x / float64(len(v))
		}
		return sum
	}
	p95 := func(v []float64) float64 { slices.Sort(v); return v[len(v)*95/100] }
	require.InEpsilon(t, 220, mean(prompts), 0.05)
	require.InEpsilon(t, 800, p95(prompts), 0.08)
	require.InEpsilon(t, 200, mean(outputs), 0.05)
	require.InEpsilon(t, 600, p95(outputs), 0.08)
	require.InEpsilon(t, 5000, forks, 0.1)
	require.InEpsilon(t, 2000, impatient, 0.1)
	require.InEpsilon(t, 20000/60.0, last.Seconds(), 0.1)

	for name, bad := range map[string]Workload{
		"nothing": {}, "rate": {Requests: 1, Rate: -1}, "share": {Requests: 1, AbortShare: 1.1}, "burst": {Requests: 1, Burstiness: -1},
		"lengths": {Requests: 1, Prompt: Lengths{10, 5}}, "tail": {Requests: 1, Output: Lengths{10, 100}}, "n": {Requests: 1, N: -1},
	} {
		_, err := Simulate(context.Background(), small(10, 0), bad)
		require.ErrorIs(t, err, ErrConfig, name)
	}
}

// TestGamma: mean and variance of the standard gamma are its shape.
func TestGamma(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, shape := range []float64{0.2, 1, 3} {
		var sum, squares float64
		const n = 200000
		for range n {
			x := gamma(r, shape)
			sum, squares = sum+x, squares+x*x
		}
		mean := sum / n
		require.InEpsilon(t, shape, mean, 0.03)
		require.InEpsilon(t, shape, squares/n-mean*mean, 0.05)
	}
}

// TestSharedPrefixes: families share their prefixes and nothing else.
func TestSharedPrefixes(t *testing.T) {
	w := Workload{Requests: 100, Families: 2, PrefixLen: 64, PrefixShare: 1}
	g, err := newGenerator(w, 1000)
	require.NoError(t, err)
	starts := map[int32]int{}
	for range 100 {
		a := g.next()
		if len(a.prompt) > 64 {
			starts[a.prompt[63]]++
		}
	}
	require.Len(t, starts, 2)
}

// TestHistogram against sorted values.
func TestHistogram(t *testing.T) {
	var h histogram
	r := rand.New(rand.NewPCG(3, 4))
	var values []float64
	for range 50000 {
		v := time.Duration(math.Exp(r.NormFloat64()*3 + 10))
		h.add(v)
		values = append(values, float64(v))
	}
	slices.Sort(values)
	for _, q := range []float64{0, 0.1, 0.5, 0.9, 0.99, 1} {
		want := values[int(q*float64(len(values)-1))]
		require.InDelta(t, want, h.quantile(q), want*0.02+1, "%v", q)
	}
	require.InEpsilon(t, values[len(values)-1], float64(h.max), 1e-9)
	for _, v := range []time.Duration{0, 1, 127, 128, 129, 1 << 20, math.MaxInt64} {
		low, high := bounds(bucket(v))
		require.LessOrEqual(t, low, float64(v))
		require.True(t, float64(v) < high || v == math.MaxInt64)
	}
	require.Zero(t, (&histogram{}).describe())
	var one histogram
	one.add(12345678)
	require.InEpsilon(t, 12.345678, one.describe().Median, 1e-9)
}

// TestManyRequests is the long run, with memory that does not grow with it: no
// sequence outlives its request.
func TestManyRequests(t *testing.T) {
	n := 100000
	if testing.Short() {
		n = 2000
	}
	c := small(4000, 1000)
	c.Scheduler.MaxNumSeqs = 256
	w := Workload{Requests: n, Seed: 5, Families: 10, PrefixLen: 100, PrefixShare: 0.3, AbortShare: 0.05, ForkShare: 0.02}
	s, err := Simulate(context.Background(), c, w)
	require.NoError(t, err)
	require.EqualValues(t, n, s.Finished+s.Aborted)
	require.Greater(t, s.Preemptions, int64(n/100))
	t.Logf("%+v", s)
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	c := small(600, 0)
	c.Progress = func(done, total int) {
		require.LessOrEqual(t, done, total)
		if done > 10 {
			cancel()
		}
	}
	_, err := Simulate(ctx, c, Workload{Requests: 1 << 30})
	require.ErrorIs(t, err, context.Canceled)
}

// BenchmarkSimulate is the cost of a simulated request of default size, on the
// H200's preset at full load.
func BenchmarkSimulate(b *testing.B) {
	c := small(127808, 4681)
	c.Scheduler.MaxNumSeqs, c.Scheduler.MaxBatchedTokens = 256, 8192
	b.ReportAllocs()
	s, err := Simulate(context.Background(), c, Workload{Requests: max(b.N, 300), Seed: 1})
	require.NoError(b, err)
	b.ReportMetric(float64(s.Steps)/b.Elapsed().Seconds(), "steps/s")
	b.ReportMetric(float64(s.OutputTokens)/b.Elapsed().Seconds(), "tokens/s")
}
