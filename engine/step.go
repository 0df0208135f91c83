package engine

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// This file decides what a token means for its request. It is pure: no device,
// no scheduler, no clock.

// ErrNotNumbers is why a row without a valid token failed: that request alone.
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

// records is a ring of the last steps. What was scheduled, the one list that every
// step has, lies in a ring of its own: in the steady state nothing is allocated,
// and memory is bounded by what ran and not by steps × sequences.
//
//	parts:  … │ step n−2 │ step n−1 │ free or oldest …
//	                     └ begin[n−1]  └ end
type records struct {
	ring  []StepRecord
	count int // so far; the next goes to ring[count % len]
	parts []scheduler.RecordScheduled
	begin []int // of each entry's part, counted from the first ever
	end   int
}

const (
	keptSteps = 4096    // some seconds of a fast GPU
	keptParts = 1 << 17 // of all kept steps
)

func newRecords() records {
	return records{ring: make([]StepRecord, keptSteps), parts: make([]scheduler.RecordScheduled, keptParts), begin: make([]int, keptSteps)}
}

// add keeps a step, whose n parts the caller appends to Scheduled of what it returns.
func (r *records) add(record *scheduler.Record, n int, start time.Time, host, device time.Duration) *StepRecord {
	i := r.count % len(r.ring)
	if n > len(r.parts) {
		panic(fmt.Sprintf("engine: a step of %d sequences, at most %d are kept", n, len(r.parts)))
	}
	r.count++
	if rest := len(r.parts) - r.end%len(r.parts); n > rest {
		r.end += rest // a part lies in one piece
	}
	at := r.end % len(r.parts)
	r.begin[i] = r.end
	r.end += n
	kept := &r.ring[i]
	kept.Record.Scheduled = r.parts[at : at : at+n]
	record.CopyTo(&kept.Record)
	kept.Start, kept.Host, kept.Device = start, host, device
	return kept
}

// last copies the last n records that are whole, oldest first.
func (r *records) last(n int) []StepRecord {
	n = max(min(n, r.count, len(r.ring)), 0)
	for n > 0 && r.end-r.begin[(r.count-n)%len(r.ring)] > len(r.parts) {
		n-- // later steps have overwritten what it ran
	}
	out := make([]StepRecord, n)
	for i := range out {
		from := &r.ring[(r.count-n+i)%len(r.ring)]
		from.Record.CopyTo(&out[i].Record)
		out[i].Start, out[i].Host, out[i].Device = from.Start, from.Host, from.Device
	}
	return out
}
