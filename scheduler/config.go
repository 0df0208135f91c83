package scheduler

import (
	"errors"
	"fmt"
	"time"
)

// Policy says whom the scheduler prefers.
type Policy string

// The policies.
const (
	FCFS     Policy = "fcfs"     // first come, first served
	Priority Policy = "priority" // Sequence.Priority, lower first, then arrival
)

// Mode says by which means sequences are preempted.
type Mode string

// The modes.
const (
	Auto          Mode = "auto"      // whichever costs less, by measured rates
	OnlySwap      Mode = "swap"      // to the host, by recompute when the swap pool is full
	OnlyRecompute Mode = "recompute" // never to the host
)

// DefaultWatermark is the share of the pool that stays free when a sequence is
// admitted beside others.
const DefaultWatermark = 0.01

// Config configures a Scheduler.
type Config struct {
	Limits
	Policy Policy // "" = FCFS
	// SwapOut and SwapIn are the times that copying one block takes, as first
	// measured; CopyDone keeps them current. 0 = unknown.
	SwapOut, SwapIn time.Duration
	// Trace is called with every input and every decision, in order, before the
	// call that it belongs to returns; nil = off. The line is valid during the call.
	Trace func(*TraceLine)
}

// Limits are the parts of a Config that SetLimits changes while sequences run.
type Limits struct {
	MaxNumSeqs       int     `json:"max_num_seqs"`           // most sequences that run at once
	MaxBatchedTokens int     `json:"max_num_batched_tokens"` // token budget of a step; at least MaxNumSeqs
	PreemptionMode   Mode    `json:"preemption_mode"`        // "" = Auto
	Watermark        float64 `json:"watermark"`              // 0–1; 0 = DefaultWatermark, negative = 0
	// MaxMixedTokens is the token budget of a step in which sequences decode, them
	// included; but prompts may take as many tokens as there are decodes, and 16.
	// 0 = no bound but MaxBatchedTokens, which holds in every case.
	MaxMixedTokens int `json:"max_num_mixed_tokens,omitempty"`
	// LongPrefillThreshold is the most tokens that one sequence's chunk takes
	// of a step; 0 = no bound but the budget.
	LongPrefillThreshold int `json:"long_prefill_token_threshold,omitempty"`
	// TargetITL bounds the predicted time of a step in which sequences decode:
	// prefill chunks are cut to fit. 0 = no bound.
	TargetITL time.Duration `json:"target_itl_ns,omitempty"`
}

// validate checks l and fills defaults in.
func (l *Limits) validate() error {
	var errs []error
	if l.MaxNumSeqs < 1 {
		errs = append(errs, fmt.Errorf("max_num_seqs is %d, want at least 1", l.MaxNumSeqs))
	}
	if l.MaxBatchedTokens < l.MaxNumSeqs {
		errs = append(errs, fmt.Errorf("max_num_batched_tokens is %d, below max_num_seqs %d: a step must have room for one token of every running sequence; raise the one or lower the other",
			l.MaxBatchedTokens, l.MaxNumSeqs))
	}
	if l.MaxMixedTokens < 0 {
		errs = append(errs, fmt.Errorf("max_num_mixed_tokens is %d, want 0 (off) or more", l.MaxMixedTokens))
	}
	if l.LongPrefillThreshold < 0 {
		errs = append(errs, fmt.Errorf("long_prefill_token_threshold is %d, want 0 (off) or more", l.LongPrefillThreshold))
	}
	if l.TargetITL < 0 {
		errs = append(errs, fmt.Errorf("target_itl is %v, want 0 (off) or more", l.TargetITL))
	}
	switch {
	case l.Watermark == 0:
		l.Watermark = DefaultWatermark
	case l.Watermark < 0:
		l.Watermark = 0
	case !(l.Watermark < 1): // NaN, too
		errs = append(errs, fmt.Errorf("watermark is %v, want a share of the pool below 1", l.Watermark))
	}
	switch l.PreemptionMode {
	case "":
		l.PreemptionMode = Auto
	case Auto, OnlySwap, OnlyRecompute:
	default:
		errs = append(errs, fmt.Errorf("preemption_mode is %q, want auto, swap or recompute", l.PreemptionMode))
	}
	return errors.Join(errs...)
}

func (c *Config) validate() error {
	var errs []error
	if err := c.Limits.validate(); err != nil {
		errs = append(errs, err)
	}
	switch c.Policy {
	case "":
		c.Policy = FCFS
	case FCFS, Priority:
	default:
		errs = append(errs, fmt.Errorf("scheduling_policy is %q, want fcfs or priority", c.Policy))
	}
	return errors.Join(errs...)
}
