package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/pagoda-engine/pagoda/bench"
)

// serveLoadFlags are those of bench serve, under vLLM's names where vLLM has them.
type serveLoadFlags struct {
	baseURL, host, endpointType, endpoint, key string
	port                                       int
	headers, metadata                          map[string]string
	extraBody                                  string
	timeout                                    float64 // seconds

	tokenizer string
	data      bench.Dataset
	ignoreEOS bool
	sampling  map[string]*float64

	rates          []string
	burstiness     string
	concurrencies  []int
	seed           uint64
	warmups        int
	repeats        int
	goodput        []string
	percentiles    []string
	saveResult     bool
	resultDir      string
	resultFilename string
	outputDir      string
	quiet          bool

	loads   []bench.ServeLoad
	options bench.ServeOptions
}

func benchServeCommand() *cobra.Command {
	var f serveLoadFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Load any OpenAI-compatible server and measure throughput and latency",
		Long: `Send requests to a server as they would arrive (open loop: --request-rate, Poisson or
gamma gaps) or so many at a time (--max-concurrency), stream the answers, and print
vLLM's table: throughput, TTFT, TPOT, ITL by vLLM's definitions, goodput under limits,
failures by kind, and how late this client itself was.

Several rates or concurrencies are a sweep; with --output-dir there is a report with
curves. With --save-result the figures are written under vLLM's JSON keys.`,
		Example: `  pagoda serve demo &
  pagoda bench serve --num-prompts 100 --request-rate 20 --input-len 64 --output-len 32
  pagoda bench serve --base-url http://127.0.0.1:8000 --max-concurrency 1,4,16 --output-dir load
  pagoda bench serve --request-rate 4 --goodput ttft:200 tpot:50 --save-result`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd.Flags(), args); err != nil {
				return usageError{err}
			}
			return f.run(cmd)
		},
	}
	f.registerTarget(cmd.Flags())
	f.registerLoad(cmd.Flags())
	addNegations(cmd.Flags())
	return cmd
}

// registerTarget adds the flags about the server and the requests.
func (f *serveLoadFlags) registerTarget(flags *pflag.FlagSet) {
	flags.StringVar(&f.baseURL, "base-url", "", "address of the server; wins over --host and --port")
	flags.StringVar(&f.host, "host", "127.0.0.1", "host of the server")
	flags.IntVar(&f.port, "port", 8000, "port of the server")
	flags.StringVar(&f.endpointType, "endpoint-type", "completions", "completions or chat")
	flags.StringVar(&f.endpoint, "endpoint", "", "path of the requests (default: /v1/completions or /v1/chat/completions)")
	flags.StringVar(&f.options.Model, "model", "", "model to ask for (default: the first that the server lists)")
	flags.StringVar(&f.key, "api-key", "", "bearer token (default: OPENAI_API_KEY)")
	flags.StringToStringVar(&f.headers, "header", nil, "further header, KEY=VALUE; may be repeated")
	flags.StringVar(&f.extraBody, "extra-body", "", "JSON object whose fields are added to every request")
	flags.Float64Var(&f.timeout, "timeout", 600, "seconds that a request may take (0: no bound)")
	flags.StringVar(&f.tokenizer, "tokenizer", "", "directory with tokenizer.json, or demo, to make prompts to length (default: the server's /tokenize)")
	flags.StringVar(&f.data.Name, "dataset-name", "random", strings.Join(bench.DatasetNames, ", "))
	flags.StringVar(&f.data.Path, "dataset-path", "", "file of mt-bench, gsm8k or jsonl prompts")
	flags.IntVar(&f.data.InputLen, "input-len", 0, "prompt tokens: of random (default 1024) and shared-prefix (256, after the prefix); the mean of sharegpt-like (161)")
	flags.IntVar(&f.data.OutputLen, "output-len", 0, "tokens to generate (default 128; 256 for files), the mean of sharegpt-like (338)")
	flags.IntVar(&f.data.InputLen, "random-input-len", 0, "same as --input-len")
	flags.IntVar(&f.data.OutputLen, "random-output-len", 0, "same as --output-len")
	flags.Float64Var(&f.data.RangeRatio, "random-range-ratio", 0, "random lengths are even within this share above and below")
	flags.IntVar(&f.data.PrefixLen, "random-prefix-len", 0, "tokens that all random prompts begin with")
	flags.IntVar(&f.data.PrefixLen, "prefix-len", 0, "tokens of each shared prefix (default 256)")
	flags.IntVar(&f.data.Prefixes, "num-prefixes", 0, "different shared prefixes (default 10)")
	flags.BoolVar(&f.data.TokenIDs, "prompt-token-ids", false, "send made prompts as token ids: exact lengths, no text (completions only)")
	flags.IntVar(&f.data.Vocab, "vocab-size", 0, "token ids of --prompt-token-ids are below this (default: the tokenizer's)")
	flags.BoolVar(&f.ignoreEOS, "ignore-eos", false, "generate to the full length (default: for made prompts)")
	f.sampling = map[string]*float64{}
	for _, name := range []string{"temperature", "top-p", "top-k", "min-p", "frequency-penalty", "presence-penalty", "repetition-penalty"} {
		f.sampling[name] = flags.Float64(name, 0, "sampling parameter of every request (default: not sent)")
	}
}

