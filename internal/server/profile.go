package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
)

// ProfileConfig says whether clients may record profiles, and bounds them. They are
// off with an empty Dir.
type ProfileConfig struct {
	Dir           string        // where traces go
	Steps         int           // most steps of a profile; default 12
	Time          time.Duration // longest time of a profile; 0 = the engine's default
	MaxTraceBytes int64         // of a trace; later steps are left out; 0 = any size
}

// Recording is a profile under way; *engine.Recording is one.
type Recording interface {
	// Done is closed when the profile has ended.
	Done() <-chan struct{}
	// Stop ends the profile, if it has not ended, and returns it.
	Stop() *engine.Profile
}

// profiling is the profile that was asked for last. Its trace is written as soon
// as it has ended, by itself or by /stop_profile; requests go on meanwhile.
type profiling struct {
	mu     sync.Mutex
	last   Recording // nil = none yet
	saved  chan struct{}
	result profileResult // once saved is closed
	err    error
}

// profileResult is the answer of /stop_profile.
type profileResult struct {
	Trace string            `json:"trace"`
	Steps int               `json:"steps"`
	Ended engine.ProfileEnd `json:"ended"`
	Notes []string          `json:"notes,omitempty"`
}

// profileStart is the body of /start_profile, which may be empty. Its field is
// SGLang's; vLLM sends none.
type profileStart struct {
	NumSteps *int `json:"num_steps"`
}

const (
	defaultProfileSteps = 12
	maxProfileBody      = 4 << 10
)

// profilingOff is the answer where profiles were not turned on.
func (s *Server) profilingOff(w http.ResponseWriter) bool {
	if s.profile.Dir != "" {
		return false
	}
	s.writeError(w, &apiError{status: http.StatusNotFound, kind: typeInvalidRequest,
		message: `profiling is off: start the server with --profile-dir DIR, or --profiler-config '{"profiler":"torch","torch_profiler_dir":"DIR"}'`})
	return true
}

// handleStartProfile begins to record. The profile ends by itself after a bounded
// number of steps.
func (s *Server) handleStartProfile(w http.ResponseWriter, req *http.Request) {
	if s.profilingOff(w) {
		return
	}
	if err := s.notReady(); err != nil {
		s.writeError(w, err)
		return
	}
	options := engine.ProfileOptions{Steps: s.profile.Steps, Time: s.profile.Time}
	body, err := io.ReadAll(io.LimitReader(req.Body, maxProfileBody))
	if err != nil {
		s.writeError(w, badRequest("the body could not be read: %v", err))
		return
	}
	if len(body) > 0 {
		var start profileStart
		if err := json.Unmarshal(body, &start); err != nil {
			s.writeError(w, badRequest("the body must be empty or like {\"num_steps\": 4}: %v", err))
			return
		}
		if n := start.NumSteps; n != nil {
			if *n < 1 || *n > options.Steps {
				s.writeError(w, badField("num_steps", "is %d, want 1 to %d; --profile-steps allows more", *n, options.Steps))
				return
			}
			options.Steps = *n
		}
	}
	s.profiles.mu.Lock()
	defer s.profiles.mu.Unlock()
	recording, err := s.engine.StartProfile(req.Context(), options)
	switch {
	case errors.Is(err, engine.ErrProfiling):
		s.writeError(w, &apiError{status: http.StatusConflict, kind: typeInvalidRequest, message: "a profile is being recorded already: POST /stop_profile ends it"})
		return
	case err != nil:
		s.writeError(w, s.mapError(err, ""))
		return
	}
	p := &s.profiles
	p.last, p.saved = recording, make(chan struct{})
	go s.saveProfile(recording, p.saved)
	s.writeJSON(w, http.StatusOK, map[string]string{"status": "recording"})
}

// saveProfile writes the trace of a profile once it has ended.
func (s *Server) saveProfile(recording Recording, saved chan struct{}) {
	<-recording.Done()
	profile := recording.Stop()
	path, err := profile.Save(s.profile.Dir, s.profile.MaxTraceBytes)
	if err != nil {
		s.log.Warn("no trace of the profile", "err", err)
	} else {
		s.log.Info("profile written", "trace", path, "steps", len(profile.Steps), "ended", profile.Ended)
	}
	p := &s.profiles
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.saved == saved {
		p.result, p.err = profileResult{path, len(profile.Steps), profile.Ended, profile.Notes}, err
	}
	close(saved)
}

// finishProfile ends the profile that is being recorded, if any, and waits for its
// trace. An engine that hangs would never answer: its profile is lost.
func (s *Server) finishProfile() {
	if s.wedged(time.Now()) != nil {
		return
	}
	p := &s.profiles
	p.mu.Lock()
	recording, saved := p.last, p.saved
	p.mu.Unlock()
	if recording != nil {
		recording.Stop()
		<-saved
	}
}

// handleStopProfile ends the profile and answers when its trace is written; after
// one that ended by itself it tells of that.
func (s *Server) handleStopProfile(w http.ResponseWriter, _ *http.Request) {
	if s.profilingOff(w) {
		return
	}
	p := &s.profiles
	p.mu.Lock()
	started := p.last != nil
	p.mu.Unlock()
	if !started {
		s.writeError(w, badRequest("no profile was started: POST /start_profile does"))
		return
	}
	if err := s.wedged(time.Now()); err != nil {
		s.writeError(w, err)
		return
	}
	s.finishProfile()
	p.mu.Lock()
	result, err := p.result, p.err
	p.mu.Unlock()
	if err == nil {
		s.writeJSON(w, http.StatusOK, result)
		return
	}
	status := http.StatusInternalServerError
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		status = http.StatusInsufficientStorage
	}
	s.writeError(w, &apiError{status: status, kind: typeServer, message: fmt.Sprintf("no trace of the profile, requests go on: %v", err)})
}
