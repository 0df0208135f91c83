package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/internal/invariant"
)

const tinyConfig = `{
	"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
	"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
	"vocab_size": 300, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000, "tie_word_embeddings": true,
	"eos_token_id": 299, "torch_dtype": "bfloat16"
}`

// tinyModel is a directory with a configuration and no weights.
func tinyModel(t *testing.T) string {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(tinyConfig), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "generation_config.json"), []byte(`{"eos_token_id": [298, 299], "temperature": 0.5}`), 0o644))
	return dir
}

func openTiny(t *testing.T, change func(*Config)) *Engine {
	c := quiet(Config{LoadFormat: "dummy", Device: "cpu", Threads: 2, BatchInvariant: true, NumGPUBlocksOverride: 40, MaxNumSeqs: 6, MemoryLimit: 1 << 30})
	c.Model = tinyModel(t)
	change(&c)
	e, err := New(c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

// tinyRequests share prefixes and have odd lengths, some have penalties.
func tinyRequests() []Request {
	var requests []Request
	for i := range 12 {
		ids := make([]int32, 1+17*i%90)
		for j := range ids {
			ids[j] = int32((7*j + j*j + 100*(i%2)*(j/40)) % 290)
		}
		r := Request{Prompt: ids, MaxTokens: 30, IgnoreEOS: true, Sampling: Sampling{Logprobs: 0}}
		if i%4 == 3 {
			r.Sampling.FrequencyPenalty, r.Sampling.RepetitionPenalty = 0.3, 1.1
		}
		requests = append(requests, r)
	}
	return requests
}

// submitAll submits the requests between two steps, so that they come all at once.
func submitAll(t *testing.T, e *Engine, requests []Request) []*Stream {
	var streams []*Stream
	var failed error
	require.NoError(t, e.call(context.Background(), func(*loop) {
		for _, r := range requests {
			s, err := e.Submit(context.Background(), r)
			streams, failed = append(streams, s), errors.Join(failed, err)
		}
	}))
	require.NoError(t, failed)
	return streams
}

// generate runs the requests together and prints every token with its exact log
// probability.
func generate(t *testing.T, e *Engine, requests []Request) []string {
	var out []string
	for _, s := range submitAll(t, e, requests) {
		out = append(out, answer(t, s))
	}
	return out
}

// answer is the rest of a stream, every token with its exact log probability.
func answer(t *testing.T, s *Stream) string {
	var text strings.Builder
	for {
		ev, ok := s.Next(context.Background())
		if !ok {
			return text.String()
		}
		require.NoError(t, ev.Err)
		fmt.Fprintf(&text, "%d:%08x ", ev.Token, math.Float32bits(ev.Logprob))
	}
}

// TestGreedyEqualsSolo runs a real model on the CPU: with --batch-invariant
// every request's tokens and log probabilities are bit-equal to those of a run
// of its own, whatever the prefix cache, chunking, loop, block size, pool and
// threads.
func TestGreedyEqualsSolo(t *testing.T) { testGreedyEqualsSolo(t, openTiny, 6144) }

// testGreedyEqualsSolo runs a model whose blocks have so many bytes.
func testGreedyEqualsSolo(t *testing.T, open func(*testing.T, func(*Config)) *Engine, blockBytes int64) {
	requests := tinyRequests()
	solo := open(t, func(c *Config) { c.MaxNumSeqs, c.DisablePrefixCaching = 1, true })
	var want []string
	for i := range requests {
		want = append(want, generate(t, solo, requests[i:i+1])...)
	}
	distinct := map[string]bool{}
	for _, text := range want {
		distinct[text] = true
	}
	require.Greater(t, len(distinct), 6, "the model answers the same to everything")
	for name, change := range map[string]func(*Config){
		"together":         func(*Config) {},
		"overlapped":       func(c *Config) { c.AsyncScheduling = "on" },
		"no prefix cache":  func(c *Config) { c.DisablePrefixCaching = true },
		"chunks of 7":      func(c *Config) { c.MaxNumBatchedTokens = 7 },
		"tiny pool":        func(c *Config) { c.NumGPUBlocksOverride = 8 },
		"swap":             func(c *Config) { c.NumGPUBlocksOverride, c.PreemptionMode = 8, "swap" },
		"small swap pool":  func(c *Config) { c.NumGPUBlocksOverride, c.PreemptionMode, c.SwapSpace = 8, "swap", 3*blockBytes },
		"recompute":        func(c *Config) { c.NumGPUBlocksOverride, c.PreemptionMode = 8, "recompute" },
		"tiny, overlapped": func(c *Config) { c.NumGPUBlocksOverride, c.AsyncScheduling, c.MaxNumBatchedTokens = 8, "on", 11 },
		"blocks of 32":     func(c *Config) { c.BlockSize = 32 },
		"blocks of 64":     func(c *Config) { c.BlockSize = 64 },
		"one thread":       func(c *Config) { c.Threads = 1 },
		"graphs off":       func(c *Config) { c.EnforceEager = true },
	} {
		t.Run(name, func(t *testing.T) {
			e := open(t, change)
			require.Equal(t, want, generate(t, e, requests), "cold")
			require.Equal(t, want, generate(t, e, requests), "warm")
			st := e.Stats()
			if !e.cfg.DisablePrefixCaching {
				require.Positive(t, st.PrefixHits)
			}
			if e.info.NumBlocks == 8 {
				require.Positive(t, st.PreemptionsRecompute+st.PreemptionsSwap)
			}
			require.Zero(t, st.BlocksUsed)
			t.Logf("invariants %t: %d steps, %d hits, %d preemptions", invariant.Enabled, st.Steps, st.PrefixHits, st.PreemptionsRecompute)
		})
	}
}

// TestNotNumbers: a request whose attention reads a NaN fails alone. The others
// answer as if nothing had happened, and so does a later request of its prompt, which
// would find NaNs in the prefix cache.
func TestNotNumbers(t *testing.T) {
	testNotNumbers(t, openTiny(t, func(c *Config) { c.NumGPUBlocksOverride = 400 }))
}

func testNotNumbers(t *testing.T, e *Engine) {
	requests := tinyRequests()
	for i := range requests {
		requests[i].ID, requests[i].MaxTokens = fmt.Sprint(i), 400
	}
	requests = requests[:6] // all at once
	const victim = 5
	want := generate(t, e, requests)
	again := slices.Clone(requests)
	for i := range again {
		again[i].CacheSalt = "again" // with blocks of their own
	}
	var streams []*Stream
	var err error
	require.NoError(t, e.alone(t.Context(), func(l *loop) (spoiled bool) { // after each step
		for _, r := range again[len(streams):] {
			s, failed := e.Submit(t.Context(), r)
			streams, err = append(streams, s), errors.Join(err, failed)
		}
		for s, q := range l.requests {
			if q.id == fmt.Sprint(victim) && q.outputs() == 20 { // in the midst of its output
				// The prompt's last full block, which no other has.
				l.backend.WriteBlock(int32(s.Table.IDs()[4]), slices.Repeat([]uint16{0x7fc0}, l.backend.KV().BlockElems()))
				spoiled = true
			}
		}
		return spoiled || err != nil
	}))
	require.NoError(t, err)
	for i, s := range streams {
		if i == victim {
			_, last := readAll(t, s)
			require.Equal(t, FinishError, last.Finish)
			require.ErrorIs(t, last.Err, ErrNotNumbers)
			continue
		}
		require.Equal(t, want[i], answer(t, s), "request %d", i)
	}
	requests[victim].CacheSalt = "again"
	require.Equal(t, want[victim:], generate(t, e, requests[victim:]))
	require.Zero(t, e.Stats().BlocksUsed)
}

// TestChunkNotNumbers: a NaN in the midst of a prompt that is computed in chunks fails
// that request, and a later one of the same prompt does not find what it left.
func TestChunkNotNumbers(t *testing.T) {
	testChunkNotNumbers(t, openTiny(t, func(c *Config) { c.LongPrefillTokenThreshold = 24 }))
}

func testChunkNotNumbers(t *testing.T, e *Engine) {
	r := Request{Prompt: make([]int32, 300), MaxTokens: 20, IgnoreEOS: true, Sampling: Sampling{Logprobs: 0}}
	for i := range r.Prompt {
		r.Prompt[i] = int32(i * i % 290)
	}
	want := generate(t, e, []Request{r})
	r.CacheSalt = "again" // with blocks of its own
	var first, second *Stream
	var err error
	spoiled := false
	require.NoError(t, e.alone(t.Context(), func(l *loop) bool { // after each step
		if first == nil {
			first, err = e.Submit(t.Context(), r)
			return err != nil
		}
		computed := len(r.Prompt)
		for s := range l.requests { // none: it has ended
			if computed = s.NumComputed; computed == 24 { // its second block is filled by half
				l.backend.WriteBlock(int32(s.Table.IDs()[1]), slices.Repeat([]uint16{0x7fc0}, l.backend.KV().BlockElems()))
				spoiled = true
			}
		}
		if !spoiled || computed < 96 {
			return false
		}
		second, err = e.Submit(t.Context(), r)
		return true
	}))
	require.NoError(t, err)
	_, last := readAll(t, first)
	require.ErrorIs(t, last.Err, ErrNotNumbers)
	require.Equal(t, want, []string{answer(t, second)})
	require.Zero(t, e.Stats().BlocksUsed)
}

// TestLogitsOfAModel: teacher-forced logits do not depend on the chunks and
// agree with what a request draws.
func TestLogitsOfAModel(t *testing.T) {
	ids := tinyRequests()[5].Prompt
	whole := openTiny(t, func(c *Config) { c.MaxNumSeqs = 100 })
	chunked := openTiny(t, func(c *Config) { c.MaxNumBatchedTokens = 9 })
	a, err := whole.Logits(context.Background(), ids)
	require.NoError(t, err)
	b, err := chunked.Logits(context.Background(), ids)
	require.NoError(t, err)
	require.Equal(t, a, b)
	best := 0
	for id, z := range a[len(ids)-1] {
		if z > a[len(ids)-1][best] {
			best = id
		}
	}
	s, err := whole.Submit(context.Background(), Request{Prompt: ids, MaxTokens: 1, Sampling: Sampling{Logprobs: -1}})
	require.NoError(t, err)
	got, _ := readAll(t, s)
	require.Equal(t, []int32{int32(best)}, got)
}

func TestInfoOfAModel(t *testing.T) {
	e := openTiny(t, func(c *Config) { c.SampleVocab = 290 })
	i := e.Info()
	require.Equal(t, []int32{298, 299}, i.EOSIDs, "generation_config.json wins")
	require.Equal(t, 0.5, *i.Generation.Temperature)
	require.Equal(t, 512, i.MaxModelLen)
	require.Equal(t, 40, i.NumBlocks)
	require.Equal(t, 300, i.Vocab)
	require.Equal(t, 290, i.SampleVocab)
	require.Equal(t, "cpu", i.Device.Backend)
	require.Positive(t, i.StreamedWeightBytes)
	require.Equal(t, i.WeightBytes, i.StreamedWeightBytes, "the head is the embedding")
	require.NotEmpty(t, e.Settings())
	for _, s := range e.Settings() {
		require.NotEmpty(t, s.Value, s.Name)
		require.NotEmpty(t, s.Reason, s.Name)
	}
	var sum int64
	for _, l := range e.Ledger() {
		sum += l.Bytes
	}
	require.EqualValues(t, 1<<30, sum, "the ledger adds up to the limit")
}

// TestStreamedWeights: a decode step reads all weights but an embedding that is not the
// head, which has two bytes a value whatever the others have; a plan says the same.
func TestStreamedWeights(t *testing.T) {
	for _, quantization := range []string{"none", "int8"} {
		e := openTiny(t, func(c *Config) {
			c.Quantization = quantization
			untied := strings.Replace(tinyConfig, `"tie_word_embeddings": true`, `"tie_word_embeddings": false`, 1)
			require.NoError(t, os.WriteFile(filepath.Join(c.Model, "config.json"), []byte(untied), 0o644))
		})
		require.EqualValues(t, 300*64*2, e.Info().WeightBytes-e.Info().StreamedWeightBytes, quantization)
		p, err := NewPlan(e.cfg)
		require.NoError(t, err)
		require.EqualValues(t, 300*64*2, p.Info.WeightBytes-p.Info.StreamedWeightBytes, quantization)
	}
}

// TestNewRefuses: each class of failure can be told from the others, and the
// message says what to change.
func TestNewRefuses(t *testing.T) {
	dir := tinyModel(t)
	for name, c := range map[string]struct {
		config Config
		want   error
		says   string
	}{
		"flags":       {Config{BlockSize: 17, MaxNumSeqs: -1}, ErrConfig, "--max-num-seqs -1"},
		"no model":    {Config{Model: filepath.Join(dir, "none")}, ErrModel, "none"},
		"no weights":  {Config{Model: dir}, ErrModel, "safetensors"},
		"tokenizer":   {Config{Model: dir, LoadFormat: "dummy", SampleVocab: 301}, ErrModel, "does not belong to it: it has 301 ids"},
		"memory":      {Config{Model: dir, LoadFormat: "dummy", MemoryLimit: 1 << 16}, ErrMemory, "--memory-limit to at least"},
		"72B":         {Config{Model: "qwen2.5-72b", LoadFormat: "dummy", MemoryLimit: 80 << 30}, ErrMemory, "weights 135"},
		"too long":    {Config{Model: dir, LoadFormat: "dummy", MaxModelLen: 513, MemoryLimit: 1 << 30}, ErrConfig, "end at 512"},
		"graph sizes": {Config{Model: dir, LoadFormat: "dummy", CUDAGraphSizes: []int{8, 0}}, ErrConfig, "--cuda-graph-sizes [8 0]"},
		"pool bytes":  {Config{Model: dir, LoadFormat: "dummy", KVCacheMemoryBytes: 100, MemoryLimit: 1 << 30}, ErrConfig, "--kv-cache-memory-bytes 100"},
		"many blocks": {Config{Model: dir, LoadFormat: "dummy", NumGPUBlocksOverride: 1 << 20, MemoryLimit: 1 << 30}, ErrMemory, "KV blocks"},
	} {
		t.Run(name, func(t *testing.T) {
			c.config.Log = quiet(Config{}).Log
			e, err := New(c.config)
			require.Nil(t, e)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.says)
			for _, other := range []error{ErrConfig, ErrModel, ErrMemory, ErrDevice} {
				require.Equal(t, other == c.want, errors.Is(err, other), "%v", other)
			}
		})
	}
}
