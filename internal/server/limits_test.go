package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model/tokenizer"
)

// capRequests has, for each row of the table, a request with n of it.
var capRequests = map[string]func(n int) *http.Request{
	"body_bytes": func(n int) *http.Request {
		const head, tail = `{"prompt":"x","user_note":"`, `"}`
		return postTo("/v1/completions", head+strings.Repeat("x", n-len(head)-len(tail))+tail)
	},
	"json_depth": func(n int) *http.Request {
		return postTo("/v1/completions", `{"prompt":"x","other":`+strings.Repeat("[", n-1)+strings.Repeat("]", n-1)+`}`)
	},
	"messages": func(n int) *http.Request {
		return chatTo(`"messages":[` + joinN(n, func(int) string { return `{"role":"user","content":""}` }) + `],"truncate_prompt_tokens":9`)
	},
	"tools": func(n int) *http.Request {
		return chatTo(`"tools":[` + joinN(n, func(int) string { return aTool }) + `],"truncate_prompt_tokens":9`)
	},
	"documents": func(n int) *http.Request {
		return chatTo(`"documents":[` + joinN(n, func(int) string { return `{}` }) + `]`)
	},
	"chat_template_kwargs_bytes": func(n int) *http.Request {
		return chatTo(`"chat_template_kwargs":{"a":"` + strings.Repeat("x", n-len(`{"a":""}`)) + `"}`)
	},
	"chat_template_kwargs_depth": func(n int) *http.Request {
		return chatTo(`"chat_template_kwargs":` + strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n))
	},
	"name_bytes": func(n int) *http.Request {
		return chatTo(`"tools":[{"type":"function","function":{"name":"` + strings.Repeat("f", n) + `"}}]`)
	},
	"choices": func(n int) *http.Request {
		return postTo("/v1/completions", `{"prompt":[`+joinN(n, func(int) string { return `"a"` })+`],"max_tokens":1}`)
	},
	"stop_strings": func(n int) *http.Request {
		return chatTo(`"stop":[` + joinN(n, func(int) string { return `"s"` }) + `]`)
	},
	"stop_string_bytes": func(n int) *http.Request { return chatTo(`"stop":"` + strings.Repeat("s", n) + `"`) },
	"stop_token_ids": func(n int) *http.Request {
		return chatTo(`"stop_token_ids":[` + joinN(n, func(int) string { return "1" }) + `]`)
	},
	"logit_bias": func(n int) *http.Request {
		return chatTo(`"logit_bias":{` + joinN(n, func(i int) string { return fmt.Sprintf(`"%d":1`, i) }) + `}`)
	},
	"bad_words": func(n int) *http.Request {
		return chatTo(`"bad_words":[` + joinN(n, func(int) string { return `"s"` }) + `]`)
	},
	"guided_choice": func(n int) *http.Request {
		return chatTo(`"guided_choice":[` + joinN(n, func(i int) string { return fmt.Sprintf(`"%d"`, i) }) + `]`)
	},
	"allowed_token_ids": func(n int) *http.Request {
		return chatTo(`"allowed_token_ids":[` + joinN(n, func(int) string { return "1" }) + `]`)
	},
	"cache_salt_bytes": func(n int) *http.Request { return chatTo(`"cache_salt":"` + strings.Repeat("s", n) + `"`) },
	"metadata_bytes": func(n int) *http.Request {
		return chatTo(`"metadata":"` + strings.Repeat("m", n-2) + `"`)
	},
	"n": func(n int) *http.Request { return chatTo(fmt.Sprintf(`"n":%d`, n)) },
}

func postTo(path, body string) *http.Request {
	return httptest.NewRequest("POST", path, strings.NewReader(body))
}

func chatTo(fields string) *http.Request {
	return postTo("/v1/chat/completions", `{"messages":[{"role":"user","content":"hi"}],"max_tokens":1,`+fields+`}`)
}

