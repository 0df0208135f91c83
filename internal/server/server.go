package server

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model/grammar"
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
	// 30 s, negative: not at all.
	DrainTimeout time.Duration
	// SaltCacheByKey gives each API key prefixes of its own in the cache, so that
	// one client cannot learn from times what another asked.
	SaltCacheByKey bool
	// StallTimeout is how long the engine may go without a step while there is work
	// before probes fail; default 120 s, and at least 20 times the last step.
	StallTimeout time.Duration
	// ExitOnStall lets Serve return ErrStalled then; otherwise it waits, not ready.
	ExitOnStall bool
	// DumpDir is where the engine's state is written when it hangs or fails; "" =
	// os.TempDir().
	DumpDir string
	// LogRequests writes a line for each request that ends; otherwise it is a debug
	// message. DisableLogStats leaves out the line every 5 s.
	LogRequests, DisableLogStats bool
	// Traces takes the spans of requests; nil = there are none.
	Traces Traces
	// DisableUI leaves out the page at /ui, and keeps nothing for it.
	DisableUI bool
	// Explain says in sentences what a step was, for the page; nil = it shows numbers
	// alone.
	Explain func(*engine.StepRecord) []string
	// Profile lets clients record profiles by /start_profile and /stop_profile.
	Profile ProfileConfig
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
	traces       Traces

	drainTimeout  time.Duration
	headerTimeout time.Duration
	bodyTimeout   time.Duration
	writeTimeout  time.Duration

	saltByKey             bool
	logRequests, logStats bool
	longestToken          int // bytes
	grammars              *grammar.Compiler
	specialTags           map[string]bool // tags of tool calls that are special tokens
	shortTexts, longTexts byteBudget      // that are encoded
	bodies                byteBudget      // that are not short
	scoring               byteBudget      // of one prompt at a time
	stall                 time.Duration
	progress              progress
	exitOnStall           bool
	dumpDir               string
	barked                bool          // guard's: this stall was dumped
	stalled               chan struct{} // closed when a stall ends Serve
	stallOnce             sync.Once
	load                  atomic.Int64 // generating requests that are open

	explain   func(*engine.StepRecord) []string
	live      live       // of the page
	inspector *inspector // nil: without the page
	profile   ProfileConfig
	profiles  profiling

	draining atomic.Bool // no new requests
	aborting atomic.Bool // open ones are being cut

	meanMu                  sync.Mutex // guards the means over requests
	meanSeconds, meanTokens float64
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
		created: time.Now().Unix(), log: cfg.Log, traces: cfg.Traces,
		saltByKey: cfg.SaltCacheByKey, logRequests: cfg.LogRequests, logStats: !cfg.DisableLogStats, stall: cfg.StallTimeout,
		exitOnStall: cfg.ExitOnStall, dumpDir: cfg.DumpDir, stalled: make(chan struct{}),
		profile:    cfg.Profile,
		shortTexts: byteBudget{total: encodingBytes}, longTexts: byteBudget{total: encodingBytes},
		bodies: byteBudget{total: bodyBytes}, scoring: byteBudget{total: 1},
		drainTimeout: cfg.DrainTimeout, headerTimeout: headerTimeout, bodyTimeout: bodyTimeout, writeTimeout: writeTimeout,
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.drainTimeout = max(cmp.Or(s.drainTimeout, defaultDrainTimeout), 0)
	if s.dumpDir == "" {
		s.dumpDir = os.TempDir()
	}
	if s.profile.Steps == 0 {
		s.profile.Steps = defaultProfileSteps
	}
	if s.stall == 0 {
		s.stall = defaultStall
	}
	s.longestToken = longestToken(tokenizer, s.info.VocabSize)
	if tokenizer != nil {
		s.grammars = grammar.NewCompiler(tokenizer, grammar.Limits{})
		s.specialTags = specialTags(tokenizer)
	}
	for _, key := range cfg.APIKeys {
		s.keys = append(s.keys, sha256.Sum256([]byte(key)))
	}
	s.metrics = newMetrics(s.names[0], engine, s.info)
	s.live.s, s.explain = s, cfg.Explain
	if !cfg.DisableUI {
		s.inspector = &inspector{}
	}
	s.mux = s.routes()
	return s, nil
}

