package engine

import "time"

// Stats is a snapshot for metrics and tools. Counters only grow.
type Stats struct {
	Running, Waiting, Swapped int // requests

	BlocksTotal, BlocksUsed, BlocksCached, BlocksFree, BlocksInFlight int // device blocks without block 0; used = referenced

	PromptTokens, GenerationTokens                             int64
	PrefixQueries, PrefixHits                                  int64 // tokens
	PreemptionsRecompute, PreemptionsSwap                      int64
	SwapInBytes, SwapOutBytes                                  int64
	Evictions                                                  int64 // cached blocks whose content was given up
	Steps                                                      int64
	FinishedStop, FinishedLength, FinishedAbort, FinishedError int64

	// LastStep is the device time of the last step.
	LastStep time.Duration
}

// KVUsage is used ÷ total blocks, 0–1.
func (s Stats) KVUsage() float64 {
	if s.BlocksTotal == 0 {
		return 0
	}
	return float64(s.BlocksUsed) / float64(s.BlocksTotal)
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
	Step     int64
	Start    time.Time     // when it was launched
	Host     time.Duration // the engine's own time: schedule, pack, launch, deliver
	Device   time.Duration // the device's time
	Tokens   int           // computed
	Decodes  int           // sequences with one token that ran before
	Prefills int           // sequences with a chunk of known tokens

	Admitted   int    // sequences that began or resumed
	HitTokens  int    // of these, tokens found in the prefix cache
	Preempted  int    // sequences that gave up their blocks
	Evictions  int    // cached blocks that lost their content
	Waiting    int    // sequences left waiting
	WaitReason string // why the first of them waits

	BlocksUsed, BlocksCached, BlocksFree int // once it was scheduled
}
