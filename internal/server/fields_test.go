package server

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

// edge is a field with a value at the edge; param is the field that a 400 must
// name, "" for a 200.
type edge struct{ body, param string }

var sharedEdges = []edge{
	{`"n":1`, ""}, {`"n":16`, ""}, {`"n":0`, "n"}, {`"n":17`, "n"}, {`"n":-1`, "n"}, {`"n":1e30`, "n"}, {`"n":1.5`, "n"}, {`"n":"1"`, "n"}, {`"n":2.0`, ""}, {`"n":null`, ""},
	{`"max_tokens":1`, ""}, {`"max_tokens":0`, "max_tokens"}, {`"max_tokens":-1`, "max_tokens"}, {`"max_tokens":2147483648`, "max_tokens"}, {`"max_tokens":9223372036854775808`, "max_tokens"}, {`"max_tokens":true`, "max_tokens"},
	{`"min_tokens":0`, ""}, {`"min_tokens":5,"max_tokens":5`, ""}, {`"min_tokens":6,"max_tokens":5`, "min_tokens"}, {`"min_tokens":-1`, "min_tokens"},
	{`"temperature":0`, ""}, {`"temperature":100`, ""}, {`"temperature":-0.1`, "temperature"}, {`"temperature":101`, "temperature"}, {`"temperature":1e400`, "temperature"}, {`"temperature":"hot"`, "temperature"}, {`"temperature":[1]`, "temperature"},
	{`"top_p":0`, ""}, {`"top_p":1`, ""}, {`"top_p":1.01`, "top_p"}, {`"top_p":-0.01`, "top_p"},
	{`"top_k":-1`, ""}, {`"top_k":0`, ""}, {`"top_k":2147483647`, ""}, {`"top_k":-2`, "top_k"}, {`"top_k":2147483648`, "top_k"}, {`"top_k":0.5`, "top_k"},
	{`"min_p":0`, ""}, {`"min_p":1`, ""}, {`"min_p":-1`, "min_p"}, {`"min_p":2`, "min_p"},
	{`"repetition_penalty":1.1`, ""}, {`"repetition_penalty":0`, "repetition_penalty"}, {`"repetition_penalty":-1`, "repetition_penalty"},
	{`"presence_penalty":-2`, ""}, {`"presence_penalty":2`, ""}, {`"presence_penalty":2.1`, "presence_penalty"},
	{`"frequency_penalty":-2`, ""}, {`"frequency_penalty":2`, ""}, {`"frequency_penalty":-2.1`, "frequency_penalty"},
	{`"seed":-9223372036854775808`, ""}, {`"seed":9223372036854775807`, ""}, {`"seed":9223372036854775808`, "seed"}, {`"seed":1.5`, "seed"},
	{`"logit_bias":{}`, ""}, {`"logit_bias":{"0":100,"258":-100}`, ""}, {`"logit_bias":{"259":1}`, "logit_bias"}, {`"logit_bias":{"-1":1}`, "logit_bias"}, {`"logit_bias":{"a":1}`, "logit_bias"}, {`"logit_bias":{"07":1}`, "logit_bias"}, {`"logit_bias":{"1":101}`, "logit_bias"}, {`"logit_bias":{"1":null}`, "logit_bias"}, {`"logit_bias":[1]`, "logit_bias"}, {`"logit_bias":{"99999999999999999999":1}`, "logit_bias"},
	{`"logit_bias":{` + joinN(1025, func(i int) string { return fmt.Sprintf(`"%d":1`, i) }) + `}`, "logit_bias"},
	{`"stop":"x"`, ""}, {`"stop":[]`, ""}, {`"stop":""`, "stop"}, {`"stop":[""]`, "stop"}, {`"stop":[1]`, "stop"}, {`"stop":{}`, "stop"}, {`"stop":["a",null]`, "stop"},
	{`"stop":"` + strings.Repeat("s", 256) + `"`, ""}, {`"stop":"` + strings.Repeat("s", 257) + `"`, "stop"},
	{`"stop":[` + joinN(16, func(int) string { return `"s"` }) + `]`, ""}, {`"stop":[` + joinN(17, func(int) string { return `"s"` }) + `]`, "stop"},
	{`"stop_token_ids":[]`, ""}, {`"stop_token_ids":[0,258]`, ""}, {`"stop_token_ids":[259]`, "stop_token_ids"}, {`"stop_token_ids":[-1]`, "stop_token_ids"}, {`"stop_token_ids":[[1]]`, "stop_token_ids"}, {`"stop_token_ids":["1"]`, "stop_token_ids"}, {`"stop_token_ids":"1"`, "stop_token_ids"}, {`"stop_token_ids":[4294967297]`, "stop_token_ids"},
	{`"stop_token_ids":[` + joinN(128, func(int) string { return "1" }) + `]`, ""}, {`"stop_token_ids":[` + joinN(129, func(int) string { return "1" }) + `]`, "stop_token_ids"},
	{`"ignore_eos":true,"max_tokens":3`, ""}, {`"ignore_eos":1`, "ignore_eos"}, {`"include_stop_str_in_output":"yes"`, "include_stop_str_in_output"},
	{`"skip_special_tokens":false`, ""}, {`"return_token_ids":true`, ""}, {`"return_tokens_as_token_ids":true`, ""},
	{`"stream":"no"`, "stream"}, {`"stream_options":{}`, "stream_options"}, {`"stream":true,"stream_options":[]`, "stream_options"}, {`"stream":true,"stream_options":{"include_usage":1}`, "stream_options.include_usage"}, {`"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`, ""},
	{`"cache_salt":"s"`, ""}, {`"cache_salt":""`, "cache_salt"}, {`"cache_salt":1`, "cache_salt"}, {`"cache_salt":"` + strings.Repeat("s", 1025) + `"`, "cache_salt"},
	{`"priority":0`, ""}, {`"priority":1`, "priority"},
	{`"model":"m"`, ""}, {`"model":"org/alias"`, ""}, {`"model":7`, "model"},
	{`"user":"u","metadata":{"a":"b"},"store":true,"service_tier":"auto","safety_identifier":"x"`, ""}, {`"metadata":"` + strings.Repeat("m", 16<<10) + `"`, "metadata"},
	{`"request_id":"r-1"`, ""}, {`"request_id":"a b"`, "request_id"},
	{`"unknown_field":{"a":[1]}`, ""}, {`"Temperature":"ignored, names are exact"`, ""},
	{`"response_format":{"type": "text"}`, ""}, {`"response_format":{"type":"json_object"}`, ""}, {`"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"integer"}}}`, ""}, {`"response_format":{"type":"json_schema"}`, "response_format"}, {`"response_format":{"type":"json_schema","json_schema":{"name":"n"}}`, "response_format"}, {`"response_format":{"type":"xml"}`, "response_format"}, {`"response_format":"text"`, "response_format"}, {`"response_format":{"type":"json_schema","json_schema":{"schema":{"not":{}}}}`, "response_format"}, {`"response_format":{"type":"structural_tag"}`, "response_format"},
	{`"prompt_logprobs":0`, ""}, {`"prompt_logprobs":20`, ""}, {`"prompt_logprobs":21`, "prompt_logprobs"}, {`"prompt_logprobs":-1`, "prompt_logprobs"}, {`"prompt_logprobs":1,"stream":true`, "prompt_logprobs"}, {`"length_penalty":1.0`, ""}, {`"length_penalty":1.1`, "length_penalty"}, {`"use_beam_search":true`, "use_beam_search"},
	{`"bad_words":[]`, ""}, {`"bad_words":["x"," yz"]`, ""}, {`"bad_words":[""]`, "bad_words"}, {`"bad_words":"x"`, "bad_words"}, {`"bad_words":["` + strings.Repeat("s", 257) + `"]`, "bad_words"}, {`"bad_words":[` + joinN(129, func(int) string { return `"s"` }) + `]`, "bad_words"}, {`"allowed_token_ids":[1,256,258]`, ""}, {`"allowed_token_ids":[]`, "allowed_token_ids"}, {`"allowed_token_ids":[259]`, "allowed_token_ids"}, {`"allowed_token_ids":[4194305]`, "allowed_token_ids"}, {`"allowed_token_ids":[-1]`, "allowed_token_ids"}, {`"truncate_prompt_tokens":5`, ""}, {`"truncate_prompt_tokens":-1`, ""}, {`"truncate_prompt_tokens":0`, "truncate_prompt_tokens"}, {`"truncate_prompt_tokens":-2`, "truncate_prompt_tokens"}, {`"truncation_side":"right"`, ""}, {`"truncation_side":"up"`, "truncation_side"},
	{`"guided_json":{}`, ""}, {`"guided_json":"{\"type\":\"null\"}"`, ""}, {`"guided_json":7`, "guided_json"}, {`"guided_json":"x"`, "guided_json"}, {`"guided_json":{"type":"strin"}`, "guided_json"}, {`"guided_regex":"a"`, ""}, {`"guided_regex":"("`, "guided_regex"}, {`"guided_regex":1`, "guided_regex"}, {`"guided_regex":"` + strings.Repeat("a", 65<<10) + `"`, "guided_regex"},
	{`"guided_choice":["a"]`, ""}, {`"guided_choice":[]`, "guided_choice"}, {`"guided_choice":[""]`, "guided_choice"}, {`"guided_choice":[1]`, "guided_choice"}, {`"guided_choice":[` + joinN(4097, func(int) string { return `"s"` }) + `]`, "guided_choice"}, {`"guided_grammar":"start: \"a\""`, ""}, {`"guided_grammar":"a"`, "guided_grammar"}, {`"guided_grammar":{}`, "guided_grammar"},
	{`"guided_json":{},"guided_whitespace_pattern":" ?"`, ""}, {`"guided_json":{},"guided_whitespace_pattern":"("`, "guided_json"}, {`"guided_whitespace_pattern":" ?"`, "guided_whitespace_pattern"}, {`"guided_json":{},"guided_regex":"a"`, "guided_regex"}, {`"response_format":{"type":"json_object"},"structured_outputs":{"regex":"a"}`, "structured_outputs"}, {`"guided_decoding_backend":"x"`, ""},
	{`"structured_outputs":{"regex":"a"}`, ""}, {`"structured_outputs":{"json":{"type":"integer"},"whitespace_pattern":" ?","disable_fallback":true}`, ""}, {`"structured_outputs":{"json_object":true,"disable_any_whitespace":true}`, ""}, {`"structured_outputs":{"choice":["a","b"]}`, ""}, {`"structured_outputs":{"grammar":"start: /a/"}`, ""}, {`"structured_outputs":{}`, "structured_outputs"}, {`"structured_outputs":{"json_object":false}`, "structured_outputs"}, {`"structured_outputs":{"json_object":1}`, "structured_outputs"}, {`"structured_outputs":{"regex":"a","choice":["a"]}`, "structured_outputs"}, {`"structured_outputs":{"structural_tag":{}}`, "structured_outputs"}, {`"structured_outputs":{"regex":"("}`, "structured_outputs"}, {`"structured_outputs":"a"`, "structured_outputs"},
	{`"kv_transfer_params":{}`, "kv_transfer_params"}, {`"vllm_xargs":{"a":1}`, "vllm_xargs"}, {`"mm_processor_kwargs":{}`, ""}, {`"mm_processor_kwargs":{"a":1}`, "mm_processor_kwargs"}, {`"thinking_token_budget":1`, "thinking_token_budget"}, {`"repetition_detection":{}`, "repetition_detection"}, {`"logprob_token_ids":[1]`, "logprob_token_ids"}, {`"stream_interval":2`, "stream_interval"},
}

