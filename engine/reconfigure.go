package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// Limits are the parts of a Config that change while the engine serves. The zero
// value of a field leaves it as it is.
type Limits struct {
	// MemoryLimit is the size in bytes that the device is taken to have; negative =
	// what it had at start. More than it has is not believed.
	MemoryLimit          int64
	GPUMemoryUtilization float64 // 0–1; replaces a pool that was sized otherwise
	NumGPUBlocksOverride int     // wins over it
	KVCacheMemoryBytes   int64   // likewise
	MaxNumSeqs           int
	MaxNumBatchedTokens  int
	MaxNumMixedTokens    int   // negative = no bound
	SwapSpace            int64 // bytes; negative = none

	PreemptionMode            string        // auto, swap or recompute
	Watermark                 float64       // negative = none
	LongPrefillTokenThreshold int           // negative = no bound
	TargetITL                 time.Duration // negative = no target
}

// apply changes c.
func (l *Limits) apply(c *Config) {
	if l.MemoryLimit != 0 {
		c.MemoryLimit = max(l.MemoryLimit, 0)
	}
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
	if l.MaxNumMixedTokens != 0 {
		c.MaxNumMixedTokens = max(l.MaxNumMixedTokens, 0)
	}
	if l.SwapSpace != 0 {
		c.SwapSpace = l.SwapSpace
	}
	if l.PreemptionMode != "" {
		c.PreemptionMode = l.PreemptionMode
	}
	if l.Watermark != 0 {
		c.Watermark = l.Watermark
	}
	if l.LongPrefillTokenThreshold != 0 {
		c.LongPrefillTokenThreshold = max(l.LongPrefillTokenThreshold, 0)
	}
	if l.TargetITL != 0 {
		c.TargetITL = max(l.TargetITL, 0)
	}
}

// Limits are those in force, each of them set, so that Reconfigure with them brings
// this state back.
func (e *Engine) Limits() Limits {
	c := &e.effective.Load().cfg
	l := Limits{
		MemoryLimit: orNegative(c.MemoryLimit), GPUMemoryUtilization: c.GPUMemoryUtilization, NumGPUBlocksOverride: c.NumGPUBlocksOverride,
		KVCacheMemoryBytes: c.KVCacheMemoryBytes, MaxNumSeqs: c.MaxNumSeqs, MaxNumBatchedTokens: c.MaxNumBatchedTokens,
		MaxNumMixedTokens: orNegative(c.MaxNumMixedTokens), SwapSpace: c.SwapSpace,
		PreemptionMode: c.PreemptionMode, Watermark: c.Watermark,
		LongPrefillTokenThreshold: orNegative(c.LongPrefillTokenThreshold), TargetITL: orNegative(c.TargetITL),
	}
	return l
}

// orNegative is n, or -1 where 0 would leave a limit as it is.
func orNegative[N int | int64 | time.Duration](n N) N {
	if n == 0 {
		return -1
	}
	return n
}

// schedulerLimits are the limits that the scheduler keeps to.
func schedulerLimits(c *Config) scheduler.Limits {
	return scheduler.Limits{
		MaxNumSeqs: c.MaxNumSeqs, MaxBatchedTokens: c.MaxNumBatchedTokens, PreemptionMode: scheduler.Mode(c.PreemptionMode),
		Watermark: c.Watermark, MaxMixedTokens: c.MaxNumMixedTokens, LongPrefillThreshold: c.LongPrefillTokenThreshold, TargetITL: c.TargetITL,
	}
}

// pending are limits that the scheduler has and whose memory is not yet given back.
type pending struct {
	next    *effective
	settled chan error // one value
}

// Reconfigure changes limits of the running engine, without reloading anything,
// and waits until they are in force. Growing takes effect with the next step.
// Shrinking the pool evicts cached blocks and preempts the sequences that own
// blocks of the part that goes; lowering MaxNumSeqs preempts the newest. No
// request that Submit has accepted fails: limits under which one could never finish are
// refused with ErrConfig, what does not fit the memory with ErrMemory, and then
// nothing has changed. A request without MaxTokens may come to need as many blocks
// as MaxModelLen takes, and holds a smaller pool off while it is there. When ctx
// ends before the limits were handed over nothing changes; afterwards they still
// come into force.
func (e *Engine) Reconfigure(ctx context.Context, limits Limits) error {
	settled := make(chan error, 1)
	var failed error
	err := e.alone(ctx, func(l *loop) (done bool) {
		failed = l.beginReconfigure(limits, settled)
		return true
	})
	if err != nil || failed != nil {
		return errors.Join(err, failed)
	}
	select {
	case err := <-settled:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-e.done:
		return e.closedError()
	}
}

