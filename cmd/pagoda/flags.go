package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pagoda-engine/pagoda/engine"
)

// engineFlags are the flags of every command that starts an engine, under
// vLLM's names where vLLM has them.
type engineFlags struct {
	config engine.Config
	hub    hubFlags

	maxModelLen   string
	prefix        bool
	memoryLimit   size
	kvCacheMemory size
	swapSpace     size
	chatTemplate  string
	generation    string
	tokenizer     string
	quiet         bool
	parseSpecial  bool // special-token text in messages becomes control tokens
	idsOnly       bool // the command needs no tokenizer
	async         bool
	targetITL     float64 // milliseconds
	watermark     float64
	traceFile     string
}

// register adds the flags to a command, whose default of --max-num-seqs is
// given.
func (f *engineFlags) register(flags *pflag.FlagSet, maxNumSeqs int) {
	c := &f.config
	choose(flags, &c.LoadFormat, "load-format", "auto", "auto, safetensors: the model's; dummy: random weights of the true shape", "auto", "safetensors", "dummy")
	flags.StringVar(&f.tokenizer, "tokenizer", "", "directory with tokenizer.json (default: MODEL)")
	flags.StringVar(&f.chatTemplate, "chat-template", "", "file with a Jinja chat template, or a pipe such as <(…) (default: the model's)")
	choose(flags, &f.generation, "generation-config", "auto", "auto: sampling defaults of the model; vllm: OpenAI's defaults", "auto", "vllm")
	choose(flags, &c.Device, "device", "auto", "auto: the GPU where there is one", "auto", "cpu", "cuda")
	flags.IntVar(&c.Threads, "threads", 0, "CPU worker threads (0: the cores that are really there)")
	choose(flags, &c.CPUISA, "cpu-isa", "", "force a CPU code path (default: the fastest that the processor has)", "avx512bf16", "avx512", "avx2", "scalar")
	choose(flags, &c.Quantization, "quantization", "none", "none: bfloat16 weights; int8: made as the weights load, half the bytes (CPU only)", "none", "int8")
	flags.StringVar(&f.maxModelLen, "max-model-len", "auto", "most tokens of a sequence, such as 4096 or 8k; auto: what model and KV pool allow")
	flags.Float64Var(&c.GPUMemoryUtilization, "gpu-memory-utilization", 0.9, "share of the device's memory to use")
	flags.Var(&f.memoryLimit, "memory-limit", "size that the device is taken to have, such as 8GiB (CPU default: half of what is available)")
	flags.Var(&f.kvCacheMemory, "kv-cache-memory-bytes", "size of the KV pool in bytes or with a unit; wins over --gpu-memory-utilization")
	flags.IntVar(&c.NumGPUBlocksOverride, "num-gpu-blocks-override", 0, "number of KV blocks; wins over every size")
	f.swapSpace.unit = 1 << 30
	f.swapSpace.bytes = 4 << 30
	flags.Var(&f.swapSpace, "swap-space", "host KV pool in GiB or with a unit")
	flags.IntVar(&c.BlockSize, "block-size", 16, "tokens of a KV block: 16, 32 or 64")
	flags.IntVar(&c.MaxNumSeqs, "max-num-seqs", maxNumSeqs, "most sequences that run at once")
	flags.IntVar(&c.MaxNumBatchedTokens, "max-num-batched-tokens", 0, "token budget of a step (0: 2048 on the CPU, 8192 on CUDA)")
	flags.IntVar(&c.MaxNumMixedTokens, "max-num-mixed-tokens", 0, "token budget of a step in which sequences decode (0: no bound but max-num-batched-tokens)")
	flags.IntVar(&c.MaxQueuedReqs, "max-num-queued-reqs", 1024, "most requests that wait; more are refused with 503")
	flags.IntVar(&c.MaxQueuedTokens, "max-num-queued-tokens", 0, "most prompt tokens that wait; more are refused with 503 (0: no bound)")
	flags.IntVar(&c.LongPrefillTokenThreshold, "long-prefill-token-threshold", 0, "most tokens of one prompt in a step (0: no bound but the budget)")
	flags.Float64Var(&f.targetITL, "target-itl-ms", 0, "inter-token latency to keep to: prefill chunks are cut to what the step-time model predicts (0: no target)")
	choose(flags, &c.PreemptionMode, "preemption-mode", "auto", "what to do when blocks run short; auto: the cheaper by measured rates", "auto", "swap", "recompute")
	flags.Float64Var(&f.watermark, "watermark", 0.01, "share of the KV pool that stays free when a request is admitted beside others")
	flags.StringVar(&f.traceFile, "trace-file", "", "record every scheduling decision in FILE, for pagoda trace and pagoda simulate; it holds the prompts' token ids")
	flags.BoolVar(&f.prefix, "enable-prefix-caching", true, "share KV blocks between requests with equal prefixes")
	flags.BoolVar(&c.BatchInvariant, "batch-invariant", false, "bit-equal outputs whatever the batch, chunking and cache state")
	flags.BoolVar(&c.EnforceEager, "enforce-eager", false, "no CUDA graphs")
	flags.IntSliceVar(&c.CUDAGraphSizes, "cuda-graph-sizes", nil, "batch sizes that decode steps are captured for, ascending (default: chosen)")
	choose(flags, &c.SchedulingPolicy, "scheduling-policy", "fcfs", "fcfs: in order of arrival; priority: by each request's priority, lower first", "fcfs", "priority")
	flags.BoolVar(&f.async, "async-scheduling", false, "schedule a step ahead of the last one's results (default: where it pays)")
	flags.IntVar(&c.MaxLogprobs, "max-logprobs", 20, "most top_logprobs a request may ask for")
	f.hub.register(flags)
	registerConfig(flags)
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing but results")
}

