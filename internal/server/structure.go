package server

import (
	"encoding/json"

	"github.com/pagoda-engine/pagoda/model/grammar"
)

// structure is what a request says of its answer's form: the field that said so,
// and in what language.
type structure struct {
	param  string // "" = nothing was said
	kind   structureKind
	ofText bool // it is about an answer in words: calls may come instead
	// What the answer must look like: a schema, a regular expression, a grammar, or
	// texts to choose from.
	text    json.RawMessage
	choices []string

	whitespace string // between tokens of JSON, as a regular expression; "" = the usual
}

type structureKind uint8

const (
	asObject structureKind = iota
	asSchema
	asRegex
	asChoice
	asGrammar
)

// structureFields ask for a form of the answer. At most one of a request may.
var structureFields = map[string]field{
	"response_format":           responseFormat,
	"structured_outputs":        structuredOutputs,
	"guided_json":               structured(asSchema),
	"guided_regex":              structured(asRegex),
	"guided_choice":             structured(asChoice),
	"guided_grammar":            structured(asGrammar),
	"guided_whitespace_pattern": text(maxNameBytes, func(r *request) *string { return &r.structure.whitespace }),
	"guided_decoding_backend":   noEffect,
}

// structured decodes a field whose value is the form itself.
func structured(kind structureKind) field {
	return func(r *request, name string, value json.RawMessage) *apiError {
		return r.structured(name, name, kind, value)
	}
}

// structured sets the form. param is the field, name the place in it.
func (r *request) structured(param, name string, kind structureKind, value json.RawMessage) *apiError {
	s := &r.structure
	if s.param != "" {
		if s.param == param {
			return badField(param, "asks for more than one form of the answer")
		}
		return badField(param, "and %s exclude each other", s.param)
	}
	s.param, s.kind = param, kind
	var one string
	isText := json.Unmarshal(value, &one) == nil
	switch kind {
	case asSchema:
		if s.text = value; isText {
			s.text = json.RawMessage(one)
		}
	case asRegex, asGrammar:
		if !isText {
			return inField(param, name, "must be a string")
		}
		s.text = json.RawMessage(one)
	case asChoice:
		if json.Unmarshal(value, &s.choices) != nil {
			return inField(param, name, "must be a list of strings")
		}
		if len(s.choices) > maxAnswers {
			return inField(param, name, "has %d entries, at most %d are allowed", len(s.choices), maxAnswers)
		}
	}
	return nil
}

// inField is badField for a place within a field.
func inField(param, name, format string, args ...any) *apiError {
	e := badField(name, format, args...)
	e.param = param
	return e
}

// responseFormat is OpenAI's way to ask.
func responseFormat(r *request, name string, value json.RawMessage) *apiError {
	var format struct {
		Type       string
		JSONSchema *struct{ Schema json.RawMessage } `json:"json_schema"`
	}
	if json.Unmarshal(value, &format) != nil {
		return badField(name, `must be an object with the type "text", "json_object" or "json_schema"`)
	}
	var schema json.RawMessage
	if format.JSONSchema != nil {
		schema = format.JSONSchema.Schema
	}
	return r.formatted(name, name+".json_schema.schema", format.Type, schema)
}

// formatted sets the form by the name of a type. schema is that of "json_schema",
// whose place is called at.
func (r *request) formatted(param, at, kind string, schema json.RawMessage) *apiError {
	switch {
	case kind == "text":
		return nil
	case kind == "json_object":
		r.structure.ofText = true
		return r.structured(param, param, asObject, nil)
	case kind == "json_schema" && absent(schema):
		return inField(param, at, "is missing")
	case kind == "json_schema":
		r.structure.ofText = true
		return r.structured(param, at, asSchema, schema)
	}
	return unsupported(param, `has the type %.32q, must be "text", "json_object" or "json_schema"`, kind)
}

// structuredOutputs is vLLM's way to ask.
func structuredOutputs(r *request, name string, value json.RawMessage) *apiError {
	var raw map[string]json.RawMessage
	if json.Unmarshal(value, &raw) != nil {
		return badField(name, "must be an object")
	}
	kinds := map[string]structureKind{"json": asSchema, "regex": asRegex, "choice": asChoice, "grammar": asGrammar, "json_object": asObject}
	for key, item := range raw {
		at := name + "." + key
		kind, known := kinds[key]
		switch {
		case string(item) == "null" || string(item) == "false":
		case known:
			if key == "json_object" && string(item) != "true" {
				return inField(name, at, "must be true or false")
			}
			if err := r.structured(name, at, kind, item); err != nil {
				return err
			}
		case key == "whitespace_pattern":
			if err := text(maxNameBytes, func(r *request) *string { return &r.structure.whitespace })(r, at, item); err != nil {
				err.param = name
				return err
			}
		case key == "disable_any_whitespace" && string(item) == "true":
			r.structure.whitespace = noWhitespace
		case key == "disable_fallback" || key == "_backend": // there is one backend
		default:
			e := unsupported(at, "is not supported")
			e.param = name
			return e
		}
	}
	if r.structure.param == "" {
		return badField(name, "must have one of json, regex, choice, grammar and json_object")
	}
	return nil
}

// noWhitespace never matches more than JSON needs between tokens: one space.
const noWhitespace = " ?"

// spec is the form as a grammar.
func (s *structure) spec() (grammar.Spec, error) {
	switch s.kind {
	case asObject:
		return grammar.JSONObject(s.whitespace)
	case asSchema:
		return grammar.JSONSchema(s.text, s.whitespace)
	case asRegex:
		return grammar.Spec{Kind: grammar.Regex, Text: string(s.text)}, nil
	case asChoice:
		return grammar.Choice(s.choices)
	}
	return grammar.Spec{Kind: grammar.Lark, Text: string(s.text)}, nil
}

// checkForm compares the form with the tools, of which required and named ones are
// a form, too.
func (r *request) checkForm() *apiError {
	s := &r.structure
	forced := r.tooling.forced()
	switch {
	case s.param == "" && s.whitespace != "":
		return badField("guided_whitespace_pattern", "needs guided_json")
	case s.param != "" && forced && !s.ofText:
		return badField(s.param, "and a tool_choice that is required or names a function exclude each other")
	}
	return nil
}

// form is the grammar of the answer, and the field to name when it cannot be used;
// "" = there is none.
//
// A response_format is about an answer in words: where tools may be called, they may
// be instead of it, and where they must be, it does not count. The other fields are
// about all that is generated.
func (r *request) form(special map[string]bool) (spec grammar.Spec, param string, err error) {
	s, t := &r.structure, &r.tooling
	switch {
	case t.forced():
		spec, err = t.spec(nil, special)
		return spec, "tools", err
	case s.param == "":
		return grammar.Spec{}, "", nil
	}
	spec, err = s.spec()
	if err == nil && s.ofText && t.parsed() {
		spec, err = t.spec(&spec, special)
	}
	return spec, s.param, err
}
