package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// parseMessages decodes the messages of a request and gives every content the
// form that the template expects.
func parseMessages(raw json.RawMessage, f form, parseArguments bool) ([]any, error) {
	if len(raw) == 0 {
		return nil, errors.New("messages: missing")
	}
	value, err := parseJSON(raw)
	if err != nil {
		return nil, fmt.Errorf("messages: %w", err)
	}
	list, ok := value.([]any)
	if !ok || len(list) == 0 {
		return nil, errors.New("messages: must be a list of at least one message")
	}
	for i, entry := range list {
		message, ok := entry.(*object)
		if !ok {
			return nil, fmt.Errorf("messages[%d]: must be an object", i)
		}
		role, _ := message.get("role")
		if text, ok := role.(string); !ok || text == "" {
			return nil, fmt.Errorf("messages[%d].role: must be a non-empty string", i)
		}
		if content, present := message.get("content"); present {
			texts, err := contentTexts(content)
			if err != nil {
				return nil, fmt.Errorf("messages[%d].content%w", i, err)
			}
			if f.parts {
				message.set("content", textParts(texts))
			} else {
				message.set("content", strings.Join(texts, "\n"))
			}
		}
		if parseArguments {
			if err := parseToolCalls(message, f.arguments); err != nil {
				return nil, fmt.Errorf("messages[%d].%w", i, err)
			}
		}
	}
	return list, nil
}

// contentTexts returns the text parts of a content, none of null; a string is one. As one
// string they are joined with a newline, as vLLM does. The error continues the path of the
// field.
func contentTexts(content any) ([]string, error) {
	switch content := content.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{content}, nil
	case []any:
		texts := make([]string, len(content))
		for j, entry := range content {
			part, ok := entry.(*object)
			if !ok {
				return nil, fmt.Errorf("[%d]: must be an object with type and text", j)
			}
			if kind, _ := part.get("type"); kind != "text" {
				return nil, fmt.Errorf(`[%d].type: is %s, but this model takes "text" only`, j, describe(kind))
			}
			text, _ := part.get("text")
			if texts[j], ok = text.(string); !ok {
				return nil, fmt.Errorf("[%d].text: must be a string", j)
			}
		}
		return texts, nil
	default:
		return nil, errors.New(": must be a string, a list of text parts or null")
	}
}

func textParts(texts []string) []any {
	parts := make([]any, len(texts))
	for i, text := range texts {
		parts[i] = &object{[]member{{"type", "text"}, {"text", text}}}
	}
	return parts
}

// endContent writes the mark end behind the content of a message.
func endContent(message *object, end string) {
	content, _ := message.get("content")
	switch content := content.(type) {
	case []any:
		if len(content) == 0 {
			message.set("content", textParts([]string{end}))
			return
		}
		last := content[len(content)-1].(*object)
		text, _ := last.get("text")
		last.set("text", text.(string)+end)
	case string:
		message.set("content", content+end)
	default:
		message.set("content", end)
	}
}

func describe(value any) string {
	if text, ok := value.(string); ok {
		return fmt.Sprintf("%.40q", text)
	}
	return "not a string"
}

// parseToolCalls replaces the arguments of tool calls that are strings of JSON
// by what they say, unless they are to stay strings; an empty string says {}.
func parseToolCalls(message *object, stay bool) error {
	value, _ := message.get("tool_calls")
	if value == nil {
		return nil
	}
	calls, ok := value.([]any)
	if !ok {
		return errors.New("tool_calls: must be a list")
	}
	for j, entry := range calls {
		call, ok := entry.(*object)
		if !ok {
			return fmt.Errorf("tool_calls[%d]: must be an object", j)
		}
		function, ok := call, true
		if nested, present := call.get("function"); present {
			if function, ok = nested.(*object); !ok {
				return fmt.Errorf("tool_calls[%d].function: must be an object", j)
			}
		}
		arguments, _ := function.get("arguments")
		text, ok := arguments.(string)
		if !ok {
			continue
		}
		if strings.TrimSpace(text) == "" {
			text = "{}"
		}
		parsed, err := parseJSON([]byte(text))
		switch {
		case err != nil:
			return fmt.Errorf("tool_calls[%d].function.arguments: %w", j, err)
		case stay:
			function.set("arguments", text)
		default:
			function.set("arguments", parsed)
		}
	}
	return nil
}

// parseTools decodes the tools of a request; nil for none.
func parseTools(raw json.RawMessage) (any, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	value, err := parseJSON(raw)
	if err != nil {
		return nil, fmt.Errorf("tools: %w", err)
	}
	list, ok := value.([]any)
	if !ok && value != nil {
		return nil, errors.New("tools: must be a list")
	}
	if len(list) == 0 {
		return nil, nil
	}
	return list, nil
}
