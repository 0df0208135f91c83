package server

import (
	"encoding/json"
	"strconv"

	"github.com/pagoda-engine/pagoda/engine"
)

// responsesProtocol dresses answers as OpenAI's responses.
type responsesProtocol struct{ sequence int }

type responseBody struct {
	ID                 string          `json:"id"`
	Object             string          `json:"object"`
	CreatedAt          int64           `json:"created_at"`
	Status             string          `json:"status"`
	Background         bool            `json:"background"`
	Error              any             `json:"error"`
	IncompleteDetails  any             `json:"incomplete_details"`
	Instructions       any             `json:"instructions"`
	MaxOutputTokens    any             `json:"max_output_tokens"`
	Model              string          `json:"model"`
	Output             []any           `json:"output"`
	ParallelToolCalls  bool            `json:"parallel_tool_calls"`
	PreviousResponseID any             `json:"previous_response_id"`
	Reasoning          map[string]any  `json:"reasoning"`
	Store              bool            `json:"store"`
	Temperature        float32         `json:"temperature"`
	Text               map[string]any  `json:"text"`
	ToolChoice         any             `json:"tool_choice"`
	Tools              json.RawMessage `json:"tools"`
	TopP               float32         `json:"top_p"`
	Truncation         string          `json:"truncation"`
	Usage              *responsesUsage `json:"usage"`
	Metadata           map[string]any  `json:"metadata"`
}

type responsesUsage struct {
	Input        int            `json:"input_tokens"`
	InputDetail  map[string]int `json:"input_tokens_details"`
	Output       int            `json:"output_tokens"`
	OutputDetail map[string]int `json:"output_tokens_details"`
	Total        int            `json:"total_tokens"`
}

// responsesPart is the text of a message.
type responsesPart struct {
	Type        string `json:"type"`
	Text        string `json:"text"`
	Annotations []any  `json:"annotations"`
	Logprobs    []any  `json:"logprobs"`
}

type responsesMessage struct {
	ID      string          `json:"id"`
	Type    string          `json:"type"`
	Status  string          `json:"status"`
	Role    string          `json:"role"`
	Content []responsesPart `json:"content"`
}

