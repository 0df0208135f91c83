package server

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// field decodes the value of a field into a request. The value is never null:
// null means absent.
type field func(r *request, name string, value json.RawMessage) *apiError

// decodeFields applies a table to the fields of a body, in the order of their
// names. Names are matched exactly, the last of equal names counts.
func (s *Server) decodeFields(body []byte, table map[string]field, r *request) *apiError {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil || raw == nil {
		return badRequest("the body is not a JSON object%s", jsonReason(err))
	}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		if string(raw[name]) == "null" {
			continue
		}
		decode, ok := table[name]
		if !ok {
			s.log.Debug("unknown field ignored", "field", name)
			continue
		}
		if err := decode(r, name, raw[name]); err != nil {
			return err
		}
	}
	return nil
}

// samplingFields are shared by both endpoints.
var samplingFields = map[string]field{
	"model":      text(maxNameBytes, func(r *request) *string { return &r.model }),
	"request_id": requestID,
	"stream":     boolean(func(r *request) *bool { return &r.stream }),

	"stream_options":             streamOptions,
	"return_token_ids":           boolean(func(r *request) *bool { return &r.returnTokenIDs }),
	"return_tokens_as_token_ids": boolean(func(r *request) *bool { return &r.tokensAsIDs }),
	"skip_special_tokens":        boolean(func(r *request) *bool { return &r.skipSpecial }),

	"n":                  integer(func(r *request, v int64) { r.n = int(v) }),
	"max_tokens":         positive(func(r *request, v int64) { r.maxTokens = int(v) }),
	"min_tokens":         integer(func(r *request, v int64) { r.sampling.MinTokens = int32(v) }),
	"temperature":        number(func(r *request) *float32 { return &r.sampling.Temperature }),
	"top_p":              number(func(r *request) *float32 { return &r.sampling.TopP }),
	"top_k":              integer(func(r *request, v int64) { r.sampling.TopK = int32(v) }),
	"min_p":              number(func(r *request) *float32 { return &r.sampling.MinP }),
	"repetition_penalty": number(func(r *request) *float32 { return &r.sampling.RepetitionPenalty }),
	"presence_penalty":   number(func(r *request) *float32 { return &r.sampling.PresencePenalty }),
	"frequency_penalty":  number(func(r *request) *float32 { return &r.sampling.FrequencyPenalty }),
	"logit_bias":         logitBias,
	"seed":               integer(func(r *request, v int64) { r.sampling.Seed, r.seeded = uint64(v), v != -1 }),

	"stop":                       stopStrings,
	"stop_token_ids":             stopTokenIDs,
	"include_stop_str_in_output": boolean(func(r *request) *bool { return &r.includeStop }),
	"ignore_eos":                 boolean(func(r *request) *bool { return &r.ignoreEOS }),

	"prompt_logprobs":        integer(func(r *request, v int64) { r.promptLogprobs, r.promptGiven = int(v), true }),
	"truncate_prompt_tokens": truncatePrompt,
	"truncation_side":        truncationSide,

	"allowed_token_ids": allowedTokenIDs,
	"bad_words":         badWords,

	"cache_salt": cacheSalt,
	"priority":   integer(func(r *request, v int64) { r.priority = int(v) }),
}

// completionFields is the table of /v1/completions.
var completionFields = merge(samplingFields, structureFields, refusedFields, noEffectFields, map[string]field{
	"prompt":             decodePrompts,
	"echo":               boolean(func(r *request) *bool { return &r.echo }),
	"logprobs":           integer(func(r *request, v int64) { r.logprobs, r.topLogprobs = true, int(v) }),
	"max_tokens":         integer(func(r *request, v int64) { r.maxTokens, r.scoreOnly = int(v), v == 0 }),
	"best_of":            integer(func(r *request, v int64) { r.bestOf = int(v) }),
	"add_special_tokens": boolean(func(r *request) *bool { return &r.addSpecial }),
	"suffix":             only(`""`),
})

