package server

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Config configures a Server; the zero value of a field means its default.
type Config struct {
	// ModelNames are the ids in /v1/models, by any of which requests may ask for
	// the model. At least one.
	ModelNames []string
	// APIKeys are accepted as "Authorization: Bearer KEY" on /v1/; none = no key
	// is needed.
	APIKeys []string
	// AllowSpecialTokensInContent makes special-token text in messages control
	// tokens, as the reference implementation does. Clients can then forge turns.
	AllowSpecialTokensInContent bool
	// DrainTimeout is how long open requests may go on once Serve drains; default
	// 30 s.
	DrainTimeout time.Duration
	// Version is what /version says.
	Version string
	// Log receives what a person should know; nil = slog.Default().
	Log *slog.Logger
}

// Server answers HTTP requests. It is made by New and used by any number of
// goroutines.
type Server struct {
	engine       Engine
	info         Info
	tokenizer    Tokenizer // nil: token ids in and out only
	template     Template  // nil: no chat
	names        []string
	keys         [][sha256.Size]byte
	parseSpecial bool // in messages
	version      string
	created      int64 // Unix seconds
	log          *slog.Logger
	mux          *http.ServeMux
	metrics      *metrics

	drainTimeout  time.Duration
	headerTimeout time.Duration
	bodyTimeout   time.Duration
	writeTimeout  time.Duration

	draining    atomic.Bool   // no new requests
	aborting    atomic.Bool   // open ones are being cut
	meanSeconds atomic.Uint64 // float64 bits: mean duration of a request
}

// New returns a server of one engine. tokenizer and template may be nil: without
// a tokenizer only token ids are taken, without a template there is no chat.
func New(cfg Config, engine Engine, tokenizer Tokenizer, template Template) (*Server, error) {
	if len(cfg.ModelNames) == 0 {
		return nil, errors.New("server: ModelNames is empty")
	}
	if slices.Contains(cfg.ModelNames, "") || slices.Contains(cfg.APIKeys, "") {
		return nil, errors.New("server: ModelNames and APIKeys must not contain an empty string")
	}
	s := &Server{
		engine: engine, info: engine.Info(), tokenizer: tokenizer, template: template,
		names: cfg.ModelNames, parseSpecial: cfg.AllowSpecialTokensInContent, version: cfg.Version,
		created: time.Now().Unix(), log: cfg.Log,
		drainTimeout: cfg.DrainTimeout, headerTimeout: headerTimeout, bodyTimeout: bodyTimeout, writeTimeout: writeTimeout,
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.drainTimeout == 0 {
		s.drainTimeout = defaultDrainTimeout
	}
	for _, key := range cfg.APIKeys {
		s.keys = append(s.keys, sha256.Sum256([]byte(key)))
	}
	s.metrics = newMetrics(s.names[0], engine, s.info)
	s.mux = s.routes()
	return s, nil
}

// routes is the list of what the server answers.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", s.accepting(s.handleChat))
	mux.HandleFunc("POST /v1/completions", s.accepting(s.handleCompletions))
	mux.HandleFunc("GET /v1/models", s.handleModels)
	mux.HandleFunc("GET /v1/models/{id...}", s.handleModel)
	mux.HandleFunc("POST /tokenize", s.handleTokenize)
	mux.HandleFunc("POST /detokenize", s.handleDetokenize)
	mux.HandleFunc("GET /health", s.handleHealth)
	mux.HandleFunc("GET /ping", s.handleHealth)
	mux.HandleFunc("POST /ping", s.handleHealth)
	mux.HandleFunc("GET /version", s.handleVersion)
	mux.HandleFunc("GET /metrics", s.handleMetrics)
	mux.HandleFunc("POST /reset_prefix_cache", s.handleResetPrefixCache)
	mux.HandleFunc("GET /debug/steps", s.handleSteps)
	return mux
}

// Handler answers every route; Serve adds the limits of connections.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serveHTTP) }

const requestIDHeader = "X-Request-Id"

