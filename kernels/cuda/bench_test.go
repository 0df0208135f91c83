//go:build cuda

package cuda

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// benchModel is a model of true shape with a pool for the given tokens, whose KV
// is random, too: a card draws less power on zeros.
type benchModel struct {
	*trueModel
	be *Backend
}

func newBenchModel(b *testing.B, model trueShape, seqs, context int) *benchModel {
	paths(b)
	be := newBackend(b, Config{Path: *forcePath})
	b.Cleanup(func() { _ = be.Close() })
	s := model.full()
	limits := kernels.Limits{
		MaxBatchedTokens: 8192, MaxSeqs: seqs, MaxModelLen: context + 512, MaxLogitRows: seqs, BlockSize: 16, MaxTopLogprobs: 20,
	}
	require.NoError(b, be.Setup(s, limits, limits))
	per := ceilDiv(context+512, 16)
	require.NoError(b, be.ResizePool(1+per*seqs, 0))
	be.fillPool(1)
	m := &benchModel{loadTrue(b, be, s, model.tied), be}
	m.resetRows(seqs, per)
	require.NoError(b, m.Sync())
	return m
}

// run issues the step count times, two under way, and reports the time of one:
// from wall clock, on the device, and of the host's calls.
func (m *benchModel) run(b *testing.B, batch *kernels.Batch, sample *kernels.SampleBatch, count int) (wall, device, host time.Duration) {
	runtime.LockOSThread() // a sub-benchmark has a goroutine of its own
	defer runtime.UnlockOSThread()
	require.NoError(b, m.be.device.Bind())
	var last kernels.Ticket
	wait := func() {
		r, err := m.Wait(last)
		require.NoError(b, err)
		device += r.Duration
	}
	start := time.Now()
	for range count {
		before := time.Now()
		m.Launch(batch, m.pass)
		ticket := m.Sample(sample)
		host += time.Since(before)
		if last != 0 {
			wait()
		}
		last = ticket
	}
	wait()
	n := time.Duration(count)
	return time.Since(start) / n, device / n, host / n
}

// report runs the step b.N times and reports its times; it returns that by wall clock.
func (m *benchModel) report(b *testing.B, batch *kernels.Batch, sample *kernels.SampleBatch) time.Duration {
	b.ResetTimer()
	wall, device, host := m.run(b, batch, sample, b.N)
	b.ReportMetric(float64(wall.Microseconds())/1e3, "ms/step")
	b.ReportMetric(float64(device.Microseconds())/1e3, "gpu-ms/step")
	b.ReportMetric(float64(host.Nanoseconds())/1e3, "host-µs/step")
	return wall
}

// Steps of numbers in between are what a workload has most of, whose sequences end one by one (performance.md, "Where a step's time goes").
var between = flag.Bool("between", false, "BenchmarkDecode: every eighth number of sequences from 256 down, as requests leave them, instead of those that ways were timed for")

// BenchmarkDecode is a decode step at 1,184 tokens of context, greedy.
func BenchmarkDecode(b *testing.B) {
	const context = 1183
	batches := measuredTokens
	if *between {
		batches = nil
		for n := 256; n > 0; n -= 8 {
			batches = append(batches, n)
		}
	}
	for _, model := range trueShapes {
		b.Run(model.name, func(b *testing.B) {
			m := newBenchModel(b, model, 512, context)
			for _, n := range batches {
				b.Run(fmt.Sprint(n), func(b *testing.B) {
					batch, sample := m.spans(n, context, 1)
					m.run(b, batch, sample, 6) // captures the graph
					wall := m.report(b, batch, sample)
					b.ReportMetric(float64(n)/wall.Seconds(), "tok/s")
				})
			}
		})
	}
}

// BenchmarkContexts is a decode step behind contexts of any length, the same for all sequences: where attention takes another
// form, what is beside it may take another time, too.
func BenchmarkContexts(b *testing.B) {
	const most = 4096
	for _, model := range trueShapes {
		b.Run(model.name, func(b *testing.B) {
			m := newBenchModel(b, model, 128, most)
			for _, n := range []int{2, 4, 8, 16, 32, 64, 128} {
				for _, context := range []int{128, 256, 384, 512, 768, 1024, 1088, 1152, 1216, 1280, 1536, 2048, 3072, most} {
					b.Run(fmt.Sprintf("%d/%d", n, context), func(b *testing.B) {
						batch, sample := m.spans(n, context, 1)
						m.run(b, batch, sample, 6) // captures the graph
						m.report(b, batch, sample)
					})
				}
			}
		})
	}
}

