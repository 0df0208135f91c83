//go:build cuda

package cuda

import (
	"fmt"
	"unsafe"

	"github.com/pagoda-engine/pagoda/kernels"
)

// UpdateRows implements kernels.Backend. The updates travel with the next step's
// message; penalty state, which is rebuilt from ids, is made at once.
func (b *Backend) UpdateRows(list []kernels.RowUpdate) {
	if len(list) == 0 || b.err != nil {
		return
	}
	b.flush()
	for i := range list {
		u := &list[i]
		b.checkUpdate(u)
		if !b.updates.fits(u) {
			b.sendUpdates()
		}
		if u.Reset {
			if len(u.Sampling.StopIDs) > maxStopIDs || len(u.Sampling.LogitBias) > maxBias {
				b.fail("update", fmt.Errorf("row %d: %d stop ids and %d biases, there is room for %d and %d", u.Row, len(u.Sampling.StopIDs), len(u.Sampling.LogitBias), maxStopIDs, maxBias))
				return
			}
			b.tableLen[u.Row] = 0
			b.updates.reset(u.Row, &u.Sampling, b.shape.Vocab)
			if u.Sampling.UsesPenalties() {
				b.rebuildCounts(u)
			}
		}
		b.setBlocks(u)
	}
}

func (b *Backend) checkUpdate(u *kernels.RowUpdate) {
	b.checkRow(u.Row)
	if !u.Reset {
		return
	}
	if int(u.Sampling.Logprobs) > b.limits.MaxTopLogprobs {
		panic(fmt.Sprintf("cuda: row %d: %d logprobs, MaxTopLogprobs is %d", u.Row, u.Sampling.Logprobs, b.limits.MaxTopLogprobs))
	}
	if u.Sampling.UsesPenalties() {
		for _, ids := range [][]int32{u.Prompt, u.Output} {
			for _, id := range ids {
				b.checkID(id)
			}
		}
	}
}

// setBlocks writes the update's blocks, after which the table ends.
func (b *Backend) setBlocks(u *kernels.RowUpdate) {
	if len(u.Blocks) == 0 {
		return
	}
	room := int(b.ws.batch.tableStride)
	first, end, have := int(u.FirstBlock), int(u.FirstBlock)+len(u.Blocks), int(b.tableLen[u.Row])
	if first < 0 || first > have || end > room {
		panic(fmt.Sprintf("cuda: row %d: blocks for entries %d to %d of a table that has %d and room for %d", u.Row, first, end, have, room))
	}
	for _, block := range u.Blocks {
		if block < 1 || int(block) >= b.pool.blocks {
			panic(fmt.Sprintf("cuda: row %d: block %d, want 1 to %d", u.Row, block, b.pool.blocks-1))
		}
	}
	b.updates.blocks(u, room)
	b.tableLen[u.Row] = int32(end)
}

// sendUpdates sends what waits without a step, through the slot that the next
// step will use.
func (b *Backend) sendUpdates() {
	s := &b.steps[int(b.issued)%stepRing]
	if s.used {
		b.fail("update", s.end.Sync())
	}
	s.used = true
	s.message.start()
	b.updates.take(&s.message)
	b.send(&s.message, false)
	b.fail("update", s.end.Record(&b.compute))
}

// rebuildCounts makes a row's penalty state. The copy of ids from the caller's
// memory is staged by the driver before it returns.
func (b *Backend) rebuildCounts(u *kernels.RowUpdate) {
	stride := countStride(b.shape.Vocab)
	counts := b.ws.counts + ptr(2*stride*int(u.Row))
	b.fail("update", b.compute.Clear(counts, int64(2*stride)))
	count := func(ids []int32, prompt bool) {
		for len(ids) > 0 { // in parts that the scratch holds
			n := min(len(ids), b.limits.MaxModelLen)
			b.fail("update", b.compute.ToDevice(b.ws.ids, unsafe.Pointer(&ids[0]), 4*n))
			p := countsParams{ids: b.ws.ids, counts: counts, total: int32(n)}
			if prompt {
				p.prompt = p.total
			}
			b.launch("update", planCounts(n), unsafe.Pointer(&p))
			ids = ids[n:]
		}
	}
	count(u.Prompt, true)
	count(u.Output, false)
}
