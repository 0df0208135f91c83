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
		{"{{ nothing is none }} {{ messages[0].name is none }} {{ messages[0].name is not none }} {{ messages[0]['name'] == none }}", "False False True False"},
		{"{{ messages[2].name is none }} {{ messages[2].name is defined }} {{ messages[2].name == none }} {{ messages[2].name is undefined }}", "True True True False"},
		{"{{ none is none }} {{ None == none }} {{ none is defined }} {{ 'None' }}{{ None }}{{ none }}", "True True True NoneNoneNone"},
		{"{% set x = none %}{{ x is none }} {% set y = None %}{{ y is none }} {{ 'a' if x is none else 'b' }}", "True True a"},
		{"{% set ns = namespace(x=none) %}{{ ns.x is none }}{% set ns.x = 1 %}{{ ns.x is none }}", "TrueFalse"},
		{"{% macro f(a, b=none) %}{{ a is none }},{{ b is none }};{% endmacro %}{{ f(none) }}{{ f(1, 2) }}{{ f(1, b=None) }}", "True,True;False,False;False,True;"},
		{"{{ messages[0].get('x') is none }} {{ messages[0].get('x', 'd') }} {{ messages[0].get('x') }}", "True d None"},
		{"{{ documents is defined }} {{ documents is none }} {% if documents %}D{% endif %}{% if not none %}n{% endif %}", "True True n"},
		{"{{ none | default('d') }} {{ none | default('d', true) }} {{ nothing | default('d') }} {{ none or 'o' }} {{ 'a' ~ none }}", "None d d o aNone"},
		{"{{ [none, 1] }} {{ none | tojson }} {{ {'a': none} | tojson(indent=none) }} {{ messages[2] | tojson }}", `[None, 1] null {"a": null} {"role": "assistant", "content": "", "name": null, "tool_calls": []}`},
		{"{{ none is boolean }} {{ none is false }} {{ none is string }} {{ none is mapping }} {{ none is iterable }} {{ none is sequence }}", "False False False False False False"},
		{"{{ 0 is false }} {{ false is false }} {{ 1 is true }} {{ true is true }} {{ nothing is false }}", "False True False True False"},
		{"{{ 'a' is sequence }} {{ messages is sequence }} {{ messages[0] is sequence }} {{ 5 is sequence }}", "True True True False"},
		{"{{ messages | selectattr('name', 'none') | list | length }} {{ messages | rejectattr('name', 'defined') | list | length }}", "1 2"},
		{"{{ tools[-1].type }} {{ tools[0:1][-1].type }} {{ (tools | list)[-1].type }} {{ 'a'.split('x')[-1] }} {{ 'a b'.split(none)[-2] }}", "function function function a a"},
		{"{{ messages[2].copy() | tojson }} {{ {}.copy() or 'empty' }}", `{"role": "assistant", "content": "", "name": null, "tool_calls": []} empty`},
		{"{{ nothing | trim }}|{{ 5 | trim }}|{{ true | trim }}|{{ none | trim }}|{{ messages[0].x | trim }}|{{ 1.0 | trim('.0') }}", "|5|True|None||1"},
		{"{{ nothing | reverse | list }} {{ nothing | trim | length }}", "[] 0"},
		{"{{ dict(z=1, b=2, a=3, y=4, c=5) | tojson }} {{ dict(z=1, b=2) | list }}", `{"z": 1, "b": 2, "a": 3, "y": 4, "c": 5} ['z', 'b']`},
		{"{{ dict({'b': 1, 'a': 2}, b=3, c=4) | tojson }} {{ dict([('x', 1), ('b', 2), ('x', 3)]) | tojson }} {{ dict() or 'empty' }}", `{"b": 3, "a": 2, "c": 4} {"x": 3, "b": 2} empty`},
		{"{{ dict(a=dict(y=1, x=2), b = 'c,=' , d=1 == 1)|tojson }} {{ dict\n(q=1,\n p=[1, 2],\n)|tojson }}", `{"a": {"y": 1, "x": 2}, "b": "c,=", "d": true} {"q": 1, "p": [1, 2]}`},
		{"{% macro dict(a, b=1) %}{{ a }}{{ b }}{% endmacro %}{{ dict(2) }} {{ {'dict': 1}.dict }}", "21 1"},
		{"{{ messages[-3].role }} {{ messages[-4] is defined }} {{ messages[3] is defined }} {{ ' x '.strip(none) }}", "system False False x"},
	} {
		text, err := render(c[0], Input{Messages: json.RawMessage(messages), Tools: json.RawMessage(tools)})
		require.NoError(t, err, c[0])
		require.Equal(t, c[1], text, c[0])
	}
	for _, bad := range []string{
		"{{ 5 | reverse }}", "{{ 'a' | dictsort }}", "{{ {'a': 1, 'b': 'x'} | dictsort(by='value') }}", "{{ {} | dictsort(by='x') }}",
		"{{ 'a'.rsplit('') }}", "{{ 'a'.split(1) }}", "{{ 'a'.split('a', 'b') }}", "{{ 'a'.split('a', count=1) }}", "{{ 'a'.strip(1) }}", "{{ none | reverse }}", "{{ dict(5) }}", "{{ dict([1]) }}",
	} {
		_, err := render(bad, Input{})
		require.Error(t, err, bad)
	}
	for range 20 { // Jinja2 keeps the order, which gonja forgets
		text, err := render("{% set d = dict %}{{ d(c=1, e=2, a=3, d=4, b=5) | list | join }}", Input{})
		require.NoError(t, err)
		require.Equal(t, "abcde", text)
	}
}
