package scheduler

import (
	"cmp"
	"fmt"
	"slices"
)

// queue holds sequences in the order of precedence: priority if the policy has
// it, then arrival. Taking the head and appending at the end are O(1); the
// rest is a binary search and a move of pointers.
type queue struct {
	items    []*Sequence
	head     int // items before it were taken
	priority bool
}

// before is the order of precedence.
func (q *queue) before(a, b *Sequence) int {
	if q.priority && a.Priority != b.Priority {
		return cmp.Compare(a.Priority, b.Priority)
	}
	return cmp.Compare(a.ID, b.ID)
}

// all returns the sequences in order. The slice is the queue's own.
func (q *queue) all() []*Sequence { return q.items[q.head:] }

func (q *queue) len() int { return len(q.items) - q.head }

func (q *queue) front() *Sequence { return q.items[q.head] }

func (q *queue) last() *Sequence { return q.items[len(q.items)-1] }

func (q *queue) insert(s *Sequence) {
	i, _ := slices.BinarySearchFunc(q.all(), s, q.before)
	switch {
	case i == 0 && q.head > 0:
		q.head--
		q.items[q.head] = s
	case len(q.items) == cap(q.items) && q.head > 0:
		n := copy(q.items, q.all())
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
		fallthrough
	default:
		q.items = slices.Insert(q.items, q.head+i, s)
	}
}

// popFront takes the head.
func (q *queue) popFront() {
	q.items[q.head] = nil
	q.head++
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
}

// remove takes s out. It panics if s is not there: a sequence was lost.
func (q *queue) remove(s *Sequence) {
	i, found := slices.BinarySearchFunc(q.all(), s, q.before)
	if !found {
		panic(fmt.Sprintf("scheduler: sequence %d is not in its queue", s.ID))
	}
	if i == 0 {
		q.popFront()
	} else {
		q.items = slices.Delete(q.items, q.head+i, q.head+i+1)
	}
}
