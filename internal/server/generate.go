package server

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
)

// generation is a request under way: its prompts encoded, its choices submitted.
type generation struct {
	s       *Server
	r       *request
	id      string // of the response: "chatcmpl-…"
	created int64
	arrival time.Time
	// submitted is when the engine got it.
	submitted time.Time
	prompts   [][]int32
	scores    [][]tokenLogprob                  // of the prompts, where asked for
	constrain func() (engine.Constraint, error) // of each choice; nil = none
	choices   []*choice                         // of prompt p: choices[p·n] … choices[p·n + n − 1]
}

// choice is one engine request and the way from its tokens to text.
type choice struct {
	g       *generation
	index   int
	prompt  []int32
	stream  Stream
	cancel  context.CancelFunc
	decoder Decoder // nil without a tokenizer
	stops   *stopMatcher
	tools   *toolParser // nil: calls are text

	tokens      int // generated
	cached      int // prompt tokens that came from the cache
	done        bool
	preemptions int
	// admitted is when the engine first had a place for it.
	admitted, first, last time.Time

	inspected *inspectedChoice // nil: it is not kept for the page
}

// delta is what a token added to a choice.
type delta struct {
	text       string
	calls      []callDelta // of a stream
	called     []toolCall  // of a whole answer
	ids        []int32
	logprobs   []tokenLogprob
	finish     engine.FinishReason
	stopReason any // a stop string or a stop id; nil
}

// tokenLogprob is a token with its log probability and the likeliest others.
type tokenLogprob struct {
	id      int32
	logprob float32
	top     []tokenLogprob
	rank    int32 // of a prompt's token
	first   bool  // nothing stands before it: it has no log probability
}

// submit hands every prompt with its choices to the engine. The caller cancels
// ctx when it fails.
func (g *generation) submit(ctx context.Context) error {
	g.submitted = time.Now()
	for p, ids := range g.prompts {
		// The last token is never computed, so it needs no place in the pool.
		room := min(g.s.info.MaxModelLen, g.s.info.PoolTokens+1) - len(ids)
		id := g.id
		if len(g.prompts) > 1 {
			id += "-" + strconv.Itoa(p)
		}
		ctxs, choices := make([]context.Context, g.r.n), make([]*choice, g.r.n)
		for i := range choices {
			c := &choice{g: g, index: p*g.r.n + i, prompt: ids, stops: newStopMatcher(g.r.stops)}
			ctxs[i], c.cancel = context.WithCancel(ctx)
			if g.r.tooling.parsed() {
				c.tools = newToolParser(g.r.tooling.limit())
			}
			if g.s.tokenizer != nil {
				// Some models' tags of tool calls are special tokens.
				c.decoder = g.s.tokenizer.NewDecoder(g.r.skipSpecial && c.tools == nil)
			}
			choices[i] = c
		}
		request := g.r.engineRequest(id, ids, room)
		request.Constrain = g.constrain
		streams, err := g.s.engine.SubmitChoices(ctxs, request)
		if err != nil {
			for _, c := range choices {
				c.cancel()
			}
			return err
		}
		for i, c := range choices {
			c.stream = streams[i]
		}
		g.choices = append(g.choices, choices...)
	}
	return nil
}

// next waits for a token and returns what it adds. After a delta with a finish
// reason there is none.
func (c *choice) next(ctx context.Context) (delta, error) {
	ev, ok := c.stream.Next(ctx)
	switch {
	case !ok && ctx.Err() != nil:
		return delta{}, ctx.Err()
	case !ok:
		return delta{}, errStreamEnded
	case ev.Finish == engine.FinishError && ev.Err != nil:
		if errors.Is(ev.Err, engine.ErrNotNumbers) {
			c.g.s.metrics.corrupted.Inc()
		}
		return delta{}, ev.Err
	case ev.Finish == engine.FinishError:
		return delta{}, errStreamEnded
	case ev.Finish == engine.FinishAbort && ctx.Err() != nil:
		return delta{}, ctx.Err()
	case ev.Finish == engine.FinishAbort:
		return delta{}, engine.ErrClosed // nobody on this side asked for it
	}
	d := delta{finish: ev.Finish}
	if c.g.r.scoreOnly {
		d.finish = engine.FinishLength
		c.finish(d.finish)
		return d, nil
	}
	if ev.HasToken {
		c.count(ev)
		if c.g.r.returnTokenIDs {
			d.ids = []int32{ev.Token}
		}
		if c.g.r.logprobs {
			d.logprobs = []tokenLogprob{c.tokenLogprob(ev)}
		}
	}
	c.show(&d, ev)
	if c.tools != nil {
		c.showCalls(&d)
	}
	if d.finish != engine.FinishNone {
		c.finish(d.finish)
	}
	return d, nil
}

