package chat

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// renderWithTools gives what a template makes of a chat without tools and of one with them.
func renderWithTools(t *testing.T, template *Template) (chat, tools string) {
	t.Helper()
	texts := [4]string{}
	for i, list := range []string{"", "null", "[]", `[{"type": "function", "function": {"name": "f"}}]`} {
		prompt, err := template.Render(Input{Messages: json.RawMessage(`[{"role": "user", "content": "<a>"}]`), Tools: json.RawMessage(list)})
		require.NoError(t, err)
		require.Equal(t, [][2]int{{1, 4}}, prompt.Literal)
		texts[i] = prompt.Text
	}
	require.Equal(t, texts[0], texts[1])
	require.Equal(t, texts[0], texts[2], "no tools are no tools")
	return texts[0], texts[3]
}

const (
	chatSource  = "d{{ messages[0].content }}{{ eos_token }}"
	toolsSource = "t{{ messages[0].content }}{{ eos_token }}{{ tools[0].function.name }}"
)

// TestToolUse: of a list of templates, transformers takes "tool_use" for a request with tools.
func TestToolUse(t *testing.T) {
	list := `{"eos_token": "$", "chat_template": [{"name": "tool_use", "template": "` + toolsSource + `"}, {"name": "rag", "template": "{%"}, {"name": "default", "template": "` + chatSource + `"}]}`
	template, err := LoadConfig("c", []byte(list), []string{"<a>"})
	require.NoError(t, err)
	chat, tools := renderWithTools(t, template)
	require.Equal(t, "d<a>$", chat)
	require.Equal(t, "t<a>$f", tools)

	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	write("tokenizer_config.json", list)
	template, err = Load(dir, []string{"<a>"})
	require.NoError(t, err)
	_, tools = renderWithTools(t, template)
	require.Equal(t, "t<a>$f", tools)

	write("chat_template.jinja", "D{{ messages[0].content }}")
	template, err = Load(dir, []string{"<a>"})
	require.NoError(t, err)
	_, tools = renderWithTools(t, template)
	require.Equal(t, "D<a>", tools, "the list does not count")

	write("additional_chat_templates/tool_use.jinja", "T{{ messages[0].content }}{{ eos_token }}")
	template, err = Load(dir, []string{"<a>"})
	require.NoError(t, err)
	chat, tools = renderWithTools(t, template)
	require.Equal(t, "D<a>", chat)
	require.Equal(t, "T<a>$", tools)

	write("additional_chat_templates/tool_use.jinja", "{% if %}")
	template, err = Load(dir, nil)
	require.NoError(t, err, "chats without tools need it not")
	in := Input{Messages: json.RawMessage(oneUser)}
	prompt, err := template.Render(in)
	require.NoError(t, err)
	require.Equal(t, "Dx", prompt.Text)
	in.Tools = json.RawMessage(`[{"type": "function"}]`)
	_, err = template.Render(in)
	require.ErrorContains(t, err, "tools: "+filepath.Join(dir, "additional_chat_templates/tool_use.jinja"))

	_, err = LoadConfig("c", []byte(`{"chat_template": [{"name": "tool_use", "template": "t"}]}`), nil)
	require.ErrorContains(t, err, `no template named "default"`)
}
