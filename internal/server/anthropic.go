package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
)

// Anthropic's messages API: POST /v1/messages and /v1/messages/count_tokens.

// messagesFields is the table of /v1/messages.
var messagesFields = map[string]field{
	"model":                samplingFields["model"],
	"max_tokens":           samplingFields["max_tokens"],
	"messages":             anthropicMessages,
	"system":               anthropicSystem,
	"tools":                anthropicTools,
	"tool_choice":          anthropicToolChoice,
	"stream":               samplingFields["stream"],
	"temperature":          samplingFields["temperature"],
	"top_p":                samplingFields["top_p"],
	"top_k":                samplingFields["top_k"],
	"stop_sequences":       stopStrings,
	"metadata":             noEffect,
	"service_tier":         noEffect,
	"cache_control":        noEffect, // every prefix is cached
	"thinking":             noEffect, // as reasoning_effort: there is none to steer
	"container":            only(),
	"mcp_servers":          only(`[]`),
	"context_management":   only(),
	"output_format":        anthropicFormat,
	"output_config":        anthropicConfig,
	"structured_outputs":   structuredOutputs,
	"chat_template_kwargs": templateKwargs,
	"cache_salt":           cacheSalt,
	"priority":             samplingFields["priority"],
	"seed":                 samplingFields["seed"],
	"min_p":                samplingFields["min_p"],
	"repetition_penalty":   samplingFields["repetition_penalty"],
	"ignore_eos":           samplingFields["ignore_eos"],
	"min_tokens":           samplingFields["min_tokens"],
}

func (s *Server) handleMessages(w http.ResponseWriter, req *http.Request) {
	arrival := time.Now()
	r := s.defaults()
	defer r.encoded()
	err := s.decodeMessagesRequest(w, req, &r)
	if err == nil && r.maxTokens == 0 {
		err = badField("max_tokens", "is missing")
	}
	if err != nil {
		s.writeError(w, err)
		return
	}
	s.answer(w, req, &r, arrival, "msg_", "messages", anthropicProtocol{})
}

func (s *Server) handleCountTokens(w http.ResponseWriter, req *http.Request) {
	r := s.defaults()
	defer r.encoded()
	r.counted = true
	err := s.decodeMessagesRequest(w, req, &r)
	var ids []int32
	if err == nil {
		ids, err = s.encodeChat(req.Context(), &r, "messages")
	}
	if err != nil {
		s.writeError(w, err)
		return
	}
	s.writeJSON(w, http.StatusOK, map[string]int{"input_tokens": len(ids)})
}

// decodeMessagesRequest also puts the system prompt before the messages.
func (s *Server) decodeMessagesRequest(w http.ResponseWriter, req *http.Request, r *request) *apiError {
	if err := s.decodeRequest(w, req, messagesFields, r); err != nil {
		return err
	}
	if r.messages == nil {
		return badField("messages", "is missing")
	}
	if r.system != "" {
		r.messages = withSystem(r.system, r.messages)
	}
	return nil
}

func anthropicSystem(r *request, name string, value json.RawMessage) *apiError {
	text, err := anthropicText(name, value)
	r.system = text
	return err
}

// anthropicText is a string, or a list of text blocks.
func anthropicText(name string, value json.RawMessage) (string, *apiError) {
	var one string
	if absent(value) || json.Unmarshal(value, &one) == nil {
		return one, nil
	}
	var blocks []struct{ Type, Text string }
	if json.Unmarshal(value, &blocks) != nil {
		return "", badField(name, "must be a string or a list of text blocks")
	}
	texts := make([]string, len(blocks))
	for i, b := range blocks {
		if b.Type != "text" {
			return "", unsupported(name, "has a block of type %.32q; this model takes text only", b.Type)
		}
		texts[i] = b.Text
	}
	return strings.Join(texts, "\n"), nil
}

// anthropicMessages turns Anthropic's messages into those that templates know.
func anthropicMessages(r *request, name string, value json.RawMessage) *apiError {
	var list []struct {
		Role    string
		Content json.RawMessage
	}
	if json.Unmarshal(value, &list) != nil {
		return badField(name, "must be a list of messages")
	}
	if len(list) == 0 || len(list) > maxMessages {
		return badField(name, "has %d entries, must have 1 to %d", len(list), maxMessages)
	}
	var out []json.RawMessage
	for i, m := range list {
		if m.Role != "user" && m.Role != "assistant" && m.Role != "system" {
			return badField(indexed(name, i), `has the role %.32q, must be "user" or "assistant"`, m.Role)
		}
		if absent(m.Content) {
			return badField(indexed(name, i), "must have content")
		}
		made, err := anthropicMessage(m.Role, indexed(name, i), m.Content)
		if err != nil {
			return err
		}
		if out = append(out, made...); len(out) > maxMessages {
			return badField(name, "comes to more than %d messages", maxMessages)
		}
	}
	if list[len(list)-1].Role == "assistant" { // the client has begun the answer itself
		r.continueFinal = true
	}
	r.messages = listOf(out)
	return nil
}

// anthropicBlock is an entry of a message's content.
type anthropicBlock struct {
	Type, Text string
	ID, Name   string
	Input      json.RawMessage
	ToolUseID  string `json:"tool_use_id"`
	IsError    bool   `json:"is_error"`
	Content    json.RawMessage
}

