package server

import (
	"fmt"
	"strconv"

	"github.com/pagoda-engine/pagoda/engine"
)

// completionMaxTokens is OpenAI's default of max_tokens for /v1/completions.
const completionMaxTokens = 16

// defaults is a request with no field given: generation_config.json where it
// says something, else OpenAI's defaults.
func (s *Server) defaults() request {
	g := s.info.Generation
	r := request{n: 1, skipSpecial: true, addSpecial: true, addGenerationPrompt: true}
	r.sampling.Temperature = orDefault(g.Temperature, 1)
	if g.Greedy {
		r.sampling.Temperature = 0
	}
	r.sampling.TopP = orDefault(g.TopP, 1)
	r.sampling.MinP = orDefault(g.MinP, 0)
	r.sampling.RepetitionPenalty = orDefault(g.RepetitionPenalty, 1)
	if g.TopK != nil {
		r.sampling.TopK = int32(*g.TopK)
	}
	if g.MaxNewTokens != nil {
		r.defaultMaxTokens = *g.MaxNewTokens
	}
	return r
}

func orDefault(v *float64, otherwise float32) float32 {
	if v == nil {
		return otherwise
	}
	return float32(*v)
}

// Defaults lists what a request gets that does not say, for a person to read at
// start.
func (s *Server) Defaults() []engine.Setting {
	g, r := s.info.Generation, s.defaults()
	row := func(name string, value float32, fromModel bool) engine.Setting {
		return engine.Setting{Name: name, Value: strconv.FormatFloat(float64(value), 'g', -1, 32), Reason: origin(fromModel)}
	}
	maxTokens := engine.Setting{Name: "max_tokens", Reason: origin(g.MaxNewTokens != nil),
		Value: fmt.Sprintf("chat: as many as fit; completions: %d", completionMaxTokens)}
	if r.defaultMaxTokens > 0 {
		maxTokens.Value = fmt.Sprintf("chat: %d; completions: %d", r.defaultMaxTokens, completionMaxTokens)
	}
	return []engine.Setting{
		row("temperature", r.sampling.Temperature, g.Greedy || g.Temperature != nil),
		row("top_p", r.sampling.TopP, g.TopP != nil),
		row("top_k", float32(r.sampling.TopK), g.TopK != nil),
		row("min_p", r.sampling.MinP, g.MinP != nil),
		row("repetition_penalty", r.sampling.RepetitionPenalty, g.RepetitionPenalty != nil),
		maxTokens,
		{Name: "seed", Value: "random", Reason: "a new one for each request"},
	}
}

func origin(fromModel bool) string {
	if fromModel {
		return "generation_config.json"
	}
	return "OpenAI default"
}
