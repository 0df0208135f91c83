package server

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

const weatherTool = `"tools":[{"type":"function","function":{"name":"weather"}},{"type":"function","function":{"name":"time"}}]`

// chatAnswer is what a client sees of an answer, streamed or not.
type chatAnswer struct {
	Content *string
	Calls   []toolCall
	Finish  string
}

func askWhole(t *testing.T, s *Server, extra string) chatAnswer {
	t.Helper()
	w := do(s.Handler(), "POST", "/v1/chat/completions", chatBody(extra))
	require.Equal(t, 200, w.Code, w.Body)
	c := decode[struct{ Choices []chatChoice }](t, w.Body.String()).Choices[0]
	for i := range c.Message.ToolCalls {
		require.NotEmpty(t, c.Message.ToolCalls[i].ID)
		c.Message.ToolCalls[i].ID = ""
	}
	return chatAnswer{c.Message.Content, c.Message.ToolCalls, *c.FinishReason}
}

func askStream(t *testing.T, s *Server, extra string) chatAnswer {
	t.Helper()
	var out chatAnswer
	text := ""
	for _, e := range events(t, do(s.Handler(), "POST", "/v1/chat/completions", chatBody(extra+`,"stream":true`)).Body) {
		if e == "[DONE]" {
			continue
		}
		c := decode[struct{ Choices []chatChoice }](t, e).Choices[0]
		if c.Delta.Content != nil {
			text += *c.Delta.Content
		}
		for _, d := range c.Delta.ToolCalls {
			if d.ID != "" {
				require.Len(t, out.Calls, d.Index)
				require.Equal(t, "function", d.Type)
				out.Calls = append(out.Calls, call(d.Function.Name, ""))
			}
			out.Calls[d.Index].Function.Arguments += d.Function.Arguments
		}
		if c.FinishReason != nil {
			out.Finish = *c.FinishReason
		}
	}
	if out.Content = &text; text == "" && len(out.Calls) > 0 {
		out.Content = nil
	}
	return out
}

func TestToolCalls(t *testing.T) {
	const sunny = `<tool_call>{"name": "weather", "arguments": {"b": 1.0, "a": "é"}}</tool_call>`
	text := func(s string) *string { return &s }
	for _, c := range []struct {
		name, answer, extra string
		want                chatAnswer
	}{
		{"auto", "Let me look.\n" + sunny, weatherTool, chatAnswer{text("Let me look."), []toolCall{call("weather", `{"b": 1.0, "a": "é"}`)}, "tool_calls"}},
		{"parallel", sunny + "\n" + sunny, weatherTool, chatAnswer{nil, []toolCall{call("weather", `{"b": 1.0, "a": "é"}`), call("weather", `{"b": 1.0, "a": "é"}`)}, "tool_calls"}},
		{"one at most", sunny + "\n" + sunny, weatherTool + `,"parallel_tool_calls":false`, chatAnswer{nil, []toolCall{call("weather", `{"b": 1.0, "a": "é"}`)}, "tool_calls"}},
		{"no call", "It rains.", weatherTool, chatAnswer{text("It rains."), nil, "stop"}},
		{"none", sunny, weatherTool + `,"tool_choice":"none"`, chatAnswer{text(sunny), nil, "stop"}},
		{"no tools", sunny, `"n":1`, chatAnswer{text(sunny), nil, "stop"}},
		{"cut", sunny[:40], weatherTool + `,"max_tokens":40`, chatAnswer{text(sunny[:40]), nil, "length"}},
		{"format and tools", "<tool_call>\n{\"name\": \"weather\", \"arguments\": {}}\n</tool_call>", weatherTool + `,"response_format":{"type":"json_object"}`, chatAnswer{nil, []toolCall{call("weather", "{}")}, "tool_calls"}},
		{"format instead of tools", `{"a":1}`, weatherTool + `,"response_format":{"type":"json_object"}`, chatAnswer{text(`{"a":1}`), nil, "stop"}},
	} {
		s := newTestServer(t, newFakeEngine(c.answer), Config{})
		require.Equal(t, c.want, askWhole(t, s, ","+c.extra), c.name)
		if c.name == "cut" {
			continue // a stream has shown the beginning of the call
		}
		require.Equal(t, c.want, askStream(t, s, ","+c.extra), c.name)
	}
}