// TestEveryCap: each row of the table lets through what it names, and refuses one
// more with its status, before the engine hears of it. header_bytes is the
// connection's own: TestSlowloris.
func TestEveryCap(t *testing.T) {
	f := newFakeEngine("x")
	f.info.VocabSize = 2000 // so that logit_bias has ids enough
	h := newTestServer(t, f, Config{}).Handler()
	for _, c := range caps {
		if c.name == "header_bytes" {
			continue
		}
		request, ok := capRequests[c.name]
		require.True(t, ok, "no test of %s", c.name)
		w := recordRequest(h, request(int(c.most)))
		require.Equal(t, 200, w.Code, "%s at its limit: %.300s", c.name, w.Body)
		f.requests = nil
		w = recordRequest(h, request(int(c.most)+1))
		require.Equal(t, c.status, w.Code, "%s beyond its limit", c.name)
		require.Empty(t, f.requests, c.name)
	}
	require.Len(t, capRequests, len(caps)-1, "a test without a row")
	require.Equal(t, []int{engine.MaxStopIDs, engine.MaxLogitBias, engine.MaxCacheSalt}, []int{maxStopIDs, maxLogitBias, maxSaltBytes}, "one table")
	require.LessOrEqual(t, limits["n"].hi, float64(engine.MaxChoices))
	require.LessOrEqual(t, limits["presence_penalty"].hi, float64(engine.MaxPenalty))
	require.LessOrEqual(t, limits["logit_bias"].hi, float64(engine.MaxBias))
}

// TestTextIsTooLong: a text that no tokenizer takes is refused with its length; white space
// may be few tokens however long it is.
func TestTextIsTooLong(t *testing.T) {
	h := newTestServer(t, newFakeEngine("x"), Config{}).Handler()
	long := strings.Repeat(" ", tokenizer.MaxTextBytes)
	w := do(h, "POST", "/v1/completions", `{"prompt":"`+long+` "}`)
	require.Equal(t, 400, w.Code)
	require.Contains(t, w.Body.String(), "prompt must make at most 4194304 bytes of text, not 4194305")
	w = do(h, "POST", "/v1/chat/completions", `{"messages":[{"role":"user","content":"`+long+`"}]}`)
	require.Equal(t, 400, w.Code)
	require.Contains(t, w.Body.String(), "it wrote more than 4194304 bytes")
}

// countingTokenizer knows how much text is encoded at one time.
type countingTokenizer struct {
	Tokenizer
	mu            sync.Mutex
	calls         int
	now, most     int
	entered, gate chan struct{} // not nil: encoding waits
}

func (c *countingTokenizer) Encode(text string) ([]int32, error) {
	c.mu.Lock()
	c.calls++
	c.now += len(text)
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	if c.gate != nil {
		c.entered <- struct{}{}
		<-c.gate
	}
	c.mu.Lock()
	c.now -= len(text)
	c.mu.Unlock()
	return []int32{1}, nil
}

// TestEncodingIsBounded: of many long prompts only so many bytes are encoded at
// one time, and a short one does not wait behind them.
func TestEncodingIsBounded(t *testing.T) {
	tok := &countingTokenizer{Tokenizer: AdaptTokenizer(testTokenizer()), entered: make(chan struct{}, 100), gate: make(chan struct{})}
	f := newFakeEngine("x")
	f.info.MaxModelLen = 100 << 20 // nothing is refused for its length
	s, err := New(Config{ModelNames: []string{"m"}}, f, tok, nil)
	require.NoError(t, err)
	body := `{"prompt":"` + strings.Repeat("x", encodingBytes/2) + `"}`
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() { do(s.Handler(), "POST", "/v1/completions", body) })
	}
	<-tok.entered
	<-tok.entered // two halves fill the budget
	eventually(t, "the others wait", func() bool {
		s.longTexts.mu.Lock()
		defer s.longTexts.mu.Unlock()
		return len(s.longTexts.waiting) == 4
	})
	group.Go(func() { do(s.Handler(), "POST", "/v1/completions", `{"prompt":"short"}`) })
	<-tok.entered
	close(tok.gate)
	group.Wait()
	require.Equal(t, 7, tok.calls)
	require.LessOrEqual(t, tok.most, encodingBytes+shortText)
	require.Zero(t, s.longTexts.used)
}

