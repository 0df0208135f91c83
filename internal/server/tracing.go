package server

import (
	"crypto/rand"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/otlp"
)

// Traces takes the span of each request that ends; an *otlp.Exporter does. Add must
// not wait.
type Traces interface{ Add(otlp.Span) }

// trace sends the span of a choice that ended, with the attributes that vLLM gives
// (vllm/tracing.py): counts, parameters and times, no text. It continues the
// caller's trace where the traceparent header names one.
func (c *choice) trace(reason engine.FinishReason) {
	g := c.g
	if g.s.traces == nil {
		return
	}
	span := otlp.Span{Name: "llm_request", Start: g.arrival, End: time.Now()}
	trace, parent, sampled, ok := otlp.ParseTraceparent(g.r.traceparent)
	switch {
	case ok && !sampled:
		return
	case ok:
		span.Trace, span.Parent = trace, parent
	default:
		_, _ = rand.Read(span.Trace[:]) // never fails
	}
	_, _ = rand.Read(span.ID[:])
	sampling := &g.r.sampling
	span.Attributes = map[string]any{
		"gen_ai.response.model": g.r.model, "gen_ai.request.id": g.id, "gen_ai.request.n": g.r.n,
		"gen_ai.request.temperature": float64(sampling.Temperature), "gen_ai.request.top_p": float64(sampling.TopP),
		"gen_ai.usage.prompt_tokens": len(c.prompt), "gen_ai.usage.completion_tokens": c.tokens, "gen_ai.usage.num_sequences": len(g.choices),
		"gen_ai.latency.e2e":             span.End.Sub(g.arrival).Seconds(),
		"gen_ai.response.finish_reasons": string(reason), "pagoda.cached_tokens": c.cached, "pagoda.preemptions": c.preemptions,
	}
	if g.r.maxTokens > 0 {
		span.Attributes["gen_ai.request.max_tokens"] = g.r.maxTokens
	}
	if !c.admitted.IsZero() && c.tokens > 0 {
		for name, d := range map[string]time.Duration{
			"time_in_queue": c.admitted.Sub(g.submitted), "time_to_first_token": c.first.Sub(g.arrival),
			"time_in_model_prefill": c.first.Sub(c.admitted), "time_in_model_decode": c.last.Sub(c.first), "time_in_model_inference": c.last.Sub(c.admitted),
		} {
			span.Attributes["gen_ai.latency."+name] = max(0, d).Seconds()
		}
	}
	if reason == engine.FinishError {
		span.Error = "the request failed"
	}
	g.s.traces.Add(span)
}
