package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// parseMessages decodes the messages of a request and gives every content the
// form that templates expect, a string.
func parseMessages(raw json.RawMessage, parseArguments bool) ([]any, error) {
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
			text, err := contentText(content)
			if err != nil {
				return nil, fmt.Errorf("messages[%d].content%w", i, err)
			}
			message.set("content", text)
		}
		if parseArguments {
			if err := parseToolCalls(message); err != nil {
				return nil, fmt.Errorf("messages[%d].%w", i, err)
			}
		}
	}
	return list, nil
}

// contentText joins text parts with a newline and reads null as no text, both as
// vLLM does. The error continues the path of the field.
func contentText(content any) (string, error) {
	switch content := content.(type) {
	case nil:
		return "", nil
	case string:
		return content, nil
	case []any:
		texts := make([]string, len(content))
		for j, entry := range content {
			part, ok := entry.(*object)
			if !ok {
				return "", fmt.Errorf("[%d]: must be an object with type and text", j)
			}
			if kind, _ := part.get("type"); kind != "text" {
				return "", fmt.Errorf(`[%d].type: is %s, but this model takes "text" only`, j, describe(kind))
			}
			text, _ := part.get("text")
			if texts[j], ok = text.(string); !ok {
				return "", fmt.Errorf("[%d].text: must be a string", j)
			}
		}
		return strings.Join(texts, "\n"), nil
	default:
		return "", errors.New(": must be a string, a list of text parts or null")
	}
}

func describe(value any) string {
	if text, ok := value.(string); ok {
		return fmt.Sprintf("%.40q", text)
	}
	return "not a string"
}

// parseToolCalls replaces the arguments of tool calls that are strings of JSON
// by what they say; an empty string says {}.
func parseToolCalls(message *object) error {
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
		parsed, err := any(&object{}), error(nil)
		if strings.TrimSpace(text) != "" {
			parsed, err = parseJSON([]byte(text))
		}
		if err != nil {
			return fmt.Errorf("tool_calls[%d].function.arguments: %w", j, err)
		}
		function.set("arguments", parsed)
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