// routes is the list of what the server answers.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/chat/completions", s.accepting(s.handleChat))
	mux.HandleFunc("POST /v1/completions", s.accepting(s.handleCompletions))
	mux.HandleFunc("POST /v1/responses", s.accepting(s.handleResponses))
	mux.HandleFunc("POST /v1/messages", s.accepting(s.handleMessages))
	mux.HandleFunc("POST /v1/messages/count_tokens", s.accepting(s.handleCountTokens))
	mux.HandleFunc("GET /v1/models", s.handleModels)
	mux.HandleFunc("GET /v1/models/{id...}", s.handleModel)
	mux.HandleFunc("POST /tokenize", s.handleTokenize)
	mux.HandleFunc("POST /detokenize", s.handleDetokenize)
	for _, route := range []string{"GET /health", "GET /ping", "POST /ping", "GET /readyz"} {
		mux.HandleFunc(route, s.handleReady)
	}
	mux.HandleFunc("GET /livez", s.handleLive)
	mux.HandleFunc("GET /load", s.handleLoad)
	mux.HandleFunc("GET /server_info", s.handleServerInfo)
	mux.HandleFunc("GET /tokenizer_info", s.handleTokenizerInfo)
	mux.HandleFunc("GET /version", s.handleVersion)
	mux.HandleFunc("GET /metrics", s.handleMetrics)
	mux.HandleFunc("POST /reset_prefix_cache", s.handleResetPrefixCache)
	mux.HandleFunc("POST /flush_cache", s.handleResetPrefixCache) // SGLang's name
	mux.HandleFunc("GET /is_sleeping", s.handleIsSleeping)
	mux.HandleFunc("GET /debug/steps", s.handleSteps)
	if s.inspector != nil {
		s.pageRoutes(mux)
	}
	mux.HandleFunc("POST /start_profile", s.handleStartProfile)
	mux.HandleFunc("POST /stop_profile", s.handleStopProfile)
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
	tracked := &trackedWriter{ResponseWriter: w, anthropic: isAnthropic(req)}
	defer s.recoverPanic(tracked, id)
	if req.ContentLength != 0 { // −1 = unknown
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.bodyTimeout))
	}
	handler, pattern := s.mux.Handler(req)
	defer func(begin time.Time) { s.metrics.http.observe(pattern, req, tracked, begin) }(time.Now())
	if needsKey(req.URL.Path) && !s.authorized(req) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		s.writeError(tracked, &apiError{status: http.StatusUnauthorized, kind: typeInvalidRequest, code: "invalid_api_key",
			message: "a valid API key is needed: Authorization: Bearer KEY"})
		return
	}
	if s.foreignHost(req) {
		s.writeError(tracked, &apiError{status: http.StatusForbidden, kind: typeInvalidRequest, code: "foreign_host",
			message: "by this host name the page's data is not shown without a key: start with --api-key, or open the page by the machine's address"})
		return
	}
	if pattern == "" {
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
	return noPath
}

// noPath is the answer to a base URL without /v1, and to endpoints of other models.
var noPath = &apiError{status: http.StatusNotFound, kind: typeInvalidRequest,
	message: "there is nothing at this path; this model answers at /v1/chat/completions, /v1/completions, /v1/responses and /v1/messages"}

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
		s.load.Add(1)
		defer s.load.Add(-1)
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
	scheme, key := credentials(req)
	sum := sha256.Sum256([]byte(key))
	found := 0
	for i := range s.keys {
		found |= subtle.ConstantTimeCompare(sum[:], s.keys[i][:])
	}
	return found == 1 && strings.EqualFold(scheme, "Bearer")
}

// credentials are what a request brings; Anthropic's clients have a header of
// their own.
func credentials(req *http.Request) (scheme, key string) {
	scheme, key, _ = strings.Cut(req.Header.Get("Authorization"), " ")
	if given := req.Header.Get("X-Api-Key"); scheme == "" && given != "" && isAnthropic(req) {
		return "Bearer", given
	}
	return scheme, key
}

// salted is the cache salt of a request: with SaltCacheByKey, of its key, too.
func (s *Server) salted(req *http.Request, salt string) string {
	if !s.saltByKey || len(s.keys) == 0 {
		return salt
	}
	_, key := credentials(req)
	sum := sha256.Sum256([]byte(key))
	sum = sha256.Sum256(append(sum[:], salt...))
	return hex.EncodeToString(sum[:])
}

// isAnthropic says that a request is one of Anthropic's API.
func isAnthropic(req *http.Request) bool {
	return req.URL.Path == "/v1/messages" || strings.HasPrefix(req.URL.Path, "/v1/messages/")
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
