package chat

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestContentForm: whether a template gets strings or lists of parts is found out.
func TestContentForm(t *testing.T) {
	const loop = "{% for m in messages %}[{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}]{% endfor %}"
	for source, parts := range map[string]bool{
		loop: true,
		"{% for m in messages %}{{ (m['content'] | selectattr('type', 'equalto', 'text') | list)[0]['text'] }}{% endfor %}":            true,
		"{% for m in messages %}{% if m.content is string %}{{ raise_exception('no') }}{% endif %}{{ m.content[0].text }}{% endfor %}": true,
		"{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text }}{% endif %}{% endfor %}":   false,
		"{% for m in messages %}{{ m.content }}{% endfor %}":                                                                           false,
		"{{ messages[0].content | upper }}":                               false,
		"{{ messages[0].content[:3] }}":                                   false, // prints the list
		"{{ messages[0].content[:3] | tojson }}":                          false,
		"{% if not tools %}{{ raise_exception('no') }}{% endif %}" + loop: true,
		"{{ raise_exception('always') }}":                                 false,
		"{{ messages[1].content[0].text }}{{ messages[1].x.y }}":          false,
		"": false,
	} {
		template, err := New(source, Options{})
		require.NoError(t, err, source)
		require.Equal(t, parts, template.form.parts, source)
	}

	template, err := New(loop, Options{ControlTokens: []string{"<a>"}})
	require.NoError(t, err)
	for messages, want := range map[string]string{
		`[{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]`:                                                                           "[x][]",
		`[{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]}, {"role": "user", "content": null}, {"role": "user"}]`: "[xy][][]",
		`[{"role": "user", "content": "<a>"}]`: "[<a>]",
	} {
		prompt, err := template.Render(Input{Messages: json.RawMessage(messages)})
		require.NoError(t, err)
		require.Equal(t, want, prompt.Text)
		if want == "[<a>]" {
			require.Equal(t, [][2]int{{1, 4}}, prompt.Literal)
		}
	}
	_, err = template.Render(Input{Messages: json.RawMessage(`[{"role": "user", "content": [{"type": "image_url"}]}]`)})
	require.ErrorContains(t, err, `messages[0].content[0].type: is "image_url"`)

	for content, want := range map[string]string{`"x"`: "[x", `[{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]`: "[xy", `null`: "[", `[]`: "["} {
		prompt, err := template.Render(Input{Messages: json.RawMessage(`[{"role": "assistant", "content": ` + content + `}]`), ContinueFinalMessage: true})
		require.NoError(t, err, content)
		require.Equal(t, want, prompt.Text, content)
	}
}

// TestArgumentsForm: a template that adds arguments to a string, which is an error in
// Python when they are parsed, gets the client's string.
func TestArgumentsForm(t *testing.T) {
	const head = "{% for m in messages %}{% for c in m.tool_calls %}"
	const tail = "{% endfor %}{% endfor %}"
	for source, want := range map[string]string{
		"{{ '```json\\n' + c['function']['arguments'] + '\\n```' }}":                                                                           "```json\n" + `{"q": "it's \n", "n": null}` + "\n```",
		"{{ c.function.arguments | tojson }}":                                                                                                  `{"q": "it's \n", "n": null}`,
		"{{ c.function.arguments if c.function.arguments is string else c.function.arguments | tojson }}":                                      `{"q": "it's \n", "n": null}`,
		"{% for k, v in c.function.arguments | items %}<{{ k }}>{% endfor %}":                                                                  "<q><n>",
		"{% if c.function.arguments is mapping %}{{ c.function.arguments | tojson(indent=1) }}{% else %}{{ c.function.arguments }}{% endif %}": "{\n \"q\": \"it's \\n\",\n \"n\": null\n}",
		"{{ c.function.arguments | tojson }}{% if c.function.arguments is string %}{{ raise_exception('no') }}{% endif %}":                     `{"q": "it's \n", "n": null}`,
		"{% if c.function.arguments is not string %}{{ raise_exception('no') }}{% endif %}{{ c.function.arguments }}":                          `{"q": "it's \n", "n": null}`,
		"{% if not tools %}{{ raise_exception('no') }}{% endif %}{{ '' + c.function.arguments }}":                                              `{"q": "it's \n", "n": null}`,
		"{% if tools %}{{ '' + c.function.arguments }}{% endif %}":                                                                             `{"q": "it's \n", "n": null}`,
	} {
		template, err := New(head+source+tail, Options{})
		require.NoError(t, err, source)
		render := func(arguments string) (string, error) {
			call := []any{map[string]any{"id": "1", "type": "function", "function": map[string]any{"name": "f", "arguments": arguments}}}
			messages, err := json.Marshal([]any{map[string]any{"role": "assistant", "content": nil, "tool_calls": call}})
			require.NoError(t, err)
			prompt, err := template.Render(Input{Messages: messages, Tools: json.RawMessage(probeTools), ParseArguments: true})
			return prompt.Text, err
		}
		text, err := render(`{"q": "it's \n", "n": null}`)
		require.NoError(t, err, source)
		require.Equal(t, want, text, source)
		_, err = render(`{`)
		require.ErrorContains(t, err, "messages[0].tool_calls[0].function.arguments", "%s", source)
		if template.form.arguments {
			text, err = render(" ")
			require.NoError(t, err)
			require.Contains(t, text, "{}")
		}
	}
}
