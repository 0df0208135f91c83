package cpu

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// qwen05 is Qwen2.5-0.5B.
func qwen05() kernels.Shape {
	s := kernels.Shape{
		Layers: 24, Hidden: 896, Intermediate: 4864, Heads: 14, KVHeads: 2, HeadDim: 64,
		Vocab: 151936, RMSEps: 1e-6, RopeScale: 1,
	}
	for i := range s.HeadDim / 2 {
		s.InvFreq = append(s.InvFreq, float32(math.Pow(1e6, -2*float64(i)/float64(s.HeadDim))))
	}
	return s
}

// bench is a model of random weights, whose size no cache holds.
type bench struct {
	*Backend
	embedding, norm        kernels.Weight
	qkv, out, gateUp, down []kernels.Weight
}

func newBench(b *testing.B, cfg Config, tokens int) *bench {
	s := qwen05()
	m := &bench{Backend: newBackend(b, cfg)}
	b.Cleanup(func() { require.NoError(b, m.Close()) })
	limits := kernels.Limits{
		MaxBatchedTokens: tokens, MaxSeqs: 16, MaxModelLen: 1024, MaxLogitRows: 16, BlockSize: 16, MaxTopLogprobs: 1,
	}
	require.NoError(b, m.Setup(s, limits, limits))
	require.NoError(b, m.ResizePool(1+16*64, 0))
	tensor := func(shape ...int) kernels.HostTensor {
		return kernels.HostTensor{Name: "dummy", Shape: shape, Seed: 1, Scale: 0.02}
	}
	load := func(kind kernels.LinearKind, parts ...kernels.HostTensor) kernels.Weight {
		w, err := m.LoadLinear(kernels.LinearSpec{Kind: kind, Parts: parts})
		require.NoError(b, err)
		return w
	}
	var err error
	m.embedding, err = m.LoadEmbedding(tensor(s.Vocab, s.Hidden), true)
	require.NoError(b, err)
	m.norm, err = m.LoadNorm(kernels.HostTensor{Name: "norm", Shape: []int{s.Hidden}, Offset: 1})
	require.NoError(b, err)
	for range s.Layers {
		q, kv := tensor(s.Heads*s.HeadDim, s.Hidden), tensor(s.KVHeads*s.HeadDim, s.Hidden)
		ffn := tensor(s.Intermediate, s.Hidden)
		m.qkv = append(m.qkv, load(kernels.LinearQKV, q, kv, kv))
		m.out = append(m.out, load(kernels.LinearPlain, tensor(s.Hidden, s.Heads*s.HeadDim)))
		m.gateUp = append(m.gateUp, load(kernels.LinearGateUp, ffn, ffn))
		m.down = append(m.down, load(kernels.LinearDown, tensor(s.Hidden, s.Intermediate)))
	}
	return m
}

func (m *bench) forward() {
	m.Embed(m.embedding)
	for i := range m.qkv {
		m.RMSNorm(m.norm)
		m.QKV(i, m.qkv[i])
		if i+1 == len(m.qkv) {
			m.KeepLogitRows()
		}
		m.PagedAttention(i)
		m.Linear(m.out[i], kernels.Attn)
		m.RMSNorm(m.norm)
		m.GateUp(m.gateUp[i])
		m.Linear(m.down[i], kernels.MLP)
	}
	m.Head(m.norm, m.embedding)
}

// batch is seqs sequences of query tokens each, after context tokens.
func (m *bench) batch(seqs, query, context int, sampling kernels.Sampling) (*kernels.Batch, *kernels.SampleBatch) {
	batch, sample := &kernels.Batch{QueryStart: []int32{0}}, &kernels.SampleBatch{}
	for i := range seqs {
		table := make([]int32, (context+query+15)/16)
		for j := range table {
			table[j] = int32(1 + i*64 + j)
		}
		row := int32(i)
		m.UpdateRows([]kernels.RowUpdate{{Row: row, Reset: true, Sampling: sampling, Blocks: table}})
		for t := range query {
			batch.Tokens = append(batch.Tokens, int32(1000*i+t))
		}
		batch.Rows = append(batch.Rows, row)
		batch.QueryStart = append(batch.QueryStart, int32(len(batch.Tokens)))
		batch.SeqLens = append(batch.SeqLens, int32(context+query))
		batch.LogitRows = append(batch.LogitRows, int32(len(batch.Tokens)-1))
		sample.Index, sample.Rows = append(sample.Index, row), append(sample.Rows, row)
		sample.Positions = append(sample.Positions, int32(context+query))
	}
	if query == 1 {
		batch.NumDecodes = seqs
	}
	return batch, sample
}

