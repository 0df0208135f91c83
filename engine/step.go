package engine

import (
	"errors"
	"slices"
)

// This file decides what a token means for its request. It is pure: no device,
// no scheduler, no clock.

// ErrNotNumbers is why a row without a valid token failed: that request alone. It is
// the model's fault, or the device's, and never what was asked for, since some id can
// always be drawn: biases and penalties are finite, Submit refuses min_tokens where all
// ids are stop ids, and a round of a guide that leaves none ends its request before the
// draw. So others' prefixes are forgotten for it (collect), and not for a request.
var ErrNotNumbers = errors.New("the model's logits for this request were not numbers")

// verdict is what becomes of a request with its next token.
type verdict struct {
	keep   bool // the token belongs to the output
	finish FinishReason
	stopID int32
	err    error
}

// judge decides on the token that would be the output's n-th, counted from 1.
// stopIDs end a request once it has minTokens tokens; maxTokens, which includes
// what max_model_len leaves room for, ends it always. The stop id is part of the
// output.
func judge(token int32, n, minTokens, maxTokens int, stopIDs []int32) verdict {
	switch {
	case token < 0: // kernels.InvalidToken
		return verdict{finish: FinishError, err: ErrNotNumbers}
	case n >= minTokens && slices.Contains(stopIDs, token):
		return verdict{keep: true, finish: FinishStop, stopID: token}
	case n >= maxTokens:
		return verdict{keep: true, finish: FinishLength}
	}
	return verdict{keep: true}
}
