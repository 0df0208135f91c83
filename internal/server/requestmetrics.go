package server

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pagoda-engine/pagoda/engine"
)

// requestMetrics is what is known of a request once it is over.
type requestMetrics struct {
	ttft, itl, oldITL, fineITL, tpot, e2e          prometheus.Histogram
	queue, prefill, decode, inference              prometheus.Histogram
	promptTokens, generatedCount, maxGenerated     prometheus.Histogram
	paramN, paramMaxTokens, computed, preemptions  prometheus.Histogram
	tokenize                                       prometheus.Histogram
	success, rejections, promptSource              *prometheus.CounterVec
	corrupted, promptCached, externalQ, externalHi prometheus.Counter
}

func newRequestMetrics(maxModelLen int) requestMetrics {
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	seconds := func(name, help string) prometheus.Histogram { return histogram("vllm:"+name, help, requestBuckets) }
	tokens := func(name, help string) prometheus.Histogram {
		return histogram("vllm:"+name, help, tokenCountBuckets(maxModelLen))
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vector := func(name, help, label string, values ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, value := range values {
			v.WithLabelValues(value)
		}
		return v
	}
	return requestMetrics{
		ttft:      histogram("vllm:time_to_first_token_seconds", "Time from arrival, tokenizing included, to the first token.", ttftBuckets),
		itl:       histogram("vllm:inter_token_latency_seconds", "Time between two tokens of a request.", tokenBuckets),
		oldITL:    histogram("vllm:time_per_output_token_seconds", "Old name of vllm:inter_token_latency_seconds.", tokenBuckets),
		fineITL:   histogram("pagoda:inter_token_latency_seconds", "Time between two tokens of a request, with bounds for fast models.", fineBuckets),
		tpot:      histogram("vllm:request_time_per_output_token_seconds", "Mean time per token after the first, of a request.", tokenBuckets),
		e2e:       seconds("e2e_request_latency_seconds", "Time from arrival to the end of a request."),
		queue:     seconds("request_queue_time_seconds", "Time from submission to the first step."),
		prefill:   seconds("request_prefill_time_seconds", "Time from the first step to the first token."),
		decode:    seconds("request_decode_time_seconds", "Time from the first to the last token."),
		inference: seconds("request_inference_time_seconds", "Time from the first step to the last token."),

		promptTokens:   tokens("request_prompt_tokens", "Prompt tokens of a request."),
		generatedCount: tokens("request_generation_tokens", "Tokens generated for a request."),
		maxGenerated:   tokens("request_max_num_generation_tokens", "Tokens of a request's longest choice."),
		paramMaxTokens: tokens("request_params_max_tokens", "max_tokens of a request."),
		computed:       tokens("request_prefill_kv_computed_tokens", "Prompt tokens of a request that were computed, not found in the cache."),
		paramN:         histogram("vllm:request_params_n", "n of a request.", []float64{1, 2, 5, 10, 20}),
		preemptions:    histogram("vllm:request_num_preemptions", "Preemptions of a request.", []float64{0, 1, 2, 5, 10, 20, 50}),
		tokenize:       histogram("pagoda:tokenize_seconds", "Time to encode a prompt, waiting for a turn included.", fineBuckets),

		success:      vector("vllm:request_success_total", "Requests that ended, by reason.", "finished_reason", "stop", "length", "abort", "error", "repetition"),
		rejections:   vector("vllm:admission_rejections_total", "Requests refused because of a full queue, by the bound that was met.", "reason", rejectedReqs, rejectedTokens),
		promptSource: vector("vllm:prompt_tokens_by_source_total", "Prompt tokens by where their KV came from.", "source", sourceCompute, sourceCache, "external_kv_transfer"),
		promptCached: counter("vllm:prompt_tokens_cached_total", "Prompt tokens found in the prefix cache."),
		corrupted:    counter("vllm:corrupted_requests_total", "Requests whose logits were not numbers."),
		externalQ:    counter("vllm:external_prefix_cache_queries_total", "Tokens looked up in an external cache: there is none."),
		externalHi:   counter("vllm:external_prefix_cache_hits_total", "Tokens found in an external cache: there is none."),
	}
}

// Label values, as vLLM has them.
const (
	rejectedReqs   = "max_num_queued_reqs"
	rejectedTokens = "max_num_queued_tokens"
	sourceCompute  = "local_compute"
	sourceCache    = "local_cache_hit"
)

func (m *requestMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.ttft, m.itl, m.oldITL, m.fineITL, m.tpot, m.e2e, m.queue, m.prefill, m.decode, m.inference, m.promptTokens, m.generatedCount, m.maxGenerated,
		m.paramN, m.paramMaxTokens, m.computed, m.preemptions, m.tokenize, m.success, m.rejections, m.promptSource, m.promptCached, m.corrupted, m.externalQ, m.externalHi,
	}
}

