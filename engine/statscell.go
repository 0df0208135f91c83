package engine

import (
	"sync/atomic"
	"time"
)

// statWords is the number of fields of Stats.
const statWords = 23

// statsCell hands Stats from the engine's goroutine to any other, without a
// lock: a sequence lock (Linux's seqlock) over atomic words. The writer makes
// the version odd while it writes; a reader that saw it odd or changed reads
// again. A step's numbers are thus always seen together.
type statsCell struct {
	version atomic.Uint64
	words   [statWords]atomic.Int64
}

// store publishes s. One goroutine stores.
func (c *statsCell) store(s *Stats) {
	c.version.Add(1)
	for i, w := range s.words() {
		c.words[i].Store(w)
	}
	c.version.Add(1)
}

func (c *statsCell) load() Stats {
	for {
		before := c.version.Load()
		var w [statWords]int64
		for i := range w {
			w[i] = c.words[i].Load()
		}
		if before%2 == 0 && c.version.Load() == before {
			return statsOf(&w)
		}
	}
}

func (s *Stats) words() [statWords]int64 {
	return [statWords]int64{
		int64(s.Running), int64(s.Waiting), int64(s.Swapped),
		int64(s.BlocksTotal), int64(s.BlocksUsed), int64(s.BlocksCached), int64(s.BlocksFree), int64(s.BlocksInFlight),
		s.PromptTokens, s.GenerationTokens, s.PrefixQueries, s.PrefixHits,
		s.PreemptionsRecompute, s.PreemptionsSwap, s.SwapInBytes, s.SwapOutBytes, s.Evictions, s.Steps,
		s.FinishedStop, s.FinishedLength, s.FinishedAbort, s.FinishedError,
		int64(s.LastStep),
	}
}

func statsOf(w *[statWords]int64) Stats {
	return Stats{
		Running: int(w[0]), Waiting: int(w[1]), Swapped: int(w[2]),
		BlocksTotal: int(w[3]), BlocksUsed: int(w[4]), BlocksCached: int(w[5]), BlocksFree: int(w[6]), BlocksInFlight: int(w[7]),
		PromptTokens: w[8], GenerationTokens: w[9], PrefixQueries: w[10], PrefixHits: w[11],
		PreemptionsRecompute: w[12], PreemptionsSwap: w[13], SwapInBytes: w[14], SwapOutBytes: w[15], Evictions: w[16], Steps: w[17],
		FinishedStop: w[18], FinishedLength: w[19], FinishedAbort: w[20], FinishedError: w[21],
		LastStep: time.Duration(w[22]),
	}
}
