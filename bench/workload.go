package bench

import (
	"math"
	"math/rand/v2"
	"time"
)

// Workload is a list of requests in order of arrival.
type Workload []Job

// Job is one request of a Workload.
type Job struct {
	At        time.Duration // arrival, since the run began
	Prompt    []int32
	MaxTokens int // exactly so many tokens are generated: end-of-sequence is ignored
	Choices   int // of the prompt, each of which has a Sample; 0 = 1
}

// Lengths draws the prompt and output lengths of a request.
type Lengths func(r *rand.Rand) (prompt, output int)

// Fixed gives every request the same lengths.
func Fixed(prompt, output int) Lengths {
	return func(*rand.Rand) (int, int) { return prompt, output }
}

// Uniform draws both lengths evenly from [low, high].
func Uniform(low, high int) Lengths {
	return func(r *rand.Rand) (int, int) { return low + r.IntN(high-low+1), low + r.IntN(high-low+1) }
}

// RandomWorkload makes n requests of random token ids below vocab. rate is the
// mean of Poisson arrivals in requests/s; 0 or +Inf: all at once. All of them come within n ÷ rate,
// as those of Serve do: runs with other seeds have as much to do in as long. The first
// sharedPrefix tokens of all prompts are the same.
func RandomWorkload(seed uint64, n, vocab int, rate float64, sharedPrefix int, lengths Lengths) Workload {
	r := rand.New(rand.NewPCG(seed, 0))
	ids := func(n int) []int32 {
		out := make([]int32, n)
		for i := range out {
			out[i] = int32(r.IntN(vocab))
		}
		return out
	}
	prefix := ids(sharedPrefix)
	work, arrivals := make(Workload, n), make([]float64, n) // arrivals: of one a second
	var at float64
	for i := range work {
		prompt, output := lengths(r)
		tokens := ids(max(prompt, 1))
		copy(tokens, prefix)
		work[i], arrivals[i] = Job{Prompt: tokens, MaxTokens: max(output, 1)}, at
		if rate > 0 && !math.IsInf(rate, 1) {
			at += r.ExpFloat64()
		}
	}
	for i := range work {
		if at > 0 {
			work[i].At = time.Duration(arrivals[i] / at * float64(n) / rate * float64(time.Second))
		}
	}
	return work
}
