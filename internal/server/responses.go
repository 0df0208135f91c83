package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// OpenAI's responses API: POST /v1/responses, for text and function calls.
// Nothing is stored, so that a response cannot be continued or fetched by its id.

// responsesFields is the table of /v1/responses.
var responsesFields = merge(samplingFields, structureFields, refusedFields, noEffectFields, map[string]field{
	"n":                    only(`1`),
	"stream_options":       noEffect, // obfuscation alone
	"input":                responsesInput,
	"instructions":         text(maxBodyBytes, func(r *request) *string { return &r.system }),
	"max_output_tokens":    positive(func(r *request, v int64) { r.maxTokens = int(v) }),
	"tools":                responsesTools,
	"tool_choice":          toolChoice,
	"parallel_tool_calls":  parallelToolCalls,
	"text":                 responsesText,
	"truncation":           only(`"disabled"`),
	"include":              responsesInclude,
	"top_logprobs":         only(`0`),
	"previous_response_id": only(),
	"conversation":         only(),
	"prompt":               only(),
	"background":           only(`false`),
	"max_tool_calls":       only(),
	"reasoning":            noEffect,
	"context_management":   only(),
	"chat_template_kwargs": templateKwargs,
	// They would change what a response has to show.
	"stop": only(`[]`), "return_token_ids": only(`false`), "return_tokens_as_token_ids": only(`false`),
})

func (s *Server) handleResponses(w http.ResponseWriter, req *http.Request) {
	arrival := time.Now()
	r := s.defaults()
	defer r.encoded()
	err := s.decodeRequest(w, req, responsesFields, &r)
	if err == nil && r.messages == nil {
		err = badField("input", "is missing")
	}
	if err != nil {
		s.writeError(w, err)
		return
	}
	if r.system != "" {
		r.messages = withSystem(r.system, r.messages)
	}
	s.answer(w, req, &r, arrival, "resp_", "input", &responsesProtocol{})
}

// withSystem puts a system prompt before messages.
func withSystem(system string, messages json.RawMessage) json.RawMessage {
	var list []json.RawMessage
	_ = json.Unmarshal(messages, &list) // made here
	return listOf(append([]json.RawMessage{objectOf("role", quote("system"), "content", quote(system))}, list...))
}

// responsesItem is an entry of input.
type responsesItem struct {
	Type, Role string
	Content    json.RawMessage
	CallID     string `json:"call_id"`
	Name       string
	Arguments  string
	Output     json.RawMessage
}

// responsesInput turns the items of input into messages that templates know.
func responsesInput(r *request, name string, value json.RawMessage) *apiError {
	var one string
	if json.Unmarshal(value, &one) == nil {
		r.messages = listOf([]json.RawMessage{objectOf("role", quote("user"), "content", quote(one))})
		return nil
	}
	var items []responsesItem
	if json.Unmarshal(value, &items) != nil {
		return badField(name, "must be a string or a list of items")
	}
	if len(items) == 0 || len(items) > maxMessages {
		return badField(name, "has %d entries, must have 1 to %d", len(items), maxMessages)
	}
	var out, calls []json.RawMessage
	assistant := "" // an assistant's text that its calls belong to
	flush := func() {
		if len(calls) > 0 {
			out = append(out, objectOf("role", quote("assistant"), "content", quote(assistant), "tool_calls", listOf(calls)))
		} else if assistant != "" {
			out = append(out, objectOf("role", quote("assistant"), "content", quote(assistant)))
		}
		assistant, calls = "", nil
	}
	for i, item := range items {
		content, err := responsesContent(indexed(name, i), item)
		if err != nil {
			return err
		}
		switch {
		case item.Type == "function_call":
			if strings.TrimSpace(item.Arguments) != "" && !json.Valid([]byte(item.Arguments)) {
				return badField(indexed(name, i), "must have arguments that are JSON")
			}
			arguments := json.RawMessage(quote(item.Arguments))
			calls = append(calls, objectOf("id", quote(item.CallID), "type", quote("function"), "function", objectOf("name", quote(item.Name), "arguments", arguments)))
		case item.Type == "reasoning": // templates of these models drop it
		case item.Type == "function_call_output":
			flush()
			out = append(out, objectOf("role", quote("tool"), "tool_call_id", quote(item.CallID), "content", quote(content)))
		case item.Role == "assistant":
			flush()
			assistant = content
		default:
			flush()
			out = append(out, objectOf("role", quote(strings.Replace(item.Role, "developer", "system", 1)), "content", quote(content)))
		}
	}
	flush()
	if len(out) == 0 {
		return badField(name, "must have a message")
	}
	r.messages = listOf(out)
	return nil
}

