package kvcache

import "crypto/sha256"

// BlockID names a KV block on the device. 0 is the padding block.
type BlockID int32

// Hash identifies a block's content together with all that precedes it.
type Hash [sha256.Size]byte

// BlockTable is one sequence's blocks and how far they are published. The zero
// value is an empty table, ready for Admit.
type BlockTable struct {
	ids    []BlockID
	hashed int  // leading blocks that were offered to the prefix index
	chain  Hash // hash of block hashed−1, or the seed of the sequence's salt
}

// IDs returns the blocks in order. The slice is the table's own: it is valid
// until the next call of the Manager, and must not be changed.
func (t *BlockTable) IDs() []BlockID { return t.ids }

// Len is the number of blocks.
func (t *BlockTable) Len() int { return len(t.ids) }
