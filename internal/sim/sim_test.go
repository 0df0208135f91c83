package sim

import (
	"bytes"
	"context"
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

func simulate(t testing.TB, c Config, w Workload) (Summary, []byte) {
	var trace bytes.Buffer
	c.Record = &trace
	s, err := Simulate(context.Background(), c, w)
	require.NoError(t, err)
	return s, trace.Bytes()
}

func TestSmoke(t *testing.T) {
	for _, overlap := range []bool{false, true} {
		c := small(600, 600)
		c.Overlapped = overlap
		s, trace := simulate(t, c, everything(500, 1))
		var b bytes.Buffer
		require.NoError(t, s.Print(&b))
		t.Log("\n" + b.String())
		_, err := scheduler.Replay(scheduler.NewTraceReader(bytes.NewReader(trace)), nil)
		require.NoError(t, err)
	}
}
