package server

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"
)

// pacedWriter writes to a client that has writeTimeout to take each piece; one
// that does not is cut. The deadline is renewed once a second at most, since
// that costs a timer.
type pacedWriter struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
	renewed time.Time
}

func newPacedWriter(w http.ResponseWriter, timeout time.Duration) *pacedWriter {
	return &pacedWriter{w: w, rc: http.NewResponseController(w), timeout: timeout}
}

// Write implements io.Writer.
func (p *pacedWriter) Write(data []byte) (int, error) {
	written := 0
	for written < len(data) {
		if now := time.Now(); now.Sub(p.renewed) > min(time.Second, p.timeout/2) {
			// Not every writer has deadlines (a recorder in a test has none).
			_ = p.rc.SetWriteDeadline(now.Add(p.timeout))
			p.renewed = now
		}
		n, err := p.w.Write(data[written:min(written+writePiece, len(data))])
		if written += n; err != nil {
			return written, err
		}
	}
	return written, nil
}

// done gives the connection back without a deadline.
func (p *pacedWriter) done() { _ = p.rc.SetWriteDeadline(time.Time{}) }

// writeJSON answers with v.
func (s *Server) writeJSON(w http.ResponseWriter, status int, v any) {
	body := encodeJSON(new(bytes.Buffer), v)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	out := newPacedWriter(w, s.writeTimeout)
	if _, err := out.Write(body); err != nil {
		s.log.Debug("client went away", "err", err)
		return
	}
	out.done()
}

// encodeJSON appends v and a newline to buf. Every type here can be encoded: the
// numbers are finite.
func encodeJSON(buf *bytes.Buffer, v any) []byte {
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic("server: response cannot be encoded: " + err.Error())
	}
	return buf.Bytes()
}

// eventWriter writes server-sent events. The headers go out with the first one.
type eventWriter struct {
	*pacedWriter
	buf     bytes.Buffer
	started bool
}

func (s *Server) newEventWriter(w http.ResponseWriter) *eventWriter {
	return &eventWriter{pacedWriter: newPacedWriter(w, s.writeTimeout)}
}

// named writes v as one event that has a name.
func (e *eventWriter) named(name string, v any) error {
	e.buf.Reset()
	e.buf.WriteString("event: " + name + "\ndata: ")
	encodeJSON(&e.buf, v)
	e.buf.WriteByte('\n')
	return e.send()
}

// event writes v as one event and flushes it to the client.
func (e *eventWriter) event(v any) error {
	e.buf.Reset()
	e.buf.WriteString("data: ")
	encodeJSON(&e.buf, v)
	e.buf.WriteByte('\n') // the encoder wrote one; the empty line ends the event
	return e.send()
}

// encoded writes one event whose JSON is there already.
func (e *eventWriter) encoded(data []byte) error {
	e.buf.Reset()
	e.buf.WriteString("data: ")
	e.buf.Write(data)
	e.buf.WriteString("\n\n")
	return e.send()
}

// comment writes what readers skip.
func (e *eventWriter) comment() error {
	e.buf.Reset()
	e.buf.WriteString(":\n\n")
	return e.send()
}

// end writes the last event of OpenAI's protocol.
func (e *eventWriter) end() error {
	e.buf.Reset()
	e.buf.WriteString("data: [DONE]\n\n")
	err := e.send()
	if err == nil {
		e.done()
	}
	return err
}

func (e *eventWriter) send() error {
	if !e.started {
		h := e.w.Header()
		h.Set("Content-Type", "text/event-stream; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no") // nginx would collect the events
		e.w.WriteHeader(http.StatusOK)
		e.started = true
	}
	if _, err := e.Write(e.buf.Bytes()); err != nil {
		return err
	}
	return e.rc.Flush()
}
