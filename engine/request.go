package engine

import (
	"errors"
	"time"

	"github.com/pagoda-engine/pagoda/kernels"
)

// The caller's mistakes, wrapped with what to do about them. The server maps
// them to HTTP statuses in one switch.
var (
	// ErrInvalid: a field of the request is out of range. The error is an
	// *InvalidError that names it.
	ErrInvalid = errors.New("invalid request")
	// ErrTooLong: prompt + max_tokens exceed max_model_len.
	ErrTooLong = errors.New("context length exceeded")
	// ErrNeverFits: the KV pool could not hold the request even when empty.
	ErrNeverFits = errors.New("request can never fit the KV cache")
	// ErrQueueFull: too many requests wait; try again later.
	ErrQueueFull = errors.New("queue full")
	// ErrClosed: the engine is shut down, or lost its device.
	ErrClosed = errors.New("engine closed")
)

// InvalidError names the field of a Request that cannot be accepted. It wraps
// ErrInvalid.
type InvalidError struct {
	Param  string // the field's name in the OpenAI API: "max_tokens", "logit_bias"
	Reason string // says what is allowed
}

// Error implements error.
func (e *InvalidError) Error() string { return e.Param + ": " + e.Reason }

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (e *InvalidError) Unwrap() error { return ErrInvalid }

// Sampling says how tokens are drawn; see kernels.Sampling. Submit fills in
// PromptLen and StopIDs. Choice tells the choices of one prompt apart that are
// submitted with the same seed.
type Sampling = kernels.Sampling

// TokenBias is an entry of Sampling.LogitBias.
type TokenBias = kernels.TokenBias

// Request asks for one completion of a tokenized prompt.
type Request struct {
	ID        string  // for logs and traces
	Prompt    []int32 // at least one id
	Sampling  Sampling
	MaxTokens int     // tokens to generate; 0 = up to max_model_len, or what the KV pool holds
	StopIDs   []int32 // besides the model's end-of-sequence ids
	IgnoreEOS bool    // generate past the model's end-of-sequence ids
	Priority  int     // lower first, under the priority policy
	CacheSalt string  // requests share cached prefixes only with equal salts
	// Constrain makes the Constraint of a choice, before its first token, off the
	// engine's goroutine; nil = none. It is called for each choice.
	Constrain func() (Constraint, error)
}

// FinishReason says why a request ended.
type FinishReason string

// The finish reasons.
const (
	FinishNone   FinishReason = ""       // not yet
	FinishStop   FinishReason = "stop"   // end-of-sequence or stop id, or the constraint's end
	FinishLength FinishReason = "length" // MaxTokens or max_model_len
	FinishAbort  FinishReason = "abort"  // the context was cancelled
	FinishError  FinishReason = "error"  // Event.Err says what happened
)

// Event is one generated token, or the end of a request. Each request gets
// exactly one event whose Finish is not FinishNone, its last; that event
// carries a token too unless HasToken is false.
type Event struct {
	Token    int32
	HasToken bool
	// Logprob and Rank of Token, and the likeliest ids, when asked for by
	// Sampling.Logprobs.
	Logprob     float32
	Rank        int32
	TopIDs      []int32
	TopLogprobs []float32

	Finish FinishReason
	// StopID is the end-of-sequence or stop id that ended the request
	// (FinishStop); it is also Token of that event. NoStopID if the Constraint did.
	StopID int32
	// CachedTokens is how many prompt tokens came from the prefix cache; valid
	// from the first token on.
	CachedTokens int
	// Admitted is when the request first got a place in a step; valid like
	// CachedTokens, the zero time if it never did.
	Admitted time.Time
	// Sequence is its number in step records; valid like CachedTokens.
	Sequence SequenceID
	// Preemptions is how often the request lost its blocks to others that wanted
	// some, not to lowered limits; valid in the last event.
	Preemptions int
	Err         error // with FinishError
}
