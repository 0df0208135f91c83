package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// foreignFlag is a flag of vllm serve that this server has no use for, so that
// start scripts go on working.
type foreignFlag struct {
	name      string
	shorthand string
	boolean   bool
	// same are values that mean what happens anyway: they are taken in silence.
	same []string
	// refuse says why another value is a mistake, where ignoring it would change
	// answers; "" = it is ignored, with a warning.
	refuse string
}

var foreignFlags = []foreignFlag{
	{name: "tensor-parallel-size", same: []string{"1"}, refuse: "one device holds the model"},
	{name: "pipeline-parallel-size", same: []string{"1"}, refuse: "one device holds the model"},
	{name: "data-parallel-size", same: []string{"1"}, refuse: "start one server for each device"},
	{name: "dtype", same: []string{"auto", "bfloat16"}, refuse: "weights are rounded to bfloat16"},
	{name: "kv-cache-dtype", same: []string{"auto", "bfloat16", "float16"}, refuse: "the KV cache is float16, which has the bytes of bfloat16 and three bits more of mantissa"},
	{name: "enable-lora", boolean: true, same: []string{"false"}, refuse: "adapters are not supported"},
	{name: "override-generation-config", refuse: "set sampling defaults in the model's generation_config.json"},
	{name: "kv-transfer-config", refuse: "there is no other server to share the cache with"},
	{name: "reasoning-parser", same: []string{""}},
	{name: "speculative-config"},
	{name: "compilation-config"},
	{name: "kv-events-config"},
	{name: "structured-outputs-config"},
	{name: "seed", same: []string{"0"}},
	{name: "hf-token", refuse: "set HF_TOKEN: everybody on the machine can read a command line"},
	{name: "hf-overrides", refuse: "edit the model's config.json"},
	{name: "rope-scaling", refuse: "edit the model's config.json"},
	{name: "rope-theta", refuse: "edit the model's config.json"},
	{name: "cpu-offload-gb", same: []string{"0"}, refuse: "weights stay on the device; use a smaller model, or --quantization int8 on the CPU"},
	{name: "kv-offloading-size", refuse: "the host's KV pool is --swap-space"},
	{name: "kv-offloading-backend"},
	{name: "optimization-level", shorthand: "O"},
	{name: "distributed-executor-backend"},
	{name: "tokenizer-mode", same: []string{"auto"}},
	{name: "chat-template-content-format", same: []string{"auto"}},
	{name: "logprobs-mode", same: []string{"raw_logprobs"}, refuse: "log probabilities are those of the model, before sampling"},
	{name: "guided-decoding-backend"},
	{name: "max-seq-len-to-capture"},
	{name: "max-log-len"},
	{name: "limit-mm-per-prompt"},
	{name: "num-scheduler-steps", same: []string{"1"}},
	{name: "custom-histogram-buckets"},
	{name: "show-hidden-metrics-for-version"},
	{name: "kv-cache-metrics-sample"},
	{name: "allowed-origins"},
	{name: "root-path", same: []string{""}},
	{name: "max-num-partial-prefills", same: []string{"1"}},
	{name: "max-long-partial-prefills", same: []string{"1"}},
	{name: "stream-interval", same: []string{"1"}},
	{name: "uvicorn-log-level"},
	{name: "prefix-caching-hash-algo", same: []string{"sha256"}},
	{name: "trust-remote-code", boolean: true, same: []string{"true", "false"}}, // no code comes with a model
	{name: "scheduler-reserve-full-isl", boolean: true, same: []string{"true"}},
	{name: "use-v2-block-manager", boolean: true, same: []string{"true"}},
	{name: "disable-frontend-multiprocessing", boolean: true, same: []string{"true", "false"}},
	{name: "disable-sliding-window", boolean: true, same: []string{"true"}},
	{name: "disable-fastapi-docs", boolean: true, same: []string{"true"}}, // there are none
	{name: "skip-tokenizer-init", boolean: true, same: []string{"false"}},
	{name: "enable-sleep-mode", boolean: true, same: []string{"false"}},
	{name: "enable-mfu-metrics", boolean: true, same: []string{"false"}},
	{name: "kv-cache-metrics", boolean: true, same: []string{"false"}},
	{name: "enable-force-include-usage", boolean: true, same: []string{"false"}},
	{name: "enable-chunked-prefill", boolean: true, same: []string{"true"}},
	{name: "disable-log-requests", boolean: true, same: []string{"true"}},
	{name: "disable-uvicorn-access-log", boolean: true, same: []string{"true"}},
	{name: "enable-request-id-headers", boolean: true, same: []string{"true"}},
	{name: "enable-prompt-tokens-details", boolean: true, same: []string{"true"}},
	{name: "enable-server-load-tracking", boolean: true, same: []string{"true"}},
	{name: "enable-tokenizer-info-endpoint", boolean: true, same: []string{"true"}},
}

// registerForeign adds the flags that flags does not have.
func registerForeign(flags *pflag.FlagSet) {
	for _, f := range foreignFlags {
		switch {
		case flags.Lookup(f.name) != nil:
			continue
		case f.boolean:
			flags.Bool(f.name, false, "accepted for vLLM's sake")
		default:
			flags.StringP(f.name, f.shorthand, "", "accepted for vLLM's sake")
		}
		flags.Lookup(f.name).Hidden = true
	}
}

// checkForeign warns of those that are ignored and refuses those that must not be.
func checkForeign(cmd *cobra.Command, warnings io.Writer) error {
	for _, f := range foreignFlags {
		flag := cmd.Flags().Lookup(f.name)
		no := cmd.Flags().Lookup("no-" + f.name)
		if flag == nil || !flag.Hidden || !flag.Changed && (no == nil || !no.Changed) || slices.Contains(f.same, flag.Value.String()) {
			continue
		}
		if f.refuse != "" {
			return usageError{fmt.Errorf("--%s %s: %s", f.name, flag.Value, f.refuse)}
		}
		fmt.Fprintf(warnings, "warning: --%s is ignored\n", f.name)
	}
	return nil
}