const aTool = `{"type":"function","function":{"name":"f"}}`

var chatEdges = []edge{
	{`"logprobs":true`, ""}, {`"logprobs":true,"top_logprobs":20`, ""}, {`"logprobs":true,"top_logprobs":21`, "top_logprobs"}, {`"top_logprobs":1`, "top_logprobs"}, {`"top_logprobs":0`, ""}, {`"logprobs":1`, "logprobs"}, {`"logprobs":true,"top_logprobs":-1`, "top_logprobs"},
	{`"max_completion_tokens":3`, ""}, {`"max_completion_tokens":0`, "max_completion_tokens"},
	{`"tools":[]`, ""}, {`"tools":[{"type":"function","function":{"name":"f"}}]`, ""}, {`"tools":[{"type":"retrieval"}]`, "tools[0]"}, {`"tools":[{"type":"function","function":{"name":""}}]`, "tools[0]"}, {`"tools":{}`, "tools"}, {`"tools":[` + joinN(129, func(int) string { return `{"type":"function","function":{"name":"f"}}` }) + `]`, "tools"},
	{`"tool_choice":"auto"`, ""}, {`"tool_choice":"none"`, ""}, {`"tool_choice":"required"`, "tool_choice"}, {`"tool_choice":{"type":"function","function":{"name":"f"}}`, "tool_choice"}, {`"tool_choice":"any"`, "tool_choice"}, {`"tool_choice":7`, "tool_choice"},
	{`"tool_choice":"required","tools":[` + aTool + `]`, ""}, {`"tool_choice":{"type":"function","function":{"name":"f"}},"tools":[` + aTool + `]`, ""}, {`"tool_choice":{"type":"function","function":{"name":"g"}},"tools":[` + aTool + `]`, "tool_choice"}, {`"tool_choice":{"type":"allowed_tools"},"tools":[` + aTool + `]`, "tool_choice"}, {`"tool_choice":"required","add_generation_prompt":false,"tools":[` + aTool + `]`, "tool_choice"},
	{`"tool_choice":"required","structured_outputs":{"regex":"a"},"tools":[` + aTool + `]`, "structured_outputs"}, {`"tool_choice":"required","response_format":{"type":"json_object"},"tools":[` + aTool + `]`, ""}, {`"tools":[` + aTool + `],"response_format":{"type":"json_object"}`, ""},
	{`"parallel_tool_calls":true`, ""}, {`"parallel_tool_calls":false`, ""}, {`"parallel_tool_calls":1`, "parallel_tool_calls"}, {`"functions":[{}]`, "functions"}, {`"function_call":"auto"`, "function_call"},
	{`"add_generation_prompt":false`, ""}, {`"continue_final_message":true`, ""}, {`"continue_final_message":true,"add_generation_prompt":true`, "continue_final_message"}, {`"continue_final_message":1`, "continue_final_message"}, {`"echo":true`, ""}, {`"echo":2`, "echo"}, {`"add_special_tokens":true`, "add_special_tokens"},
	{`"chat_template":"x"`, "chat_template"}, {`"chat_template_kwargs":{}`, ""}, {`"chat_template_kwargs":{"a":{"b":{"c":{"d":{"e":1}}}}}`, ""}, {`"chat_template_kwargs":{"a":{"b":{"c":{"d":{"e":{}}}}}}`, "chat_template_kwargs"}, {`"chat_template_kwargs":{"messages":1}`, "chat_template_kwargs"}, {`"chat_template_kwargs":[]`, "chat_template_kwargs"}, {`"chat_template_kwargs":{"a":"` + strings.Repeat("x", 16<<10) + `"}`, "chat_template_kwargs"},
	{`"documents":[{}]`, ""}, {`"documents":{}`, "documents"}, {`"documents":[` + joinN(1025, func(int) string { return "{}" }) + `]`, "documents"},
	{`"modalities":["text"]`, ""}, {`"modalities":["text","audio"]`, "modalities"}, {`"audio":{}`, "audio"}, {`"web_search_options":{}`, "web_search_options"}, {`"reasoning_effort":"low"`, ""},
	{`"messages":[]`, "messages"}, {`"messages":"hi"`, "messages"}, {`"messages":[1]`, "messages[0]"}, {`"messages":[{}]`, "messages[0]"}, {`"messages":[{"role":"robot","content":""}]`, "messages[0]"}, {`"messages":[{"role":"user"}]`, "messages[0]"},
	{`"messages":[{"role":"user","content":5}]`, "messages"}, {`"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://x"}}]}]`, "messages"}, {`"messages":[{"role":"user","content":"forbidden"}]`, "messages"},
	{`"messages":[{"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f","arguments":"{"}}]}]`, "messages"}, {`"messages":[{"role":"user","content":"x","tool_calls":[]}]`, "messages[0]"}, {`"messages":[{"role":"assistant","function_call":{}}]`, "messages[0]"},
	{`"messages":[` + joinN(2049, func(int) string { return `{"role":"user","content":""}` }) + `]`, "messages"},
}

