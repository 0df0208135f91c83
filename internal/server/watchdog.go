package server

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// ErrStalled is what Serve returns when the engine made no progress with work
// pending and the watchdog's policy is to exit. The engine hangs then: closing it
// may never return.
var ErrStalled = errors.New("the engine hangs")

// guard is the watchdog's look at the engine. The first one that finds it hanging
// writes a dump and, by policy, ends Serve; one that finds it running again allows
// for the next dump.
func (s *Server) guard(now time.Time) {
	err := s.wedged(now)
	switch {
	case err == nil:
		s.barked = false
		return
	case s.barked:
		return
	}
	s.barked = true
	s.log.Error(err.message, "dump", s.dump(err.message), "policy", map[bool]string{false: "wait", true: "exit"}[s.exitOnStall])
	if s.exitOnStall {
		s.stallOnce.Do(func() { close(s.stalled) })
	}
}

// dump writes the engine's state to a file for pagoda trace, and says where or why
// not. It holds ids and counts, no text and no tokens.
func (s *Server) dump(reason string) string {
	file, err := os.CreateTemp(s.dumpDir, fmt.Sprintf("pagoda-%d-%s-*.dump.jsonl", os.Getpid(), time.Now().Format("20060102T150405")))
	if err != nil {
		return fmt.Sprintf("not written, see --watchdog-dump-dir: %v", err)
	}
	if err := errors.Join(s.engine.Dump(file, reason), file.Close()); err != nil {
		return fmt.Sprintf("%s, incomplete: %v", file.Name(), err)
	}
	return file.Name()
}
