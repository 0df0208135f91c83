package kvcache

import (
	"errors"
	"fmt"
)

// Config configures a Manager.
type Config struct {
	// NumBlocks is the number of blocks of the pool, the reserved block 0
	// included; at least 2.
	NumBlocks int
	// BlockSize is the tokens of a block.
	BlockSize int
	// DisablePrefixCaching turns sharing off: nothing is published.
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
	if c.BlockSize < 1 {
		errs = append(errs, fmt.Errorf("BlockSize is %d, want at least 1", c.BlockSize))
	}
	return errors.Join(errs...)
}

// Stats count what a Manager did. Counters only grow.
type Stats struct {
	Total     int   // blocks, without block 0
	Used      int   // referenced
	Cached    int   // without references, still in the prefix index
	Free      int   // neither
	Queries   int64 // prompt tokens looked up, of admitted sequences
	Hits      int64 // of these, found
	Evictions int64 // published blocks that were reused for other content
}

// block is the state of one id. prev and next link the free queue; they mean
// nothing while refs > 0.
type block struct {
	refs       int32
	prev, next BlockID
	published  bool
	hash       Hash
	parent     Hash // of which and the stored tokens hash is made
}

// Manager hands out blocks. It does not know sequences, only their tables.
type Manager struct {
	cfg     Config
	blocks  []block // block 0 is the sentinel of the free queue: a ring
	tokens  []int32 // [NumBlocks][BlockSize], of published blocks
	index   map[Hash]BlockID
	hasher  hasher
	free    int // length of the free queue
	changes uint64
	cached  int // published blocks in the free queue

	queries, hits, evictions int64
}

// NewManager makes a Manager whose blocks are all free. The error lists every
// problem of the configuration.
func NewManager(cfg Config) (*Manager, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m := &Manager{
		cfg:    cfg,
		blocks: make([]block, cfg.NumBlocks),
		index:  make(map[Hash]BlockID, cfg.NumBlocks),
		hasher: newHasher(cfg),
	}
	if !cfg.DisablePrefixCaching {
		m.tokens = make([]int32, cfg.NumBlocks*cfg.BlockSize)
	}
	for id := 1; id < cfg.NumBlocks; id++ {
		m.pushTail(BlockID(id))
	}
	return m, nil
}

// BlockSize is the tokens of a block.
func (m *Manager) BlockSize() int { return m.cfg.BlockSize }

// Capacity is the number of blocks that can be handed out.
func (m *Manager) Capacity() int { return m.cfg.NumBlocks - 1 }

// NumFree is the number of blocks without references, cached ones included.
func (m *Manager) NumFree() int { return m.free }

// Changes counts what may change the answer of an Admit: blocks that were taken,
// given back or published.
func (m *Manager) Changes() uint64 { return m.changes }

// BlocksFor is the number of blocks that tokens take.
func (m *Manager) BlocksFor(tokens int) int {
	return (tokens + m.cfg.BlockSize - 1) / m.cfg.BlockSize
}

// Stats returns the present counts.
func (m *Manager) Stats() Stats {
	return Stats{
		Total: m.Capacity(), Used: m.Capacity() - m.free, Cached: m.cached, Free: m.free - m.cached,
		Queries: m.queries, Hits: m.hits, Evictions: m.evictions,
	}
}

// Admit gives an empty table blocks for all of tokens: those of the longest
// published prefix and fresh ones for the rest. It returns the number of tokens
// whose KV is there already, a multiple of the block size below len(tokens). ok
// is false, and nothing has changed, when fewer than reserve blocks would remain
// free.
func (m *Manager) Admit(t *BlockTable, tokens []int32, salt string, reserve int) (cached int, ok bool) {
	if len(t.ids) != 0 || len(tokens) == 0 {
		panic(fmt.Sprintf("kvcache: Admit of %d tokens to a table of %d blocks", len(tokens), len(t.ids)))
	}
	t.chain, t.hashed = m.hasher.seed(salt), 0
	need := m.BlocksFor(len(tokens))
	if !m.cfg.DisablePrefixCaching {
		m.matchPrefix(t, tokens)
	}
	hits, unpinned := len(t.ids), 0
	for _, id := range t.ids {
		if m.blocks[id].refs == 0 {
			unpinned++
		}
	}
	if unpinned+need-hits+max(reserve, 0) > m.free {
		*t = BlockTable{ids: t.ids[:0]}
		return 0, false
	}
	for _, id := range t.ids {
		m.pin(id)
	}
	for range need - hits {
		t.ids = append(t.ids, m.take())
	}
	m.queries += int64(len(tokens))
	m.hits += int64(hits * m.cfg.BlockSize)
	return hits * m.cfg.BlockSize, true
}

// matchPrefix puts the longest published prefix of tokens, without the last
// token, into the empty table t. It pins nothing: Admit does, once it knows that
// the rest fits.
func (m *Manager) matchPrefix(t *BlockTable, tokens []int32) {
	size := m.cfg.BlockSize
	for end := size; end < len(tokens); end += size {
		content := tokens[end-size : end]
		hash := m.hasher.block(t.chain, content)
		id, found := m.index[hash]
		if !found || !m.holds(id, content) {
			return
		}
		t.ids = append(t.ids, id)
		t.chain = hash
		t.hashed++
	}
}

// Grow extends the table to hold tokens. ok is false, and nothing has changed,
// when too few blocks are free.
func (m *Manager) Grow(t *BlockTable, tokens int) (ok bool) {
	need := m.BlocksFor(tokens) - len(t.ids)
	if need > m.free {
		return false
	}
	for range need {
		t.ids = append(t.ids, m.take())
	}
	return true
}

// Publish enters the blocks that computed tokens fill into the prefix index.
// tokens are the sequence's ids, at least computed of them; computed never
// covers a token whose KV a launched step has yet to write.
func (m *Manager) Publish(t *BlockTable, tokens []int32, computed int) {
	if m.cfg.DisablePrefixCaching {
		return
	}
	size := m.cfg.BlockSize
	if full := computed / size; full > len(t.ids) || computed > len(tokens) {
		panic(fmt.Sprintf("kvcache: Publish of %d computed of %d tokens in %d blocks of %d", computed, len(tokens), len(t.ids), size))
	}
	for (t.hashed+1)*size <= computed {
		content := tokens[t.hashed*size : (t.hashed+1)*size]
		id := t.ids[t.hashed]
		parent := t.chain
		t.chain = m.hasher.block(parent, content)
		t.hashed++
		if _, taken := m.index[t.chain]; taken {
			continue
		}
		b := &m.blocks[id]
		b.published, b.hash, b.parent = true, t.chain, parent
		m.changes++
		copy(m.tokens[int(id)*size:], content)
		m.index[t.chain] = id
	}
}

// Release drops the table's references and empties it. Releasing an empty table
// does nothing.
func (m *Manager) Release(t *BlockTable) {
	for i := len(t.ids) - 1; i >= 0; i-- {
		m.unpin(t.ids[i])
	}
	t.ids, t.hashed, t.chain = t.ids[:0], 0, Hash{}
}

// ResetPrefixCache forgets all published content. It reports false, and changes
// nothing, while any block is referenced.
func (m *Manager) ResetPrefixCache() bool {
	if m.free != m.Capacity() {
		return false
	}
	for id := range m.blocks {
		m.blocks[id].published = false
	}
	clear(m.index)
	m.cached = 0
	m.changes++
	return true
}