var completionEdges = []edge{
	{`"prompt":"x"`, ""}, {`"prompt":["x","y"]`, ""}, {`"prompt":[1,2.0]`, ""}, {`"prompt":[ [1,2] , [3] ]`, ""},
	{`"prompt":""`, "prompt"}, {`"prompt":[]`, "prompt"}, {`"prompt":[[]]`, "prompt"}, {`"prompt":[""]`, "prompt"}, {`"prompt":[1,"a"]`, "prompt"}, {`"prompt":["a",1]`, "prompt"}, {`"prompt":["a",[1]]`, ""}, {`"prompt":[259]`, "prompt"}, {`"prompt":[-1]`, "prompt"}, {`"prompt":[1e3]`, "prompt"}, {`"prompt":[null]`, "prompt"}, {`"prompt":{}`, "prompt"}, {`"prompt":[[[1]]]`, "prompt"}, {`"prompt":["a",null]`, "prompt"}, {`"prompt":7`, "prompt"},
	{`"prompt":[` + joinN(1025, func(int) string { return `"a"` }) + `]`, "prompt"}, {`"n":16,"prompt":[` + joinN(65, func(int) string { return `"a"` }) + `]`, "n"},
	{`"logprobs":0`, ""}, {`"logprobs":20`, ""}, {`"logprobs":21`, "logprobs"}, {`"logprobs":-1`, "logprobs"}, {`"logprobs":true`, "logprobs"},
	{`"echo":true`, ""}, {`"echo":true,"max_tokens":0`, ""}, {`"echo":true,"logprobs":1`, ""}, {`"best_of":1`, ""}, {`"n":2,"best_of":2`, ""}, {`"best_of":3`, "best_of"}, {`"best_of":0`, "best_of"}, {`"suffix":""`, ""}, {`"suffix":"s"`, "suffix"}, {`"add_special_tokens":false`, ""},
	{`"max_tokens":4095,"prompt":"x"`, ""}, {`"max_tokens":4096,"prompt":"x"`, "prompt"},
}

