package chat

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/pagoda-engine/pagoda/internal/regular"
)

// Load reads the chat template of a model directory and its special tokens. The template
// is chat_template.jinja or the chat_template of tokenizer_config.json. Requests with tools
// may have another: additional_chat_templates/tool_use.jinja beside the one, "tool_use" of
// a list in the other, whose "default" is for the rest. Errors name the file.
func Load(dir string, controlTokens []string) (*Template, error) {
	path := filepath.Join(dir, "tokenizer_config.json")
	file, err := readTokenizerConfig(path)
	if err != nil {
		return nil, err
	}
	options := Options{Special: file.special, ControlTokens: controlTokens}
	jinja := filepath.Join(dir, "chat_template.jinja")
	chat, exists, err := readTemplate(jinja)
	if err != nil {
		return nil, err
	}
	if !exists {
		return file.load(dir, path, options)
	}
	toolUse := filepath.Join(dir, "additional_chat_templates", "tool_use.jinja")
	tools, _, err := readTemplate(toolUse)
	if err != nil {
		return nil, err
	}
	return sources{chat, tools}.load(dir, jinja, toolUse, options)
}

func readTemplate(path string) (source string, exists bool, err error) {
	text, err := regular.ReadFile(path, maxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("chat template: %w", err)
	}
	return string(text), true, nil
}

// LoadConfig is Load for the contents of a tokenizer_config.json; name is for
// messages.
func LoadConfig(name string, data []byte, controlTokens []string) (*Template, error) {
	file, err := parseTokenizerConfig(name, data)
	if err != nil {
		return nil, err
	}
	return file.load(name, name, Options{Special: file.special, ControlTokens: controlTokens})
}

// load parses the templates of the file at path; model is for the message that there are none.
func (c tokenizerConfig) load(model, path string, options Options) (*Template, error) {
	s, err := c.sources(path)
	if err != nil {
		return nil, err
	}
	return s.load(model, path, path, options)
}

// load parses the templates; the paths are for messages. One for requests with tools that
// cannot be read refuses those requests, not the model.
func (s sources) load(model, chatPath, toolsPath string, options Options) (*Template, error) {
	if s.chat == "" {
		return nil, fmt.Errorf("%s: %w", model, ErrNoTemplate)
	}
	t, err := New(s.chat, options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", chatPath, err)
	}
	if s.tools == "" {
		return t, nil
	}
	if t.tools, err = New(s.tools, options); err != nil {
		t.toolsErr = fmt.Errorf("tools: %s: tool_use: %w", toolsPath, err)
	}
	return t, nil
}
