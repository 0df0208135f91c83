//go:build cuda

package engine

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkGPUIdle is the share of a steady decode's time in which no kernel ran and no
// copy, within graphs and between them, beside the time that a step takes, while CUPTI
// records. Recording makes gaps wider: an upper bound. `pagoda bench peers` has the time
// of a step as it is, and what lies between steps.
func BenchmarkGPUIdle(b *testing.B) {
	for _, model := range []string{"qwen2.5-0.5b", "qwen2.5-7b"} {
		e := openGPU(b, func(c *Config) {
			c.Model, c.NumGPUBlocksOverride, c.MaxNumSeqs, c.MaxNumBatchedTokens = model, 10000, 256, 8192
		})
		for _, batch := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/batch=%d", model, batch), func(b *testing.B) {
				for range b.N {
					idle, step := idleInGraph(b, e, batch)
					b.ReportMetric(100*idle, "idle-in-graph-%")
					b.ReportMetric(step, "recorded-µs/step")
				}
				b.ReportMetric(0, "ns/op")
			})
		}
		require.NoError(b, e.Close())
	}
}

// idleInGraph profiles the middle of a batch of equal requests. The first steps of a
// profile, of which one captures the graph anew, do not count.
func idleInGraph(b *testing.B, e *Engine, batch int) (idle, step float64) {
	const skipped, counted = 4, 20
	var streams []*Stream
	for i := range batch {
		s, err := e.Submit(b.Context(), Request{Prompt: prompt(i, 200), MaxTokens: 300, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}})
		require.NoError(b, err)
		streams = append(streams, s)
	}
	for range 100 { // all decode by then
		_, more := streams[batch-1].Next(b.Context())
		require.True(b, more)
	}
	p, err := e.Profile(b.Context(), ProfileOptions{Steps: skipped + counted + 1})
	require.NoError(b, err)
	for _, s := range streams {
		for ev, ok := s.Next(b.Context()); ok; ev, ok = s.Next(b.Context()) {
			require.NoError(b, ev.Err)
		}
	}
	for _, note := range p.Notes {
		if strings.Contains(note, "is not installed") {
			b.Skip(note)
		}
		require.Fail(b, note)
	}
	require.Len(b, p.Steps, skipped+counted+1)
	share, each, err := idleOf(p.Steps[skipped:])
	require.NoError(b, err)
	return share, float64(each.Nanoseconds()) / 1e3
}
