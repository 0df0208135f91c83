package grammar

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Kind is the language of a Spec.
type Kind uint8

// The languages.
const (
	Lark   Kind = iota // llguidance's variant of Lark
	Schema             // a JSON schema, draft 2020-12 as far as llguidance has it
	Regex              // a regular expression, of the whole output; Rust's syntax
)

// Spec says what an output has to look like. Specs that are equal mean the same.
type Spec struct {
	Kind Kind
	Text string
}

// defaultWhitespace is what may stand between two tokens of JSON: what compact,
// spaced and indented spellings have. Models that may put any white space there go on
// with nothing else, the small ones above all.
const defaultWhitespace = ` |\r?\n[ \t]{0,32}`

// JSONSchema is the Spec of JSON text that schema describes. whitespace is a
// regular expression of what may stand between two tokens of JSON; "" is a space, or
// a new line and up to 32 spaces or tabs.
func JSONSchema(schema []byte, whitespace string) (Spec, error) {
	options, err := schemaOptions(whitespace)
	if err != nil {
		return Spec{}, err
	}
	text := strings.TrimSpace(string(schema))
	switch {
	case text == "true":
		return Spec{Schema, `{"x-guidance":` + options + `}`}, nil
	case !strings.HasPrefix(text, "{"):
		return Spec{}, errors.New("a JSON schema is an object")
	}
	rest := strings.TrimSpace(text[1:])
	if rest != "}" {
		rest = "," + rest
	}
	// First, so that a schema with options of its own has the last word.
	return Spec{Schema, `{"x-guidance":` + options + rest}, nil
}

func schemaOptions(whitespace string) (string, error) {
	if whitespace == "" {
		whitespace = defaultWhitespace
	}
	text, err := json.Marshal(map[string]string{"whitespace_pattern": whitespace})
	return string(text), err
}

// JSONObject is the Spec of any JSON object.
func JSONObject(whitespace string) (Spec, error) {
	return JSONSchema([]byte(`{"type":"object"}`), whitespace)
}

// Choice is the Spec of an output that is one of texts.
func Choice(texts []string) (Spec, error) {
	if len(texts) == 0 {
		return Spec{}, errors.New("there is nothing to choose from")
	}
	var b strings.Builder
	for i, text := range texts {
		if text == "" {
			return Spec{}, fmt.Errorf("entry %d is empty", i)
		}
		if i == 0 {
			b.WriteString("start: ")
		} else {
			b.WriteString("\n  | ")
		}
		b.WriteString(Quote(text))
	}
	b.WriteByte('\n')
	return Spec{Lark, b.String()}, nil
}

// Quote is text as a literal of a Lark grammar, which is a string of JSON.
func Quote(text string) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text)                                                          // a string always can
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`) // the lexer of grammars takes no control character
}

// The longest specifications. Time and memory grow with the text, those of regular
// expressions with its square.
const (
	maxRegexBytes = 64 << 10
	maxSpecBytes  = 256 << 10
)

// check refuses what is too long before anything is done with it.
func (s Spec) check() error {
	limit := maxSpecBytes
	if s.Kind == Regex {
		limit = maxRegexBytes
	}
	switch {
	case len(s.Text) > limit:
		return fmt.Errorf("the specification has %d bytes, at most %d are allowed", len(s.Text), limit)
	case !utf8.ValidString(s.Text):
		return errors.New("the specification is not UTF-8")
	}
	return nil
}