// BenchmarkWithout is a decode step at 1,184 tokens of context with one operation left out:
// what is saved is what the operation costs beside the others. Of one sequence, and where products share a norm, one that is
// left out takes it along, and without norms other kernels, or ends, make the products. Its layers are never one launch here, as they are
// of small models where nothing is left out.
func BenchmarkWithout(b *testing.B) {
	const context = 1183
	for _, model := range trueShapes {
		b.Run(model.name, func(b *testing.B) {
			for _, omit := range []string{"", "rmsnorm", "qkv", "attention", "linearattn", "gate_up", "linearmlp", "head", "sample"} {
				m := newBenchModel(b, model, 512, context)
				m.be.omit, m.be.cfg.apart = omit, true
				for _, n := range []int{1, 16, 64, 256, 512} {
					b.Run(fmt.Sprintf("%s/%d", cmp.Or(omit, "nothing"), n), func(b *testing.B) {
						batch, sample := m.spans(n, context, 1)
						m.run(b, batch, sample, 6)
						b.ResetTimer()
						_, device, _ := m.run(b, batch, sample, b.N)
						b.ReportMetric(float64(device.Microseconds())/1e3, "gpu-ms/step")
					})
				}
				require.NoError(b, m.be.Close())
			}
		})
	}
}

// BenchmarkLayers is a decode of one sequence of the 0.5B behind contexts of any length: all layers in one launch, and
// operation by operation.
func BenchmarkLayers(b *testing.B) {
	const most = 32768
	m := newBenchModel(b, trueShapes[0], 1, most)
	for _, context := range []int{128, 1184, 4096, 8192, 16384, most} {
		for _, apart := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/apart_%v", context, apart), func(b *testing.B) {
				m.be.cfg.apart = apart
				require.NoError(b, m.be.graphs.renew())
				batch, sample := m.spans(1, context, 1)
				m.run(b, batch, sample, 6) // captures the graph
				m.report(b, batch, sample)
			})
		}
	}
}

// BenchmarkRagged is a decode step amid requests that came at once, with prompts and outputs of 100 to 1,024 tokens: n of
// 256 are left after so many steps. Beside it n of that mean length.
func BenchmarkRagged(b *testing.B) {
	const least, most = 100, 1024
	for _, model := range trueShapes {
		b.Run(model.name, func(b *testing.B) {
			m := newBenchModel(b, model, 256, 2*most)
			for _, c := range []struct{ n, step int }{{24, 940}, {51, 840}, {81, 730}, {110, 630}, {145, 500}, {179, 380}, {209, 270}, {249, 120}} {
				r, sum := rand.New(rand.NewPCG(1, uint64(c.n))), 0
				lens := make([]int32, c.n)
				for i := range lens {
					lens[i] = int32(least + r.IntN(most-least+1) + c.step)
					sum += int(lens[i])
				}
				for _, ragged := range []bool{false, true} {
					b.Run(fmt.Sprintf("%d/ragged_%v", c.n, ragged), func(b *testing.B) {
						batch, sample := m.spans(c.n, sum/c.n-1, 1)
						if ragged {
							copy(batch.SeqLens, lens)
						}
						m.run(b, batch, sample, 6) // captures the graph
						m.report(b, batch, sample)
					})
				}
			}
		})
	}
}

// BenchmarkMixed is a step of decodes at 640 tokens of context beside a chunk of a prompt from its
// first token.
func BenchmarkMixed(b *testing.B) {
	const context = 640
	for _, model := range trueShapes {
		b.Run(model.name, func(b *testing.B) {
			m := newBenchModel(b, model, 512, context)
			for _, c := range []struct{ decodes, chunk int }{
				{64, 0}, {64, 128}, {64, 192}, {64, 320}, {128, 0}, {128, 128}, {128, 256}, {256, 0}, {256, 256}, {256, 512}, {256, 768}, {0, 512}, {0, 1024},
			} {
				b.Run(fmt.Sprintf("%d+%d", c.decodes, c.chunk), func(b *testing.B) {
					batch, sample := m.mixed(c.decodes, context, c.chunk)
					m.run(b, batch, sample, 6)
					m.report(b, batch, sample)
				})
			}
		})
	}
}

// mixed is n decodes, and a chunk of a prompt from its first token.
func (m *benchModel) mixed(n, context, chunk int) (*kernels.Batch, *kernels.SampleBatch) {
	batch, sample := m.spans(n, context, 1)
	if chunk > 0 {
		for i := range chunk {
			batch.Tokens = append(batch.Tokens, int32(i*104729%m.shape.Vocab))
		}
		end := int32(len(batch.Tokens))
		batch.Rows = append(batch.Rows, int32(n))
		batch.QueryStart = append(batch.QueryStart, end)
		batch.SeqLens = append(batch.SeqLens, int32(chunk))
		batch.LogitRows = append(batch.LogitRows, end-1)
		sample.Index = append(sample.Index, int32(n))
		sample.Rows = append(sample.Rows, int32(n))
		sample.Positions = append(sample.Positions, int32(chunk))
	}
	return batch, sample
}

// BenchmarkPrefill is a step of prompts from their first token.
func BenchmarkPrefill(b *testing.B) {
	for _, model := range trueShapes {
		b.Run(model.name, func(b *testing.B) {
			m := newBenchModel(b, model, 8, 8192)
			for _, c := range []struct{ seqs, query int }{{1, 128}, {1, 1024}, {8, 1024}, {1, 8192}} {
				b.Run(fmt.Sprintf("%dx%d", c.seqs, c.query), func(b *testing.B) {
					batch, sample := m.spans(c.seqs, 0, c.query)
					m.run(b, batch, sample, 2)
					wall := m.report(b, batch, sample)
					b.ReportMetric(float64(c.seqs*c.query)/wall.Seconds(), "tok/s")
				})
			}
		})
	}
}