// registerLoad adds the flags about arrivals and results.
func (f *serveLoadFlags) registerLoad(flags *pflag.FlagSet) {
	flags.IntVar(&f.options.NumPrompts, "num-prompts", 0, "requests of a run (default 200, 100 where there are several)")
	flags.StringSliceVar(&f.rates, "request-rate", []string{"inf"}, "requests/s, or inf: all at once; several are a sweep")
	flags.StringVar(&f.burstiness, "burstiness", "1", "shape of the gamma distribution of gaps: 1 Poisson, less bursts, inf even")
	flags.IntSliceVar(&f.concurrencies, "max-concurrency", nil, "most requests at once (default: no bound, an open loop); several are a sweep")
	flags.Uint64Var(&f.seed, "seed", 0, "of prompts and arrivals")
	flags.IntVar(&f.warmups, "num-warmups", 0, "requests before the measurement, after the one that checks the flags")
	flags.IntVar(&f.repeats, "repeats", 1, "runs of each load, interleaved; 3 or more show the spread")
	flags.StringSliceVar(&f.goodput, "goodput", nil, "limits in ms that a good request keeps, such as ttft:200 tpot:50 e2el:5000")
	flags.StringSliceVar(&f.options.Metrics, "percentile-metrics", []string{"ttft", "tpot", "itl"}, "latencies to print: "+strings.Join(bench.LatencyKeys(), ", "))
	flags.StringSliceVar(&f.percentiles, "metric-percentiles", []string{"99"}, "percentiles of them")
	flags.BoolVar(&f.saveResult, "save-result", false, "write the figures under vLLM's JSON keys")
	flags.BoolVar(&f.options.Detailed, "save-detailed", false, "with every request in them")
	flags.StringVar(&f.resultDir, "result-dir", ".", "folder of --save-result")
	flags.StringVar(&f.resultFilename, "result-filename", "", "file of --save-result (default: vLLM's pattern)")
	flags.StringVar(&f.options.Label, "label", "", "begins the file's name (default: openai)")
	flags.StringToStringVar(&f.metadata, "metadata", nil, "further key of the JSON, KEY=VALUE; may be repeated")
	flags.StringVar(&f.outputDir, "output-dir", "", "folder for report.json, report.html and pictures (default: no report)")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print nothing but results")
}

// check refuses what could not be sent, before anything is.
func (f *serveLoadFlags) check(flags *pflag.FlagSet, args []string) error {
	if len(args) > 0 {
		// vLLM takes --goodput ttft:200 tpot:50 as one flag's values.
		if len(f.goodput) == 0 {
			return fmt.Errorf("unexpected %q: the server is named by --base-url, or --host and --port", args[0])
		}
		f.goodput = append(f.goodput, args...)
	}
	o := &f.options
	var err error
	if o.Goodput, err = bench.ParseGoodput(f.goodput); err != nil {
		return err
	}
	switch f.endpointType {
	case "completions", "openai":
		o.Backend = "openai"
	case "chat", "openai-chat":
		o.Backend = "openai-chat"
	default:
		return fmt.Errorf("--endpoint-type %s: want completions or chat", f.endpointType)
	}
	f.data.TextOnly = o.Backend == "openai"
	switch {
	case flags.Changed("num-prompts") && o.NumPrompts < 1 || f.repeats < 1:
		return errors.New("--num-prompts and --repeats must be at least 1")
	case f.warmups < 0 || f.timeout < 0:
		return errors.New("--num-warmups and --timeout must not be negative")
	case f.data.TokenIDs && o.Backend == "openai-chat":
		return errors.New("--prompt-token-ids: chat takes text; use --endpoint-type completions")
	case f.data.TokenIDs && f.tokenizer == "" && f.data.Vocab < 1:
		return errors.New("--prompt-token-ids needs --vocab-size or --tokenizer, to know which ids there are")
	}
	for _, name := range o.Metrics {
		if !slices.Contains(bench.LatencyKeys(), name) {
			return fmt.Errorf("--percentile-metrics %s: want some of %s", name, strings.Join(bench.LatencyKeys(), ", "))
		}
	}
	for _, text := range f.percentiles {
		p, err := strconv.ParseFloat(text, 64)
		if err != nil || !(p >= 0 && p <= 100) {
			return fmt.Errorf("--metric-percentiles %s: want numbers from 0 to 100", text)
		}
		o.Percentiles = append(o.Percentiles, p)
	}
	o.Metadata, o.Tokenizer = f.metadata, f.tokenizer
	if !flags.Changed("ignore-eos") && !flags.Changed("no-ignore-eos") {
		f.ignoreEOS = f.data.NeedsCodec() || f.data.TokenIDs
	}
	if err := f.makeLoads(); err != nil {
		return err
	}
	if o.NumPrompts == 0 { // a minute for the demo on two cores
		o.NumPrompts = 200
		if len(f.loads)*f.repeats > 1 {
			o.NumPrompts = 100
		}
	}
	return f.data.Check()
}

