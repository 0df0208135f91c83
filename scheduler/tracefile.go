package scheduler

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrTraceFull is a TraceWriter's error once its limit is reached. What it wrote
// until then is a whole trace.
var ErrTraceFull = errors.New("the trace has reached its size limit")

// TraceWriter writes a trace as JSON lines. Line suits Config.Trace; the first
// error sticks, and nothing is written after it. It belongs to the Scheduler's
// goroutine.
type TraceWriter struct {
	w     *bufio.Writer
	now   func() time.Duration
	buf   bytes.Buffer
	enc   *json.Encoder
	left  int64
	lines int64
	err   error
}

// NewTraceWriter writes at most limit bytes to w, 0 = no limit. now stamps the
// lines: the time since any fixed moment; nil = none.
func NewTraceWriter(w io.Writer, limit int64, now func() time.Duration) *TraceWriter {
	t := &TraceWriter{w: bufio.NewWriterSize(w, 1<<16), now: now, left: limit}
	if limit == 0 {
		t.left = 1<<63 - 1
	}
	t.enc = json.NewEncoder(&t.buf)
	t.enc.SetEscapeHTML(false)
	return t
}

// Line writes one line.
func (t *TraceWriter) Line(l *TraceLine) {
	if t.err != nil {
		return
	}
	if t.now != nil {
		l.At = t.now()
	}
	t.buf.Reset()
	if t.err = t.enc.Encode(l); t.err != nil {
		return
	}
	if t.left -= int64(t.buf.Len()); t.left < 0 {
		t.err = ErrTraceFull
		return
	}
	_, t.err = t.w.Write(t.buf.Bytes())
	t.lines++
}

// Lines is the number of lines written.
func (t *TraceWriter) Lines() int64 { return t.lines }

// Flush hands what is buffered to the writer, lines before an ErrTraceFull
// included, and returns the error that stuck.
func (t *TraceWriter) Flush() error {
	if err := t.w.Flush(); t.err == nil {
		t.err = err
	}
	return t.err
}

// maxTraceLine bounds a line in bytes: a prompt of ten million tokens.
const maxTraceLine = 1 << 26

// TraceReader reads a trace.
type TraceReader struct {
	scan *bufio.Scanner
	line int
	cut  bool // the last line has no end
}

// NewTraceReader reads a trace from r.
func NewTraceReader(r io.Reader) *TraceReader {
	t := &TraceReader{scan: bufio.NewScanner(r)}
	t.scan.Buffer(make([]byte, 1<<16), maxTraceLine)
	t.scan.Split(t.split)
	return t
}

// split is bufio.ScanLines that notes a line without an end.
func (t *TraceReader) split(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		t.cut = true
		return len(data), data, nil
	}
	return 0, nil, nil
}

// Next returns the next line; io.EOF after the last one. A last line that was cut
// off, as by a process that was killed, is an io.ErrUnexpectedEOF. Every error but
// io.EOF names the line.
func (t *TraceReader) Next() (*TraceLine, error) {
	if !t.scan.Scan() {
		if err := t.scan.Err(); err != nil {
			return nil, fmt.Errorf("trace line %d: %w", t.line+1, err)
		}
		return nil, io.EOF
	}
	t.line++
	l := &TraceLine{}
	dec := json.NewDecoder(bytes.NewReader(t.scan.Bytes()))
	dec.DisallowUnknownFields()
	err := dec.Decode(l)
	if err == nil && dec.More() {
		err = errors.New("more than one value")
	}
	if err == nil {
		err = l.check(t.line == 1)
	}
	switch {
	case err != nil && t.cut:
		return nil, fmt.Errorf("trace line %d is cut off: %w", t.line, io.ErrUnexpectedEOF)
	case err != nil:
		return nil, fmt.Errorf("trace line %d: %w", t.line, err)
	}
	return l, nil
}

// Line is the number of the line that Next returned last, from 1 on.
func (t *TraceReader) Line() int { return t.line }

// check verifies that the line is one thing, and a Config the first of all.
func (l *TraceLine) check(first bool) error {
	set := 0
	for _, is := range []bool{
		l.Config != nil, l.Submit != nil, l.Abort != 0, l.Limits != nil, l.CopyDone != nil, l.ResetPrefixCache,
		l.Borrow != 0, l.GiveBack, l.Update != nil, l.Record != nil,
	} {
		if is {
			set++
		}
	}
	switch {
	case set != 1:
		return fmt.Errorf("it holds %d inputs or records, want one", set)
	case first && l.Config == nil:
		return errors.New("a trace begins with its configuration: this one does not hold the run from its start")
	case !first && l.Config != nil:
		return errors.New("a configuration in the middle of a trace")
	case l.Config != nil && l.Config.Version != TraceVersion:
		return fmt.Errorf("the trace has version %d, this program reads version %d", l.Config.Version, TraceVersion)
	}
	return nil
}
