package kvcache

import "encoding/binary"

// index is the prefix index: it maps the hash of a published block to its id.
// Open addressing with linear probing, at most half full; the hashes themselves
// are in the blocks. SHA-256 needs no further mixing, and nothing is allocated
// after sizing, which a Go map does not promise.
type index struct {
	slots []BlockID // 0 = empty: block 0 is never published
	count int
}

// resize makes room for n entries and enters those that are there anew.
func (x *index) resize(n int, blocks []block) {
	size := 8
	for size < 2*n {
		size *= 2
	}
	old := x.slots
	x.slots = make([]BlockID, size)
	for _, id := range old {
		if id != 0 {
			x.slots[x.probe(&blocks[id].hash, blocks)] = id
		}
	}
}

func (x *index) home(h *Hash) int {
	return int(binary.LittleEndian.Uint64(h[:8]) & uint64(len(x.slots)-1))
}

// probe returns the slot that holds h, or the empty one where it belongs.
func (x *index) probe(h *Hash, blocks []block) int {
	mask := len(x.slots) - 1
	i := x.home(h)
	for x.slots[i] != 0 && blocks[x.slots[i]].hash != *h {
		i = (i + 1) & mask
	}
	return i
}

// find returns the block published under h; 0 = none.
func (x *index) find(h *Hash, blocks []block) BlockID { return x.slots[x.probe(h, blocks)] }

// add enters a block at the empty slot that probe found for its hash.
func (x *index) add(slot int, id BlockID) {
	x.slots[slot] = id
	x.count++
}

// remove takes a block out and closes the gap, so that no probe ends early
// (Knuth, TAOCP 3, 6.4, algorithm R).
func (x *index) remove(id BlockID, blocks []block) {
	mask := len(x.slots) - 1
	gap := x.probe(&blocks[id].hash, blocks)
	x.count--
	for i := gap; ; {
		x.slots[gap] = 0
		for {
			i = (i + 1) & mask
			if x.slots[i] == 0 {
				return
			}
			home := x.home(&blocks[x.slots[i]].hash)
			if (i-home)&mask >= (i-gap)&mask {
				break // its probe sequence passes the gap
			}
		}
		x.slots[gap] = x.slots[i]
		gap = i
	}
}

func (x *index) clear() {
	clear(x.slots)
	x.count = 0
}
