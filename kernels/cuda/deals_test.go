//go:build cuda

package cuda

import (
	"cmp"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// product is a product of a decode step, by name.
type product struct {
	name  string
	shape gemmShape
}

// productsOf are those of a step of n sequences.
func productsOf(s *kernels.Shape, n int) []product {
	of := func(name string, rows, cols int, kind epilogueKind) product {
		return product{name, gemmShape{m: n, n: rows, k: stride(cols), kind: kind}}
	}
	return []product{
		of("qkv", (s.Heads+2*s.KVHeads)*s.HeadDim, s.Hidden, epilogueQKV), of("o", s.Hidden, s.Heads*s.HeadDim, epilogueResidual),
		of("gate_up", 2*s.Intermediate, s.Hidden, epilogueSwiGLU), of("down", s.Hidden, s.Intermediate, epilogueResidual),
		of("head", s.Vocab, s.Hidden, epilogueStore),
	}
}

// sensible are the ways of each kernel that the models find fastest, the default first.
func sensible(s gemmShape, a arch) []candidate {
	all := candidates(s, a)
	slices.SortStableFunc(all, func(x, y candidate) int { return cmp.Compare(x.us, y.us) })
	left := map[string]int{"gemm_stream": 3, "gemm_wide": 22, "gemm_sm90": 9, "gemm_skinny": 4}
	all = slices.DeleteFunc(all, func(c candidate) bool {
		if c.us == 0 { // no model, and few
			return false
		}
		left[c.image]--
		return left[c.image] < 0
	})
	plan, _ := planProduct(s, a)
	standard := candidate{productPlan: plan}
	all = slices.DeleteFunc(all, func(c candidate) bool { return c.String() == standard.String() })
	return slices.Insert(all, 0, standard)
}

// sustain is for what draws a card's power limit: its clocks follow what a way draws within half
// a second, not within some steps.
var sustain = flag.Duration("sustain", 0, "BenchmarkDeals: run each of the best choices so long before it is timed, and so long again")

// dealContexts are the tokens of context of the steps that are timed. Attention's form depends on them, and a
// product beside one form may be 4 % of the step slower than beside another.
var dealContexts = []int{700, 1087, 1183, 1279}

// choice is a way for each product, by number, and the time of a step with them in µs.
type choice struct {
	ways [5]int
	us   float64
}

func byTime(x, y choice) int { return cmp.Compare(x.us, y.us) }

// deals looks for the best choice for steps of n sequences; what stands is the first way of each product.
type deals struct {
	*testing.B
	m        *benchModel
	n        int
	products []product
	ways     [][]candidate
}

const headProduct = 4 // of productsOf

// BenchmarkDeals looks for the ways to make the products of a decode step that make the whole step
// fastest on the device, in the mean of dealContexts. What is best for one depends on what is beside it, so: each way by itself,
// and of each product the best few are kept; those of each two products but the head; what the best of all these are together; the
// best of that again, for longer, in order and in reverse. One replaces what stands when it is faster by 0.2 %. It prints
// the best of each model and batch and, with a # in front, the lines for measured.tsv. Run it with -test.benchtime 1x.
func BenchmarkDeals(b *testing.B) {
	for _, model := range trueShapes {
		b.Run(model.name, func(b *testing.B) {
			m := newBenchModel(b, model, measuredTokens[len(measuredTokens)-1], slices.Max(dealContexts))
			m.be.cfg.apart = true // products are what is measured
			for _, n := range measuredTokens {
				b.Run(fmt.Sprint(n), func(b *testing.B) {
					d := &deals{B: b, m: m, n: n, products: productsOf(&m.be.shape, n)}
					for _, p := range d.products {
						d.ways = append(d.ways, sensible(p.shape, m.be.arch))
					}
					found := d.search()
					for i, c := range found[:min(4, len(found))] {
						fmt.Printf("\n%s %d %d | %.1f µs: %s", model.name, n, i, c.us, strings.Join(d.names(c), ", "))
					}
					fmt.Println()
					for i, name := range d.names(found[0]) {
						s := d.products[i].shape
						fmt.Printf("\n#%s\t%d\t%d\t%s\t%d\t%s\n", cardsLike(m.be.arch)[0], s.n, s.k, s.kind, n, name)
					}
				})
			}
		})
	}
}

func (d *deals) names(c choice) (names []string) {
	for i, way := range c.ways {
		names = append(names, d.ways[i][way].String())
	}
	return names
}

// search gives choices, the best first.
func (d *deals) search() []choice {
	const few, most, last = 6, 20, 4
	var all []choice
	for i := range d.products {
		all = append(all, d.keep(i, few)...)
	}
	for i := range headProduct {
		for j := range i {
			for x := 1; x < len(d.ways[i]); x++ {
				for y := 1; y < len(d.ways[j]); y++ {
					var c choice
					c.ways[i], c.ways[j] = x, y
					all = append(all, d.timed(c, 6, 0))
				}
			}
		}
	}
	slices.SortFunc(all, byTime)
	best := all[:min(most, len(all))]
	seen := map[[5]int]bool{{}: true}
	var together []choice
	for _, x := range best {
		for _, y := range best {
			if c, ok := x.with(y); ok && !seen[c.ways] {
				seen[c.ways] = true
				together = append(together, d.timed(c, 12, 0))
			}
		}
	}
	slices.SortFunc(together, byTime)
	found := slices.Insert(together[:min(last, len(together))], 0, choice{})
	sums := make([]float64, len(found))
	for i := range 2 * len(found) {
		at := min(i, 2*len(found)-1-i)
		sums[at] += d.timed(found[at], 40, *sustain).us / 2
	}
	for i := range found {
		found[i].us = sums[i]
	}
	standing, others := found[0], found[1:]
	slices.SortFunc(others, byTime)
	if len(others) > 0 && others[0].us < standing.us*0.998 {
		slices.SortFunc(found, byTime)
	}
	return found
}

// keep times each way to make a product by itself, keeps the few best and what stands, and gives a choice of each but that.
func (d *deals) keep(product, few int) (kept []choice) {
	for way := 1; way < len(d.ways[product]); way++ {
		var c choice
		c.ways[product] = way
		kept = append(kept, d.timed(c, 6, 0))
	}
	slices.SortFunc(kept, byTime)
	kept = kept[:min(few, len(kept))]
	ways := d.ways[product][:1:1]
	for i := range kept {
		ways = append(ways, d.ways[product][kept[i].ways[product]])
		kept[i].ways[product] = i + 1
	}
	d.ways[product] = ways
	return kept
}

// with is both, if they do not want different ways to make a product.
func (c choice) with(other choice) (choice, bool) {
	for i, way := range other.ways {
		if way == 0 {
			continue
		}
		if c.ways[i] != 0 && c.ways[i] != way {
			return choice{}, false
		}
		c.ways[i] = way
	}
	return c, true
}

// timed is the choice with the time of a step: so many of each context, or as many as last so long together, behind as many.
func (d *deals) timed(c choice, steps int, long time.Duration) choice {
	m := d.m
	require.NoError(d, m.Sync())
	require.NoError(d, m.be.graphs.renew())
	for i, p := range d.products {
		m.be.products[p.shape] = d.ways[i][c.ways[i]].productPlan
	}
	batch, sample := m.spans(d.n, dealContexts[0], 1)
	_, step, _ := m.run(d.B, batch, sample, 2) // captures the graph
	steps = max(int(long/step)/len(dealContexts), steps)
	if long > 0 {
		m.run(d.B, batch, sample, int(long/step))
	}
	c.us = 0
	for _, context := range dealContexts {
		batch, sample := m.spans(d.n, context, 1)
		m.run(d.B, batch, sample, 1)
		_, device, _ := m.run(d.B, batch, sample, steps)
		c.us += float64(device.Nanoseconds()) / 1e3 / float64(len(dealContexts))
	}
	return c
}
