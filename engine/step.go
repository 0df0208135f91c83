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

// goesOn says that the token that would be the output's n-th, counted from 1, is valid and
// ends nothing, as nearly all are. stopIDs end a request once it has minTokens tokens;
// maxTokens, which includes what max_model_len leaves room for, ends it always.
func goesOn(token int32, n, minTokens, maxTokens int, stopIDs []int32) bool {
	return token >= 0 && n < maxTokens && (n < minTokens || !slices.Contains(stopIDs, token))
}

// judge decides on a token, given what goesOn is. The stop id is part of the output.
func judge(token int32, n, minTokens, maxTokens int, stopIDs []int32) verdict {
	switch {
	case goesOn(token, n, minTokens, maxTokens, stopIDs):
		return verdict{keep: true}
	case token < 0: // kernels.InvalidToken
		return verdict{finish: FinishError, err: ErrNotNumbers}
	case n >= minTokens && slices.Contains(stopIDs, token):
		return verdict{keep: true, finish: FinishStop, stopID: token}
	}
	return verdict{keep: true, finish: FinishLength}
}