// chatFields is the table of /v1/chat/completions.
var chatFields = merge(samplingFields, structureFields, refusedFields, noEffectFields, map[string]field{
	"messages":              decodeMessages,
	"tools":                 decodeTools,
	"tool_choice":           toolChoice,
	"parallel_tool_calls":   parallelToolCalls,
	"add_generation_prompt": addGenerationPrompt,
	// max_completion_tokens sorts before max_tokens; both given must agree in
	// effect, so the smaller counts.
	"max_completion_tokens": integer(func(r *request, v int64) { r.maxTokens = int(v) }),
	"max_tokens": positive(func(r *request, v int64) {
		if r.maxTokens == 0 || int(v) < r.maxTokens {
			r.maxTokens = int(v)
		}
	}),
	"logprobs":               boolean(func(r *request) *bool { return &r.logprobs }),
	"top_logprobs":           integer(func(r *request, v int64) { r.topLogprobs, r.topGiven = int(v), true }),
	"echo":                   boolean(func(r *request) *bool { return &r.echo }),
	"continue_final_message": boolean(func(r *request) *bool { return &r.continueFinal }),
	"add_special_tokens":     only(`false`),
	"chat_template":          only(),
	"chat_template_kwargs":   templateKwargs,
	"documents":              documents,
	"functions":              only(`[]`),
	"function_call":          only(`"none"`),
	"modalities":             only(`["text"]`),
	"audio":                  only(),
	"web_search_options":     only(),
	"verbosity":              only(`"medium"`),
})

// refusedFields would change the answer and are not implemented: any value but
// the neutral one is a 400.
var refusedFields = map[string]field{
	"logprob_token_ids":     only(),
	"length_penalty":        only(`1`, `1.0`),
	"use_beam_search":       only(`false`),
	"kv_transfer_params":    only(),
	"vllm_xargs":            only(`{}`),
	"repetition_detection":  only(),
	"thinking_token_budget": only(),
	"logits_processors":     only(`[]`),
	"mm_processor_kwargs":   only(`{}`),
	"moderation":            only(),
	"stream_interval":       only(`1`),
	"prompt_embeds":         only(),
}

// noEffectFields are accepted: they do not change the answer of a text model on
// this server.
var noEffectFields = func() map[string]field {
	table := map[string]field{}
	for _, name := range []string{
		"user", "metadata", "store", "service_tier", "safety_identifier", "session_id", "prediction",
		"prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
		"reasoning_effort", "include_reasoning", // no thinking to steer or to hide
		"spaces_between_special_tokens", // byte-level tokenizers put none
	} {
		table[name] = noEffect
	}
	return table
}()

func merge(tables ...map[string]field) map[string]field {
	all := map[string]field{}
	for _, table := range tables {
		maps.Copy(all, table)
	}
	return all
}

// only accepts the neutral values of a field that is not implemented.
func only(neutral ...string) field {
	return func(_ *request, name string, value json.RawMessage) *apiError {
		var compact bytes.Buffer
		if err := json.Compact(&compact, value); err == nil && slices.Contains(neutral, compact.String()) {
			return nil
		}
		if len(neutral) == 0 {
			return unsupported(name, "is not supported")
		}
		return unsupported(name, "is not supported with a value other than %s", strings.Join(neutral, " or "))
	}
}

func noEffect(_ *request, name string, value json.RawMessage) *apiError {
	if len(value) > maxMetadataLen {
		return badField(name, "is longer than %d bytes", maxMetadataLen)
	}
	return nil
}

func boolean(dst func(*request) *bool) field {
	return func(r *request, name string, value json.RawMessage) *apiError {
		switch string(value) {
		case "true", "false":
			*dst(r) = value[0] == 't'
			return nil
		}
		return badField(name, "must be true or false")
	}
}

// number decodes a float of limits.
func number(dst func(*request) *float32) field {
	return func(r *request, name string, value json.RawMessage) *apiError {
		v, err := parseNumber(name, value, limits[name])
		if err == nil {
			*dst(r) = float32(v)
		}
		return err
	}
}

func parseNumber(name string, value json.RawMessage, limit numberRange) (float64, *apiError) {
	var v float64
	if absent(value) || json.Unmarshal(value, &v) != nil {
		return 0, badField(name, "must be a number between %g and %g", limit.lo, limit.hi)
	}
	if v < limit.lo || v > limit.hi {
		return 0, badField(name, "is %g, must be between %g and %g", v, limit.lo, limit.hi)
	}
	return v, nil
}

// integer decodes an integer of limits, or any int64 if the table has no row.
func integer(set func(*request, int64)) field {
	return func(r *request, name string, value json.RawMessage) *apiError {
		v, ok := parseInteger(value)
		if !ok {
			return badField(name, "must be an integer")
		}
		if limit, bounded := limits[name]; bounded && (float64(v) < limit.lo || float64(v) > limit.hi) {
			return badField(name, "is %d, must be between %.0f and %.0f", v, limit.lo, limit.hi)
		}
		set(r, v)
		return nil
	}
}

// positive is integer without 0.
func positive(set func(*request, int64)) field {
	return func(r *request, name string, value json.RawMessage) *apiError {
		if v, ok := parseInteger(value); ok && v == 0 {
			return badField(name, "is 0, must be at least 1")
		}
		return integer(set)(r, name, value)
	}
}