// responsesContent checks an item and returns its text.
func responsesContent(name string, item responsesItem) (string, *apiError) {
	content := item.Content
	switch item.Type {
	case "", "message":
		switch item.Role {
		case "user", "assistant", "system", "developer":
		default:
			return "", badField(name, "has the unknown role %.32q; use user, assistant, system or developer", item.Role)
		}
		if absent(content) {
			return "", badField(name, "must have content")
		}
	case "function_call_output":
		content = item.Output
	case "function_call", "reasoning":
		return "", nil
	default:
		return "", unsupported(name, "is of type %.32q, which is not supported", item.Type)
	}
	var one string
	if absent(content) || json.Unmarshal(content, &one) == nil {
		return one, nil
	}
	var parts []struct{ Type, Text, Refusal string }
	if json.Unmarshal(content, &parts) != nil {
		return "", badField(name, "must have content that is a string or a list of parts")
	}
	texts := make([]string, len(parts))
	for i, part := range parts {
		switch part.Type {
		case "input_text", "output_text", "text":
			texts[i] = part.Text
		case "refusal":
			texts[i] = part.Refusal
		default:
			return "", unsupported(name, "has a part of type %.32q; this model takes text only", part.Type)
		}
	}
	return strings.Join(texts, "\n"), nil
}

// responsesTools turns flat function tools into those of chat completions.
func responsesTools(r *request, name string, value json.RawMessage) *apiError {
	var list []json.RawMessage
	if json.Unmarshal(value, &list) != nil {
		return badField(name, "must be a list of tools")
	}
	out := make([]json.RawMessage, len(list))
	for i, raw := range list {
		var tool struct{ Type string }
		if json.Unmarshal(raw, &tool) != nil || tool.Type != "function" {
			return unsupported(indexed(name, i), "is of type %.32q; only functions are supported", tool.Type)
		}
		members := []any{}
		_, err := rewriteObject(raw, func(key string, value json.RawMessage) json.RawMessage {
			if key != "type" && key != "strict" {
				members = append(members, key, value)
			}
			return value
		})
		if err != nil {
			return badField(indexed(name, i), "must be an object")
		}
		out[i] = objectOf("type", quote("function"), "function", objectOf(members...))
	}
	r.shownTools = value
	return decodeTools(r, name, listOf(out))
}

// responsesText is this API's response_format.
func responsesText(r *request, name string, value json.RawMessage) *apiError {
	var options struct {
		Format    json.RawMessage
		Verbosity json.RawMessage
	}
	if json.Unmarshal(value, &options) != nil {
		return badField(name, "must be an object")
	}
	if absent(options.Format) {
		return nil
	}
	var format struct {
		Type   string
		Schema json.RawMessage
	}
	at := name + ".format"
	if json.Unmarshal(options.Format, &format) != nil {
		return badField(at, "must be an object")
	}
	r.shownFormat = options.Format
	return r.formatted(at, at+".schema", format.Type, format.Schema)
}

// responsesInclude takes what a response without reasoning has anyway.
func responsesInclude(_ *request, name string, value json.RawMessage) *apiError {
	var list []string
	if json.Unmarshal(value, &list) != nil {
		return badField(name, "must be a list of strings")
	}
	for _, item := range list {
		if item != "reasoning.encrypted_content" {
			return unsupported(name, "has %.64q, which is not supported", item)
		}
	}
	return nil
}
