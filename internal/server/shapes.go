package server

import "github.com/pagoda-engine/pagoda/engine"

// shape is how an endpoint of OpenAI dresses choices.
type shape interface {
	// whole is the choice of a response without streaming.
	whole(c *choice, r delta) any
	// opening is the choice of an event before the first chunk; nil = none.
	opening(c *choice) any
	// chunk is the choice of an event; first says that it is c's first chunk.
	chunk(c *choice, d delta, first bool) any
}

// chatShape dresses choices for /v1/chat/completions.
type chatShape struct{ s *Server }

func (f chatShape) whole(c *choice, r delta) any {
	out := chatChoice{
		Index: c.index, Message: &chatMessage{Role: "assistant", Content: &r.text, ToolCalls: r.called},
		Logprobs: f.s.chatLogprobs(c.g.r, r.logprobs), FinishReason: c.reason(r.finish), StopReason: r.stopReason,
	}
	if c.g.r.echo {
		*out.Message.Content = c.g.promptText(c) + r.text
	}
	if *out.Message.Content == "" && len(r.called) > 0 {
		out.Message.Content = nil
	}
	if c.g.r.returnTokenIDs {
		out.TokenIDs = r.ids
	}
	return out
}

func (chatShape) opening(c *choice) any {
	return chatChoice{Index: c.index, Delta: &chatDelta{Role: "assistant", Content: new(string)}}
}

func (f chatShape) chunk(c *choice, d delta, first bool) any {
	if first && c.g.r.echo {
		d.text = c.g.promptText(c) + d.text
	}
	out := chatChoice{
		Index: c.index, Delta: &chatDelta{},
		Logprobs: f.s.chatLogprobs(c.g.r, d.logprobs), FinishReason: c.reason(d.finish), StopReason: d.stopReason,
	}
	out.Delta.ToolCalls = callDeltas(d.calls)
	if d.text != "" || d.finish == engine.FinishNone && len(out.Delta.ToolCalls) == 0 {
		out.Delta.Content = &d.text
	}
	if c.g.r.returnTokenIDs {
		out.TokenIDs = d.ids
	}
	return out
}

// textShape dresses choices for /v1/completions.
type textShape struct {
	s       *Server
	offsets []int // of each choice: characters of its tokens so far
}

func newTextShape(s *Server, r *request) *textShape {
	return &textShape{s: s, offsets: make([]int, len(r.prompts)*r.n)}
}

func (f *textShape) whole(c *choice, r delta) any {
	out := textChoice{Index: c.index, Text: r.text, FinishReason: c.reason(r.finish), StopReason: r.stopReason}
	if c.g.r.echo {
		out.Text = c.g.promptText(c) + out.Text
	}
	if c.g.r.echo && c.g.r.logprobs {
		r.logprobs = append(c.score(), r.logprobs...)
	}
	if c.g.r.promptGiven {
		out.PromptProbs = f.s.shownScores(c.g.r, c.score())
	}
	out.Logprobs, _ = f.s.textLogprobs(c.g.r, r.logprobs, 0)
	if c.g.r.returnTokenIDs {
		out.TokenIDs, out.PromptIDs = r.ids, c.prompt
	}
	return out
}

func (*textShape) opening(*choice) any { return nil }

func (f *textShape) chunk(c *choice, d delta, first bool) any {
	out := textChoice{Index: c.index, Text: d.text, FinishReason: c.reason(d.finish), StopReason: d.stopReason}
	if first && c.g.r.echo {
		out.Text = c.g.promptText(c) + out.Text
	}
	if first && c.g.r.echo && c.g.r.logprobs {
		d.logprobs = append(c.score(), d.logprobs...)
	}
	out.Logprobs, f.offsets[c.index] = f.s.textLogprobs(c.g.r, d.logprobs, f.offsets[c.index])
	if c.g.r.returnTokenIDs {
		out.TokenIDs = d.ids
		if first {
			out.PromptIDs = c.prompt
		}
	}
	return out
}