// BenchmarkStep runs whole steps of Qwen2.5-0.5B and prints the speed of each
// operation: GB/s of its bytes for decodes, GFLOP/s for prefill, beside probes of
// the machine in the same run.
func BenchmarkStep(b *testing.B) {
	for _, path := range append(paths()[1:], "uncoded", "int8") {
		b.Run(path, func(b *testing.B) {
			cfg := Config{ISA: path}
			switch path {
			case "int8":
				cfg = Config{Int8: true}
			case "uncoded":
				cfg = Config{Uncoded: true}
			}
			benchmarkSteps(b, cfg)
		})
	}
}

func benchmarkSteps(b *testing.B, cfg Config) {
	m := newBench(b, cfg, 512)
	for _, c := range []struct {
		name                 string
		seqs, query, context int
	}{{"decode_1", 1, 1, 200}, {"decode_8", 8, 1, 200}, {"decode_16", 16, 1, 200}, {"prefill_512", 1, 512, 0}} {
		b.Run(c.name, func(b *testing.B) {
			batch, sample := m.batch(c.seqs, c.query, c.context, kernels.Sampling{Logprobs: -1})
			var bytes, flops, total int64
			spent, perOp := map[kernels.Op]float64{}, map[kernels.Op]float64{}
			m.SetProfiler(func(r kernels.OpRecord) {
				spent[r.Op] += r.Duration.Seconds()
				if c.query > 1 {
					perOp[r.Op] += float64(r.FLOPs)
				} else {
					perOp[r.Op] += float64(r.Bytes)
				}
				bytes, flops, total = bytes+r.Bytes, flops+r.FLOPs, total+r.Duration.Nanoseconds()
			})
			defer m.SetProfiler(nil)
			for b.Loop() {
				m.Launch(batch, m.forward)
				_, err := m.Wait(m.Sample(sample))
				require.NoError(b, err)
			}
			peak, unit := ProbeReadBandwidth(0), "GB/s"
			rate := float64(bytes) / float64(total) * 1e9
			if c.query > 1 {
				peak, unit = ProbeFMAPeak(0), "GFLOP/s"
				rate = float64(flops) / float64(total) * 1e9
			}
			for _, op := range []kernels.Op{kernels.OpQKV, kernels.OpAttention, kernels.OpLinear, kernels.OpGateUp, kernels.OpHead} {
				b.ReportMetric(perOp[op]/spent[op]/1e9, fmt.Sprintf("%s_%s", op, unit))
			}
			for _, op := range []kernels.Op{kernels.OpEmbed, kernels.OpRMSNorm, kernels.OpAttention, kernels.OpSample} {
				b.ReportMetric(100*spent[op]/float64(total)*1e9, fmt.Sprintf("%s_%%time", op))
			}
			b.ReportMetric(peak/1e9, "probe_"+unit)
			b.ReportMetric(100*rate/peak, "%peak")
		})
	}
}

// BenchmarkDrawn prints what the sampler takes of decode steps of Qwen2.5-0.5B, by what is wanted of the logits: milliseconds, and
// its share of the step. A row is one core's.
func BenchmarkDrawn(b *testing.B) {
	for _, path := range paths()[1:] {
		b.Run(path, func(b *testing.B) {
			m := newBench(b, Config{ISA: path}, 512)
			for _, c := range []struct {
				name     string
				sampling kernels.Sampling
			}{
				{"greedy", kernels.Sampling{Logprobs: -1}},
				{"temperature", kernels.Sampling{Temperature: 0.8, Seed: 7, Logprobs: -1}},
				{"top_p", kernels.Sampling{Temperature: 0.8, TopP: 0.9, Seed: 7, Logprobs: -1}},
				{"top_k", kernels.Sampling{Temperature: 0.7, TopP: 0.8, TopK: 20, Seed: 7, Logprobs: -1}}, // Qwen2.5's generation_config.json
			} {
				for _, seqs := range []int{1, 8} {
					b.Run(fmt.Sprintf("%s_%d", c.name, seqs), func(b *testing.B) {
						batch, sample := m.batch(seqs, 1, 200, c.sampling)
						var own, all float64
						m.SetProfiler(func(r kernels.OpRecord) {
							all += r.Duration.Seconds()
							if r.Op == kernels.OpSample {
								own += r.Duration.Seconds()
							}
						})
						defer m.SetProfiler(nil)
						for b.Loop() {
							m.Launch(batch, m.forward)
							_, err := m.Wait(m.Sample(sample))
							require.NoError(b, err)
							for i := range sample.Positions { // another draw
								sample.Positions[i]++
							}
						}
						b.ReportMetric(1e3*own/float64(b.N), "sample_ms")
						b.ReportMetric(100*own/all, "sample_%time")
					})
				}
			}
		})
	}
}
