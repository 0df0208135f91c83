package kvcache

import "crypto/sha256"

// BlockID names a KV block on the device. 0 is the padding block.
type BlockID int32

// HostID names a block of the swap pool in host memory, from 0 on.
type HostID int32

// dropped marks an entry of a HostTable whose content was not copied: the block
// was published and shared, so that its other owners or the prefix index may
// still have it when the sequence returns.
const dropped HostID = -1

// Hash identifies a block's content together with all that precedes it.
type Hash [sha256.Size]byte

// Copy is one whole-block copy. Which pools Src and Dst belong to follows from
// where it stands: Fork copies on the device, SwapOut from the device to the
// host, SwapIn back.
type Copy struct{ Src, Dst int32 }

// BlockTable is one sequence's blocks and how far they are published. The zero
// value is an empty table, ready for Admit.
type BlockTable struct {
	ids    []BlockID
	hashed int // leading blocks that were offered to the prefix index
	era    int // of the Manager when the oldest of the content was computed
	// hashes is the chain of the sequence's full blocks as far as it was
	// needed. It outlives Release: a sequence's tokens only grow, so that it is
	// hashed once however often it is refused or preempted.
	hashes []Hash
}

// IDs returns the blocks in order. The slice is the table's own: it is valid
// until the next call of the Manager, and must not be changed.
func (t *BlockTable) IDs() []BlockID { return t.ids }

// Len is the number of blocks.
func (t *BlockTable) Len() int { return len(t.ids) }

// HostTable is what a swapped-out sequence has in host memory, one entry a block
// of its former BlockTable. The zero value is empty.
type HostTable struct {
	ids []HostID
	era int // of the BlockTable
}

// Len is the number of entries, those that were not copied included.
func (h *HostTable) Len() int { return len(h.ids) }

// Copied is the number of host blocks that the table holds.
func (h *HostTable) Copied() int {
	n := 0
	for _, id := range h.ids {
		if id != dropped {
			n++
		}
	}
	return n
}
