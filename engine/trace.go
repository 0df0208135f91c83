package engine

import (
	"io"
	"log/slog"
	"time"

	"github.com/pagoda-engine/pagoda/scheduler"
)

// trace writes the decision trace. nil = there is none. What is buffered is
// flushed when the engine has nothing to do and at its end.
type trace struct {
	w      *scheduler.TraceWriter
	failed bool
}

func newTrace(w io.Writer) *trace {
	if w == nil {
		return nil
	}
	start := time.Now()
	return &trace{w: scheduler.NewTraceWriter(w, 0, func() time.Duration { return time.Since(start) })}
}

// hook is scheduler.Config.Trace.
func (t *trace) hook() func(*scheduler.TraceLine) {
	if t == nil {
		return nil
	}
	return t.w.Line
}

// flush says once that the trace broke off.
func (t *trace) flush(log *slog.Logger) {
	if t == nil || t.failed {
		return
	}
	if err := t.w.Flush(); err != nil {
		t.failed = true
		log.Error("the decision trace ends here; serving goes on", "lines", t.w.Lines(), "error", err)
	}
}
