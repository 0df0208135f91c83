package server

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
	"github.com/openai/openai-go/v3/shared"
	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

const lookThenCall = `Let me look.` + "\n" + `<tool_call>{"name": "weather", "arguments": {"b": 1.0, "a": "é"}}</tool_call>`

// TestOpenAIClientResponses is the official client, with tools, streaming and not.
func TestOpenAIClientResponses(t *testing.T) {
	f := newFakeEngine(lookThenCall)
	client := openAIClient(t, f, Config{}, "k")
	ctx := context.Background()
	params := responses.ResponseNewParams{
		Model: "m", Instructions: openai.String("be brief"), MaxOutputTokens: openai.Int(500),
		Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("hi")},
		Tools: []responses.ToolUnionParam{{OfFunction: &responses.FunctionToolParam{Name: "weather", Parameters: map[string]any{"type": "object"}}}},
	}
	whole, err := client.Responses.New(ctx, params)
	require.NoError(t, err)
	require.Equal(t, responses.ResponseStatus("completed"), whole.Status)
	require.Equal(t, "Let me look.", whole.OutputText())
	require.Len(t, whole.Output, 2)
	require.Equal(t, "weather", whole.Output[1].AsFunctionCall().Name)
	require.Equal(t, `{"b": 1.0, "a": "é"}`, whole.Output[1].AsFunctionCall().Arguments)
	prompt := testTokenizer().Decode(f.last(t).Prompt, false)
	require.Contains(t, prompt, "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n")
	require.Contains(t, prompt, `TOOLS [{"type": "function", "function": {"`)

	stream := client.Responses.NewStreaming(ctx, params)
	text, arguments, kinds := "", "", []string{}
	var final responses.Response
	for n := int64(0); stream.Next(); n++ {
		event := stream.Current()
		require.Equal(t, n, event.SequenceNumber)
		switch event.Type {
		case "response.output_text.delta":
			text += event.Delta
		case "response.function_call_arguments.delta":
			arguments += event.Delta
		case "response.completed":
			final = event.Response
		default:
			kinds = append(kinds, event.Type)
		}
	}
	require.NoError(t, stream.Err())
	require.Equal(t, "Let me look.", text)
	require.Equal(t, `{"b": 1.0, "a": "é"}`, arguments)
	require.Equal(t, []string{
		"response.created", "response.in_progress",
		"response.output_item.added", "response.content_part.added", "response.output_text.done", "response.content_part.done", "response.output_item.done",
		"response.output_item.added", "response.function_call_arguments.done", "response.output_item.done",
	}, kinds)
	require.Len(t, final.Output, 2)
	require.Equal(t, whole.Usage.OutputTokens, final.Usage.OutputTokens)
}