type responsesCall struct {
	ID        string `json:"id"`
	Type      string `json:"type"`
	Status    string `json:"status"`
	CallID    string `json:"call_id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

func textPart(text string) responsesPart {
	return responsesPart{Type: "output_text", Text: text, Annotations: []any{}, Logprobs: []any{}}
}

// itemID names an item of the output; it is the same in a whole answer.
func itemID(g *generation, index int, b block) string {
	prefix := "msg_"
	if b.call != nil {
		prefix = "fc_"
	}
	return prefix + g.id[len("resp_"):] + "_" + strconv.Itoa(index)
}

// itemOf is a block as an item; an open one has no content yet.
func itemOf(g *generation, index int, b block, status string) any {
	if b.call != nil {
		return responsesCall{itemID(g, index, b), "function_call", status, b.call.ID, b.call.Function.Name, b.call.Function.Arguments}
	}
	item := responsesMessage{itemID(g, index, b), "message", status, "assistant", []responsesPart{}}
	if status != "in_progress" {
		item.Content = append(item.Content, textPart(b.text))
	}
	return item
}

// bodyOf is a response that is in progress.
func bodyOf(g *generation) *responseBody {
	r := g.r
	out := &responseBody{
		ID: g.id, Object: "response", CreatedAt: g.created, Status: "in_progress", Model: r.model, Output: []any{},
		ParallelToolCalls: !r.tooling.single, Reasoning: map[string]any{"effort": nil, "summary": nil},
		Temperature: r.sampling.Temperature, TopP: r.sampling.TopP, Text: map[string]any{"format": json.RawMessage(`{"type":"text"}`)},
		ToolChoice: [...]string{"auto", "none", "required", ""}[r.tooling.mode], Tools: json.RawMessage("[]"),
		Truncation: "disabled", Metadata: map[string]any{},
	}
	if r.shownFormat != nil {
		out.Text["format"] = r.shownFormat
	}
	if r.tooling.mode == toolsNamed {
		out.ToolChoice = map[string]string{"type": "function", "name": r.tooling.name}
	}
	if r.system != "" {
		out.Instructions = r.system
	}
	if r.maxTokens > 0 {
		out.MaxOutputTokens = r.maxTokens
	}
	if len(r.shownTools) > 0 {
		out.Tools = r.shownTools
	}
	return out
}

func (*responsesProtocol) whole(g *generation, blocks []block, d delta) any {
	out := bodyOf(g)
	out.Status = "completed"
	if d.finish == engine.FinishLength {
		out.Status, out.IncompleteDetails = "incomplete", map[string]string{"reason": "max_output_tokens"}
	}
	for i, b := range blocks {
		out.Output = append(out.Output, itemOf(g, i, b, "completed"))
	}
	u := g.usage()
	out.Usage = &responsesUsage{
		Input: u.PromptTokens, InputDetail: map[string]int{"cached_tokens": u.Details.CachedTokens},
		Output: u.CompletionTokens, OutputDetail: map[string]int{"reasoning_tokens": 0}, Total: u.TotalTokens,
	}
	return out
}

// event numbers events and names them twice, as the API has it.
func (p *responsesProtocol) event(e *eventWriter, name string, fields map[string]any) error {
	fields["type"], fields["sequence_number"] = name, p.sequence
	p.sequence++
	return e.named(name, fields)
}

func (p *responsesProtocol) begin(e *eventWriter, g *generation) error {
	if err := p.event(e, "response.created", map[string]any{"response": bodyOf(g)}); err != nil {
		return err
	}
	return p.event(e, "response.in_progress", map[string]any{"response": bodyOf(g)})
}

func (p *responsesProtocol) open(e *eventWriter, g *generation, index int, b block) error {
	err := p.event(e, "response.output_item.added", map[string]any{"output_index": index, "item": itemOf(g, index, b, "in_progress")})
	if err != nil || b.call != nil {
		return err
	}
	return p.event(e, "response.content_part.added", map[string]any{
		"output_index": index, "content_index": 0, "item_id": itemID(g, index, b), "part": textPart(""),
	})
}

func (p *responsesProtocol) delta(e *eventWriter, g *generation, index int, b block, piece string) error {
	fields := map[string]any{"output_index": index, "item_id": itemID(g, index, b), "delta": piece}
	if b.call != nil {
		return p.event(e, "response.function_call_arguments.delta", fields)
	}
	fields["content_index"], fields["logprobs"] = 0, []any{}
	return p.event(e, "response.output_text.delta", fields)
}

func (p *responsesProtocol) close(e *eventWriter, g *generation, index int, b block) error {
	id := itemID(g, index, b)
	var err error
	if b.call != nil {
		err = p.event(e, "response.function_call_arguments.done", map[string]any{"output_index": index, "item_id": id, "name": b.call.Function.Name, "arguments": b.call.Function.Arguments})
	} else {
		err = p.event(e, "response.output_text.done", map[string]any{"output_index": index, "content_index": 0, "item_id": id, "text": b.text, "logprobs": []any{}})
		if err == nil {
			err = p.event(e, "response.content_part.done", map[string]any{"output_index": index, "content_index": 0, "item_id": id, "part": textPart(b.text)})
		}
	}
	if err != nil {
		return err
	}
	return p.event(e, "response.output_item.done", map[string]any{"output_index": index, "item": itemOf(g, index, b, "completed")})
}

func (p *responsesProtocol) end(e *eventWriter, g *generation, blocks []block, d delta) error {
	body := p.whole(g, blocks, d).(*responseBody)
	return p.event(e, "response."+body.Status, map[string]any{"response": body})
}

func (p *responsesProtocol) fail(e *eventWriter, g *generation, err *apiError) error {
	body := bodyOf(g)
	body.Status, body.Error = "failed", map[string]string{"code": "server_error", "message": err.message}
	return p.event(e, "response.failed", map[string]any{"response": body})
}
