package chat

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPrint: what is printed is Python's str; the wanted texts are Jinja2's.
func TestPrint(t *testing.T) {
	const messages = `[{"role": "user", "content": "it's\n\"x\"", "l": ["a\\", {"k'": null}, [], {}, 1.5, true, "é\u200b\t\u0001\udbc0\udc00"], "b": 12345678901234567890}]`
	for _, c := range [][2]string{
		{`{{ ["it's"] }}`, `["it's"]`},
		{`{{ ["it's", 'a"b', 'both\'"'] }}{{- ['\n', 'é', '\\'] -}} `, `["it's", 'a"b', 'both\'"']['\n', 'é', '\\']`},
		{"{{ messages[0].l }}", `['a\\', {"k'": None}, [], {}, 1.5, True, 'é\u200b\t\x01\U00100000']`},
		{"{{ messages[0] | items | list | first }}", `['role', 'user']`}, // a tuple is a list of ours
		{"{{ {'a': messages[0].content, 1: [none, x]} }}", `{'a': 'it\'s\n"x"', 1: [None, Undefined]}`},
		{"{{ messages[0].content }}{{ 'a\n' }}{{ none }}{{ x }}{{ 1.0 }}{{ true }}", "it's\n\"x\"a\nNone1.0True"},
		{"{{ messages[0].b }}{{ [messages[0].b] }}", "12345678901234567890[12345678901234567890]"},
		{"{{ ['\n'] if messages else ['\t'] }}{{ ['\n'] if x else ['\t'] }}{{ ['\n'] if messages }}{{ ['\n'] if x }}", `['\n']['\t']['\n']`},
		{"{{ ['\n'] | string | length }}{{ ['\n'] | trim | length }}{{ 'x' | string }}{{ x | string | length }}", "66x0"},
		{"{{ ['\n'] + messages[0].l[:1] }}", `['\n', 'a\\']`},
		{`{{ "it's\nx".splitlines() }}{{ 'a\nb'.splitlines()[1] }}{{ ''.splitlines() | length }}`, `["it's", 'x']b0`},
		{"{{- [1, 'if', {'else': 2}] -}}", "[1, 'if', {'else': 2}]"},
		{"{{ not x }}{{ -1 }}{{ 1 in [1] }}{{ 'a' ~ 1 }}{{ 1 or 2 | length }}", "True-1Truea11"},
	} {
		text, err := render(c[0], Input{Messages: json.RawMessage(messages)})
		require.NoError(t, err, c[0])
		require.Equal(t, c[1], text, c[0])
	}
	for _, bad := range []string{"{{ }}", "{{- -}}", "{{ messages }", "{{ (messages }}", "{{ messages) }}", "{{ messages if }}", "{{ [1] | string(2) }}"} {
		_, err := render(bad, Input{})
		require.Error(t, err, bad)
	}
	_, err := render("{{ nofunction(1) }}", Input{})
	require.EqualError(t, err, "chat template: nofunction is not callable", "a filter of ours is not told of")
	_, err = render("{% set n = namespace(x=[]) %}{% for i in range(70) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}", Input{})
	require.ErrorContains(t, err, "nested deeper than 64")
}

// TestPrintedTokens: a control token in a list that is printed is the client's.
func TestPrintedTokens(t *testing.T) {
	for _, source := range []string{"{{ messages }}", "{{ messages[0] | string }}", "{{ [messages[0].content] }}", "{{ [messages[0].content] | trim }}"} {
		template, err := New(source, Options{ControlTokens: []string{"<a>"}})
		require.NoError(t, err)
		prompt, err := template.Render(Input{Messages: json.RawMessage(`[{"role": "user", "content": "'<a>\n\"<a>"}]`)})
		require.NoError(t, err, source)
		for _, r := range prompt.Literal {
			require.Equal(t, "<a>", prompt.Text[r[0]:r[1]])
		}
		require.Len(t, prompt.Literal, 2, prompt.Text)
	}
}
