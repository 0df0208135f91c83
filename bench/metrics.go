package bench

import (
	"math"
	"slices"
	"time"
)

// Sample is one request as the load loop saw it. Times are since the run began.
type Sample struct {
	Submitted    time.Duration
	Admitted     time.Duration   // first got a place in a step; 0 = not known
	Tokens       []time.Duration // arrival of each token
	Ended        time.Duration
	PromptTokens int
	CachedTokens int
	Err          error
}

// TTFT is the time to the first token; ok is false when none came.
func (s *Sample) TTFT() (d time.Duration, ok bool) {
	if len(s.Tokens) == 0 {
		return 0, false
	}
	return s.Tokens[0] - s.Submitted, true
}

// TPOT is the mean time per output token after the first; ok is false for fewer
// than two tokens.
func (s *Sample) TPOT() (d time.Duration, ok bool) {
	n := len(s.Tokens)
	if n < 2 {
		return 0, false
	}
	return (s.Tokens[n-1] - s.Tokens[0]) / time.Duration(n-1), true
}

// Distribution is what reports print of a set of values.
type Distribution struct {
	N                              int
	Mean, Median, P90, P99, StdDev float64
}

// Describe summarizes values, which it sorts. An empty set gives zeros.
func Describe(values []float64) Distribution {
	if len(values) == 0 {
		return Distribution{}
	}
	slices.Sort(values)
	var sum, squares float64
	for _, v := range values {
		sum += v
	}
	mean := sum / float64(len(values))
	for _, v := range values {
		squares += (v - mean) * (v - mean)
	}
	return Distribution{
		N: len(values), Mean: mean, StdDev: math.Sqrt(squares / float64(len(values))),
		Median: Percentile(values, 50), P90: Percentile(values, 90), P99: Percentile(values, 99),
	}
}

// Percentile of sorted values, 0 ≤ p ≤ 100, linear between ranks; NaN for none.
func Percentile(sorted []float64, p float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	rank := p / 100 * float64(len(sorted)-1)
	low := int(rank)
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (sorted[low+1]-sorted[low])*(rank-float64(low))
}

// Summary holds the metrics of a run. Latencies are in milliseconds.
type Summary struct {
	Completed, Failed           int
	Duration                    time.Duration
	PromptTokens, OutputTokens  int
	CachedTokens                int
	RequestThroughput           float64 // requests/s
	OutputThroughput            float64 // tokens/s
	TotalThroughput             float64 // prompt and output tokens/s
	TTFT, TPOT, ITL, E2ELatency Distribution
	Queue                       Distribution // submission to admission
}

// Summarize computes the metrics of samples. Failed requests count as such and
// in nothing else.
func Summarize(samples []Sample) Summary {
	var s Summary
	var ttft, tpot, itl, e2e, queue []float64
	first, last := time.Duration(math.MaxInt64), time.Duration(0)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	for i := range samples {
		r := &samples[i]
		if r.Err != nil {
			s.Failed++
			continue
		}
		s.Completed++
		s.PromptTokens += r.PromptTokens
		s.OutputTokens += len(r.Tokens)
		s.CachedTokens += r.CachedTokens
		first, last = min(first, r.Submitted), max(last, r.Ended)
		e2e = append(e2e, ms(r.Ended-r.Submitted))
		if r.Admitted > 0 {
			queue = append(queue, max(0, ms(r.Admitted-r.Submitted)))
		}
		if d, ok := r.TTFT(); ok {
			ttft = append(ttft, ms(d))
		}
		if d, ok := r.TPOT(); ok {
			tpot = append(tpot, ms(d))
		}
		for j := 1; j < len(r.Tokens); j++ {
			itl = append(itl, ms(r.Tokens[j]-r.Tokens[j-1]))
		}
	}
	if s.Completed > 0 && last > first {
		s.Duration = last - first
		seconds := s.Duration.Seconds()
		s.RequestThroughput = float64(s.Completed) / seconds
		s.OutputThroughput = float64(s.OutputTokens) / seconds
		s.TotalThroughput = float64(s.OutputTokens+s.PromptTokens) / seconds
	}
	s.TTFT, s.TPOT, s.ITL, s.E2ELatency = Describe(ttft), Describe(tpot), Describe(itl), Describe(e2e)
	s.Queue = Describe(queue)
	return s
}