func TestByteBudget(t *testing.T) {
	b := &byteBudget{total: 10}
	ctx := context.Background()
	first, err := b.acquire(ctx, 99) // as much as there is
	require.NoError(t, err)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = b.acquire(gone, 5)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, b.waiting, "who went away does not hold up the queue")
	got := make(chan func())
	go func() {
		release, _ := b.acquire(ctx, 10)
		got <- release
	}()
	eventually(t, "it waits", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.waiting) == 1 })
	first()
	(<-got)()
	require.Zero(t, b.used)
}

// TestScoringInTurn: the engine has one prompt to score at a time, lest it make no step for all of them.
func TestScoringInTurn(t *testing.T) {
	f := newFakeEngine("x")
	f.scoring = make(chan struct{})
	s := newTestServer(t, f, Config{})
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			w := do(s.Handler(), "POST", "/v1/completions", `{"prompt":[[1,2],[3,4]],"prompt_logprobs":1}`)
			require.Equal(t, 200, w.Code)
		})
	}
	for left := range 6 {
		eventually(t, "one is at work, the others wait", func() bool {
			s.scoring.mu.Lock()
			defer s.scoring.mu.Unlock()
			return s.scoring.used == 1 && len(s.scoring.waiting) == min(2, 5-left)
		})
		f.scoring <- struct{}{}
	}
	group.Wait()
	require.Zero(t, s.scoring.used)
}

// TestOverlongIsNotEncoded: a prompt whose bytes alone show that it is too long
// costs no tokenizing; one that may fit is counted exactly.
func TestOverlongIsNotEncoded(t *testing.T) {
	tok := &countingTokenizer{Tokenizer: AdaptTokenizer(testTokenizer())}
	f := newFakeEngine("x")
	s, err := New(Config{ModelNames: []string{"m"}}, f, tok, nil)
	require.NoError(t, err)
	require.Equal(t, len("<|endoftext|>"), s.longestToken)
	long := strings.Repeat("x", 1<<20)
	w := do(s.Handler(), "POST", "/v1/completions", `{"prompt":"`+long+`"}`)
	require.Equal(t, 400, w.Code)
	message, _, param, code := errorOf(t, w)
	require.Equal(t, []string{"prompt", "context_length_exceeded"}, []string{param, code})
	require.Contains(t, message, "maximum context length is 4096 tokens, but the prompt has at least 26886 tokens")
	require.Zero(t, tok.calls)
	require.Equal(t, 200, do(s.Handler(), "POST", "/v1/completions", `{"truncate_prompt_tokens":5,"prompt":"`+long+`"}`).Code)
	require.Equal(t, 200, do(s.Handler(), "POST", "/v1/completions", `{"prompt":"`+strings.Repeat(" ", 1<<20)+`"}`).Code, "a token may swallow any white space")
	require.Equal(t, 2, tok.calls)

	// Whatever the text, the bound is one.
	s, err = New(Config{ModelNames: []string{"m"}}, f, AdaptTokenizer(testTokenizer()), nil)
	require.NoError(t, err)
	for _, text := range []string{"", "a", "<|im_start|><|im_end|>" + long[:99], "日本語のテキスト", "e\u0301\u1100\u1161\u11a8"} {
		ids, err := s.tokenizer.Encode(text)
		require.NoError(t, err)
		require.LessOrEqual(t, s.leastTokens(text), len(ids), text)
	}
}

