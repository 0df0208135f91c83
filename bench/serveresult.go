package bench

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Goodput are the limits that a good request keeps, in milliseconds, by the names
// ttft, tpot and e2el.
type Goodput map[string]float64

// ParseGoodput reads "ttft:200" and the like.
func ParseGoodput(pairs []string) (Goodput, error) {
	g := Goodput{}
	for _, pair := range pairs {
		name, limit, found := strings.Cut(pair, ":")
		ms, err := strconv.ParseFloat(limit, 64)
		if !found || err != nil || !(ms >= 0) || !slices.Contains([]string{"ttft", "tpot", "e2el"}, name) {
			return nil, fmt.Errorf("--goodput %s: want ttft, tpot or e2el with milliseconds, such as ttft:200", pair)
		}
		g[name] = ms
	}
	return g, nil
}

// ServeResult is what a run comes to, by vLLM's definitions. Latencies are in
// milliseconds.
type ServeResult struct {
	Completed, Failed, Unfinished int
	Duration                      time.Duration
	InputTokens, OutputTokens     int
	CachedTokens                  int
	RequestThroughput             float64
	RequestGoodput                float64 // NaN without limits
	OutputThroughput              float64
	TotalThroughput               float64
	PeakOutputThroughput          float64 // chunks in the best second
	PeakConcurrency               int
	Uncounted                     int // completed requests whose tokens are chunks
	Short                         int // completed requests that ended before the length they had to have
	// Latencies holds the values of all requests, sorted, by vLLM's names: ttft,
	// tpot, itl, e2el, client_queue_time, e2el_including_client_queue.
	Latencies map[string][]float64
	SendLag   Distribution // ms: how late requests were sent
	WakeLag   Distribution // ms: how late events were handled
	Failures  map[string]int
	Examples  map[string]string // of each kind of failure, the first message
}

// latencyNames are the keys of ServeResult.Latencies with their names, in order.
var latencyNames = []struct{ Key, Short, Long string }{
	{"ttft", "TTFT", "Time to First Token"},
	{"tpot", "TPOT", "Time per Output Token (excl. 1st token)"},
	{"itl", "ITL", "Inter-token Latency"},
	{"e2el", "E2EL", "End-to-end Latency"},
	{"client_queue_time", "Client Queue Time", "Client-side Queueing"},
	{"e2el_including_client_queue", "E2EL incl. Client Queue", "Queue-inclusive End-to-end Latency"},
}

// LatencyKeys are the names that percentiles can be asked of.
func LatencyKeys() (keys []string) {
	for _, n := range latencyNames {
		keys = append(keys, n.Key)
	}
	return keys
}

// tpot is vLLM's: (E2EL − TTFT) ÷ (output tokens − 1); ok is false for one token.
func (s *ServeSample) tpot() (ms float64, ok bool) {
	if s.OutputTokens < 2 {
		return 0, false
	}
	return milliseconds(s.Ended-s.Tokens[0]) / float64(s.OutputTokens-1), true
}

// Result computes the metrics of a run.
func (run *ServeRun) Result(goal Goodput) *ServeResult {
	res := &ServeResult{
		Duration: run.Duration, RequestGoodput: math.NaN(), WakeLag: run.WakeLag,
		Latencies: map[string][]float64{}, Failures: map[string]int{}, Examples: map[string]string{},
	}
	add := func(name string, ms float64) { res.Latencies[name] = append(res.Latencies[name], ms) }
	good := 0
	var lag []float64
	for i := range run.Samples {
		s := &run.Samples[i]
		switch s.Failure {
		case "":
		case errInterrupted.Error():
			res.Unfinished++
			continue
		default:
			res.Failed++
			if res.Failures[s.Failure]++; res.Failures[s.Failure] == 1 {
				res.Examples[s.Failure] = s.Err.Error()
			}
			continue
		}
		res.Completed++
		res.InputTokens += s.PromptTokens
		res.OutputTokens += s.OutputTokens
		res.CachedTokens += s.CachedTokens
		if !s.Counted {
			res.Uncounted++
		}
		if s.Counted && s.OutputTokens < s.Wanted {
			res.Short++
		}
		lag = append(lag, milliseconds(s.Lag))
		ttft, e2el := milliseconds(s.Tokens[0]-s.Submitted), milliseconds(s.Ended-s.Submitted)
		tpot, several := s.tpot()
		add("ttft", ttft)
		add("e2el", e2el)
		add("client_queue_time", milliseconds(s.Queued))
		add("e2el_including_client_queue", e2el+milliseconds(s.Queued))
		if several {
			add("tpot", tpot)
		}
		for j := 1; j < len(s.Tokens); j++ {
			add("itl", milliseconds(s.Tokens[j]-s.Tokens[j-1]))
		}
		if goal.met(map[string]float64{"ttft": ttft, "tpot": tpot, "e2el": e2el}) {
			good++
		}
	}
	for _, values := range res.Latencies {
		slices.Sort(values)
	}
	res.SendLag = Describe(lag)
	if seconds := run.Duration.Seconds(); seconds > 0 {
		res.RequestThroughput = float64(res.Completed) / seconds
		res.OutputThroughput = float64(res.OutputTokens) / seconds
		res.TotalThroughput = float64(res.InputTokens+res.OutputTokens) / seconds
		if len(goal) > 0 {
			res.RequestGoodput = float64(good) / seconds
		}
	}
	run.peaks(res)
	return res
}

// met says whether a request's values, zero where it has none, keep all limits.
func (g Goodput) met(ms map[string]float64) bool {
	for name, limit := range g {
		if ms[name] > limit {
			return false
		}
	}
	return true
}

// peaks finds the second with most output, counted from the first request, and
// the most requests in flight at a moment.
func (run *ServeRun) peaks(res *ServeResult) {
	type edge struct {
		at    time.Duration
		delta int
	}
	var edges []edge
	first := time.Duration(math.MaxInt64)
	for i := range run.Samples {
		if s := &run.Samples[i]; s.Failure == "" {
			edges = append(edges, edge{s.Submitted, 1}, edge{s.Ended, -1})
			first = min(first, s.Submitted)
		}
	}
	perSecond := map[int]int{}
	for i := range run.Samples {
		if s := &run.Samples[i]; s.Failure == "" {
			for _, at := range s.Tokens {
				perSecond[int((at-first)/time.Second)]++
			}
		}
	}
	for _, n := range perSecond {
		res.PeakOutputThroughput = max(res.PeakOutputThroughput, float64(n))
	}
	slices.SortFunc(edges, func(a, b edge) int {
		if a.at != b.at {
			return int(min(max(a.at-b.at, -1), 1))
		}
		return a.delta - b.delta // one that ends makes room for one that begins
	})
	running := 0
	for _, e := range edges {
		running += e.delta
		res.PeakConcurrency = max(res.PeakConcurrency, running)
	}
}

// failureList is the kinds of failure, most frequent first.
func (res *ServeResult) failureList() []string {
	return slices.SortedFunc(maps.Keys(res.Failures), func(a, b string) int {
		if res.Failures[a] != res.Failures[b] {
			return res.Failures[b] - res.Failures[a]
		}
		return strings.Compare(a, b)
	})
}
