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
