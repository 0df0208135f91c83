package model

import (
	"math"
	"slices"
	"strings"
)

// YaRN stretches RoPE to longer contexts (Peng et al., "YaRN: Efficient Context
// Window Extension of Large Language Models", 2023): slow dimensions are
// interpolated by Factor, fast ones kept, with a ramp between. It is static:
// the factor applies to sequences of every length.
type YaRN struct {
	Factor          float64
	OriginalMaxLen  int     // positions before stretching
	AttentionFactor float64 // on cos and sin; never 0
	BetaFast        float64 // rotations over OriginalMaxLen above which a dimension is kept
	BetaSlow        float64 // and below which it is fully interpolated
	Truncate        bool    // the ramp starts and ends at whole dimensions
}

// Bounds of the RoPE numbers.
const (
	minTheta, maxTheta = 1.5, 1e12 // above 1: the ramp divides by its logarithm
	maxFactor          = 1024
	maxBeta            = 1e6
	maxAttentionFactor = 100
)

// plainFields and yarnFields are the fields that RoPE parameters may have.
// Others are refused: a misspelt one would quietly change the positions.
var (
	plainFields = []string{"type", "rope_type", "rope_theta", "partial_rotary_factor"}
	yarnFields  = append(slices.Clone(plainFields), "factor", "original_max_position_embeddings", "attention_factor",
		"beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")
)

// readRope reads rope_theta and the RoPE parameters, which are in rope_scaling
// (transformers 4, with type or rope_type) or in rope_parameters (transformers
// 5, together with rope_theta).
//
// missing is the base when the file gives none, 0 when it must.
func (c *Config) readRope(o *object, missing float64) {
	scaling, parameters := o.child("rope_scaling"), o.child("rope_parameters")
	if scaling != nil && parameters != nil {
		o.fail("rope_scaling", "is set beside rope_parameters, keep one of them")
		return
	}
	rope := scaling
	if rope == nil {
		rope = parameters
	}
	requireTheta := func() {
		if c.RopeTheta = missing; missing == 0 {
			o.require("rope_theta")
		}
	}
	refusePartialRotary(o)
	theta, atTop := o.optNumber("rope_theta", minTheta, maxTheta)
	c.RopeTheta = theta
	if rope == nil {
		if !o.has("rope_theta") {
			requireTheta()
		}
		return
	}
	if inner, ok := rope.optNumber("rope_theta", minTheta, maxTheta); ok {
		if atTop && inner != theta {
			rope.fail("rope_theta", "is %g, but rope_theta is %g", inner, theta)
		}
		c.RopeTheta = inner
	} else if !rope.has("rope_theta") && !o.has("rope_theta") {
		requireTheta()
	}
	refusePartialRotary(rope)
	switch kind := ropeType(rope); kind {
	case "default":
		refuseOtherFields(rope, plainFields)
	case "yarn":
		refuseOtherFields(rope, yarnFields)
		c.YaRN = readYaRN(o, rope, c.MaxPositionEmbeddings)
	case "llama3":
		refuseOtherFields(rope, llama3Fields)
		c.Llama3 = readLlama3(rope)
	case "":
	default:
		rope.fail("rope_type", "is %s, supported: default, yarn, llama3", quote(kind))
	}
}

// ropeType reads the type under both spellings; "" when it is faulty.
func ropeType(rope *object) string {
	newer, ok := rope.optText("rope_type")
	older, okOlder := rope.optText("type")
	switch {
	case ok && okOlder && newer != older:
		rope.fail("type", "is %s, but rope_type is %s", quote(older), quote(newer))
		return ""
	case ok:
		return newer
	case okOlder:
		return older
	case rope.has("rope_type") || rope.has("type"): // not a string
		return ""
	}
	return "default"
}

func refusePartialRotary(o *object) {
	if f, ok := o.optNumber("partial_rotary_factor", 0, 1); ok && f != 1 {
		o.fail("partial_rotary_factor", "is %g, only 1 is supported", f)
	}
}

func refuseOtherFields(rope *object, known []string) {
	var unknown []string
	for field := range rope.fields {
		if !slices.Contains(known, field) {
			unknown = append(unknown, field)
		}
	}
	slices.Sort(unknown) // maps have no order, messages should
	for _, field := range unknown {
		rope.fail(quote(field), "is not known here, supported: %s", strings.Join(known, ", "))
	}
}

