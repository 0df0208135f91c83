package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/pagoda-engine/pagoda/model/tokenizer"
)

// Codec turns text into tokens and back, so that prompts get the lengths that were
// asked for.
type Codec interface {
	Encode(text string) ([]int32, error)
	Decode(ids []int32) (string, error)
}

// LocalCodec is a tokenizer of this process.
type LocalCodec struct{ *tokenizer.Tokenizer }

// Decode implements Codec.
func (l LocalCodec) Decode(ids []int32) (string, error) { return l.Tokenizer.Decode(ids, false), nil }

// tokenRoutes are the spellings of tokenize and detokenize: vLLM's and ours, those
// of the Python server of llama.cpp, those of llama.cpp's own.
var tokenRoutes = []tokenRoute{
	{encode: "/tokenize", decode: "/detokenize", text: "prompt", back: "prompt"},
	{encode: "/extras/tokenize", decode: "/extras/detokenize", text: "input", back: "text"},
	{encode: "/tokenize", decode: "/detokenize", text: "content", back: "content"},
}

type tokenRoute struct{ encode, decode, text, back string }

// serverCodec asks the server.
type serverCodec struct {
	ctx    context.Context // of the whole run: Codec is for one
	client *Client
	route  tokenRoute
}

// ServerCodec finds the server's own tokenizer, or fails when it offers none.
func (c *Client) ServerCodec(ctx context.Context) (Codec, error) {
	const text = "The quick brown fox"
	for _, route := range tokenRoutes {
		s := serverCodec{ctx, c, route}
		ids, err := s.Encode(text)
		if err != nil || len(ids) == 0 {
			continue
		}
		if back, err := s.Decode(ids); err == nil && strings.Contains(back, "quick brown") {
			return s, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, errors.New("the server offers no tokenizer (/tokenize)")
}

// Encode implements Codec.
func (s serverCodec) Encode(text string) ([]int32, error) {
	var out struct {
		Tokens []int32 `json:"tokens"`
	}
	err := s.client.ask(s.ctx, s.route.encode, map[string]any{"model": s.client.Model, s.route.text: text, "add_special_tokens": false}, &out)
	return out.Tokens, err
}

// Decode implements Codec.
func (s serverCodec) Decode(ids []int32) (string, error) {
	var out map[string]any
	err := s.client.ask(s.ctx, s.route.decode, map[string]any{"model": s.client.Model, "tokens": ids}, &out)
	text, _ := out[s.route.back].(string)
	return text, err
}

// ask sends JSON, or with nil fields asks without, and reads JSON.
func (c *Client) ask(ctx context.Context, path string, fields, into any) error {
	var body []byte
	if fields != nil {
		var err error
		if body, err = json.Marshal(fields); err != nil {
			return err
		}
	}
	resp, err := c.send(ctx, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end below, or of no use
	if resp.StatusCode != http.StatusOK {
		return statusError{resp.StatusCode, errorText(resp.Body)}
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// FirstModel is the first model that the server lists.
func (c *Client) FirstModel(ctx context.Context) (string, error) {
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := c.ask(ctx, "/v1/models", nil, &list); err != nil {
		return "", c.explain(err)
	}
	if len(list.Data) == 0 {
		return "", fmt.Errorf("%s lists no model: name one with --model", c.BaseURL)
	}
	return list.Data[0].ID, nil
}

// explain says what to do about a server that does not answer.
func (c *Client) explain(err error) error {
	hint := ""
	switch failureKind(err) {
	case "connection refused", "host not found":
		hint = "; is it running? (--base-url, or --host and --port)"
	case "status 401", "status 403":
		hint = "; give its key in OPENAI_API_KEY"
	case "status 404":
		hint = "; is it an OpenAI server, and the model right? (--model, --endpoint)"
	}
	return fmt.Errorf("%s: %w%s", c.BaseURL, err, hint)
}

// Estimate stands in for a tokenizer where there is none: it knows how many tokens
// a word makes on average, so that lengths come out about right.
type Estimate struct{ TokensPerWord float64 }

// errEstimate is the answer to whoever wants exact tokens of an Estimate.
var errEstimate = errors.New("there is no tokenizer: give one with --tokenizer")

// Encode implements Codec; it fails.
func (Estimate) Encode(string) ([]int32, error) { return nil, errEstimate }

// Decode implements Codec; it fails.
func (Estimate) Decode([]int32) (string, error) { return "", errEstimate }

// Estimate finds out from two answers' usage how many tokens the server makes of a
// word.
func (c *Client) Estimate(ctx context.Context) (Estimate, error) {
	const few, many = 16, 272
	r := rand.New(rand.NewPCG(11, 0))
	var tokens [2]int
	for i, n := range []int{few, many} {
		s, err := c.Check(ctx, ServePrompt{Text: randomWords(r, n), OutputTokens: 1})
		if err != nil {
			return Estimate{}, err
		}
		tokens[i] = s.PromptTokens
	}
	perWord := float64(tokens[1]-tokens[0]) / (many - few)
	if perWord <= 0 {
		return Estimate{}, errors.New("the server offers no tokenizer and does not say how long prompts were: give --tokenizer, or --dataset-name jsonl")
	}
	return Estimate{perWord}, nil
}

// Check sends one request and returns what came of it, so that a wrong flag is
// found before the load is sent.
func (c *Client) Check(ctx context.Context, p ServePrompt) (*ServeSample, error) {
	run, err := Serve(ctx, c, []ServePrompt{p}, ServeLoad{RequestRate: AtOnce, Burstiness: 1})
	if err != nil {
		return nil, err
	}
	if s := &run.Samples[0]; s.Err != nil {
		return s, c.explain(s.Err)
	}
	return &run.Samples[0], nil
}

// ResetPrefixCache asks the server to forget cached prefixes; false when it cannot.
func (c *Client) ResetPrefixCache(ctx context.Context) bool {
	resp, err := c.send(ctx, "/reset_prefix_cache", []byte{})
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode == http.StatusOK
}
