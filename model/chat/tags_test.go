package chat

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTags: the wanted texts are Jinja2's.
func TestTags(t *testing.T) {
	for _, c := range [][2]string{
		// White space in a tag.
		{"{{\nmessages|length }}", "1"},
		{"{% set x =\n'abc' %}{{ x }}", "abc"},
		{"{% set\nx = 1 %}{{ x }}", "1"},
		{"{{ 'a'|replace(\n'a',\n'b') }}", "b"},
		{"{% macro f(a,\nb=1) %}{{ a }}{{ b }}{% endmacro %}{{ f(1,\nb=2) }}", "12"},
		{"{%\n set x = 1 %}{{ x }}", "1"},
		{"{%- if messages and\n   true %}y{% endif\n%}", "y"},
		{"{% for m in\nmessages %}{{ m.role }}{% endfor %}", "user"},
		{"{{\n12345 }}{{-\v1\f-}}{{\u00a02\u2003}}", "1234512"},
		{"{{ 'a\nb\f' }}{{ \"c\n'\n\" }}", "a\nb\fc\n'\n"},
		{"{% raw %}{{\n1,}}{% endraw %}{# \n #}", "{{\n1,}}"},
		{"{{ 'a'\n if\nmessages\nelse\n'b' }}", "a"},
		// The ends of lines.
		{"{% for m in messages %}\r\n{{ m.role }}\r\n{% endfor %}\r\nx\r\n", "user\nx"},
		{"a\r\n  {% if true %}\r\n b\r\n  {% endif %}\r\nc\rd", "a\n b\nc\nd"},
		{"{{ 'a\r\nb' }}", "a\nb"},
		// Commas before a closing bracket.
		{"{{ {'a': 1,}['a'] }}{{ {'a': [1, 2,], } | tojson }}", `1{"a": [1, 2]}`},
		{"{{ 'a'.replace('a', 'b',) }}{{ 'a' | replace('a', 'c' ,\n) }}{{ range(2,) | list }}", "bc[0, 1]"},
		{"{{ (1,) | length }}{{ (1, 2,) | length }}{{ 'a' in ('a',) }}{{ 'a' not in ('ab',) }}", "12TrueTrue"},
		{"{% if not ('',) %}n{% elif ('',) %}y{% endif %}{{ 1 if ('',) else (2,) }}{{ f is defined or ('x',) | length }}", "y11"},
		{"{{ ',)' }}{{ ',}' }}{{ [',', ')'] | join }}{{ {'a': ',',}.a }}{{ 'a'.replace('a', ',',) }}", ",),},),,"},
		{"{{ {'f': range}['f'](1,) | list }}{{ (range)(2,) | list }}", "[0][0, 1]"},
		// None, and strings that end with a backslash.
		{"{{ None }}{{ 'None' }}{{ {'aNone': 1, 'None1': 2} | list | join(None ~ '') }}", "NoneNoneaNoneNoneNone1"},
		{`{{ '\\' }}{{ "a\\" ~ '\\\\' }}{{ 'a\\b'.replace('\\', '/') }}{{ '\\n\'' }}`, `\a\\\a/b\n'`},
	} {
		text, err := render(c[0], Input{Messages: json.RawMessage(oneUser)})
		require.NoError(t, err, "%q", c[0])
		require.Equal(t, c[1], text, "%q", c[0])
	}
	for _, bad := range []string{"{{ range(,) }}", "{{ {,} }}", "{{ range(1,,) }}", "{{ {'a': 1,,} }}", "{{ dict(a=1, [2]) }}", "{{ dict(a=1 }}", "{{ 'a", "{{ ) }}", "{{ 'a') ~ ('b' }}"} {
		_, err := render(bad, Input{})
		require.Error(t, err, bad)
	}
}

// TestLongTag: tags as long as a template may be are refused, as short ones are.
func TestLongTag(t *testing.T) {
	for _, part := range []string{")", ",}", " dict", "x=,", "\n", `\`, "'"} {
		_, err := New("{{ dict("+strings.Repeat(part, (maxSource-20)/len(part)), Options{})
		require.Error(t, err)
	}
}