// beginReconfigure refuses what cannot be, makes room for what grows and tells the
// scheduler. Nothing is in flight but swap copies.
func (l *loop) beginReconfigure(limits Limits, settled chan error) error {
	if l.pending != nil {
		return fmt.Errorf("%w: another Reconfigure is under way; call again when it has returned", ErrConfig)
	}
	now := l.e.effective.Load()
	next := *now
	limits.apply(&next.cfg)
	c := &next.cfg
	if err := c.validate(); err != nil {
		return err
	}
	sz := l.sizes
	if c.MemoryLimit > 0 && c.MemoryLimit < sz.limit {
		sz.limit, sz.limitFrom = c.MemoryLimit, "given by --memory-limit"
	}
	next.limit, next.from = sz.limit, sz.limitFrom
	p, err := l.replan(c, sz)
	if err != nil {
		return err
	}
	before := workspaceLimits(&now.cfg, l.sizes.modelMaxLen)
	if err := l.backend.SetLimits(eitherLimits(before, workspaceLimits(c, l.sizes.modelMaxLen))); err != nil {
		l.e.effective.Store(now)
		return fmt.Errorf("%w: workspace: %w", ErrMemory, adviseMemory(c, err))
	}
	device, host := max(p.blocks, now.info.NumBlocks+1), max(p.hostBlocks, now.info.HostBlocks)
	if err := l.store.Resize(device, host); err != nil {
		_ = l.backend.SetLimits(before) // was possible before
		l.e.effective.Store(now)
		return fmt.Errorf("%w: %w", ErrMemory, adviseMemory(c, err))
	}
	l.runner.setRows(max(c.MaxNumSeqs, now.cfg.MaxNumSeqs))
	if err := l.sched.SetLimits(schedulerLimits(c), p.blocks, p.hostBlocks); err != nil {
		panic(fmt.Sprintf("engine: limits that were validated are refused: %v", err))
	}
	for _, text := range p.warnings {
		c.Log.Warn(text)
	}
	next.set(&p)
	l.pending = &pending{&next, settled}
	l.e.effective.Store(&next) // Submit judges by a larger pool from here on
	l.settle()
	return nil
}

// replan applies the memory formula to other limits. If they can be, Submit judges by a
// smaller pool from here on: none that it has accepted may come to be too large for it.
func (l *loop) replan(c *Config, sz sizes) (memoryPlan, error) {
	if c.MaxNumSeqs > l.maxima.MaxSeqs || c.MaxNumBatchedTokens > l.maxima.MaxBatchedTokens {
		return memoryPlan{}, &ConfigError{Problems: []string{fmt.Sprintf("--max-num-seqs %d, --max-num-batched-tokens %d: room was reserved for %d and %d at start; restart with the larger values",
			c.MaxNumSeqs, c.MaxNumBatchedTokens, l.maxima.MaxSeqs, l.maxima.MaxBatchedTokens)}}
	}
	sz.workspace = l.backend.WorkspaceBytes(l.shape, workspaceLimits(c, sz.modelMaxLen))
	p, err := plan(c, sz)
	if err != nil {
		return p, err
	}
	l.e.gate.Lock()
	defer l.e.gate.Unlock()
	for len(l.e.inbox) > 0 { // they are there, too
		l.add(<-l.e.inbox)
	}
	if need := l.sched.LargestNeed(); need > p.blocks-1 {
		return p, &ConfigError{Problems: []string{fmt.Sprintf("a pool of %d blocks: a request that is there may come to need %d (its prompt and max_tokens); wait for its end or abort it", p.blocks-1, need)}}
	}
	if now := l.e.effective.Load(); p.blocks-1 < now.info.NumBlocks {
		smaller := *now
		smaller.info.NumBlocks = p.blocks - 1
		l.e.effective.Store(&smaller)
	}
	return p, nil
}

// moveRows leaves n rows: sequences in the others get one of these, which the next
// step fills anew.
func (l *loop) moveRows(n int) {
	var homeless []*request
	for _, q := range l.requests {
		if int(q.row) >= n {
			l.runner.dropRow(q)
			homeless = append(homeless, q)
		}
	}
	slices.SortFunc(homeless, func(a, b *request) int { return cmp.Compare(a.seq.ID, b.seq.ID) }) // the same rows each time
	l.runner.setRows(n)
	for _, q := range homeless {
		l.runner.takeRow(q)
		q.moved = true
	}
}

// settle gives back the memory of limits that were lowered, once nobody uses it.
// Nothing is in flight but swap copies.
func (l *loop) settle() {
	p := l.pending
	if p == nil || !l.sched.Settled() || l.sched.NumRunning() > p.next.cfg.MaxNumSeqs {
		return
	}
	l.pending = nil
	l.moveRows(p.next.cfg.MaxNumSeqs)
	err := errors.Join(l.backend.SetLimits(workspaceLimits(&p.next.cfg, l.sizes.modelMaxLen)),
		l.store.Resize(p.next.info.NumBlocks+1, p.next.info.HostBlocks))
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrMemory, err)
	}
	l.publish()
	p.settled <- err
}
