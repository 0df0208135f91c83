package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model/chat"
	"github.com/pagoda-engine/pagoda/model/grammar"
	"github.com/pagoda-engine/pagoda/model/tokenizer"
)

// Ids of the test tokenizer: bytes, then the special tokens.
const (
	eosID, startID, endID = 256, 257, 258
	testVocab             = 259
)

// fakeEngine answers with reply(request), then the end-of-sequence id if there is
// room. It ends requests as the engine does, and counts those that are open.
type fakeEngine struct {
	reply  func(r engine.Request) []int32
	gate   chan struct{} // not nil: one receive before each token
	submit error         // what Submit says …
	accept int           // … after so many requests
	fail   error         // the final event after the reply
	info   Info
	stats  engine.Stats
	steps  []engine.StepRecord
	record *fakeRecording // what StartProfile gives; nil = one is under way

	sequence engine.SequenceID // of all requests
	scoring  chan struct{}     // not nil: one receive before a prompt is scored
	observed func(o *engine.Observation, blocks, steps int) error

	mu       sync.Mutex
	requests []engine.Request
	open     atomic.Int64
	resets   atomic.Int64
	done     chan struct{}
	err      error
}

func newFakeEngine(text string) *fakeEngine {
	return &fakeEngine{
		reply: func(engine.Request) []int32 { return ids(text) },
		info:  Info{EndIDs: []int32{eosID}, MaxModelLen: 4096, PoolTokens: 4096, VocabSize: testVocab, SampleVocab: testVocab, MaxQueued: maxChoices, MaxLogprobs: 20, CacheConfig: map[string]string{"block_size": "16"}},
		done:  make(chan struct{}),
	}
}

// Dump implements Engine.
func (f *fakeEngine) Dump(w io.Writer, reason string) error {
	return json.NewEncoder(w).Encode(engine.DumpLine{Dump: &engine.DumpHeader{Reason: reason}})
}

func ids(text string) []int32 {
	out := make([]int32, len(text))
	for i := range len(text) {
		out[i] = int32(text[i])
	}
	return out
}

func (f *fakeEngine) Stats() engine.Stats { return f.stats }
func (f *fakeEngine) Steps(n int) []engine.StepRecord {
	return f.steps[max(0, len(f.steps)-n):]
}

// Observe is what observed says; StepsOf has the steps that there are.
func (f *fakeEngine) Observe(_ context.Context, o *engine.Observation, blocks, steps int) error {
	if f.observed != nil {
		return f.observed(o, blocks, steps)
	}
	return f.err
}

func (f *fakeEngine) StepsOf(_ context.Context, id engine.SequenceID, n int) ([]engine.StepRecord, error) {
	return f.steps, f.err
}
func (f *fakeEngine) Info() Info            { return f.info }
func (f *fakeEngine) Done() <-chan struct{} { return f.done }
func (f *fakeEngine) Err() error            { return f.err }

func (f *fakeEngine) SubmitChoices(ctxs []context.Context, r engine.Request) ([]Stream, error) {
	var streams []Stream
	for i, ctx := range ctxs {
		r.Sampling.Choice = int32(i)
		f.mu.Lock()
		f.requests = append(f.requests, r)
		refuse := f.submit != nil && len(f.requests) > f.accept
		f.mu.Unlock()
		if refuse {
			return nil, f.submit
		}
		f.open.Add(1)
		context.AfterFunc(ctx, func() { f.open.Add(-1) })
		s := &fakeStream{f: f, ctx: ctx, r: r, tokens: f.reply(r), admitted: time.Now()}
		if r.Constrain != nil {
			s.constraint, s.constraintErr = r.Constrain()
			context.AfterFunc(ctx, func() { s.mu.Lock(); defer s.mu.Unlock(); s.constraint.Close() })
		}
		streams = append(streams, s)
	}
	return streams, nil
}

func (f *fakeEngine) ResetPrefixCache(context.Context) error {
	f.resets.Add(1)
	return f.err
}

