package kernels

import (
	"cmp"
	"slices"
	"time"
)

// Span is an interval of time.
type Span struct{ Begin, End time.Duration }

// Union joins spans that overlap or touch; the result is ordered. It orders spans, too.
func Union(spans []Span) []Span {
	slices.SortFunc(spans, func(a, b Span) int { return cmp.Compare(a.Begin, b.Begin) })
	var out []Span
	for _, s := range spans {
		if n := len(out); n > 0 && s.Begin <= out[n-1].End {
			out[n-1].End = max(out[n-1].End, s.End)
		} else if s.End > s.Begin {
			out = append(out, s)
		}
	}
	return out
}

// Within is the time of ordered, disjoint spans inside [begin, end).
func Within(spans []Span, begin, end time.Duration) (sum time.Duration) {
	for _, s := range spans {
		if s.Begin >= end {
			break
		}
		sum += max(min(s.End, end)-max(s.Begin, begin), 0)
	}
	return sum
}