// TestForcedCalls: whatever the model would say, a required or named call has the
// form and arguments that the tool's schema has.
func TestForcedCalls(t *testing.T) {
	const (
		tools = `,"tools":[{"type":"function","function":{"name":"add","parameters":{"type":"object","properties":{"a":{"type":"integer"},"b":{"enum":["x","y"]}},"required":["a","b"],"additionalProperties":false}}},` +
			`{"type":"function","function":{"name":"now\"<|im_end|>"}},{"type":"function","function":{"name":"add"}}]`
		add      = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 17, \"b\": \"y\"}}\n</tool_call>"
		now      = "<tool_call>\n{\"name\": \"now\\\"<|im_end|>\", \"arguments\": {}}\n</tool_call>"
		required = tools + `,"tool_choice":"required"`
		named    = tools + `,"tool_choice":{"type":"function","function":{"name":"add"}}`
	)
	added, nowed := call("add", `{"a": 17, "b": "y"}`), call(`now"<|im_end|>`, "{}")
	for _, c := range []struct {
		name, answer, extra string
		want                chatAnswer
	}{
		{"required", add, required, chatAnswer{nil, []toolCall{added}, "tool_calls"}},
		{"required, parallel", add + "\n" + now + "\n" + add, required, chatAnswer{nil, []toolCall{added, nowed, added}, "tool_calls"}},
		{"required, one at most", add + "\n" + now, required + `,"parallel_tool_calls":false`, chatAnswer{nil, []toolCall{added}, "tool_calls"}},
		{"named", add + "\n" + now, named, chatAnswer{nil, []toolCall{added}, "stop"}},
		{"a format beside it", add, required + `,"response_format":{"type":"json_object"}`, chatAnswer{nil, []toolCall{added}, "tool_calls"}},
	} {
		s := newTestServer(t, newFakeEngine(c.answer), Config{})
		require.Equal(t, c.want, askWhole(t, s, c.extra), c.name)
		require.Equal(t, c.want, askStream(t, s, c.extra), c.name)
	}
	for _, answer := range []string{"I would rather not.", now, `<tool_call>{"name": "add", "arguments": {"a": "17"}}`, add[:30]} {
		s := newTestServer(t, newFakeEngine(answer), Config{})
		got := askWhole(t, s, named+`,"max_tokens":500`)
		require.Len(t, got.Calls, 1, answer)
		require.Equal(t, "add", got.Calls[0].Function.Name)
		arguments := decode[map[string]any](t, got.Calls[0].Function.Arguments)
		require.Len(t, arguments, 2)
		require.IsType(t, 0.0, arguments["a"])
		require.Contains(t, []any{"x", "y"}, arguments["b"])
		require.Equal(t, got, askStream(t, s, named+`,"max_tokens":500`))
	}
	// Arguments are an object, whether the schema says so or not: clients call functions by it.
	for parameters, city := range map[string]any{`{}`: nil, ` { }`: nil, `{"properties":{"city":{"enum":["Paris"]}},"required":["city"]}`: "Paris", `{"anyOf":[{"type":"object","properties":{"city":{"const":"Paris"}},"required":["city"]}]}`: "Paris"} {
		s := newTestServer(t, newFakeEngine("x"), Config{})
		got := askWhole(t, s, `,"max_tokens":500,"tool_choice":"required","parallel_tool_calls":false,"tools":[{"type":"function","function":{"name":"f","parameters":`+parameters+`}}]`)
		require.Len(t, got.Calls, 1, parameters)
		require.Equal(t, city, decode[map[string]any](t, got.Calls[0].Function.Arguments)["city"], parameters)
	}
	// A schema that cannot be enforced is said to be the tool's.
	s := newTestServer(t, newFakeEngine(add), Config{})
	w := do(s.Handler(), "POST", "/v1/chat/completions", chatBody(`,"tool_choice":"required","tools":[`+aTool+`,{"type":"function","function":{"name":"g","parameters":{"not":{}}}}]`))
	require.Equal(t, 400, w.Code)
	message, _, param, _ := errorOf(t, w)
	require.Equal(t, "tools[1]", param)
	require.Contains(t, message, "not")
}

// TestToolVectorsOverHTTP runs the vectors through the endpoint, a byte a token.
func TestToolVectorsOverHTTP(t *testing.T) {
	for _, v := range toolVectors(t) {
		s := newTestServer(t, newFakeEngine(v.Text), Config{})
		got := askWhole(t, s, ","+weatherTool)
		require.Len(t, got.Calls, len(v.Calls), v.Name)
		for i, want := range v.Calls {
			require.Equal(t, want.Name, got.Calls[i].Function.Name)
			require.JSONEq(t, string(want.Arguments), got.Calls[i].Function.Arguments)
			require.Contains(t, []string{"tool_calls", "stop"}, got.Finish)
		}
		if v.Name != "invalid_json" {
			require.Equal(t, got, askStream(t, s, ","+weatherTool), v.Name)
		}
	}
}

func TestContinueFinalMessage(t *testing.T) {
	f := newFakeEngine(" there")
	s := newTestServer(t, f, Config{})
	const body = `{"messages":[{"role":"user","content":"greet"},{"role":"assistant","content":"Hi"}],"continue_final_message":true`
	w := do(s.Handler(), "POST", "/v1/chat/completions", body+"}")
	require.Equal(t, " there", *decode[struct{ Choices []chatChoice }](t, w.Body.String()).Choices[0].Message.Content)
	require.Equal(t, "<|im_start|>user\ngreet<|im_end|>\n<|im_start|>assistant\nHi", s.tokenizer.Decode(f.last(t).Prompt, false))
	w = do(s.Handler(), "POST", "/v1/chat/completions", body+`,"echo":true}`)
	require.Equal(t, "Hi there", *decode[struct{ Choices []chatChoice }](t, w.Body.String()).Choices[0].Message.Content)
}

