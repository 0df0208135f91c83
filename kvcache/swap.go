package kvcache

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
)

// hostPool is the swap pool: which host blocks are held, by tables, and which a
// copy under way names. Host blocks are never shared.
type hostPool struct {
	blocks   []hostBlock
	free     []uint64 // a bit an id: the lowest goes first, so that blocks which leave together lie together
	lowest   int      // words of free before this one are 0
	numFree  int
	limit    int // ids from here on are retired
	used     int // held
	inFlight int // not held, but named by a copy
	excess   int // beyond the limit, held or named by a copy
}

type hostBlock struct {
	held   bool
	copies int8 // 0 to 2: it may leave before it has quite arrived
}

// take holds the lowest free block.
func (p *hostPool) take() HostID {
	for p.free[p.lowest] == 0 {
		p.lowest++
	}
	word := p.free[p.lowest]
	id := HostID(64*p.lowest + bits.TrailingZeros64(word))
	p.free[p.lowest] = word & (word - 1)
	p.numFree--
	p.blocks[id].held = true
	p.used++
	return id
}

// put makes a block free.
func (p *hostPool) put(id HostID) {
	p.free[id/64] |= 1 << (id % 64)
	p.lowest = min(p.lowest, int(id/64))
	p.numFree++
}

// drop stops holding a block; it is free once no copy names it.
func (p *hostPool) drop(id HostID) {
	b := &p.blocks[id]
	if !b.held {
		panic(fmt.Sprintf("kvcache: host block %d dropped twice", id))
	}
	b.held = false
	p.used--
	if b.copies > 0 {
		p.inFlight++
	} else if int(id) < p.limit {
		p.put(id)
	} else {
		p.excess--
	}
}

// copied ends one copy.
func (p *hostPool) copied(id HostID) {
	b := &p.blocks[id]
	b.copies--
	if b.copies == 0 && !b.held {
		p.inFlight--
		if int(id) < p.limit {
			p.put(id)
		} else {
			p.excess--
		}
	}
}

// CanSwapOut says how many host blocks SwapOut of the table would take, and
// whether they are free. computed counts the tokens with KV.
func (m *Manager) CanSwapOut(t *BlockTable, computed int) (blocks int, ok bool) {
	for _, id := range t.ids[:m.BlocksFor(computed)] {
		if !m.rematchable(id) {
			blocks++
		}
	}
	return blocks, blocks <= m.host.numFree
}

// rematchable says whether a block need not be copied: others hold it, and the
// prefix index finds it.
func (m *Manager) rematchable(id BlockID) bool {
	return m.blocks[id].published && m.blocks[id].refs > 1
}

// moved is a block that SwapOut or SwapIn moves: its id there, its entry of the table.
type moved struct{ from, entry int32 }

// sortOrder puts what moves in the order of its ids, and not of the table, so that what
// lies together comes to lie together, whichever way round: a run of blocks is one copy.
func (m *Manager) sortOrder() {
	byID := func(a, b moved) int { return cmp.Compare(a.from, b.from) }
	if !slices.IsSortedFunc(m.order, byID) {
		slices.SortFunc(m.order, byID)
	}
}

// SwapOut moves the table's content to the host: h, empty before, gets an entry
// for each block of the computed tokens, t is emptied, and the copies to perform
// are appended, in the order of the ids. Shared published blocks are not copied.
// The blocks named by copies stay in flight, handed out to nobody, until Copied
// reports them. The caller asked CanSwapOut.
func (m *Manager) SwapOut(t *BlockTable, h *HostTable, computed int, copies []Copy) []Copy {
	if len(h.ids) != 0 {
		panic(fmt.Sprintf("kvcache: SwapOut to a host table of %d entries", len(h.ids)))
	}
	// First every claim, then every move: a block that is freed here must not
	// be taken here.
	m.order = m.order[:0]
	for i, id := range t.ids[:m.BlocksFor(computed)] {
		h.ids = append(h.ids, dropped)
		if !m.rematchable(id) {
			m.order = append(m.order, moved{int32(id), int32(i)})
		}
	}
	m.sortOrder()
	for _, o := range m.order {
		host := m.host.take()
		h.ids[o.entry] = host
		copies = append(copies, Copy{Src: o.from, Dst: int32(host)})
		m.blocks[o.from].copies++
		m.host.blocks[host].copies++
	}
	h.era = t.era
	m.Release(t)
	return copies
}

// SwapIn gives an empty table blocks for all of tokens, of which the first
// computed had KV when the sequence left: the longest published prefix, then what
// h holds on the host, as far as it continues that prefix. It returns the tokens
// whose KV is there once the appended copies, if any, are reported by Copied. h
// is empty then. ok is false, and nothing has changed, when fewer than reserve
// blocks would remain free.
func (m *Manager) SwapIn(t *BlockTable, h *HostTable, tokens []int32, salt string, computed, reserve int, copies []Copy) (_ []Copy, usable int, ok bool) {
	if len(t.ids) != 0 || computed >= len(tokens) {
		panic(fmt.Sprintf("kvcache: SwapIn of %d computed of %d tokens to a table of %d blocks", computed, len(tokens), len(t.ids)))
	}
	m.matchPrefix(t, tokens, salt)
	hits := t.hashed
	if !m.claim(t, len(tokens), reserve) {
		return copies, 0, false
	}
	end := hits
	m.order = m.order[:0]
	for end < len(h.ids) && h.ids[end] != dropped {
		m.order = append(m.order, moved{int32(h.ids[end]), int32(end)})
		end++
	}
	m.sortOrder()
	m.fresh = append(m.fresh[:0], t.ids[hits:end]...) // nothing is in them yet: any may be any entry's
	slices.Sort(m.fresh)
	for i, o := range m.order {
		id := m.fresh[i]
		t.ids[o.entry] = id
		copies = append(copies, Copy{Src: o.from, Dst: int32(id)})
		m.blocks[id].copies++
		m.host.blocks[o.from].copies++
	}
	m.DropHost(h)
	usable, t.era = hits*m.cfg.BlockSize, m.era
	if end > hits {
		usable, t.era = min(computed, end*m.cfg.BlockSize), h.era
	}
	return copies, usable, true
}

// DropHost gives up what a sequence has on the host.
func (m *Manager) DropHost(h *HostTable) {
	for _, id := range h.ids {
		if id != dropped {
			m.host.drop(id)
		}
	}
	h.ids = h.ids[:0]
}

// Copied reports copies of SwapOut (out) or SwapIn as finished: what they named
// and nobody holds any more is free.
func (m *Manager) Copied(copies []Copy, out bool) {
	for _, c := range copies {
		device, host := BlockID(c.Src), HostID(c.Dst)
		if !out {
			device, host = BlockID(c.Dst), HostID(c.Src)
		}
		b := &m.blocks[device]
		if b.copies == 0 {
			panic(fmt.Sprintf("kvcache: block %d was not being copied", device))
		}
		if b.copies--; b.copies == 0 && b.refs == 0 {
			m.flies(device, -1)
			m.release(device)
		}
		m.host.copied(host)
	}
}
