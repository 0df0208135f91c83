package kvcache

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Config configures a Manager.
type Config struct {
	// NumBlocks is the number of blocks of the pool, the reserved block 0
	// included; at least 2.
	NumBlocks int
	// HostBlocks is the number of blocks of the swap pool; 0 = no swapping.
	HostBlocks int
	// BlockSize is the tokens of a block.
	BlockSize int
	// DisablePrefixCaching turns the prefix index off: nothing is published.
	// Forks share their parent's blocks all the same.
	DisablePrefixCaching bool
	// Key is mixed into every hash: random in a server, so that nobody outside
	// can compute hashes; fixed in tests.
	Key [32]byte
	// Model identifies the weights that the KV belongs to.
	Model string
}

func (c *Config) validate() error {
	var errs []error
	if c.NumBlocks < 2 {
		errs = append(errs, fmt.Errorf("NumBlocks is %d, want at least 2: block 0 is reserved", c.NumBlocks))
	}
	if c.HostBlocks < 0 {
		errs = append(errs, fmt.Errorf("HostBlocks is %d, want 0 (no swapping) or more", c.HostBlocks))
	}
	if c.BlockSize < 1 {
		errs = append(errs, fmt.Errorf("BlockSize is %d, want at least 1", c.BlockSize))
	}
	return errors.Join(errs...)
}

// Stats count what a Manager has and did. Counters only grow.
type Stats struct {
	Total    int // blocks that can be handed out
	Used     int // referenced
	Cached   int // without references, still in the prefix index
	Free     int // neither
	InFlight int // without references, named by a copy under way
	Shared   int // with two references or more
	Saved    int // references beyond a block's first: blocks that sharing saves

	HostTotal    int // blocks of the swap pool
	HostUsed     int // held by swapped-out sequences
	HostInFlight int // held by nobody, named by a copy under way

	Queries   int64 // prompt tokens of CountLookup
	Hits      int64 // of these, found
	Evictions int64 // published blocks that lost their content
	Forks     int64 // tables made from another's
	Copies    int64 // blocks copied on write
}

// block is the state of one id. prev and next link the free queue; they mean
// nothing outside it.
type block struct {
	refs       int32 // table entries that name it
	copies     int32 // swap copies under way that name it
	prev, next BlockID
	published  bool
	hash       Hash // of its content, when published
	parent     Hash // of which and the stored tokens hash is made

	taken, touched time.Duration // see BlockInfo
}

// Manager hands out blocks. It does not know sequences, only their tables.
type Manager struct {
	cfg     Config
	blocks  []block // block 0 is the sentinel of the free queue: a ring
	tokens  []int32 // [len(blocks)][BlockSize], of published blocks
	limit   int     // ids from here on are retired: the pool is to shrink
	index   index
	hasher  hasher
	host    hostPool
	free    int // length of the free queue
	cached  int // published blocks in it
	changes uint64
	era     int // counts ResetPrefixCache
	now     time.Duration

	scratch checkScratch
	idle    idleCheck
	order   []moved   // of a SwapOut or SwapIn
	fresh   []BlockID // of a SwapIn

	used, inFlight, shared, extra int
	excess, leaving               int       // beyond the limit: blocks in use, and of these in flight
	evicted                       []BlockID // since TakeEvicted

	queries, hits, evictions, forks, copied int64
}

// NewManager makes a Manager whose blocks are all free. The error lists every
// problem of the configuration.
func NewManager(cfg Config) (*Manager, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, hasher: newHasher(cfg), blocks: make([]block, 1), limit: 1}
	m.SetLimits(cfg.NumBlocks, cfg.HostBlocks)
	return m, nil
}

// BlockSize is the tokens of a block.
func (m *Manager) BlockSize() int { return m.cfg.BlockSize }

// PrefixCaching says whether blocks are published.
func (m *Manager) PrefixCaching() bool { return !m.cfg.DisablePrefixCaching }

// Capacity is the number of blocks that can be handed out.
func (m *Manager) Capacity() int { return m.limit - 1 }

// NumFree is the number of blocks without references, cached ones included.
func (m *Manager) NumFree() int { return m.free }

// NumInFlight is the number of blocks that will be free once the copies under way
// are finished.
func (m *Manager) NumInFlight() int { return m.inFlight - m.leaving }

// Changes counts what may change the answer of an Admit: blocks that were taken,
// given back or published.
func (m *Manager) Changes() uint64 { return m.changes }

// BlocksFor is the number of blocks that tokens take.
func (m *Manager) BlocksFor(tokens int) int {
	return (tokens + m.cfg.BlockSize - 1) / m.cfg.BlockSize
}

// Stats returns the present counts. It takes constant time.
func (m *Manager) Stats() Stats {
	return Stats{
		Total: m.Capacity(), Used: m.used, Cached: m.cached, Free: m.free - m.cached, InFlight: m.inFlight,
		Shared: m.shared, Saved: m.extra,
		HostTotal: m.host.limit, HostUsed: m.host.used, HostInFlight: m.host.inFlight,
		Queries: m.queries, Hits: m.hits, Evictions: m.evictions, Forks: m.forks, Copies: m.copied,
	}
}

