package kernels

import "math"

// Sampling says how a row's next token is drawn from its logits z, in this
// order (vLLM's):
//
//  1. z[id] += bias of LogitBias
//  2. ids outside the mask, ids ≥ Shape.SampleVocab and, while fewer than
//     MinTokens tokens were drawn, StopIDs: z = −inf
//  3. RepetitionPenalty r for ids of prompt or output: z/r if z > 0 else z·r
//     (Keskar et al., CTRL, 2019); z −= FrequencyPenalty · count in output;
//     z −= PresencePenalty if the id is in the output
//  4. Temperature 0: the largest z, ties to the lower id; done
//  5. z /= Temperature
//  6. MinP: keep p ≥ MinP · max p
//  7. TopK: keep the k largest z, ties to the lower id
//  8. TopP: of the renormalized rest in descending order (ties: lower id
//     first), keep an id while the sum before it is < TopP
//  9. draw: the largest z[id] + Gumbel(Seed, Choice, position, id) of those
//     kept, which is an exact draw from their softmax (Gumbel-max), and does
//     not depend on neighbours or on the order of reduction
//
// The zero value is greedy decoding without logprobs only when Logprobs is −1.
type Sampling struct {
	Temperature       float32 // 0 = greedy
	TopK              int32   // 0 = off
	TopP              float32 // 0 or 1 = off
	MinP              float32 // 0 = off
	RepetitionPenalty float32 // 0 or 1 = off
	PresencePenalty   float32
	FrequencyPenalty  float32
	Seed              uint64
	Choice            int32 // index of the choice among n
	PromptLen         int32 // drawn tokens = position − PromptLen
	MinTokens         int32
	StopIDs           []int32     // not drawn before MinTokens
	LogitBias         []TokenBias // distinct ids
	Logprobs          int32       // −1 = none, 0 = the drawn token's, n = also the n likeliest
}

// TokenBias is added to one id's logit.
type TokenBias struct {
	ID   int32
	Bias float32
}

// UsesPenalties says whether the row needs counts of its ids.
func (s *Sampling) UsesPenalties() bool {
	return (s.RepetitionPenalty != 0 && s.RepetitionPenalty != 1) || s.PresencePenalty != 0 || s.FrequencyPenalty != 0
}

// Philox is Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as
// 1, 2, 3", SC 2011): counter-based, so that every backend draws the same
// numbers in any order.
func Philox(key uint64, counter [4]uint32) [4]uint32 {
	k0, k1 := uint32(key), uint32(key>>32)
	c := counter
	for range 10 {
		p0 := uint64(0xD2511F53) * uint64(c[0])
		p1 := uint64(0xCD9E8D57) * uint64(c[2])
		c = [4]uint32{uint32(p1>>32) ^ c[1] ^ k0, uint32(p1), uint32(p0>>32) ^ c[3] ^ k1, uint32(p0)}
		k0 += 0x9E3779B9
		k1 += 0xBB67AE85
	}
	return c
}

// Gumbel is the noise of one id at one position: −log(−log u), where u in
// (0, 1) has 24 bits, from word 0 of Philox(seed, {id, position, choice, 0}).
// Its range is about (−2.85, 17.33).
func Gumbel(seed uint64, choice, position, id int32) float32 {
	w := Philox(seed, [4]uint32{uint32(id), uint32(position), uint32(choice), 0})
	u := (float64(w[0]>>8) + 0.5) / (1 << 24)
	return float32(-math.Log(-math.Log(u)))
}
