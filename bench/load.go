package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
)

// Submitter is what the load loop needs of an engine.
type Submitter interface {
	Submit(ctx context.Context, r engine.Request) (*engine.Stream, error)
}

// Options configure Run.
type Options struct {
	// MaxConcurrency bounds the requests in flight; 0 = open loop: a request is
	// submitted when it arrives, however many are running.
	MaxConcurrency int
	// Sampling of all requests; the zero value is greedy.
	Sampling engine.Sampling
	// Done is called after each finished request, from several goroutines.
	Done func()
}

// Run submits the workload to the engine and returns one Sample a job, in its
// order. A failed request is in its Sample; the error is the context's alone.
func Run(ctx context.Context, e Submitter, work Workload, o Options) ([]Sample, error) {
	samples := make([]Sample, len(work))
	var slots chan struct{}
	if o.MaxConcurrency > 0 {
		slots = make(chan struct{}, o.MaxConcurrency)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i, job := range work {
		timer.Reset(time.Until(start.Add(job.At)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return samples, ctx.Err()
		}
		if slots != nil {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return samples, ctx.Err()
			}
		}
		wg.Go(func() {
			samples[i] = runOne(ctx, e, start, i, job, o.Sampling)
			if slots != nil {
				<-slots
			}
			if o.Done != nil {
				o.Done()
			}
		})
	}
	wg.Wait()
	return samples, ctx.Err()
}

// errAborted is the error of a request that the engine or a cancelled context
// ended early.
var errAborted = errors.New("aborted")

// runOne times one request.
func runOne(ctx context.Context, e Submitter, start time.Time, i int, job Job, sampling engine.Sampling) Sample {
	s := Sample{PromptTokens: len(job.Prompt), Tokens: make([]time.Duration, 0, job.MaxTokens), Submitted: time.Since(start)}
	stream, err := e.Submit(ctx, engine.Request{
		ID: fmt.Sprintf("bench-%d", i), Prompt: job.Prompt, Sampling: sampling,
		MaxTokens: job.MaxTokens, IgnoreEOS: true,
	})
	if err != nil {
		s.Err, s.Ended = err, time.Since(start)
		return s
	}
	for {
		event, ok := stream.Next(ctx)
		if !ok {
			s.Err = context.Cause(ctx)
			break
		}
		if event.HasToken {
			s.Tokens = append(s.Tokens, time.Since(start))
			s.CachedTokens = event.CachedTokens
			if !event.Admitted.IsZero() {
				s.Admitted = event.Admitted.Sub(start)
			}
		}
		switch event.Finish {
		case engine.FinishError:
			s.Err = event.Err
		case engine.FinishAbort:
			s.Err = errAborted
		}
		if event.Finish != engine.FinishNone {
			break
		}
	}
	s.Ended = time.Since(start)
	return s
}
