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

// sensible are the few ways of each kernel that the models find fastest, the default first.
func sensible(s gemmShape, a arch) []candidate {
	all := candidates(s, a)
	slices.SortStableFunc(all, func(x, y candidate) int { return cmp.Compare(x.us, y.us) })
	// Of gemm_sm90 more: clusters, which its model puts behind, need less power.
	left := map[string]int{"gemm_stream": 3, "gemm_wide": 7, "gemm_sm90": 8, "gemm_skinny": 4}
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

// pin makes steps take a way to make a product.
func (m *benchModel) pin(b *testing.B, s gemmShape, c candidate) {
	require.NoError(b, m.Sync())
	require.NoError(b, m.be.graphs.renew())
	m.be.products[s] = c.productPlan
}

// sustain is for what draws a card's power limit: its clocks follow what a way draws within half
// a second, not within some steps.
var sustain = flag.Duration("sustain", 0, "BenchmarkDeals: run each of the best four ways so long before it is timed, and so long again")

// dealContexts are the tokens of context of the steps that are timed. Attention's form depends on them, and a
// product beside one form may be 4 % of the step slower than beside another.
var dealContexts = []int{700, 1087, 1183, 1279}

// BenchmarkDeals looks for the ways to make the products of a decode step that make the whole step
// fastest on the device, in the mean of dealContexts: product after product, with all
// else as it was found so far, and once more among the best four. It prints a line for each
// model, batch, round and product, of the step's time in µs, and, with a # in front, the lines for
// measured.tsv. Each way runs twice, in order and in reverse; one replaces what stands when it
// is faster by 0.2 %. Run it with -test.benchtime 1x.
func BenchmarkDeals(b *testing.B) {
	for _, model := range trueShapes {
		b.Run(model.name, func(b *testing.B) {
			m := newBenchModel(b, model, measuredTokens[len(measuredTokens)-1], slices.Max(dealContexts))
			m.be.cfg.apart = true // products are what is measured
			for _, n := range measuredTokens {
				b.Run(fmt.Sprint(n), func(b *testing.B) {
					products, ways := productsOf(&m.be.shape, n), map[string][]candidate{}
					for _, p := range products {
						ways[p.name] = sensible(p.shape, m.be.arch)
						m.pin(b, p.shape, ways[p.name][0])
					}
					for round := range 2 {
						for _, p := range products {
							times := m.compare(b, p.shape, ways[p.name], n, time.Duration(round)**sustain)
							list := ranked(ways[p.name], times)
							fmt.Printf("\n%s %d %s %d | %s\n", model.name, n, p.name, round, list)
							ways[p.name] = ways[p.name][:min(4, len(times))]
							m.pin(b, p.shape, ways[p.name][0])
						}
					}
					for _, p := range products {
						fmt.Printf("\n#%s\t%d\t%d\t%s\t%d\t%s\n", cardsLike(m.be.arch)[0], p.shape.n, p.shape.k, p.shape.kind, n, ways[p.name][0])
					}
				})
			}
		})
	}
}

// compare times a step of n sequences with each way to make a product, some steps of each context at a time, or
// as many as last so long together.
func (m *benchModel) compare(b *testing.B, s gemmShape, ways []candidate, n int, long time.Duration) []float64 {
	times := make([]float64, len(ways))
	for i := range 2 * len(ways) {
		at := min(i, 2*len(ways)-1-i)
		m.pin(b, s, ways[at])
		batch, sample := m.spans(n, dealContexts[0], 1)
		_, step, _ := m.run(b, batch, sample, 2) // captures the graph
		steps := max(int(long/step)/len(dealContexts), 6)
		if long > 0 {
			m.run(b, batch, sample, int(long/step))
		}
		for _, context := range dealContexts {
			batch, sample := m.spans(n, context, 1)
			m.run(b, batch, sample, 1)
			_, device, _ := m.run(b, batch, sample, steps)
			times[at] += float64(device.Nanoseconds()) / 2e3 / float64(len(dealContexts))
		}
	}
	return times
}

// ranked orders ways by their times, the first of them before those that are not faster by
// 0.2 %, and lists them.
func ranked(ways []candidate, times []float64) string {
	order, standing := make([]int, len(ways)), times[0]
	for i := range order {
		order[i] = i
	}
	key := func(i int) float64 {
		if i == 0 {
			return standing * 0.998
		}
		return times[i]
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(key(i), key(j)) })
	var list []string
	sorted := make([]candidate, len(ways))
	for at, i := range order {
		mark := ""
		if i == 0 {
			mark = "*"
		}
		sorted[at] = ways[i]
		list = append(list, fmt.Sprintf("%s%s %.1f (model %.1f)", ways[i], mark, times[i], ways[i].us))
	}
	copy(ways, sorted)
	return strings.Join(list, " | ")
}
