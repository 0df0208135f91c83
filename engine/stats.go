package engine

import (
	"time"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// Stats is a snapshot for metrics and tools. Counters only grow. Every field is a
// word or an array of words, as statsCell wants it.
type Stats struct {
	Running, Waiting, Swapped int // requests; swapped ones wait, too
	Jobs                      int // calls that want the device to themselves, or have it: Logits, Probe, Reconfigure

	BlocksTotal, BlocksUsed, BlocksCached, BlocksFree, BlocksInFlight int // device blocks without block 0; used = referenced
	BlocksShared, BlocksSaved                                         int // with two references or more; references beyond each block's first
	HostBlocksTotal, HostBlocksUsed, HostBlocksInFlight               int // of the swap pool
	SlotsUsed                                                         int // KV slots of used blocks that hold a token
	BlockSize                                                         int // tokens
	BlockBytes                                                        int64

	PromptTokens, GenerationTokens                             int64
	PrefixQueries, PrefixHits                                  int64 // prompt tokens at the first admission, and those found
	PreemptionsRecompute, PreemptionsSwap                      int64
	BlockWaits                                                 int64 // steps that sequences sat out for want of a block
	SwapPoolFull                                               int64 // preemptions that would have swapped
	SwapInBytes, SwapOutBytes                                  int64
	SwapInTime, SwapOutTime                                    time.Duration // of the copies that arrived
	Evictions                                                  int64         // cached blocks whose content was given up
	Forks, CopiedBlocks                                        int64         // choices that share a prompt; blocks copied on write
	ScoredTokens                                               int64         // by Logits and PromptLogprobs, between steps
	Steps, StepTokens                                          int64
	StepSizes                                                  [len(StepSizeBounds) + 1]int64 // steps by their tokens; the last are above all bounds
	FinishedStop, FinishedLength, FinishedAbort, FinishedError int64

	// LastStep is the device time of the last step, PredictedStep what the
	// step-time model had expected of it (0 = nothing yet).
	LastStep, PredictedStep time.Duration
	// MaskWait is the time that steps waited for masks, beside their forward pass.
	MaskWait time.Duration
	// StepTimeError is the moving mean of |predicted − measured| / measured.
	StepTimeError float64
}

// StepSizeBounds are the tokens, each bound included, by which Stats.StepSizes counts.
var StepSizeBounds = [...]int{1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384}

// countStep counts a step of so many tokens.
func (s *Stats) countStep(tokens int) {
	s.Steps++
	s.StepTokens += int64(tokens)
	i := 0
	for i < len(StepSizeBounds) && tokens > StepSizeBounds[i] {
		i++
	}
	s.StepSizes[i]++
}

// KVUsage is used ÷ total blocks, 0–1.
func (s Stats) KVUsage() float64 { return share(s.BlocksUsed, s.BlocksTotal) }

// HostUsage is held ÷ total blocks of the swap pool, 0–1.
func (s Stats) HostUsage() float64 { return share(s.HostBlocksUsed, s.HostBlocksTotal) }

// BlockUtilization is used ÷ allocated slots of the referenced blocks, 0–1: what
// PagedAttention's paper calls effective memory usage. 0 with nothing allocated.
func (s Stats) BlockUtilization() float64 { return share(s.SlotsUsed, s.BlocksUsed*s.BlockSize) }

// InternalFragmentation is the share of allocated slots that hold nothing, 0–1.
func (s Stats) InternalFragmentation() float64 {
	if s.BlocksUsed == 0 {
		return 0
	}
	return 1 - s.BlockUtilization()
}

// SharedBytesSaved is the KV memory in bytes that sharing saves at this moment.
func (s Stats) SharedBytesSaved() int64 { return int64(s.BlocksSaved) * s.BlockBytes }

// PrefixHitRate is the share of looked-up prompt tokens that were found, 0–1.
func (s Stats) PrefixHitRate() float64 {
	if s.PrefixQueries == 0 {
		return 0
	}
	return float64(s.PrefixHits) / float64(s.PrefixQueries)
}

func share(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// LedgerEntry is one line of the memory plan.
type LedgerEntry struct {
	Name   string
	Bytes  int64
	Detail string // how the number comes about
}

// Setting is one effective configuration value and where it comes from.
type Setting struct {
	Name, Value, Reason string // vLLM's flag name; the reason is a short phrase
}

// StepRecord is one step as it was decided and ran.
type StepRecord struct {
	scheduler.Record
	Start  time.Time     `json:"start"`     // when it was launched
	Host   time.Duration `json:"host_ns"`   // the engine's own time: schedule, pack, launch, deliver, this record, telling readers meanwhile
	Device time.Duration `json:"device_ns"` // the device's time
}

// Decision is what was done about a shortage of KV blocks, as a StepRecord has it.
type Decision = scheduler.RecordDecision
