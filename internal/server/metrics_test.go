package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

// scrape reads /metrics as text.
func scrape(t *testing.T, s *Server) string {
	w := do(s.Handler(), "GET", "/metrics", "")
	require.Equal(t, 200, w.Code)
	return w.Body.String()
}

// bucketsOf are the bounds of a histogram, without +Inf.
func bucketsOf(t *testing.T, text, name string) (bounds []float64) {
	for _, m := range regexp.MustCompile(`(?m)^`+name+`_bucket\{.*le="([0-9.e+]+)"\}`).FindAllStringSubmatch(text, -1) {
		bound, err := strconv.ParseFloat(m[1], 64)
		require.NoError(t, err)
		bounds = append(bounds, bound)
	}
	return bounds
}

// TestSeries: every name that vLLM's dashboards ask for is there from the start,
// with its labels.
func TestSeries(t *testing.T) {
	f := newFakeEngine("abcdef")
	f.stats = engine.Stats{Steps: 3, StepTokens: 30, Running: 2, Waiting: 5}
	f.stats.StepSizes[0], f.stats.StepSizes[4] = 1, 2
	s := newTestServer(t, f, Config{})
	do(s.Handler(), "POST", "/v1/completions", `{"prompt":"hello","max_tokens":4,"n":2}`)
	text := scrape(t, s)
	const labels = `{engine="0",model_name="m"`
	for _, name := range []string{"num_requests_running", "num_requests_waiting", "num_requests_swapped", "kv_cache_usage_perc", "gpu_cache_usage_perc", "cpu_cache_usage_perc",
		"prompt_tokens_total", "generation_tokens_total", "prompt_tokens_cached_total", "prefix_cache_queries_total", "prefix_cache_hits_total",
		"external_prefix_cache_queries_total", "external_prefix_cache_hits_total", "num_preemptions_total", "corrupted_requests_total"} {
		require.Contains(t, text, "\nvllm:"+name+labels+"} ", name)
	}
	for series, values := range map[string][]string{
		"num_requests_waiting_by_reason,reason": {"capacity", "deferred"}, "request_success_total,finished_reason": {"stop", "length", "abort", "error"},
		"admission_rejections_total,reason": {"max_num_queued_reqs", "max_num_queued_tokens"}, "prompt_tokens_by_source_total,source": {"local_compute", "local_cache_hit", "external_kv_transfer"},
		"engine_sleep_state,sleep_state": {"awake", "weights_offloaded", "discard_all"},
	} {
		name, label, _ := strings.Cut(series, ",")
		for _, value := range values {
			pattern := fmt.Sprintf(`(?m)^vllm:%s\{[^}]*%s="%s"[^}]*\} `, name, label, value)
			require.Regexp(t, regexp.MustCompile(pattern), text)
		}
	}
	for _, name := range []string{"time_to_first_token_seconds", "inter_token_latency_seconds", "time_per_output_token_seconds", "request_time_per_output_token_seconds", "e2e_request_latency_seconds",
		"request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds", "request_inference_time_seconds",
		"request_prompt_tokens", "request_generation_tokens", "request_max_num_generation_tokens", "request_params_max_tokens", "request_params_n",
		"request_prefill_kv_computed_tokens", "request_num_preemptions", "iteration_tokens_total"} {
		require.Regexp(t, regexp.MustCompile(`(?m)^vllm:`+name+`_bucket\{engine="0",model_name="m",le="`), text)
		require.Regexp(t, regexp.MustCompile(`(?m)^vllm:`+name+`_count\{engine="0",model_name="m"\} [1-9]`), text, "%s is observed", name)
	}
	require.Contains(t, text, `vllm:iteration_tokens_total_bucket`+labels+`,le="1"} 1`)
	require.Contains(t, text, `vllm:iteration_tokens_total_bucket`+labels+`,le="64"} 3`)
	require.Contains(t, text, `vllm:iteration_tokens_total_sum`+labels+`} 30`)
	require.Contains(t, text, `vllm:request_params_n_bucket`+labels+`,le="2"} 1`)
	require.Contains(t, text, `vllm:request_params_max_tokens_sum`+labels+`} 4`)
	require.Contains(t, text, `vllm:request_max_num_generation_tokens_sum`+labels+`} 4`)
	require.Contains(t, text, `vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local_cache_hit"} 4`)
	require.Contains(t, text, `http_requests_total{handler="/v1/completions",method="POST",status="2xx"} 1`)
	require.Contains(t, text, "\ngo_goroutines ")
	require.Contains(t, text, "\nprocess_resident_memory_bytes ")
}