func (s *Server) serveHTTP(w http.ResponseWriter, req *http.Request) {
	id := req.Header.Get(requestIDHeader)
	if !validID(id) {
		id = newID()
	}
	w.Header().Set(requestIDHeader, id)
	tracked := &trackedWriter{ResponseWriter: w}
	defer s.recoverPanic(tracked, id)
	if req.ContentLength != 0 { // −1 = unknown
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.bodyTimeout))
	}
	if strings.HasPrefix(req.URL.Path, "/v1/") && !s.authorized(req) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		s.writeError(tracked, &apiError{status: http.StatusUnauthorized, kind: typeInvalidRequest, code: "invalid_api_key",
			message: "a valid API key is needed: Authorization: Bearer KEY"})
		return
	}
	if handler, pattern := s.mux.Handler(req); pattern == "" {
		s.writeError(tracked, noRoute(handler, tracked, req))
		return
	}
	s.mux.ServeHTTP(tracked, req)
}

// noRoute is the 404, or the 405 with its Allow header, that the mux answers in
// plain text.
func noRoute(handler http.Handler, w http.ResponseWriter, req *http.Request) *apiError {
	probe := &probeWriter{header: http.Header{}}
	handler.ServeHTTP(probe, req)
	if allow := probe.header.Get("Allow"); allow != "" {
		w.Header().Set("Allow", allow)
		return &apiError{status: http.StatusMethodNotAllowed, kind: typeInvalidRequest, message: "the method is not allowed here; allowed: " + allow}
	}
	return &apiError{status: http.StatusNotFound, kind: typeInvalidRequest, message: "there is nothing at this path"}
}

// accepting refuses bodies that are not JSON, and all requests while the server
// is not ready.
func (s *Server) accepting(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		if err := s.notReady(); err != nil {
			s.writeError(w, err)
			return
		}
		if header := req.Header.Get("Content-Type"); header != "" {
			media, _, err := mime.ParseMediaType(header)
			if err != nil || media != "application/json" && !strings.HasSuffix(media, "+json") {
				s.writeError(w, &apiError{status: http.StatusUnsupportedMediaType, kind: typeInvalidRequest, message: "Content-Type must be application/json"})
				return
			}
		}
		next(w, req)
	}
}

// notReady says why the server takes no requests; nil = it does.
func (s *Server) notReady() *apiError {
	select {
	case <-s.engine.Done():
		return unavailable("engine_closed", "the engine has stopped", 60)
	default:
	}
	if s.draining.Load() {
		return unavailable("draining", "the server is shutting down", int(min(max(s.drainTimeout.Seconds(), 1), 60)))
	}
	return nil
}

// authorized compares hashes, all of them: the time says nothing about a key.
func (s *Server) authorized(req *http.Request) bool {
	if len(s.keys) == 0 {
		return true
	}
	scheme, key, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(key))
	found := 0
	for i := range s.keys {
		found |= subtle.ConstantTimeCompare(sum[:], s.keys[i][:])
	}
	return found == 1 && strings.EqualFold(scheme, "Bearer")
}

// recoverPanic turns a bug in a handler into a 500 on that request alone.
func (s *Server) recoverPanic(w *trackedWriter, id string) {
	bug := recover()
	if bug == nil {
		return
	}
	if bug != http.ErrAbortHandler { //nolint:errorlint // the very value
		s.log.Error("panic in a handler", "id", id, "panic", fmt.Sprint(bug), "stack", string(debug.Stack()))
	}
	if w.wrote {
		panic(http.ErrAbortHandler) // cuts the connection: the answer is broken
	}
	s.writeError(w, &apiError{status: http.StatusInternalServerError, kind: typeServer, message: "internal error"})
}

// trackedWriter knows whether an answer has begun.
type trackedWriter struct {
	http.ResponseWriter
	wrote bool
}

// WriteHeader implements http.ResponseWriter.
func (t *trackedWriter) WriteHeader(status int) {
	t.wrote = true
	t.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (t *trackedWriter) Write(data []byte) (int, error) {
	t.wrote = true
	return t.ResponseWriter.Write(data)
}

// Unwrap is for http.ResponseController.
func (t *trackedWriter) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// probeWriter drops everything but the headers.
type probeWriter struct{ header http.Header }

// Header implements http.ResponseWriter.
func (p *probeWriter) Header() http.Header { return p.header }

// WriteHeader implements http.ResponseWriter.
func (p *probeWriter) WriteHeader(int) {}

// Write implements http.ResponseWriter.
func (p *probeWriter) Write(data []byte) (int, error) { return len(data), nil }

// newID is 128 random bits.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// validID says whether a client's request id may stand in headers and logs.
func validID(id string) bool {
	if id == "" || len(id) > maxNameBytes {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-_.:", c) >= 0:
		default:
			return false
		}
	}
	return true
}
