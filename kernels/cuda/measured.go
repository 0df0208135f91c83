//go:build cuda

package cuda

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// measuredText has a line for each product of the models that BenchmarkDeals was run on:
// n, k, kind, tokens, way. What a kernel takes in a chain of its like is not what it costs a
// step, where the kernel before leaves it no room and the one behind it waits for its end;
// so where whole steps were timed, their outcome stands before the models of the kernels.
//
//go:embed measured.tsv
var measuredText string

// measuredTokens are the batches that were timed; a way serves those down to the one before,
// that of one token itself alone.
var measuredTokens = []int{1, 16, 32, 64, 128, 256, 512}

// measuredSMs is the multiprocessors of the card that they were timed on, an H100; an H200 has
// as many.
const measuredSMs = 132

var measured = sync.OnceValue(func() map[gemmShape]string {
	ways := map[gemmShape]string{}
	for line := range strings.Lines(measuredText) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var s gemmShape
		if _, err := fmt.Sscan(line, &s.n, &s.k, &s.kind, &s.m); err != nil {
			panic(fmt.Sprintf("cuda: measured.tsv: %q: %v", line, err))
		}
		ways[s] = strings.TrimSpace(line[strings.LastIndexByte(line, '\t'):])
	}
	return ways
})

// measuredWay is the way that whole steps found fastest, if one like this was timed.
func measuredWay(s gemmShape, a arch) (candidate, bool) {
	i, exact := slices.BinarySearch(measuredTokens, s.m)
	if i == len(measuredTokens) || s.m <= 8 && !exact || a.sms != measuredSMs {
		return candidate{}, false
	}
	like := s
	like.m = measuredTokens[i]
	way, ok := measured()[like]
	if !ok {
		return candidate{}, false
	}
	for _, c := range candidates(s, a) {
		if c.String() == way {
			return c, true
		}
	}
	return candidate{}, false
}
