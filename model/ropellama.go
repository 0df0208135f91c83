package model

import (
	"math"
	"slices"
)

// Llama3 stretches RoPE to longer contexts (Grattafiori et al., "The Llama 3 Herd
// of Models", 2024, and the published checkpoints): dimensions that turn less
// than LowFreqFactor times over OriginalMaxLen are slowed by Factor, those that
// turn more than HighFreqFactor times are kept, with a ramp between.
type Llama3 struct {
	Factor                        float64
	LowFreqFactor, HighFreqFactor float64
	OriginalMaxLen                int // positions before stretching
}

// llama3Fields are the fields that its parameters may have.
var llama3Fields = append(slices.Clone(plainFields), "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")

// readLlama3 wants every number, as transformers does.
func readLlama3(rope *object) *Llama3 {
	l := &Llama3{
		Factor:         rope.number("factor", 1, maxFactor),
		LowFreqFactor:  rope.number("low_freq_factor", 1e-3, maxBeta),
		HighFreqFactor: rope.number("high_freq_factor", 1e-3, maxBeta),
		OriginalMaxLen: rope.integer("original_max_position_embeddings", 1, maxPositions),
	}
	if l.LowFreqFactor > 0 && l.HighFreqFactor > 0 && l.HighFreqFactor <= l.LowFreqFactor {
		rope.fail("high_freq_factor", "is %g, must be more than low_freq_factor, %g", l.HighFreqFactor, l.LowFreqFactor)
	}
	return l
}

// stretch changes an inverse frequency, in float32 as transformers does.
func (l *Llama3) stretch(freq float32) float32 {
	original := float32(l.OriginalMaxLen)
	wavelength := float32(2*math.Pi) / freq
	slow := freq / float32(l.Factor)
	switch {
	case wavelength > original/float32(l.LowFreqFactor):
		return slow
	case wavelength < original/float32(l.HighFreqFactor):
		return freq
	}
	keep := (original/wavelength - float32(l.LowFreqFactor)) / float32(l.HighFreqFactor-l.LowFreqFactor)
	return (1-keep)*slow + keep*freq
}
