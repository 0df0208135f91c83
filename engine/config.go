package engine

import (
	"io"
	"log/slog"
	"time"
)

// Config configures an Engine. The zero value of a field means its documented
// default; where a default is not wanted, a negative number turns it off. New
// reports every problem at once.
type Config struct {
	// Model is a directory with config.json and safetensors; "demo", the model
	// inside the binary; or, with LoadFormat "dummy", a built-in shape such as
	// "qwen2.5-0.5b".
	Model string
	// LoadFormat is "auto" (the default) or "safetensors", which are the same, or "dummy" (random weights
	// from config.json or a built-in shape).
	LoadFormat string
	// SampleVocab is the number of ids that the tokenizer knows; ids beyond are
	// never drawn. 0 = all rows of the head.
	SampleVocab int

	// Device is "auto" (default), "cpu" or "cuda".
	Device string
	// Threads is the number of CPU worker threads; 0 = the cores that are
	// really there (affinity, cgroup).
	Threads int
	// CPUISA forces a code path ("scalar", "avx2", "avx512", "avx512bf16"); ""
	// chooses.
	CPUISA string
	// Quantization is "none" (default: bfloat16 weights) or "int8": the linear
	// weights and a tied embedding become int8 as they load. CPU only.
	Quantization string

	// GPUMemoryUtilization is the share of the device's memory that the engine
	// may use, 0–1; default 0.9. On the CPU the device's size is MemoryLimit.
	GPUMemoryUtilization float64
	// MemoryLimit is the size in bytes that the device is taken to have. On the
	// CPU the default is half of the memory available (cgroup-aware).
	MemoryLimit int64
	// KVCacheMemoryBytes is the size of the KV pool; it wins over
	// GPUMemoryUtilization. 0 = computed.
	KVCacheMemoryBytes int64
	// NumGPUBlocksOverride is the number of KV blocks; it wins over both.
	NumGPUBlocksOverride int
	// SwapSpace is the host KV pool in bytes; default 4 GiB, negative = none.
	SwapSpace int64
	// BlockSize is the tokens of a KV block: 16 (default), 32 or 64.
	BlockSize int

	// MaxNumSeqs is the most sequences that run at once; default 256.
	MaxNumSeqs int
	// MaxNumBatchedTokens is the token budget of a step; default 8192 on CUDA,
	// 2048 on the CPU.
	MaxNumBatchedTokens int
	// MaxNumMixedTokens is the token budget of a step in which sequences decode,
	// them included; prompts have as many tokens of it as there are decodes, at
	// least. 0 = no bound but MaxNumBatchedTokens.
	MaxNumMixedTokens int
	// MaxModelLen is the most tokens of a sequence, prompt and output; default:
	// the smaller of the model's and the pool's.
	MaxModelLen int
	// MaxQueuedReqs is the most requests that wait; default 1024.
	MaxQueuedReqs int
	// MaxQueuedTokens is the most prompt tokens that wait; 0 = no bound.
	MaxQueuedTokens int
	// LongPrefillTokenThreshold is the most tokens that one sequence's chunk
	// takes of a step; 0 = no bound.
	LongPrefillTokenThreshold int
	// TargetITL is the inter-token latency to keep to: prefill chunks are cut so
	// that the predicted time of a step with decodes stays below. 0 = no target.
	TargetITL time.Duration

	// PreemptionMode is "auto" (default: whichever costs less by measured
	// rates), "swap" or "recompute".
	PreemptionMode string
	// Watermark is the share of the KV pool that stays free when a sequence is
	// admitted beside others; default 0.01, negative = none.
	Watermark float64

	// DisablePrefixCaching turns prefix sharing off.
	DisablePrefixCaching bool
	// BatchInvariant makes outputs bit-equal whatever the batch, chunking, cache
	// state and preemption.
	BatchInvariant bool
	// SchedulingPolicy is "fcfs" (default) or "priority".
	SchedulingPolicy string
	// EnforceEager turns CUDA graphs off. Without effect on the CPU.
	EnforceEager bool
	// CUDAGraphSizes are the batch sizes that decode steps are captured for,
	// ascending; nil = chosen. A step takes the next larger one.
	CUDAGraphSizes []int
	// AsyncScheduling is "auto" (default: on where it pays), "on" or "off": the
	// overlapped loop, which schedules a step ahead of the last one's results.
	AsyncScheduling string
	// MaxLogprobs is the most top_logprobs a request may ask for; default 20, negative = none.
	MaxLogprobs int

	// Trace receives the decision trace, as JSON lines: every input of the
	// scheduler and every step. nil = none. A write that fails ends the trace and
	// nothing else.
	Trace io.Writer
	// Progress is called while weights load, with bytes done and in all.
	Progress func(stage string, done, total int64)
	// Cancel, once closed, makes New give up loading weights, with ErrClosed; nil = never.
	Cancel <-chan struct{}
	// Log receives what a person should know; nil = slog.Default().
	Log *slog.Logger
}