func TestBuckets(t *testing.T) {
	f := newFakeEngine("x")
	f.info.MaxModelLen = 32768
	text := scrape(t, newTestServer(t, f, Config{}))
	require.Equal(t, ttftBuckets, bucketsOf(t, text, "vllm:time_to_first_token_seconds"))
	require.Equal(t, []float64{.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80}, bucketsOf(t, text, "vllm:inter_token_latency_seconds"))
	require.Equal(t, []float64{.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680}, bucketsOf(t, text, "vllm:request_queue_time_seconds"))
	require.Equal(t, []float64{1, 2, 5, 10, 20}, bucketsOf(t, text, "vllm:request_params_n"))
	require.Equal(t, []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000}, bucketsOf(t, text, "vllm:request_prompt_tokens"))
	require.Equal(t, [...]int{1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384}, engine.StepSizeBounds)
}

func TestRejectionsAreCounted(t *testing.T) {
	for _, c := range []struct{ err, reason string }{{"--max-num-queued-reqs", rejectedReqs}, {"--max-num-queued-tokens", rejectedTokens}} {
		f := newFakeEngine("x")
		f.submit = fmt.Errorf("%w: %s allows no more", engine.ErrQueueFull, c.err)
		s := newTestServer(t, f, Config{})
		require.Equal(t, 503, do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x"}`).Code)
		require.Contains(t, scrape(t, s), `vllm:admission_rejections_total{engine="0",model_name="m",reason="`+c.reason+`"} 1`)
	}
}

// TestRefusalsAreCounted: those without a key, too.
func TestRefusalsAreCounted(t *testing.T) {
	s := newTestServer(t, newFakeEngine("x"), Config{APIKeys: []string{"k"}})
	require.Equal(t, 401, do(s.Handler(), "POST", "/v1/completions", "{}").Code)
	require.Contains(t, scrape(t, s), `http_requests_total{handler="/v1/completions",method="POST",status="4xx"} 1`)
}

// TestUnknownPathsMakeNoSeries: a client cannot grow the registry.
func TestUnknownPathsMakeNoSeries(t *testing.T) {
	s := newTestServer(t, newFakeEngine("x"), Config{})
	for i := range 50 {
		do(s.Handler(), "GET", fmt.Sprintf("/nope/%d", i), "")
		do(s.Handler(), fmt.Sprintf("M%d", i), "/v1/models", "")
		do(s.Handler(), "GET", fmt.Sprintf("/v1/models/%d", i), "")
	}
	text := scrape(t, s)
	require.Contains(t, text, `http_requests_total{handler="none",method="none",status="4xx"} 100`)
	require.Contains(t, text, `http_requests_total{handler="/v1/models/{id...}",method="GET",status="4xx"} 50`)
	require.NotContains(t, text, "nope")
}

func TestStatsLine(t *testing.T) {
	begin := time.Unix(1000, 0)
	line := statsLine{at: begin}
	st := engine.Stats{PromptTokens: 50, GenerationTokens: 25, Running: 2, Waiting: 1, BlocksUsed: 1, BlocksTotal: 4, PrefixQueries: 40, PrefixHits: 10}
	require.Equal(t, "Engine 000: Avg prompt throughput: 10.0 tokens/s, Avg generation throughput: 5.0 tokens/s, Running: 2 reqs, Waiting: 1 reqs, GPU KV cache usage: 25.0%, Prefix cache hit rate: 25.0%",
		line.next(&st, begin.Add(5*time.Second)))
	st.Running, st.Waiting = 0, 0
	require.Contains(t, line.next(&st, begin.Add(10*time.Second)), "Avg generation throughput: 0.0 tokens/s")
	require.Empty(t, line.next(&st, begin.Add(15*time.Second)), "nothing happens")
}

// TestRequestLog: a line a choice, with numbers and no text of the client.
func TestRequestLog(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	s := newTestServer(t, newFakeEngine("abc"), Config{Log: log, LogRequests: true})
	do(s.Handler(), "POST", "/v1/completions", `{"prompt":"secret words","request_id":"r7"}`)
	line := decode[map[string]any](t, out.String())
	require.Equal(t, "request finished", line["msg"])
	require.Equal(t, "cmpl-r7", line["id"])
	require.Equal(t, "stop", line["finish"])
	require.InDelta(t, 12, line["prompt_tokens"], 0)
	require.InDelta(t, 4, line["completion_tokens"], 0)
	require.Contains(t, line, "ttft_ms")
	require.NotContains(t, out.String(), "secret")

	out.Reset()
	do(newTestServer(t, newFakeEngine("abc"), Config{Log: log}).Handler(), "POST", "/v1/completions", `{"prompt":"x"}`)
	require.Empty(t, out.String(), "only when asked for")
}

// TestDashboard: every series that the dashboard asks for exists.
func TestDashboard(t *testing.T) {
	file, err := os.ReadFile("../../deploy/grafana/pagoda.json")
	require.NoError(t, err)
	var dashboard struct {
		Title  string
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(file, &dashboard))
	require.NotEmpty(t, dashboard.Panels)
	f := newFakeEngine("abc")
	s := newTestServer(t, f, Config{})
	do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x"}`)
	text := scrape(t, s)
	name := regexp.MustCompile(`(?:vllm|pagoda):[a-z0-9_]+|http_requests_total|go_goroutines|process_[a-z_]+`)
	asked := 0
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			for _, series := range name.FindAllString(target.Expr, -1) {
				require.Regexp(t, regexp.MustCompile(`(?m)^`+series+`[{ ]`), text, "panel %s", p.Title)
				asked++
			}
		}
	}
	require.Greater(t, asked, 20)
}

