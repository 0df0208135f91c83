package server

import (
	"crypto/sha256"
	"encoding/json"
	"math"
	"math/rand/v2"

	"github.com/pagoda-engine/pagoda/engine"
)

// request is a decoded body of /v1/chat/completions or /v1/completions: typed
// and range-checked values, with the defaults where a field was absent.
type request struct {
	// What to complete: messages and tools as the client spelled them, or prompts.
	messages            json.RawMessage
	system              string          // a system prompt that stands apart from messages
	tools               json.RawMessage // nil = none
	shownTools          json.RawMessage // as /v1/responses was given them
	shownFormat         json.RawMessage // of the text, likewise
	tooling             toolOptions
	documents           json.RawMessage
	kwargs              map[string]json.RawMessage // of the template
	addGenerationPrompt bool
	continueFinal       bool // the last message is the beginning of the answer
	truncate            int  // most tokens of the prompt; 0 = all, −1 = what the context leaves room for
	truncateRight       bool // the beginning is kept, not the end
	prompts             []prompt
	counted             bool // its tokens are all that is wanted, however many

	// How to answer.
	model           string
	id              string // chosen by the client; "" = ours
	traceparent     string // header of W3C Trace Context, unchecked
	stream          bool
	includeUsage    bool
	continuousUsage bool
	returnTokenIDs  bool
	tokensAsIDs     bool // logprobs show "token_id:N"
	echo            bool
	scoreOnly       bool // max_tokens 0 with echo: nothing is generated
	addSpecial      bool // to prompts
	skipSpecial     bool // in outputs
	logprobs        bool
	topLogprobs     int
	promptLogprobs  int  // likeliest ids beside each token of the prompt
	promptGiven     bool // prompt_logprobs was

	// What to draw, and when to stop.
	n           int
	bestOf      int // 0 = not given
	maxTokens   int // 0 = not given: defaultMaxTokens, as far as they fit
	sampling    engine.Sampling
	seeded      bool // seed was given, and not −1, which vLLM and its clients mean by "any"
	stops       []string
	includeStop bool
	stopIDs     []int32
	ignoreEOS   bool
	structure   structure
	allowedIDs  []uint32 // a bit an id; nil = all
	badWords    []string
	cacheSalt   string
	priority    int

	defaultMaxTokens int // 0 = as many as fit

	// For the page's inspector.
	owner       [sha256.Size]byte // hash of the key
	rendered    string            // the beginning of the prompt's text
	renderedCut int               // bytes that it lacks
	subject     string            // what the last user said, in a line

	release func() // gives back the body's place in the budget; nil = it has none

	streamOptions   bool // stream_options was given
	generationGiven bool // add_generation_prompt was given
	topGiven        bool // top_logprobs was given
}

// encoded forgets what only the prompt and the grammar were made of, and gives its memory back to
// the others. It may be called twice.
func (r *request) encoded() {
	if !r.echo {
		if r.messages != nil {
			r.messages = json.RawMessage("[]")
		}
		for i := range r.prompts {
			r.prompts[i].text = ""
		}
	}
	r.tools, r.documents, r.kwargs = nil, nil, nil
	if r.release != nil {
		r.release()
		r.release = nil
	}
}

// prompt is one prompt of a completions request: text, or ids.
type prompt struct {
	text string
	ids  []int32 // nil = text
}

// check compares fields with each other, once all are known.
func (r *request) check(maxLogprobs int, priorityPolicy bool) *apiError {
	if err := r.checkEnd(); err != nil {
		return err
	}
	switch {
	case r.streamOptions && !r.stream:
		return badField("stream_options", "is only allowed when stream is true")
	case r.topGiven && r.topLogprobs > 0 && !r.logprobs:
		return badField("top_logprobs", "needs logprobs to be true")
	case r.topGiven && r.topLogprobs > maxLogprobs:
		return badField("top_logprobs", "may ask for at most %d tokens (--max-logprobs)", maxLogprobs)
	case r.topLogprobs > maxLogprobs:
		return badField("logprobs", "may ask for at most %d tokens (--max-logprobs)", maxLogprobs)
	case r.maxTokens > 0 && int(r.sampling.MinTokens) > r.maxTokens:
		return badField("min_tokens", "is %d, more than max_tokens %d", r.sampling.MinTokens, r.maxTokens)
	case r.scoreOnly && !r.echo:
		return badField("max_tokens", "is 0, must be at least 1 (0 is for echo)")
	case r.tooling.forced() && (r.continueFinal || !r.addGenerationPrompt):
		return badField("tool_choice", "can only be required or name a function where the prompt ends with the head of the answer (add_generation_prompt)")
	case r.bestOf > 1 && r.bestOf != r.n:
		return unsupported("best_of", "is only supported when it equals n")
	case r.promptGiven && r.stream:
		return badField("prompt_logprobs", "cannot be streamed")
	case r.promptLogprobs > maxLogprobs:
		return badField("prompt_logprobs", "may ask for at most %d tokens (--max-logprobs)", maxLogprobs)
	case r.priority != 0 && !priorityPolicy:
		return badField("priority", "needs a server with --scheduling-policy priority")
	}
	if err := r.tooling.check(); err != nil {
		return err
	}
	return r.checkForm()
}

// checkEnd settles how a chat's prompt ends.
func (r *request) checkEnd() *apiError {
	if !r.continueFinal {
		return nil
	}
	if r.addGenerationPrompt && r.generationGiven {
		return badField("continue_final_message", "and add_generation_prompt exclude each other")
	}
	r.addGenerationPrompt = false
	return nil
}

// engineRequest is the request for the choices of a prompt. room is how many
// tokens fit behind it; what the client did not ask for must not be refused.
func (r *request) engineRequest(id string, ids []int32, room int) engine.Request {
	sampling := r.sampling
	if !r.seeded {
		sampling.Seed = rand.Uint64()
	}
	sampling.Logprobs = -1
	if r.logprobs {
		sampling.Logprobs = int32(r.topLogprobs)
	}
	maxTokens := r.maxTokens
	if r.scoreOnly {
		maxTokens = 1 // the engine generates always; its token is dropped
	}
	if maxTokens == 0 && r.defaultMaxTokens > 0 {
		maxTokens = max(1, min(room, r.defaultMaxTokens))
	}
	return engine.Request{
		ID: id, Prompt: ids, Sampling: sampling, MaxTokens: maxTokens, StopIDs: r.stopIDs,
		IgnoreEOS: r.ignoreEOS, Priority: r.priority, CacheSalt: r.cacheSalt,
	}
}

// normalize turns values that mean "off" or "greedy" in the API into the
// engine's spelling.
func (r *request) normalize() {
	s := &r.sampling
	if s.Temperature < greedyBelow {
		s.Temperature = 0
	}
	if s.TopP == 0 {
		s.TopP = math.SmallestNonzeroFloat32 // keeps the first id alone; 0 would be off
	}
	s.TopK = max(s.TopK, 0)
}
