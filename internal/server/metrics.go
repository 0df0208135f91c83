package server

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// vLLM's bucket bounds, so that its dashboards fit.
var (
	ttftBuckets    = []float64{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560}
	tokenBuckets   = []float64{.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80}
	requestBuckets = []float64{.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680}
)

// metrics is what the server counts itself.
type metrics struct {
	handler                      http.Handler // of /metrics
	ttft, itl, tpot, e2e         prometheus.Histogram
	promptTokens, generatedCount prometheus.Histogram
	success                      *prometheus.CounterVec
}

func newMetrics(model string, engine Engine, info Info) *metrics {
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "vllm:" + name, Help: help, Buckets: buckets})
	}
	registry := prometheus.NewRegistry()
	m := &metrics{
		handler:        promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		ttft:           histogram("time_to_first_token_seconds", "Time from arrival, tokenizing included, to the first token.", ttftBuckets),
		itl:            histogram("inter_token_latency_seconds", "Time between two tokens of a request.", tokenBuckets),
		tpot:           histogram("request_time_per_output_token_seconds", "Mean time per token after the first, of a request.", tokenBuckets),
		e2e:            histogram("e2e_request_latency_seconds", "Time from arrival to the end of a request.", requestBuckets),
		promptTokens:   histogram("request_prompt_tokens", "Prompt tokens of a request.", tokenCountBuckets(info.MaxModelLen)),
		generatedCount: histogram("request_generation_tokens", "Tokens generated for a request.", tokenCountBuckets(info.MaxModelLen)),
		success: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vllm:request_success_total", Help: "Requests that ended, by reason.",
		}, []string{"finished_reason"}),
	}
	for _, reason := range []string{"stop", "length", "abort", "error"} {
		m.success.WithLabelValues(reason)
	}
	cacheConfig := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "vllm:cache_config_info", Help: "The KV cache's configuration; always 1.", ConstLabels: info.CacheConfig,
	})
	cacheConfig.Set(1)
	labelled := prometheus.WrapRegistererWith(prometheus.Labels{"model_name": model, "engine": "0"}, registry)
	labelled.MustRegister(m.ttft, m.itl, m.tpot, m.e2e, m.promptTokens, m.generatedCount, m.success, cacheConfig, newEngineCollector(engine))
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// tokenCountBuckets is the 1-2-5 series up to limit.
func tokenCountBuckets(limit int) []float64 {
	bounds := []float64{1}
	for decade := 1; ; decade *= 10 {
		for _, m := range []int{1, 2, 5} {
			switch v := m * decade; {
			case v > limit:
				return bounds
			case v > 1:
				bounds = append(bounds, float64(v))
			}
		}
	}
}

func (s *Server) handleMetrics(w http.ResponseWriter, req *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(s.writeTimeout)) // fails only without a connection
	s.metrics.handler.ServeHTTP(w, req)
	_ = rc.SetWriteDeadline(time.Time{})
}

// engineCollector reads the engine's counters when it is scraped, all at one
// moment.
type engineCollector struct {
	engine                               Engine
	running, waiting, swapped, usage     *prometheus.Desc
	prompt, generation, queries, hits    *prometheus.Desc
	preemptions, blocks, in, out         *prometheus.Desc
	preemptionsByMeans, steps, evictions *prometheus.Desc
}

func newEngineCollector(engine Engine) *engineCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &engineCollector{
		engine:      engine,
		running:     desc("vllm:num_requests_running", "Requests in the running batch."),
		waiting:     desc("vllm:num_requests_waiting", "Requests that wait to run."),
		swapped:     desc("vllm:num_requests_swapped", "Requests whose KV blocks are in host memory."),
		usage:       desc("vllm:kv_cache_usage_perc", "Share of KV blocks that are referenced, 0 to 1."),
		prompt:      desc("vllm:prompt_tokens_total", "Prompt tokens processed."),
		generation:  desc("vllm:generation_tokens_total", "Tokens generated."),
		queries:     desc("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache."),
		hits:        desc("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache."),
		preemptions: desc("vllm:num_preemptions_total", "Preemptions."),

		blocks:             desc("pagoda:kv_blocks", "KV blocks by state; used = referenced.", "state"),
		in:                 desc("pagoda:swap_in_bytes_total", "Bytes copied from host to device."),
		out:                desc("pagoda:swap_out_bytes_total", "Bytes copied from device to host."),
		preemptionsByMeans: desc("pagoda:preemptions_total", "Preemptions by means.", "means"),
		steps:              desc("pagoda:steps_total", "Steps of the engine."),
		evictions:          desc("pagoda:evictions_total", "Cached blocks whose content was given up."),
	}
}

// Describe implements prometheus.Collector.
func (c *engineCollector) Describe(ch chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(c, ch)
}

// Collect implements prometheus.Collector.
func (c *engineCollector) Collect(ch chan<- prometheus.Metric) {
	st := c.engine.Stats()
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	counter := func(desc *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(c.running, float64(st.Running))
	gauge(c.waiting, float64(st.Waiting))
	gauge(c.swapped, float64(st.Swapped))
	gauge(c.usage, st.KVUsage())
	counter(c.prompt, st.PromptTokens)
	counter(c.generation, st.GenerationTokens)
	counter(c.queries, st.PrefixQueries)
	counter(c.hits, st.PrefixHits)
	counter(c.preemptions, st.PreemptionsRecompute+st.PreemptionsSwap)

	gauge(c.blocks, float64(st.BlocksFree), "free")
	gauge(c.blocks, float64(st.BlocksUsed), "used")
	gauge(c.blocks, float64(st.BlocksCached), "cached")
	gauge(c.blocks, float64(st.BlocksInFlight), "in_flight")
	counter(c.in, st.SwapInBytes)
	counter(c.out, st.SwapOutBytes)
	counter(c.preemptionsByMeans, st.PreemptionsRecompute, "recompute")
	counter(c.preemptionsByMeans, st.PreemptionsSwap, "swap")
	counter(c.steps, st.Steps)
	counter(c.evictions, st.Evictions)
}
