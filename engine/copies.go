package engine

import (
	"fmt"
	"time"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kvcache"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// transfer is a batch of swap copies on its way. The scheduler knows it by id and
// keeps its blocks out of circulation until it is reported.
type transfer struct {
	id     scheduler.TransferID
	ticket kernels.Ticket
	spent  *time.Duration // the counter of its direction
}

// move performs the copies of a step, before it is launched: out, in, then those
// on the device.
func (l *loop) move(out *scheduler.Output) {
	bytes := l.store.BlockBytes()
	if t := out.SwapOut; t.ID != 0 {
		l.transfers = append(l.transfers, transfer{t.ID, l.store.SwapOut(t.Copies), &l.stats.SwapOutTime})
		l.stats.SwapOutBytes += int64(len(t.Copies)) * bytes
	}
	if t := out.SwapIn; t.ID != 0 {
		l.transfers = append(l.transfers, transfer{t.ID, l.store.SwapIn(t.Copies), &l.stats.SwapInTime})
		l.stats.SwapInBytes += int64(len(t.Copies)) * bytes
	}
	l.store.Copy(out.Copies)
}

// arrive reports the copies that are finished to the scheduler. With wait it
// blocks until the oldest batch is.
func (l *loop) arrive(wait bool) {
	if l.fault != nil {
		return
	}
	kept := l.transfers[:0]
	for i, t := range l.transfers {
		took, done, err := l.copied(t.ticket, wait)
		if err != nil {
			l.fault = fmt.Errorf("%w: %w", ErrDevice, err)
			l.transfers = append(kept, l.transfers[i:]...)
			return
		}
		if wait = false; !done {
			kept = append(kept, t)
			continue
		}
		*t.spent += took
		l.sched.CopyDone(t.id, took)
	}
	l.transfers = kept
}

// copied asks the store, and lets go of the loop's state while it waits.
func (l *loop) copied(t kernels.Ticket, wait bool) (took time.Duration, done bool, err error) {
	if wait {
		l.hold.Unlock()
		defer l.hold.Lock()
	}
	return l.store.Done(t, wait)
}

// measureSwap times copies of free blocks out and in again, for the scheduler's
// first estimates. The first round touches the memory, the second is timed.
func measureSwap(store *kvcache.Store, device, host int) (out, in time.Duration, err error) {
	n := min(8, device-1, host)
	if n == 0 {
		return 0, 0, nil
	}
	there, back := make([]kvcache.Copy, n), make([]kvcache.Copy, n)
	for i := range there {
		block := int32(i + 1)
		there[i], back[i] = kvcache.Copy{Src: block, Dst: int32(i)}, kvcache.Copy{Src: int32(i), Dst: block}
	}
	for range 2 {
		if out, _, err = store.Done(store.SwapOut(there), true); err != nil {
			return 0, 0, err
		}
		if in, _, err = store.Done(store.SwapIn(back), true); err != nil {
			return 0, 0, err
		}
	}
	return out / time.Duration(n), in / time.Duration(n), nil
}