// resolve turns the flags into the engine's configuration.
func (f *engineFlags) resolve(cmd *cobra.Command, model string) (engine.Config, error) {
	c := f.config
	c.Model = model
	c.MemoryLimit, c.KVCacheMemoryBytes = f.memoryLimit.bytes, f.kvCacheMemory.bytes
	if c.SwapSpace = f.swapSpace.bytes; c.SwapSpace == 0 {
		c.SwapSpace = -1
	}
	c.DisablePrefixCaching = !f.prefix
	c.TargetITL = time.Duration(f.targetITL * float64(time.Millisecond))
	if c.Watermark = f.watermark; c.Watermark == 0 {
		c.Watermark = -1
	}
	if cmd.Flags().Changed("async-scheduling") || cmd.Flags().Changed("no-async-scheduling") {
		c.AsyncScheduling = map[bool]string{true: "on", false: "off"}[f.async]
	}
	if f.maxModelLen != "auto" {
		length := size{}
		if err := length.Set(f.maxModelLen); err != nil || length.bytes <= 0 {
			return c, usageError{fmt.Errorf("--max-model-len %s: want auto or a number of tokens such as 4096 or 8k", f.maxModelLen)}
		}
		c.MaxModelLen = int(length.bytes)
	}
	// In Config zero means the default; a flag that was given as zero does not.
	for _, flag := range []struct {
		name  string
		value float64
	}{
		{"gpu-memory-utilization", c.GPUMemoryUtilization}, {"block-size", float64(c.BlockSize)},
		{"max-num-seqs", float64(c.MaxNumSeqs)}, {"max-num-queued-reqs", float64(c.MaxQueuedReqs)},
		{"memory-limit", float64(c.MemoryLimit)}, {"kv-cache-memory-bytes", float64(c.KVCacheMemoryBytes)},
	} {
		if flag.value <= 0 && (cmd.Flags().Changed(flag.name) || flag.value < 0) {
			return c, usageError{fmt.Errorf("--%s %v: must be greater than 0", flag.name, flag.value)}
		}
	}
	if f.watermark < 0 || f.targetITL < 0 {
		return c, usageError{fmt.Errorf("--watermark %g, --target-itl-ms %g: must not be negative", f.watermark, f.targetITL)}
	}
	if c.MaxLogprobs == 0 {
		c.MaxLogprobs = -1
	}
	return c, nil
}

// negation is the value of --no-NAME: it sets NAME to the opposite.
type negation struct{ of pflag.Value }

// Set implements pflag.Value.
func (n negation) Set(text string) error {
	value, err := strconv.ParseBool(text)
	if err != nil {
		return err
	}
	return n.of.Set(strconv.FormatBool(!value))
}

// String implements pflag.Value.
func (n negation) String() string { return "false" }

// Type implements pflag.Value.
func (n negation) Type() string { return "bool" }

// addNegations gives every boolean flag its --no- form, as vLLM has it.
func addNegations(flags *pflag.FlagSet) {
	var booleans []*pflag.Flag
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Value.Type() == "bool" {
			booleans = append(booleans, f)
		}
	})
	for _, f := range booleans {
		no := flags.VarPF(negation{f.Value}, "no-"+f.Name, "", "opposite of --"+f.Name)
		no.NoOptDefVal, no.Hidden = "true", true
	}
}

// variable is the environment variable of a flag.
func variable(f *pflag.Flag) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

const variablePrefix = "PAGODA_"

// misspelt lists the variables of an environment that set nothing and look like
// one that would, with that one. Their values may be secret.
func misspelt(cmd *cobra.Command, environment []string) []string {
	var known, found []string
	for _, flags := range []*pflag.FlagSet{cmd.Flags(), serveCommand().Flags()} {
		flags.VisitAll(func(f *pflag.Flag) { known = append(known, strings.TrimPrefix(variable(f), variablePrefix)) })
	}
	for _, line := range environment {
		name, _, _ := strings.Cut(line, "=")
		name, ours := strings.CutPrefix(name, variablePrefix)
		if !ours || slices.Contains(known, name) {
			continue
		}
		if likely := nearest(name, known); likely != "" {
			found = append(found, fmt.Sprintf("%s%s sets no flag; did you mean %s%s?", variablePrefix, name, variablePrefix, likely))
		}
	}
	return found
}

// setFromEnvironment sets flags that the command line did not from PAGODA_*. A
// flag and its --no- form count as one.
func setFromEnvironment(cmd *cobra.Command, lookup func(string) (string, bool)) error {
	given := map[string]bool{}
	cmd.Flags().Visit(func(f *pflag.Flag) { given[strings.TrimPrefix(f.Name, "no-")] = true })
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := variable(f)
		value, ok := lookup(name)
		if !ok || err != nil || given[strings.TrimPrefix(f.Name, "no-")] {
			return
		}
		if strings.HasPrefix(value, "tcp://") && name == "PAGODA_PORT" {
			err = usageError{fmt.Errorf("%s=%s: Kubernetes sets it for a Service named pagoda; set enableServiceLinks: false in the pod, or name the Service otherwise", name, value)}
			return
		}
		if e := cmd.Flags().Set(f.Name, value); e != nil {
			err = usageError{fmt.Errorf("%s=%s: %w", name, value, e)}
		}
	})
	return err
}
