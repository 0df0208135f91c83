package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model/demo"
)

// TestGoClientTour is what scripts/clients/tour.py does with the official clients in
// Python, with the one in Go: streams, tools, structured output, log probabilities,
// errors and aborts. The model's answers may be nonsense; their form must not be.
func TestGoClientTour(t *testing.T) {
	s := startServer(t, engine.Config{MaxNumSeqs: 8, MaxNumBatchedTokens: 512, MaxModelLen: 1024, NumGPUBlocksOverride: 300})
	chats, ctx := s.client.Chat.Completions, t.Context()
	ask := func(change func(*openai.ChatCompletionNewParams)) openai.ChatCompletionNewParams {
		p := openai.ChatCompletionNewParams{
			Model: demo.Name, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Tell me a story about a red kite.")},
			MaxTokens: openai.Int(200), Temperature: openai.Float(0),
		}
		change(&p)
		return p
	}
	schema := map[string]any{
		"type": "object", "required": []string{"city", "days"}, "additionalProperties": false,
		"properties": map[string]any{"city": map[string]any{"type": "string", "enum": []string{"Oslo", "Lima"}}, "days": map[string]any{"type": "integer", "minimum": 1, "maximum": 7}},
	}
	checkPlace := func(text string) {
		var got struct {
			City string
			Days int
		}
		require.NoError(t, json.Unmarshal([]byte(text), &got), text)
		require.Contains(t, []string{"Oslo", "Lima"}, got.City)
		require.True(t, got.Days >= 1 && got.Days <= 7, text)
	}
	t.Run("stream", func(t *testing.T) {
		whole, err := chats.New(ctx, ask(func(p *openai.ChatCompletionNewParams) { p.MaxTokens = openai.Int(30) }))
		require.NoError(t, err)
		stream := chats.NewStreaming(ctx, ask(func(p *openai.ChatCompletionNewParams) { p.MaxTokens = openai.Int(30) }))
		var sum openai.ChatCompletionAccumulator
		for stream.Next() {
			require.True(t, sum.AddChunk(stream.Current()), "the client's accumulator takes every chunk")
		}
		require.NoError(t, stream.Err())
		require.Equal(t, whole.Choices[0].Message.Content, sum.Choices[0].Message.Content)
		require.Equal(t, whole.Choices[0].FinishReason, sum.Choices[0].FinishReason)
	})
	t.Run("tools", func(t *testing.T) {
		call := ask(func(p *openai.ChatCompletionNewParams) {
			p.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{Name: "get_weather", Parameters: schema})}
			p.ToolChoice = openai.ChatCompletionToolChoiceOptionUnionParam{OfAuto: openai.String("required")}
			p.ParallelToolCalls = openai.Bool(false)
		})
		whole, err := chats.New(ctx, call)
		require.NoError(t, err)
		require.Equal(t, "tool_calls", whole.Choices[0].FinishReason)
		require.Equal(t, "get_weather", whole.Choices[0].Message.ToolCalls[0].Function.Name)
		checkPlace(whole.Choices[0].Message.ToolCalls[0].Function.Arguments)
		stream := chats.NewStreaming(ctx, call)
		var sum openai.ChatCompletionAccumulator
		for stream.Next() {
			sum.AddChunk(stream.Current())
		}
		require.NoError(t, stream.Err())
		require.Equal(t, whole.Choices[0].Message.ToolCalls[0].Function.Name, sum.Choices[0].Message.ToolCalls[0].Function.Name)
		require.Equal(t, whole.Choices[0].Message.ToolCalls[0].Function.Arguments, sum.Choices[0].Message.ToolCalls[0].Function.Arguments)
	})
	t.Run("structured", func(t *testing.T) {
		r, err := chats.New(ctx, ask(func(p *openai.ChatCompletionNewParams) {
			p.Temperature, p.Seed = openai.Float(1), openai.Int(3)
			p.ResponseFormat = openai.ChatCompletionNewParamsResponseFormatUnion{OfJSONSchema: &openai.ResponseFormatJSONSchemaParam{
				JSONSchema: openai.ResponseFormatJSONSchemaJSONSchemaParam{Name: "place", Schema: schema, Strict: openai.Bool(true)},
			}}
		}))
		require.NoError(t, err)
		checkPlace(r.Choices[0].Message.Content)
	})
	t.Run("logprobs", func(t *testing.T) {
		r, err := chats.New(ctx, ask(func(p *openai.ChatCompletionNewParams) {
			p.MaxTokens, p.Logprobs, p.TopLogprobs = openai.Int(5), openai.Bool(true), openai.Int(2)
		}))
		require.NoError(t, err)
		require.Len(t, r.Choices[0].Logprobs.Content, 5)
		for _, token := range r.Choices[0].Logprobs.Content {
			require.Len(t, token.TopLogprobs, 2)
			require.Equal(t, token.TopLogprobs[0].Token, token.Token)
		}
	})
	t.Run("errors", func(t *testing.T) {
		for change, want := range map[*openai.Error]func(*openai.ChatCompletionNewParams){
			{StatusCode: http.StatusNotFound, Param: "model"}:                                       func(p *openai.ChatCompletionNewParams) { p.Model = "none such" },
			{StatusCode: http.StatusBadRequest, Param: "temperature"}:                               func(p *openai.ChatCompletionNewParams) { p.Temperature = openai.Float(-1) },
			{StatusCode: http.StatusBadRequest, Param: "messages", Code: "context_length_exceeded"}: func(p *openai.ChatCompletionNewParams) { p.MaxTokens = openai.Int(1 << 20) },
		} {
			_, err := chats.New(ctx, ask(want))
			var got *openai.Error
			require.ErrorAs(t, err, &got)
			require.Equal(t, change.StatusCode, got.StatusCode)
			require.Equal(t, change.Param, got.Param)
			if change.Code != "" {
				require.Equal(t, change.Code, got.Code)
			}
			require.NotEmpty(t, got.Message)
		}
	})
	t.Run("aborts", func(t *testing.T) {
		for range 5 {
			ctx, cancel := context.WithCancel(ctx)
			stream := chats.NewStreaming(ctx, ask(func(p *openai.ChatCompletionNewParams) { p.MaxTokens = openai.Int(800) }))
			require.True(t, stream.Next())
			cancel()
			for stream.Next() { // what had arrived
			}
			if err := stream.Err(); err != nil {
				require.True(t, errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "closed"), err)
			}
			_ = stream.Close()
		}
		require.Eventually(t, func() bool { return s.engine.Stats().BlocksUsed == 0 }, patience, time.Millisecond)
	})
}