// TestProbes: /health says more than that HTTP answers.
func TestProbes(t *testing.T) {
	f := newFakeEngine("x")
	s := newTestServer(t, f, Config{StallTimeout: 10 * time.Second})
	status := func(path string) int { return do(s.Handler(), "GET", path, "").Code }
	for _, path := range []string{"/health", "/ping", "/readyz", "/livez"} {
		require.Equal(t, 200, status(path))
	}
	require.Equal(t, 200, do(s.Handler(), "POST", "/ping", "").Code)

	begin := time.Now().Add(-20 * time.Second)
	f.stats = engine.Stats{Running: 1, Steps: 5}
	require.Zero(t, s.progress.stalled(&f.stats, begin), "a step since the last look")
	require.Equal(t, 503, status("/readyz"), "work and no step for 20 s")
	require.Equal(t, 503, status("/health"))
	require.Equal(t, 503, status("/livez"), "a restart helps")
	require.Equal(t, 200, status("/version"))
	f.stats.LastStep = 2 * time.Second
	require.Equal(t, 200, status("/readyz"), "steps are that slow here")
	f.stats.LastStep = 0
	f.stats.Steps++
	require.Equal(t, 200, status("/readyz"))
	f.stats.Running = 0
	s.progress.stalled(&f.stats, begin)
	require.Equal(t, 200, status("/readyz"), "idle is no stall")
	f.stats.Jobs = 1
	s.progress.stalled(&f.stats, begin)
	s.progress.since = begin
	require.Equal(t, 503, status("/livez"), "a job is work, too")
	f.stats.Jobs = 0

	s.draining.Store(true)
	require.Equal(t, 503, status("/readyz"))
	require.Equal(t, 200, status("/livez"), "a restart would cut what drains")
	s.draining.Store(false)
	f.err = engine.ErrDevice
	close(f.done)
	require.Equal(t, 503, status("/livez"))
}

func TestInfoEndpoints(t *testing.T) {
	f := newFakeEngine("x")
	f.gate = make(chan struct{})
	f.info.Settings = []engine.Setting{{Name: "max-num-seqs", Value: "7"}, {Name: "model", Value: "/a/path"}}
	s := newTestServer(t, f, Config{Version: "v"})
	done := make(chan *httptest.ResponseRecorder)
	go func() { done <- do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x"}`) }()
	f.gate <- struct{}{}
	require.JSONEq(t, `{"server_load":1}`, do(s.Handler(), "GET", "/load", "").Body.String())
	f.gate <- struct{}{}
	require.Equal(t, 200, (<-done).Code)
	require.JSONEq(t, `{"server_load":0}`, do(s.Handler(), "GET", "/load", "").Body.String())
	require.JSONEq(t, `{"is_sleeping":false}`, do(s.Handler(), "GET", "/is_sleeping", "").Body.String())
	require.Equal(t, 200, do(s.Handler(), "POST", "/flush_cache", "").Code)
	require.Equal(t, int64(1), f.resets.Load())
	require.JSONEq(t, `{"version":"v"}`, do(s.Handler(), "GET", "/version", "").Body.String())
	info := decode[struct {
		Config map[string]any   `json:"vllm_config"`
		Limits map[string]int64 `json:"request_limits"`
	}](t, do(s.Handler(), "GET", "/server_info", "").Body.String())
	require.NotContains(t, info.Config, "model")
	require.Equal(t, "7", info.Config["max-num-seqs"])
	require.Equal(t, int64(8<<20), info.Limits["body_bytes"])
	require.Contains(t, do(s.Handler(), "GET", "/tokenizer_info", "").Body.String(), `"vocab_size":259`)
}
