package server

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model/chat"
)

func (s *Server) handleChat(w http.ResponseWriter, req *http.Request) {
	arrival := time.Now()
	r := s.defaults()
	defer r.encoded()
	err := s.decodeRequest(w, req, chatFields, &r)
	if err == nil && r.messages == nil {
		err = badField("messages", "is missing")
	}
	if err != nil {
		s.writeError(w, err)
		return
	}
	ids, err := s.encodeChat(req.Context(), &r, "messages")
	if err != nil {
		s.writeError(w, err)
		return
	}
	g := &generation{s: s, r: &r, arrival: arrival, prompts: [][]int32{ids}}
	s.generate(w, req, g, "chatcmpl-", "chat.completion", "messages", chatShape{s})
}

func (s *Server) handleCompletions(w http.ResponseWriter, req *http.Request) {
	arrival := time.Now()
	r := s.defaults()
	defer r.encoded()
	r.defaultMaxTokens = completionMaxTokens
	err := s.decodeRequest(w, req, completionFields, &r)
	if err == nil && r.prompts == nil {
		err = badField("prompt", "is missing")
	}
	if err == nil && len(r.prompts)*r.n > maxChoices {
		err = badField("n", "is %d for %d prompts, at most %d choices are allowed", r.n, len(r.prompts), maxChoices)
	}
	if err == nil && len(r.prompts)*r.n > s.info.MaxQueued { // it would be refused however often it came
		err = badField("prompt", "has %d prompts of %d choices each, but --max-num-queued-reqs lets %d requests wait", len(r.prompts), r.n, s.info.MaxQueued)
	}
	if err != nil {
		s.writeError(w, err)
		return
	}
	g := &generation{s: s, r: &r, arrival: arrival}
	for _, p := range r.prompts {
		ids, err := s.encodePrompt(req.Context(), &r, p)
		if err != nil {
			s.writeError(w, err)
			return
		}
		g.prompts = append(g.prompts, ids)
	}
	s.generate(w, req, g, "cmpl-", "text_completion", "prompt", newTextShape(s, &r))
}

// decodeRequest reads the body into r, which holds the defaults.
func (s *Server) decodeRequest(w http.ResponseWriter, req *http.Request, table map[string]field, r *request) *apiError {
	r.traceparent = req.Header.Get("Traceparent")
	body, err := s.readBody(w, req, r)
	if err != nil {
		return err
	}
	if err := s.decodeFields(body, table, r); err != nil {
		return err
	}
	if err := s.checkModel(&r.model); err != nil {
		return err
	}
	if err := r.checkVocabulary("prompt", s.info.VocabSize, s.info.SampleVocab); err != nil {
		return err
	}
	r.normalize()
	r.cacheSalt = s.salted(req, r.cacheSalt)
	r.owner = s.ownerOf(req)
	if s.tokenizer == nil {
		r.returnTokenIDs = true // there is no other answer
		if len(r.stops) > 0 {
			return unsupported("stop", "needs a tokenizer, this model has none")
		}
	}
	return r.check(s.info.MaxLogprobs, s.info.Priority)
}

// encodePrompt makes ids of a raw prompt; special tokens in it are parsed.
func (s *Server) encodePrompt(ctx context.Context, r *request, p prompt) ([]int32, *apiError) {
	ids := p.ids
	if ids == nil {
		if s.tokenizer == nil {
			return nil, badField("prompt", "must be token ids: this model has no tokenizer")
		}
		encode := s.tokenizer.Encode
		if !r.addSpecial {
			encode = func(text string) ([]int32, error) { return s.tokenizer.EncodeRendered(text, nil) }
		}
		s.keepRendered(r, p.text, p.text)
		var err *apiError
		if ids, err = s.encode(ctx, r, "prompt", p.text, func() ([]int32, error) { return encode(p.text) }); err != nil {
			return nil, err
		}
	}
	if len(ids) == 0 {
		return nil, badField("prompt", "must not be empty")
	}
	return r.cut(ids, s.info.MaxModelLen), nil
}

// encodeChat renders and encodes messages. Their contents are data.
func (s *Server) encodeChat(ctx context.Context, r *request, param string) ([]int32, *apiError) {
	if s.template == nil || s.tokenizer == nil {
		return nil, badField(param, "must be rendered by a chat template and encoded by a tokenizer, this model has none; use /v1/completions")
	}
	rendered, err := s.template.Render(chat.Input{
		Messages: r.messages, Tools: r.tools, Documents: r.documents, Kwargs: r.kwargs, ParseArguments: true,
		AddGenerationPrompt: r.addGenerationPrompt, ContinueFinalMessage: r.continueFinal,
	})
	if err != nil {
		e := badRequest("%s", err)
		e.param = faultOf(err, param)
		return nil, e
	}
	if s.parseSpecial {
		rendered.Literal = nil
	}
	s.keepRendered(r, rendered.Text, lastUserText(r.messages))
	ids, bad := s.encode(ctx, r, param, rendered.Text, func() ([]int32, error) {
		return s.tokenizer.EncodeRendered(rendered.Text, rendered.Literal)
	})
	if bad != nil {
		return nil, bad
	}
	if len(ids) == 0 {
		return nil, badField(param, "must not make an empty prompt")
	}
	return r.cut(ids, s.info.MaxModelLen), nil
}

// faultOf is the field that an error of chat begins with; what a template refuses is the
// messages' fault.
func faultOf(err error, messages string) string {
	for _, field := range []string{"tools", "documents", "chat_template_kwargs", "continue_final_message"} {
		if strings.HasPrefix(err.Error(), field) {
			return field
		}
	}
	return messages
}