// BenchmarkDrawn is a decode step of the 0.5B, of which the sampler is the greatest part, by what is wanted of the logits.
func BenchmarkDrawn(b *testing.B) {
	const context = 1183
	model := trueShapes[0]
	for _, c := range []struct {
		name     string
		sampling kernels.Sampling
	}{
		{"greedy", kernels.Sampling{Logprobs: -1}},
		{"temperature", kernels.Sampling{Temperature: 0.8, Logprobs: -1}},
		{"min_p", kernels.Sampling{Temperature: 0.8, MinP: 0.05, Logprobs: -1}},
		{"top_p", kernels.Sampling{Temperature: 0.8, TopP: 0.9, Logprobs: -1}},
		{"top_k", kernels.Sampling{Temperature: 0.7, TopP: 0.8, TopK: 20, Logprobs: -1}}, // Qwen2.5's generation_config.json
		{"top_k_2000", kernels.Sampling{Temperature: 0.7, TopP: 0.8, TopK: 2000, Logprobs: -1}},
		{"penalties", kernels.Sampling{Temperature: 0.7, TopP: 0.8, TopK: 20, RepetitionPenalty: 1.05, Logprobs: -1}},
		{"logprobs", kernels.Sampling{Logprobs: 5}},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := newBenchModel(b, model, 256, context)
			m.resetRowsTo(256, ceilDiv(context+512, 16), c.sampling)
			for _, n := range []int{1, 16, 64, 128, 256} {
				b.Run(fmt.Sprint(n), func(b *testing.B) {
					batch, sample := m.spans(n, context, 1)
					m.run(b, batch, sample, 6) // captures the graph
					m.report(b, batch, sample)
				})
			}
		})
	}
}

// BenchmarkCached is a step of short chunks whose context is in the prefix cache.
func BenchmarkCached(b *testing.B) {
	for _, model := range trueShapes {
		b.Run(model.name, func(b *testing.B) {
			m := newBenchModel(b, model, 8, 30016)
			for _, c := range []struct{ seqs, context, query int }{
				{1, 0, 16}, {1, 1008, 16}, {1, 4080, 16}, {1, 29984, 16}, {1, 29984, 64}, {1, 29744, 256}, {1, 29488, 512}, {8, 4080, 16},
			} {
				b.Run(fmt.Sprintf("%dx%d after %d", c.seqs, c.query, c.context), func(b *testing.B) {
					batch, sample := m.spans(c.seqs, c.context, c.query)
					m.run(b, batch, sample, 2)
					m.report(b, batch, sample)
				})
			}
		})
	}
}

// BenchmarkProfile prints the time of each operation of a decode step of the 7B,
// summed over layers.
func BenchmarkProfile(b *testing.B) {
	for _, model := range trueShapes {
		for _, n := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/%d", model.name, n), func(b *testing.B) {
				m := newBenchModel(b, model, 64, 1183)
				batch, sample := m.spans(n, 1183, 1)
				m.run(b, batch, sample, 3)
				total := map[kernels.Op]time.Duration{}
				m.SetProfiler(func(r kernels.OpRecord) { total[r.Op] += r.Duration })
				for range b.N {
					m.run(b, batch, sample, 1)
				}
				m.SetProfiler(nil)
				for op, d := range total {
					b.ReportMetric(float64(d.Microseconds())/float64(b.N), string(op)+"-µs")
				}
			})
		}
	}
}

// BenchmarkSwap copies random blocks of the 7B each way.
func BenchmarkSwap(b *testing.B) {
	paths(b)
	m := newBackend(b, Config{})
	b.Cleanup(func() { _ = m.Close() })
	require.NoError(b, m.Setup(trueShapes[2].full(), smallLimits, smallLimits))
	const blocks = 1024
	require.NoError(b, m.ResizePool(blocks+1, blocks))
	copies := make([]kernels.BlockCopy, blocks/2)
	for i := range copies {
		copies[i] = kernels.BlockCopy{Src: int32(1 + i*37%(blocks-1)), Dst: int32(1 + i*53%(blocks-1))}
	}
	for name, swap := range map[string]func([]kernels.BlockCopy) kernels.Ticket{"out": m.SwapOut, "in": m.SwapIn} {
		b.Run(name, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			require.NoError(b, m.device.Bind())
			start := time.Now()
			for range b.N {
				_, _, err := m.SwapDone(swap(copies), true)
				require.NoError(b, err)
			}
			bytes := float64(b.N) * float64(len(copies)) * float64(m.kv.BlockBytes())
			b.ReportMetric(bytes/time.Since(start).Seconds()/1e9, "GB/s")
		})
	}
}
