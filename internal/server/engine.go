package server

import (
	"context"
	"io"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model/chat"
)

// Engine is what the server asks of an engine; AdaptEngine makes one of an
// *engine.Engine.
type Engine interface {
	// SubmitChoices starts a request with as many choices as there are contexts,
	// all or none; cancelling one aborts its choice and frees its blocks.
	SubmitChoices(ctxs []context.Context, r engine.Request) ([]Stream, error)
	// PromptLogprobs says what the model makes of a prompt's tokens, all but the
	// first, and of the top likeliest ids in each place.
	PromptLogprobs(ctx context.Context, ids []int32, top int) ([]engine.PromptLogprob, error)
	// ResetPrefixCache forgets all cached prefixes.
	ResetPrefixCache(ctx context.Context) error
	// Stats may be called at any time, from any goroutine.
	Stats() engine.Stats
	// Steps returns the records of the last n steps that are kept, oldest first.
	Steps(n int) []engine.StepRecord
	// Dump writes what is known of an engine that hangs, as JSON lines.
	Dump(w io.Writer, reason string) error
	// Observe fills o with what the engine is doing, StepsOf tells the last n kept
	// steps that have to do with a sequence; see *engine.Engine.
	Observe(ctx context.Context, o *engine.Observation, blocks, steps int) error
	StepsOf(ctx context.Context, id engine.SequenceID, n int) ([]engine.StepRecord, error)
	// StartProfile begins to record a profile: engine.ErrProfiling while one is.
	StartProfile(ctx context.Context, o engine.ProfileOptions) (Recording, error)
	// Info does not change while the engine lives.
	Info() Info
	// Done is closed when the engine has stopped, by itself or not; Err then says
	// why, nil after a shutdown.
	Done() <-chan struct{}
	Err() error
}

// Stream delivers the events of one request.
type Stream interface {
	// Next waits for the next event; false after the last one or when ctx ends.
	Next(ctx context.Context) (engine.Event, bool)
}

// Info is what the server needs to know of the model and its engine.
type Info struct {
	MaxModelLen int     // tokens, prompt and output
	PoolTokens  int     // tokens that the KV pool holds when it is empty
	VocabSize   int     // ids are 0 … VocabSize − 1
	SampleVocab int     // those that can be drawn are 0 … SampleVocab − 1
	MaxQueued   int     // requests that may wait
	MaxLogprobs int     // most top_logprobs of a request
	EndIDs      []int32 // ids that end an answer
	Priority    bool    // the scheduling policy is "priority"
	Generation  Generation
	CacheConfig map[string]string // labels of vllm:cache_config_info
	Settings    []engine.Setting  // the effective configuration
}

// Generation holds the sampling defaults of generation_config.json; nil = the
// file does not say.
type Generation struct {
	Temperature, TopP, MinP, RepetitionPenalty *float64
	TopK, MaxNewTokens                         *int
	Greedy                                     bool // do_sample is false
}

// Tokenizer encodes prompts and decodes tokens; AdaptTokenizer makes one of a
// *tokenizer.Tokenizer, whose methods of the same names say more.
type Tokenizer interface {
	// Encode parses special tokens in text and adds those that the model's prompts
	// begin or end with.
	Encode(text string) ([]int32, error)
	// EncodeRendered parses special tokens outside the byte ranges of literal, and
	// adds none.
	EncodeRendered(text string, literal [][2]int) ([]int32, error)
	Decode(ids []int32, skipSpecial bool) string
	NewDecoder(skipSpecial bool) Decoder
	// TokenBytes are the bytes that id stands for, TokenString its spelling in
	// tokenizer.json.
	TokenBytes(id int32) string
	TokenString(id int32) string
	// VocabSize is one more than the largest id; IsSpecial tells the tokens that are
	// no text.
	VocabSize() int
	IsSpecial(id int32) bool
}

// Decoder turns the tokens of one sequence into text, whole characters only.
type Decoder interface {
	Next(id int32) string
	Flush() string
}

// Template renders a chat; *chat.Template is one. Its errors are the caller's and
// name the field.
type Template interface {
	Render(in chat.Input) (chat.Prompt, error)
}