func joinN(n int, f func(i int) string) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = f(i)
	}
	return strings.Join(parts, ",")
}

func TestEdgeValues(t *testing.T) {
	f := newFakeEngine("abc")
	h := newTestServer(t, f, Config{}).Handler()
	check := func(path, base string, edges []edge) {
		for _, e := range edges {
			body := "{" + base + "," + e.body + "}" // the last of equal names counts
			w := do(h, "POST", path, body)
			name := fmt.Sprintf("%s %.120s", path, e.body)
			if e.param == "" {
				require.Equal(t, 200, w.Code, "%s: %s", name, w.Body)
				continue
			}
			require.Equal(t, 400, w.Code, "%s: %s", name, w.Body)
			message, kind, param, _ := errorOf(t, w)
			require.Equal(t, e.param, param, "%s: %s", name, message)
			require.Equal(t, typeInvalidRequest, kind)
			require.NotEmpty(t, message)
		}
	}
	check("/v1/chat/completions", `"messages":[{"role":"user","content":"hi"}]`, slices.Concat(sharedEdges, chatEdges))
	check("/v1/completions", `"prompt":"x"`, slices.Concat(sharedEdges, completionEdges))
}

// TestEveryFieldHasAnEdge keeps the tables above complete.
func TestEveryFieldHasAnEdge(t *testing.T) {
	tested := func(name string, edges []edge) bool {
		return slices.ContainsFunc(edges, func(e edge) bool { return strings.Contains(e.body, `"`+name+`":`) })
	}
	for name := range maps.Keys(limits) {
		require.True(t, tested(name, slices.Concat(sharedEdges, chatEdges, completionEdges)), "no edge value for %s", name)
	}
	for name := range maps.Keys(merge(samplingFields, structureFields)) {
		require.True(t, tested(name, sharedEdges), "no edge value for %s", name)
	}
}

