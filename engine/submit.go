package engine

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"unsafe"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// The hard limits of a Request's lists. They bound what the device's row state
// must hold and what a request can make the engine do.
const (
	MaxStopIDs     = 128
	MaxTopLogprobs = 1 << 10 // and of Config.MaxLogprobs
	MaxChoices     = 128     // of one prompt
	MaxLogitBias   = 1024
	MaxCacheSalt   = 1 << 10 // bytes
	MaxPenalty     = 2       // of presence and frequency, either sign
	MaxBias        = 100     // of a logit, either sign
	minTemperature = 1e-5    // less is greedy: dividing by it would overflow
)

// request is one Request on its way through the engine. After Submit it belongs
// to the engine's goroutine, but for the stream's reading end and aborting.
//
// What a steady decode looks at comes first and fits a line of 64 bytes (of which Go's
// allocator has the first eight); the sequence follows in the same order, see there. What
// readers write, the stream, lies apart.
type request struct {
	stopIDs   []int32  // all ids that end the request
	guide     *guide   // nil = unconstrained
	fewStops  [2]int32 // memory of stopIDs, if that is enough
	row       int32    // of the device's row state; −1 = none
	minTokens int32
	maxTokens int32
	moved     bool // row is new to it: the next step fills it
	received  bool // taken from the inbox
	started   bool // was admitted once: it no longer counts as queued
	logprobs  bool // its reader wants log probabilities

	seq      scheduler.Sequence
	id       string
	sampling Sampling
	stream   Stream

	aborting  atomic.Bool // set once, by whoever cancels first
	abortNext *request    // in the stack of aborts
	sibling   *request    // the next choice of the same prompt
	unwatch   func() bool // stops watching the Submit context
}

// requestOf finds the request of a sequence: in an engine, each is part of one.
func requestOf(s *scheduler.Sequence) *request {
	return (*request)(unsafe.Add(unsafe.Pointer(s), -int(unsafe.Offsetof(request{}.seq))))
}

// outputs is the number of tokens generated so far.
func (r *request) outputs() int { return len(r.seq.Tokens) - r.seq.PromptLen }

// Submit validates r and queues it. The stream gets exactly one final event,
// whatever happens; cancelling ctx aborts the request, at any time. Submit does
// not wait: ErrQueueFull says that MaxQueuedReqs requests have yet to start, or
// MaxQueuedTokens tokens of their prompts.
func (e *Engine) Submit(ctx context.Context, r Request) (*Stream, error) {
	streams, err := e.SubmitChoices([]context.Context{ctx}, r)
	if err != nil {
		return nil, err
	}
	return streams[0], nil
}

// SubmitChoices is Submit for several choices of one prompt, one a context, all or
// none: choice i has Sampling.Choice r.Sampling.Choice + i. The first that is not
// cancelled computes the prompt; the others share its KV blocks and differ from their
// first token on. If that token is its last they have what the prefix cache keeps of the
// prompt, and compute the rest. Each counts as a request, in MaxNumSeqs, too.
func (e *Engine) SubmitChoices(ctxs []context.Context, r Request) ([]*Stream, error) {
	n := len(ctxs)
	if n < 1 || n > MaxChoices {
		return nil, invalid("n", "is %d, want 1 to %d", n, MaxChoices)
	}
	if n > e.cfg.MaxQueuedReqs {
		return nil, invalid("n", "is %d, but --max-num-queued-reqs lets %d requests wait", n, e.cfg.MaxQueuedReqs)
	}
	for _, ctx := range ctxs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	// A full queue is refused before any memory is set aside.
	if err := e.enqueue(n, len(r.Prompt)); err != nil {
		return nil, err
	}
	e.gate.RLock() // what is checked here holds until it is in inbox
	defer e.gate.RUnlock()
	if e.state.Load() != stateOpen {
		e.dequeue(n, len(r.Prompt))
		return nil, e.closedError()
	}
	first, err := e.newChoices(r, n)
	if err != nil {
		e.dequeue(n, len(r.Prompt))
		return nil, err
	}
	streams := make([]*Stream, 0, n)
	for i, q := 0, first; q != nil; i, q = i+1, q.sibling {
		q.unwatch = context.AfterFunc(ctxs[i], func() { e.abort(q) })
		streams = append(streams, &q.stream)
	}
	e.arriving.Add(int64(n))
	e.inbox <- first // has room: its capacity is the bound on queued
	return streams, nil
}

// enqueue counts n requests with prompts of tokens each as waiting, if they may.
func (e *Engine) enqueue(n, tokens int) error {
	most := int64(e.cfg.MaxQueuedReqs)
	if waiting, ok := claim(&e.queued, int64(n), func(waiting int64) bool { return waiting+int64(n) <= most }); !ok {
		return fmt.Errorf("%w: %d requests wait to start, --max-num-queued-reqs allows no more than %d", ErrQueueFull, waiting, most)
	}
	most = int64(e.cfg.MaxQueuedTokens)
	fits := func(waiting int64) bool { // one alone may be larger than the bound
		return most == 0 || waiting == 0 || waiting+int64(n*tokens) <= most
	}
	if waiting, ok := claim(&e.queuedTokens, int64(n*tokens), fits); !ok {
		e.queued.Add(-int64(n))
		return fmt.Errorf("%w: %d prompt tokens wait to start, and %d more exceed --max-num-queued-tokens %d", ErrQueueFull, waiting, n*tokens, most)
	}
	return nil
}

