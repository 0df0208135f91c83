package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/pagoda-engine/pagoda/internal/sim"
	"github.com/pagoda-engine/pagoda/kvcache"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// config is what the flags and the preset make, over the recording's settings with
// --what-if.
func (f *simulateFlags) config(cmd *cobra.Command, recorded *sim.Recorded) (sim.Config, error) {
	if recorded != nil {
		f.adopt(cmd, recorded)
	}
	p, err := sim.FindPreset(f.preset, f.blockSize)
	if err != nil {
		return sim.Config{}, usageError{fmt.Errorf("--preset: %w", err)}
	}
	if recorded != nil && !cmd.Flags().Changed("preset") {
		if cmd.Flags().Changed("swap-space") {
			return sim.Config{}, usageError{errors.New("a trace does not say how large a block is: give --num-cpu-blocks instead of --swap-space, or a --preset")}
		}
		p.BlockBytes = 0 // unknown
		p.SwapOut, p.SwapIn = cmp.Or(recorded.Config.SwapOut, p.SwapOut), cmp.Or(recorded.Config.SwapIn, p.SwapIn)
	}
	if err := f.time(&p); err != nil {
		return sim.Config{}, err
	}
	if f.blocks > 0 {
		p.Blocks = f.blocks
	}
	if f.tokens > 0 {
		p.MaxBatchedTokens = f.tokens
	}
	host := f.hostBlock
	if !cmd.Flags().Changed("num-cpu-blocks") && host == 0 && p.BlockBytes > 0 {
		host = int(f.swapSpace.bytes / p.BlockBytes)
	}
	if !f.quiet && !f.json {
		budget := strconv.Itoa(p.MaxBatchedTokens)
		if f.mixed > 0 {
			budget += fmt.Sprintf(", max_num_mixed_tokens %d", f.mixed)
		}
		fmt.Fprintf(os.Stderr, "%d blocks of %d tokens, %d on the host; max_num_seqs %d, max_num_batched_tokens %s; step time %s (%s)\n",
			p.Blocks, f.blockSize, host, f.seqs, budget, p.StepTime, p.From)
	}
	if f.watermark == 0 {
		f.watermark = -1 // in Config 0 is the default
	}
	return sim.Config{
		Scheduler: scheduler.Config{
			Limits: scheduler.Limits{
				MaxNumSeqs: f.seqs, MaxBatchedTokens: p.MaxBatchedTokens, MaxMixedTokens: f.mixed,
				PreemptionMode: scheduler.Mode(f.mode), Watermark: f.watermark, LongPrefillThreshold: f.threshold,
				TargetITL: time.Duration(f.targetITL * float64(time.Millisecond)),
			},
			Policy: scheduler.Policy(f.policy), SwapOut: p.SwapOut, SwapIn: p.SwapIn,
		},
		Cache:    kvcache.Config{NumBlocks: p.Blocks + 1, HostBlocks: host, BlockSize: f.blockSize, DisablePrefixCaching: !f.prefix},
		StepTime: p.StepTime, BlockBytes: p.BlockBytes, Overlapped: f.async, MaxQueued: f.queued, MaxModelLen: f.modelLen,
	}, nil
}

// adopt takes the recording's settings where no flag was given.
func (f *simulateFlags) adopt(cmd *cobra.Command, recorded *sim.Recorded) {
	c := &recorded.Config
	keep := func(name string, set func()) {
		if !cmd.Flags().Changed(name) && !cmd.Flags().Changed("no-"+name) {
			set()
		}
	}
	keep("block-size", func() { f.blockSize = c.BlockSize })
	keep("num-gpu-blocks-override", func() { f.blocks = c.Blocks - 1 })
	if !cmd.Flags().Changed("swap-space") {
		keep("num-cpu-blocks", func() {
			if f.hostBlock = c.HostBlocks; f.hostBlock == 0 {
				f.swapSpace.bytes = 0
			}
		})
	}
	keep("max-num-seqs", func() { f.seqs = c.MaxNumSeqs })
	keep("max-num-batched-tokens", func() { f.tokens = c.MaxBatchedTokens })
	keep("max-num-mixed-tokens", func() { f.mixed = c.MaxMixedTokens })
	keep("max-model-len", func() { f.modelLen = math.MaxInt32 })
	keep("preemption-mode", func() { f.mode = string(c.PreemptionMode) })
	keep("watermark", func() { f.watermark = c.Watermark })
	keep("long-prefill-token-threshold", func() { f.threshold = c.LongPrefillThreshold })
	keep("target-itl-ms", func() { f.targetITL = float64(c.TargetITL) / 1e6 })
	keep("scheduling-policy", func() { f.policy = string(c.Policy) })
	keep("enable-prefix-caching", func() { f.prefix = c.PrefixCaching })
	keep("max-num-queued-reqs", func() { f.queued = math.MaxInt32 })
	if f.fit == "" && f.stepTime == "" && !cmd.Flags().Changed("preset") {
		f.fit = f.trace
	}
}

// time sets the step and copy times of the preset to what else was given.
func (f *simulateFlags) time(p *sim.Preset) error {
	if f.fit != "" {
		var fitted sim.Fitted
		err := withTrace(f.fit, func(r *scheduler.TraceReader) (err error) { fitted, err = sim.Fit(r); return err })
		if err != nil {
			return err
		}
		p.StepTime = fitted.StepTime
		if fitted.SwapOut > 0 {
			p.SwapOut = fitted.SwapOut
		}
		if fitted.SwapIn > 0 {
			p.SwapIn = fitted.SwapIn
		}
		p.From = fmt.Sprintf("fitted to %d steps of %s, off by %.1f %% on average", fitted.Steps, f.fit, 100*fitted.Error)
	}
	if f.stepTime != "" {
		if err := p.StepTime.Set(f.stepTime); err != nil {
			return usageError{fmt.Errorf("--step-time: %w", err)}
		}
		p.From = "--step-time over " + p.From
	}
	return nil
}