func TestBodies(t *testing.T) {
	h := newTestServer(t, newFakeEngine("abc"), Config{}).Handler()
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct {
		body   string
		status int
	}{
		{"", 400}, {"null", 400}, {"[]", 400}, {"7", 400}, {`{"prompt":"x"`, 400}, {`{"prompt":"x"} {}`, 400}, {`{"prompt":"x"}` + "\x00", 400}, {`{}`, 400}, {"{\"prompt\":\"\xff\"}", 200},
		{`{"prompt":"x","unknown":` + deep(63) + `}`, 200}, {`{"prompt":"x","unknown":` + deep(64) + `}`, 400}, {strings.Repeat(`{"a":`, 100_000), 400},
		{`{"prompt":"x","unknown":"` + strings.Repeat("[", 100) + `\"["}`, 200},
		{`{"prompt":"x","unknown":"` + strings.Repeat("x", maxBodyBytes) + `"}`, 413},
	} {
		w := do(h, "POST", "/v1/completions", c.body)
		require.Equal(t, c.status, w.Code, "%.60s: %s", c.body, w.Body)
		require.NotEmpty(t, w.Header().Get("X-Request-Id"))
	}
}

func TestDefaultsResolve(t *testing.T) {
	f := newFakeEngine("abc")
	temperature, topK, maxNew := 0.7, 20, 5000
	f.info.Generation = Generation{Temperature: &temperature, TopK: &topK, MaxNewTokens: &maxNew}
	s := newTestServer(t, f, Config{})
	do(s.Handler(), "POST", "/v1/chat/completions", chatBody(`,"top_k":5`))
	got := f.last(t)
	require.Equal(t, float32(0.7), got.Sampling.Temperature, "generation_config.json")
	require.Equal(t, int32(5), got.Sampling.TopK, "request")
	require.Equal(t, float32(1), got.Sampling.TopP, "OpenAI")
	require.Equal(t, int32(-1), got.Sampling.Logprobs)
	require.Equal(t, 4096-len(got.Prompt), got.MaxTokens, "a default is cut to what fits, not refused")

	do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x"}`)
	other := f.last(t)
	require.Equal(t, 16, other.MaxTokens)
	require.NotEqual(t, got.Sampling.Seed, other.Sampling.Seed, "seeds are random")
	do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x","seed":-3,"temperature":1e-9,"top_p":0,"top_k":-1}`)
	got = f.last(t)
	require.Equal(t, uint64(math.MaxUint64-2), got.Sampling.Seed)
	require.Zero(t, got.Sampling.Temperature)
	require.Greater(t, got.Sampling.TopP, float32(0), "0 would be off")
	require.Zero(t, got.Sampling.TopK)

	do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x","seed":-1}`)
	first := f.last(t).Sampling.Seed
	do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x","seed":-1}`)
	require.NotEqual(t, first, f.last(t).Sampling.Seed, "any seed")

	reasons := map[string]engine.Setting{}
	for _, row := range s.Defaults() {
		reasons[row.Name] = row
	}
	require.Equal(t, engine.Setting{Name: "temperature", Value: "0.7", Reason: "generation_config.json"}, reasons["temperature"])
	require.Equal(t, engine.Setting{Name: "top_p", Value: "1", Reason: "OpenAI default"}, reasons["top_p"])
}

