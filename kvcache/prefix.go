package kvcache

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// hasher computes the hash chain. Its buffer makes hashing free of allocations.
type hasher struct {
	root []byte // key and model, what every seed begins with
	buf  []byte // parent hash, then the tokens as little-endian int32
}

func newHasher(cfg Config) hasher {
	root := append([]byte(nil), cfg.Key[:]...)
	root = binary.LittleEndian.AppendUint64(root, uint64(len(cfg.Model)))
	root = append(root, cfg.Model...)
	return hasher{root: root, buf: make([]byte, sha256.Size+4*cfg.BlockSize)}
}

// seed is the parent of a sequence's first block. The model's length
// is hashed with it, and the salt comes last, so that no two pairs spell the same
// bytes.
func (h *hasher) seed(salt string) Hash {
	return sha256.Sum256(append(h.root[:len(h.root):len(h.root)], salt...))
}

// block is the hash of a full block.
func (h *hasher) block(parent Hash, tokens []int32) Hash {
	copy(h.buf, parent[:])
	for i, token := range tokens {
		binary.LittleEndian.PutUint32(h.buf[sha256.Size+4*i:], uint32(token))
	}
	return sha256.Sum256(h.buf)
}

// chain returns the hash of the sequence's block i, whose tokens are among
// tokens, extending the table's chain as far as needed.
func (m *Manager) chain(t *BlockTable, i int, tokens []int32, salt string) *Hash {
	size := m.cfg.BlockSize
	for n := len(t.hashes); n <= i; n++ {
		t.hashes = append(t.hashes, m.hasher.block(m.parent(t, n, salt), tokens[n*size:(n+1)*size]))
	}
	return &t.hashes[i]
}

// parent is the hash before block i of the chain.
func (m *Manager) parent(t *BlockTable, i int, salt string) Hash {
	if i == 0 {
		return m.hasher.seed(salt)
	}
	return t.hashes[i-1]
}

// matchPrefix puts the longest published prefix of tokens, without the last
// token, into the empty table t. It pins nothing: its callers do, once they know
// that the rest fits.
func (m *Manager) matchPrefix(t *BlockTable, tokens []int32, salt string) {
	if m.cfg.DisablePrefixCaching {
		return
	}
	size := m.cfg.BlockSize
	for end := size; end < len(tokens); end += size {
		id := m.index.find(m.chain(t, end/size-1, tokens, salt), m.blocks)
		if id == 0 || !m.holds(id, tokens[end-size:end]) {
			return
		}
		t.ids = append(t.ids, id)
		t.hashed++
	}
}

// holds says whether the published block has this content. The hash decides in
// practice; comparing makes a collision or a bug a miss and not another
// request's text.
func (m *Manager) holds(id BlockID, tokens []int32) bool {
	size := m.cfg.BlockSize
	return slices.Equal(m.tokens[int(id)*size:(int(id)+1)*size], tokens)
}

// Fills says whether computed tokens fill a block that was not yet offered to the prefix
// index: most decodes fill none, and need not call Publish.
func (m *Manager) Fills(t *BlockTable, computed int) bool {
	return (t.hashed+1)*m.cfg.BlockSize <= computed
}

// Publish enters the blocks that computed tokens fill into the prefix index.
// tokens are the sequence's ids, at least computed of them; computed never
// covers a token whose KV a launched step has yet to write. salt is the
// sequence's. A table with content from before a ResetPrefixCache publishes
// nothing.
func (m *Manager) Publish(t *BlockTable, tokens []int32, salt string, computed int) {
	if m.Fills(t, computed) {
		m.publishFull(t, tokens, salt, computed)
	}
}

func (m *Manager) publishFull(t *BlockTable, tokens []int32, salt string, computed int) {
	size := m.cfg.BlockSize
	if t.era != m.era || m.cfg.DisablePrefixCaching {
		return
	}
	if computed > len(tokens) || computed/size > len(t.ids) {
		panic(publishPanic(computed, len(tokens), len(t.ids), size))
	}
	for ; (t.hashed+1)*size <= computed; t.hashed++ {
		m.publish(t, t.hashed, tokens, salt)
	}
}

// publish enters block i of the table, unless its content is there already: two
// sequences computed it side by side, and the later block stays unpublished.
func (m *Manager) publish(t *BlockTable, i int, tokens []int32, salt string) {
	size := m.cfg.BlockSize
	hash := m.chain(t, i, tokens, salt)
	id := t.ids[i]
	at := m.index.probe(hash, m.blocks)
	if m.index.slots[at] != 0 || m.retired(id) {
		return
	}
	b := &m.blocks[id]
	b.published, b.hash, b.parent = true, *hash, m.parent(t, i, salt)
	copy(m.tokens[int(id)*size:], tokens[i*size:(i+1)*size])
	m.index.add(at, id)
	m.changes++
}

// unpublish forgets a block's content.
func (m *Manager) unpublish(id BlockID) {
	m.index.remove(id, m.blocks)
	m.blocks[id].published = false
}

// ResetPrefixCache forgets all published content, so that nothing computed before
// is hit again. Sequences keep their blocks, but what they hold by now is not
// published any more, nor what they compute on top of it.
func (m *Manager) ResetPrefixCache() {
	for _, id := range m.index.slots { // far fewer lines of memory than the blocks
		m.blocks[id].published = false // block 0 never was
	}
	m.index.clear()
	m.era++
	m.cached = 0
	m.changes++
}
