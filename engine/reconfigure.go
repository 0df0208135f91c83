package engine

import (
	"context"
	"fmt"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// Limits are the parts of a Config that change while the engine serves. The zero
// value of a field leaves it as it is.
type Limits struct {
	GPUMemoryUtilization float64 // 0–1; replaces a pool that was sized otherwise
	NumGPUBlocksOverride int     // wins over it
	KVCacheMemoryBytes   int64   // likewise
	MaxNumSeqs           int
	MaxNumBatchedTokens  int
	SwapSpace            int64 // bytes; negative = none
}

// apply changes c.
func (l *Limits) apply(c *Config) {
	if l.GPUMemoryUtilization != 0 || l.NumGPUBlocksOverride != 0 || l.KVCacheMemoryBytes != 0 {
		c.NumGPUBlocksOverride, c.KVCacheMemoryBytes = l.NumGPUBlocksOverride, l.KVCacheMemoryBytes
	}
	if l.GPUMemoryUtilization != 0 {
		c.GPUMemoryUtilization = l.GPUMemoryUtilization
	}
	if l.MaxNumSeqs != 0 {
		c.MaxNumSeqs = l.MaxNumSeqs
	}
	if l.MaxNumBatchedTokens != 0 {
		c.MaxNumBatchedTokens = l.MaxNumBatchedTokens
	}
	if l.SwapSpace != 0 {
		c.SwapSpace = l.SwapSpace
	}
}

// Reconfigure changes limits of the running engine, without reloading anything,
// and waits until they are in force. Growing takes effect with the next step.
// Shrinking the pool evicts cached blocks and preempts the sequences that own
// blocks of the part that goes; lowering MaxNumSeqs preempts the newest. No
// request fails: limits under which one that is there could never finish are
// refused with ErrConfig, what does not fit the memory with ErrMemory, and then
// nothing has changed. When ctx ends first, its error is returned and the limits
// still come into force.
func (e *Engine) Reconfigure(ctx context.Context, limits Limits) error {
	c := e.effective.Load().cfg
	limits.apply(&c)
	if err := c.validate(); err != nil {
		return err
	}
	var began bool
	var failed error
	err := e.alone(ctx, func(l *loop) (done bool) {
		if !began {
			began = true
			if failed = l.beginReconfigure(limits); failed != nil {
				return true
			}
		}
		if !l.sched.Settled() {
			return false
		}
		failed = l.endReconfigure()
		return true
	})
	if err != nil {
		return err
	}
	return failed
}

// beginReconfigure refuses what cannot be, makes room for what grows and tells the
// scheduler. Nothing is in flight but swap copies.
func (l *loop) beginReconfigure(limits Limits) error {
	if l.pending != nil {
		return fmt.Errorf("%w: another Reconfigure is under way", ErrConfig)
	}
	now := l.e.effective.Load()
	next := *now
	limits.apply(&next.cfg)
	c := &next.cfg
	if c.MaxNumSeqs > l.maxima.MaxSeqs || c.MaxNumBatchedTokens > l.maxima.MaxBatchedTokens {
		return &ConfigError{Problems: []string{fmt.Sprintf("--max-num-seqs %d, --max-num-batched-tokens %d: addresses were reserved for %d and %d at start; restart with the larger values",
			c.MaxNumSeqs, c.MaxNumBatchedTokens, l.maxima.MaxSeqs, l.maxima.MaxBatchedTokens)}}
	}
	sz := l.sizes
	lim := workspaceLimits(c, l.sizes.modelMaxLen)
	sz.workspace = l.backend.WorkspaceBytes(l.shape, lim)
	p, err := plan(c, sz)
	if err != nil {
		return err
	}
	if need := l.sched.LargestNeed(); need > p.blocks-1 {
		return &ConfigError{Problems: []string{fmt.Sprintf("a pool of %d blocks: a request that is there may come to need %d; wait for its end or abort it", p.blocks-1, need)}}
	}
	if err := l.backend.SetLimits(lim); err != nil {
		return fmt.Errorf("%w: workspace of %s: %w", ErrMemory, bytesText(sz.workspace), err)
	}
	device, host := max(p.blocks, now.info.NumBlocks+1), max(p.hostBlocks, now.info.HostBlocks)
	if err := l.store.Resize(device, host); err != nil {
		return fmt.Errorf("%w: %w", ErrMemory, err)
	}
	if err := l.sched.SetLimits(scheduler.Limits{MaxNumSeqs: c.MaxNumSeqs, MaxBatchedTokens: c.MaxNumBatchedTokens}, p.blocks, p.hostBlocks); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	next.set(&p)
	l.pending = &next
	l.e.effective.Store(&next) // Submit judges by the new pool from here on
	return nil
}

// endReconfigure gives back the memory that nobody uses any more.
func (l *loop) endReconfigure() error {
	next := l.pending
	l.pending = nil
	if err := l.store.Resize(next.info.NumBlocks+1, next.info.HostBlocks); err != nil {
		return fmt.Errorf("%w: %w", ErrMemory, err)
	}
	l.publish()
	return nil
}
