package server

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// httpMetrics has the series of prometheus-fastapi-instrumentator, which vLLM's
// dashboards know. A handler is the pattern of a route, so that clients cannot
// make series.
type httpMetrics struct {
	requests              *prometheus.CounterVec
	duration              *prometheus.HistogramVec
	fine                  prometheus.Histogram
	requestSize, respSize *prometheus.SummaryVec
}

func newHTTPMetrics() httpMetrics {
	return httpMetrics{
		requests:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "http_requests_total", Help: "HTTP requests."}, []string{"handler", "method", "status"}),
		duration:    prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "http_request_duration_seconds", Help: "Time to answer, by handler.", Buckets: []float64{.1, .5, 1}}, []string{"handler", "method"}),
		fine:        prometheus.NewHistogram(prometheus.HistogramOpts{Name: "http_request_duration_highr_seconds", Help: "Time to answer.", Buckets: []float64{.01, .025, .05, .075, .1, .25, .5, .75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60}}),
		requestSize: prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: "http_request_size_bytes", Help: "Bytes of request bodies."}, []string{"handler"}),
		respSize:    prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: "http_response_size_bytes", Help: "Bytes of answers."}, []string{"handler"}),
	}
}

func (m *httpMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.duration, m.fine, m.requestSize, m.respSize}
}

// unscraped are not counted, as vLLM does not; nor is the page, whose stream lasts
// as long as it is open.
var unscraped = map[string]bool{"/metrics": true, "/health": true, "/load": true, "/ping": true, "/version": true, "/server_info": true, "/livez": true, "/readyz": true}

// observe counts an answer. pattern is the mux's, "" for an unknown path.
func (m *httpMetrics) observe(pattern string, req *http.Request, w *trackedWriter, begin time.Time) {
	handler, method := "none", "none"
	if _, path, ok := strings.Cut(pattern, " "); ok {
		handler, method = path, req.Method
	}
	if unscraped[handler] || strings.HasPrefix(handler, "/ui") {
		return
	}
	seconds := time.Since(begin).Seconds()
	m.requests.WithLabelValues(handler, method, strconv.Itoa(max(w.status, http.StatusOK)/100)+"xx").Inc()
	m.duration.WithLabelValues(handler, method).Observe(seconds)
	m.fine.Observe(seconds)
	m.requestSize.WithLabelValues(handler).Observe(float64(max(req.ContentLength, 0)))
	m.respSize.WithLabelValues(handler).Observe(float64(w.bytes))
}
