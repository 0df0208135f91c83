package engine

// news is that the first tokens of a stream are there to be read.
type news struct {
	stream *Stream
	tokens int
}

// tell shows the tokens and wakes the reader.
func (n news) tell() {
	n.stream.show(n.tokens)
	n.stream.poke()
}

// waker tells the readers of a step's streams that there is something to read, in a goroutine
// of its own: to show one a token and to wake it takes about a microsecond, because the
// reader's processor has what must be written, which for hundreds of them would lie between
// two steps. So the engine's goroutine touches no stream of a request that goes on.
//
// News may come late: what Stream.finish has shown meanwhile stands.
type waker struct {
	told  chan []news // lists to go through
	spare chan []news // lists that were gone through
	ended chan struct{}
}

const (
	toldDirectly = 8 // readers that are not worth another goroutine's waking
	wakerLists   = 4
)

// start begins with the first step that has readers enough; lists have room for so many.
func (w *waker) start(most int) {
	w.told, w.spare, w.ended = make(chan []news, wakerLists), make(chan []news, wakerLists), make(chan struct{})
	for range wakerLists {
		w.spare <- make([]news, 0, most)
	}
	go func() {
		defer close(w.ended)
		for list := range w.told {
			w.spare <- tellAll(list)
		}
	}()
}

// tellAll tells a list, and returns its memory: streams are not kept.
func tellAll(list []news) []news {
	for _, n := range list {
		n.tell()
	}
	clear(list)
	return list[:0]
}

// tell has the readers of a list told, and returns memory for the next one. They are told
// at once where they are few, or the lists before are not done with.
func (w *waker) tell(list []news) []news {
	if len(list) <= toldDirectly {
		return tellAll(list)
	}
	if w.told == nil {
		w.start(cap(list))
	}
	select {
	case spare := <-w.spare:
		w.told <- list // has room for all lists
		return spare
	default:
		return tellAll(list)
	}
}

// close ends the waker when all are told.
func (w *waker) close() {
	if w.told != nil {
		close(w.told)
		<-w.ended
	}
}
