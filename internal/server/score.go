package server

import (
	"context"
	"slices"
	"strconv"
)

// score has the engine score the prompts, for prompt_logprobs and for echo with
// logprobs.
func (g *generation) score(ctx context.Context) error {
	top, wanted := g.r.promptLogprobs, g.r.promptGiven
	if g.r.echo && g.r.logprobs && g.r.messages == nil {
		top, wanted = max(top, g.r.topLogprobs), true
	}
	if !wanted {
		return nil
	}
	for _, ids := range g.prompts {
		// One at a time: the engine does all that it has of these before its next step.
		release, err := g.s.scoring.acquire(ctx, 1)
		if err != nil {
			return err
		}
		scored, err := g.s.engine.PromptLogprobs(ctx, ids, top)
		release()
		if err != nil {
			return err
		}
		tokens := make([]tokenLogprob, len(ids))
		for i, p := range scored {
			tokens[i] = tokenLogprob{id: ids[i], logprob: p.Logprob, rank: p.Rank, first: i == 0}
			for k, id := range p.TopIDs {
				tokens[i].top = append(tokens[i].top, tokenLogprob{id: id, logprob: p.TopLogprobs[k], rank: int32(k + 1)})
			}
		}
		g.scores = append(g.scores, tokens)
	}
	return nil
}

// score is that of the choice's prompt, with as many alternatives as logprobs asks.
func (c *choice) score() []tokenLogprob {
	return slices.Clone(c.g.scores[c.index/c.g.r.n])
}

// shownScore is a token as prompt_logprobs shows it, under its id.
type shownScore struct {
	Logprob float32 `json:"logprob"`
	Rank    int32   `json:"rank"`
	Decoded string  `json:"decoded_token"`
}

// shownScores are a prompt's tokens, null for the first.
func (s *Server) shownScores(r *request, tokens []tokenLogprob) []map[string]shownScore {
	out := make([]map[string]shownScore, len(tokens))
	for i, t := range tokens {
		if t.first {
			continue
		}
		out[i] = map[string]shownScore{}
		for _, alternative := range append(t.top[:min(len(t.top), r.promptLogprobs):min(len(t.top), r.promptLogprobs)], t) {
			text, _ := s.tokenText(r, alternative.id)
			out[i][strconv.Itoa(int(alternative.id))] = shownScore{finiteLogprob(alternative.logprob), alternative.rank, text}
		}
	}
	return out
}
