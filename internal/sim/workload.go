package sim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// Lengths is a log-normal distribution of tokens, given as what people know of
// theirs. P95 between Mean and 3.8 × Mean; equal = always the mean.
type Lengths struct{ Mean, P95 float64 }

// Workload is what Generate makes requests from. The zero value of a field means
// its documented default.
type Workload struct {
	Requests int // in all, turns of conversations included
	Seed     uint64

	// Rate is the mean of the arrivals in requests/s; 0 or +Inf: all at once.
	// Gaps are gamma distributed with shape Burstiness: 1 (default) is Poisson,
	// less comes in bursts, more is steadier.
	Rate, Burstiness float64

	Prompt, Output Lengths // of a turn; default 220 mean, 800 p95 and 200 mean, 600 p95, about as ShareGPT
	MaxTokens      int     // what requests ask for, and get at most; 0 = just what they will get

	Families    int     // of shared prefixes; 0 = none
	PrefixLen   int     // tokens of each
	PrefixShare float64 // requests that begin with one, 0–1

	Turns     int           // of a conversation; default 1
	ThinkTime time.Duration // mean, exponential, before the next turn; default 10 s

	AbortShare float64       // requests whose client loses patience, 0–1
	Patience   time.Duration // mean, exponential; default 5 s

	ForkShare float64 // requests with N choices, 0–1
	N         int     // default 4

	Priorities int // priorities are 0 … Priorities−1, evenly; default 1
}

