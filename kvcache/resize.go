package kvcache

import "fmt"

// SetLimits changes the size of the pools: blocks, the reserved block 0 included,
// and host blocks. Growing takes effect at once. Shrinking takes the ids beyond
// the limit out of circulation: free ones at once, evicting what they cache,
// others when they are given back. Excess counts what is still held.
func (m *Manager) SetLimits(blocks, host int) {
	if blocks < 2 || host < 0 {
		panic(fmt.Sprintf("kvcache: limits of %d blocks and %d host blocks", blocks, host))
	}
	m.changes++
	m.setDeviceLimit(blocks)
	m.host.setLimit(host)
	m.cfg.NumBlocks, m.cfg.HostBlocks = blocks, host
}

func (m *Manager) setDeviceLimit(limit int) {
	if more := limit - len(m.blocks); more > 0 {
		m.blocks = append(m.blocks, make([]block, more)...)
		if !m.cfg.DisablePrefixCaching {
			m.tokens = append(m.tokens, make([]int32, len(m.blocks)*m.cfg.BlockSize-len(m.tokens))...)
		}
		m.index.resize(len(m.blocks), m.blocks)
	}
	old := m.limit
	m.limit = limit
	for id := BlockID(limit - 1); int(id) >= old; id-- { // to the head, before what is cached
		if b := &m.blocks[id]; b.refs == 0 && b.copies == 0 {
			m.insert(id, 0, m.blocks[0].next)
		}
	}
	for id := BlockID(limit); int(id) < old; id++ {
		b := &m.blocks[id]
		switch {
		case b.refs == 0 && b.copies == 0:
			m.remove(id)
			if b.published {
				m.evict(id)
			}
		case b.published:
			m.evict(id) // nobody new may come to hold it
		}
	}
	m.excess, m.leaving = m.beyond()
}

// beyond counts the blocks beyond the limit that are in use, and those of them that
// only a copy names.
func (m *Manager) beyond() (excess, leaving int) {
	for i := range m.blocks[m.limit:] {
		switch b := &m.blocks[m.limit+i]; {
		case b.refs > 0:
			excess++
		case b.copies > 0:
			excess++
			leaving++
		}
	}
	return excess, leaving
}

func (p *hostPool) setLimit(limit int) {
	if more := limit - len(p.blocks); more > 0 {
		p.blocks = append(p.blocks, make([]hostBlock, more)...)
	}
	p.limit = limit
	p.free, p.lowest, p.numFree = make([]uint64, (limit+63)/64), 0, 0
	for id := range HostID(limit) {
		if b := p.blocks[id]; !b.held && b.copies == 0 {
			p.put(id)
		}
	}
	p.excess = p.beyond()
}

// beyond counts the blocks beyond the limit that are in use.
func (p *hostPool) beyond() (excess int) {
	for i := range p.blocks[p.limit:] {
		if b := &p.blocks[p.limit+i]; b.held || b.copies > 0 {
			excess++
		}
	}
	return excess
}

// retired says whether the id is beyond the limit.
func (m *Manager) retired(id BlockID) bool { return int(id) >= m.limit }

// Retired says whether the table names a block that the pool is to lose.
func (m *Manager) Retired(t *BlockTable) bool {
	for _, id := range t.ids {
		if m.retired(id) {
			return true
		}
	}
	return false
}

// HostRetired says whether the table holds a host block that the swap pool is to
// lose.
func (m *Manager) HostRetired(h *HostTable) bool {
	for _, id := range h.ids {
		if int(id) >= m.host.limit {
			return true
		}
	}
	return false
}

// Excess is the number of blocks beyond the limits, of both pools, that are still
// referenced or in flight: 0 means that the memory behind them may go.
func (m *Manager) Excess() int { return m.excess + m.host.excess }
