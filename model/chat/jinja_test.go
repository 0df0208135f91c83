package chat

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhereGonjaDiffers: the wanted texts are what Jinja2 3.1.6 renders, set up as
// transformers sets it up; gonja on its own gives others.
func TestWhereGonjaDiffers(t *testing.T) {
	const messages = `[{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"},
		{"role": "assistant", "content": null, "name": null, "tool_calls": []}]`
	const tools = `[{"type": "function", "function": {"name": "f", "parameters": {"z": {"type": "integer"}, "a": {}}}}]`
	for _, c := range [][2]string{
		{"{% for m in messages | reverse %}{{ m.role }},{% endfor %}", "assistant,user,system,"},
		{"{{ messages | map(attribute='role') | reverse | join(' ') }}", "assistant user system"},
		{"{{ 'aé你' | reverse }} {{ [1, 3, 2] | reverse | list }} {{ {'b': 1, 'a': 2} | reverse | list }}", "你éa [2, 3, 1] ['a', 'b']"},
		{"{{ 'a.b.c'.rsplit('.', 1) }} {{ 'a.b.c'.rsplit('.') }} {{ 'a.b.c'.rsplit('.', 5) }}", "['a.b', 'c'] ['a', 'b', 'c'] ['a', 'b', 'c']"},
		{"{{ 'a.b.c'.rsplit('.', 0) }} {{ 'aaa'.rsplit('aa') }} {{ ' a b '.rsplit() }} {{ 'a'.rsplit('x', 1)[0] }}", "['a.b.c'] ['a', ''] ['a', 'b'] a"},
		{"{{ 'a.b.c'.split('.', maxsplit=1) }} {{ 'a.b.c'.rsplit('.', maxsplit=1)[0] }} {{ 'a.b'.split(sep='.') }}", "['a', 'b.c'] a.b ['a', 'b']"},
		{"{{ 'a.b.c'.split('.', -1) }} {{ 'a.b.c'.split('.', -2) }} {{ 'a.b.c'.split('.', 0) }}", "['a', 'b', 'c'] ['a', 'b', 'c'] ['a.b.c']"},
		{"{% for k, v in messages[0] | dictsort %}{{ k }}={{ v }};{% endfor %}", "content=S;role=system;"},
		{"{% for k, v in tools[0].function.parameters | dictsort(reverse=true) %}{{ k }}={{ v | tojson }};{% endfor %}", `z={"type": "integer"};a={};`},
		{"{% for k, v in {'b': 2, 'A': 10, 'B': 1, 'a': 3} | dictsort %}{{ k }}{{ v }} {% endfor %}", "A10 a3 b2 B1 "},
		{"{% for k, v in {'b': 2, 'A': 10, 'B': 1} | dictsort(true) %}{{ k }}{{ v }} {% endfor %}", "A10 B1 b2 "},
		{"{% for k, v in {'b': 2, 'A': 10, 'B': 1} | dictsort(by='value', reverse=true) %}{{ k }}{{ v }} {% endfor %}", "A10 b2 B1 "},
		{"{{ {} | dictsort | length }}", "0"},
		{"{{ '\u00a0\u3000x\x1c'.strip() }}|{{ ' x '.strip('') }}|{{ 'éxé'.lstrip('é') }}", "x| x |xé"},
	} {
		text, err := render(c[0], Input{Messages: json.RawMessage(messages), Tools: json.RawMessage(tools)})
		require.NoError(t, err, c[0])
		require.Equal(t, c[1], text, c[0])
	}
	for _, bad := range []string{
		"{{ 5 | reverse }}", "{{ 'a' | dictsort }}", "{{ {'a': 1, 'b': 'x'} | dictsort(by='value') }}", "{{ {} | dictsort(by='x') }}",
		"{{ 'a'.rsplit('') }}", "{{ 'a'.split(1) }}", "{{ 'a'.split('a', 'b') }}", "{{ 'a'.split('a', count=1) }}", "{{ 'a'.strip(1) }}", "{{ 5 | trim }}",
	} {
		_, err := render(bad, Input{})
		require.Error(t, err, bad)
	}
}