// TestSaltByKey: with the flag, each key has prefixes of its own.
func TestSaltByKey(t *testing.T) {
	f := newFakeEngine("x")
	salt := func(s *Server, key, extra string) string {
		req := postTo("/v1/completions", `{"prompt":"x"`+extra+`}`)
		req.Header.Set("Authorization", "Bearer "+key)
		require.Equal(t, 200, recordRequest(s.Handler(), req).Code)
		return f.last(t).CacheSalt
	}
	plain := newTestServer(t, f, Config{APIKeys: []string{"a", "b"}})
	require.Empty(t, salt(plain, "a", ""))
	s := newTestServer(t, f, Config{APIKeys: []string{"a", "b"}, SaltCacheByKey: true})
	a := salt(s, "a", "")
	require.NotEmpty(t, a)
	require.Equal(t, a, salt(s, "a", ""))
	require.NotEqual(t, a, salt(s, "b", ""))
	require.NotEqual(t, a, salt(s, "a", `,"cache_salt":"x"`))
	require.Len(t, salt(s, "a", `,"cache_salt":"`+strings.Repeat("x", 1024)+`"`), 64, "within the engine's limit")
}

// TestRetryAfterFollowsTheModel: the queue, at the pace that the step-time model
// predicts.
func TestRetryAfterFollowsTheModel(t *testing.T) {
	f := newFakeEngine("x")
	s := newTestServer(t, f, Config{})
	s.observeLength(100, 7)
	f.stats = engine.Stats{Running: 2, Waiting: 6, PredictedStep: 50_000_000} // 100 steps of 50 ms: 5 s each
	require.Equal(t, 15, s.retryAfter())
	f.stats.PredictedStep = 0 // no model yet: the mean time
	require.Equal(t, 21, s.retryAfter())
	f.stats.Waiting = 600
	require.Equal(t, 60, s.retryAfter())
	f.stats.Waiting = 0
	require.Equal(t, 1, s.retryAfter())
}

// TestBodiesAreBounded: bodies that arrive slowly hold no more than the budget,
// and short ones pass them by.
func TestBodiesAreBounded(t *testing.T) {
	f := newFakeEngine("x")
	s := serve(t, f, Config{}, func(s *Server) { s.bodies.total = 3 * shortText })
	long := `{"max_tokens":1,"truncate_prompt_tokens":9,"prompt":"` + strings.Repeat("x", 2*shortText) + `"}`
	type slow struct {
		pipe *io.PipeWriter
		code chan int
	}
	send := func() slow {
		body, pipe := io.Pipe()
		out := slow{pipe, make(chan int, 1)}
		req, err := http.NewRequest("POST", "http://"+s.addr+"/v1/completions", body)
		require.NoError(t, err)
		req.ContentLength = int64(len(long))
		go func() {
			resp, err := http.DefaultClient.Do(req)
			if err == nil {
				resp.Body.Close()
				out.code <- resp.StatusCode
				return
			}
			out.code <- 0
		}()
		_, err = io.WriteString(pipe, long[:shortText+100])
		require.NoError(t, err)
		return out
	}
	state := func() (used, waiting int) {
		s.bodies.mu.Lock()
		defer s.bodies.mu.Unlock()
		return s.bodies.used, len(s.bodies.waiting)
	}
	first := send()
	eventually(t, "the first has its place", func() bool { used, _ := state(); return used == len(long) })
	second := send()
	eventually(t, "the second waits", func() bool { _, waiting := state(); return waiting == 1 })
	resp, err := s.post(t, t.Context(), `{"prompt":"short"}`)
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	resp.Body.Close()
	for _, one := range []slow{first, second} {
		_, err := io.WriteString(one.pipe, long[shortText+100:])
		require.NoError(t, err)
		require.NoError(t, one.pipe.Close())
		require.Equal(t, 200, <-one.code)
	}
	used, waiting := state()
	require.Zero(t, used+waiting)
}
