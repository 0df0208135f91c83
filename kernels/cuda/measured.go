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

// measuredTokens are the batches that were timed; a way serves those down to the one before.
var measuredTokens = []int{1, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512}

// measuredSMs is the multiprocessors of the cards that they were timed on.
const measuredSMs = 132

// card is one that ways were timed on, by what its memory moves in a second, which decides.
type card struct {
	name   string
	memory float64 // bytes a second by the data sheet
}

var measuredCards = []card{{"h100", 3.35e12}, {"h200", 4.8e12}}

// measuredCard is the name of the one like a.
func measuredCard(a arch) string {
	far := func(c card) float64 { return math.Abs(c.memory - a.memory) }
	return slices.MinFunc(measuredCards, func(x, y card) int { return cmp.Compare(far(x), far(y)) }).name
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

// timedWay is the way of just that number of tokens on the card like a, or, if none was timed
// there, on another; "" if on no card.
func timedWay(s cardShape, a arch) (way string) {
	s.card = measuredCard(a)
	if way = measured()[s]; way != "" {
		return way
	}
	for _, c := range measuredCards {
		if s.card = c.name; way == "" {
			way = measured()[s]
		}
	}
	return way
}

// measuredWay is the way that whole steps found fastest, if one like this was timed.
func measuredWay(s gemmShape, a arch) (candidate, bool) {
	i, _ := slices.BinarySearch(measuredTokens, s.m)
	if a.sms != measuredSMs {
		return candidate{}, false
	}
	like := cardShape{gemmShape: s}
	for _, like.m = range measuredTokens[i:] {
		way := timedWay(like, a)
		if way == "" {
			continue
		}
		for _, c := range candidates(s, a) {
			if c.String() == way {
				return c, true
			}
		}
		break
	}
	return candidate{}, false
}
