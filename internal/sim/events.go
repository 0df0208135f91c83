package sim

import (
	"container/heap"
	"time"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// event is something that will happen: a copy is done, a request arrives, or one
// is aborted if it is still open.
type event struct {
	at       time.Duration
	order    int64 // of pushing, among equal times
	transfer scheduler.TransferID
	took     time.Duration
	arrival  *arrival
	request  *request
}

// events is a queue in the order of time.
type events struct {
	heap   eventHeap
	pushed int64
}

func (e *events) push(v event) {
	e.pushed++
	v.order = e.pushed
	heap.Push(&e.heap, v)
}

func (e *events) pop() event { return heap.Pop(&e.heap).(event) }

func (e *events) peek() (time.Duration, bool) {
	if len(e.heap) == 0 {
		return 0, false
	}
	return e.heap[0].at, true
}

type eventHeap []event

// Len implements heap.Interface.
func (h eventHeap) Len() int { return len(h) }

// Less implements heap.Interface.
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].order < h[j].order
}

// Swap implements heap.Interface.
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *eventHeap) Push(v any) { *h = append(*h, v.(event)) }

// Pop implements heap.Interface.
func (h *eventHeap) Pop() any {
	old := *h
	v := old[len(old)-1]
	old[len(old)-1] = event{}
	*h = old[:len(old)-1]
	return v
}
