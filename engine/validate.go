package engine

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// The defaults of Config.
const (
	defaultUtilization    = 0.9
	defaultSwapSpace      = 4 << 30
	defaultBlockSize      = 16
	defaultMaxNumSeqs     = 256
	defaultBatchedCUDA    = 8192
	defaultBatchedCPU     = 2048
	defaultMaxQueued      = 1024
	defaultMaxLogprobs    = 20
	maxMaxNumSeqs         = 1 << 14
	maxMaxBatchedTokens   = 1 << 20
	maxMaxQueued          = 1 << 20
	maxNumBlocks          = 1 << 30
	deviceCPU, deviceCUDA = "cpu", "cuda"
	quantizationInt8      = "int8"
)

// cpuISAs are the code paths that --cpu-isa can force.
var cpuISAs = []string{"avx512bf16", "avx512", "avx2", "scalar"}

// validate fills in the defaults that do not depend on the device, and lists
// every problem.
func (c *Config) validate() error {
	var p problems
	p.check(c.Model != "", "model: name a directory with config.json, or with --load-format dummy a built-in shape")
	oneOf(&p, "load-format", &c.LoadFormat, "auto", "safetensors", "dummy")
	oneOf(&p, "device", &c.Device, "auto", deviceCPU, deviceCUDA)
	oneOf(&p, "scheduling-policy", &c.SchedulingPolicy, "fcfs", "priority")
	oneOf(&p, "preemption-mode", &c.PreemptionMode, "auto", "swap", "recompute")
	p.check(slices.IsSorted(c.CUDAGraphSizes) && (len(c.CUDAGraphSizes) == 0 || c.CUDAGraphSizes[0] > 0),
		"--cuda-graph-sizes %v: want batch sizes from 1 up, ascending", c.CUDAGraphSizes)
	oneOf(&p, "async-scheduling", &c.AsyncScheduling, "auto", "on", "off")
	p.check(c.CPUISA == "" || slices.Contains(cpuISAs, c.CPUISA), "--cpu-isa %q: want one of %s, or nothing for the fastest", c.CPUISA, strings.Join(cpuISAs, ", "))
	oneOf(&p, "quantization", &c.Quantization, "none", quantizationInt8)
	p.check(c.Quantization != quantizationInt8 || c.Device != deviceCUDA, "--quantization int8: the CPU alone has it; add --device cpu")
	p.check(c.SampleVocab >= 0, "tokenizer: it has %d ids, want 0 (all) or more", c.SampleVocab)
	p.check(c.Threads >= 0, "--threads %d: want 0 (all cores) or more", c.Threads)

	if c.GPUMemoryUtilization == 0 {
		c.GPUMemoryUtilization = defaultUtilization
	}
	p.check(c.GPUMemoryUtilization > 0 && c.GPUMemoryUtilization <= 1, "--gpu-memory-utilization %v: want more than 0 and at most 1", c.GPUMemoryUtilization)
	p.check(c.MemoryLimit >= 0, "--memory-limit %d: want 0 (default) or more bytes", c.MemoryLimit)
	p.check(c.KVCacheMemoryBytes >= 0, "--kv-cache-memory-bytes %d: want 0 (computed) or more", c.KVCacheMemoryBytes)
	inRange(&p, "num-gpu-blocks-override", &c.NumGPUBlocksOverride, 0, 0, maxNumBlocks)
	if c.SwapSpace == 0 {
		c.SwapSpace = defaultSwapSpace
	}
	if c.BlockSize == 0 {
		c.BlockSize = defaultBlockSize
	}
	p.check(c.BlockSize == 16 || c.BlockSize == 32 || c.BlockSize == 64, "--block-size %d: want 16, 32 or 64", c.BlockSize)

	inRange(&p, "max-num-seqs", &c.MaxNumSeqs, defaultMaxNumSeqs, 1, maxMaxNumSeqs)
	inRange(&p, "max-num-batched-tokens", &c.MaxNumBatchedTokens, 0, 0, maxMaxBatchedTokens)
	p.check(c.MaxNumBatchedTokens == 0 || c.MaxNumBatchedTokens >= c.MaxNumSeqs,
		"--max-num-batched-tokens %d is below --max-num-seqs %d: a step must have room for one token of every running sequence; raise the one or lower the other",
		c.MaxNumBatchedTokens, c.MaxNumSeqs)
	p.check(c.MaxNumMixedTokens >= 0 && c.MaxNumMixedTokens <= maxMaxBatchedTokens, "--max-num-mixed-tokens %d: want 1 to %d, or 0 (no bound)", c.MaxNumMixedTokens, maxMaxBatchedTokens)
	p.check(c.MaxModelLen == 0 || c.MaxModelLen >= 2, "--max-model-len %d: want at least 2 tokens, one of prompt and one of output", c.MaxModelLen)
	inRange(&p, "max-num-queued-reqs", &c.MaxQueuedReqs, defaultMaxQueued, 1, maxMaxQueued)
	p.check(c.MaxQueuedTokens >= 0, "--max-num-queued-tokens %d: want 0 (no bound) or more", c.MaxQueuedTokens)
	p.check(c.LongPrefillTokenThreshold >= 0, "--long-prefill-token-threshold %d: want 0 (no bound) or more", c.LongPrefillTokenThreshold)
	p.check(c.TargetITL >= 0, "--target-itl-ms %g: want 0 (no target) or more", float64(c.TargetITL)/1e6)
	if c.Watermark == 0 {
		c.Watermark = scheduler.DefaultWatermark
	}
	p.check(c.Watermark < 1, "--watermark %g: want a share of the KV pool, 0 or more and below 1", c.Watermark)
	if c.MaxLogprobs >= 0 { // else none
		inRange(&p, "max-logprobs", &c.MaxLogprobs, defaultMaxLogprobs, 1, MaxTopLogprobs)
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Progress == nil {
		c.Progress = func(string, int64, int64) {}
	}
	return p.orNil()
}

// maxLogprobs is MaxLogprobs, of which none may be spelled by any number below 0.
func (c *Config) maxLogprobs() int { return max(c.MaxLogprobs, 0) }

// resolve fills in the defaults that depend on the device.
func (c *Config) resolve(backend string) {
	if c.MaxNumBatchedTokens == 0 {
		c.MaxNumBatchedTokens = max(DefaultBatchedTokens(backend), c.MaxNumSeqs)
	}
}

// DefaultBatchedTokens is max_num_batched_tokens on a backend when nobody chooses it.
func DefaultBatchedTokens(backend string) int {
	if backend == deviceCUDA {
		return defaultBatchedCUDA
	}
	return defaultBatchedCPU
}

// oneOf wants one of the values; "" becomes the first.
func oneOf(p *problems, flag string, value *string, values ...string) {
	if *value == "" {
		*value = values[0]
	}
	if slices.Contains(values, *value) {
		return
	}
	last := len(values) - 1
	p.check(false, "--%s %q: want %s or %s", flag, *value, strings.Join(values[:last], ", "), values[last])
}

// inRange wants a value in [lo, hi]; 0 becomes missing.
func inRange(p *problems, flag string, value *int, missing, lo, hi int) {
	if *value == 0 {
		*value = missing
	}
	p.check(*value >= lo && *value <= hi, "--%s %d: want %d to %d", flag, *value, lo, hi)
}

// bytesText prints a size in the largest binary unit that keeps two digits.
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value, i := float64(n), 0
	for value >= 1024 && i < len(units)-1 {
		value /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.2f %s", value, units[i])
}
