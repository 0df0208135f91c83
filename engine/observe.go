package engine

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/kvcache"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// SequenceID names a sequence in step records: one choice of one request.
type SequenceID = scheduler.SequenceID

// ShownOwners is how many sequences a BlockState names at most.
const ShownOwners = 4

// BlockState is one KV block at a moment. Times are on the clock of
// Observation.Now.
type BlockState struct {
	kvcache.BlockInfo
	// Tokens are the slots that hold KV, or will with the step under way; all of a
	// published block.
	Tokens int
	// Owners are the first sequences that have it, in the order of arrival; 0 ends
	// the list.
	Owners [ShownOwners]SequenceID
}

// RequestState is one choice of a request that has not ended.
type RequestState struct {
	ID       string // of the Request
	Choice   int
	Sequence SequenceID
	Status   scheduler.Status

	Prompt, Output, MaxTokens int // tokens; MaxTokens is the most output
	Computed                  int // tokens with KV
	Cached                    int // prompt tokens that came from the prefix cache
	Blocks, HostBlocks        int
	Preemptions               int
}

// Observation is what an engine is doing at a moment, taken between two steps, so
// that its parts agree.
type Observation struct {
	Now      time.Duration // since the engine started
	Time     time.Time     // the same on the clock of StepRecord.Start
	Stats    Stats
	Blocks   []BlockState   // of block 1, 2, …
	Requests []RequestState // in the order of arrival
	Steps    []StepRecord   // the newest, oldest first
	// Recorded counts the steps recorded so far: those that come later are
	// newer than what this Observation has.
	Recorded int
	// Cost is what it cost the engine's goroutine.
	Cost time.Duration
}

// Observe fills o, whose slices it reuses, with the present state: at most blocks
// blocks, by their ids, and of the steps that were recorded after the first
// o.Recorded at most steps. It costs a running engine Cost and an engine that
// nobody observes nothing.
func (e *Engine) Observe(ctx context.Context, o *Observation, blocks, steps int) error {
	return e.call(ctx, func(l *loop) { l.observe(o, blocks, steps) })
}

func (l *loop) observe(o *Observation, blocks, steps int) {
	begin := time.Now()
	l.publish()
	o.Now, o.Time, o.Stats = begin.Sub(l.began), begin, l.stats
	o.Steps = l.records.last(min(steps, l.records.count-o.Recorded))
	o.Recorded = l.records.count
	l.observeRequests(o)
	l.observeBlocks(o, min(blocks, l.kv.NumIDs()-1))
	o.Cost = time.Since(begin)
}

func (l *loop) observeRequests(o *Observation) {
	o.Requests = o.Requests[:0]
	for seq, q := range l.requests {
		o.Requests = append(o.Requests, RequestState{
			ID: q.id, Choice: int(q.sampling.Choice), Sequence: seq.ID, Status: seq.Status,
			Prompt: seq.PromptLen, Output: q.outputs(), MaxTokens: len(q.stream.tokens),
			Computed: seq.NumComputed, Cached: seq.CachedTokens,
			Blocks: seq.Table.Len(), HostBlocks: seq.Host.Len(), Preemptions: seq.Preemptions,
		})
	}
	slices.SortFunc(o.Requests, func(a, b RequestState) int { return cmp.Compare(a.Sequence, b.Sequence) })
}

func (l *loop) observeBlocks(o *Observation, n int) {
	size := l.kv.BlockSize()
	o.Blocks = slices.Grow(o.Blocks[:0], n)[:n]
	for i := range o.Blocks {
		b := &o.Blocks[i]
		l.kv.Block(kvcache.BlockID(i+1), &b.BlockInfo)
		b.Tokens, b.Owners = 0, [ShownOwners]SequenceID{}
		if b.Published {
			b.Tokens = size
		}
	}
	l.observed = l.observed[:0]
	for seq := range l.requests {
		if seq.Table.Len() > 0 {
			l.observed = append(l.observed, seq)
		}
	}
	slices.SortFunc(l.observed, func(a, b *scheduler.Sequence) int { return cmp.Compare(a.ID, b.ID) })
	for _, seq := range l.observed {
		for i, id := range seq.Table.IDs() {
			if int(id) > n {
				continue
			}
			b := &o.Blocks[id-1]
			b.Tokens = max(b.Tokens, min(size, seq.Launched-i*size))
			if at := slices.Index(b.Owners[:], 0); at >= 0 {
				b.Owners[at] = seq.ID
			}
		}
	}
	clear(l.observed)
}

// StepsOf returns the records, of those that are kept, of the last n steps that
// have to do with a sequence: it ran, was admitted or preempted, or waited as the
// first. Of what ran they have that sequence's part alone.
func (e *Engine) StepsOf(ctx context.Context, id SequenceID, n int) (steps []StepRecord, err error) {
	err = e.call(ctx, func(l *loop) { steps = l.records.about(id, n) })
	return steps, err
}