// PromptLogprobs gives token i −i/8, and the ids after it as the likelier ones.
func (f *fakeEngine) PromptLogprobs(_ context.Context, ids []int32, top int) ([]engine.PromptLogprob, error) {
	if f.scoring != nil {
		<-f.scoring
	}
	out := make([]engine.PromptLogprob, len(ids))
	for i := 1; i < len(ids); i++ {
		out[i] = engine.PromptLogprob{Logprob: -float32(i) / 8, Rank: int32(top + 1)}
		for k := range top {
			out[i].TopIDs = append(out[i].TopIDs, (ids[i]+1+int32(k))%testVocab)
			out[i].TopLogprobs = append(out[i].TopLogprobs, -float32(k+1)/64)
		}
	}
	return out, f.submit
}

func (f *fakeEngine) last(t *testing.T) engine.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	require.NotEmpty(t, f.requests, "nothing was submitted")
	return f.requests[len(f.requests)-1]
}

type fakeStream struct {
	f      *fakeEngine
	ctx    context.Context
	r      engine.Request
	tokens []int32
	n      int
	ended  bool

	mu            sync.Mutex
	constraint    engine.Constraint
	constraintErr error

	admitted time.Time
}

// preferred is what a fake draws when the constraint does not let it say its reply:
// bytes that bring JSON to an end.
const preferred = "\"}]:,0tfnx"

// draw is the token that comes, as near to the reply as the constraint allows.
func (s *fakeStream) draw(token int32) (drawn int32, done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mask := make([]uint32, (testVocab+31)/32)
	if done, err = s.constraint.Mask(mask); done || err != nil {
		return 0, done, err
	}
	allowed := func(id int32) bool { return mask[id/32]>>(id%32)&1 == 1 }
	candidates := append([]int32{token, eosID}, ids(preferred)...)
	for id := range int32(testVocab) {
		candidates = append(candidates, id)
	}
	i := slices.IndexFunc(candidates, allowed)
	if i < 0 {
		return 0, false, errors.New("no token is allowed")
	}
	if drawn = candidates[i]; drawn != eosID {
		err = s.constraint.Accept(drawn)
	}
	return drawn, false, err
}

func (s *fakeStream) Next(ctx context.Context) (engine.Event, bool) {
	if s.ended {
		return engine.Event{}, false
	}
	if s.f.gate != nil {
		select {
		case <-s.f.gate:
		case <-s.f.done:
			s.ended = true
			return engine.Event{Finish: engine.FinishError, Err: s.f.err}, true
		case <-ctx.Done():
			return engine.Event{}, false
		}
	}
	if ctx.Err() != nil {
		return engine.Event{}, false
	}
	if s.n == len(s.tokens) && s.f.fail != nil {
		s.ended = true
		return engine.Event{Finish: engine.FinishError, Err: s.f.fail}, true
	}
	token := int32(eosID)
	if s.n < len(s.tokens) {
		token = s.tokens[s.n]
	}
	s.n++
	if s.r.Constrain != nil {
		done, err := false, s.constraintErr
		if err == nil {
			token, done, err = s.draw(token)
		}
		if done || err != nil {
			s.ended = true
			if err != nil {
				return engine.Event{Finish: engine.FinishError, Err: fmt.Errorf("%w: %w", engine.ErrConstraint, err)}, true
			}
			return engine.Event{Finish: engine.FinishStop, StopID: engine.NoStopID}, true
		}
	}
	ev := engine.Event{Token: token, HasToken: true, CachedTokens: len(s.r.Prompt) / 2, Admitted: s.admitted, Sequence: s.f.sequence}
	if n := s.r.Sampling.Logprobs; n >= 0 {
		ev.Logprob = -0.5
		for i := range n {
			ev.TopIDs = append(ev.TopIDs, (token+i)%testVocab)
			ev.TopLogprobs = append(ev.TopLogprobs, -0.5-float32(i))
		}
	}
	armed := s.n > int(s.r.Sampling.MinTokens)
	switch {
	case armed && (token == eosID && !s.r.IgnoreEOS || slices.Contains(s.r.StopIDs, token)):
		ev.Finish, ev.StopID = engine.FinishStop, token
	case s.n == s.r.MaxTokens || s.n == s.f.info.MaxModelLen:
		ev.Finish = engine.FinishLength
	}
	s.ended = ev.Finish != engine.FinishNone
	return ev, true
}

