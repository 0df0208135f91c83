package bench

import (
	"slices"

	"github.com/pagoda-engine/pagoda/engine"
)

// Bounds of what an experiment takes on. The times of all tokens of a run stay in
// memory until it ends, and so do the prompts' ids.
const (
	mostRequests  = 100_000
	mostRunTokens = 1 << 27 // prompts and outputs of a run
	mostRepeats   = 1000
	mostValues    = 64      // of a list
	mostInFlight  = 1 << 14 // sequences at once, as the engine has it
	mostBatched   = 1 << 20 // tokens of a step, likewise
	mostSwapBytes = 1 << 50
)

// Check says what is wrong with the options, as far as that is known without an
// engine.
func (o *CellOptions) Check() error {
	l := &o.Load
	switch {
	case o.Repeats < 0 || o.Repeats > mostRepeats:
		return badLoad("--repeats %d: want 1 to %d", o.Repeats, mostRepeats)
	case l.Requests < 0 || l.Requests > mostRequests:
		return badLoad("--requests %d: want 1 to %d", l.Requests, mostRequests)
	case l.PromptTokens < 0 || l.PromptTokens > mostRunTokens || l.OutputTokens < 0 || l.OutputTokens > mostRunTokens || l.SharedPrefix > mostRunTokens:
		return badLoad("--prompt-tokens %d, --output-tokens %d, --shared-prefix %d: want 0 (the experiment's default) to %d", l.PromptTokens, l.OutputTokens, l.SharedPrefix, mostRunTokens)
	case !(l.RangeRatio < 1):
		return badLoad("--random-range-ratio %v: want less than 1", l.RangeRatio)
	case o.SLO.P99ITL < 0 || o.SLO.P99TTFT < 0:
		return badLoad("--p99-itl-ms and --p99-ttft-ms must not be negative")
	case !(l.Rate >= 0):
		return badLoad("--request-rate %v: want 0 (all at once) or more", l.Rate)
	}
	return nil
}

// Check is CellOptions.Check with the batch sizes.
func (o *BaselineOptions) Check() error {
	if err := checkValues("--batch-sizes", o.Batches, 1, mostInFlight); err != nil {
		return err
	}
	return o.CellOptions.Check()
}

// Check is CellOptions.Check with the shares of the memory.
func (o *MemoryOptions) Check() error {
	if err := checkUtilizations(o.Utilizations); err != nil {
		return err
	}
	return o.CellOptions.Check()
}

// Check is CellOptions.Check with the values to measure.
func (o *SeqsOptions) Check() error {
	if err := checkValues("--max-num-seqs", o.MaxNumSeqs, 1, mostInFlight); err != nil {
		return err
	}
	return o.CellOptions.Check()
}

// Check is CellOptions.Check with the sizes and the pool's share.
func (o *SwapOptions) Check() error {
	if err := checkValues("--swap-space", o.SwapSpaces, 0, mostSwapBytes); err != nil {
		return err
	}
	if !(o.Share >= 0 && o.Share <= 1) {
		return badLoad("--share %v: want more than 0 and at most 1", o.Share)
	}
	return o.CellOptions.Check()
}

// Check is CellOptions.Check with the choices and the tight pool's share.
func (o *PagedOptions) Check() error {
	if o.Choices != 0 && (o.Choices < 2 || o.Choices > engine.MaxChoices) {
		return badLoad("--n %d: want 2 to %d", o.Choices, engine.MaxChoices)
	}
	if !(o.Share >= 0 && o.Share <= 1) {
		return badLoad("--share %v: want more than 0 and at most 1", o.Share)
	}
	return o.CellOptions.Check()
}

// Check is CellOptions.Check with the values to try.
func (o *TuneOptions) Check() error {
	for _, err := range []error{
		checkUtilizations(o.Utilizations),
		checkValues("--max-num-seqs", o.MaxNumSeqs, 1, mostInFlight),
		checkValues("--max-num-batched-tokens", o.BatchTokens, 1, mostBatched),
		checkValues("--swap-space", o.SwapSpaces, 0, mostSwapBytes),
	} {
		if err != nil {
			return err
		}
	}
	return o.CellOptions.Check()
}

// checkValues wants a list's values in a range.
func checkValues[N int | int64](flag string, values []N, least, most N) error {
	if len(values) > mostValues {
		return badLoad("%s: %d values, want at most %d", flag, len(values), mostValues)
	}
	for _, v := range values {
		if v < least || v > most {
			return badLoad("%s %d: want %d to %d", flag, v, least, most)
		}
	}
	return nil
}

func checkUtilizations(values []float64) error {
	if len(values) > mostValues {
		return badLoad("--gpu-memory-utilization: %d values, want at most %d", len(values), mostValues)
	}
	if slices.ContainsFunc(values, func(v float64) bool { return !(v > 0 && v <= 1) }) {
		return badLoad("--gpu-memory-utilization %v: want values above 0 and at most 1", values)
	}
	return nil
}
