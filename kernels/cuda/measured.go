//go:build cuda

package cuda

import (
	"cmp"
	_ "embed"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
)

// measuredText has a line for each product of the models that BenchmarkDeals was run on:
// card, n, k, kind, tokens, way. What a kernel takes in a chain of its like is not what it costs a
// step, where the kernel before leaves it no room and the one behind it waits for its end;
// so where whole steps were timed, their outcome stands before the models of the kernels.
//
//go:embed measured.tsv
var measuredText string

// measuredTokens are the batches that were timed, not all on each card; a way serves those down to the one before.
var measuredTokens = []int{1, 4, 8, 16, 32, 64, 80, 96, 128, 160, 192, 224, 256, 320, 384, 512}

// measuredSMs is the multiprocessors of the cards that they were timed on.
const measuredSMs = 132

// card is one that ways were timed on, by what its memory moves in a second, which decides.
type card struct {
	name   string
	memory float64 // bytes a second by the data sheet
}

var measuredCards = []card{{"h100", 3.35e12}, {"h200", 4.8e12}}

// cardsLike are the cards' names, that most like a first.
func cardsLike(a arch) (names []string) {
	far := func(c card) float64 { return math.Abs(c.memory - a.memory) }
	for _, c := range slices.SortedFunc(slices.Values(measuredCards), func(x, y card) int { return cmp.Compare(far(x), far(y)) }) {
		names = append(names, c.name)
	}
	return names
}

// cardShape is a product on a card.
type cardShape struct {
	card string
	gemmShape
}

var measured = sync.OnceValue(func() map[cardShape]string {
	ways := map[cardShape]string{}
	for line := range strings.Lines(measuredText) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var s cardShape
		if _, err := fmt.Sscan(line, &s.card, &s.n, &s.k, &s.kind, &s.m); err != nil {
			panic(fmt.Sprintf("cuda: measured.tsv: %q: %v", line, err))
		}
		ways[s] = strings.TrimSpace(line[strings.LastIndexByte(line, '\t'):])
	}
	return ways
})

// measuredWay is the way that whole steps found fastest, if one like this was timed: on the card that is
// most like a and has the product at all.
func measuredWay(s gemmShape, a arch) (candidate, bool) {
	if a.sms != measuredSMs {
		return candidate{}, false
	}
	i, _ := slices.BinarySearch(measuredTokens, s.m)
	for _, name := range cardsLike(a) {
		like := cardShape{name, s}
		for _, like.m = range measuredTokens[i:] {
			way := measured()[like]
			if way == "" {
				continue
			}
			for _, c := range candidates(s, a) {
				if c.String() == way {
					return c, true
				}
			}
			return candidate{}, false
		}
	}
	return candidate{}, false
}