// testTokenizer has one token a byte and three special ones.
var testTokenizer = sync.OnceValue(func() *tokenizer.Tokenizer {
	vocab := map[string]int{}
	next := 0x100
	for b := range 0x100 {
		r := rune(b)
		if !('!' <= b && b <= '~' || 0xA1 <= b && b <= 0xAC || 0xAE <= b) { // GPT-2's bytes_to_unicode
			r = rune(next)
			next++
		}
		vocab[string(r)] = b
	}
	added := []map[string]any{}
	for i, content := range []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"} {
		added = append(added, map[string]any{"id": eosID + i, "content": content, "single_word": false,
			"lstrip": false, "rstrip": false, "normalized": false, "special": true})
	}
	byteLevel := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}
	file, err := json.Marshal(map[string]any{
		"version": "1.0", "added_tokens": added, "pre_tokenizer": byteLevel, "decoder": byteLevel,
		"model": map[string]any{"type": "BPE", "vocab": vocab, "merges": []string{}},
	})
	if err != nil {
		panic(err)
	}
	t, err := tokenizer.New(file)
	if err != nil {
		panic(err)
	}
	return t
})

const chatML = "{% if tools %}TOOLS {{ tools | tojson }}\n{% endif %}" +
	"{% for m in messages %}{% if m.content == 'forbidden' %}{{ raise_exception('no such talk') }}{% endif %}" +
	"<|im_start|>{{ m.role }}\n{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}" +
	"{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

var testTemplate = sync.OnceValue(func() *chat.Template {
	t, err := chat.New(chatML, chat.Options{ControlTokens: testTokenizer().AddedTokens()})
	if err != nil {
		panic(err)
	}
	return t
})

func newTestServer(t testing.TB, f *fakeEngine, cfg Config) *Server {
	if cfg.ModelNames == nil {
		cfg.ModelNames = []string{"m", "org/alias"}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s, err := New(cfg, f, AdaptTokenizer(testTokenizer()), testTemplate())
	require.NoError(t, err)
	s.grammars = grammar.NewCompiler(s.tokenizer, grammar.Limits{Time: time.Hour}) // however slow the machine
	return s
}

// do sends a request past the network.
func do(h http.Handler, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Host = "localhost"
	h.ServeHTTP(w, req)
	return w
}

// errorOf decodes an error body, which must have all four fields.
func errorOf(t *testing.T, w *httptest.ResponseRecorder) (message, kind, param, code string) {
	t.Helper()
	var body struct {
		Error map[string]any `json:"error"`
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), w.Body.String())
	text := func(key string) string {
		v, present := body.Error[key]
		require.True(t, present, "error without %s: %s", key, w.Body)
		if v == nil {
			return ""
		}
		return v.(string)
	}
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	return text("message"), text("type"), text("param"), text("code")
}

// events splits a stream into the data of its events.
func events(t *testing.T, body io.Reader) []string {
	t.Helper()
	all, err := io.ReadAll(body)
	require.NoError(t, err)
	var out []string
	for part := range bytes.SplitSeq(bytes.TrimSuffix(all, []byte("\n\n")), []byte("\n\n")) {
		data, ok := bytes.CutPrefix(part, []byte("data: "))
		require.True(t, ok, "%q", part)
		out = append(out, string(data))
	}
	return out
}

func decode[T any](t *testing.T, data string) (v T) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(data), &v), data)
	return v
}

func chatBody(extra string) string {
	return fmt.Sprintf(`{"messages":[{"role":"user","content":"hi"}]%s}`, extra)
}

func recordRequest(h http.Handler, req *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}
