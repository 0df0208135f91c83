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

func (m *Manager) pushTail(id BlockID) { m.insert(id, m.blocks[0].prev, 0) }

func (m *Manager) pushHead(id BlockID) { m.insert(id, 0, m.blocks[0].next) }

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
		delete(m.index, b.hash)
		b.published = false
		m.evictions++
	}
	b.refs = 1
	return id
}

// pin adds a reference to a published block.
func (m *Manager) pin(id BlockID) {
	b := &m.blocks[id]
	if b.refs == 0 {
		m.remove(id)
	}
	b.refs++
}

// unpin drops a reference.
func (m *Manager) unpin(id BlockID) {
	b := &m.blocks[id]
	m.changes++
	if b.refs <= 0 {
		panic(fmt.Sprintf("kvcache: block %d freed with %d references", id, b.refs))
	}
	if b.refs--; b.refs > 0 {
		return
	}
	if b.published {
		m.pushTail(id)
	} else {
		m.pushHead(id)
	}
}
