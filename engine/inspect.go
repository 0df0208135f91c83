package engine

import (
	"context"
	"fmt"

	"github.com/pagoda-engine/pagoda/kernels"
)

// Logits returns the model's logits after each token of ids, [len(ids)][vocab],
// for verification: teacher-forced, through the same paged path as any request,
// in chunks of at most MaxNumSeqs tokens, the most rows of logits that a step
// has. It shares the prefix cache with nobody. It runs between two steps, once a
// row and enough blocks are free, and everything else waits until it is done.
func (e *Engine) Logits(ctx context.Context, ids []int32) ([][]float32, error) {
	if err := e.checkPrompt(&Request{Prompt: ids}); err != nil {
		return nil, err
	}
	if len(ids) > e.Info().MaxModelLen {
		return nil, fmt.Errorf("%w: %d tokens, max_model_len is %d", ErrTooLong, len(ids), e.Info().MaxModelLen)
	}
	if need := blocksFor(len(ids), e.info.BlockSize); need > e.Info().NumBlocks {
		return nil, fmt.Errorf("%w: %d tokens take %d blocks, the pool has %d", ErrNeverFits, len(ids), need, e.Info().NumBlocks)
	}
	var rows [][]float32
	var failed error
	err := e.alone(ctx, func(l *loop) (done bool) {
		rows, done, failed = l.logits(ids)
		return done
	})
	if err != nil {
		return nil, err
	}
	return rows, failed
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
			drop: func() { result <- e.closedError() },
		})
	})
	if err != nil {
		return err
	}
	// A job that never gets its turn must see that ctx ended.
	defer context.AfterFunc(ctx, e.poke)()
	return <-result
}

// runJobs tries every job. Nothing is in flight.
func (l *loop) runJobs() {
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
// borrows. done is false, and nothing has happened, when there are none.
func (l *loop) logits(ids []int32) (rows [][]float32, done bool, err error) {
	if len(l.runner.free) == 0 || l.kv.NumFree() < l.kv.BlocksFor(len(ids)) {
		return nil, false, nil
	}
	table, _ := l.sched.Borrow(len(ids))
	defer l.sched.GiveBack()
	row := l.runner.free[len(l.runner.free)-1]
	blocks := make([]int32, table.Len())
	for i, id := range table.IDs() {
		blocks[i] = int32(id)
	}
	l.backend.UpdateRows([]kernels.RowUpdate{{Row: row, Reset: true, Sampling: Sampling{Logprobs: -1}, Blocks: blocks}})
	vocab := l.e.info.Vocab
	chunk := min(l.e.cfg.MaxNumBatchedTokens, l.e.cfg.MaxNumSeqs) // the most rows of logits
	for start := 0; start < len(ids); start += chunk {
		tokens := ids[start:min(start+chunk, len(ids))]
		wanted := make([]int32, len(tokens))
		for i := range wanted {
			wanted[i] = int32(i)
		}
		l.runner.forward(&kernels.Batch{
			Tokens: tokens, Rows: []int32{row}, LogitRows: wanted,
			QueryStart: []int32{0, int32(len(tokens))}, SeqLens: []int32{int32(start + len(tokens))},
		})
		values := l.backend.ReadActivation(kernels.Logits, len(tokens))
		if _, err := l.backend.Wait(l.backend.Sample(&kernels.SampleBatch{})); err != nil {
			l.fault = fmt.Errorf("%w: %w", ErrDevice, err)
			return nil, true, l.fault
		}
		for i := range tokens {
			rows = append(rows, values[i*vocab:(i+1)*vocab:(i+1)*vocab])
		}
	}
	return rows, true, nil
}