// TestMaxLogprobs: --max-logprobs is the bound of every list of log probabilities, and named where it is passed.
func TestMaxLogprobs(t *testing.T) {
	f := newFakeEngine("abc")
	f.info.MaxLogprobs = 50
	h := newTestServer(t, f, Config{}).Handler()
	for path, fields := range map[string][]string{
		"/v1/completions":      {`"prompt":"x","logprobs":%d`, `"prompt":"x","prompt_logprobs":%d`},
		"/v1/chat/completions": {`"messages":[{"role":"user","content":"hi"}],"logprobs":true,"top_logprobs":%d`},
	} {
		for _, field := range fields {
			require.Equal(t, 200, do(h, "POST", path, "{"+fmt.Sprintf(field, 50)+"}").Code, field)
			w := do(h, "POST", path, "{"+fmt.Sprintf(field, 51)+"}")
			require.Equal(t, 400, w.Code, field)
			require.Contains(t, w.Body.String(), "at most 50 tokens (--max-logprobs)")
		}
	}
	require.Contains(t, do(h, "GET", "/server_info", "").Body.String(), `"top_logprobs":50`)
}

// TestMorePromptsThanMayWait: a list that could never be admitted is the client's fault, not a matter of trying again.
func TestMorePromptsThanMayWait(t *testing.T) {
	f := newFakeEngine("abc")
	f.info.MaxQueued = 4
	h := newTestServer(t, f, Config{}).Handler()
	require.Equal(t, 200, do(h, "POST", "/v1/completions", `{"prompt":["a","b"],"n":2}`).Code)
	w := do(h, "POST", "/v1/completions", `{"prompt":["a","b","c"],"n":2}`)
	require.Equal(t, 400, w.Code)
	require.Contains(t, w.Body.String(), "--max-num-queued-reqs lets 4 requests wait")
}

// TestShortTextsAreCounted: what a prompt has too many of is told exactly, for clients subtract.
func TestShortTextsAreCounted(t *testing.T) {
	h := newTestServer(t, newFakeEngine("abc"), Config{}).Handler()
	w := do(h, "POST", "/v1/completions", `{"prompt":"Once upon a time","max_tokens":4096}`)
	require.Equal(t, 400, w.Code)
	require.Contains(t, w.Body.String(), "the prompt has 16 tokens and 4096 more were asked for (4112 in all)")
}
