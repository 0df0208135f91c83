package sim

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are 1/64 of a power of two wide, so
// that a quantile is off by less than 1.6 % however many values there are.
type histogram struct {
	counts   []int64
	n        int64
	sum      float64 // ns
	min, max time.Duration
}

const subBits = 6 // 64 buckets an octave

// bucket is the value itself below 128, then its leading 7 bits and their place.
func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// bounds is the inverse of bucket: the range [low, high) of values in it.
func bounds(b int) (low, high float64) {
	shift := max(b>>subBits-1, 0)
	v := uint64(b - shift<<subBits)
	return float64(v << shift), float64((v + 1) << shift)
}

func (h *histogram) add(d time.Duration) { h.addMany(d, 1) }

func (h *histogram) addMany(d time.Duration, n int64) {
	if h.counts == nil {
		h.counts = make([]int64, bucket(1<<63-1)+1)
	}
	h.counts[bucket(d)] += n
	h.n += n
	h.sum += float64(d) * float64(n)
	if h.n == n {
		h.min = d
	}
	h.min, h.max = min(h.min, d), max(h.max, d)
}

// quantile in ns, 0 ≤ q ≤ 1, linear within the bucket; 0 for none.
func (h *histogram) quantile(q float64) float64 {
	rank := q * float64(h.n-1)
	seen := int64(0)
	for b, n := range h.counts {
		if n > 0 && rank < float64(seen+n) {
			low, high := bounds(b)
			v := low + (high-low)*(rank-float64(seen)+0.5)/float64(n)
			return min(max(v, float64(h.min)), float64(h.max))
		}
		seen += n
	}
	return float64(h.max)
}

// Distribution summarizes durations, in milliseconds.
type Distribution struct {
	N      int64   `json:"n"`
	Mean   float64 `json:"mean_ms"`
	Median float64 `json:"median_ms"`
	P90    float64 `json:"p90_ms"`
	P99    float64 `json:"p99_ms"`
	Max    float64 `json:"max_ms"`
}

func (h *histogram) describe() Distribution {
	if h.n == 0 {
		return Distribution{}
	}
	return Distribution{
		N: h.n, Mean: h.sum / float64(h.n) / 1e6, Median: h.quantile(0.5) / 1e6,
		P90: h.quantile(0.9) / 1e6, P99: h.quantile(0.99) / 1e6, Max: float64(h.max) / 1e6,
	}
}
