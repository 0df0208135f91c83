package sim

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
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

// configs are the corners that every property is tested in; one of them in short mode, which is for the
// race detector: a simulation is one goroutine.
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
	if testing.Short() {
		return map[string]Config{"overlapped": c}
	}
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

// TestFullQueue: a queue that is full while nothing runs waits for the copies under
// way, not for a client who stands in line.
func TestFullQueue(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := small(10, 100)
	c.MaxQueued, c.Scheduler.PreemptionMode = 4, scheduler.OnlySwap
	s, err := Simulate(ctx, c, Workload{Requests: 60, Prompt: Lengths{40, 40}, Output: Lengths{60, 60}})
	require.NoError(t, err)
	require.EqualValues(t, 60, s.Finished)
	require.Positive(t, s.SwapInBlocks)
}

// TestImpossibleConfigs are refused before they take memory or hang.
func TestImpossibleConfigs(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"queue":     func(c *Config) { c.MaxQueued = -1 },
		"blocks":    func(c *Config) { c.Cache.NumBlocks = 1 << 50 },
		"host":      func(c *Config) { c.Cache.HostBlocks = 1 << 50 },
		"sequences": func(c *Config) { c.Scheduler.MaxNumSeqs, c.Scheduler.MaxBatchedTokens = 2e9, 2e9 },
	} {
		c := small(100, 0)
		change(&c)
		_, err := Simulate(context.Background(), c, Workload{Requests: 1})
		require.ErrorIs(t, err, ErrConfig, name)
	}
}

// TestBadRecordings: what no scheduler could have taken is an error with its line.
func TestBadRecordings(t *testing.T) {
	const head = `{"config":{"version":%d,"block_size":16,"blocks":100,"max_num_seqs":4,"max_num_batched_tokens":64}}` + "\n"
	for want, lines := range map[string]string{
		"line 2: sequence 1 has 3 tokens of at most 3":                    `{"submit":{"id":1,"tokens":[1,2,3],"max_len":3}}`,
		"line 2: sequence 1 has 0 tokens of at most 9":                    `{"submit":{"id":1,"tokens":[],"max_len":9}}`,
		"line 2: sequence 7 follows 0":                                    `{"submit":{"id":7,"tokens":[1],"max_len":9}}`,
		"line 3: sequence 2 has another prompt or salt than its parent 1": `{"submit":{"id":1,"tokens":[1,2],"max_len":9}}` + "\n" + `{"submit":{"id":2,"tokens":[1,3],"max_len":9,"parent":1}}`,
		"sequence 2 has another prompt or salt than":                      `{"submit":{"id":1,"tokens":[1,2],"max_len":9}}` + "\n" + `{"submit":{"id":2,"tokens":[1,2],"max_len":9,"parent":1,"salt":"x"}}`,
		"takes sequence 1 beyond its 2 tokens": `{"submit":{"id":1,"tokens":[1],"max_len":2}}` + "\n" +
			strings.Repeat(`{"record":{"step":1,"scheduled":[{"id":1,"start":0,"tokens":1,"sample":true}]}}`+"\n"+`{"update":{"step":1,"tokens":[5]}}`+"\n", 2),
	} {
		_, err := ReadRecorded(reader([]byte(fmt.Sprintf(head, scheduler.TraceVersion) + lines + "\n")))
		require.ErrorContains(t, err, want)
	}
}

// TestWhatIfOfAnEndedParent: a fork whose parent had ended starts on its own, also
// where the parent takes longer than it did.
func TestWhatIfOfAnEndedParent(t *testing.T) {
	lines := `{"config":{"version":` + fmt.Sprint(scheduler.TraceVersion) + `,"block_size":16,"blocks":100,"max_num_seqs":4,"max_num_batched_tokens":64}}
{"submit":{"id":1,"tokens":[1,2],"max_len":9}}
{"abort":1}
{"submit":{"id":2,"tokens":[1,3],"max_len":9,"parent":1}}
`
	recorded, err := ReadRecorded(reader([]byte(lines)))
	require.NoError(t, err)
	s, err := SimulateRecorded(context.Background(), small(100, 0), recorded)
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Finished+s.Aborted)
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