func (w *Workload) validate() error {
	var errs []error
	if w.Requests < 1 {
		errs = append(errs, fmt.Errorf("%d requests, want at least 1", w.Requests))
	}
	if w.Rate < 0 || math.IsNaN(w.Rate) {
		errs = append(errs, fmt.Errorf("a rate of %v requests/s", w.Rate))
	}
	for _, share := range []float64{w.PrefixShare, w.AbortShare, w.ForkShare} {
		if !(share >= 0 && share <= 1) {
			errs = append(errs, fmt.Errorf("a share of %v, want 0 to 1", share))
		}
	}
	w.Burstiness = orDefault(w.Burstiness, 1)
	w.Prompt, w.Output = orDefault(w.Prompt, Lengths{220, 800}), orDefault(w.Output, Lengths{200, 600})
	w.Turns, w.N, w.Priorities = max(w.Turns, 1), orDefault(w.N, 4), max(w.Priorities, 1)
	w.ThinkTime, w.Patience = orDefault(w.ThinkTime, 10*time.Second), orDefault(w.Patience, 5*time.Second)
	if !(w.Burstiness > 0) || math.IsInf(w.Burstiness, 0) {
		errs = append(errs, fmt.Errorf("a burstiness of %v, want more than 0", w.Burstiness))
	}
	if w.Families < 0 || w.PrefixLen < 0 || w.N < 1 || w.ThinkTime < 0 || w.Patience < 0 || w.MaxTokens < 0 {
		errs = append(errs, errors.New("a negative number of families, tokens, choices or seconds"))
	}
	if max(w.PrefixLen, w.MaxTokens) > maxSlots {
		errs = append(errs, fmt.Errorf("%d tokens, want at most %d", max(w.PrefixLen, w.MaxTokens), maxSlots))
	}
	for _, l := range []Lengths{w.Prompt, w.Output} {
		if _, _, err := l.parameters(); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// parameters solves mean = exp(μ + σ²/2) and p95 = exp(μ + 1.645 σ) for μ and σ.
func (l Lengths) parameters() (mu, sigma float64, err error) {
	const z = 1.6449
	spread := z*z - 2*math.Log(l.P95/l.Mean)
	if !(l.Mean >= 1) || l.P95 < l.Mean || !(spread >= 0) {
		return 0, 0, fmt.Errorf("lengths of mean %v and p95 %v: want a mean of at least 1 and a p95 of 1 to %.1f times the mean", l.Mean, l.P95, math.Exp(z*z/2))
	}
	sigma = z - math.Sqrt(spread)
	return math.Log(l.Mean) - sigma*sigma/2, sigma, nil
}

func (l Lengths) draw(r *rand.Rand) int {
	mu, sigma, _ := l.parameters() // validated
	return max(1, int(math.Round(math.Exp(mu+sigma*r.NormFloat64()))))
}

// arrival is one request that comes in.
type arrival struct {
	at       time.Duration
	prompt   []int32
	outputs  []int   // tokens that each choice will generate
	tokens   []int32 // what the only choice generates; nil = made up
	maxLen   int     // prompt and output, as asked for
	priority int
	salt     string
	patience time.Duration // aborted so long after at; 0 = never

	seed uint64 // of made-up output
	turn int
	// Of a recorded request: its id there, and its parent's.
	id, parent scheduler.SequenceID
}

// source gives arrivals in the order of time.
type source interface {
	// peek is the time of the next arrival; ok is false when there is none.
	peek() (at time.Duration, ok bool)
	next() *arrival
	// follow is what the client of an answered request sends next, nil = nothing.
	follow(a *arrival, answer []int32, now time.Duration) *arrival
	total() int
}

// generator is the source of a Workload.
type generator struct {
	Workload
	r      *rand.Rand
	limit  int // of a sequence, in tokens
	left   int
	at     time.Duration // of the next arrival
	serial uint64
}

// newGenerator makes requests of at most limit tokens.
func newGenerator(w Workload, limit int) (*generator, error) {
	if err := w.validate(); err != nil {
		return nil, err
	}
	if limit < 2 {
		return nil, fmt.Errorf("sequences of at most %d tokens: want at least a prompt and an answer of 1", limit)
	}
	return &generator{Workload: w, r: rand.New(rand.NewPCG(w.Seed, 0x70a60da)), limit: limit, left: w.Requests}, nil
}

func (g *generator) total() int { return g.Requests }

func (g *generator) peek() (time.Duration, bool) { return g.at, g.left > 0 }

func (g *generator) next() *arrival {
	a := g.request(g.at, nil)
	if g.Rate > 0 && !math.IsInf(g.Rate, 1) {
		g.at += seconds(Gamma(g.r, g.Burstiness) / (g.Rate * g.Burstiness))
	}
	return a
}

// request makes the next request: a new conversation, or with a history its next
// turn.
func (g *generator) request(at time.Duration, history []int32) *arrival {
	g.left--
	g.serial++
	a := &arrival{at: at, seed: mix(g.Seed ^ mix(g.serial)), turn: 1}
	if g.Priorities > 1 {
		a.priority = g.r.IntN(g.Priorities)
	}
	n, output := g.Prompt.draw(g.r), g.Output.draw(g.r)
	if g.r.Float64() < g.AbortShare {
		a.patience = max(1, seconds(g.r.ExpFloat64()*g.Patience.Seconds()))
	}
	prefix := 0
	if history == nil && g.Families > 0 && g.r.Float64() < g.PrefixShare {
		prefix = g.PrefixLen
	}
	size := min(len(history)+prefix+n, g.limit-1)
	// Room to grow: the scheduler appends the output in place.
	a.prompt = make([]int32, 0, min(size+output, g.limit))
	a.prompt = append(a.prompt, history[:min(len(history), size)]...)
	if prefix > 0 {
		a.prompt = makeUp(a.prompt, mix(g.Seed)+uint64(g.r.IntN(g.Families)), min(prefix, size))
	}
	a.prompt = makeUp(a.prompt, a.seed, size-len(a.prompt))
	output = min(output, g.limit-size)
	a.maxLen = size + output
	if g.MaxTokens > 0 {
		output = min(output, g.MaxTokens)
		a.maxLen = min(size+g.MaxTokens, g.limit)
	}
	a.outputs = []int{output}
	if g.r.Float64() < g.ForkShare {
		for range g.N - 1 {
			a.outputs = append(a.outputs, 1+g.r.IntN(output))
		}
	}
	return a
}

func (g *generator) follow(a *arrival, answer []int32, now time.Duration) *arrival {
	if a.turn >= g.Turns || g.left == 0 || len(answer)+1 >= g.limit {
		return nil
	}
	next := g.request(now+seconds(g.r.ExpFloat64()*g.ThinkTime.Seconds()), answer)
	next.turn, next.priority = a.turn+1, a.priority
	return next
}

// vocab is the number of ids that made-up tokens are drawn from.
const vocab = 150000

// makeUp appends n tokens that follow from the seed.
func makeUp(to []int32, seed uint64, n int) []int32 {
	for i := range n {
		to = append(to, madeUp(seed, i))
	}
	return to
}

// madeUp is the i-th token of a text that follows from its seed.
func madeUp(seed uint64, i int) int32 {
	return int32((mix(seed+uint64(i)) >> 32) * vocab >> 32)
}

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Gamma draws from the gamma distribution of scale 1 (Marsaglia and Tsang, 2000).
func Gamma(r *rand.Rand, shape float64) float64 {
	if shape == 1 {
		return r.ExpFloat64()
	}
	if shape < 1 { // Γ(k) = Γ(k+1)·U^(1/k)
		return Gamma(r, shape+1) * math.Pow(1-r.Float64(), 1/shape)
	}
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := r.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if math.Log(1-r.Float64()) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}

// seconds converts, bounded to a century.
func seconds(s float64) time.Duration {
	return time.Duration(min(s, 3e9) * float64(time.Second))
}
