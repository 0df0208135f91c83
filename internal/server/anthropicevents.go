package server

import (
	"encoding/json"
	"net/http"
)

// anthropicProtocol dresses answers as Anthropic's messages.
type anthropicProtocol struct{}

type anthropicUsage struct {
	Input         int `json:"input_tokens"` // those that were computed
	CacheCreation int `json:"cache_creation_input_tokens"`
	CacheRead     int `json:"cache_read_input_tokens"`
	Output        int `json:"output_tokens"`
}

type anthropicResponse struct {
	ID           string         `json:"id"`
	Type         string         `json:"type"`
	Role         string         `json:"role"`
	Model        string         `json:"model"`
	Content      []any          `json:"content"`
	StopReason   *string        `json:"stop_reason"`
	StopSequence *string        `json:"stop_sequence"`
	Usage        anthropicUsage `json:"usage"`
}

type anthropicTextBlock struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type anthropicCall struct {
	Type  string          `json:"type"`
	ID    string          `json:"id"`
	Name  string          `json:"name"`
	Input json.RawMessage `json:"input"`
}

// anthropicBlockOf shows a call's arguments as the model spelled them; without
// them it is the block's beginning.
func anthropicBlockOf(b block, input string) any {
	if b.call == nil {
		return anthropicTextBlock{"text", b.text}
	}
	return anthropicCall{"tool_use", b.call.ID, b.call.Function.Name, json.RawMessage(input)}
}

func anthropicMessageOf(g *generation) *anthropicResponse {
	u := g.usage()
	return &anthropicResponse{
		ID: g.id, Type: "message", Role: "assistant", Model: g.r.model, Content: []any{},
		Usage: anthropicUsage{Input: u.PromptTokens - u.Details.CachedTokens, CacheRead: u.Details.CachedTokens, Output: u.CompletionTokens},
	}
}

func (anthropicProtocol) whole(g *generation, blocks []block, d delta) any {
	out := anthropicMessageOf(g)
	for _, b := range blocks {
		input := ""
		if b.call != nil {
			input = b.call.Function.Arguments
		}
		out.Content = append(out.Content, anthropicBlockOf(b, input))
	}
	reason, sequence := anthropicStop(g.choices[0], d)
	out.StopReason, out.StopSequence = &reason, sequence
	return out
}

func (anthropicProtocol) begin(e *eventWriter, g *generation) error {
	message := anthropicMessageOf(g)
	message.Usage.Output = 0
	return e.named("message_start", map[string]any{"type": "message_start", "message": message})
}

func (anthropicProtocol) open(e *eventWriter, _ *generation, index int, b block) error {
	return e.named("content_block_start", map[string]any{"type": "content_block_start", "index": index, "content_block": anthropicBlockOf(b, "{}")})
}

func (anthropicProtocol) delta(e *eventWriter, _ *generation, index int, b block, piece string) error {
	delta := map[string]string{"type": "text_delta", "text": piece}
	if b.call != nil {
		delta = map[string]string{"type": "input_json_delta", "partial_json": piece}
	}
	return e.named("content_block_delta", map[string]any{"type": "content_block_delta", "index": index, "delta": delta})
}

func (anthropicProtocol) close(e *eventWriter, _ *generation, index int, _ block) error {
	return e.named("content_block_stop", map[string]any{"type": "content_block_stop", "index": index})
}

func (anthropicProtocol) end(e *eventWriter, g *generation, _ []block, d delta) error {
	reason, sequence := anthropicStop(g.choices[0], d)
	err := e.named("message_delta", map[string]any{
		"type": "message_delta", "usage": anthropicMessageOf(g).Usage,
		"delta": map[string]any{"stop_reason": reason, "stop_sequence": sequence},
	})
	if err != nil {
		return err
	}
	return e.named("message_stop", map[string]string{"type": "message_stop"})
}

func (anthropicProtocol) fail(e *eventWriter, _ *generation, err *apiError) error {
	return e.named("error", anthropicError{err, e.w.Header().Get(requestIDHeader)})
}

// anthropicError writes an error in Anthropic's shape.
type anthropicError struct {
	*apiError
	requestID string
}

// MarshalJSON implements json.Marshaler.
func (e anthropicError) MarshalJSON() ([]byte, error) {
	kind, ok := map[int]string{
		http.StatusUnauthorized: "authentication_error", http.StatusForbidden: "permission_error", http.StatusNotFound: "not_found_error",
		http.StatusRequestEntityTooLarge: "request_too_large", http.StatusTooManyRequests: "rate_limit_error",
		http.StatusServiceUnavailable: "overloaded_error", http.StatusInternalServerError: "api_error",
	}[e.status]
	if !ok {
		kind = "invalid_request_error"
	}
	return json.Marshal(map[string]any{
		"type": "error", "error": map[string]string{"type": kind, "message": e.message}, "request_id": e.requestID,
	})
}