// show adds the text of ev to d, and ends the choice at a stop string.
func (c *choice) show(d *delta, ev engine.Event) {
	text := ""
	if c.decoder != nil {
		// A stop id ends the text; it is part of it only on demand.
		ends := ev.Finish == engine.FinishStop && ev.Token == ev.StopID
		if ev.HasToken && (!ends || c.g.r.includeStop) {
			text = c.decoder.Next(ev.Token)
		}
		if ev.Finish != engine.FinishNone {
			text += c.decoder.Flush()
		}
	}
	var match int
	d.text, match = c.stops.feed(text, c.tokens > int(c.g.r.sampling.MinTokens))
	switch {
	case match >= 0:
		stop := c.g.r.stops[match]
		if c.g.r.includeStop {
			d.text += stop
		}
		d.finish, d.stopReason = engine.FinishStop, stop
	case ev.Finish != engine.FinishNone:
		d.text += c.stops.flush()
		if ev.Finish == engine.FinishStop && c.g.r.stopsAt(ev.StopID) {
			d.stopReason = ev.StopID
		}
	}
}

// showCalls tells the calls in d's text from the rest, and ends the choice when it
// has as many as were asked for.
func (c *choice) showCalls(d *delta) {
	d.text, d.calls = c.tools.feed(d.text)
	if c.tools.full() && d.finish == engine.FinishNone {
		d.finish = engine.FinishStop
	}
	if d.finish != engine.FinishNone {
		text, calls := c.tools.flush()
		for i := range calls {
			calls[i].at += len(d.text)
		}
		d.text, d.calls = d.text+text, append(d.calls, calls...)
	}
}

// reason is why the choice ended, as OpenAI says it: with tool calls, unless the
// end cut one, or the client itself had named the function.
func (c *choice) reason(f engine.FinishReason) *string {
	s := string(f)
	switch {
	case f == engine.FinishNone:
		return nil
	case c.tools == nil || c.tools.whole == 0 || c.g.r.tooling.mode == toolsNamed:
	case f == engine.FinishStop, f == engine.FinishLength && !c.tools.torn:
		s = "tool_calls"
	}
	return &s
}

// stopsAt says whether the client named id in stop_token_ids.
func (r *request) stopsAt(id int32) bool {
	for _, stop := range r.stopIDs {
		if stop == id {
			return true
		}
	}
	return false
}

func (c *choice) tokenLogprob(ev engine.Event) tokenLogprob {
	t := tokenLogprob{id: ev.Token, logprob: ev.Logprob}
	for i, id := range ev.TopIDs {
		if i < c.g.r.topLogprobs {
			t.top = append(t.top, tokenLogprob{id: id, logprob: ev.TopLogprobs[i]})
		}
	}
	return t
}

// usage counts prompts once, whatever n is.
func (g *generation) usage() *usage {
	u := &usage{}
	for i, c := range g.choices {
		if i%g.r.n == 0 {
			u.PromptTokens += len(c.prompt)
			u.Details.CachedTokens += c.cached
		}
		u.CompletionTokens += c.tokens
	}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	return u
}

// collect runs all choices to their end and joins the deltas of each.
func (g *generation) collect(ctx context.Context) ([]delta, error) {
	results := make([]delta, len(g.choices))
	err := g.each(ctx, func(ctx context.Context, c *choice) error {
		var text []byte
		var calls callJoiner
		res := &results[c.index]
		for res.finish == engine.FinishNone {
			d, err := c.next(ctx)
			if err != nil {
				return err
			}
			text = append(text, calls.add(d.text, d.calls)...)
			res.ids = append(res.ids, d.ids...)
			res.logprobs = append(res.logprobs, d.logprobs...)
			res.finish, res.stopReason = d.finish, d.stopReason
		}
		res.text, res.called = string(text), calls.calls()
		return nil
	})
	return results, err
}

// promptText is the text of a choice's prompt, for echo.
func (g *generation) promptText(c *choice) string {
	if g.r.messages != nil {
		return g.r.lastAnswer()
	}
	if in := g.r.prompts[c.index/g.r.n]; in.ids == nil {
		return in.text
	}
	if g.s.tokenizer == nil {
		return ""
	}
	return g.s.tokenizer.Decode(c.prompt, g.r.skipSpecial)
}

// each runs f for every choice, on this goroutine if there is one only. The
// first error cancels the others and is returned.
func (g *generation) each(ctx context.Context, f func(context.Context, *choice) error) error {
	if len(g.choices) == 1 {
		return f(ctx, g.choices[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make(chan error, len(g.choices))
	for _, c := range g.choices {
		go func() {
			defer func() {
				if bug := recover(); bug != nil {
					errs <- &choicePanic{bug, debug.Stack()}
				}
			}()
			errs <- f(ctx, c)
		}()
	}
	var first error
	for range g.choices {
		if err := <-errs; err != nil && first == nil {
			first = err
			cancel()
		}
	}
	if bug, ok := first.(*choicePanic); ok { //nolint:errorlint // never wrapped
		panic(bug) // on the handler's goroutine, where it costs this request alone
	}
	return first
}

// choicePanic carries a panic from the goroutine of a choice to its handler's.
type choicePanic struct {
	value any
	stack []byte
}

// Error implements error.
func (p *choicePanic) Error() string { return fmt.Sprintf("%v\n%s", p.value, p.stack) }
