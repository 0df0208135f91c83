package main

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/spf13/pflag"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model"
)

// samplingFlags say how an answer is drawn. A flag that was not given leaves
// the default of the model's generation_config.json.
type samplingFlags struct {
	flags       *pflag.FlagSet
	temperature float32
	topP, minP  float32
	topK        int32
	repetition  float32
	seed        uint64
	maxTokens   int
	stop        []string
	stopIDs     []int32
	ignoreEOS   bool
}

func (f *samplingFlags) register(flags *pflag.FlagSet) {
	f.flags = flags
	flags.IntVarP(&f.maxTokens, "max-tokens", "n", defaultMaxTokens, "most tokens to generate (0: as many as fit; the default is fewer where fewer fit)")
	flags.Float32VarP(&f.temperature, "temperature", "t", 1, "0 is greedy; higher is more random (default: the model's, else 1)")
	flags.Float32Var(&f.topP, "top-p", 1, "draw from the likeliest ids that sum up to this probability (default: the model's, else 1)")
	flags.Int32Var(&f.topK, "top-k", 0, "draw from so many likeliest ids (0: all; default: the model's)")
	flags.Float32Var(&f.minP, "min-p", 0, "leave out ids below this share of the likeliest one's probability (default: the model's, else 0)")
	flags.Float32Var(&f.repetition, "repetition-penalty", 1, "above 1 makes ids that were used less likely (default: the model's, else 1)")
	flags.Uint64Var(&f.seed, "seed", 0, "seed of the random draws (default: a random one)")
	flags.StringArrayVar(&f.stop, "stop", nil, "end the answer before this text (repeatable)")
	flags.Int32SliceVar(&f.stopIDs, "stop-token-ids", nil, "end the answer at these ids")
	flags.BoolVar(&f.ignoreEOS, "ignore-eos", false, "go on past the end-of-sequence token")
}

// defaultMaxTokens is what an answer has at most, where nobody asked for a number.
const defaultMaxTokens = 512

// tokensFor is the tokens of an answer to a prompt of so many: what was asked for, or, if nothing was,
// what the context has room for.
func (f *samplingFlags) tokensFor(prompt, context int) int {
	if f.flags.Changed("max-tokens") {
		return f.maxTokens
	}
	return min(f.maxTokens, max(context-prompt, 0))
}

// check refuses what no engine could accept, before a model is loaded.
func (f *samplingFlags) check() error {
	switch {
	case f.maxTokens < 0:
		return usageError{fmt.Errorf("--max-tokens %d: must be 0 or more", f.maxTokens)}
	case f.temperature < 0:
		return usageError{fmt.Errorf("--temperature %v: must be 0 or more", f.temperature)}
	case f.topP <= 0 || f.topP > 1:
		return usageError{fmt.Errorf("--top-p %v: must be in (0, 1]", f.topP)}
	case f.topK < -1:
		return usageError{errors.New("--top-k: must be 0 (off) or more")}
	case f.minP < 0 || f.minP > 1:
		return usageError{fmt.Errorf("--min-p %v: must be in [0, 1]", f.minP)}
	case f.repetition <= 0:
		return usageError{fmt.Errorf("--repetition-penalty %v: must be greater than 0", f.repetition)}
	}
	return nil
}

// sampling merges the flags with the model's defaults, which count only where
// useModel is set and the flag was not given.
func (f *samplingFlags) sampling(g *model.GenerationConfig, useModel bool) engine.Sampling {
	s := engine.Sampling{
		Temperature: f.temperature, TopP: f.topP, TopK: max(f.topK, 0), MinP: f.minP,
		RepetitionPenalty: f.repetition, Seed: f.seed, Logprobs: -1,
	}
	if !f.flags.Changed("seed") {
		s.Seed = rand.Uint64()
	}
	if g == nil || !useModel {
		return s
	}
	set := func(flag string, to *float32, from *float64) {
		if from != nil && !f.flags.Changed(flag) {
			*to = float32(*from)
		}
	}
	set("temperature", &s.Temperature, g.Temperature)
	set("top-p", &s.TopP, g.TopP)
	set("min-p", &s.MinP, g.MinP)
	set("repetition-penalty", &s.RepetitionPenalty, g.RepetitionPenalty)
	if g.TopK != nil && !f.flags.Changed("top-k") {
		s.TopK = int32(max(*g.TopK, 0))
	}
	if g.DoSample != nil && !*g.DoSample && !f.flags.Changed("temperature") {
		s.Temperature = 0
	}
	return s
}
