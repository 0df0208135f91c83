package engine

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/pagoda-engine/pagoda/kernels"
)

// tapFunc is what kernels.Backend.SetTap takes.
type tapFunc = func(op kernels.Op, layer int, out kernels.Activation, values []float32)

// Logits returns the model's logits after each token of ids, [len(ids)][vocab],
// for verification: teacher-forced, through the same paged path as any request,
// in chunks of at most MaxNumSeqs tokens, the most rows of logits that a step
// has. It shares the prefix cache with nobody. It runs between two steps, once enough
// blocks are free, however many requests run: until then no other is admitted, so that
// they come free. Everything else waits until it is done.
func (e *Engine) Logits(ctx context.Context, ids []int32) ([][]float32, error) {
	var rows [][]float32
	vocab := e.info.Vocab
	err := e.EachLogits(ctx, ids, e.cfg.MaxNumBatchedTokens, func(_ int, values []float32) {
		for ; len(values) > 0; values = values[vocab:] {
			rows = append(rows, values[:vocab:vocab])
		}
	})
	return rows, err
}

// EachLogits is Logits for sequences whose logits need not be in memory at one
// time: visit gets those of chunks of at most chunk tokens that begin at start,
// [tokens·vocab], on the engine's goroutine.
func (e *Engine) EachLogits(ctx context.Context, ids []int32, chunk int, visit func(start int, values []float32)) error {
	return e.teacherForced(ctx, ids, chunk, nil, visit)
}

// HiddenStates returns the residual stream of ids, [len(ids)·hidden] each: what
// enters the first layer, and what each layer leaves. It is computed as Logits are.
func (e *Engine) HiddenStates(ctx context.Context, ids []int32) ([][]float32, error) {
	var states [][]float32
	var before []int // length of each state before the chunk under way
	tap := func(_ kernels.Op, layer int, out kernels.Activation, values []float32) {
		if out != kernels.Hidden {
			return
		}
		if layer++; layer == len(states) {
			states, before = append(states, nil), append(before, 0)
		}
		states[layer] = append(states[layer][:before[layer]], values...) // the MLP's sum replaces the attention's
	}
	err := e.teacherForced(ctx, ids, e.cfg.MaxNumBatchedTokens, tap, func(int, []float32) {
		for i := range states {
			before[i] = len(states[i])
		}
	})
	return states, err
}

// teacherForced computes ids with nothing else under way; tap, unless it is nil, sees
// every operation.
func (e *Engine) teacherForced(ctx context.Context, ids []int32, chunk int, tap tapFunc, visit func(start int, values []float32)) error {
	if err := e.checkPrompt(&Request{Prompt: ids}); err != nil {
		return err
	}
	if len(ids) > e.Info().MaxModelLen {
		return fmt.Errorf("%w: %d tokens, max_model_len is %d", ErrTooLong, len(ids), e.Info().MaxModelLen)
	}
	if need := blocksFor(len(ids), e.info.BlockSize); need > e.Info().NumBlocks {
		return fmt.Errorf("%w: %d tokens take %d blocks, the pool has %d", ErrNeverFits, len(ids), need, e.Info().NumBlocks)
	}
	var failed error
	err := e.alone(ctx, func(l *loop) (done bool) {
		if tap != nil {
			l.backend.SetTap(tap)
			defer l.backend.SetTap(nil)
		}
		done, failed = l.logits(ctx, ids, chunk, visit)
		return done
	})
	if err != nil {
		return err
	}
	return failed
}

// PromptLogprob is what the model made of a prompt's token, given those before it.
type PromptLogprob struct {
	Logprob float32
	Rank    int32 // 1 = the likeliest, of equal ones the lowest id
	// The likeliest ids and their log probabilities, best first.
	TopIDs      []int32
	TopLogprobs []float32
}

// promptChunk is the tokens whose logits PromptLogprobs holds at one time: 20 MB
// with a vocabulary of 150,000.
const promptChunk = 32

// PromptLogprobs returns, for each token of a prompt but the first, whose entry
// is zero, its log probability and the top likeliest ids in its place. Like
// Logits it reads no cached prefix, and everything else waits until it is done.
func (e *Engine) PromptLogprobs(ctx context.Context, ids []int32, top int) ([]PromptLogprob, error) {
	if most := e.cfg.maxLogprobs(); top < 0 || top > most {
		return nil, invalid("prompt_logprobs", "is %d, want 0 to %d", top, most)
	}
	out := make([]PromptLogprob, len(ids))
	vocab := e.info.Vocab
	err := e.EachLogits(ctx, ids, promptChunk, func(start int, values []float32) {
		for i := 0; len(values) > 0; i++ {
			if next := start + i + 1; next < len(ids) {
				out[next] = promptLogprob(values[:vocab], ids[next], top)
			}
			values = values[vocab:]
		}
	})
	return out, err
}

// promptLogprob ranks id among logits.
func promptLogprob(logits []float32, id int32, top int) PromptLogprob {
	most := slices.Max(logits)
	sum, p := 0.0, PromptLogprob{Rank: 1}
	for i, v := range logits {
		sum += math.Exp(float64(v - most))
		if v > logits[id] || v == logits[id] && int32(i) < id {
			p.Rank++
		}
		// The best so far, in order; ties go to the lower id.
		n := len(p.TopIDs)
		if top == 0 || n == top && v <= p.TopLogprobs[n-1] {
			continue
		}
		if n == top {
			n--
			p.TopIDs, p.TopLogprobs = p.TopIDs[:n], p.TopLogprobs[:n]
		}
		at, _ := slices.BinarySearchFunc(p.TopLogprobs, v, func(have, v float32) int {
			if have >= v {
				return -1
			}
			return 1
		})
		p.TopIDs, p.TopLogprobs = slices.Insert(p.TopIDs, at, int32(i)), slices.Insert(p.TopLogprobs, at, v)
	}
	norm := most + float32(math.Log(sum))
	p.Logprob = logits[id] - norm
	for i := range p.TopLogprobs {
		p.TopLogprobs[i] -= norm
	}
	return p
}

