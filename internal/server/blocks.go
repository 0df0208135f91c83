package server

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
)

// The protocols that show an answer as a list of blocks, text and tool calls, one
// after the other: Anthropic's messages and OpenAI's responses.

// block is a part of an answer: text, or a call.
type block struct {
	text string
	call *toolCall // nil = text
}

// blocksOf is a whole answer.
func blocksOf(d delta) (out []block) {
	if d.text != "" || len(d.called) == 0 {
		out = append(out, block{text: d.text})
	}
	for i := range d.called {
		out = append(out, block{call: &d.called[i]})
	}
	return out
}

// protocol dresses an answer.
type protocol interface {
	// whole is the body of an answer without streaming.
	whole(g *generation, blocks []block, d delta) any
	// The events of a stream: its begin, for each block an open, its deltas and a
	// close with all of it, and its end.
	begin(e *eventWriter, g *generation) error
	open(e *eventWriter, g *generation, index int, b block) error
	delta(e *eventWriter, g *generation, index int, b block, piece string) error
	close(e *eventWriter, g *generation, index int, b block) error
	end(e *eventWriter, g *generation, blocks []block, d delta) error
	// fail is the event of a stream that broke off.
	fail(e *eventWriter, g *generation, err *apiError) error
}

// answer runs a decoded chat and answers by protocol p.
func (s *Server) answer(w http.ResponseWriter, req *http.Request, r *request, arrival time.Time, prefix, param string, p protocol) {
	ids, apiErr := s.encodeChat(req.Context(), r, param)
	if apiErr != nil {
		s.writeError(w, apiErr)
		return
	}
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel() // frees whatever still runs
	g := &generation{s: s, r: r, arrival: arrival, prompts: [][]int32{ids}}
	if err := s.start(ctx, w, g, prefix, param); err != nil {
		s.writeError(w, err)
		return
	}
	if r.stream {
		st := &blockStream{g: g, out: s.newEventWriter(w), p: p}
		err := st.run(ctx, g.choices[0])
		g.countLongest()
		if err != nil {
			st.fail(ctx, w, err, param)
		} else {
			st.out.done()
		}
		return
	}
	results, err := g.collect(ctx)
	g.countLongest()
	if err != nil {
		s.fail(ctx, w, g, nil, err, param)
		return
	}
	s.writeJSON(w, http.StatusOK, p.whole(g, blocksOf(results[0]), results[0]))
}

// blockStream turns deltas into blocks.
type blockStream struct {
	g      *generation
	out    *eventWriter
	p      protocol
	blocks []block
	opened bool // the last of blocks is
}

func (st *blockStream) run(ctx context.Context, c *choice) error {
	for first := true; ; first = false {
		d, err := c.next(ctx)
		if err != nil {
			return err
		}
		if first {
			if err := st.p.begin(st.out, st.g); err != nil {
				return err
			}
		}
		if err := st.add(d); err != nil {
			return err
		}
		if d.finish != engine.FinishNone {
			if err := st.close(); err != nil {
				return err
			}
			return st.p.end(st.out, st.g, st.blocks, d)
		}
	}
}

// add shows a delta: what still belongs to an open call before text that comes behind it.
func (st *blockStream) add(d delta) error {
	calls := d.calls
	for len(calls) > 0 && calls[0].id == "" {
		if err := st.addCall(calls[0]); err != nil {
			return err
		}
		calls = calls[1:]
	}
	if d.text != "" {
		if !st.opened || st.last().call != nil {
			if err := st.open(block{}); err != nil {
				return err
			}
		}
		st.last().text += d.text
		if err := st.p.delta(st.out, st.g, len(st.blocks)-1, *st.last(), d.text); err != nil {
			return err
		}
	}
	for _, piece := range calls {
		if err := st.addCall(piece); err != nil {
			return err
		}
	}
	return nil
}

func (st *blockStream) addCall(piece callDelta) error {
	if piece.broken {
		return nil // its beginning cannot be taken back
	}
	if piece.id != "" {
		if err := st.open(block{call: &toolCall{ID: piece.id, Type: "function", Function: calledFunction{Name: piece.name}}}); err != nil {
			return err
		}
	}
	if piece.arguments == "" {
		return nil
	}
	st.last().call.Function.Arguments += piece.arguments
	return st.p.delta(st.out, st.g, len(st.blocks)-1, *st.last(), piece.arguments)
}

func (st *blockStream) last() *block { return &st.blocks[len(st.blocks)-1] }

func (st *blockStream) open(b block) error {
	if err := st.close(); err != nil {
		return err
	}
	st.blocks, st.opened = append(st.blocks, b), true
	return st.p.open(st.out, st.g, len(st.blocks)-1, b)
}

func (st *blockStream) close() error {
	if !st.opened {
		return nil
	}
	st.opened = false
	return st.p.close(st.out, st.g, len(st.blocks)-1, *st.last())
}

// fail ends a stream that the engine or the client broke off.
func (st *blockStream) fail(ctx context.Context, w http.ResponseWriter, err error, param string) {
	s := st.g.s
	if !st.out.started {
		s.fail(ctx, w, st.g, nil, err, param)
		return
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) && !s.aborting.Load() {
		st.g.countUnfinished(engine.FinishAbort)
		return // nobody listens
	}
	if errors.Is(err, context.Canceled) {
		err = engine.ErrClosed
	}
	if st.p.fail(st.out, st.g, s.mapError(err, param)) == nil {
		st.out.done()
	}
	st.g.countUnfinished(engine.FinishError)
	s.log.Error("request failed", "id", st.g.id, "err", err, "after", time.Since(st.g.arrival))
}
