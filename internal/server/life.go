package server

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
)

// lifeEvent is what happened to a sequence in one step or in several alike.
type lifeEvent struct {
	Kind   string  `json:"kind"` // wait, admit, prefill, decode, preempt or sit
	From   int64   `json:"from"` // steps, both included; 0 = no step tells of it
	To     int64   `json:"to"`
	FromMs float64 `json:"from_ms"` // since the request arrived
	ToMs   float64 `json:"to_ms"`
	Tokens int     `json:"tokens,omitempty"`
	Text   string  `json:"text"`

	first bool // the sequence's first admission
}

const shortestWaitMs = 1 // what is shorter is not worth a line

// tellLife tells a choice's life from the records of its steps.
func (s *Server) tellLife(ctx context.Context, c *shownChoice) error {
	records, err := s.engine.StepsOf(ctx, c.sequence, mostSteps)
	if err != nil {
		return err
	}
	whole := false // from the first admission on
	for i := range records {
		for _, e := range s.happened(&records[i], c.sequence) {
			e.From, e.To = records[i].Step, records[i].Step
			e.FromMs = ms(records[i].Start.Sub(c.began))
			if e.ToMs = e.FromMs; e.Tokens > 0 {
				e.ToMs += ms(records[i].Device)
			}
			whole = whole || e.first
			if n := len(c.Life) - 1; n >= 0 && c.Life[n].Kind == e.Kind && (e.Kind == "decode" || c.Life[n].Text == e.Text && e.Kind != "prefill") {
				c.Life[n].To, c.Life[n].ToMs = e.To, e.ToMs
				c.Life[n].Tokens += e.Tokens
				continue
			}
			c.Life = append(waitUntil(c.Life, e.FromMs), e)
		}
	}
	if len(c.Life) == 0 {
		return nil
	}
	if whole && c.Life[0].FromMs-c.readyMs >= shortestWaitMs {
		c.Life = slices.Insert(c.Life, 0, lifeEvent{Kind: "wait", FromMs: c.readyMs, ToMs: c.Life[0].FromMs})
	}
	if c.Finish == "" {
		c.Life = waitUntil(c.Life, ms(time.Since(c.began)))
	}
	c.LifeCut = !whole || len(c.Life) > mostLifeEvents
	c.Life = c.Life[max(0, len(c.Life)-mostLifeEvents):]
	return nil
}

// waitUntil lets a wait at the end of life last until atMs, and makes one after a
// preemption: steps name only the head of the queue.
func waitUntil(life []lifeEvent, atMs float64) []lifeEvent {
	if len(life) == 0 {
		return life
	}
	switch last := &life[len(life)-1]; {
	case last.Kind == "wait" || last.Kind == "sit":
		last.ToMs = max(last.ToMs, atMs)
	case last.Kind == "preempt" && atMs-last.FromMs >= shortestWaitMs:
		life = append(life, lifeEvent{Kind: "wait", FromMs: last.FromMs, ToMs: atMs})
	}
	return life
}

// happened is what one record says of a sequence.
func (s *Server) happened(r *engine.StepRecord, id engine.SequenceID) []lifeEvent {
	var out []lifeEvent
	for _, d := range r.Decisions {
		only := engine.StepRecord{}
		only.Decisions = []engine.Decision{d}
		if d.Seq != id {
			continue
		}
		kind := "preempt"
		if d.Means == "wait" {
			kind = "sit"
		}
		out = append(out, lifeEvent{Kind: kind, Text: s.reason(&only)})
	}
	for _, a := range r.Admitted {
		if a.ID == id {
			only := engine.StepRecord{}
			only.Admitted = append(only.Admitted, a)
			out = append(out, lifeEvent{Kind: "admit", Text: s.reason(&only), first: a.How == "new" || a.How == "fork"})
		}
	}
	for i, part := range r.Scheduled {
		if i < r.Decodes {
			out = append(out, lifeEvent{Kind: "decode", Tokens: part.Tokens})
		} else {
			out = append(out, lifeEvent{Kind: "prefill", Tokens: part.Tokens, Text: fmt.Sprintf("[%d,%d)", part.Start, part.Start+part.Tokens)})
		}
	}
	if r.Head == id && r.WaitReason != "" {
		out = append(out, lifeEvent{Kind: "wait", Text: string(r.WaitReason)})
	}
	return out
}
