package kvcache

import "fmt"

// The free queue is a ring through blocks[0]: head = blocks[0].next is reused
// first, tail = blocks[0].prev last. Every operation is O(1).

func (m *Manager) insert(id, prev, next BlockID) {
	m.blocks[id].prev, m.blocks[id].next = prev, next
	m.blocks[prev].next, m.blocks[next].prev = id, id
	m.free++
	m.changes++
	if m.blocks[id].published {
		m.cached++
	}
}

// remove takes a block out of the free queue, wherever it is.
func (m *Manager) remove(id BlockID) {
	b := &m.blocks[id]
	m.blocks[b.prev].next, m.blocks[b.next].prev = b.next, b.prev
	m.free--
	m.changes++
	if b.published {
		m.cached--
	}
}

// take hands out the block at the head of the free queue, evicting what it held.
func (m *Manager) take() BlockID {
	id := m.blocks[0].next
	if id == 0 {
		panic(fmt.Sprintf("kvcache: take from an empty free queue of %d blocks", m.Capacity()))
	}
	m.remove(id)
	b := &m.blocks[id]
	if b.published {
		m.evict(id)
	}
	b.refs = 1
	b.taken, b.touched = m.now, m.now
	m.used++
	return id
}

// evict gives up the content of a cached block.
func (m *Manager) evict(id BlockID) {
	m.unpublish(id)
	m.evictions++
	m.evicted = append(m.evicted, id)
}

// pin adds a reference to a block with known content: published, or of a parent.
func (m *Manager) pin(id BlockID) {
	b := &m.blocks[id]
	b.touched = m.now
	switch {
	case b.refs > 0:
		if b.refs == 1 {
			m.shared++
		}
		m.extra++
	case b.copies > 0: // on its way to the host; its content stays what it is
		m.flies(id, -1)
		m.used++
	default:
		m.remove(id)
		m.used++
	}
	b.refs++
}

// unpin drops a reference.
func (m *Manager) unpin(id BlockID) {
	b := &m.blocks[id]
	if b.refs <= 0 {
		panic(fmt.Sprintf("kvcache: block %d freed with %d references", id, b.refs))
	}
	m.changes++
	switch b.refs--; {
	case b.refs > 0:
		if b.refs == 1 {
			m.shared--
		}
		m.extra--
		return
	case b.copies > 0:
		m.flies(id, 1)
	default:
		m.release(id)
	}
	b.touched = m.now
	m.used--
}

// flies counts a block that nobody references and a copy names, or no longer.
func (m *Manager) flies(id BlockID, n int) {
	m.inFlight += n
	if m.retired(id) {
		m.leaving += n
	}
}

// release gives a block that nobody references and no copy names back to the free
// queue: to the tail when it is published, so that the least recently used is
// reused first; to the head when it is not, for nobody can ask for it.
func (m *Manager) release(id BlockID) {
	switch b := &m.blocks[id]; {
	case m.retired(id): // it left the index when the limit was lowered
		m.excess--
	case b.published:
		m.insert(id, m.blocks[0].prev, 0)
	default:
		m.insert(id, 0, m.blocks[0].next)
	}
}
