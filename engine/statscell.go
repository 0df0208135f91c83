package engine

import (
	"sync/atomic"
	"unsafe"
)

// statWords is the number of words of 64 bits of Stats, which has nothing else.
const statWords = int(unsafe.Sizeof(Stats{}) / 8)

// statsCell hands Stats from the engine's goroutine to any other, without a
// lock: a sequence lock (Linux's seqlock) over atomic words. The writer makes
// the version odd while it writes; a reader that saw it odd or changed reads
// again. A step's numbers are thus always seen together.
type statsCell struct {
	version atomic.Uint64
	words   [statWords]atomic.Int64
}

// store publishes s. One goroutine stores.
func (c *statsCell) store(s *Stats) {
	c.version.Add(1)
	for i, w := range (*[statWords]int64)(unsafe.Pointer(s)) {
		if c.words[i].Load() != w { // a store orders all that is under way: most words stay as they are
			c.words[i].Store(w)
		}
	}
	c.version.Add(1)
}

func (c *statsCell) load() Stats {
	for {
		before := c.version.Load()
		var s Stats
		w := (*[statWords]int64)(unsafe.Pointer(&s))
		for i := range w {
			w[i] = c.words[i].Load()
		}
		if before%2 == 0 && c.version.Load() == before {
			return s
		}
	}
}
