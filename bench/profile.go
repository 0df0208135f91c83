package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/kernels"
)

// Profilable is an engine that Profile can look into.
type Profilable interface {
	Measurable
	StartProfile(ctx context.Context, o engine.ProfileOptions) (*engine.Recording, error)
}

// ProfileOptions configure Profile. Zero values are defaults.
type ProfileOptions struct {
	Batches       []int         // decode batch sizes; default 1, 8, 32
	PromptTokens  int           // of the prefill part; default 256
	ContextTokens int           // prompt of the decode parts; default 64
	Steps         int           // of each part; default 12
	PartTime      time.Duration // longest time of a part; default 15 s
	MaxTraceBytes int64         // of each trace; default 12 MB
	Dir           string        // of the traces; "" = none are written
	Progress      func(done, total int)
}

func (o *ProfileOptions) fill() {
	if len(o.Batches) == 0 {
		o.Batches = []int{1, 8, 32}
	}
	for value, missing := range map[*int]int{&o.PromptTokens: 256, &o.ContextTokens: 64, &o.Steps: 12} {
		if *value <= 0 {
			*value = missing
		}
	}
	if o.PartTime <= 0 {
		o.PartTime = 15 * time.Second
	}
	if o.MaxTraceBytes <= 0 {
		o.MaxTraceBytes = 12e6
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
}

// ProfilePart is one part of the workload and what was seen of it.
type ProfilePart struct {
	Phase   string // "prefill" or "decode"
	Batch   int    // sequences of a step
	Tokens  int    // prompt tokens
	Profile *engine.Profile
	Stats   *ProfileStats
	Trace   string // file; "" = none
	Trouble error  // why there is none
}

// Name is the part in words.
func (p *ProfilePart) Name() string {
	if p.Phase == "prefill" {
		return fmt.Sprintf("prefill, %d tokens", p.Tokens)
	}
	return fmt.Sprintf("decode, batch %d", p.Batch)
}

// dir is the part's folder: TensorBoard makes a run of each.
func (p *ProfilePart) dir() string {
	if p.Phase == "prefill" {
		return fmt.Sprintf("prefill-%d", p.Tokens)
	}
	return fmt.Sprintf("decode-batch-%d", p.Batch)
}

// ProfileReport is what Profile found.
type ProfileReport struct {
	Info     engine.Info
	Options  ProfileOptions
	Ceilings kernels.Ceilings
	Parts    []ProfilePart
}

// Profile runs a stated workload under the profiler: prompts one after the other,
// then decoding at several batch sizes, a bounded number of steps each. Traces go
// to a folder a part. A trace that cannot be written is the part's Trouble and
// stops nothing.
func Profile(ctx context.Context, e Profilable, o ProfileOptions) (*ProfileReport, error) {
	o.fill()
	info := e.Info()
	r := &ProfileReport{Info: info, Options: o}
	r.Parts = append(r.Parts, ProfilePart{Phase: "prefill", Batch: 1, Tokens: o.PromptTokens})
	for _, batch := range o.Batches {
		r.Parts = append(r.Parts, ProfilePart{Phase: "decode", Batch: batch, Tokens: o.ContextTokens})
	}
	if err := r.probe(ctx, e); err != nil {
		return nil, err
	}
	err := r.record(ctx, e)
	if err == nil {
		err = r.probe(ctx, e)
	}
	for i := range r.Parts { // what there is, after an interruption
		if part := &r.Parts[i]; part.Profile != nil && len(part.Profile.Steps) > 0 {
			part.Stats = Analyze(part.Profile, r.Ceilings)
		}
	}
	return r, err
}

// probe keeps the better of what it finds: whatever else runs on the machine only
// takes away.
func (r *ProfileReport) probe(ctx context.Context, e Profilable) error {
	c, err := e.Probe(ctx)
	c.ReadBytesPerSecond = max(r.Ceilings.ReadBytesPerSecond, c.ReadBytesPerSecond)
	c.FLOPsPerSecond = max(r.Ceilings.FLOPsPerSecond, c.FLOPsPerSecond)
	if err == nil {
		r.Ceilings = c
	}
	return err
}

// record runs every part and writes its trace.
func (r *ProfileReport) record(ctx context.Context, e Profilable) error {
	for i := range r.Parts {
		part := &r.Parts[i]
		if err := r.run(ctx, e, part, uint64(i)); err != nil {
			return fmt.Errorf("%s: %w", part.Name(), err)
		}
		if dir := r.Options.Dir; dir != "" {
			part.Trace, part.Trouble = part.Profile.Save(filepath.Join(dir, part.dir()), r.Options.MaxTraceBytes)
		}
		r.Options.Progress(i+1, len(r.Parts))
	}
	return nil
}

// run records one part.
func (r *ProfileReport) run(ctx context.Context, e Profilable, part *ProfilePart, seed uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	load := &profileLoad{e: e, ctx: ctx, wg: &wg, seed: seed << 32, vocab: r.Info.SampleVocab}
	options := engine.ProfileOptions{Steps: r.Options.Steps, Time: r.Options.PartTime}
	var err error
	if part.Phase == "prefill" {
		part.Profile, err = load.prefill(part, options)
	} else {
		part.Profile, err = load.decode(part, options)
	}
	switch {
	case err != nil:
		return err
	case part.Profile.Ended == engine.EndedEngine:
		return engine.ErrClosed
	case len(part.Profile.Steps) == 0:
		return fmt.Errorf("no step ended within %s: profile a smaller --batch-sizes or --prompt-tokens, or allow --max-part-time more", r.Options.PartTime)
	case part.Profile.Ended == engine.EndedTime:
		part.Profile.Notes = append(part.Profile.Notes, fmt.Sprintf("%s were up after %d of %d steps: --steps %d is enough here",
			r.Options.PartTime, len(part.Profile.Steps), r.Options.Steps, len(part.Profile.Steps)))
	}
	return nil
}

// profileLoad makes requests until its context ends.
type profileLoad struct {
	e     Profilable
	ctx   context.Context
	wg    *sync.WaitGroup
	seed  uint64
	vocab int
}

// submit starts a request of random ids. first is closed at its first token, or
// when it ended before that; failed is called where it could not run.
func (l *profileLoad) submit(prompt, tokens int, failed func(error)) (first, done chan struct{}) {
	l.seed++
	job := RandomWorkload(l.seed, 1, l.vocab, 0, 0, Fixed(prompt, tokens))[0]
	first, done = make(chan struct{}), make(chan struct{})
	l.wg.Go(func() {
		defer close(done)
		began := sync.OnceFunc(func() { close(first) })
		defer began()
		streams, err := l.e.SubmitChoices([]context.Context{l.ctx}, engine.Request{Prompt: job.Prompt, MaxTokens: tokens, IgnoreEOS: true, Sampling: engine.Sampling{Logprobs: -1}})
		if err != nil {
			failed(err)
			return
		}
		for {
			event, ok := streams[0].Next(l.ctx)
			if !ok {
				return
			}
			began()
			if event.Finish == engine.FinishError {
				failed(event.Err)
			}
			if event.Finish != engine.FinishNone {
				return
			}
		}
	})
	return first, done
}

// prefill keeps two prompts under way, so that one waits while the other is
// computed and no step takes both.
func (l *profileLoad) prefill(part *ProfilePart, o engine.ProfileOptions) (*engine.Profile, error) {
	ctx, fail := context.WithCancelCause(l.ctx)
	defer fail(nil)
	_, done := l.submit(part.Tokens, 1, fail) // the warm-up
	<-done
	_, done = l.submit(part.Tokens, 1, fail)
	recording, err := l.e.StartProfile(ctx, o)
	if err != nil {
		return nil, err
	}
	for {
		_, next := l.submit(part.Tokens, 1, fail)
		select {
		case <-done:
			done = next
			continue
		case <-recording.Done():
		case <-ctx.Done():
		}
		p := recording.Stop()
		return p, context.Cause(ctx)
	}
}

// decodeSlack is the tokens of a request besides the recorded ones: for steps that
// run before its neighbours decode.
const decodeSlack = 64

// decode starts a batch, waits until all of it decodes, and records.
func (l *profileLoad) decode(part *ProfilePart, o engine.ProfileOptions) (*engine.Profile, error) {
	ctx, fail := context.WithCancelCause(l.ctx)
	defer fail(nil)
	tokens := min(o.Steps+decodeSlack+part.Batch, l.e.Info().MaxModelLen-part.Tokens)
	var begun []chan struct{}
	for range part.Batch {
		first, _ := l.submit(part.Tokens, tokens, fail)
		begun = append(begun, first)
	}
	for _, first := range begun {
		select {
		case <-first:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	recording, err := l.e.StartProfile(ctx, o)
	if err != nil {
		return nil, err
	}
	select {
	case <-recording.Done():
	case <-ctx.Done():
	}
	return recording.Stop(), context.Cause(ctx)
}

// Trouble is the first part's that has one.
func (r *ProfileReport) Trouble() error {
	for i := range r.Parts {
		if r.Parts[i].Trouble != nil {
			return r.Parts[i].Trouble
		}
	}
	return nil
}