// submitted counts what a request asks for.
func (m *requestMetrics) submitted(r *request, prompts [][]int32) {
	for _, ids := range prompts {
		m.promptTokens.Observe(float64(len(ids)))
		m.paramN.Observe(float64(r.n))
		if r.maxTokens > 0 {
			m.paramMaxTokens.Observe(float64(r.maxTokens))
		}
	}
}

// refused counts an error of submission.
func (m *requestMetrics) refused(err error) {
	if !errors.Is(err, engine.ErrQueueFull) {
		return
	}
	reason := rejectedReqs
	if strings.Contains(err.Error(), "--max-num-queued-tokens") { // the bound that the engine names
		reason = rejectedTokens
	}
	m.rejections.WithLabelValues(reason).Inc()
}

// count takes the times of a token.
func (c *choice) count(ev engine.Event) {
	now := time.Now()
	m := c.g.s.metrics
	if c.tokens == 0 {
		c.first, c.cached, c.admitted = now, ev.CachedTokens, ev.Admitted
		m.ttft.Observe(now.Sub(c.g.arrival).Seconds())
		m.promptCached.Add(float64(c.cached))
		m.promptSource.WithLabelValues(sourceCache).Add(float64(c.cached))
		m.promptSource.WithLabelValues(sourceCompute).Add(float64(len(c.prompt) - c.cached))
		m.computed.Observe(float64(len(c.prompt) - c.cached))
	} else {
		gap := now.Sub(c.last).Seconds()
		m.itl.Observe(gap)
		m.oldITL.Observe(gap)
		m.fineITL.Observe(gap)
	}
	c.tokens++
	c.last = now
	c.inspected.token(ev, now)
	c.preemptions = ev.Preemptions
}

// finish frees what the engine still holds, counts the choice and logs it.
func (c *choice) finish(reason engine.FinishReason) {
	c.done = true
	c.cancel()
	m := c.g.s.metrics
	m.success.WithLabelValues(string(reason)).Inc()
	seconds := time.Since(c.g.arrival).Seconds()
	m.e2e.Observe(seconds)
	c.g.s.observeLength(c.tokens, seconds)
	m.generatedCount.Observe(float64(c.tokens))
	m.preemptions.Observe(float64(c.preemptions))
	if !c.admitted.IsZero() && c.tokens > 0 {
		m.queue.Observe(max(0, c.admitted.Sub(c.g.submitted).Seconds()))
		m.prefill.Observe(max(0, c.first.Sub(c.admitted).Seconds()))
		m.decode.Observe(c.last.Sub(c.first).Seconds())
		m.inference.Observe(max(0, c.last.Sub(c.admitted).Seconds()))
	}
	if c.tokens > 1 {
		m.tpot.Observe(c.last.Sub(c.first).Seconds() / float64(c.tokens-1))
	}
	c.inspected.end(reason, c.preemptions)
	c.log(reason)
	c.trace(reason)
}

// log writes the line of a choice that ended: numbers, no text.
func (c *choice) log(reason engine.FinishReason) {
	s, level := c.g.s, slog.LevelDebug
	if s.logRequests {
		level = slog.LevelInfo
	}
	if !s.log.Enabled(context.Background(), level) {
		return
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	attrs := []slog.Attr{
		slog.String("id", c.g.id), slog.Int("choice", c.index), slog.String("model", c.g.r.model), slog.String("finish", string(reason)),
		slog.Int("prompt_tokens", len(c.prompt)), slog.Int("cached_tokens", c.cached), slog.Int("completion_tokens", c.tokens),
		slog.Float64("e2e_ms", ms(time.Since(c.g.arrival))), slog.Int("preemptions", c.preemptions),
	}
	if c.tokens > 0 {
		attrs = append(attrs, slog.Float64("ttft_ms", ms(c.first.Sub(c.g.arrival))))
	}
	if !c.admitted.IsZero() {
		attrs = append(attrs, slog.Float64("queue_ms", ms(max(0, c.admitted.Sub(c.g.submitted)))))
	}
	if c.tokens > 1 {
		attrs = append(attrs, slog.Float64("tpot_ms", ms(c.last.Sub(c.first))/float64(c.tokens-1)))
	}
	s.log.LogAttrs(context.Background(), level, "request finished", attrs...)
}

// countUnfinished counts the choices that did not get to their end.
func (g *generation) countUnfinished(reason engine.FinishReason) {
	for _, c := range g.choices {
		if !c.done {
			g.s.metrics.success.WithLabelValues(string(reason)).Inc()
			c.inspected.end(reason, c.preemptions)
			c.log(reason)
			c.trace(reason)
		}
	}
}

// countLongest counts the tokens of the longest choice of each prompt.
func (g *generation) countLongest() {
	for p := range g.prompts {
		longest := 0
		for _, c := range g.choices[p*g.r.n : (p+1)*g.r.n] {
			longest = max(longest, c.tokens)
		}
		if longest > 0 {
			g.s.metrics.maxGenerated.Observe(float64(longest))
		}
	}
}
