package server

import (
	"bytes"
	"net/http"
	"strconv"
)

// Bounds of /debug/steps.
const (
	defaultSteps = 100
	mostSteps    = 4096 // about what an engine keeps
)

// handleSteps answers with the records of the last steps as JSON lines, oldest
// first: an engine.StepRecord each. pagoda trace --url reads them. They name
// sequences by number and hold no text and no tokens.
func (s *Server) handleSteps(w http.ResponseWriter, req *http.Request) {
	n := defaultSteps
	if text := req.URL.Query().Get("n"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			s.writeError(w, badField("n", "must be a number of steps, at least 1"))
			return
		}
	}
	records := s.engine.Steps(min(n, mostSteps))
	w.Header().Set("Content-Type", "application/jsonl")
	out := newPacedWriter(w, s.writeTimeout)
	var line bytes.Buffer
	for i := range records {
		line.Reset()
		if _, err := out.Write(encodeJSON(&line, &records[i])); err != nil {
			s.log.Debug("client went away", "err", err)
			return
		}
	}
	out.done()
}