// TakeEvicted appends the blocks that lost their content since the last call.
func (m *Manager) TakeEvicted(to []BlockID) []BlockID {
	to = append(to, m.evicted...)
	m.evicted = m.evicted[:0]
	return to
}

// Admit gives an empty table blocks for all of tokens: those of the longest
// published prefix and fresh ones for the rest. It returns the number of tokens
// whose KV is there already, a multiple of the block size below len(tokens). ok
// is false, and nothing has changed, when fewer than reserve blocks would remain
// free. Look-up, pinning and the capacity check are this one call, so that
// nothing can come between them.
func (m *Manager) Admit(t *BlockTable, tokens []int32, salt string, reserve int) (cached int, ok bool) {
	if len(t.ids) != 0 || len(tokens) == 0 {
		panic(fmt.Sprintf("kvcache: Admit of %d tokens to a table of %d blocks", len(tokens), len(t.ids)))
	}
	m.matchPrefix(t, tokens, salt)
	if !m.claim(t, len(tokens), reserve) {
		return 0, false
	}
	t.era = m.era
	return t.hashed * m.cfg.BlockSize, true
}

// CountLookup has Stats count what Admit or Fork found of a prompt. Who comes back after a
// preemption, and finds its own blocks or lacks them, would say nothing of the cache's use.
func (m *Manager) CountLookup(tokens, found int) {
	m.queries += int64(tokens)
	m.hits += int64(found)
}

// spare is the room in a table for blocks beyond those of its admission, so that
// decodes seldom allocate.
const spare = 32

// claim pins the blocks that the table names and appends fresh ones for tokens.
// When fewer than reserve blocks would remain free it empties the table instead.
func (m *Manager) claim(t *BlockTable, tokens, reserve int) bool {
	hits, queued := len(t.ids), 0
	for _, id := range t.ids {
		if b := &m.blocks[id]; b.refs == 0 && b.copies == 0 {
			queued++
		}
	}
	need := m.BlocksFor(tokens) - hits
	if queued+need+max(reserve, 0) > m.free {
		t.ids, t.hashed = t.ids[:0], 0
		return false
	}
	for _, id := range t.ids {
		m.pin(id)
	}
	t.ids = slices.Grow(t.ids, need+spare)
	t.hashes = slices.Grow(t.hashes, max(hits+need+spare-len(t.hashes), 0))
	for range need {
		t.ids = append(t.ids, m.take())
	}
	return true
}

// Grow extends the table to hold tokens. ok is false, and nothing has changed,
// when too few blocks are free.
func (m *Manager) Grow(t *BlockTable, tokens int) (ok bool) {
	return tokens <= len(t.ids)*m.cfg.BlockSize || m.grow(t, tokens) // most decodes need no block
}

func (m *Manager) grow(t *BlockTable, tokens int) (ok bool) {
	need := m.BlocksFor(tokens) - len(t.ids)
	if need > m.free {
		return false
	}
	for range need {
		t.ids = append(t.ids, m.take())
	}
	return true
}

// Fork gives an empty table blocks for tokens tokens, of which the first computed
// have their KV in parent: full blocks are shared, a partial last one is copied,
// because both sequences are about to write to it. The caller performs copies
// before the next step. The first computed tokens of both are the same. ok is false, and nothing has changed, when fewer than
// reserve blocks would remain free.
func (m *Manager) Fork(t, parent *BlockTable, tokens, computed, reserve int, copies []Copy) (_ []Copy, ok bool) {
	size := m.cfg.BlockSize
	if len(t.ids) != 0 || computed >= tokens || m.BlocksFor(computed) > len(parent.ids) {
		panic(fmt.Sprintf("kvcache: Fork of %d computed of %d tokens to a table of %d blocks, from one of %d", computed, tokens, len(t.ids), len(parent.ids)))
	}
	full := computed / size
	t.ids = append(t.ids, parent.ids[:full]...)
	if !m.claim(t, tokens, reserve) {
		return copies, false
	}
	if computed%size != 0 {
		copies = append(copies, Copy{Src: int32(parent.ids[full]), Dst: int32(t.ids[full])})
		m.copied++
	}
	t.era, t.hashed = parent.era, min(parent.hashed, full)
	if len(t.hashes) < t.hashed {
		t.hashes = append(t.hashes[:0], parent.hashes[:t.hashed]...)
	}
	m.forks++
	return copies, true
}

// Release drops the table's references, from the end to the start, so that of one
// sequence the tail is evicted before the head, and empties it. Releasing an
// empty table does nothing.
func (m *Manager) Release(t *BlockTable) {
	for i := len(t.ids) - 1; i >= 0; i-- {
		m.unpin(t.ids[i])
	}
	t.ids, t.hashed = t.ids[:0], 0
}

func publishPanic(computed, tokens, blocks, size int) string {
	return fmt.Sprintf("kvcache: Publish of %d computed of %d tokens in %d blocks of %d", computed, tokens, blocks, size)
}

// IsShared says whether more than one table names the block.
func (m *Manager) IsShared(id BlockID) bool { return m.blocks[id].refs > 1 }
