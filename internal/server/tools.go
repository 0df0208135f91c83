package server

import (
	"encoding/json"
	"fmt"
	"slices"
)

// toolCall is a call as OpenAI's API shows it.
type toolCall struct {
	ID       string         `json:"id"`
	Type     string         `json:"type"`
	Function calledFunction `json:"function"`
}

type calledFunction struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// toolCallDelta is a toolCall in an event: what comes later has the index only.
type toolCallDelta struct {
	Index    int    `json:"index"`
	ID       string `json:"id,omitempty"`
	Type     string `json:"type,omitempty"`
	Function struct {
		Name      string `json:"name,omitempty"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

// callJoiner joins the deltas of an answer's calls.
type callJoiner struct {
	all    []toolCall
	broken map[int]bool
}

// add takes what a piece of the answer added, and returns its text with that of
// calls that turned out to be none.
func (j *callJoiner) add(text string, deltas []callDelta) string {
	inserted := 0
	for _, d := range deltas {
		switch {
		case d.id != "":
			j.all = append(j.all, toolCall{ID: d.id, Type: "function", Function: calledFunction{Name: d.name, Arguments: d.arguments}})
		case d.broken:
			if j.broken == nil {
				j.broken = map[int]bool{}
			}
			j.broken[d.index] = true
			at := d.at + inserted
			text = text[:at] + d.text + text[at:]
			inserted += len(d.text)
		default:
			j.all[d.index].Function.Arguments += d.arguments
		}
	}
	return text
}

// calls are those that are whole; nil = none.
func (j *callJoiner) calls() []toolCall {
	var out []toolCall
	for i, c := range j.all {
		if !j.broken[i] {
			out = append(out, c)
		}
	}
	return out
}

// callDeltas dresses deltas for an event.
func callDeltas(deltas []callDelta) []toolCallDelta {
	var out []toolCallDelta
	for _, d := range deltas {
		if d.broken {
			continue // the client has its beginning, which cannot be taken back
		}
		dressed := toolCallDelta{Index: d.index, ID: d.id}
		if d.id != "" {
			dressed.Type = "function"
		}
		dressed.Function.Name, dressed.Function.Arguments = d.name, d.arguments
		out = append(out, dressed)
	}
	return out
}

// toolMode is what tool_choice asks for.
type toolMode uint8

const (
	toolsAuto toolMode = iota
	toolsNone
	toolsRequired
	toolsNamed
)

// tool is a function that the model may call.
type tool struct {
	name       string
	parameters json.RawMessage // a JSON schema
}

// toolOptions is what a request says about tools.
type toolOptions struct {
	tools  []tool // that it brings
	any    bool   // it brings some
	mode   toolMode
	name   string // of toolsNamed
	single bool   // parallel_tool_calls is false
}

// parsed says whether answers are searched for calls.
func (o *toolOptions) parsed() bool { return o.any && o.mode != toolsNone }

// limit is the most calls of an answer; 0 = any number.
func (o *toolOptions) limit() int {
	if o.single || o.mode == toolsNamed {
		return 1
	}
	return 0
}

// check compares the choice with the tools.
func (o *toolOptions) check() *apiError {
	switch {
	case o.mode != toolsRequired && o.mode != toolsNamed:
		return nil
	case !o.any:
		return badField("tool_choice", "needs tools")
	case o.mode == toolsNamed && !slices.ContainsFunc(o.tools, func(t tool) bool { return t.name == o.name }):
		return badField("tool_choice", "names %.64q, which is none of the tools", o.name)
	}
	return nil
}

// decodeTools checks the tools and keeps them as they are spelled: templates
// print them.
func decodeTools(r *request, name string, value json.RawMessage) *apiError {
	var list []struct {
		Type     string
		Function *struct {
			Name       string
			Parameters json.RawMessage
		}
	}
	if json.Unmarshal(value, &list) != nil {
		return badField(name, "must be a list of tools")
	}
	if len(list) > maxTools {
		return badField(name, "has %d entries, at most %d are allowed", len(list), maxTools)
	}
	for i, t := range list {
		if t.Type != "function" || t.Function == nil || t.Function.Name == "" || len(t.Function.Name) > maxNameBytes {
			return badField(fmt.Sprintf("%s[%d]", name, i), `must be {"type": "function", "function": {"name": …}}`)
		}
		r.tooling.tools = append(r.tooling.tools, tool{t.Function.Name, t.Function.Parameters})
	}
	if len(list) > 0 {
		r.tools, r.tooling.any = value, true
	}
	return nil
}

// toolChoice takes a word or the name of a function.
func toolChoice(r *request, name string, value json.RawMessage) *apiError {
	var word string
	if json.Unmarshal(value, &word) == nil {
		mode, ok := map[string]toolMode{"none": toolsNone, "auto": toolsAuto, "required": toolsRequired}[word]
		if !ok {
			return badField(name, `is %.32q, must be "none", "auto", "required" or {"type": "function", "function": {"name": …}}`, word)
		}
		r.tooling.mode = mode
		return nil
	}
	var named struct {
		Type     string
		Name     string // as /v1/responses spells it
		Function struct{ Name string }
	}
	if json.Unmarshal(value, &named) != nil || named.Type != "function" {
		return unsupported(name, `must be "none", "auto", "required" or {"type": "function", "function": {"name": …}}`)
	}
	if named.Function.Name == "" {
		named.Function.Name = named.Name
	}
	r.tooling.mode, r.tooling.name = toolsNamed, named.Function.Name
	return nil
}

// specialTags are the tags of tool calls that are special tokens of the model.
func specialTags(t Tokenizer) map[string]bool {
	tags := map[string]bool{}
	for id := range int32(t.VocabSize()) {
		if text := t.TokenString(id); (text == callOpen || text == callClose) && t.IsSpecial(id) {
			tags[text] = true
		}
	}
	return tags
}
