package bench

import (
	"fmt"
	"math/rand/v2"

	"github.com/pagoda-engine/pagoda/engine"
)

// Load describes the requests of a cell. Equal loads and seeds make equal requests.
type Load struct {
	Requests     int     `json:"requests"`
	PromptTokens int     `json:"prompt_tokens"`          // mean
	OutputTokens int     `json:"output_tokens"`          // mean
	RangeRatio   float64 `json:"range_ratio"`            // lengths are even in mean·(1 ± ratio); 0 = all alike
	SharedPrefix int     `json:"shared_prefix"`          // tokens that all prompts begin with, within PromptTokens
	Rate         float64 `json:"request_rate,omitempty"` // Poisson arrivals in requests/s; 0 = all at once
	Choices      int     `json:"n,omitempty"`            // of each request; 0 = 1
}

// fill takes the missing parts of l from def. A negative ratio or prefix is none.
func (l *Load) fill(def Load) {
	for value, missing := range map[*int]int{
		&l.Requests: def.Requests, &l.PromptTokens: def.PromptTokens, &l.OutputTokens: def.OutputTokens, &l.SharedPrefix: def.SharedPrefix,
	} {
		if *value == 0 {
			*value = missing
		}
	}
	if l.RangeRatio == 0 {
		l.RangeRatio = def.RangeRatio
	}
	l.RangeRatio, l.SharedPrefix = max(l.RangeRatio, 0), max(l.SharedPrefix, 0)
}

// check says what makes no sense.
func (l *Load) check(info engine.Info) error {
	longest := int(float64(l.PromptTokens)*(1+l.RangeRatio)) + int(float64(l.OutputTokens)*(1+l.RangeRatio))
	switch {
	case int64(l.Requests)*int64(l.PromptTokens+l.OutputTokens) > mostRunTokens:
		return badLoad("--requests %d of --prompt-tokens %d and --output-tokens %d come to %d tokens a run, at most %d are measured: choose fewer or shorter ones",
			l.Requests, l.PromptTokens, l.OutputTokens, int64(l.Requests)*int64(l.PromptTokens+l.OutputTokens), mostRunTokens)
	case l.Requests < 1 || l.PromptTokens < 1 || l.OutputTokens < 2 || !(l.RangeRatio < 1):
		return badLoad("want --requests and --prompt-tokens of at least 1, --output-tokens of at least 2, --random-range-ratio below 1")
	case l.SharedPrefix > l.PromptTokens:
		return badLoad("--shared-prefix %d is more than --prompt-tokens %d", l.SharedPrefix, l.PromptTokens)
	case longest > info.MaxModelLen && info.MaxModelLen == info.NumBlocks*info.BlockSize:
		return badLoad("--prompt-tokens %d and --output-tokens %d come to as many as %d tokens, the KV pool holds %d: give it more memory (--gpu-memory-utilization, --memory-limit, --num-gpu-blocks-override) or choose shorter requests",
			l.PromptTokens, l.OutputTokens, longest, info.MaxModelLen)
	case longest > info.MaxModelLen:
		return badLoad("--prompt-tokens %d and --output-tokens %d come to as many as %d tokens, max_model_len is %d: choose shorter requests", l.PromptTokens, l.OutputTokens, longest, info.MaxModelLen)
	}
	return nil
}

// badLoad is a mistake of whoever chose the requests.
func badLoad(format string, args ...any) error {
	return &engine.ConfigError{Problems: []string{fmt.Sprintf(format, args...)}}
}

// lengths draws around the means.
func (l *Load) lengths() Lengths {
	draw := func(r *rand.Rand, mean int) int {
		around := int(float64(mean) * l.RangeRatio)
		return mean - around + r.IntN(2*around+1)
	}
	return func(r *rand.Rand) (prompt, output int) {
		return max(draw(r, l.PromptTokens), l.SharedPrefix+1), max(draw(r, l.OutputTokens), 2)
	}
}

// workload makes the requests.
func (l *Load) workload(seed uint64, vocab int) Workload {
	work := RandomWorkload(seed, l.Requests, vocab, l.Rate, l.SharedPrefix, l.lengths())
	if l.Choices > 1 {
		for i := range work {
			work[i].Choices = l.Choices
		}
	}
	return work
}

// peakBlocks is the most KV blocks that the requests need at one time when at most
// concurrency of them run, each step brings each a token and no block is ever
// short. Shared prefixes are counted once.
func peakBlocks(work Workload, blockSize, concurrency, sharedPrefix int) int {
	type sequence struct{ tokens, left int }
	var running []sequence
	shared := sharedPrefix / blockSize
	peak, next := 0, 0
	for next < len(work) || len(running) > 0 {
		for next < len(work) && (concurrency <= 0 || len(running) < concurrency) {
			running = append(running, sequence{len(work[next].Prompt), work[next].MaxTokens})
			next++
		}
		blocks, kept := shared, running[:0]
		for _, s := range running {
			blocks += (s.tokens+blockSize-1)/blockSize - shared
			s.tokens, s.left = s.tokens+1, s.left-1
			if s.left > 0 {
				kept = append(kept, s)
			}
		}
		running, peak = kept, max(peak, blocks)
	}
	return peak
}
