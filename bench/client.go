package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Client talks to one OpenAI-compatible server.
type Client struct {
	BaseURL  string // scheme and host, such as http://127.0.0.1:8000; a path before /v1 may follow
	Chat     bool   // /v1/chat/completions; else /v1/completions
	Endpoint string // path; "" = the usual one
	Model    string
	Key      string // bearer token; "" = none
	Headers  map[string]string
	// Body holds fields that are added to every request: temperature, ignore_eos.
	Body    map[string]any
	Timeout time.Duration // of a whole request; 0 = none

	http *http.Client
}

// NewClient makes a client whose connections are kept, so that no request of the
// run waits for a new one when an old one is free.
func NewClient(baseURL string) (*Client, error) {
	if !strings.Contains(baseURL, "://") {
		baseURL = "http://" + baseURL
	}
	u, err := url.Parse(baseURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("--base-url %s: want an address such as http://127.0.0.1:8000", baseURL)
	}
	// A base as the OpenAI libraries take it ends in /v1.
	base := strings.TrimSuffix(strings.TrimRight(u.String(), "/"), "/v1")
	return &Client{BaseURL: base, http: &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConns: 0, MaxIdleConnsPerHost: 1 << 16,
		DialContext:        (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		DisableCompression: true, IdleConnTimeout: 90 * time.Second, ReadBufferSize: 16 << 10,
	}}}, nil
}

func (c *Client) path() string {
	switch {
	case c.Endpoint != "":
		return "/" + strings.TrimLeft(c.Endpoint, "/")
	case c.Chat:
		return "/v1/chat/completions"
	}
	return "/v1/completions"
}

// errNeedsChat is a conversation for an endpoint that takes text.
var errNeedsChat = errors.New("conversations need --endpoint-type chat")

// body writes the request of a prompt.
func (c *Client) body(p ServePrompt) ([]byte, error) {
	fields := map[string]any{
		"model": c.Model, "stream": true, "stream_options": map[string]any{"include_usage": true}, "max_tokens": max(p.OutputTokens, 1),
	}
	switch {
	case c.Chat && p.IDs != nil:
		return nil, errors.New("prompts of token ids go to completions, not to chat")
	case c.Chat && p.Messages != nil:
		fields["messages"] = p.Messages
	case c.Chat:
		fields["messages"] = []Message{{Role: "user", Content: p.Text}}
	case p.IDs != nil:
		fields["prompt"] = p.IDs
	case p.Messages != nil:
		return nil, errNeedsChat
	default:
		fields["prompt"] = p.Text
	}
	maps.Copy(fields, c.Body)
	return json.Marshal(fields)
}

// send posts a body. The caller closes the response's.
func (c *Client) send(ctx context.Context, path string, body []byte) (*http.Response, error) {
	method := http.MethodPost
	if body == nil {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, c.BaseURL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.Key != "" {
		req.Header.Set("Authorization", "Bearer "+c.Key)
	}
	for name, value := range c.Headers {
		req.Header.Set(name, value)
	}
	return c.http.Do(req)
}

// do performs one request and fills in its sample. Times are since start.
func (c *Client) do(ctx context.Context, start time.Time, body []byte, s *ServeSample) {
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.Timeout, errTimeout)
		defer cancel()
	}
	s.Ended = s.Submitted
	resp, err := c.send(ctx, c.path(), body)
	if err == nil {
		defer func() { _ = resp.Body.Close() }() // it was read; nothing is left to lose
		err = c.read(resp, start, s)
	}
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errTimeout) {
			err = fmt.Errorf("%w of %s", errTimeout, c.Timeout)
		} else if cause != nil {
			err = errInterrupted
		}
		s.Ended = time.Since(start)
		s.fail(err)
	}
}