// claim adds n to the counter if that fits. A refusal leaves no trace that another
// caller could be refused for.
func claim(counter *atomic.Int64, n int64, fits func(now int64) bool) (now int64, ok bool) {
	for {
		now = counter.Load()
		if !fits(now) {
			return now, false
		}
		if counter.CompareAndSwap(now, now+n) {
			return now, true
		}
	}
}

func (e *Engine) dequeue(n, tokens int) {
	e.queued.Add(-int64(n))
	e.queuedTokens.Add(-int64(n * tokens))
}

// newChoices makes the requests of a prompt's choices, the first of which computes
// it.
func (e *Engine) newChoices(r Request, n int) (*request, error) {
	first, err := e.newRequest(r)
	if err != nil {
		return nil, err
	}
	for last, i := first, 1; i < n; i++ {
		r.Sampling.Choice++
		q, err := e.newRequest(r)
		if err != nil {
			return nil, err
		}
		q.seq.Parent = &first.seq
		last.sibling, last = q, q
	}
	return first, nil
}

// newRequest checks everything that can be wrong with r and sets its memory
// aside.
func (e *Engine) newRequest(r Request) (*request, error) {
	if err := e.checkPrompt(&r); err != nil {
		return nil, err
	}
	maxTokens, err := e.outputRoom(&r)
	if err != nil {
		return nil, err
	}
	if err := e.checkSampling(&r, maxTokens); err != nil {
		return nil, err
	}
	q := &request{id: r.ID, sampling: r.Sampling, row: -1}
	if q.sampling.Temperature < minTemperature {
		q.sampling.Temperature = 0
	}
	q.sampling.TopK = max(q.sampling.TopK, 0)
	q.sampling.PromptLen = int32(len(r.Prompt))
	q.stopIDs = append(q.fewStops[:0], r.StopIDs...)
	if !r.IgnoreEOS {
		q.stopIDs = append(q.stopIDs, e.info.EOSIDs...)
	}
	q.sampling.StopIDs = q.stopIDs
	q.minTokens, q.maxTokens, q.logprobs = r.Sampling.MinTokens, int32(maxTokens), r.Sampling.Logprobs >= 0
	if q.minTokens > 0 && e.allOf(q.stopIDs) {
		return nil, invalid("min_tokens", "is %d, but each of the %d tokens that can be drawn ends the request", q.minTokens, e.info.SampleVocab)
	}
	// One piece of memory for all tokens: the sequence's, whose tail the stream
	// reads. Appending in place never moves it.
	tokens := make([]int32, len(r.Prompt)+maxTokens)
	copy(tokens, r.Prompt)
	q.seq = scheduler.Sequence{
		Tokens: tokens[:len(r.Prompt)], MaxLen: len(tokens),
		Priority: r.Priority, CacheSalt: r.CacheSalt,
	}
	if r.Constrain != nil {
		q.guide = newGuide(r.Constrain)
	}
	q.stream.init(tokens[len(r.Prompt):], int(r.Sampling.Logprobs))
	return q, nil
}

func invalid(param, format string, args ...any) error {
	return &InvalidError{Param: param, Reason: fmt.Sprintf(format, args...)}
}

func (e *Engine) checkPrompt(r *Request) error {
	if len(r.Prompt) == 0 {
		return invalid("prompt", "is empty, want at least one token")
	}
	for i, id := range r.Prompt {
		if id < 0 || int(id) >= e.info.Vocab {
			return invalid("prompt", "token %d is id %d, want 0 to %d", i, id, e.info.Vocab-1)
		}
	}
	if r.Priority != 0 && !e.info.Priority {
		return invalid("priority", "is %d, but the scheduling policy is fcfs: start with --scheduling-policy priority", r.Priority)
	}
	if len(r.CacheSalt) > MaxCacheSalt {
		return invalid("cache_salt", "has %d bytes, want at most %d", len(r.CacheSalt), MaxCacheSalt)
	}
	return nil
}

