package engine

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/model"
)

const fakeVocab = 61

func fakeShape(vocab int) kernels.Shape {
	return kernels.Shape{Layers: 1, Hidden: 8, Intermediate: 8, Heads: 1, KVHeads: 1, HeadDim: 8, Vocab: vocab, RMSEps: 1e-6, InvFreq: make([]float32, 4), RopeScale: 1}
}

// fakeSource makes an engine's source of f. Id 0 is the end of sequence.
func fakeSource(f *fake, modelMaxLen int) source {
	f.vocab = fakeVocab
	if f.info.Backend == "" {
		f.info = kernels.Info{Backend: deviceCPU, Device: "fake", Path: "hash", TotalMemory: 1 << 30}
	}
	return source{
		info:        Info{Model: "fake", Vocab: fakeVocab, SampleVocab: fakeVocab, EOSIDs: []int32{0}, Generation: &model.GenerationConfig{}},
		shape:       fakeShape(fakeVocab),
		modelMaxLen: modelMaxLen,
		weights:     1 << 20,
		open:        func(*Config) (kernels.Backend, error) { return f, nil },
		load: func(kernels.Backend) (*loaded, error) {
			return &loaded{forward: func(b *kernels.Batch) { f.Launch(b, nil) }, weightBytes: 1 << 20}, nil
		},
		close: func() {},
	}
}

func quiet(c Config) Config {
	c.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	c.Model = "fake"
	return c
}

// startFake starts an engine on f and closes it at the end of the test.
func startFake(t *testing.T, f *fake, c Config) *Engine {
	t.Helper()
	return startSource(t, fakeSource(f, 1<<12), c)
}

// startSource is startFake for a source of the test's own.
func startSource(t *testing.T, src source, c Config) *Engine {
	t.Helper()
	c = quiet(c)
	require.NoError(t, c.validate())
	e, err := start(c, src)
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Close() })
	require.NoError(t, e.call(t.Context(), func(l *loop) { l.guides.patience = time.Minute })) // a slow machine must not change what comes out
	return e
}

// expect is what a request must generate, computed from its prompt alone.
func expect(r *Request, maxTokens int, invalid int32) (tokens []int32, finish FinishReason) {
	s := r.Sampling
	s.PromptLen, s.StopIDs = int32(len(r.Prompt)), slices.Clone(r.StopIDs)
	if !r.IgnoreEOS {
		s.StopIDs = append(s.StopIDs, 0)
	}
	h := uint64(0)
	for _, id := range r.Prompt {
		h = extend(h, id)
	}
	var rule *testRule
	if r.Constrain != nil {
		made, _ := r.Constrain()
		rule = made.(*testRule)
		defer rule.Close()
	}
	for {
		var mask []uint32
		if rule != nil {
			mask = make([]uint32, (fakeVocab+31)/32)
			done, err := rule.Mask(mask)
			if err != nil {
				return tokens, FinishError
			}
			if done || len(tokens) < int(s.MinTokens) && onlyOf(mask, s.StopIDs) {
				return tokens, FinishStop
			}
		}
		id := draw(h, &s, len(r.Prompt)+len(tokens), fakeVocab, mask)
		if invalid != 0 && id == invalid {
			return tokens, FinishError
		}
		tokens = append(tokens, id)
		switch {
		case slices.Contains(s.StopIDs, id):
			return tokens, FinishStop
		case len(tokens) == maxTokens:
			return tokens, FinishLength
		}
		if rule != nil && rule.Accept(id) != nil {
			return tokens, FinishError
		}
		h = extend(h, id)
	}
}

// readAll takes events until the last one.
func readAll(t *testing.T, s *Stream) (tokens []int32, last Event) {
	t.Helper()
	for {
		ev, ok := s.Next(context.Background())
		require.True(t, ok)
		if ev.HasToken {
			tokens = append(tokens, ev.Token)
		}
		if ev.Finish != FinishNone {
			_, more := s.Next(context.Background())
			require.False(t, more)
			return tokens, ev
		}
	}
}