// Probe measures what the device can do at most, with nothing else running. It
// fails for a device that cannot measure itself.
func (e *Engine) Probe(ctx context.Context) (kernels.Ceilings, error) {
	var ceilings kernels.Ceilings
	var failed error
	err := e.alone(ctx, func(l *loop) bool {
		if prober, ok := l.backend.(kernels.Prober); ok {
			ceilings = prober.Probe()
		} else {
			failed = fmt.Errorf("engine: backend %s cannot measure its device", e.info.Device.Backend)
		}
		return true
	})
	if err != nil {
		return ceilings, err
	}
	return ceilings, failed
}

// alone runs fn on the engine's goroutine while nothing is in flight, again and
// again until it is done, and waits for it. When ctx ends first, fn is not begun
// any more; a call of it that has begun is waited for.
func (e *Engine) alone(ctx context.Context, fn func(*loop) (done bool)) error {
	e.alones.Add(1)
	defer e.alones.Add(-1)
	result := make(chan error, 1)
	err := e.call(ctx, func(l *loop) {
		l.jobs = append(l.jobs, job{
			run: func(l *loop) bool {
				if err := ctx.Err(); err != nil {
					result <- err
					return true
				}
				if !fn(l) {
					return false
				}
				result <- nil
				return true
			},
			drop: func(cause error) { result <- closedBy(cause) },
		})
	})
	if err != nil {
		return err
	}
	// A job that never gets its turn must see that ctx ended.
	defer context.AfterFunc(ctx, e.poke)()
	return <-result
}

// runJobs tries every job. Nothing is in flight when there are some, or when limits
// are coming into force.
func (l *loop) runJobs() {
	l.settle()
	if l.wanting { // whoever still does says so again
		l.sched.GiveBack()
		l.wanting = false
	}
	kept := l.jobs[:0]
	for _, j := range l.jobs {
		if !j.run(l) {
			kept = append(kept, j)
		}
	}
	clear(l.jobs[len(kept):])
	l.jobs = kept
}

// logits computes ids as a sequence of its own, in a row and blocks that it
// borrows. done is false, and nothing has happened, when there are too few blocks, or
// for one that came earlier. It gives up between two chunks when ctx ends.
func (l *loop) logits(ctx context.Context, ids []int32, chunk int, visit func(start int, values []float32)) (done bool, err error) {
	if need := l.kv.BlocksFor(len(ids)); need > l.kv.Capacity() { // the pool was shrunk meanwhile
		return true, fmt.Errorf("%w: %d tokens take %d blocks, the pool now has %d", ErrNeverFits, len(ids), need, l.kv.Capacity())
	}
	if l.wanting { // in the order in which they came: a loan would end the wish
		return false, nil
	}
	table, ok := l.sched.Borrow(len(ids))
	if !ok {
		l.wanting = true
		return false, nil
	}
	defer l.sched.GiveBack()
	row := l.lendRow()
	blocks := make([]int32, table.Len())
	for i, id := range table.IDs() {
		blocks[i] = int32(id)
	}
	l.backend.UpdateRows([]kernels.RowUpdate{{Row: row, Reset: true, Sampling: Sampling{Logprobs: -1}, Blocks: blocks}})
	c := &l.e.effective.Load().cfg
	chunk = max(1, min(chunk, c.MaxNumBatchedTokens, c.MaxNumSeqs)) // the most rows of logits
	for start := 0; start < len(ids); start += chunk {
		if err := ctx.Err(); err != nil {
			return true, err
		}
		tokens := ids[start:min(start+chunk, len(ids))]
		wanted := make([]int32, len(tokens)) // all: a tap, too, has the last layer's rows of these alone
		for i := range wanted {
			wanted[i] = int32(i)
		}
		l.runner.forward(&kernels.Batch{
			Tokens: tokens, Rows: []int32{row}, LogitRows: wanted,
			QueryStart: []int32{0, int32(len(tokens))}, SeqLens: []int32{int32(start + len(tokens))},
		})
		values := l.backend.ReadActivation(kernels.Logits, len(tokens))
		ticket := l.backend.Sample(&kernels.SampleBatch{})
		l.hold.Unlock()
		_, err := l.backend.Wait(ticket)
		l.hold.Lock()
		if err != nil {
			l.fault = fmt.Errorf("%w: %w", ErrDevice, err)
			return true, l.fault
		}
		visit(start, values)
		l.stats.ScoredTokens += int64(len(tokens))
		l.publish() // who watches sees that it goes on
	}
	return true, nil
}

// lendRow is a row for a computation between two steps: a free one or, as there need
// not be any while max_num_seqs run, that of the newest request, whose next step fills
// it anew.
func (l *loop) lendRow() int32 {
	if n := len(l.runner.free); n > 0 {
		return l.runner.free[n-1]
	}
	var newest *request
	for _, q := range l.requests {
		if q.row >= 0 && (newest == nil || q.seq.ID > newest.seq.ID) {
			newest = q
		}
	}
	newest.moved = true
	return newest.row
}
