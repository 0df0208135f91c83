package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pagoda-engine/pagoda/internal/sim"
)

// ServePrompt is one request to a server.
type ServePrompt struct {
	Text         string
	IDs          []int32   // instead of Text: exact tokens, completions only
	Messages     []Message // instead of Text: a conversation, chat only
	PromptTokens int       // 0 = not known before the server says
	OutputTokens int       // max_tokens
}

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// ServeLoad says when requests are sent.
type ServeLoad struct {
	RequestRate    float64 // mean arrivals/s; +Inf = all at once
	Burstiness     float64 // shape of the gamma distribution of gaps: 1 = Poisson, less = bursts, +Inf = even
	MaxConcurrency int     // most requests in flight; 0 = open loop
	Seed           uint64
	Done           func() // called after each request, from several goroutines
}

// ServeSample is one request as the client saw it. Tokens are arrivals of chunks
// with text, which may hold several tokens.
type ServeSample struct {
	Sample
	OutputTokens int           // as the server counts them
	Wanted       int           // tokens that must come, since the end of the text is ignored; 0 = none
	Counted      bool          // the server said how many; else chunks were counted
	Queued       time.Duration // from the planned time until the concurrency bound let it go
	Lag          time.Duration // from then, until it was really sent
	Text         string
	Failure      string // kind of failure; "" = none
}

// ServeRun is one run of load against a server.
type ServeRun struct {
	Samples     []ServeSample
	Duration    time.Duration // from the start until the last request ended
	WakeLag     Distribution  // how late the client's timers woke it, ms: events were handled so late
	Interrupted bool
}

// Serve sends the prompts to the server. A cancelled context ends it early; what
// is done by then is in the run.
func Serve(ctx context.Context, c *Client, prompts []ServePrompt, load ServeLoad) (*ServeRun, error) {
	bodies := make([][]byte, len(prompts))
	for i, p := range prompts {
		var err error
		if bodies[i], err = c.body(p); err != nil {
			return nil, err
		}
	}
	at := arrivals(len(prompts), load)
	run := &ServeRun{Samples: make([]ServeSample, len(prompts))}
	watch := watchWakes()
	var slots chan struct{}
	if load.MaxConcurrency > 0 {
		slots = make(chan struct{}, load.MaxConcurrency)
	}
	var group sync.WaitGroup
	start := time.Now()
	for i := range prompts {
		if !sleepUntil(ctx, start.Add(at[i])) {
			for j := i; j < len(prompts); j++ {
				run.Samples[j].fail(errInterrupted)
			}
			break
		}
		group.Go(func() {
			if load.Done != nil {
				defer load.Done()
			}
			s := &run.Samples[i]
			free := time.Since(start)
			if slots != nil {
				select {
				case slots <- struct{}{}:
					defer func() { <-slots }()
				case <-ctx.Done():
					s.fail(errInterrupted)
					return
				}
				free = time.Since(start)
				s.Queued = free - at[i]
			}
			s.PromptTokens = prompts[i].PromptTokens
			if c.Body["ignore_eos"] == true {
				s.Wanted = prompts[i].OutputTokens
			}
			s.Submitted = time.Since(start)
			if s.Lag = s.Submitted - at[i]; slots != nil {
				s.Lag = s.Submitted - free
			}
			c.do(ctx, start, bodies[i], s)
		})
	}
	group.Wait()
	run.Duration = time.Since(start)
	run.WakeLag = watch()
	run.Interrupted = ctx.Err() != nil
	return run, nil
}

// CountTokens counts the text of answers whose tokens the server did not count.
func (run *ServeRun) CountTokens(codec Codec) error {
	for i := range run.Samples {
		s := &run.Samples[i]
		if s.Failure != "" || s.Counted {
			continue
		}
		ids, err := codec.Encode(s.Text)
		if err != nil {
			return fmt.Errorf("counting the tokens of an answer: %w", err)
		}
		s.OutputTokens, s.Counted = max(len(ids), 1), true
	}
	return nil
}

// AtOnce is the request rate without gaps.
var AtOnce = math.Inf(1)

// errInterrupted is the error of requests that a cancelled context ended.
var errInterrupted = errors.New("interrupted")

func (s *ServeSample) fail(err error) {
	s.Err, s.Failure = err, failureKind(err)
}

// sleepUntil waits for a moment; false when the context ends first.
func sleepUntil(ctx context.Context, at time.Time) bool {
	wait := time.Until(at)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// arrivals plans the requests as vLLM does: gaps drawn from a gamma distribution,
// then all times scaled so that the last request is sent at n ÷ rate, which takes
// the luck of the seed out of the throughput.
func arrivals(n int, load ServeLoad) []time.Duration {
	at := make([]time.Duration, n)
	if math.IsInf(load.RequestRate, 1) || n == 0 {
		return at
	}
	r := rand.New(rand.NewPCG(load.Seed, 1))
	times := make([]float64, n)
	sum := 0.0
	for i := range times {
		gap := 1.0
		if !math.IsInf(load.Burstiness, 1) {
			gap = sim.Gamma(r, load.Burstiness)
		}
		sum += gap
		times[i] = sum
	}
	for i, t := range times {
		at[i] = time.Duration(t / sum * float64(n) / load.RequestRate * float64(time.Second))
	}
	return at
}

// watchWakes measures how late timers wake a goroutine: what an event waits for
// when this process is short of processor time. The function it returns ends it.
func watchWakes() func() Distribution {
	const every = 5 * time.Millisecond
	stop, done := make(chan struct{}), make(chan struct{})
	var late []float64
	go func() {
		defer close(done)
		ticker := time.NewTimer(every)
		defer ticker.Stop()
		for {
			due := time.Now().Add(every)
			ticker.Reset(every)
			select {
			case <-ticker.C:
				late = append(late, max(0, float64(time.Since(due))/float64(time.Millisecond)))
			case <-stop:
				return
			}
		}
	}()
	return func() Distribution {
		close(stop)
		<-done
		return Describe(late)
	}
}

// Check finds what a ServeLoad cannot be.
func (l ServeLoad) Check() error {
	switch {
	case !(l.RequestRate > 0):
		return fmt.Errorf("--request-rate %g: want requests a second above 0, or inf", l.RequestRate)
	case !(l.Burstiness > 0):
		return fmt.Errorf("--burstiness %g: want more than 0; 1 is Poisson, less comes in bursts, inf is even", l.Burstiness)
	case l.MaxConcurrency < 0:
		return fmt.Errorf("--max-concurrency %d: want at least 1, or leave it out for an open loop", l.MaxConcurrency)
	}
	return nil
}
