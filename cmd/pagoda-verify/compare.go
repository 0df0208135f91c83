package main

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
)

// comparison says how far the engine's logits of one sequence are from the
// reference's.
type comparison struct {
	positions int
	maxDelta  float64 // largest |Δ logit| of any position and id; +Inf when one is not a number
	maxAt     int     // its position
	// meanLogprob is the mean over positions of |Δ log probability| of the
	// reference's likeliest id.
	meanLogprob float64
	agreeing    int // positions with the same likeliest id
	first       *difference
}

// difference is the first position where the likeliest ids differ.
type difference struct {
	position  int
	want, got int     // likeliest id of the reference and of the engine
	gap       float64 // reference's logit of want minus that of got
}

// compare measures got against want, [positions][vocab] each.
func compare(want, got [][]float32) (comparison, error) {
	if len(want) != len(got) {
		return comparison{}, fmt.Errorf("the engine gave logits of %d positions, expected %d", len(got), len(want))
	}
	c := comparison{positions: len(want)}
	for p := range want {
		w, g := want[p], got[p]
		if len(w) != len(g) {
			return comparison{}, fmt.Errorf("position %d: the engine gave %d logits, expected %d", p, len(g), len(w))
		}
		for id := range w {
			d := math.Abs(float64(w[id]) - float64(g[id]))
			if math.IsNaN(d) {
				d = math.Inf(1)
			}
			if d > c.maxDelta {
				c.maxDelta, c.maxAt = d, p
			}
		}
		best, chosen := argmax(w), argmax(g)
		c.meanLogprob += math.Abs(logprob(w, best)-logprob(g, best)) / float64(len(want))
		if best == chosen {
			c.agreeing++
		} else if c.first == nil {
			c.first = &difference{position: p, want: best, got: chosen, gap: float64(w[best]) - float64(w[chosen])}
		}
	}
	return c, nil
}

// argmax is the id of the largest logit; of equal ones the lowest, as the
// engine samples.
func argmax(logits []float32) int {
	best := 0
	for id, v := range logits {
		if v > logits[best] {
			best = id
		}
	}
	return best
}

// logprob is log softmax of the logits at id.
func logprob(logits []float32, id int) float64 {
	top, sum := float64(logits[argmax(logits)]), 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v) - top)
	}
	return float64(logits[id]) - top - math.Log(sum)
}

// tolerance is what a comparison may be off by.
type tolerance struct {
	logit   float64 // any logit
	logprob float64 // meanLogprob
}

func (c comparison) within(t tolerance) bool {
	return c.maxDelta <= t.logit && c.meanLogprob <= t.logprob
}

// writeTable prints one line a prompt and returns how many are beyond the
// tolerance.
func writeTable(out io.Writer, list []comparison, t tolerance) (failed int, err error) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "prompt\ttokens\tmax |Δlogit|\tat\tmean |Δlogprob|\tsame argmax\tfirst difference\t\t")
	for i, c := range list {
		verdict := "ok"
		if !c.within(t) {
			verdict = "FAIL"
			failed++
		}
		first := "none"
		if d := c.first; d != nil {
			first = fmt.Sprintf("at %d: %d, expected %d (gap %.4f)", d.position, d.got, d.want, d.gap)
		}
		fmt.Fprintf(w, "%d\t%d\t%.5f\t%d\t%.6f\t%d/%d\t%s\t%s\t\n",
			i+1, c.positions, c.maxDelta, c.maxAt, c.meanLogprob, c.agreeing, c.positions, first, verdict)
	}
	return failed, w.Flush()
}
