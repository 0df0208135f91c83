package server

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// parsedCalls is what an answer comes to.
type parsedCalls struct {
	text  string
	calls []toolCall
	torn  bool // a call was shown that turned out to be none
}

// parse runs an answer through a parser in pieces of size bytes; 0 = at once.
func parseCalls(t *testing.T, text string, size, limit int) parsedCalls {
	t.Helper()
	var got parsedCalls
	var joined callJoiner
	p := newToolParser(limit)
	add := func(content string, calls []callDelta) {
		got.text += joined.add(content, calls)
		for _, d := range calls {
			if d.id != "" {
				require.NotEmpty(t, d.name)
			}
			got.torn = got.torn || d.broken
		}
	}
	if size == 0 {
		size = max(len(text), 1)
	}
	for at := 0; at < len(text); at += size {
		add(p.feed(text[at:min(at+size, len(text))]))
	}
	add(p.flush())
	got.calls = joined.calls()
	for i := range got.calls {
		require.Regexp(t, `^call_[0-9a-f]{24}$`, got.calls[i].ID)
		got.calls[i].ID = ""
	}
	return got
}

func call(name, arguments string) toolCall {
	return toolCall{Type: "function", Function: calledFunction{Name: name, Arguments: arguments}}
}

func TestToolParser(t *testing.T) {
	const open, end = "<tool_call>", "</tool_call>"
	for _, c := range []struct {
		name, in, text string
		calls          []toolCall
	}{
		{"no call", "a < b, <tool> and {\"name\": 1}\n ", "a < b, <tool> and {\"name\": 1}\n ", nil},
		{"half a tag at the end", "so <tool_ca", "so <tool_ca", nil},
		{"bytes are kept", "ok\n" + open + "\n{\"name\": \"f\", \"arguments\": {\"z\":1.50, \"a\" : 1e2,\"é\":\"\\u00e9\"}}\n" + end, "ok", []toolCall{call("f", "{\"z\":1.50, \"a\" : 1e2,\"é\":\"\\u00e9\"}")}},
		{"arguments first", open + `{"arguments": {"a": [1, {"b": "}"}]}, "name": "f"}` + end, "", []toolCall{call("f", `{"a": [1, {"b": "}"}]}`)}},
		{"no arguments", open + `{"name": "now"}` + end, "", []toolCall{call("now", "{}")}},
		{"scalars", open + `{"name": "a", "arguments": 12 }` + end + open + `{"name": "b", "arguments": null}` + end, "", []toolCall{call("a", "12"), call("b", "null")}},
		{"a tag in a string", open + `{"name": "f", "arguments": {"x": "</tool_call><tool_call>"}}` + end, "", []toolCall{call("f", `{"x": "</tool_call><tool_call>"}`)}},
		{"no closing tag between", open + `{"name": "a", "arguments": {}}` + open + `{"name": "b", "arguments": {}}`, "", []toolCall{call("a", "{}"), call("b", "{}")}},
		{"a brace too many", open + `{"name": "a", "arguments": {}}}` + "\n" + end, "", []toolCall{call("a", "{}")}},
		{"text after a call", open + `{"name": "a", "arguments": {}}` + end + " and then?", "", []toolCall{call("a", "{}")}},
		{"broken, then whole", "x \n" + open + `{name}` + end + open + `{"name": "a"}`, "x \n" + open + `{name}` + end, []toolCall{call("a", "{}")}},
		{"whole, then broken", open + `{"name": "a"}` + end + open + `{"name": "b", "arguments": {]}`, open + `{"name": "b", "arguments": {]`, []toolCall{call("a", "{}")}},
		{"a name that is none", open + `{"name": 5, "arguments": {}}`, open + `{"name": 5, "arguments": {}}`, nil},
		{"not an object", open + `["name"]` + end, open + `["name"]` + end, nil},
		{"bad escapes", open + `{"name": "\x"}`, open + `{"name": "\x"}`, nil},
		{"bad literal", open + `{"name": "f", "arguments": {"a": nul}}`, open + `{"name": "f", "arguments": {"a": nul}}`, nil},
		{"deep", open + `{"name": "f", "arguments": ` + strings.Repeat("[", 70), open + `{"name": "f", "arguments": ` + strings.Repeat("[", 70), nil},
		{"a key twice", open + `{"name": "a", "name": "b", "arguments": {"x": 1}, "arguments": {}}` + end, "", []toolCall{call("a", `{"x": 1}`)}},
	} {
		whole := parseCalls(t, c.in, 0, 0)
		require.Equal(t, c.text, whole.text, c.name)
		require.Equal(t, c.calls, whole.calls, c.name)
		for size := 1; size < len(c.in); size++ {
			require.Equal(t, whole, parseCalls(t, c.in, size, 0), "%s, %d bytes a piece", c.name, size)
		}
	}
}

func TestToolParserLimit(t *testing.T) {
	in := strings.Repeat(`<tool_call>{"name": "a"}</tool_call>`, 3)
	require.Len(t, parseCalls(t, in, 1, 1).calls, 1)
	require.Len(t, parseCalls(t, in, 0, 2).calls, 2)
}

// TestToolParserVectors runs the hand-written vectors in pieces of every size.
func TestToolParserVectors(t *testing.T) {
	for _, v := range toolVectors(t) {
		for size := range len(v.Text) + 1 {
			got := parseCalls(t, v.Text, size, 0)
			require.Equal(t, strings.TrimRight(v.Content, "\n"), got.text, "%s by %d", v.Name, size)
			require.Len(t, got.calls, len(v.Calls), v.Name)
			for i, want := range v.Calls {
				require.Equal(t, want.Name, got.calls[i].Function.Name)
				require.JSONEq(t, string(want.Arguments), got.calls[i].Function.Arguments, v.Name)
			}
		}
	}
}

func toolVectors(t *testing.T) (vectors []toolVector) {
	file, err := os.ReadFile("testdata/tool_parse_handwritten.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(file, &vectors))
	require.NotEmpty(t, vectors)
	return vectors
}

// FuzzToolParser: whatever a model writes, pieces of any size give the same, and
// the arguments of a call are JSON.
func FuzzToolParser(f *testing.F) {
	f.Add("a<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>", uint8(3))
	f.Add("<tool_call>{\"arguments\": {\"a\": tru}, \"name\": \"f\"} <tool_call>{\"name\": \"g\"}", uint8(1))
	f.Fuzz(func(t *testing.T, in string, size uint8) {
		if !utf8.ValidString(in) {
			return // decoders give valid text
		}
		whole := parseCalls(t, in, 0, 0)
		require.Equal(t, whole, parseCalls(t, in, 1+int(size), 0))
		for _, c := range whole.calls {
			require.True(t, json.Valid([]byte(c.Function.Arguments)), c.Function.Arguments)
		}
	})
}