// readYaRN follows transformers 5: a null factor is the ratio of the lengths,
// an absent original length is max_position_embeddings, and a beta of 0 stands
// for its default.
func readYaRN(o, rope *object, positions int) *YaRN {
	y := &YaRN{OriginalMaxLen: positions, BetaFast: 32, BetaSlow: 1}
	if n, ok := rope.optInteger("original_max_position_embeddings", 1, maxPositions); ok {
		y.OriginalMaxLen = n
	}
	if n, ok := o.optInteger("original_max_position_embeddings", 1, maxPositions); ok {
		y.OriginalMaxLen = n
	}
	if f, ok := rope.optNumber("factor", 1, maxFactor); ok {
		y.Factor = f
	} else if !rope.has("factor") && y.OriginalMaxLen > 0 {
		y.Factor = float64(positions) / float64(y.OriginalMaxLen)
		if y.Factor < 1 || y.Factor > maxFactor || y.OriginalMaxLen == positions {
			rope.fail("factor", "missing, and max_position_embeddings / original_max_position_embeddings = %d / %d does not give it",
				positions, y.OriginalMaxLen)
		}
	}
	if float64(y.OriginalMaxLen)*y.Factor > maxPositions {
		rope.fail("factor", "is %g, times the original length %d it is more than %d positions", y.Factor, y.OriginalMaxLen, maxPositions)
	}
	if b, ok := rope.optNumber("beta_fast", 0, maxBeta); ok && b > 0 {
		y.BetaFast = b
	}
	if b, ok := rope.optNumber("beta_slow", 0, maxBeta); ok && b > 0 {
		y.BetaSlow = b
	}
	if y.BetaFast < y.BetaSlow {
		rope.fail("beta_fast", "is %g, must not be less than beta_slow, %g", y.BetaFast, y.BetaSlow)
	}
	y.Truncate = rope.optBoolean("truncate", true)
	mscale, _ := rope.optNumber("mscale", 0, maxAttentionFactor)
	mscaleAll, _ := rope.optNumber("mscale_all_dim", 0, maxAttentionFactor)
	attention, given := rope.optNumber("attention_factor", 1e-3, maxAttentionFactor)
	switch {
	case given:
		y.AttentionFactor = attention
	case mscale != 0 && mscaleAll != 0:
		y.AttentionFactor = yarnScale(y.Factor, mscale) / yarnScale(y.Factor, mscaleAll)
	default:
		y.AttentionFactor = yarnScale(y.Factor, 1)
	}
	return y
}

// yarnScale is the paper's 1/sqrt(t) = 0.1·ln(factor) + 1, weighted.
func yarnScale(factor, weight float64) float64 {
	if factor <= 1 {
		return 1
	}
	return 0.1*weight*math.Log(factor) + 1
}

// MaxModelLen is the longest sequence, in tokens, that the positions cover:
// with YaRN the original length times the factor, whatever
// max_position_embeddings says (as vLLM has it; published configs leave the
// original length there).
func (c *Config) MaxModelLen() int {
	if c.YaRN == nil {
		return c.MaxPositionEmbeddings
	}
	return int(float64(c.YaRN.OriginalMaxLen) * c.YaRN.Factor)
}

// AttentionScale multiplies cos and sin of every rotation: 1 without YaRN.
func (c *Config) AttentionScale() float32 {
	if c.YaRN == nil {
		return 1
	}
	return float32(c.YaRN.AttentionFactor)
}

// InvFreq gives the inverse frequencies of RoPE, [HeadDim/2], in radians a
// token: θ^(−2i/d), with YaRN and Llama3 blended with θ^(−2i/d)/factor. Every step rounds
// to float32 as transformers' does: at position 30,000 the last bit of a
// frequency is visible in the angle.
func (c *Config) InvFreq() []float32 {
	freq := make([]float32, c.HeadDim/2)
	var low, high float32
	if c.YaRN != nil {
		low, high = c.YaRN.ramp(c.HeadDim, c.RopeTheta)
	}
	for i := range freq {
		exponent := float32(2*i) / float32(c.HeadDim)
		period := float32(math.Pow(c.RopeTheta, float64(exponent)))
		freq[i] = 1 / period
		if y := c.YaRN; y != nil {
			keep := 1 - min(max((float32(i)-low)/(high-low), 0), 1)
			freq[i] = 1/(float32(y.Factor)*period)*(1-keep) + freq[i]*keep
		}
		if c.Llama3 != nil {
			freq[i] = c.Llama3.stretch(freq[i])
		}
	}
	return freq
}

// ramp gives the dimensions between which the blend goes from kept to
// interpolated.
func (y *YaRN) ramp(dim int, theta float64) (low, high float32) {
	// The dimension that turns rotations times over the original length.
	at := func(rotations float64) float64 {
		return float64(dim) * math.Log(float64(y.OriginalMaxLen)/(rotations*2*math.Pi)) / (2 * math.Log(theta))
	}
	first, last := at(y.BetaFast), at(y.BetaSlow)
	if y.Truncate {
		first, last = math.Floor(first), math.Ceil(last)
	}
	first, last = max(first, 0), min(last, float64(dim-1))
	if first == last {
		last += 0.001 // no division by zero
	}
	return float32(first), float32(last)
}
