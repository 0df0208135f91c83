package kernelstest

import (
	"cmp"
	"math"
	"slices"

	"github.com/pagoda-engine/pagoda/kernels"
)

// History is what penalties look at: the ids of a sequence.
type History struct {
	Prompt map[int32]bool
	Output map[int32]int // id to its count
}

// NewHistory counts the ids.
func NewHistory(prompt, output []int32) History {
	h := History{map[int32]bool{}, map[int32]int{}}
	for _, id := range prompt {
		h.Prompt[id] = true
	}
	for _, id := range output {
		h.Output[id]++
	}
	return h
}

// candidate is an id that may still be drawn.
type candidate struct {
	id int32
	z  float64
	// doubt is how near TopP came to keeping it or leaving it out.
	doubt float64
}

// descending orders by z, ties by ascending id.
func descending(a, b candidate) int {
	return cmp.Or(cmp.Compare(b.z, a.z), cmp.Compare(a.id, b.id))
}

// Draw draws one token from logits as kernels.Sampling says, or returns
// InvalidToken if a logit is NaN or +Inf or no id is allowed. position is the
// one that the token will have.
//
// margin is how close the draw came to another outcome: the least distance, in
// nats, between the best two scores and at the cuts of MinP and TopK, and ten
// times that of a cumulative probability from TopP, for the drawn id and those
// that TopP kept from being drawn. Below about 1e-4 a float32 Backend may rightly
// differ. Exact ties have a defined outcome and do not count.
func Draw(logits []float64, sampleVocab int, s *kernels.Sampling, h History, mask []uint32, position int32) (id int32, margin float64) {
	if !numbers(logits) {
		return kernels.InvalidToken, math.Inf(1)
	}
	c := allowed(process(logits, s, h), sampleVocab, s, mask, position)
	if len(c) == 0 {
		return kernels.InvalidToken, math.Inf(1)
	}
	slices.SortFunc(c, descending)
	if s.Temperature == 0 {
		return c[0].id, gap(c, 1)
	}
	for i := range c {
		c[i].z /= float64(s.Temperature)
	}
	c, n, margin := filter(c, s)
	for i := range c {
		c[i].z += float64(kernels.Gumbel(s.Seed, s.Choice, position, c[i].id))
	}
	kept, dropped := c[:n], c[n:]
	slices.SortFunc(kept, descending)
	margin = min(margin, gap(kept, 1), kept[0].doubt)
	for _, v := range dropped {
		if v.z > kept[0].z {
			margin = min(margin, v.doubt)
		}
	}
	return kept[0].id, margin
}

// numbers says whether no NaN and no +Inf is among them.
func numbers(logits []float64) bool {
	return !slices.ContainsFunc(logits, func(z float64) bool { return math.IsNaN(z) || math.IsInf(z, 1) })
}

// process applies steps 1 and 3: bias and penalties.
func process(logits []float64, s *kernels.Sampling, h History) []float64 {
	z := slices.Clone(logits)
	for _, b := range s.LogitBias {
		z[b.ID] += float64(b.Bias)
	}
	for id := range z {
		count := h.Output[int32(id)]
		if r := float64(s.RepetitionPenalty); r != 0 && (count > 0 || h.Prompt[int32(id)]) {
			if z[id] > 0 {
				z[id] /= r
			} else {
				z[id] *= r
			}
		}
		z[id] -= float64(s.FrequencyPenalty) * float64(count)
		if count > 0 {
			z[id] -= float64(s.PresencePenalty)
		}
	}
	return z
}

// allowed is step 2: the ids whose logit is not −inf, ascending. Penalties keep
// −inf, so that it may follow step 3.
func allowed(z []float64, sampleVocab int, s *kernels.Sampling, mask []uint32, position int32) []candidate {
	var c []candidate
	for i, v := range z {
		id := int32(i)
		switch {
		case math.IsInf(v, -1):
		case sampleVocab > 0 && i >= sampleVocab:
		case mask != nil && mask[id/32]>>(id%32)&1 == 0:
		case position-s.PromptLen < s.MinTokens && slices.Contains(s.StopIDs, id):
		default:
			c = append(c, candidate{id, v, math.Inf(1)})
		}
	}
	return c
}

// filter applies steps 6 to 8 to candidates in descending order: every filter
// keeps a prefix. It returns what TopP sees and how many of them it keeps.
func filter(c []candidate, s *kernels.Sampling) (seen []candidate, kept int, margin float64) {
	margin = math.Inf(1)
	if s.MinP > 0 {
		least := c[0].z + math.Log(float64(s.MinP))
		n := 0
		for _, v := range c {
			margin = min(margin, distance(v.z, least))
			if v.z >= least {
				n++
			}
		}
		c = c[:max(n, 1)]
	}
	if k := int(s.TopK); k > 0 && k < len(c) {
		margin = min(margin, gap(c, k))
		c = c[:k]
	}
	if s.TopP <= 0 || s.TopP >= 1 {
		return c, len(c), margin
	}
	total, before := 0.0, 0.0
	for _, v := range c {
		total += math.Exp(v.z - c[0].z)
	}
	for i, v := range c {
		if before/total < float64(s.TopP) {
			kept = i + 1
		}
		if i > 0 { // nothing is before the first
			c[i].doubt = 10 * distance(before/total, float64(s.TopP))
		}
		before += math.Exp(v.z - c[0].z)
	}
	return c, kept, margin
}

// gap is the distance between candidates n−1 and n.
func gap(c []candidate, n int) float64 {
	if n >= len(c) {
		return math.Inf(1)
	}
	return distance(c[n-1].z, c[n].z)
}

// distance is |a−b|, but infinite between equals.
func distance(a, b float64) float64 {
	if a == b {
		return math.Inf(1)
	}
	return math.Abs(a - b)
}

// logSumExp is log Σ exp z.
func logSumExp(z []float64) float64 {
	largest, sum := slices.Max(z), 0.0
	for _, v := range z {
		sum += math.Exp(v - largest)
	}
	return largest + math.Log(sum)
}

// logprob is id's log probability and rank.
func logprob(z []float64, id int) (lp float32, rank int32) {
	rank = 1
	for _, v := range z {
		if v > z[id] {
			rank++
		}
	}
	return float32(z[id] - logSumExp(z)), rank
}

// topLogprobs fills ids and lps with the likeliest.
func topLogprobs(z []float64, ids []int32, lps []float32) {
	order := make([]candidate, len(z))
	for i, v := range z {
		order[i] = candidate{id: int32(i), z: v}
	}
	slices.SortFunc(order, descending)
	sum := logSumExp(z)
	for i := range ids {
		ids[i] = order[i].id
		lps[i] = float32(order[i].z - sum)
	}
}
