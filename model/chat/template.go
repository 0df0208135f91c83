package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nikolalohinski/gonja/v2/config"
	"github.com/nikolalohinski/gonja/v2/exec"
)

// ErrNoTemplate is what Load returns for a model without a chat template.
var ErrNoTemplate = errors.New("the model has no chat template")

// Options of a Template.
type Options struct {
	// Special are the variables that name special tokens: bos_token,
	// eos_token, pad_token, unk_token and so on.
	Special map[string]string

	// ControlTokens are the texts of the tokenizer's added tokens. Where a
	// request spells one of them, Prompt.Literal says so. Empty: the text is
	// rendered only, and whoever encodes it parses every token in it, as
	// transformers and vLLM do.
	ControlTokens []string
}

// Template is a parsed chat template. It is safe for concurrent use.
type Template struct {
	parsed  *exec.Template
	special map[string]string
	finder  *finder
	form    form

	tools    *Template // renders the requests with tools, where that is another template
	toolsErr error     // why there is none, though the model has one
}

// Input is what one request brings. Raw JSON keeps its order of keys.
type Input struct {
	// Messages is a list of objects with a role. A content is a string, a list
	// of {"type": "text", "text": …} (joined with newlines, where the template
	// does not want a list) or null.
	Messages json.RawMessage
	// Tools and Documents are lists, or empty or null for none.
	Tools     json.RawMessage
	Documents json.RawMessage
	// AddGenerationPrompt ends the prompt with the head of an assistant turn.
	AddGenerationPrompt bool
	// ContinueFinalMessage ends the prompt with the last message's content, its
	// turn left open. It excludes AddGenerationPrompt.
	ContinueFinalMessage bool
	// ParseArguments replaces tool-call arguments given as a string of JSON by
	// the object it holds, as vLLM does; transformers leaves the string. It stays
	// where the template wants one.
	ParseArguments bool
	// Kwargs are further variables of the template (chat_template_kwargs).
	Kwargs map[string]json.RawMessage
}

// Prompt is a rendered chat. Literal are byte ranges [start, end) of Text,
// ascending and disjoint: there the client's own text spells a control token,
// or (an empty range) is joined so that it might. tokenizer.EncodeRendered
// takes both.
type Prompt struct {
	Text    string
	Literal [][2]int
}

// New parses a template in Jinja syntax.
func New(source string, options Options) (t *Template, err error) {
	if len(source) > maxSource {
		return nil, fmt.Errorf("chat template: %d bytes, more than %d", len(source), maxSource)
	}
	gonjas, err := controlWhitespace(source)
	if err != nil {
		return nil, err
	}
	defer recovered(&err)
	f := newFinder(newMarks(), options.ControlTokens)
	environment := &exec.Environment{
		Filters: f.filters(), ControlStructures: structures, Tests: tests, Methods: f.methods(), Context: exec.EmptyContext(),
	}
	parsed, err := exec.NewTemplate("chat_template", config.New(), oneTemplate{gonjas}, environment)
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", lastCause(err))
	}
	t = &Template{
		parsed:  parsed,
		special: maps.Clone(options.Special),
		finder:  f,
	}
	t.form = t.findForm(source)
	return t, nil
}

// Render renders one request. Errors of the request name the field; a template
// that calls raise_exception is quoted.
func (t *Template) Render(in Input) (Prompt, error) {
	if in.AddGenerationPrompt && in.ContinueFinalMessage {
		return Prompt{}, errors.New("add_generation_prompt and continue_final_message exclude each other")
	}
	variables, err := t.variables(in)
	if err != nil {
		return Prompt{}, err
	}
	switch {
	case variables["tools"] == nil:
	case t.toolsErr != nil:
		return Prompt{}, t.toolsErr
	case t.tools != nil:
		return t.tools.Render(in)
	}
	now := time.Now() // one clock for both renders
	spelled := false
	marked := func(s string) string {
		m := t.finder.mark(s)
		spelled = spelled || len(m) != len(s)
		return m
	}
	withMarks := engineVariables(variables, marked)
	text, err := t.execute(engineVariables(variables, func(s string) string { return s }), in, now)
	if err != nil || !spelled {
		return Prompt{Text: text}, err
	}
	both, err := t.execute(withMarks, in, now)
	if err != nil {
		return Prompt{}, err
	}
	stripped, literal := t.finder.strip(both)
	if stripped != text {
		return Prompt{}, errors.New("messages: the chat template acts on text that spells a control token, so that text cannot be told from the template's own; remove it, or allow special tokens in content")
	}
	return Prompt{Text: text, Literal: literal}, nil
}

// reserved are the variables that Kwargs may not set.
var reserved = []string{"messages", "tools", "documents", "add_generation_prompt", "continue_final_message",
	"raise_exception", "strftime_now", "range", "namespace", "dict", "cycler", "joiner", "self", "loop", "none"}

// variables decodes the request into values of parseJSON.
func (t *Template) variables(in Input) (map[string]any, error) {
	variables := map[string]any{}
	for name, raw := range in.Kwargs {
		_, special := t.special[name]
		if special || slices.Contains(reserved, name) || strings.HasPrefix(name, " ") {
			return nil, fmt.Errorf("chat_template_kwargs.%.40q: this name is the template's own", name)
		}
		value, err := parseJSON(raw)
		if err != nil {
			return nil, fmt.Errorf("chat_template_kwargs.%.40q: %w", name, err)
		}
		variables[name] = value
	}
	messages, err := parseMessages(in.Messages, t.form, in.ParseArguments)
	if err != nil {
		return nil, err
	}
	if in.ContinueFinalMessage {
		endContent(messages[len(messages)-1].(*object), t.finder.end)
	}
	variables["messages"] = messages
	if variables["tools"], err = parseTools(in.Tools); err != nil {
		return nil, err
	}
	variables["documents"] = nil // None, as transformers passes it
	if len(in.Documents) > 0 {
		if variables["documents"], err = parseJSON(in.Documents); err != nil {
			return nil, fmt.Errorf("documents: %w", err)
		}
	}
	return variables, nil
}

func engineVariables(variables map[string]any, text func(string) string) map[string]any {
	data := map[string]any{}
	for name, value := range variables {
		data[name] = engineValue(value, text)
	}
	return data
}

// execute runs the template once.
func (t *Template) execute(variables map[string]any, in Input, now time.Time) (text string, err error) {
	state := &run{deadline: time.Now().Add(maxTime)}
	data := globals(state, now)
	for name, token := range t.special {
		data[name] = token
	}
	maps.Copy(data, variables)
	data["add_generation_prompt"] = in.AddGenerationPrompt
	data["continue_final_message"] = in.ContinueFinalMessage

	var out bytes.Buffer
	defer recovered(&err)
	if err := t.parsed.Execute(&boundedWriter{&out, state}, exec.NewContext(data)); err != nil {
		if state.failure != nil {
			return "", state.failure
		}
		return "", fmt.Errorf("chat template: %w", lastCause(err))
	}
	if !in.ContinueFinalMessage {
		return out.String(), nil
	}
	at := strings.LastIndex(out.String(), t.finder.end)
	if at < 0 {
		return "", errors.New("continue_final_message: the chat template does not render the content of the last message")
	}
	return out.String()[:at], nil
}

// recovered turns a panic of the engine into an error.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("chat template: the template engine failed: %v", p)
	}
}
