//go:build cuda

package engine

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkGPUDecode is the steady decode of the whole engine: the host's own time
// of a step and the share of the time between the end of a step and the beginning of
// the next, which does not see gaps within a step: a lower bound. Where there is CUPTI, a
// run that it records adds the share in which no kernel ran and no copy, within graphs and
// between them, beside the time that a step takes then: an upper bound, since recording
// makes gaps wider.
func BenchmarkGPUDecode(b *testing.B) {
	for _, model := range []string{"qwen2.5-0.5b", "qwen2.5-7b"} {
		e := openGPU(b, func(c *Config) {
			c.Model, c.NumGPUBlocksOverride, c.MaxNumSeqs, c.MaxNumBatchedTokens = model, 10000, 256, 8192
		})
		for _, batch := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/batch=%d", model, batch), func(b *testing.B) {
				var idle, host, device, gap float64
				for range b.N {
					idle, host, device, gap = steadyDecode(b, e, batch)
				}
				b.ReportMetric(device, "µs/step")
				b.ReportMetric(host, "host-µs/step")
				b.ReportMetric(gap, "gap-µs/step")
				b.ReportMetric(100*idle, "%idle")
				if idle, device, ok := idleInGraph(b, e, batch); ok {
					b.ReportMetric(100*idle, "idle-in-graph-%")
					b.ReportMetric(device, "recorded-µs/step")
				}
				b.ReportMetric(0, "ns/op")
			})
		}
		require.NoError(b, e.Close())
	}
}

// decodes submits a batch of equal requests.
func decodes(b *testing.B, e *Engine, batch int) (streams []*Stream) {
	for i := range batch {
		s, err := e.Submit(context.Background(), Request{Prompt: prompt(i, 200), MaxTokens: 300, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}})
		require.NoError(b, err)
		streams = append(streams, s)
	}
	return streams
}

// finish reads streams to their ends.
func finish(b *testing.B, streams []*Stream) {
	for _, s := range streams {
		for ev, ok := s.Next(context.Background()); ok; ev, ok = s.Next(context.Background()) {
			require.NoError(b, ev.Err)
		}
	}
}

// idleInGraph profiles the middle of a batch. The first steps of a profile, of which one
// captures the graph anew, do not count.
func idleInGraph(b *testing.B, e *Engine, batch int) (idle, device float64, ok bool) {
	const skipped, counted = 4, 20
	streams := decodes(b, e, batch)
	defer finish(b, streams)
	for range 100 { // all decode by then
		_, more := streams[batch-1].Next(context.Background())
		require.True(b, more)
	}
	p, err := e.Profile(context.Background(), ProfileOptions{Steps: skipped + counted + 1})
	require.NoError(b, err)
	require.Len(b, p.Steps, skipped+counted+1)
	for _, note := range p.Notes {
		b.Log(note)
	}
	if len(p.Steps[0].Ops) == 0 || p.Steps[0].Ops[0].Activities == nil { // no CUPTI
		return 0, 0, false
	}
	share, step, err := idleOf(p.Steps[skipped:])
	require.NoError(b, err)
	return share, float64(step.Nanoseconds()) / 1e3, true
}

// steadyDecode runs a batch of equal requests; the last 200 steps in which all
// decode count. Times are medians, in µs.
func steadyDecode(b *testing.B, e *Engine, batch int) (idle, host, device, gap float64) {
	finish(b, decodes(b, e, batch))
	steps := slices.DeleteFunc(e.Steps(400), func(s StepRecord) bool { return len(s.Scheduled) != batch || s.Tokens != batch })
	require.Greater(b, len(steps), 220)
	steps = steps[len(steps)-210 : len(steps)-9] // the end is not steady
	var hosts, devices, gaps []float64
	var busy time.Duration
	for i, s := range steps[:200] {
		busy += s.Device
		hosts, devices = append(hosts, float64(s.Host.Nanoseconds())/1e3), append(devices, float64(s.Device.Nanoseconds())/1e3)
		gaps = append(gaps, float64((steps[i+1].Start.Sub(s.Start)-s.Device).Nanoseconds())/1e3)
	}
	wall := steps[200].Start.Sub(steps[0].Start)
	middle := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
	return 1 - float64(busy)/float64(wall), middle(hosts), middle(devices), middle(gaps)
}