func TestTruncatedPrompts(t *testing.T) {
	f := newFakeEngine("x")
	h := newTestServer(t, f, Config{}).Handler()
	for extra, want := range map[string]string{
		`"truncate_prompt_tokens":3`: "fgh", `"truncate_prompt_tokens":3,"truncation_side":"right"`: "abc",
		`"truncate_prompt_tokens":99`: "abcdefgh", `"truncate_prompt_tokens":-1,"max_tokens":4091`: "defgh",
	} {
		w := do(h, "POST", "/v1/completions", `{"prompt":"abcdefgh",`+extra+`}`)
		require.Equal(t, 200, w.Code, w.Body)
		require.Equal(t, ids(want), f.last(t).Prompt, extra)
	}
}

// TestScoreOnly: max_tokens 0 with echo says the prompt again and nothing else.
func TestScoreOnly(t *testing.T) {
	f := newFakeEngine("generated")
	h := newTestServer(t, f, Config{}).Handler()
	body := decode[struct {
		Choices []textChoice
		Usage   usage
	}](t, do(h, "POST", "/v1/completions", `{"prompt":"abc","echo":true,"max_tokens":0}`).Body.String())
	require.Equal(t, "abc", body.Choices[0].Text)
	require.Equal(t, "length", *body.Choices[0].FinishReason)
	require.Equal(t, 0, body.Usage.CompletionTokens)
	require.Equal(t, 1, f.last(t).MaxTokens, "an engine generates always")
}

// toolVector is a case of tool_parse_handwritten.json.
type toolVector struct {
	Name, Text, Content string
	Calls               []struct {
		Name      string
		Arguments json.RawMessage
	} `json:"tool_calls"`
}

// TestFinishOfChoices: n choices decide each for itself.
func TestFinishOfChoices(t *testing.T) {
	f := newFakeEngine("")
	f.reply = func(r engine.Request) []int32 {
		if r.Sampling.Choice == 1 {
			return ids(`<tool_call>{"name": "weather"}</tool_call>`)
		}
		return ids("no")
	}
	w := do(newTestServer(t, f, Config{}).Handler(), "POST", "/v1/chat/completions", chatBody(`,"n":2,`+weatherTool))
	choices := decode[struct{ Choices []chatChoice }](t, w.Body.String()).Choices
	require.Equal(t, "stop", *choices[0].FinishReason)
	require.Equal(t, "tool_calls", *choices[1].FinishReason)
}

// TestPromptScores: prompt_logprobs, and echo with logprobs as evaluation
// harnesses use it.
func TestPromptScores(t *testing.T) {
	h := newTestServer(t, newFakeEngine("xy"), Config{}).Handler()
	w := do(h, "POST", "/v1/completions", `{"prompt":"abc","echo":true,"max_tokens":0,"logprobs":1}`)
	require.Equal(t, 200, w.Code, w.Body)
	require.Contains(t, w.Body.String(), `"text":"abc","logprobs":{"text_offset":[0,1,2],"token_logprobs":[null,-0.125,-0.25],"tokens":["a","b","c"],"top_logprobs":[null,{"b":-0.125,"c":-0.015625},{"c":-0.25,"d":-0.015625}]}`)

	w = do(h, "POST", "/v1/completions", `{"prompt":"ab","prompt_logprobs":1,"max_tokens":1}`)
	require.Contains(t, w.Body.String(), `"prompt_logprobs":[null,{"98":{"logprob":-0.125,"rank":2,"decoded_token":"b"},"99":{"logprob":-0.015625,"rank":1,"decoded_token":"c"}}]`)
	w = do(h, "POST", "/v1/chat/completions", chatBody(`,"prompt_logprobs":0`))
	require.Contains(t, w.Body.String(), `"prompt_logprobs":[null,{`)

	// A stream says the same.
	const body = `{"prompt":"abc","echo":true,"max_tokens":2,"logprobs":0`
	whole := decode[struct{ Choices []textChoice }](t, do(h, "POST", "/v1/completions", body+"}").Body.String()).Choices[0]
	var joined textLogprobs
	text := ""
	for _, e := range events(t, do(h, "POST", "/v1/completions", body+`,"stream":true}`).Body) {
		if e == "[DONE]" {
			continue
		}
		c := decode[struct{ Choices []textChoice }](t, e).Choices[0]
		text += c.Text
		joined.Tokens = append(joined.Tokens, c.Logprobs.Tokens...)
		joined.TextOffset = append(joined.TextOffset, c.Logprobs.TextOffset...)
		joined.TokenLogprobs = append(joined.TokenLogprobs, c.Logprobs.TokenLogprobs...)
		joined.TopLogprobs = append(joined.TopLogprobs, c.Logprobs.TopLogprobs...)
	}
	require.Equal(t, "abcxy", text)
	require.Equal(t, *whole.Logprobs, joined)
}
