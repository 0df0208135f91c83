package server

import (
	"math"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
)

// Hard limits, checked before anything is allocated by them.
const (
	maxHeaderBytes = 64 << 10 // 431 beyond
	maxBodyBytes   = 8 << 20  // 413 beyond
	maxJSONDepth   = 64       // arrays and objects within each other

	maxMessages    = 2048
	maxTools       = 128
	maxDocuments   = 1024
	maxKwargsBytes = 16 << 10
	maxKwargsDepth = 5
	maxNameBytes   = 256  // tool names, request ids, model names
	maxChoices     = 1024 // prompts × n
	maxStops       = 16
	maxStopBytes   = 256 // of one stop string
	maxStopIDs     = engine.MaxStopIDs
	maxLogitBias   = engine.MaxLogitBias
	maxSaltBytes   = engine.MaxCacheSalt
	maxBadWords    = 128
	maxAnswers     = 4096     // that a choice may choose from
	maxAllowedIDs  = 1 << 18  // entries of a list
	maxTokenID     = 1 << 22  // of that list; no vocabulary has as many
	maxMetadataLen = 16 << 10 // bytes of a field that has no effect
)

// requestCap is the most of something in a request, and the status beyond.
type requestCap struct {
	name   string
	most   int64
	status int
}

// caps is the table of all limits that are not a number's range. The engine has
// those of its own lists under the same names, and checks them again.
var caps = []requestCap{
	{"header_bytes", maxHeaderBytes, 431},
	{"body_bytes", maxBodyBytes, 413},
	{"json_depth", maxJSONDepth, 400},
	{"messages", maxMessages, 400},
	{"tools", maxTools, 400},
	{"documents", maxDocuments, 400},
	{"chat_template_kwargs_bytes", maxKwargsBytes, 400},
	{"chat_template_kwargs_depth", maxKwargsDepth, 400},
	{"name_bytes", maxNameBytes, 400},
	{"choices", maxChoices, 400},
	{"stop_strings", maxStops, 400},
	{"stop_string_bytes", maxStopBytes, 400},
	{"stop_token_ids", maxStopIDs, 400},
	{"logit_bias", maxLogitBias, 400},
	{"cache_salt_bytes", maxSaltBytes, 400},
	{"bad_words", maxBadWords, 400},
	{"guided_choice", maxAnswers, 400},
	{"allowed_token_ids", maxAllowedIDs, 400},
	{"metadata_bytes", maxMetadataLen, 400},
	{"n", 16, 400},
}

// Deadlines of a connection.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 60 * time.Second
	writeTimeout  = 30 * time.Second // of each piece written
	idleTimeout   = 120 * time.Second
	writePiece    = 32 << 10 // bytes that have to get through in a writeTimeout

	defaultDrainTimeout = 30 * time.Second
)

// greedyBelow is the temperature under which sampling is greedy, as in vLLM:
// dividing logits by less would overflow.
const greedyBelow = 1e-5

// numberRange is the range of a number, both ends included.
type numberRange struct{ lo, hi float64 }

// limits holds the range of every number of a request. seed takes all of int64;
// top_logprobs and logprobs are limited further by the engine's MaxLogprobs,
// token ids by the vocabulary, and max_tokens by the context.
var limits = map[string]numberRange{
	"n":                      {1, 16},
	"best_of":                {1, 16},
	"max_tokens":             {0, math.MaxInt32}, // 0 with echo only
	"max_completion_tokens":  {1, math.MaxInt32},
	"min_tokens":             {0, math.MaxInt32},
	"temperature":            {0, 100},
	"top_p":                  {0, 1},
	"top_k":                  {-1, math.MaxInt32}, // −1 and 0: off
	"min_p":                  {0, 1},
	"repetition_penalty":     {0.01, 100},
	"presence_penalty":       {-2, 2},
	"frequency_penalty":      {-2, 2},
	"logit_bias":             {-100, 100}, // of each entry
	"logprobs":               {0, engine.MaxTopLogprobs},
	"prompt_logprobs":        {0, engine.MaxTopLogprobs},
	"top_logprobs":           {0, engine.MaxTopLogprobs},
	"truncate_prompt_tokens": {-1, math.MaxInt32}, // −1: what the context leaves room for
	"priority":               {math.MinInt32, math.MaxInt32},
}
