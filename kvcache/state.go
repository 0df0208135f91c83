package kvcache

import "time"

// State is which of the sets of I1 a block is in.
type State uint8

// The states of a block.
const (
	Free     State = iota // nobody has it, nobody can ask for its content
	Cached                // nobody has it; the prefix index still finds it
	Used                  // in a table
	InFlight              // in no table; a swap copy under way names it
	Retired               // beyond the limit, and given back
)

// String names the state; the first letters differ.
func (s State) String() string {
	return [...]string{"free", "cached", "used", "in flight", "retired"}[s]
}

// BlockInfo is what a Manager can say of a block.
type BlockInfo struct {
	State     State
	Published bool // in the prefix index, under Hash
	Refs      int  // tables that name it
	Hash      Hash
	// Taken is when it was last handed out, Touched when a table last came to name
	// it or the last one ceased to, both on the clock of Tick.
	Taken, Touched time.Duration
}

// Tick tells the Manager the time, from which blocks get their ages. It decides
// nothing. Without it all times are 0.
func (m *Manager) Tick(now time.Duration) { m.now = now }

// NumIDs is one more than the highest id that a block ever had: those that a smaller
// pool has given up count.
func (m *Manager) NumIDs() int { return len(m.blocks) }

// Block fills in what is known of a block other than 0. It takes constant time and
// changes nothing; whoever asks for all of them asks often, so nothing is copied
// twice.
func (m *Manager) Block(id BlockID, info *BlockInfo) {
	b := &m.blocks[id]
	*info = BlockInfo{}
	info.Refs, info.Published, info.Taken, info.Touched = int(b.refs), b.published, b.taken, b.touched
	if b.published {
		info.Hash = b.hash
	}
	switch {
	case b.refs > 0:
		info.State = Used
	case b.copies > 0:
		info.State = InFlight
	case m.retired(id):
		info.State = Retired
	case b.published:
		info.State = Cached
	}
}