// TestResponsesItems: what a response had comes back as the messages it was.
func TestResponsesItems(t *testing.T) {
	f := newFakeEngine("sunny")
	s := newTestServer(t, f, Config{})
	w := do(s.Handler(), "POST", "/v1/responses", `{"input":[
		{"role":"developer","content":"d"},
		{"type":"message","role":"user","content":[{"type":"input_text","text":"weather?"}]},
		{"type":"reasoning","id":"r","summary":[]},
		{"type":"message","role":"assistant","content":[{"type":"output_text","text":"wait"}]},
		{"type":"function_call","call_id":"c1","name":"weather","arguments":"{\"z\":1,\"a\":2}"},
		{"type":"function_call_output","call_id":"c1","output":"12 degrees"}],"max_output_tokens":2}`)
	require.Equal(t, 200, w.Code, w.Body)
	require.Equal(t, "<|im_start|>system\nd<|im_end|>\n<|im_start|>user\nweather?<|im_end|>\n"+
		"<|im_start|>assistant\nwait[{\"id\": \"c1\", \"type\": \"function\", \"function\": {\"name\": \"weather\", \"arguments\": {\"z\": 1, \"a\": 2}}}]<|im_end|>\n"+
		"<|im_start|>tool\n12 degrees<|im_end|>\n<|im_start|>assistant\n", s.tokenizer.Decode(f.last(t).Prompt, false))
	body := decode[responseBody](t, w.Body.String())
	require.Equal(t, "incomplete", body.Status)
	require.Equal(t, map[string]any{"reason": "max_output_tokens"}, body.IncompleteDetails)
	require.Equal(t, 2, body.Usage.Output)

	for extra, param := range map[string]string{
		`"input":[]`: "input", `"input":5`: "input", `"input":[{"type":"reasoning"}]`: "input",
		`"input":[{"role":"user","content":"x"},{"type":"function_call","call_id":"c","name":"f","arguments":"{\"a\":"}]`: "input[1]",
		`"input":"forbidden"`:                     "input",
		`"input":[{"role":"robot","content":""}]`: "input[0]", `"input":[{"type":"computer_call"}]`: "input[0]",
		`"input":[{"role":"user","content":[{"type":"input_image"}]}]`: "input[0]", `"previous_response_id":"x"`: "previous_response_id", `"background":true`: "background",
		`"text":{"format":{"type":"json_schema"}}`: "text.format", `"tools":[{"type":"web_search"}]`: "tools[0]", `"truncation":"auto"`: "truncation", `"max_output_tokens":0`: "max_output_tokens",
		`"include":["message.output_text.logprobs"]`: "include", `"n":2`: "n", `"tool_choice":{"type":"function","name":"x"}`: "tool_choice",
	} {
		w := do(s.Handler(), "POST", "/v1/responses", `{"input":"x",`+extra+`}`)
		require.Equal(t, 400, w.Code, "%s: %s", extra, w.Body)
		_, _, got, _ := errorOf(t, w)
		require.Equal(t, param, got)
	}
	w = do(s.Handler(), "POST", "/v1/responses", `{}`)
	require.Equal(t, 400, w.Code)
}

// TestNamedFunctionResponses: tool_choice as this API spells it.
func TestNamedFunctionResponses(t *testing.T) {
	web := httptest.NewServer(newTestServer(t, newFakeEngine("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>"), Config{}).Handler())
	defer web.Close()
	client := openai.NewClient(option.WithBaseURL(web.URL+"/v1"), option.WithAPIKey("k"), option.WithMaxRetries(0))
	got, err := client.Responses.New(context.Background(), responses.ResponseNewParams{
		Model: shared.ResponsesModel("m"), Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("hi")},
		Tools:      []responses.ToolUnionParam{{OfFunction: &responses.FunctionToolParam{Name: "f", Parameters: map[string]any{"properties": map[string]any{"x": map[string]any{"type": "integer"}}}}}},
		ToolChoice: responses.ResponseNewParamsToolChoiceUnion{OfFunctionTool: &responses.ToolChoiceFunctionParam{Name: "f"}},
	})
	require.NoError(t, err)
	require.Equal(t, `{"x": 1}`, got.Output[0].AsFunctionCall().Arguments)
}

// TestResponsesStreamFails: a stream that breaks off says so, and not why.
func TestResponsesStreamFails(t *testing.T) {
	f := newFakeEngine("ab")
	f.fail = errors.New("secret of the engine")
	w := do(newTestServer(t, f, Config{}).Handler(), "POST", "/v1/responses", `{"input":"x","stream":true}`)
	require.Contains(t, w.Body.String(), "event: response.failed\n")
	require.NotContains(t, w.Body.String(), "response.completed")
	require.NotContains(t, w.Body.String(), "secret")
	f.gate, f.fail = nil, nil
	f.submit = engine.ErrQueueFull
	w = do(newTestServer(t, f, Config{}).Handler(), "POST", "/v1/responses", `{"input":"x","stream":true}`)
	require.Equal(t, 503, w.Code, "before the first event there is a status")
	require.NotEmpty(t, w.Header().Get("Retry-After"))
}
