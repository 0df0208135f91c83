package kvcache

import (
	"fmt"
	"math/bits"
	"slices"
)

// Check verifies the invariants of the package, given every live table, every
// live host table, and the swap copies under way in each direction. It takes time
// in the number of blocks: see CheckIdle.
func (m *Manager) Check(tables []*BlockTable, hosts []*HostTable, out, in [][]Copy) error {
	c := &m.scratch
	c.clear(len(m.blocks), len(m.host.blocks))
	refs := c.refs
	for n, t := range tables {
		for i, id := range t.ids {
			if id <= 0 || int(id) >= len(m.blocks) {
				return fmt.Errorf("table %d entry %d names block %d of %d", n, i, id, len(m.blocks))
			}
			refs[id]++
		}
		if t.hashed > len(t.ids) {
			return fmt.Errorf("table %d published %d of %d blocks", n, t.hashed, len(t.ids))
		}
	}
	for i, lists := range [][][]Copy{out, in} {
		for _, list := range lists {
			for _, p := range list {
				if i == 0 {
					c.copies[p.Src]++
					c.hostCopies[p.Dst]++
				} else {
					c.copies[p.Dst]++
					c.hostCopies[p.Src]++
				}
			}
		}
	}
	if err := m.checkBlocks(refs, c.copies); err != nil {
		return err
	}
	if err := m.host.check(hosts, c); err != nil {
		return err
	}
	return m.checkIndex()
}

// idleCheck is how far CheckIdle has come.
type idleCheck struct {
	changes        uint64  // of the Manager when it began
	last           BlockID // of the free queue, seen last; 0 = none
	queued, cached int     // seen
}

// CheckIdle is Check while nobody has a block and no copy is under way, by n blocks a
// call: to hash all of a large pool takes a second, and somebody may come meanwhile. done
// says that all was verified. After a change it begins anew.
func (m *Manager) CheckIdle(n int) (done bool, err error) {
	c := &m.idle
	if c.changes != m.changes {
		*c = idleCheck{changes: m.changes}
	}
	for range n {
		id := m.blocks[c.last].next
		if id == 0 {
			err = m.checkAllFree(c)
			*c = idleCheck{}
			return err == nil, err
		}
		if err := m.checkFree(id, c.last, 0); err != nil {
			return false, err
		}
		if m.blocks[id].published {
			if err := m.checkPublished(id); err != nil {
				return false, err
			}
			c.cached++
		}
		c.queued++
		c.last = id
	}
	return false, nil
}

// checkAllFree verifies that the free queue, every link of which was verified, has all
// blocks, and the index none but those of its that are published.
func (m *Manager) checkAllFree(c *idleCheck) error {
	if c.queued != m.Capacity() || c.queued != m.free || m.blocks[0].prev != c.last {
		return fmt.Errorf("the free queue has %d blocks of %d, the last one %d; counted %d, the last one %d", c.queued, m.Capacity(), c.last, m.free, m.blocks[0].prev)
	}
	if c.cached != m.cached || c.cached != m.index.count {
		return fmt.Errorf("%d free blocks are published, counted %d, the index has %d", c.cached, m.cached, m.index.count)
	}
	if n := m.used + m.inFlight + m.shared + m.extra + m.excess + m.leaving; n != 0 {
		return fmt.Errorf("all blocks are free; counted %d used, %d in flight, %d shared, %d saved, %d in use beyond the limit", m.used, m.inFlight, m.shared, m.extra, m.excess)
	}
	m.scratch.clear(0, len(m.host.blocks))
	return m.host.check(nil, &m.scratch)
}

// checkScratch is the memory that Check counts in, kept because the tests call it
// after every operation.
type checkScratch struct {
	refs, copies        []int32 // by block
	hostCopies, holders []int8  // by host block
	free                []bool  // by host block
}

func (c *checkScratch) clear(blocks, host int) {
	c.refs, c.copies = zeros(c.refs, blocks), zeros(c.copies, blocks)
	c.hostCopies, c.holders, c.free = zeros(c.hostCopies, host), zeros(c.holders, host), zeros(c.free, host)
}

// zeros returns n zeros, in s if they fit.
func zeros[T any](s []T, n int) []T {
	s = slices.Grow(s[:0], n)[:n]
	clear(s)
	return s
}

// checkQueue walks the free queue, marks its blocks in refs with −1, and verifies
// its links and counts.
func (m *Manager) checkQueue(refs []int32) error {
	queued, cached := 0, 0
	for id, prev := m.blocks[0].next, BlockID(0); id != 0; prev, id = id, m.blocks[id].next {
		if queued == len(m.blocks) {
			return fmt.Errorf("the free queue is longer than the pool: it has a loop")
		}
		if err := m.checkFree(id, prev, refs[id]); err != nil {
			return err
		}
		refs[id] = -1
		queued++
		if m.blocks[id].published {
			cached++
		}
	}
	if queued != m.free || cached != m.cached {
		return fmt.Errorf("the free queue has %d blocks, %d cached; counted %d and %d", queued, cached, m.free, m.cached)
	}
	return nil
}

// checkFree verifies a block of the free queue that comes after prev and is in so many
// tables.
func (m *Manager) checkFree(id, prev BlockID, tables int32) error {
	b := &m.blocks[id]
	switch {
	case b.prev != prev:
		return fmt.Errorf("free block %d links back to %d, not %d", id, b.prev, prev)
	case b.refs != 0 || tables != 0 || b.copies != 0:
		return fmt.Errorf("free block %d has %d references, is in %d tables and named by %d copies", id, b.refs, tables, b.copies)
	case m.retired(id):
		return fmt.Errorf("free block %d is beyond the limit %d", id, m.limit)
	}
	return nil
}

