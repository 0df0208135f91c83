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
	SubmitChoices(ctxs []context.Context, r engine.Request) ([]*engine.Stream, error)
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

// Run submits the workload to the engine and returns one Sample a choice of each
// job, in its order. A failed request is in its Sample; the error is the context's alone.
func Run(ctx context.Context, e Submitter, work Workload, o Options) ([]Sample, error) {
	total := 0
	for i := range work {
		total += max(work[i].Choices, 1)
	}
	samples, next := make([]Sample, total), 0
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
		own := samples[next : next+max(job.Choices, 1)]
		next += len(own)
		wg.Go(func() {
			runJob(ctx, e, start, i, job, o.Sampling, own)
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

// runJob times one request: a sample a choice.
func runJob(ctx context.Context, e Submitter, start time.Time, i int, job Job, sampling engine.Sampling, samples []Sample) {
	submitted, ctxs := time.Since(start), make([]context.Context, len(samples))
	for c := range samples {
		samples[c] = Sample{PromptTokens: len(job.Prompt), Tokens: make([]time.Duration, 0, job.MaxTokens), Submitted: submitted}
		ctxs[c] = ctx
	}
	streams, err := e.SubmitChoices(ctxs, engine.Request{
		ID: fmt.Sprintf("bench-%d", i), Prompt: job.Prompt, Sampling: sampling,
		MaxTokens: job.MaxTokens, IgnoreEOS: true,
	})
	if err != nil {
		for c := range samples {
			samples[c].Err, samples[c].Ended = err, time.Since(start)
		}
		return
	}
	var wg sync.WaitGroup
	for c := range samples[1:] {
		wg.Go(func() { samples[c+1].read(ctx, streams[c+1], start) })
	}
	samples[0].read(ctx, streams[0], start)
	wg.Wait()
}

// read times a stream to its end.
func (s *Sample) read(ctx context.Context, stream *engine.Stream, start time.Time) {
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
}
