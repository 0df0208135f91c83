package server

import (
	"context"
	"net/http/httptest"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

// openAIClient is the official client, pointed at a server of f.
func openAIClient(t *testing.T, f *fakeEngine, cfg Config, key string) openai.Client {
	web := httptest.NewServer(newTestServer(t, f, cfg).Handler())
	t.Cleanup(web.Close)
	return openai.NewClient(option.WithBaseURL(web.URL+"/v1"), option.WithAPIKey(key), option.WithMaxRetries(0))
}

func TestOpenAIClientChat(t *testing.T) {
	f := newFakeEngine("Hello, 日本 STOP tail")
	client := openAIClient(t, f, Config{APIKeys: []string{"k"}}, "k")
	ctx := context.Background()
	params := openai.ChatCompletionNewParams{
		Model:       "m",
		Messages:    []openai.ChatCompletionMessageParamUnion{openai.SystemMessage("be brief"), openai.UserMessage("hi")},
		Stop:        openai.ChatCompletionNewParamsStopUnion{OfString: openai.String("STOP")},
		Temperature: openai.Float(0), Seed: openai.Int(7), Logprobs: openai.Bool(true), TopLogprobs: openai.Int(1),
		Tools: []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{
			Name: "weather", Parameters: openai.FunctionParameters{"type": "object"},
		})},
	}
	whole, err := client.Chat.Completions.New(ctx, params)
	require.NoError(t, err)
	require.Equal(t, "Hello, 日本 ", whole.Choices[0].Message.Content)
	require.Equal(t, "stop", whole.Choices[0].FinishReason)
	require.NotEmpty(t, whole.Choices[0].Logprobs.Content)
	require.Positive(t, whole.Usage.PromptTokensDetails.CachedTokens)
	got := f.last(t)
	require.Equal(t, uint64(7), got.Sampling.Seed)
	require.Contains(t, testTokenizer().Decode(got.Prompt, false), `TOOLS [{"`)
	require.Contains(t, testTokenizer().Decode(got.Prompt, false), `"weather"`)

	params.StreamOptions.IncludeUsage = openai.Bool(true)
	stream := client.Chat.Completions.NewStreaming(ctx, params)
	acc := openai.ChatCompletionAccumulator{}
	for stream.Next() {
		require.True(t, acc.AddChunk(stream.Current()))
	}
	require.NoError(t, stream.Err())
	require.Equal(t, whole.Choices[0].Message.Content, acc.Choices[0].Message.Content)
	require.Equal(t, "stop", acc.Choices[0].FinishReason)
	require.Equal(t, whole.Usage.TotalTokens, acc.Usage.TotalTokens)
	eventually(t, "no request is left open", func() bool { return f.open.Load() == 0 })
}

func TestOpenAIClientCompletions(t *testing.T) {
	client := openAIClient(t, newFakeEngine("abc"), Config{}, "any")
	ctx := context.Background()
	params := openai.CompletionNewParams{Model: "m", Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{"x", "y"}}, MaxTokens: openai.Int(2)}
	whole, err := client.Completions.New(ctx, params)
	require.NoError(t, err)
	require.Len(t, whole.Choices, 2)
	require.Equal(t, "ab", whole.Choices[1].Text)
	require.EqualValues(t, "length", whole.Choices[1].FinishReason)

	texts := map[int64]string{}
	stream := client.Completions.NewStreaming(ctx, params)
	for stream.Next() {
		for _, c := range stream.Current().Choices {
			texts[c.Index] += c.Text
		}
	}
	require.NoError(t, stream.Err())
	require.Equal(t, map[int64]string{0: "ab", 1: "ab"}, texts)

	models, err := client.Models.List(ctx)
	require.NoError(t, err)
	require.Equal(t, "m", models.Data[0].ID)
	model, err := client.Models.Get(ctx, "org/alias")
	require.NoError(t, err)
	require.Equal(t, "org/alias", model.ID)
}

func TestOpenAIClientErrors(t *testing.T) {
	ctx := context.Background()
	call := func(f *fakeEngine, key, model string, temperature float64) *openai.Error {
		client := openAIClient(t, f, Config{APIKeys: []string{"k"}}, key)
		_, err := client.Completions.New(ctx, openai.CompletionNewParams{Model: openai.CompletionNewParamsModel(model),
			Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("x")}, Temperature: openai.Float(temperature)})
		var api *openai.Error
		require.ErrorAs(t, err, &api)
		return api
	}
	full := newFakeEngine("x")
	full.submit = engine.ErrQueueFull
	for _, c := range []struct {
		err                       *openai.Error
		status                    int
		kind, code, param, header string
	}{
		{call(newFakeEngine("x"), "wrong", "m", 0), 401, typeInvalidRequest, "invalid_api_key", "", ""},
		{call(newFakeEngine("x"), "k", "other", 0), 404, typeInvalidRequest, "model_not_found", "model", ""},
		{call(newFakeEngine("x"), "k", "m", 1000), 400, typeInvalidRequest, "", "temperature", ""},
		{call(full, "k", "m", 0), 503, typeUnavailable, "queue_full", "", "1"},
	} {
		require.Equal(t, c.status, c.err.StatusCode)
		require.Equal(t, c.kind, c.err.Type)
		require.Equal(t, c.code, c.err.Code)
		require.Equal(t, c.param, c.err.Param)
		require.NotEmpty(t, c.err.Message)
		require.Equal(t, c.header, c.err.Response.Header.Get("Retry-After"))
	}

	broken := newFakeEngine("ab")
	broken.fail = engine.ErrClosed
	client := openAIClient(t, broken, Config{}, "k")
	stream := client.Completions.NewStreaming(ctx, openai.CompletionNewParams{Model: "m", Prompt: openai.CompletionNewParamsPromptUnion{OfString: openai.String("x")}})
	for stream.Next() {
	}
	require.ErrorContains(t, stream.Err(), "the engine has stopped")
}
