package main

import "math"

// rotations gives cos and sin of the angle of every position and pair of
// dimensions, [n, headDim/2] each, computed in float64.
//
// Plain RoPE (Su et al., 2021): angle = position · θ^(−2i/d). YaRN (Peng et al.,
// 2023): frequencies that turn fewer than betaSlow times over the original
// length are divided by factor, those that turn more than betaFast times are
// kept, with a linear ramp between; cos and sin are scaled by 0.1·ln(factor)+1.
func (c *config) rotations(n int) (cos, sin []float32) {
	half := c.HeadDim / 2
	frequency, scale := make([]float64, half), 1.0
	for i := range frequency {
		frequency[i] = math.Pow(c.Theta, -2*float64(i)/float64(c.HeadDim))
	}
	if r := c.Scaling; r != nil && (r.Type == "yarn" || r.RopeType == "yarn") {
		scale = c.stretch(frequency, *r)
	}
	if r := c.Scaling; r != nil && r.RopeType == "llama3" {
		r.slow(frequency)
	}
	for p := range n {
		for _, f := range frequency {
			cos = append(cos, float32(scale*math.Cos(float64(p)*f)))
			sin = append(sin, float32(scale*math.Sin(float64(p)*f)))
		}
	}
	return cos, sin
}

// slow applies Llama 3's scaling (Grattafiori et al., 2024): frequencies that turn
// fewer than LowFreqFactor times over the original length are divided by factor,
// those that turn more than HighFreqFactor times are kept, with a ramp between.
func (r *rope) slow(frequency []float64) {
	for i, f := range frequency {
		turns := r.OriginalLen * f / (2 * math.Pi)
		keep := min(max((turns-r.LowFreqFactor)/(r.HighFreqFactor-r.LowFreqFactor), 0), 1)
		frequency[i] = f*keep + f/r.Factor*(1-keep)
	}
}

// stretch applies YaRN to the frequencies and returns the factor on cos and sin.
func (c *config) stretch(frequency []float64, r rope) float64 {
	if r.OriginalLen == 0 {
		r.OriginalLen = float64(c.MaxLen)
	}
	if r.Factor == 0 {
		r.Factor = float64(c.MaxLen) / r.OriginalLen
	}
	if r.BetaFast == 0 {
		r.BetaFast = 32
	}
	if r.BetaSlow == 0 {
		r.BetaSlow = 1
	}
	// The dimension whose frequency turns so many times over the original length.
	dimension := func(turns float64) float64 {
		return float64(c.HeadDim) * math.Log(r.OriginalLen/(2*math.Pi*turns)) / (2 * math.Log(c.Theta))
	}
	low := max(math.Floor(dimension(r.BetaFast)), 0)
	high := min(math.Ceil(dimension(r.BetaSlow)), float64(c.HeadDim-1))
	for i, f := range frequency {
		slow := min(max((float64(i)-low)/max(high-low, 0.001), 0), 1)
		frequency[i] = f*(1-slow) + f/r.Factor*slow
	}
	if r.AttentionFactor != nil {
		return *r.AttentionFactor
	}
	return 0.1*math.Log(max(r.Factor, 1)) + 1
}
