package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"

	"github.com/pagoda-engine/pagoda/engine"
)

// The type of an error, as OpenAI's clients know it.
const (
	typeInvalidRequest = "invalid_request_error"
	typeUnavailable    = "service_unavailable_error"
	typeServer         = "server_error"
)

// statusClientClosed is nginx's, and vLLM's, of a request whose client is gone.
const statusClientClosed = 499

// apiError is an answer other than success. It is written as
// {"error": {message, type, param, code}}.
type apiError struct {
	status     int
	kind       string
	message    string
	param      string // "" = null
	code       string // "" = null
	retryAfter int    // seconds; 0 = no header
}

// Error implements error.
func (e *apiError) Error() string {
	if e.param != "" {
		return e.param + ": " + e.message
	}
	return e.message
}

// MarshalJSON writes the body of the error.
func (e *apiError) MarshalJSON() ([]byte, error) {
	null := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	type body struct {
		Message string `json:"message"`
		Type    string `json:"type"`
		Param   any    `json:"param"`
		Code    any    `json:"code"`
	}
	return json.Marshal(map[string]body{"error": {e.message, e.kind, null(e.param), null(e.code)}})
}

// badField is a 400 that names a field.
func badField(param, format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, kind: typeInvalidRequest, param: param, message: param + " " + fmt.Sprintf(format, args...)}
}

// unsupported is a 400 for a field that would change the answer and that this
// server does not implement.
func unsupported(param, format string, args ...any) *apiError {
	e := badField(param, format, args...)
	e.code = "unsupported_parameter"
	return e
}

// badRequest is a 400 about the request as a whole.
func badRequest(format string, args ...any) *apiError {
	return &apiError{status: http.StatusBadRequest, kind: typeInvalidRequest, message: fmt.Sprintf(format, args...)}
}

// unavailable is a 503; the client may try again.
func unavailable(code, message string, retryAfter int) *apiError {
	return &apiError{status: http.StatusServiceUnavailable, kind: typeUnavailable, code: code, message: message, retryAfter: retryAfter}
}

// tooLong is the 400 for a prompt that leaves no room for what was asked.
func tooLong(param string, prompt, maxTokens, limit int) *apiError {
	e := &apiError{status: http.StatusBadRequest, kind: typeInvalidRequest, param: param, code: "context_length_exceeded"}
	e.message = fmt.Sprintf("this model's maximum context length is %d tokens, but the prompt has %d tokens", limit, prompt)
	if maxTokens > 0 {
		e.message += fmt.Sprintf(" and %d more were asked for (%d in all)", maxTokens, prompt+maxTokens)
	} else {
		e.message += ", which leaves no room for an answer"
	}
	return e
}

// errStreamEnded: the engine ended a stream without a last event.
var errStreamEnded = errors.New("engine ended the stream without a finish reason")

// mapError turns an error of the engine into an answer. This is the only place
// that does.
func (s *Server) mapError(err error, promptParam string) *apiError {
	var api *apiError
	var invalid *engine.InvalidError
	switch {
	case errors.As(err, &api):
		return api
	case errors.As(err, &invalid):
		return badField(invalid.Param, "%s", invalid.Reason)
	case errors.Is(err, engine.ErrTooLong):
		return &apiError{status: http.StatusBadRequest, kind: typeInvalidRequest, param: promptParam, code: "context_length_exceeded", message: err.Error()}
	case errors.Is(err, engine.ErrNeverFits):
		return &apiError{status: http.StatusBadRequest, kind: typeInvalidRequest, param: promptParam, code: "kv_cache_exceeded", message: err.Error()}
	case errors.Is(err, engine.ErrMaskLate):
		return unavailable("mask_late", err.Error(), s.retryAfter())
	case errors.Is(err, engine.ErrConstraint):
		return constraintFailed(err)
	case errors.Is(err, engine.ErrInvalid):
		return badRequest("%s", err.Error())
	case errors.Is(err, engine.ErrQueueFull):
		return unavailable("queue_full", "too many requests are waiting, try again later", s.retryAfter())
	case errors.Is(err, engine.ErrClosed):
		return unavailable("engine_closed", "the engine has stopped", 60)
	case errors.Is(err, context.Canceled):
		return s.cancelled()
	}
	return &apiError{status: http.StatusInternalServerError, kind: typeServer, message: "the engine failed on this request"}
}

// cancelled is the answer to a request whose context ended before anything was generated: the server is
// being stopped, or the client is gone, and then it is for the metrics and for one that has closed its half alone.
func (s *Server) cancelled() *apiError {
	if s.aborting.Load() {
		return s.mapError(engine.ErrClosed, "")
	}
	return &apiError{status: statusClientClosed, kind: typeInvalidRequest, message: "the client closed the connection before the answer was there"}
}

// retryAfter estimates in seconds, 1–60, when the queue has moved: those that
// wait, at the pace at which those that run end. A request takes the mean number
// of steps, each as long as the engine's step-time model says; without a model, the
// mean time.
func (s *Server) retryAfter() int {
	st := s.engine.Stats()
	s.meanMu.Lock()
	each := s.meanSeconds
	if st.PredictedStep > 0 {
		each = s.meanTokens * st.PredictedStep.Seconds()
	}
	s.meanMu.Unlock()
	wait := each * float64(st.Waiting) / float64(max(1, st.Running))
	return int(math.Ceil(min(max(wait, 1), 60)))
}

// observeLength moves the means over requests, exponential averages.
func (s *Server) observeLength(tokens int, seconds float64) {
	const weight = 0.1
	s.meanMu.Lock()
	defer s.meanMu.Unlock()
	if s.meanSeconds == 0 {
		s.meanSeconds, s.meanTokens = seconds, float64(tokens)
		return
	}
	s.meanSeconds += weight * (seconds - s.meanSeconds)
	s.meanTokens += weight * (float64(tokens) - s.meanTokens)
}

// writeError answers with e; nothing may have been written before.
func (s *Server) writeError(w http.ResponseWriter, e *apiError) {
	if e.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.retryAfter))
	}
	if t, ok := w.(*trackedWriter); ok && t.anthropic {
		s.writeJSON(w, e.status, anthropicError{e, w.Header().Get(requestIDHeader)})
		return
	}
	s.writeJSON(w, e.status, e)
}
