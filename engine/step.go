package engine

import (
	"errors"
	"slices"
)

// This file decides what a token means for its request. It is pure: no device,
// no scheduler, no clock.

// errNotNumbers is why a row without a valid token failed.
var errNotNumbers = errors.New("the model's logits for this request were not numbers")

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
		return verdict{finish: FinishError, err: errNotNumbers}
	case n >= minTokens && slices.Contains(stopIDs, token):
		return verdict{keep: true, finish: FinishStop, stopID: token}
	case n >= maxTokens:
		return verdict{keep: true, finish: FinishLength}
	}
	return verdict{keep: true}
}

// records is a ring of the last steps. Its entries' slices are reused.
type records struct {
	ring  []StepRecord
	count int // so far; the next goes to ring[count % len]
}

// keptSteps is how many records are kept: some seconds of a fast GPU.
const keptSteps = 4096

func newRecords() records { return records{ring: make([]StepRecord, keptSteps)} }

// next is the entry to fill.
func (r *records) next() *StepRecord {
	r.count++
	return &r.ring[(r.count-1)%len(r.ring)]
}

// last copies the last n records, oldest first.
func (r *records) last(n int) []StepRecord {
	n = max(min(n, r.count, len(r.ring)), 0)
	out := make([]StepRecord, n)
	for i := range out {
		from := &r.ring[(r.count-n+i)%len(r.ring)]
		out[i] = *from
		out[i].Record = from.Record.Clone()
	}
	return out
}
