package engine

// waker tells the readers of a step's streams that there is something to read, in a goroutine
// of its own: waking one takes about a microsecond, which for hundreds of them would lie
// between two steps.
type waker struct {
	told  chan []*Stream // lists to go through
	spare chan []*Stream // lists that were gone through
	ended chan struct{}
}

const (
	wokenDirectly = 32 // readers that are not worth another goroutine's waking
	wakerLists    = 2
)

// start begins with the first step that has readers enough.
func (w *waker) start() {
	w.told, w.spare, w.ended = make(chan []*Stream, wakerLists), make(chan []*Stream, wakerLists), make(chan struct{})
	for range wakerLists {
		w.spare <- []*Stream{}
	}
	go func() {
		defer close(w.ended)
		for list := range w.told {
			for _, s := range list {
				s.poke()
			}
			clear(list) // streams are not kept
			w.spare <- list[:0]
		}
	}()
}

// list is memory for the streams of so many readers; nil where they are woken at once: few,
// or the lists before are not done with.
func (w *waker) list(readers int) []*Stream {
	if readers <= wokenDirectly {
		return nil
	}
	if w.told == nil {
		w.start()
	}
	select {
	case list := <-w.spare:
		return list
	default:
		return nil
	}
}

// wake has the readers of a list woken.
func (w *waker) wake(list []*Stream) { w.told <- list }

// close ends the waker when all are woken.
func (w *waker) close() {
	if w.told != nil {
		close(w.told)
		<-w.ended
	}
}