// makeLoads is every rate with every concurrency.
func (f *serveLoadFlags) makeLoads() error {
	burstiness, err := strconv.ParseFloat(f.burstiness, 64)
	if err != nil {
		return fmt.Errorf("--burstiness %s: want a number or inf", f.burstiness)
	}
	concurrencies := f.concurrencies
	if len(concurrencies) == 0 {
		concurrencies = []int{0}
	} else if slices.Min(concurrencies) < 1 {
		return fmt.Errorf("--max-concurrency %d: want at least 1", slices.Min(concurrencies))
	}
	for _, text := range f.rates {
		rate, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("--request-rate %s: want requests a second, or inf", text)
		}
		for _, n := range concurrencies {
			load := bench.ServeLoad{RequestRate: rate, Burstiness: burstiness, MaxConcurrency: n}
			if err := load.Check(); err != nil {
				return err
			}
			f.loads = append(f.loads, load)
		}
	}
	return nil
}

// client is the server as the flags describe it.
func (f *serveLoadFlags) client(flags *pflag.FlagSet) (*bench.Client, error) {
	address := f.baseURL
	if address == "" {
		address = fmt.Sprintf("http://%s:%d", f.host, f.port)
	}
	c, err := bench.NewClient(address)
	if err != nil {
		return nil, usageError{err}
	}
	c.Chat, c.Endpoint, c.Headers = f.options.Backend == "openai-chat", f.endpoint, f.headers
	c.Model, c.Timeout = f.options.Model, time.Duration(f.timeout*float64(time.Second))
	if c.Key = f.key; c.Key == "" {
		c.Key = os.Getenv("OPENAI_API_KEY")
	}
	c.Body = map[string]any{}
	if f.ignoreEOS {
		c.Body["ignore_eos"] = true
	}
	for name, value := range f.sampling {
		if flags.Changed(name) {
			c.Body[strings.ReplaceAll(name, "-", "_")] = *value
		}
	}
	if f.extraBody != "" {
		if err := json.Unmarshal([]byte(f.extraBody), &c.Body); err != nil {
			return nil, usageError{fmt.Errorf("--extra-body: want a JSON object: %w", err)}
		}
	}
	return c, nil
}

// codec is what cuts prompts to length: the given tokenizer, else the server's,
// else an estimate. close gives it back.
func (f *serveLoadFlags) codec(ctx context.Context, c *bench.Client) (codec bench.Codec, close func(), err error) {
	if f.tokenizer != "" {
		t, err := openTokenizer(f.tokenizer)
		if err != nil {
			return nil, nil, usageError{fmt.Errorf("--tokenizer: %w", err)}
		}
		if f.data.Vocab == 0 {
			f.data.Vocab = t.VocabSize()
		}
		return bench.LocalCodec{Tokenizer: t}, t.Close, nil
	}
	nothing := func() {}
	if codec, err = c.ServerCodec(ctx); err == nil {
		return codec, nothing, nil
	}
	if !f.data.NeedsCodec() {
		return nil, nothing, nil
	}
	estimate, err := c.Estimate(ctx)
	if err != nil {
		return nil, nil, err
	}
	f.say("the server offers no tokenizer: prompts are about as long as asked for, %.2f tokens a word", estimate.TokensPerWord)
	return estimate, nothing, nil
}

// say tells what is going on.
func (f *serveLoadFlags) say(format string, args ...any) {
	if !f.quiet {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}

// counted makes a progress bar of a run, safe for its goroutines.
func (f *serveLoadFlags) counted(stage string, total int) (done, finish func()) {
	bar := newProgress(f.quiet)
	var mu sync.Mutex
	n := int64(0)
	return func() {
			mu.Lock()
			defer mu.Unlock()
			n++
			bar.count(stage, n, int64(total))
		}, func() {
			mu.Lock()
			defer mu.Unlock()
			bar.finish()
		}
}

// loadText describes a load in a line.
func loadText(l bench.ServeLoad) string {
	text := "all at once"
	if !math.IsInf(l.RequestRate, 1) {
		text = fmt.Sprintf("%g requests/s, burstiness %g", l.RequestRate, l.Burstiness)
	}
	if l.MaxConcurrency > 0 {
		text += fmt.Sprintf(", at most %d at a time", l.MaxConcurrency)
	}
	return text
}
