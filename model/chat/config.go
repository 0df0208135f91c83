package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/pagoda-engine/pagoda/internal/regular"
)

// tokenizerConfig is what chat needs of tokenizer_config.json.
type tokenizerConfig struct {
	template json.RawMessage // chat_template, read by templateSources where no other template is chosen
	special  map[string]string
}

// Special reads the variables of a model directory that name special tokens
// (Options.Special), for a template that comes from elsewhere.
func Special(dir string) (map[string]string, error) {
	config, err := readTokenizerConfig(filepath.Join(dir, "tokenizer_config.json"))
	return config.special, err
}

// SpecialConfig is Special for the contents of a tokenizer_config.json; name is
// for messages.
func SpecialConfig(name string, data []byte) (map[string]string, error) {
	config, err := parseTokenizerConfig(name, data)
	return config.special, err
}

// readTokenizerConfig reads the file; one that does not exist says nothing.
func readTokenizerConfig(path string) (tokenizerConfig, error) {
	data, err := regular.ReadFile(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return tokenizerConfig{}, nil
	}
	if err != nil {
		return tokenizerConfig{}, fmt.Errorf("chat template: %w", err)
	}
	return parseTokenizerConfig(path, data)
}

// parseTokenizerConfig reads the contents of the file; path is for messages.
func parseTokenizerConfig(path string, data []byte) (tokenizerConfig, error) {
	config := tokenizerConfig{special: map[string]string{}}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return config, fmt.Errorf("%s: %w", path, err)
	}
	for name, raw := range fields {
		if !strings.HasSuffix(name, "_token") {
			continue
		}
		if text, ok := tokenText(raw); ok {
			config.special[name] = text
		}
	}
	config.template = fields["chat_template"]
	return config, nil
}

// tokenText reads "<|im_end|>" or {"content": "<|im_end|>", …}.
func tokenText(raw json.RawMessage) (string, bool) {
	var text *string
	if json.Unmarshal(raw, &text) == nil {
		if text == nil {
			return "", false
		}
		return *text, true
	}
	var added struct{ Content *string }
	if json.Unmarshal(raw, &added) == nil && added.Content != nil {
		return *added.Content, true
	}
	return "", false
}

// sources are the templates of a model: chat, and tools for requests with tools, "" where
// that is chat, too.
type sources struct{ chat, tools string }

// sources returns the templates of the field; path is for messages.
func (c tokenizerConfig) sources(path string) (sources, error) {
	s, err := templateSources(c.template)
	if err != nil {
		return s, fmt.Errorf("%s: chat_template: %w", path, err)
	}
	return s, nil
}

func templateSources(raw json.RawMessage) (s sources, err error) {
	if len(raw) == 0 || string(raw) == "null" {
		return s, nil
	}
	if json.Unmarshal(raw, &s.chat) == nil {
		return s, nil
	}
	var named []struct{ Name, Template string }
	if err := json.Unmarshal(raw, &named); err != nil {
		return s, errors.New("must be a string or a list of {name, template}")
	}
	found := false
	for _, t := range named {
		switch t.Name {
		case "default":
			s.chat, found = t.Template, true
		case "tool_use":
			s.tools = t.Template
		}
	}
	if !found {
		return s, errors.New(`the list has no template named "default"`)
	}
	return s, nil
}
