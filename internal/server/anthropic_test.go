package server

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func messagesBody(extra string) string {
	return `{"model":"m","max_tokens":500,"messages":[{"role":"user","content":"hi"}]` + extra + `}`
}

const anthropicTool = `,"tools":[{"name":"weather","description":"d","input_schema":{"type":"object","b":1.0}}]`

func TestMessages(t *testing.T) {
	f := newFakeEngine(lookThenCall)
	s := newTestServer(t, f, Config{})
	w := do(s.Handler(), "POST", "/v1/messages", messagesBody(`,"system":[{"type":"text","text":"be brief"}]`+anthropicTool))
	require.Equal(t, 200, w.Code, w.Body)
	require.Contains(t, w.Body.String(), `"input":{"b":1.0,"a":"é"}`, "key order and number spelling are the model's")
	body := decode[struct {
		ID, Type, Role, Model string
		Content               []struct{ Type, Text, ID, Name string }
		StopReason            string `json:"stop_reason"`
		Usage                 anthropicUsage
	}](t, w.Body.String())
	require.Equal(t, "Let me look.", body.Content[0].Text)
	require.Equal(t, "tool_use", body.Content[1].Type)
	require.Equal(t, "weather", body.Content[1].Name)
	require.Equal(t, "tool_use", body.StopReason)
	require.Equal(t, len(lookThenCall)+1, body.Usage.Output)
	require.Equal(t, len(f.last(t).Prompt), body.Usage.Input+body.Usage.CacheRead)
	prompt := s.tokenizer.Decode(f.last(t).Prompt, false)
	require.Equal(t, "TOOLS [{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"d\", \"parameters\": {\"type\": \"object\", \"b\": 1.0}}}]\n"+
		"<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", prompt)

	count := do(s.Handler(), "POST", "/v1/messages/count_tokens", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`)
	require.JSONEq(t, `{"input_tokens":21}`, count.Body.String())
}

func TestMessagesStream(t *testing.T) {
	s := newTestServer(t, newFakeEngine(lookThenCall), Config{})
	w := do(s.Handler(), "POST", "/v1/messages", messagesBody(`,"stream":true`+anthropicTool))
	var kinds []string
	text, input := "", ""
	for part := range strings.SplitSeq(strings.TrimSuffix(w.Body.String(), "\n\n"), "\n\n") {
		name, data, ok := strings.Cut(part, "\n")
		require.True(t, ok, part)
		e := decode[struct {
			Type  string
			Delta struct {
				Type, Text string
				Partial    string `json:"partial_json"`
				StopReason string `json:"stop_reason"`
			}
		}](t, strings.TrimPrefix(data, "data: "))
		require.Equal(t, "event: "+e.Type, name)
		text += e.Delta.Text
		input += e.Delta.Partial
		if len(kinds) == 0 || kinds[len(kinds)-1] != e.Type {
			kinds = append(kinds, e.Type)
		}
		if e.Type == "message_delta" {
			require.Equal(t, "tool_use", e.Delta.StopReason)
		}
	}
	require.Equal(t, "Let me look.", text)
	require.Equal(t, `{"b": 1.0, "a": "é"}`, input)
	one := []string{"content_block_start", "content_block_delta", "content_block_stop"}
	require.Equal(t, append(append(append([]string{"message_start"}, one...), one...), "message_delta", "message_stop"), kinds)
}

// TestTextBehindABrokenCall: arguments, what breaks them and text may come in one piece, of which what belongs to the
// open block goes first; the stream ends as it should.
func TestTextBehindABrokenCall(t *testing.T) {
	const broken = `<tool_call>{"name": "weather", "arguments": {"a": 1}); hello`
	s := newTestServer(t, newFakeEngine(broken), Config{})
	w := do(s.Handler(), "POST", "/v1/messages", messagesBody(`,"stream":true,"stop_sequences":["});X"]`+anthropicTool)) // which holds three bytes back
	require.Equal(t, 200, w.Code, w.Body)
	got := w.Body.String()
	end := strings.Index(got, `"partial_json":"}"`)
	require.Positive(t, end)
	require.Greater(t, strings.Index(got, `"delta":{"text":";"`), end)
	require.Contains(t, got, "event: message_stop")
}

// TestMessagesHistory: tool results come before the text beside them, a prefilled
// answer is continued.
func TestMessagesHistory(t *testing.T) {
	f := newFakeEngine("x. STOP")
	s := newTestServer(t, f, Config{})
	w := do(s.Handler(), "POST", "/v1/messages", `{"max_tokens":50,"stop_sequences":["STOP"],"messages":[
		{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
		{"role":"assistant","content":[{"type":"thinking","thinking":"?"},{"type":"tool_use","id":"t1","name":"f","input":{"z":1.0,"a":2}}]},
		{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"r"}]},{"type":"tool_result","tool_use_id":"t2","is_error":true,"content":"no"},{"type":"text","text":"so?"}]},
		{"role":"assistant","content":"It is"}]}`)
	require.Equal(t, 200, w.Code, w.Body)
	require.Equal(t, "<|im_start|>user\na\nb<|im_end|>\n"+
		"<|im_start|>assistant\n[{\"id\": \"t1\", \"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": {\"z\": 1.0, \"a\": 2}}}]<|im_end|>\n"+
		"<|im_start|>tool\nr<|im_end|>\n<|im_start|>tool\nError: no<|im_end|>\n<|im_start|>user\nso?<|im_end|>\n<|im_start|>assistant\nIt is", s.tokenizer.Decode(f.last(t).Prompt, false))
	require.Contains(t, w.Body.String(), `"stop_reason":"stop_sequence","stop_sequence":"STOP"`)
}

func TestMessagesErrors(t *testing.T) {
	h := newTestServer(t, newFakeEngine("x"), Config{APIKeys: []string{"key"}}).Handler()
	ask := func(body, header, key string) *httptest.ResponseRecorder {
		req := httptest.NewRequest("POST", "/v1/messages", strings.NewReader(body))
		req.Header.Set(header, key)
		return recordRequest(h, req)
	}
	kind := func(w *httptest.ResponseRecorder) string {
		e := decode[struct {
			Type  string
			Error struct{ Type, Message string }
		}](t, w.Body.String())
		require.Equal(t, "error", e.Type)
		require.NotEmpty(t, e.Error.Message)
		return e.Error.Type
	}
	require.Equal(t, 200, ask(messagesBody(""), "X-Api-Key", "key").Code)
	require.Equal(t, 200, ask(messagesBody(""), "Authorization", "Bearer key").Code)
	w := ask(messagesBody(""), "X-Api-Key", "wrong")
	require.Equal(t, 401, w.Code)
	require.Equal(t, "authentication_error", kind(w))
	w = ask(messagesBody(`,"model":"nope"`), "X-Api-Key", "key")
	require.Equal(t, 404, w.Code)
	require.Equal(t, "not_found_error", kind(w))
	for _, body := range []string{
		"{", `{"messages":[{"role":"user","content":"x"}]}`, messagesBody(`,"max_tokens":0`), messagesBody(`,"messages":[{"role":"robot","content":"x"}]`),
		messagesBody(`,"messages":[{"role":"user","content":[{"type":"image"}]}]`), messagesBody(`,"messages":[{"role":"user","content":[{"type":"tool_use"}]}]`),
		messagesBody(`,"tools":[{"type":"web_search_20250305","name":"w"}]`), messagesBody(`,"tool_choice":{"type":"any"}`), messagesBody(`,"tool_choice":{"type":"x"}`),
		messagesBody(`,"mcp_servers":[{}]`), messagesBody(`,"temperature":-1`), messagesBody(`,"max_tokens":4096`),
	} {
		w := ask(body, "X-Api-Key", "key")
		require.Equal(t, 400, w.Code, "%s: %s", body, w.Body)
		require.Equal(t, "invalid_request_error", kind(w))
	}

	f := newFakeEngine("ab")
	f.fail = errors.New("secret of the engine")
	w = do(newTestServer(t, f, Config{}).Handler(), "POST", "/v1/messages", messagesBody(`,"stream":true`))
	require.Equal(t, 200, w.Code)
	require.Contains(t, w.Body.String(), "event: error\ndata: {\"error\":{\"message\":\"the engine failed on this request\",\"type\":\"api_error\"}")
	require.NotContains(t, w.Body.String(), "secret")
}
