package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// records is a ring of the last steps. What was scheduled, the one list that every
// step has, lies in a ring of its own: in the steady state nothing is allocated,
// and memory is bounded by what ran and not by steps × sequences. Its entries are as
// small as can be, for a step writes hundreds of them where nothing was of late.
//
//	parts:  … │ step n−2 │ step n−1 │ free or oldest …
//	                     └ begin[n−1]  └ end
type records struct {
	ring  []StepRecord // without Scheduled
	count int          // so far; the next goes to ring[count % len]
	parts []part
	begin []int // of each entry's part, counted from the first ever
	sizes []int
	end   int
}

// part is a scheduler.RecordScheduled.
type part struct {
	id     SequenceID
	start  int32
	tokens int32 // · 4, + 2 with Resumed, + 1 with Sample
}

const (
	keptSteps = 4096    // some seconds of a fast GPU
	keptParts = 1 << 17 // of all kept steps
)

// newRecords has the memory written to once: what a page costs when it is first touched is
// no step's.
func newRecords() records {
	r := records{ring: make([]StepRecord, keptSteps), parts: make([]part, keptParts), begin: make([]int, keptSteps), sizes: make([]int, keptSteps)}
	for i := range r.ring {
		r.ring[i].Decodes = 0
	}
	for i := range r.parts {
		r.parts[i].tokens = 0
	}
	return r
}

// add keeps a step, of which ran ran; Scheduled of the record does not count. What the host
// needed for it, this included, the caller enters.
func (r *records) add(record *scheduler.Record, ran []scheduler.Scheduled, start time.Time, device time.Duration) *StepRecord {
	i, n := r.count%len(r.ring), len(ran)
	if n > len(r.parts) {
		panic(fmt.Sprintf("engine: a step of %d sequences, at most %d are kept", n, len(r.parts)))
	}
	r.count++
	begin, parts := r.room(n)
	r.begin[i], r.sizes[i], r.end = begin, n, begin+n
	for j := range parts {
		e := &ran[j]
		tokens := int32(e.NumTokens) << 2
		if e.Sample {
			tokens |= 1
		}
		if e.Resumed {
			tokens |= 2
		}
		parts[j] = part{e.Seq.ID, int32(e.Start), tokens}
	}
	kept := &r.ring[i]
	record.CopyTo(&kept.Record)
	kept.Scheduled = nil
	kept.Start, kept.Device = start, device
	return kept
}

// room is where the next n parts go, and how many come before them, counted from the first ever.
func (r *records) room(n int) (begin int, parts []part) {
	begin = r.end
	if rest := len(r.parts) - begin%len(r.parts); n > rest {
		begin += rest // a part lies in one piece
	}
	return begin, r.parts[begin%len(r.parts):][:n]
}

// of is what ran in the step that lies at ring[at].
func (r *records) of(at int) []part { return r.parts[r.begin[at]%len(r.parts):][:r.sizes[at]] }

// whole says that no later step has overwritten what ran in the step at ring[at].
func (r *records) whole(at int) bool { return r.end-r.begin[at] <= len(r.parts) }

// record is a part as records have it.
func (p part) record() scheduler.RecordScheduled {
	return scheduler.RecordScheduled{ID: p.id, Start: int(p.start), Tokens: int(p.tokens >> 2), Sample: p.tokens&1 != 0, Resumed: p.tokens&2 != 0}
}

// copy copies the step at ring[at], with the parts given of what ran in it.
func (r *records) copy(at int, parts []part, to *StepRecord) {
	from := &r.ring[at]
	from.CopyTo(&to.Record)
	to.Scheduled = nil
	for _, p := range parts {
		to.Scheduled = append(to.Scheduled, p.record())
	}
	to.Start, to.Host, to.Device = from.Start, from.Host, from.Device
}

// last copies the last n records that are whole, oldest first.
func (r *records) last(n int) []StepRecord {
	n = max(min(n, r.count, len(r.ring)), 0)
	for n > 0 && !r.whole((r.count-n)%len(r.ring)) {
		n--
	}
	out := make([]StepRecord, n)
	for i := range out {
		at := (r.count - n + i) % len(r.ring)
		r.copy(at, r.of(at), &out[i])
	}
	return out
}

// about is last for the steps about a sequence, without the others' parts.
func (r *records) about(id SequenceID, n int) []StepRecord {
	var out []StepRecord
	for i := r.count - 1; i >= max(0, r.count-len(r.ring)) && len(out) < n; i-- {
		at := i % len(r.ring)
		if !r.whole(at) {
			break
		}
		parts := r.of(at)
		place := slices.IndexFunc(parts, func(p part) bool { return p.id == id })
		if place < 0 && !r.ring[at].Concerns(id) {
			continue
		}
		var step StepRecord
		if place < 0 {
			r.copy(at, nil, &step)
			step.Decodes = 0
		} else {
			r.copy(at, parts[place:place+1], &step)
			step.Decodes = 0
			if place < r.ring[at].Decodes {
				step.Decodes = 1
			}
		}
		out = append(out, step)
	}
	slices.Reverse(out)
	return out
}
