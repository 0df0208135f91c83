package server

import (
	"context"
	"strconv"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model/tokenizer"
)

// AdaptEngine makes an Engine of the real one.
func AdaptEngine(e *engine.Engine) Engine { return adaptedEngine{e} }

type adaptedEngine struct{ *engine.Engine }

// SubmitChoices implements Engine.
func (a adaptedEngine) SubmitChoices(ctxs []context.Context, r engine.Request) ([]Stream, error) {
	choices, err := a.Engine.SubmitChoices(ctxs, r)
	if err != nil {
		return nil, err
	}
	streams := make([]Stream, len(choices))
	for i, s := range choices {
		streams[i] = s
	}
	return streams, nil
}

// StartProfile implements Engine.
func (a adaptedEngine) StartProfile(ctx context.Context, o engine.ProfileOptions) (Recording, error) {
	r, err := a.Engine.StartProfile(ctx, o)
	if err != nil {
		return nil, err // a nil *Recording would not be nil here
	}
	return r, nil
}

// Info implements Engine.
func (a adaptedEngine) Info() Info {
	in := a.Engine.Info()
	out := Info{
		MaxModelLen: in.MaxModelLen, PoolTokens: in.NumBlocks * in.BlockSize,
		VocabSize: in.Vocab, SampleVocab: in.SampleVocab, MaxQueued: in.MaxQueued, EndIDs: in.EOSIDs, MaxLogprobs: in.MaxLogprobs, Priority: in.Priority,
		CacheConfig: map[string]string{"block_size": strconv.Itoa(in.BlockSize), "num_gpu_blocks": strconv.Itoa(in.NumBlocks), "num_cpu_blocks": strconv.Itoa(in.HostBlocks), "cache_dtype": "auto"},
	}
	if g := in.Generation; g != nil {
		out.Generation = Generation{
			Temperature: g.Temperature, TopP: g.TopP, TopK: g.TopK, MinP: g.MinP,
			RepetitionPenalty: g.RepetitionPenalty, MaxNewTokens: g.MaxNewTokens,
			Greedy: g.DoSample != nil && !*g.DoSample,
		}
	}
	// The settings that vLLM shows as labels, by their names there.
	labels := map[string]string{
		"gpu-memory-utilization": "gpu_memory_utilization", "enable-prefix-caching": "enable_prefix_caching",
		"swap-space": "swap_space",
	}
	out.Settings = a.Settings()
	for _, setting := range out.Settings {
		if label, ok := labels[setting.Name]; ok {
			out.CacheConfig[label] = setting.Value
		}
	}
	return out
}

// AdaptTokenizer makes a Tokenizer of the real one.
func AdaptTokenizer(t *tokenizer.Tokenizer) Tokenizer { return adaptedTokenizer{t} }

type adaptedTokenizer struct{ *tokenizer.Tokenizer }

// NewDecoder implements Tokenizer.
func (a adaptedTokenizer) NewDecoder(skipSpecial bool) Decoder {
	return a.Tokenizer.NewDecoder(skipSpecial)
}