// read takes the events of a response as they come.
func (c *Client) read(resp *http.Response, start time.Time, s *ServeSample) error {
	if resp.StatusCode != http.StatusOK {
		return statusError{resp.StatusCode, errorText(resp.Body)}
	}
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/event-stream") {
		return fmt.Errorf("%w (Content-Type %q)", errNoStream, kind)
	}
	var text strings.Builder
	finished := false
	events := newEventReader(resp.Body)
	for {
		data, err := events.next()
		now := time.Since(start)
		if err == io.EOF || err == nil && string(data) == "[DONE]" {
			if err == io.EOF && !finished {
				return errCut
			}
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errCut, err)
		}
		var chunk streamChunk
		if err := json.Unmarshal(data, &chunk); err != nil {
			return fmt.Errorf("%w: %.80q", errNotJSON, data)
		}
		if chunk.Error != nil {
			return fmt.Errorf("%w: %s", errStream, chunk.Error)
		}
		if u := chunk.Usage; u != nil && (len(chunk.Choices) == 0 || u.CompletionTokens > 0) {
			s.OutputTokens, s.Counted = u.CompletionTokens, true
			if s.CachedTokens = u.Details.CachedTokens; u.PromptTokens > 0 {
				s.PromptTokens = u.PromptTokens
			}
		}
		if len(chunk.Choices) == 0 {
			continue
		}
		choice := &chunk.Choices[0]
		if choice.hasToken(c.Chat) {
			s.Tokens = append(s.Tokens, now)
		}
		text.WriteString(choice.Text + choice.Delta.Content)
		finished = finished || choice.FinishReason != ""
		if len(s.Tokens) > 0 {
			s.Ended = now
		}
	}
	if len(s.Tokens) == 0 {
		return errNoToken
	}
	// What follows the last event is read so that the connection can be used again.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	s.Text = text.String()
	if !s.Counted {
		s.OutputTokens = len(s.Tokens)
	}
	return nil
}

// streamChunk is what the client needs of an event.
type streamChunk struct {
	Choices []streamChoice `json:"choices"`
	Usage   *struct {
		PromptTokens     int `json:"prompt_tokens"`
		CompletionTokens int `json:"completion_tokens"`
		Details          struct {
			CachedTokens int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	} `json:"usage"`
	Error json.RawMessage `json:"error"`
}

type streamChoice struct {
	Text         string `json:"text"`
	FinishReason string `json:"finish_reason"`
	Delta        struct {
		Content          string          `json:"content"`
		Reasoning        string          `json:"reasoning"`
		ReasoningContent string          `json:"reasoning_content"`
		ToolCalls        json.RawMessage `json:"tool_calls"`
	} `json:"delta"`
}

// hasToken says whether a chunk brings output. A chat opens with a chunk that has
// the role alone and many servers close with one that has the reason alone: neither
// is a token. Completions may send a token without text, such as a part of a
// character.
func (c *streamChoice) hasToken(chat bool) bool {
	d := &c.Delta
	if chat {
		return d.Content != "" || d.Reasoning != "" || d.ReasoningContent != "" || len(d.ToolCalls) > 0 && string(d.ToolCalls) != "null"
	}
	return c.Text != "" || c.FinishReason == ""
}

// Failures of requests, each a kind that is counted.
var (
	errTimeout  = errors.New("timeout")
	errNoStream = errors.New("the answer is no event stream")
	errCut      = errors.New("the stream ended early")
	errNotJSON  = errors.New("an event is not JSON")
	errStream   = errors.New("error in the stream")
	errNoToken  = errors.New("no token came")
)

// statusError is an answer other than 200.
type statusError struct {
	code    int
	message string
}

// Error implements error.
func (e statusError) Error() string { return fmt.Sprintf("status %d: %s", e.code, e.message) }

// failureKind is the word under which a failure is counted.
func failureKind(err error) string {
	var status statusError
	if errors.As(err, &status) {
		return fmt.Sprintf("status %d", status.code)
	}
	for _, kind := range []error{errInterrupted, errTimeout, errNoStream, errCut, errNotJSON, errStream, errNoToken} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE):
		return "connection lost"
	case errors.As(err, &dns):
		return "host not found"
	}
	return "other"
}

// errorText is the message of an error's body, however it is wrapped.
func errorText(body io.Reader) string {
	data, _ := io.ReadAll(io.LimitReader(body, 4<<10)) // a cut message is still one
	var wrapped struct {
		Error  json.RawMessage `json:"error"`
		Detail json.RawMessage `json:"detail"`
	}
	var inner struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &wrapped) == nil {
		if json.Unmarshal(wrapped.Error, &inner) == nil && inner.Message != "" {
			return inner.Message
		}
		if len(wrapped.Detail) > 0 {
			return string(wrapped.Detail)
		}
	}
	return strings.TrimSpace(string(data))
}
