package server

import (
	"encoding/json"
	"strings"
)

// The fields that shape the prompt of a chat.

func addGenerationPrompt(r *request, name string, value json.RawMessage) *apiError {
	r.generationGiven = true
	return boolean(func(r *request) *bool { return &r.addGenerationPrompt })(r, name, value)
}

func parallelToolCalls(r *request, name string, value json.RawMessage) *apiError {
	parallel := true
	err := boolean(func(*request) *bool { return &parallel })(r, name, value)
	r.tooling.single = !parallel
	return err
}

// templateKwargs are further variables of the model's template. It alone decides
// what they do; the names that it fills itself are refused when it is rendered.
func templateKwargs(r *request, name string, value json.RawMessage) *apiError {
	if len(value) > maxKwargsBytes || nesting(value) > maxKwargsDepth {
		return badField(name, "must have at most %d bytes and %d levels", maxKwargsBytes, maxKwargsDepth)
	}
	if json.Unmarshal(value, &r.kwargs) != nil {
		return badField(name, "must be an object")
	}
	return nil
}

func documents(r *request, name string, value json.RawMessage) *apiError {
	var list []json.RawMessage
	if json.Unmarshal(value, &list) != nil {
		return badField(name, "must be a list")
	}
	if len(list) > maxDocuments {
		return badField(name, "has %d entries, at most %d are allowed", len(list), maxDocuments)
	}
	if len(list) > 0 {
		r.documents = value
	}
	return nil
}

func truncatePrompt(r *request, name string, value json.RawMessage) *apiError {
	err := integer(func(r *request, v int64) { r.truncate = int(v) })(r, name, value)
	if err == nil && r.truncate == 0 {
		err = badField(name, "is 0, must be -1 or at least 1")
	}
	return err
}

func truncationSide(r *request, name string, value json.RawMessage) *apiError {
	var side string
	if json.Unmarshal(value, &side) != nil || side != "left" && side != "right" {
		return badField(name, `must be "left" or "right"`)
	}
	r.truncateRight = side == "right"
	return nil
}

// cut shortens a prompt as the request asks. A context of limit tokens has to hold
// the answer, too.
func (r *request) cut(ids []int32, limit int) []int32 {
	most := r.truncate
	if most < 0 {
		most = max(1, limit-max(1, r.maxTokens))
	}
	switch {
	case most == 0 || len(ids) <= most:
		return ids
	case r.truncateRight:
		return ids[:most]
	}
	return ids[len(ids)-most:]
}

// lastAnswer is the content of the last message if it is an assistant's: what
// echo shows before the answer.
func (r *request) lastAnswer() string {
	var list []struct {
		Role    string
		Content json.RawMessage
	}
	if json.Unmarshal(r.messages, &list) != nil || len(list) == 0 || list[len(list)-1].Role != "assistant" {
		return ""
	}
	content := list[len(list)-1].Content
	var one string
	if json.Unmarshal(content, &one) == nil {
		return one
	}
	var parts []struct{ Text string }
	if json.Unmarshal(content, &parts) != nil {
		return ""
	}
	texts := make([]string, len(parts))
	for i, part := range parts {
		texts[i] = part.Text
	}
	return strings.Join(texts, "\n") // as the template joins them
}
