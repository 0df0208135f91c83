package server

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// usage is the token counts of a response.
type usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	TotalTokens      int `json:"total_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	Details          struct {
		CachedTokens int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
}

// response is a body or an event of either endpoint.
type response struct {
	ID             string  `json:"id"`
	Object         string  `json:"object"`
	Created        int64   `json:"created"`
	Model          string  `json:"model"`
	Choices        []any   `json:"choices"`
	Usage          any     `json:"usage,omitempty"` // *usage, or null where a stream has none yet
	PromptTokenIDs []int32 `json:"prompt_token_ids,omitempty"`
	PromptLogprobs any     `json:"prompt_logprobs,omitempty"` // of a chat
}

// null is written as such where an empty field would be left out.
var null = json.RawMessage("null")

// chatChoice is a choice of chat.completion (Message) or of
// chat.completion.chunk (Delta).
type chatChoice struct {
	Index        int           `json:"index"`
	Message      *chatMessage  `json:"message,omitempty"`
	Delta        *chatDelta    `json:"delta,omitempty"`
	Logprobs     *chatLogprobs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
	StopReason   any           `json:"stop_reason"`
	TokenIDs     []int32       `json:"token_ids,omitempty"`
}

type chatMessage struct {
	Role      string     `json:"role"`
	Content   *string    `json:"content"` // null: nothing but tool calls
	Refusal   *string    `json:"refusal"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

type chatDelta struct {
	Role      string          `json:"role,omitempty"`
	Content   *string         `json:"content,omitempty"`
	ToolCalls []toolCallDelta `json:"tool_calls,omitempty"`
}

type chatLogprobs struct {
	Content []chatToken `json:"content"`
	Refusal []chatToken `json:"refusal"`
}

// chatToken is a token of logprobs.content; Top is nil in an entry of
// top_logprobs.
type chatToken struct {
	Token   string       `json:"token"`
	Logprob float32      `json:"logprob"`
	Bytes   []int        `json:"bytes"`
	Top     *[]chatToken `json:"top_logprobs,omitempty"`
}

// textChoice is a choice of text_completion, streamed or not.
type textChoice struct {
	Index        int           `json:"index"`
	Text         string        `json:"text"`
	Logprobs     *textLogprobs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
	StopReason   any           `json:"stop_reason"`
	TokenIDs     []int32       `json:"token_ids,omitempty"`
	PromptIDs    []int32       `json:"prompt_token_ids,omitempty"`
	PromptProbs  any           `json:"prompt_logprobs,omitempty"`
}

type textLogprobs struct {
	TextOffset    []int                `json:"text_offset"`
	TokenLogprobs []*float32           `json:"token_logprobs"` // null: the first token of an echo
	Tokens        []string             `json:"tokens"`
	TopLogprobs   []map[string]float32 `json:"top_logprobs"`
}

// finiteLogprob replaces what JSON cannot say, as vLLM does.
func finiteLogprob(v float32) float32 {
	const least = -9999
	if math.IsNaN(float64(v)) || v < least {
		return least
	}
	return min(v, 0)
}

// tokenText is a token as logprobs show it, and its bytes, which need not be
// whole characters.
func (s *Server) tokenText(r *request, id int32) (text, raw string) {
	if s.tokenizer != nil {
		raw = s.tokenizer.TokenBytes(id)
	}
	if r.tokensAsIDs || s.tokenizer == nil {
		return "token_id:" + strconv.Itoa(int(id)), raw
	}
	return strings.ToValidUTF8(raw, "\uFFFD"), raw
}

func (s *Server) chatToken(r *request, t tokenLogprob) chatToken {
	text, raw := s.tokenText(r, t.id)
	bytes := make([]int, len(raw))
	for i := range raw {
		bytes[i] = int(raw[i])
	}
	return chatToken{Token: text, Logprob: finiteLogprob(t.logprob), Bytes: bytes}
}

// chatLogprobs is nil when the request did not ask for them.
func (s *Server) chatLogprobs(r *request, tokens []tokenLogprob) *chatLogprobs {
	if !r.logprobs || len(tokens) == 0 {
		return nil
	}
	out := &chatLogprobs{Content: make([]chatToken, len(tokens))}
	for i, t := range tokens {
		top := make([]chatToken, len(t.top))
		for j, alternative := range t.top {
			top[j] = s.chatToken(r, alternative)
		}
		out.Content[i] = s.chatToken(r, t)
		out.Content[i].Top = &top
	}
	return out
}

// textLogprobs also returns the offset after the last token; offsets count
// characters of the tokens' own texts.
func (s *Server) textLogprobs(r *request, tokens []tokenLogprob, offset int) (*textLogprobs, int) {
	if !r.logprobs || len(tokens) == 0 {
		return nil, offset
	}
	out := &textLogprobs{}
	for _, t := range tokens {
		text, _ := s.tokenText(r, t.id)
		out.Tokens = append(out.Tokens, text)
		out.TextOffset = append(out.TextOffset, offset)
		offset += utf8.RuneCountInString(text)
		if t.first {
			out.TokenLogprobs, out.TopLogprobs = append(out.TokenLogprobs, nil), append(out.TopLogprobs, nil)
			continue
		}
		top := map[string]float32{}
		for _, alternative := range append(t.top[:len(t.top):len(t.top)], t) {
			key, _ := s.tokenText(r, alternative.id)
			if _, ok := top[key]; !ok { // several ids may share a text: the likeliest counts
				top[key] = finiteLogprob(alternative.logprob)
			}
		}
		logprob := finiteLogprob(t.logprob)
		out.TokenLogprobs = append(out.TokenLogprobs, &logprob)
		out.TopLogprobs = append(out.TopLogprobs, top)
	}
	return out, offset
}
