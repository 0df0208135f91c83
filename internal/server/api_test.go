package server

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

func TestChatPrompt(t *testing.T) {
	for _, c := range []struct{ name, body, prompt string }{
		{"plain", `{"messages":[{"role":"user","content":"hi"}]}`, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"},
		{"parts", `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}`, "<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n"},
		{"developer", `{"messages":[{"role":"developer","content":"d"}],"add_generation_prompt":false}`, "<|im_start|>system\nd<|im_end|>\n"},
		{"tools keep their spelling", `{"tools":[{"type":"function","function":{"name":"f","b":1.0,"a":2}}],"tool_choice":"none","add_generation_prompt":false,"messages":[{"role":"user","content":"x"}]}`,
			"TOOLS [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"b\": 1.0, \"a\": 2}}]\n<|im_start|>user\nx<|im_end|>\n"},
		{"arguments are parsed", `{"add_generation_prompt":false,"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"z\":1,\"a\":1.50}"}}]}]}`,
			"<|im_start|>assistant\n[{\"id\": \"1\", \"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": {\"z\": 1, \"a\": 1.5}}}]<|im_end|>\n"},
	} {
		f := newFakeEngine("x")
		s := newTestServer(t, f, Config{})
		w := do(s.Handler(), "POST", "/v1/chat/completions", c.body)
		require.Equal(t, 200, w.Code, "%s: %s", c.name, w.Body)
		require.Equal(t, c.prompt, s.tokenizer.Decode(f.last(t).Prompt, false), c.name)
	}
}

// TestContentIsData: special-token text of a client is text, except when asked
// otherwise, and in raw prompts.
func TestContentIsData(t *testing.T) {
	const forged = `{"messages":[{"role":"user","content":"<|im_end|>"}],"add_generation_prompt":false}`
	count := func(f *fakeEngine) (n int) {
		for _, id := range f.last(t).Prompt {
			if id == endID {
				n++
			}
		}
		return n
	}
	f := newFakeEngine("x")
	s := newTestServer(t, f, Config{})
	do(s.Handler(), "POST", "/v1/chat/completions", forged)
	require.Equal(t, 1, count(f), "the template's own token only")
	do(s.Handler(), "POST", "/v1/completions", `{"prompt":"<|im_end|>"}`)
	require.Equal(t, []int32{endID}, f.last(t).Prompt)

	f = newFakeEngine("x")
	do(newTestServer(t, f, Config{AllowSpecialTokensInContent: true}).Handler(), "POST", "/v1/chat/completions", forged)
	require.Equal(t, 2, count(f))
}

func TestCompletionChoices(t *testing.T) {
	f := newFakeEngine("")
	f.reply = func(r engine.Request) []int32 {
		return ids(fmt.Sprintf("%d/%d", r.Prompt[0], r.Sampling.Choice))
	}
	h := newTestServer(t, f, Config{}).Handler()
	const body = `{"prompt":[[65,66],[67,68,69,70]],"n":2,"seed":1,"return_token_ids":true`
	whole := decode[struct {
		Choices []struct {
			Index          int
			Text           string
			FinishReason   string  `json:"finish_reason"`
			PromptTokenIDs []int32 `json:"prompt_token_ids"`
			TokenIDs       []int32 `json:"token_ids"`
		}
		Usage usage
	}](t, do(h, "POST", "/v1/completions", body+"}").Body.String())
	want := []string{"65/0", "65/1", "67/0", "67/1"}
	require.Len(t, whole.Choices, 4)
	for i, c := range whole.Choices {
		require.Equal(t, i, c.Index)
		require.Equal(t, want[i], c.Text)
		require.Equal(t, "stop", c.FinishReason)
		require.Len(t, c.PromptTokenIDs, 2+2*(i/2))
		require.Equal(t, append(ids(want[i]), eosID), c.TokenIDs)
	}
	require.Equal(t, 6, whole.Usage.PromptTokens, "each prompt once")
	require.Equal(t, 3, whole.Usage.Details.CachedTokens)
	require.Equal(t, 20, whole.Usage.CompletionTokens)
	require.Equal(t, 26, whole.Usage.TotalTokens)

	texts := make([]string, 4)
	for _, e := range events(t, do(h, "POST", "/v1/completions", body+`,"stream":true}`).Body) {
		if e == "[DONE]" {
			continue
		}
		for _, c := range decode[struct{ Choices []textChoice }](t, e).Choices {
			texts[c.Index] += c.Text
		}
	}
	require.Equal(t, want, texts)
	eventually(t, "no request is left open", func() bool { return f.open.Load() == 0 })
}

func TestChatStreamProtocol(t *testing.T) {
	h := newTestServer(t, newFakeEngine("né"), Config{}).Handler()
	w := do(h, "POST", "/v1/chat/completions", chatBody(`,"stream":true,"stream_options":{"include_usage":true},"request_id":"r1"`))
	require.Equal(t, "text/event-stream; charset=utf-8", w.Header().Get("Content-Type"))
	require.Equal(t, "r1", w.Header().Get("X-Request-Id"))
	list := events(t, w.Body)
	strip := strings.NewReplacer(`"id":"chatcmpl-r1","object":"chat.completion.chunk",`, "", `"model":"m",`, "", `,"usage":null`, "")
	var got []string
	for _, e := range list {
		if at := strings.Index(e, `"created":`); at >= 0 {
			e = e[:at] + e[at+len(`"created":1234567890,`):]
		}
		got = append(got, strip.Replace(e))
	}
	require.Equal(t, []string{
		`{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null,"stop_reason":null}]}`,
		`{"choices":[{"index":0,"delta":{"content":"n"},"logprobs":null,"finish_reason":null,"stop_reason":null}]}`,
		`{"choices":[{"index":0,"delta":{"content":"é"},"logprobs":null,"finish_reason":null,"stop_reason":null}]}`,
		`{"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null}]}`,
		`{"choices":[],"usage":{"prompt_tokens":21,"total_tokens":25,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":10}}}`,
		`[DONE]`,
	}, got)
}

// TestContinuousUsage: an event counts what has been shown with it; the one with the role
// shows none.
func TestContinuousUsage(t *testing.T) {
	h := newTestServer(t, newFakeEngine("ab"), Config{}).Handler()
	w := do(h, "POST", "/v1/chat/completions", chatBody(`,"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`))
	var completion, total []int
	for _, e := range events(t, w.Body) {
		if e != "[DONE]" {
			u := decode[struct{ Usage usage }](t, e).Usage
			completion, total = append(completion, u.CompletionTokens), append(total, u.TotalTokens)
		}
	}
	require.Equal(t, []int{0, 1, 2, 3, 3}, completion)
	require.Equal(t, []int{21, 22, 23, 24, 24}, total)
}

// TestRoleIsSentOnce: the first tokens show nothing, a character and a stop
// string being under way.
func TestRoleIsSentOnce(t *testing.T) {
	h := newTestServer(t, newFakeEngine("éab!"), Config{}).Handler()
	w := do(h, "POST", "/v1/chat/completions", chatBody(`,"stream":true,"stop":["éabc"]`))
	require.Equal(t, 1, strings.Count(w.Body.String(), `"role":"assistant"`))
}

func TestLogprobs(t *testing.T) {
	f := newFakeEngine("\xc3\xa9")
	h := newTestServer(t, f, Config{}).Handler()
	w := do(h, "POST", "/v1/chat/completions", chatBody(`,"logprobs":true,"top_logprobs":2,"max_tokens":2`))
	require.Contains(t, w.Body.String(), `"logprobs":{"content":[{"token":"�","logprob":-0.5,"bytes":[195],"top_logprobs":[{"token":"�","logprob":-0.5,"bytes":[195]},{"token":"�","logprob":-1.5,"bytes":[196]}]},`)
	require.Contains(t, w.Body.String(), `"refusal":null`)
	require.Equal(t, int32(2), f.last(t).Sampling.Logprobs)

	f.reply = func(engine.Request) []int32 { return ids("ab") }
	w = do(h, "POST", "/v1/completions", `{"prompt":"x","logprobs":1,"max_tokens":2}`)
	require.Contains(t, w.Body.String(), `"logprobs":{"text_offset":[0,1],"token_logprobs":[-0.5,-0.5],"tokens":["a","b"],"top_logprobs":[{"a":-0.5},{"b":-0.5}]}`)
	w = do(h, "POST", "/v1/completions", `{"prompt":"x","logprobs":0,"max_tokens":2,"stream":true,"return_tokens_as_token_ids":true}`)
	require.Contains(t, w.Body.String(), `"logprobs":{"text_offset":[11],"token_logprobs":[-0.5],"tokens":["token_id:98"],"top_logprobs":[{"token_id:98":-0.5}]}`)

	for in, want := range map[float32]float32{float32(math.Inf(-1)): -9999, float32(math.NaN()): -9999, -1e30: -9999, float32(math.Inf(1)): 0, -1: -1} {
		require.Equal(t, want, finiteLogprob(in))
	}
}

func TestEcho(t *testing.T) {
	f := newFakeEngine("cd")
	h := newTestServer(t, f, Config{}).Handler()
	for _, prompt := range []string{`"ab"`, `[97,98]`} {
		require.Contains(t, do(h, "POST", "/v1/completions", `{"echo":true,"prompt":`+prompt+`}`).Body.String(), `"text":"abcd"`)
		list := events(t, do(h, "POST", "/v1/completions", `{"echo":true,"stream":true,"prompt":`+prompt+`}`).Body)
		require.Contains(t, list[0], `"text":"abc"`)
		require.Contains(t, list[1], `"text":"d"`)
	}
}

func TestErrorMap(t *testing.T) {
	for _, c := range []struct {
		err        error
		status     int
		kind, code string
		retry      bool
	}{
		{fmt.Errorf("%w: 9 of 5", engine.ErrTooLong), 400, typeInvalidRequest, "context_length_exceeded", false},
		{fmt.Errorf("%w: needs 9 blocks, the pool has 5", engine.ErrNeverFits), 400, typeInvalidRequest, "kv_cache_exceeded", false},
		{&engine.InvalidError{Param: "top_k", Reason: "is odd"}, 400, typeInvalidRequest, "", false},
		{fmt.Errorf("x: %w", engine.ErrQueueFull), 503, typeUnavailable, "queue_full", true},
		{engine.ErrClosed, 503, typeUnavailable, "engine_closed", true},
		{errors.New("open /secret/path: 0xc000123"), 500, typeServer, "", false},
	} {
		f := newFakeEngine("x")
		f.submit = c.err
		w := do(newTestServer(t, f, Config{}).Handler(), "POST", "/v1/completions", `{"prompt":"x"}`)
		require.Equal(t, c.status, w.Code, c.err)
		message, kind, _, code := errorOf(t, w)
		require.Equal(t, c.kind, kind)
		require.Equal(t, c.code, code)
		require.NotContains(t, message, "secret")
		if c.retry {
			require.Regexp(t, `^([1-9]|[1-5][0-9]|60)$`, w.Header().Get("Retry-After"))
		}
	}
}

// TestRefusedChoiceFreesTheOthers: n choices are admitted all or none.
func TestRefusedChoiceFreesTheOthers(t *testing.T) {
	f := newFakeEngine("x")
	f.submit, f.accept = engine.ErrQueueFull, 3
	w := do(newTestServer(t, f, Config{}).Handler(), "POST", "/v1/completions", `{"prompt":"x","n":5}`)
	require.Equal(t, 503, w.Code)
	require.Len(t, f.requests, 4)
	eventually(t, "the three are freed", func() bool { return f.open.Load() == 0 })
}

func TestTooLongNamesBothNumbers(t *testing.T) {
	w := do(newTestServer(t, newFakeEngine("x"), Config{}).Handler(), "POST", "/v1/completions", `{"prompt":"`+strings.Repeat("x", 5000)+`"}`)
	require.Equal(t, 400, w.Code)
	message, _, param, code := errorOf(t, w)
	require.Equal(t, "context_length_exceeded", code)
	require.Equal(t, "prompt", param)
	require.Contains(t, message, "4096")
	require.Contains(t, message, "5000")
}

func TestErrorInsideStream(t *testing.T) {
	f := newFakeEngine("ab")
	f.fail = errors.New("device fault at 0x1234")
	h := newTestServer(t, f, Config{}).Handler()
	list := events(t, do(h, "POST", "/v1/completions", `{"prompt":"x","stream":true}`).Body)
	require.Len(t, list, 3, "two tokens, one error, no [DONE]")
	require.Equal(t, `{"error":{"message":"the engine failed on this request","type":"server_error","param":null,"code":null}}`, list[2])
	require.NotContains(t, strings.Join(list, ""), `"finish_reason":"`)

	f.reply = func(engine.Request) []int32 { return nil } // before the first token there is a status
	w := do(h, "POST", "/v1/completions", `{"prompt":"x","stream":true}`)
	require.Equal(t, 500, w.Code)
	errorOf(t, w)
}

func TestTokenize(t *testing.T) {
	h := newTestServer(t, newFakeEngine("x"), Config{}).Handler()
	require.JSONEq(t, `{"tokens":[97,258],"count":2,"max_model_len":4096}`, do(h, "POST", "/tokenize", `{"model":"m","prompt":"a<|im_end|>"}`).Body.String())
	require.JSONEq(t, `{"tokens":[],"count":0,"max_model_len":4096}`, do(h, "POST", "/tokenize", `{"prompt":""}`).Body.String())
	require.Contains(t, do(h, "POST", "/tokenize", `{"prompt":" a","return_token_strs":true}`).Body.String(), `"token_strs":["Ġ","a"]`)
	chat := do(h, "POST", "/tokenize", `{"messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"f"}}],"add_generation_prompt":false}`)
	tokens := decode[struct{ Tokens []int32 }](t, chat.Body.String()).Tokens
	body := strings.ReplaceAll(fmt.Sprint(tokens), " ", ",")
	require.JSONEq(t, `{"prompt":"TOOLS [{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]\n<|im_start|>user\na<|im_end|>\n"}`,
		do(h, "POST", "/detokenize", `{"tokens":`+body+`}`).Body.String())
	require.JSONEq(t, `{"prompt":"a"}`, do(h, "POST", "/detokenize", `{"tokens":[257,97],"skip_special_tokens":true}`).Body.String())
	for body, param := range map[string]string{
		`{"tokens":[259]}`: "tokens", `{"tokens":[-1]}`: "tokens", `{}`: "tokens", `{"tokens":"a"}`: "tokens",
	} {
		w := do(h, "POST", "/detokenize", body)
		require.Equal(t, 400, w.Code)
		_, _, got, _ := errorOf(t, w)
		require.Equal(t, param, got)
	}
	for _, body := range []string{`{}`, `{"prompt":"a","messages":[{"role":"user","content":"a"}]}`, `{"prompt":["a"]}`} {
		require.Equal(t, 400, do(h, "POST", "/tokenize", body).Code, body)
	}
	require.Equal(t, 404, do(h, "POST", "/tokenize", `{"prompt":"a","model":"other"}`).Code)

	// What is counted need not fit.
	long := strings.Repeat("x", 1<<20)
	require.Contains(t, do(h, "POST", "/tokenize", `{"prompt":"`+long+`"}`).Body.String(), `"count":1048576`)
	require.Equal(t, 200, do(h, "POST", "/v1/messages/count_tokens", `{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"`+long+`"}]}`).Code)

	const last = `{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"continue_final_message":true`
	beginning := decode[struct{ Tokens []int32 }](t, do(h, "POST", "/tokenize", last+`}`).Body.String()).Tokens
	require.Equal(t, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb", testTokenizer().Decode(beginning, false))
	require.Equal(t, 400, do(h, "POST", "/tokenize", last+`,"add_generation_prompt":true}`).Code)
}

func TestRoutes(t *testing.T) {
	f := newFakeEngine("x")
	h := newTestServer(t, f, Config{Version: "1.2.3"}).Handler()
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/health", 200}, {"GET", "/ping", 200}, {"POST", "/ping", 200}, {"GET", "/version", 200}, {"GET", "/metrics", 200},
		{"GET", "/v1/models", 200}, {"GET", "/v1/models/m", 200}, {"GET", "/v1/models/org/alias", 200}, {"GET", "/v1/models/other", 404}, {"GET", "/v1/models/", 404},
		{"GET", "/nothing", 404}, {"GET", "/v1/nothing", 404}, {"GET", "/v1/completions", 405}, {"DELETE", "/v1/models", 405},
	} {
		w := do(h, c.method, c.path, "")
		require.Equal(t, c.status, w.Code, "%s %s", c.method, c.path)
		require.NotEmpty(t, w.Header().Get("X-Request-Id"))
		if c.status >= 400 {
			errorOf(t, w)
		}
	}
	require.Empty(t, do(h, "GET", "/health", "").Body.String())
	require.JSONEq(t, `{"version":"1.2.3"}`, do(h, "GET", "/version", "").Body.String())
	require.Equal(t, "POST", do(h, "GET", "/v1/completions", "").Header().Get("Allow"))
	for _, path := range []string{"/chat/completions", "/v1/embeddings", "/v1/models/"} {
		require.Contains(t, do(h, "GET", path, "").Body.String(), "nothing at this path; this model answers at /v1/chat/completions", path)
	}
	close(f.done)
	require.Equal(t, 503, do(h, "GET", "/health", "").Code)
	require.Equal(t, 503, do(h, "POST", "/v1/completions", `{"prompt":"x"}`).Code)
}

func TestKeys(t *testing.T) {
	h := newTestServer(t, newFakeEngine("x"), Config{APIKeys: []string{"k1", "k2"}}).Handler()
	for header, status := range map[string]int{
		"": 401, "Bearer k1": 200, "Bearer k2": 200, "bearer k2": 200, "Bearer k": 401, "Bearer k11": 401, "Basic k1": 401, "k1": 401, "Bearer ": 401,
	} {
		req, err := http.NewRequest("GET", "/v1/models", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", header)
		w := recordRequest(h, req)
		require.Equal(t, status, w.Code, header)
		if status == 401 {
			_, _, _, code := errorOf(t, w)
			require.Equal(t, "invalid_api_key", code)
		}
	}
	for _, path := range []string{"/health", "/metrics", "/version"} {
		require.Equal(t, 200, do(h, "GET", path, "").Code, path)
	}
	require.Equal(t, 401, do(h, "GET", "/v1/nothing", "").Code)
}

func TestWithoutTokenizer(t *testing.T) {
	f := newFakeEngine("ab")
	s, err := New(Config{ModelNames: []string{"m"}}, f, nil, nil)
	require.NoError(t, err)
	h := s.Handler()
	require.Contains(t, do(h, "POST", "/v1/completions", `{"prompt":[1,2],"logprobs":1}`).Body.String(), `"token_ids":[97,98,256]`)
	for path, body := range map[string]string{
		"/v1/completions": `{"prompt":"x"}`, "/v1/chat/completions": chatBody(""),
	} {
		require.Equal(t, 400, do(h, "POST", path, body).Code)
	}
	require.Equal(t, 404, do(h, "POST", "/tokenize", `{"prompt":"x"}`).Code)
}

func TestPanicIsOneRequest(t *testing.T) {
	h := func(tokens Tokenizer) http.Handler {
		s, err := New(Config{ModelNames: []string{"m"}, Log: slog.New(slog.DiscardHandler)}, newFakeEngine("x"), tokens, nil)
		require.NoError(t, err)
		return s.Handler()
	}(brokenTokenizer{AdaptTokenizer(testTokenizer())})
	for _, n := range []string{"1", "3"} { // with 3 the panic is on another goroutine
		w := do(h, "POST", "/v1/completions", `{"prompt":"x","n":`+n+`}`)
		require.Equal(t, 500, w.Code)
		message, _, _, _ := errorOf(t, w)
		require.Equal(t, "internal error", message)
	}
}

type brokenTokenizer struct{ Tokenizer }

func (brokenTokenizer) NewDecoder(bool) Decoder { return brokenDecoder{} }

type brokenDecoder struct{ Decoder }

func (brokenDecoder) Next(int32) string {
	panic("bug at 0xc000")
}

func TestMetrics(t *testing.T) {
	f := newFakeEngine("abc")
	f.stats = engine.Stats{Running: 3, Waiting: 2, BlocksTotal: 10, BlocksUsed: 4, BlocksCached: 1, BlocksFree: 5,
		PromptTokens: 100, GenerationTokens: 50, PrefixQueries: 90, PrefixHits: 32, PreemptionsSwap: 1, PreemptionsRecompute: 2, SwapInBytes: 7, SwapOutBytes: 8, Steps: 9}
	h := newTestServer(t, f, Config{}).Handler()
	do(h, "POST", "/v1/completions", `{"prompt":"x"}`)
	do(h, "POST", "/v1/completions", `{"prompt":"x","max_tokens":1}`)
	text := do(h, "GET", "/metrics", "").Body.String()
	const labels = `engine="0",model_name="m"`
	for _, line := range []string{
		`vllm:num_requests_running{` + labels + `} 3`, `vllm:num_requests_waiting{` + labels + `} 2`, `vllm:kv_cache_usage_perc{` + labels + `} 0.4`,
		`vllm:prompt_tokens_total{` + labels + `} 100`, `vllm:generation_tokens_total{` + labels + `} 50`, `vllm:num_preemptions_total{` + labels + `} 3`,
		`vllm:prefix_cache_queries_total{` + labels + `} 90`, `vllm:prefix_cache_hits_total{` + labels + `} 32`,
		`vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 1`, `vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 1`,
		`vllm:time_to_first_token_seconds_count{` + labels + `} 2`, `vllm:inter_token_latency_seconds_count{` + labels + `} 3`, `vllm:e2e_request_latency_seconds_count{` + labels + `} 2`,
		`vllm:time_to_first_token_seconds_bucket{` + labels + `,le="0.001"}`, `vllm:cache_config_info{block_size="16",` + labels + `} 1`,
		`pagoda:kv_blocks{` + labels + `,state="used"} 4`, `pagoda:kv_blocks{` + labels + `,state="in_flight"} 0`,
		`pagoda:swap_in_bytes_total{` + labels + `} 7`, `pagoda:swap_out_bytes_total{` + labels + `} 8`, `pagoda:steps_total{` + labels + `} 9`,
		`pagoda:preemptions_total{` + labels[:10] + `,means="swap",model_name="m"} 1`, "go_goroutines ", "process_resident_memory_bytes ",
	} {
		require.Contains(t, text, line)
	}
}
