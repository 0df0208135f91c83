package bench

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxEvent bounds one event, so that a server gone wrong does not fill the memory.
const maxEvent = 16 << 20

// eventReader reads the data of server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html): lines end in
// \n, \r\n or \r; those that begin with "data:" make up the data, an empty one ends
// the event; comments and other fields are skipped.
type eventReader struct {
	in   *bufio.Reader
	data []byte
	line []byte
	some bool // the event has a data field, which may be empty
	skip bool // a \n that belongs to the \r before it
}

func newEventReader(r io.Reader) *eventReader {
	return &eventReader{in: bufio.NewReaderSize(r, 16<<10)}
}

// next gives the data of the next event, valid until the call after. A stream that
// ends inside an event loses that, as the standard has it.
func (e *eventReader) next() ([]byte, error) {
	e.data, e.some = e.data[:0], false
	for {
		line, err := e.readLine()
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			if e.some {
				return e.data, nil
			}
			continue
		}
		value, ok := bytes.CutPrefix(line, []byte("data"))
		if !ok || len(value) > 0 && value[0] != ':' {
			continue
		}
		if len(value) > 0 {
			value = bytes.TrimPrefix(value[1:], []byte(" "))
		}
		if e.some {
			e.data = append(e.data, '\n')
		}
		if e.data, e.some = append(e.data, value...), true; len(e.data) > maxEvent {
			return nil, errors.New("an event of more than 16 MiB")
		}
	}
}

// readLine reads to the end of a line. A \r ends it at once: waiting for the \n
// that may follow would delay the event.
func (e *eventReader) readLine() ([]byte, error) {
	e.line = e.line[:0]
	for {
		// What is there is looked at without waiting for more.
		if _, err := e.in.Peek(1); err != nil {
			return nil, err
		}
		there, _ := e.in.Peek(e.in.Buffered())
		if e.skip {
			e.skip = false
			if there[0] == '\n' {
				_, _ = e.in.Discard(1) // it is there
				continue
			}
		}
		end := bytes.IndexAny(there, "\r\n")
		if end < 0 {
			e.line = append(e.line, there...)
			_, _ = e.in.Discard(len(there))
			if len(e.line) > maxEvent {
				return nil, errors.New("a line of more than 16 MiB")
			}
			continue
		}
		e.line = append(e.line, there[:end]...)
		e.skip = there[end] == '\r'
		_, _ = e.in.Discard(end + 1)
		return e.line, nil
	}
}
