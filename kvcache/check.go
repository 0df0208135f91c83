package kvcache

import "fmt"

// Check verifies the invariants of the package, given every live table. It
// takes time in the number of blocks; tests and the idle engine call it.
func (m *Manager) Check(tables []*BlockTable) error {
	refs := make([]int32, len(m.blocks))
	for n, t := range tables {
		for i, id := range t.ids {
			if id <= 0 || int(id) >= len(m.blocks) {
				return fmt.Errorf("table %d entry %d names block %d of %d", n, i, id, len(m.blocks))
			}
			refs[id]++
			if m.cfg.DisablePrefixCaching && refs[id] > 1 {
				return fmt.Errorf("block %d is shared with prefix caching off", id)
			}
		}
		if t.hashed > len(t.ids) {
			return fmt.Errorf("table %d published %d of %d blocks", n, t.hashed, len(t.ids))
		}
	}
	if err := m.checkQueue(refs); err != nil {
		return err
	}
	return m.checkIndex()
}

// checkQueue verifies I1, I2, I3 and I5.
func (m *Manager) checkQueue(refs []int32) error {
	queued, cached := 0, 0
	for id, prev := m.blocks[0].next, BlockID(0); id != 0; prev, id = id, m.blocks[id].next {
		b := &m.blocks[id]
		switch {
		case queued == len(m.blocks):
			return fmt.Errorf("the free queue is longer than the pool: it has a loop")
		case b.prev != prev:
			return fmt.Errorf("free block %d links back to %d, not %d", id, b.prev, prev)
		case b.refs != 0 || refs[id] != 0:
			return fmt.Errorf("free block %d has %d references and is in %d tables", id, b.refs, refs[id])
		}
		refs[id] = -1
		queued++
		if b.published {
			cached++
		}
	}
	if queued != m.free || cached != m.cached {
		return fmt.Errorf("the free queue has %d blocks, %d cached; counted %d and %d", queued, cached, m.free, m.cached)
	}
	for id := 1; id < len(m.blocks); id++ {
		b := &m.blocks[id]
		switch {
		case refs[id] == -1:
		case refs[id] == 0:
			return fmt.Errorf("block %d is lost: in no table and not free (%d references)", id, b.refs)
		case b.refs != refs[id]:
			return fmt.Errorf("block %d has %d references and is in %d tables", id, b.refs, refs[id])
		case refs[id] > 1 && !b.published:
			return fmt.Errorf("block %d is shared by %d tables and not published", id, refs[id])
		}
	}
	return nil
}

// checkIndex verifies I4.
func (m *Manager) checkIndex() error {
	published := 0
	for id := range m.blocks {
		if m.blocks[id].published {
			published++
		}
	}
	if published != len(m.index) {
		return fmt.Errorf("%d blocks are published, the index has %d", published, len(m.index))
	}
	for hash, id := range m.index {
		if b := &m.blocks[id]; id == 0 || !b.published || b.hash != hash {
			return fmt.Errorf("the index names block %d (published %t) under another hash", id, b.published)
		}
		size := m.cfg.BlockSize
		if m.hasher.block(m.blocks[id].parent, m.tokens[int(id)*size:(int(id)+1)*size]) != hash {
			return fmt.Errorf("block %d is published under a hash that its tokens do not give", id)
		}
	}
	return nil
}
