package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// decodeMessages checks what the template does not: it looks at contents, and
// the fields that it reads. Messages keep their order and spelling.
func decodeMessages(r *request, name string, value json.RawMessage) *apiError {
	var list []json.RawMessage
	if json.Unmarshal(value, &list) != nil {
		return badField(name, "must be a list of messages")
	}
	if len(list) == 0 || len(list) > maxMessages {
		return badField(name, "has %d entries, must have 1 to %d", len(list), maxMessages)
	}
	out := []byte{'['}
	for i, raw := range list {
		message, err := checkMessage(raw)
		if err != nil {
			return badField(fmt.Sprintf("%s[%d]", name, i), "%s", err)
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, message...)
	}
	r.messages = append(out, ']')
	return nil
}

func checkMessage(raw json.RawMessage) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil || fields == nil {
		return nil, errors.New("must be an object")
	}
	var role string
	if json.Unmarshal(fields["role"], &role) != nil {
		return nil, errors.New("must have a role, which is a string")
	}
	switch role {
	case "system", "developer", "user", "assistant", "tool":
	default:
		return nil, fmt.Errorf("has the unknown role %.32q; use system, developer, user, assistant or tool", role)
	}
	for _, key := range []string{"function_call", "audio"} {
		if !absent(fields[key]) {
			return nil, fmt.Errorf("has %s, which is not supported", key)
		}
	}
	if role != "assistant" {
		if !absent(fields["tool_calls"]) {
			return nil, errors.New("has tool_calls, which only an assistant's message may have")
		}
		if absent(fields["content"]) {
			return nil, errors.New("must have content")
		}
	}
	if role != "developer" {
		return raw, nil
	}
	// OpenAI's new name of the system role; templates know the old one, and most
	// drop what they do not know.
	return rewriteObject(raw, func(key string, value json.RawMessage) json.RawMessage {
		if key == "role" {
			return json.RawMessage(`"system"`)
		}
		return value
	})
}

func absent(value json.RawMessage) bool { return len(value) == 0 || string(value) == "null" }

// decodePrompts takes the four forms of prompt: a string, a list of strings, a
// list of ids, a list of lists of ids.
func decodePrompts(r *request, name string, value json.RawMessage) *apiError {
	var one string
	if json.Unmarshal(value, &one) == nil {
		r.prompts = []prompt{{text: one}}
		return nil
	}
	value = bytes.TrimSpace(value)
	if value[0] != '[' {
		return badField(name, "must be a string, a list of strings, a list of token ids, or a list of lists of token ids")
	}
	switch first := bytes.TrimSpace(value[1:])[0]; first {
	case ']':
		return badField(name, "must not be empty")
	case '"', '[':
	default:
		ids, err := parseTokenIDs(name, value, maxBodyBytes)
		r.prompts = []prompt{{ids: ids}}
		return err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(value, &list); err != nil {
		return badField(name, "is not a list%s", jsonReason(err))
	}
	if len(list) > maxChoices {
		return badField(name, "has %d entries, at most %d are allowed", len(list), maxChoices)
	}
	for i, item := range list {
		var p prompt
		if item[0] == '[' {
			ids, err := parseTokenIDs(name, item, maxBodyBytes)
			if err != nil {
				return err
			}
			p.ids = ids
		} else if json.Unmarshal(item, &p.text) != nil || item[0] != '"' {
			return badField(name, "must be a list of strings or of lists of token ids; entry %d is neither", i)
		}
		r.prompts = append(r.prompts, p)
	}
	return nil
}
