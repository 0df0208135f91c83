package chat

import (
	"encoding/json"
	"strings"
	"time"
)

// form is what a template wants of messages, where clients may send either.
type form struct {
	parts     bool // contents are lists of {"type": "text", "text": …}, not strings
	arguments bool // arguments of tool calls stay strings of JSON
}

// What a template is asked for its form with. The name is no text of a template.
const (
	probe          = "pagodaprobe"
	probeText      = `[{"role": "user", "content": "` + probe + `"}]`
	probeArguments = `[{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [{"id": "pagoda001", "type": "function",
		"function": {"name": "f", "arguments": "{\"` + probe + `\": 1}"}}]}, {"role": "tool", "name": "f", "tool_call_id": "pagoda001", "content": "b"}]`
	probeTools = `[{"type": "function", "function": {"name": "f", "description": "c", "parameters": {"type": "object", "properties": {"d": {"type": "string", "description": "e"}}}}}]`
)

// findForm renders chats of its own, with tools and without, to see what t does with them. A
// template gets lists of parts where a string does not appear and the text of a part does, and
// arguments as strings where they appear as they are, and parsed they are Python's spelling or an
// error, as str + dict is in Python, where gonja joins them.
func (t *Template) findForm(source string) form {
	var found form
	render := func(f form, messages, tools string) (string, error) {
		t.form = f
		in := Input{Messages: json.RawMessage(messages), Tools: json.RawMessage(tools), ParseArguments: true}
		variables, err := t.variables(in)
		if err != nil {
			return "", err
		}
		return t.execute(engineVariables(variables, func(s string) string { return s }), in, time.Now())
	}
	for _, tools := range []string{"", probeTools} {
		if out, err := render(found, probeText, tools); err == nil && strings.Contains(out, probe) {
			break
		}
		out, err := render(form{parts: true}, probeText, tools)
		printed := strings.Contains(out, `'text': '`+probe) || strings.Contains(out, `"text": "`+probe)
		if found.parts = err == nil && strings.Contains(out, probe) && !printed; found.parts {
			break
		}
	}
	if !strings.Contains(source, "arguments") {
		return found
	}
	for _, tools := range []string{"", probeTools} {
		if out, err := render(found, probeArguments, tools); err == nil && !strings.Contains(out, `{'`+probe+`'`) {
			if strings.Contains(out, probe) {
				break
			}
			continue
		}
		out, err := render(form{parts: found.parts, arguments: true}, probeArguments, tools)
		if found.arguments = err == nil && strings.Contains(out, `{"`+probe+`": 1}`); found.arguments {
			break
		}
	}
	return found
}
