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

// fineBuckets tell models apart that take a millisecond a token.
var fineBuckets = []float64{.0001, .0002, .0005, .001, .0015, .002, .003, .004, .005, .006, .008, .01, .015, .02, .03, .05, .1, .25, .5, 1, 2.5, 10}

// metrics is what the server counts itself.
type metrics struct {
	requestMetrics
	http    httpMetrics
	handler http.Handler // of /metrics
}

func newMetrics(model string, engine Engine, info Info) *metrics {
	registry := prometheus.NewRegistry()
	m := &metrics{
		requestMetrics: newRequestMetrics(info.MaxModelLen),
		http:           newHTTPMetrics(),
		handler:        promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	}
	cacheConfig := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "vllm:cache_config_info", Help: "The KV cache's configuration; always 1.", ConstLabels: info.CacheConfig,
	})
	cacheConfig.Set(1)
	labelled := prometheus.WrapRegistererWith(prometheus.Labels{"model_name": model, "engine": "0"}, registry)
	labelled.MustRegister(m.requestMetrics.collectors()...)
	labelled.MustRegister(cacheConfig, newEngineCollector(engine))
	registry.MustRegister(m.http.collectors()...)
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
