package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model/grammar"
)

// tokenRules restrict an answer's tokens one by one.
type tokenRules struct {
	allowed []uint32  // a bit an id; nil = all
	bad     [][]int32 // runs of ids that must not come
}

// constrain compiles the form of g's answers, on the handler's goroutine, within
// bounds of time and size, and makes the function that gives each choice its
// constraint.
func (s *Server) constrain(ctx context.Context, g *generation) *apiError {
	r := g.r
	rules, err := s.tokenRules(ctx, r)
	if err != nil {
		return err
	}
	spec, param, bad := r.form(s.specialTags)
	defer func() { r.structure.text, r.structure.choices, r.tooling.tools = nil, nil, nil }() // they hold the body
	var compiled *grammar.Grammar
	switch {
	case bad != nil:
		return badField(param, "cannot be used: %s", bad)
	case param != "" && s.grammars == nil:
		return badField(param, "needs a tokenizer, this model has none")
	case param != "":
		if compiled, bad = s.grammars.Compile(ctx, spec); bad != nil {
			return s.grammarError(ctx, r, param, bad)
		}
	case rules.allowed == nil && rules.bad == nil:
		return nil
	}
	ends := s.info.EndIDs
	if r.ignoreEOS {
		ends = nil
	}
	g.constrain = func() (engine.Constraint, error) {
		c := &constraint{rules: rules, ends: ends}
		if compiled == nil {
			return c, nil
		}
		m, err := compiled.NewMatcher()
		c.matcher = m
		return c, err
	}
	return nil
}

// grammarError says why a form cannot be used. Where the tools' grammar is it, the
// tool whose parameters are at fault is named.
func (s *Server) grammarError(ctx context.Context, r *request, param string, err error) *apiError {
	switch {
	case errors.Is(err, grammar.ErrBusy):
		return unavailable("grammar_busy", "too many grammars are being compiled, try again later", s.retryAfter())
	case errors.Is(err, context.Canceled):
		return s.cancelled()
	}
	if param == "tools" {
		i, cause := r.tooling.badTool(func(spec grammar.Spec) error {
			_, err := s.grammars.Compile(ctx, spec)
			return err
		})
		if i >= 0 {
			return badField(fmt.Sprintf("tools[%d]", i), "has parameters that cannot be enforced, as this tool_choice wants: %.*s", maxGrammarError, cause)
		}
	}
	return badField(param, "cannot be enforced: %.*s", maxGrammarError, err)
}

// maxGrammarError is the most characters of a compiler's error that a client sees.
const maxGrammarError = 1000

// tokenRules encodes the words that must not come, both at the beginning of a text
// and within one, where a space stands before them, as vLLM does.
func (s *Server) tokenRules(ctx context.Context, r *request) (tokenRules, *apiError) {
	rules := tokenRules{allowed: r.allowedIDs}
	if len(r.badWords) > 0 && s.tokenizer == nil {
		return rules, unsupported("bad_words", "needs a tokenizer, this model has none")
	}
	for _, word := range r.badWords {
		for _, text := range []string{word, " " + strings.TrimLeft(word, " ")} {
			ids, err := s.tokenizer.EncodeRendered(text, [][2]int{{0, len(text)}})
			if err != nil {
				return rules, badField("bad_words", "has %.64q, which cannot be encoded", word)
			}
			if !slices.ContainsFunc(rules.bad, func(other []int32) bool { return slices.Equal(other, ids) }) {
				rules.bad = append(rules.bad, ids)
			}
		}
	}
	return rules, nil
}

// constraint is the engine.Constraint of a choice.
type constraint struct {
	matcher *grammar.Matcher // nil: tokens are free but for the rules
	ends    []int32          // ids that end an answer, where the grammar may end
	rules   tokenRules
	recent  []int32 // the last tokens, as many as a bad word has
}

// Mask implements engine.Constraint.
func (c *constraint) Mask(mask []uint32) (done bool, err error) {
	if c.matcher == nil {
		for i := range mask {
			mask[i] = ^uint32(0)
		}
	} else {
		mayEnd, mustEnd, err := c.matcher.Mask(mask)
		if mustEnd || err != nil {
			return mustEnd, err
		}
		if mayEnd {
			for _, id := range c.ends {
				mask[id/32] |= 1 << (id % 32)
			}
		}
	}
	if c.rules.allowed != nil {
		for i := range mask {
			mask[i] &= c.rules.allowed[i]
		}
	}
	for _, run := range c.rules.bad {
		last := len(run) - 1
		if n := len(c.recent); n >= last && slices.Equal(c.recent[n-last:], run[:last]) {
			mask[run[last]/32] &^= 1 << (run[last] % 32)
		}
	}
	return false, nil
}

// Accept implements engine.Constraint.
func (c *constraint) Accept(token int32) error {
	longest := 0
	for _, run := range c.rules.bad {
		longest = max(longest, len(run)-1)
	}
	if longest > 0 {
		c.recent = append(c.recent, token)
		c.recent = c.recent[max(0, len(c.recent)-longest):]
	}
	if c.matcher == nil {
		return nil
	}
	return c.matcher.Accept(token)
}

// Close implements engine.Constraint.
func (c *constraint) Close() {
	if c.matcher != nil {
		c.matcher.Close()
	}
}

// constraintFailed is the answer when a constraint broke down on the way. It is the
// client's that made it.
func constraintFailed(err error) *apiError {
	return &apiError{status: http.StatusBadRequest, kind: typeInvalidRequest, code: "constraint_failed", message: fmt.Sprintf("%.*s", maxGrammarError, err)}
}

func allowedTokenIDs(r *request, name string, value json.RawMessage) *apiError {
	ids, err := parseTokenIDs(name, value, maxAllowedIDs)
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		return badField(name, "must not be empty")
	}
	// Bits instead of the list, which may be much longer.
	for _, id := range ids {
		if id > maxTokenID {
			return badField(name, "has the token id %d, which no model has", id)
		}
		if missing := int(id/32) + 1 - len(r.allowedIDs); missing > 0 {
			r.allowedIDs = append(r.allowedIDs, make([]uint32, missing)...)
		}
		r.allowedIDs[id/32] |= 1 << (id % 32)
	}
	return nil
}

func badWords(r *request, name string, value json.RawMessage) *apiError {
	if json.Unmarshal(value, &r.badWords) != nil {
		return badField(name, "must be a list of strings")
	}
	if len(r.badWords) > maxBadWords {
		return badField(name, "has %d strings, at most %d are allowed", len(r.badWords), maxBadWords)
	}
	for i, word := range r.badWords {
		if strings.Trim(word, " ") == "" || len(word) > maxStopBytes {
			return badField(name, "string %d has %d bytes, must have 1 to %d and more than spaces", i, len(word), maxStopBytes)
		}
	}
	return nil
}
