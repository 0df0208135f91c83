package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/pagoda-engine/pagoda/model/grammar"
)

// noParameters is the schema of a function that does not declare any.
const noParameters = `{"type":"object","additionalProperties":false}`

// argumentsSchema is the schema of a function's arguments, which are an object even where the function's own
// does not say so.
func argumentsSchema(parameters json.RawMessage) json.RawMessage {
	var fields map[string]json.RawMessage
	if absent(parameters) || json.Unmarshal(parameters, &fields) == nil && len(fields) == 0 {
		return json.RawMessage(noParameters)
	}
	for _, says := range []string{"type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"} {
		if _, ok := fields[says]; ok {
			return parameters
		}
	}
	if fields == nil { // true, or what the compiler refuses
		return parameters
	}
	_, rest, _ := bytes.Cut(parameters, []byte("{"))
	return append([]byte(`{"type":"object",`), rest...)
}

// forced says that the answer has to be calls.
func (o *toolOptions) forced() bool { return o.mode == toolsRequired || o.mode == toolsNamed }

// argumentSpace is what may stand between two tokens of a call's arguments, which are
// written on one line: small models that may begin another do little else.
const argumentSpace = " "

// spec is the grammar of calls as models of the Hermes family write them, with
// arguments as the functions' schemas have them:
//
//	<tool_call>
//	{"name": "get_weather", "arguments": {"city": "Paris"}}
//	</tool_call>
//
// one, or more where several are allowed. With other, an answer may be that instead.
// special are the model's special tokens: where a tag is one, both it and its text
// are taken.
func (o *toolOptions) spec(other *grammar.Spec, special map[string]bool) (grammar.Spec, error) {
	var b strings.Builder
	b.WriteString("start: calls")
	if other != nil {
		b.WriteString(" | other\nother: %json " + other.Text)
	}
	calls := "\ncalls: call"
	if o.limit() == 0 {
		calls += ` ("\n" call)*`
	}
	b.WriteString(calls + "\ncall: open body close\nopen: " + tag(callOpen, special) + "\nclose: " + tag(callClose, special))
	var bodies []string
	for i, f := range o.tools {
		if o.mode == toolsNamed && f.name != o.name || slices.ContainsFunc(o.tools[:i], func(t tool) bool { return t.name == f.name }) {
			continue
		}
		arguments, err := grammar.JSONSchema(argumentsSchema(f.parameters), argumentSpace)
		if err != nil {
			return grammar.Spec{}, fmt.Errorf("the parameters of %q: %w", f.name, err)
		}
		head := grammar.Quote("\n{\"name\": " + grammar.Quote(f.name) + ", \"arguments\": ")
		fmt.Fprintf(&b, "\nf%d: %s %%json %s", i, head, arguments.Text)
		bodies = append(bodies, fmt.Sprintf("f%d", i))
	}
	b.WriteString("\nbody: (" + strings.Join(bodies, " | ") + ") \"}\\n\"\n")
	return grammar.Spec{Kind: grammar.Lark, Text: b.String()}, nil
}

// tag is a tag as text, or as the special token that it is.
func tag(text string, special map[string]bool) string {
	if special[text] {
		return grammar.Quote(text) + " | " + text
	}
	return grammar.Quote(text)
}

// badTool is the first function whose parameters cannot be compiled by themselves.
func (o *toolOptions) badTool(compile func(grammar.Spec) error) (index int, err error) {
	for i, tool := range o.tools {
		if absent(tool.parameters) {
			continue
		}
		spec, err := grammar.JSONSchema(tool.parameters, argumentSpace)
		if err == nil {
			err = compile(spec)
		}
		if err != nil {
			return i, err
		}
	}
	return -1, nil
}