// generate runs g and answers, by events or by one body.
func (s *Server) generate(w http.ResponseWriter, req *http.Request, g *generation, prefix, object, param string, shape shape) {
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel() // frees whatever still runs
	if err := s.start(ctx, w, g, prefix, param); err != nil {
		s.writeError(w, err)
		return
	}
	if g.r.stream {
		if object == "chat.completion" {
			object += ".chunk"
		}
		s.stream(ctx, w, g, object, param, shape)
		return
	}
	results, err := g.collect(ctx)
	g.countLongest()
	if err != nil {
		s.fail(ctx, w, g, nil, err, param)
		return
	}
	body := g.response(object)
	for i, res := range results {
		body.Choices = append(body.Choices, shape.whole(g.choices[i], res))
	}
	body.Usage = g.usage()
	if g.r.promptGiven && g.r.messages != nil {
		body.PromptLogprobs = s.shownScores(g.r, g.scores[0])
	}
	if g.r.returnTokenIDs && g.r.prompts == nil {
		body.PromptTokenIDs = g.prompts[0]
	}
	s.writeJSON(w, http.StatusOK, body)
}

// start submits g, whose prompts are encoded.
func (s *Server) start(ctx context.Context, w http.ResponseWriter, g *generation, prefix, param string) *apiError {
	if err := s.constrain(ctx, g); err != nil {
		return err
	}
	g.r.encoded()
	g.created = g.arrival.Unix()
	if g.r.id != "" {
		w.Header().Set(requestIDHeader, g.r.id)
	}
	g.id = prefix + w.Header().Get(requestIDHeader)
	for _, ids := range g.prompts {
		if len(ids)+max(1, g.r.maxTokens) > s.info.MaxModelLen {
			return tooLong(param, len(ids), g.r.maxTokens, s.info.MaxModelLen)
		}
	}
	if err := g.score(ctx); err != nil {
		return s.mapError(err, param)
	}
	if err := g.submit(ctx); err != nil {
		s.metrics.refused(err)
		return s.mapError(err, param)
	}
	s.metrics.submitted(g.r, g.prompts)
	s.inspector.add(g)
	return nil
}

func (g *generation) response(object string) *response {
	return &response{ID: g.id, Object: object, Created: g.created, Model: g.r.model, Choices: []any{}}
}

// stream answers by events: deltas of all choices as they come, usage, [DONE].
func (s *Server) stream(ctx context.Context, w http.ResponseWriter, g *generation, object, param string, shape shape) {
	st := &stream{g: g, out: s.newEventWriter(w), object: object, shape: shape}
	err := g.each(ctx, st.run)
	g.countLongest()
	if err != nil {
		s.fail(ctx, w, g, st.out, err, param)
		return
	}
	if g.r.includeUsage {
		body := g.response(object)
		body.Usage = g.usage()
		if st.out.event(body) != nil {
			return
		}
	}
	_ = st.out.end()
}

// stream is the events of a generation.
type stream struct {
	g      *generation
	object string
	shape  shape
	mu     sync.Mutex // guards out, which choices share
	out    *eventWriter
}

// run writes the events of one choice.
func (st *stream) run(ctx context.Context, c *choice) error {
	r := st.g.r
	opened := false
	for first := true; ; {
		d, err := c.next(ctx)
		if err != nil {
			return err
		}
		if !opened {
			opened = true
			if opening := st.shape.opening(c); opening != nil {
				if err := st.write(c, opening, true); err != nil {
					return err
				}
			}
		}
		// A character or a stop string may be under way, and nothing to show.
		if d.text != "" || len(d.calls) > 0 || d.finish != engine.FinishNone || r.logprobs || r.returnTokenIDs || first && r.echo {
			if err := st.write(c, st.shape.chunk(c, d, first), false); err != nil {
				return err
			}
			first = false
		}
		if d.finish != engine.FinishNone {
			return nil
		}
	}
}

// write sends one choice as an event.
func (st *stream) write(c *choice, dressed any, opening bool) error {
	body := st.g.response(st.object)
	body.Choices = append(body.Choices, dressed)
	switch {
	case st.g.r.includeUsage && st.g.r.continuousUsage:
		u := c.usage()
		if opening { // the first token is there, but not shown yet
			u.CompletionTokens, u.TotalTokens = 0, u.PromptTokens
		}
		body.Usage = u
	case st.g.r.includeUsage:
		body.Usage = null
	}
	if opening && st.g.r.returnTokenIDs {
		body.PromptTokenIDs = c.prompt
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.out.event(body)
}

// usage is that of one choice, for continuous_usage_stats.
func (c *choice) usage() *usage {
	u := &usage{PromptTokens: len(c.prompt), CompletionTokens: c.tokens, TotalTokens: len(c.prompt) + c.tokens}
	u.Details.CachedTokens = c.cached
	return u
}

// fail ends a request that the engine or the client broke off. out is nil
// without streaming.
func (s *Server) fail(ctx context.Context, w http.ResponseWriter, g *generation, out *eventWriter, err error, param string) {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) && !s.aborting.Load() {
		g.countUnfinished(engine.FinishAbort)
		if out == nil || !out.started {
			s.writeError(w, s.cancelled())
		}
		return
	}
	if errors.Is(err, context.Canceled) {
		err = engine.ErrClosed
	}
	e := s.mapError(err, param)
	if out != nil && out.started {
		if werr := out.event(e); werr != nil {
			g.countUnfinished(engine.FinishAbort) // the client does not take what is written
			s.log.Debug("client went away", "id", g.id, "err", werr)
			return
		}
		out.done()
	} else {
		s.writeError(w, e)
	}
	g.countUnfinished(engine.FinishError)
	s.log.Error("request failed", "id", g.id, "err", err, "after", time.Since(g.arrival))
}
