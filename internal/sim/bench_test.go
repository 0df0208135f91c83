package sim

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kvcache"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// BenchmarkSimulate is the cost of a simulated request of default size, on the
// H200's preset at full load.
func BenchmarkSimulate(b *testing.B) {
	p, err := FindPreset("h200-7b", 16)
	require.NoError(b, err)
	c := Config{
		Scheduler: scheduler.Config{Limits: scheduler.Limits{MaxNumSeqs: 256, MaxBatchedTokens: 8192}, SwapOut: p.SwapOut, SwapIn: p.SwapIn},
		Cache:     kvcache.Config{NumBlocks: p.Blocks, HostBlocks: 4681, BlockSize: 16}, StepTime: p.StepTime, BlockBytes: p.BlockBytes,
	}
	b.ReportAllocs()
	s, err := Simulate(context.Background(), c, Workload{Requests: max(b.N, 300), Seed: 1})
	require.NoError(b, err)
	b.ReportMetric(float64(s.Steps)/b.Elapsed().Seconds(), "steps/s")
	b.ReportMetric(float64(s.OutputTokens)/b.Elapsed().Seconds(), "tokens/s")
}