// parseInteger takes 5, and 5.0 or 5e0 as Python's clients write it.
func parseInteger(value []byte) (int64, bool) {
	if v, err := strconv.ParseInt(string(value), 10, 64); err == nil {
		return v, true
	}
	var f float64
	if absent(value) || json.Unmarshal(value, &f) != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// parseTokenIDs decodes a list of at most limit ids; the vocabulary is checked
// later, by name.
func parseTokenIDs(name string, value json.RawMessage, limit int) ([]int32, *apiError) {
	value = bytes.TrimSpace(value)
	if value[0] != '[' {
		return nil, badField(name, "must be a list of token ids")
	}
	// The text is valid JSON and numbers have no commas, so that this is all the
	// parsing it takes; a slice of json.RawMessage would be 12 times the body.
	inner := bytes.TrimSpace(value[1 : len(value)-1])
	if len(inner) == 0 {
		return []int32{}, nil
	}
	if n := bytes.Count(inner, []byte{','}) + 1; n > limit {
		return nil, badField(name, "has %d entries, at most %d are allowed", n, limit)
	}
	var ids []int32
	for item := range bytes.SplitSeq(inner, []byte{','}) {
		id, ok := parseInteger(bytes.TrimSpace(item))
		if !ok || id < 0 || id > math.MaxInt32 {
			return nil, badField(name, "must be a list of token ids; entry %d is none", len(ids))
		}
		ids = append(ids, int32(id))
	}
	return ids, nil
}

func text(limit int, dst func(*request) *string) field {
	return func(r *request, name string, value json.RawMessage) *apiError {
		var v string
		if json.Unmarshal(value, &v) != nil {
			return badField(name, "must be a string")
		}
		if len(v) > limit {
			return badField(name, "is longer than %d bytes", limit)
		}
		*dst(r) = v
		return nil
	}
}

func requestID(r *request, name string, value json.RawMessage) *apiError {
	if err := text(maxNameBytes, func(r *request) *string { return &r.id })(r, name, value); err != nil {
		return err
	}
	if r.id != "" && !validID(r.id) {
		return badField(name, "must be at most %d letters, digits or any of -_.:", maxNameBytes)
	}
	return nil
}

func cacheSalt(r *request, name string, value json.RawMessage) *apiError {
	if err := text(maxSaltBytes, func(r *request) *string { return &r.cacheSalt })(r, name, value); err != nil {
		return err
	}
	if r.cacheSalt == "" {
		return badField(name, "must not be empty")
	}
	return nil
}

func streamOptions(r *request, name string, value json.RawMessage) *apiError {
	var raw map[string]json.RawMessage
	if json.Unmarshal(value, &raw) != nil {
		return badField(name, "must be an object")
	}
	r.streamOptions = true
	for key, dst := range map[string]*bool{
		"include_usage": &r.includeUsage, "continuous_usage_stats": &r.continuousUsage, "include_obfuscation": new(bool),
	} {
		if v, ok := raw[key]; ok && string(v) != "null" {
			if err := boolean(func(*request) *bool { return dst })(r, name+"."+key, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkVocabulary refuses ids that the model does not have: on a device they
// would be addresses outside the row. Of those that it has, sampled can be drawn.
func (r *request) checkVocabulary(promptParam string, vocab, sampled int) *apiError {
	outside := func(name string, ids []int32) *apiError {
		for _, id := range ids {
			if int(id) >= vocab {
				return badField(name, "has the token id %d, the vocabulary has %d", id, vocab)
			}
		}
		return nil
	}
	for _, b := range r.sampling.LogitBias {
		if int(b.ID) >= vocab {
			return badField("logit_bias", "has the token id %d, the vocabulary has %d", b.ID, vocab)
		}
	}
	for _, p := range r.prompts {
		if err := outside(promptParam, p.ids); err != nil {
			return err
		}
	}
	if r.allowedIDs != nil {
		for id := vocab; id < 32*len(r.allowedIDs); id++ {
			if r.allowedIDs[id/32]>>(id%32)&1 == 1 {
				return badField("allowed_token_ids", "has the token id %d, the vocabulary has %d", id, vocab)
			}
		}
		r.allowedIDs = append(r.allowedIDs, make([]uint32, (vocab+31)/32-len(r.allowedIDs))...)
		lowest := 0
		for lowest < sampled && r.allowedIDs[lowest/32]>>(lowest%32)&1 == 0 {
			lowest++
		}
		if lowest == sampled {
			return badField("allowed_token_ids", "has no token that can be drawn: the tokenizer has %d", sampled)
		}
	}
	return outside("stop_token_ids", r.stopIDs)
}
