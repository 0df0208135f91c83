package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/model/chat"
	"github.com/pagoda-engine/pagoda/model/demo"
)

// renderWith opens the text side of a model with --chat-template and renders one turn.
func renderWith(t *testing.T, model, template string) string {
	t.Helper()
	f := &engineFlags{chatTemplate: template}
	s := &session{}
	require.NoError(t, f.openText(s, model))
	defer s.close()
	prompt, err := s.template.Render(chat.Input{Messages: json.RawMessage(`[{"role": "user", "content": "q"}]`)})
	require.NoError(t, err)
	return prompt.Text
}

// TestChatTemplateHasTheSpecialTokens: a template of --chat-template sees the variables of
// tokenizer_config.json, as the same template sees them in the model directory.
func TestChatTemplateHasTheSpecialTokens(t *testing.T) {
	template := filepath.Join(t.TempDir(), "my.jinja")
	require.NoError(t, os.WriteFile(template, []byte("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}|{{ pad_token }}"), 0o644))
	require.Equal(t, "q<|im_end|>|<|endoftext|>", renderWith(t, demo.Name, template))

	dir := t.TempDir()
	tokenizer, err := readDemo(tokenizerFile)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, tokenizerFile), tokenizer, 0o644))
	require.Equal(t, "q|", renderWith(t, dir, template), "no tokenizer_config.json")

	// Its own template is not looked at: this list has no default.
	config := `{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": []}`
	require.NoError(t, os.WriteFile(filepath.Join(dir, tokenizerConfigFile), []byte(config), 0o644))
	require.Equal(t, "<s>q</s>|", renderWith(t, dir, template))

	require.NoError(t, os.WriteFile(filepath.Join(dir, tokenizerConfigFile), []byte(`{`), 0o644))
	err = (&engineFlags{chatTemplate: template}).openText(&session{}, dir)
	require.ErrorContains(t, err, filepath.Join(dir, tokenizerConfigFile))

	require.NoError(t, os.WriteFile(template, []byte("\n{% if %}"), 0o644))
	err = (&engineFlags{chatTemplate: template}).openText(&session{}, demo.Name)
	require.ErrorContains(t, err, "--chat-template "+template+": chat template: ", "as it was given: the last part of /dev/fd/63 says nothing")
}