// checkBlocks verifies I1, I2 and I5 of every block, and the counts.
func (m *Manager) checkBlocks(refs, copies []int32) error {
	if err := m.checkQueue(refs); err != nil {
		return err
	}
	var used, inFlight, shared, extra int
	for id := 1; id < len(m.blocks); id++ {
		b := &m.blocks[id]
		switch {
		case b.copies != copies[id]:
			return fmt.Errorf("block %d counts %d copies under way, there are %d", id, b.copies, copies[id])
		case refs[id] == -1:
			continue
		case b.refs != refs[id]:
			return fmt.Errorf("block %d has %d references and is in %d tables", id, b.refs, refs[id])
		case b.refs > 0:
			used++
			extra += int(b.refs) - 1
			if b.refs > 1 {
				shared++
			}
		case b.copies > 0:
			inFlight++
		case !m.retired(BlockID(id)):
			return fmt.Errorf("block %d is lost: in no table, in no copy and not free", id)
		}
		if m.retired(BlockID(id)) && b.published {
			return fmt.Errorf("block %d is published beyond the limit %d", id, m.limit)
		}
	}
	if used != m.used || inFlight != m.inFlight || shared != m.shared || extra != m.extra {
		return fmt.Errorf("%d blocks are used, %d in flight, %d shared, %d saved; counted %d, %d, %d and %d",
			used, inFlight, shared, extra, m.used, m.inFlight, m.shared, m.extra)
	}
	if excess, leaving := m.beyond(); excess != m.excess || leaving != m.leaving {
		return fmt.Errorf("%d blocks are in use beyond the limit, %d of them in flight; counted %d and %d", excess, leaving, m.excess, m.leaving)
	}
	return nil
}

// check verifies I1 and I2 of the host blocks.
func (p *hostPool) check(hosts []*HostTable, c *checkScratch) error {
	copies, holders, free := c.hostCopies, c.holders, c.free
	for _, h := range hosts {
		for _, id := range h.ids {
			if id != dropped {
				holders[id]++
			}
		}
	}
	count := 0
	for i, word := range p.free {
		for ; word != 0; word &= word - 1 {
			id := 64*i + bits.TrailingZeros64(word)
			if id >= p.limit || i < p.lowest {
				return fmt.Errorf("host block %d is free beyond the limit %d, or where none is looked for", id, p.limit)
			}
			free[id] = true
			count++
		}
	}
	if count != p.numFree {
		return fmt.Errorf("%d host blocks are free; counted %d", count, p.numFree)
	}
	var used, inFlight int
	for id, b := range p.blocks {
		switch {
		case b.copies != copies[id]:
			return fmt.Errorf("host block %d counts %d copies under way, there are %d", id, b.copies, copies[id])
		case holders[id] > 1 || b.held != (holders[id] == 1):
			return fmt.Errorf("host block %d is in %d tables; held %t", id, holders[id], b.held)
		case b.held:
			used++
		case b.copies > 0:
			inFlight++
		case !free[id] && id < p.limit:
			return fmt.Errorf("host block %d is lost", id)
		}
		if free[id] && (b.held || b.copies > 0) {
			return fmt.Errorf("host block %d is free and in use", id)
		}
	}
	if used != p.used || inFlight != p.inFlight {
		return fmt.Errorf("%d host blocks are used and %d in flight; counted %d and %d", used, inFlight, p.used, p.inFlight)
	}
	if excess := p.beyond(); excess != p.excess {
		return fmt.Errorf("%d host blocks are in use beyond the limit; counted %d", excess, p.excess)
	}
	return nil
}

// checkIndex verifies I4.
func (m *Manager) checkIndex() error {
	published := 0
	for id := range m.blocks {
		if !m.blocks[id].published {
			continue
		}
		published++
		if err := m.checkPublished(BlockID(id)); err != nil {
			return err
		}
	}
	if published != m.index.count {
		return fmt.Errorf("%d blocks are published, the index has %d", published, m.index.count)
	}
	return nil
}

// checkPublished verifies I4 of one block: it is found under its hash, which the stored
// tokens and its parent's hash give.
func (m *Manager) checkPublished(id BlockID) error {
	b, size := &m.blocks[id], m.cfg.BlockSize
	if got := m.index.find(&b.hash, m.blocks); got != id {
		return fmt.Errorf("block %d is published, the index has %d under its hash", id, got)
	}
	if m.hasher.block(b.parent, m.tokens[int(id)*size:(int(id)+1)*size]) != b.hash {
		return fmt.Errorf("block %d is published under a hash that its tokens do not give", id)
	}
	return nil
}

// CheckChain verifies I4 from one sequence's tokens: each published block of its
// table has the hash that they give from the seed on, and stores them.
func (m *Manager) CheckChain(t *BlockTable, tokens []int32, salt string) error {
	size := m.cfg.BlockSize
	parent := m.hasher.seed(salt)
	for i := range min(t.hashed, len(tokens)/size) {
		content := tokens[i*size : (i+1)*size]
		parent = m.hasher.block(parent, content)
		if i < len(t.hashes) && t.hashes[i] != parent {
			return fmt.Errorf("entry %d of the chain is not the hash of its tokens", i)
		}
		if b := &m.blocks[t.ids[i]]; b.published && (b.hash != parent || !m.holds(t.ids[i], content)) {
			return fmt.Errorf("block %d, entry %d, is published as another content", t.ids[i], i)
		}
	}
	return nil
}