// outputRoom is the number of tokens that r may generate: what it asks for, or
// all that fits.
func (e *Engine) outputRoom(r *Request) (int, error) {
	info := &e.effective.Load().info
	prompt, length := len(r.Prompt), info.MaxModelLen
	if r.MaxTokens < 0 {
		return 0, invalid("max_tokens", "is %d, want at least 1, or 0 for as many as fit", r.MaxTokens)
	}
	if prompt >= length || r.MaxTokens > length-prompt {
		return 0, fmt.Errorf("%w: the prompt has %d tokens and max_tokens is %d, max_model_len is %d (prompt and output)",
			ErrTooLong, prompt, r.MaxTokens, length)
	}
	// The last token is never computed, so it takes no slot.
	slots := info.NumBlocks * info.BlockSize
	if need := blocksFor(prompt+max(r.MaxTokens, 1)-1, info.BlockSize); need > info.NumBlocks {
		return 0, fmt.Errorf("%w: the prompt has %d tokens and max_tokens is %d, which takes %d blocks of %d tokens; the pool has %d",
			ErrNeverFits, prompt, r.MaxTokens, need, info.BlockSize, info.NumBlocks)
	}
	if r.MaxTokens > 0 {
		return r.MaxTokens, nil
	}
	return min(length, slots+1) - prompt, nil
}

func (e *Engine) checkSampling(r *Request, maxTokens int) error {
	s := &r.Sampling
	for _, f := range []struct {
		param  string
		value  float32
		lo, hi float64
	}{
		{"temperature", s.Temperature, 0, math.MaxFloat32},
		{"top_p", s.TopP, 0, 1},
		{"min_p", s.MinP, 0, 1},
		{"repetition_penalty", s.RepetitionPenalty, 0, math.MaxFloat32},
		{"presence_penalty", s.PresencePenalty, -MaxPenalty, MaxPenalty},
		{"frequency_penalty", s.FrequencyPenalty, -MaxPenalty, MaxPenalty},
	} {
		if v := float64(f.value); !(v >= f.lo && v <= f.hi) { // NaN, too
			if f.hi == math.MaxFloat32 {
				return invalid(f.param, "is %v, want a finite number of at least %v", f.value, f.lo)
			}
			return invalid(f.param, "is %v, want %v to %v", f.value, f.lo, f.hi)
		}
	}
	switch r := s.RepetitionPenalty; {
	case r != 0 && (r < 0.01 || r > 100): // logits divided by less may be infinite, which counts as a broken model
		return invalid("repetition_penalty", "is %v, want 0.01 to 100, or 0 for off", r)
	case s.TopK < -1:
		return invalid("top_k", "is %d, want at least 1, or 0 or -1 for off", s.TopK)
	case s.MinTokens < 0 || int(s.MinTokens) > maxTokens:
		return invalid("min_tokens", "is %d, want 0 to %d, the most that this request can generate", s.MinTokens, maxTokens)
	case s.Logprobs < -1 || int(s.Logprobs) > e.cfg.maxLogprobs():
		return invalid("top_logprobs", "is %d, want at most %d", s.Logprobs, e.cfg.maxLogprobs())
	case s.Choice < 0:
		return invalid("n", "choice %d is negative", s.Choice)
	}
	return e.checkIDs(r)
}

// checkIDs checks the lists of ids. An id out of range that reached the device
// would write into a neighbour's logits.
func (e *Engine) checkIDs(r *Request) error {
	if n := len(r.StopIDs); n > MaxStopIDs {
		return invalid("stop_token_ids", "has %d ids, want at most %d", n, MaxStopIDs)
	}
	for _, id := range r.StopIDs {
		if id < 0 || int(id) >= e.info.Vocab {
			return invalid("stop_token_ids", "has id %d, want 0 to %d", id, e.info.Vocab-1)
		}
	}
	bias := r.Sampling.LogitBias
	if n := len(bias); n > MaxLogitBias {
		return invalid("logit_bias", "has %d ids, want at most %d", n, MaxLogitBias)
	}
	seen := make(map[int32]bool, len(bias))
	for _, b := range bias {
		switch v := float64(b.Bias); {
		case b.ID < 0 || int(b.ID) >= e.info.Vocab:
			return invalid("logit_bias", "has id %d, want 0 to %d", b.ID, e.info.Vocab-1)
		case seen[b.ID]:
			return invalid("logit_bias", "has id %d twice", b.ID)
		case !(v >= -MaxBias && v <= MaxBias):
			return invalid("logit_bias", "is %v for id %d, want %d to %d", b.Bias, b.ID, -MaxBias, MaxBias)
		}
		seen[b.ID] = true
	}
	return nil
}

// allOf says whether no id can be drawn but these.
func (e *Engine) allOf(ids []int32) bool {
	if len(ids) < e.info.SampleVocab { // as ever, but with a toy's vocabulary
		return false
	}
	drawn := make(map[int32]bool, len(ids))
	for _, id := range ids {
		if int(id) < e.info.SampleVocab {
			drawn[id] = true
		}
	}
	return len(drawn) == e.info.SampleVocab
}

// abort asks the engine's goroutine to end q. It never blocks and is never
// lost: aborts are a stack that each request enters at most once, so that its
// bound is the number of live requests.
func (e *Engine) abort(q *request) {
	if !q.aborting.CompareAndSwap(false, true) {
		return
	}
	for {
		head := e.aborts.Load()
		q.abortNext = head
		if e.aborts.CompareAndSwap(head, q) {
			break
		}
	}
	e.poke()
}

// poke wakes the engine's goroutine if it is idle.
func (e *Engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}