// anthropicMessage is a message, and before it one for each tool result in it.
func anthropicMessage(role, name string, content json.RawMessage) ([]json.RawMessage, *apiError) {
	var one string
	if json.Unmarshal(content, &one) == nil {
		return []json.RawMessage{objectOf("role", quote(role), "content", quote(one))}, nil
	}
	var blocks []anthropicBlock
	if json.Unmarshal(content, &blocks) != nil {
		return nil, badField(name, "must have content that is a string or a list of blocks")
	}
	var texts []string
	var calls, out []json.RawMessage
	for _, b := range blocks {
		switch {
		case b.Type == "text":
			texts = append(texts, b.Text)
		case b.Type == "tool_use" && role == "assistant":
			if absent(b.Input) {
				b.Input = json.RawMessage("{}")
			}
			function := objectOf("name", quote(b.Name), "arguments", b.Input)
			calls = append(calls, objectOf("id", quote(b.ID), "type", quote("function"), "function", function))
		case b.Type == "tool_result" && role == "user":
			text, err := anthropicText(name+".content", b.Content)
			if err != nil {
				return nil, err
			}
			if b.IsError { // templates know no failed results
				text = "Error: " + text
			}
			out = append(out, objectOf("role", quote("tool"), "tool_call_id", quote(b.ToolUseID), "content", quote(text)))
		case (b.Type == "thinking" || b.Type == "redacted_thinking") && role == "assistant": // templates of these models drop it
		default:
			return nil, unsupported(name, "has a block of type %.32q, which %s messages cannot have here", b.Type, role)
		}
	}
	if len(texts)+len(calls) == 0 && len(out) > 0 {
		return out, nil
	}
	message := []any{"role", quote(role), "content", quote(strings.Join(texts, "\n"))}
	if len(calls) > 0 {
		message = append(message, "tool_calls", listOf(calls))
	}
	return append(out, objectOf(message...)), nil
}

// anthropicTools turns Anthropic's tools into OpenAI's.
func anthropicTools(r *request, name string, value json.RawMessage) *apiError {
	var list []struct {
		Type        *string
		Name        string
		Description *string
		InputSchema json.RawMessage `json:"input_schema"`
	}
	if json.Unmarshal(value, &list) != nil {
		return badField(name, "must be a list of tools")
	}
	var out []json.RawMessage
	for i, tool := range list {
		if tool.Type != nil && *tool.Type != "custom" {
			return unsupported(indexed(name, i), "is of type %.32q; only tools of the client are supported", *tool.Type)
		}
		function := []any{"name", quote(tool.Name)}
		if tool.Description != nil {
			function = append(function, "description", quote(*tool.Description))
		}
		if !absent(tool.InputSchema) {
			function = append(function, "parameters", tool.InputSchema)
		}
		out = append(out, objectOf("type", quote("function"), "function", objectOf(function...)))
	}
	return decodeTools(r, name, listOf(out))
}

// anthropicFormat is this API's response_format.
func anthropicFormat(r *request, name string, value json.RawMessage) *apiError {
	var format struct {
		Type   string
		Schema json.RawMessage
	}
	if json.Unmarshal(value, &format) != nil {
		return badField(name, `must be {"type": "json_schema", "schema": …}`)
	}
	return r.formatted(name, name+".schema", format.Type, format.Schema)
}

// anthropicConfig has the format in its later place.
func anthropicConfig(r *request, name string, value json.RawMessage) *apiError {
	var raw map[string]json.RawMessage
	if json.Unmarshal(value, &raw) != nil {
		return badField(name, "must be an object")
	}
	for key, item := range raw {
		switch {
		case absent(item), key == "effort": // as reasoning_effort
		case key == "format":
			if err := anthropicFormat(r, name+".format", item); err != nil {
				return err
			}
		default:
			return unsupported(name+"."+key, "is not supported")
		}
	}
	return nil
}

func anthropicToolChoice(r *request, name string, value json.RawMessage) *apiError {
	var choice struct {
		Type, Name      string
		DisableParallel bool `json:"disable_parallel_tool_use"`
	}
	if json.Unmarshal(value, &choice) != nil {
		return badField(name, `must be {"type": …}`)
	}
	mode, ok := map[string]toolMode{"auto": toolsAuto, "any": toolsRequired, "tool": toolsNamed, "none": toolsNone}[choice.Type]
	if !ok {
		return badField(name, `has the type %.32q, must be "auto", "any", "tool" or "none"`, choice.Type)
	}
	r.tooling.mode, r.tooling.name, r.tooling.single = mode, choice.Name, choice.DisableParallel
	return nil
}

// anthropicStop is why an answer ended, and the stop string that ended it.
func anthropicStop(c *choice, d delta) (reason string, sequence *string) {
	stop, matched := d.stopReason.(string)
	switch {
	case c.tools != nil && c.tools.whole > 0 && !c.tools.torn:
		return "tool_use", nil
	case matched:
		return "stop_sequence", &stop
	case d.finish == engine.FinishLength:
		return "max_tokens", nil
	}
	return "end_turn", nil
}
