#!/usr/bin/env python3
"""Writes chat_engine.json: small templates rendered by Jinja2 set up as
transformers sets it up, and random JSON written by json.dumps. model/chat must
give the same bytes. Needs jinja2 3.1."""
import json
import random

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MESSAGES = [
    {"role": "system", "content": " Be brief. \n"},
    {"role": "user", "content": "Hi <b>&\"'é😀"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes", "tool_calls": [
        {"function": {"name": "f", "arguments": {"z": 1, "a": [1.5, None, True, {}], "items": "x"}}}]},
    {"role": "tool", "content": "42"},
    {"role": "user", "content": "Bye"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"z": {"type": "integer"}, "a": {}}, "required": []}}}]

TEMPLATES = [
    "{% for m in messages %}\n  {% if loop.first %}\nA{{ m.role }}\n  {% elif loop.last %}Z{% else %}{{ loop.index0 }}/{{ loop.index }}/{{ loop.revindex }}{% endif %}\n{% endfor %}\n",
    "{%- for m in messages -%}\n  {{- '<' + m['role'] + '>' + m['content'] | trim + '\\n' -}}\n{%- endfor -%}\n{% if add_generation_prompt %}X{% endif %}\n",
    "{% for t in tools %}{{ t | tojson }}\n{{ t | tojson(indent=2) }}{{ t.function.parameters | tojson(sort_keys=True, separators=(',', ':')) }}{% endfor %}",
    "{% set ns = namespace(found=false, n=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.found = true %}{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}{{ ns.found }} {{ ns.n }}",
    "{% for m in messages[::-1] %}{{ m.role[0] }}{% endfor %} {{ messages[1:3] | length }} {{ messages[-1].content }} {{ messages[-2]['role'] }}",
    "{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}{% if m.content == 'Bye' %}{% break %}{% endif %}{{ m.role }},{% endfor %}",
    "{% macro turn(m, end='!') %}[{{ m.role }}{{ end }}]{% endmacro %}{{ turn(messages[0]) }}{{ turn(messages[1], end='?') }}",
    "{% set c = messages[2].content %}{% if '</think>' in c %}{{ c.split('</think>')[-1].lstrip('\\n') }}|{{ c.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}{% endif %}",
    "{% for k, v in messages[2].tool_calls[0].function.arguments.items() %}{{ k }}={{ v | tojson }};{% endfor %}{% for k, v in messages[2].tool_calls[0].function.arguments | items %}{{ k }},{% endfor %}",
    "{% for k in tools[0].function.parameters.properties %}{{ k }} {% endfor %}{{ tools[0].function.parameters.keys() | list }} {{ tools[0].get('x', 'none') }} {{ tools[0].get('type') }}",
    "{{ messages[0].content is string }} {{ messages is mapping }} {{ tools[0] is mapping }} {{ nothing is defined }} {{ messages is iterable }} {{ tools is not none }} {{ messages[1].tool_calls is defined }}",
    "{% if tools[0].function.parameters.properties.a %}yes{% else %}no{% endif %}{% if tools[0].function.parameters.required %}yes{% else %}no{% endif %}{% if tools %}T{% endif %}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | map(attribute='role') | join('-') }} {{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='role') | list | tojson }}",
    "{{ 'a' ~ 1 ~ 2.0 }} {{ 7 // 2 }} {{ 7 % 3 }} {{ 1 + 2 * 3 }} {{ (messages | length) - 1 }} {{ 'x' if false else 'y' }} {{ 'ab' * 2 }} {{ not true }} {{ 3 > 2 and 'p' or 'q' }}",
    "{{ {'b': 1, 'a': [true, none, 'é<']} | tojson }} {{ [1, 'two', 3.0] | tojson }} {{ 'quo\"te\\u2028' | tojson }}",
    "{{ 'Title case' | upper }} {{ 'X' | lower }} {{ 'a,b' | replace(',', ';') }} {{ 'abc'.upper() }} {{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('bc') }} {{ ' x '.strip() }} {{ 'a-b'.replace('-', '+') }} {{ 'hello world' | capitalize }} {{ 'a b'.title() }}",
    "{# comment #}\n{% raw %}{{ not }}{% endraw %}\n{% set x %}\nblock {{ messages | length }}\n{% endset %}[{{ x }}]{{ x | length }}",
    "{% for i in range(3) %}{{ i }}{{ ',' if not loop.last }}{% endfor %} {% for i in range(5, 0, -2) %}{{ i }}{% endfor %} {{ range(2, 4) | list }}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.content }}{% else %}none{% endfor %}{% for m in [] %}{% else %}empty{% endfor %}",
    "{% set first = messages[0] %}{% set rest = messages[1:] %}{% if first.role == 'system' %}{% set sys = first.content | trim %}{% endif %}{{ sys }}|{{ rest[0].role }}",
    "{{ bos_token }}{{ undefined_thing }}{{ undefined_thing | default('d') }}{{ '' | default('e', true) }}{{ eos_token }}",
    "{% for m in messages %}{% set loop_role = m.role %}{{ loop.previtem.role if not loop.first else '-' }}>{{ loop_role }}>{{ loop.nextitem.role if loop.nextitem is defined and not loop.last else '-' }} {% endfor %}",
    "{%- set names = [] -%}{%- for t in tools -%}{%- set names = names + [t.function.name] -%}{%- endfor -%}{{ names | join(', ') }}|{{ tools | length > 0 }}",
    "    {%- if true %}\n    {{- 'a' }}\n    {%- endif %}\n\n  {% if true -%}\n   b\n  {%- endif %}\n\t{% if true %}\nc\n\t{% endif %}\nd\n\n",
    "{{ messages[1].content | tojson }}{{ messages[1].content }}{{ messages[1].content | string | length }}{{ messages[1]['content'][:2] }}",
    "a {% if true %} b {% endif %} c\n  {%+ if true %}\n d {{ 1 }}  {# note #}\n{% if true +%}\n  e\n  {%- endif %}  {{ ' %} ' }} {% set q = '\\'%}' %}\n  {{ q }}\n   {# a\n b #}\nend {{{'x': {'y': 1}}.x.y}} {{ {'a': {}} | tojson }} {% endif %} {",
    "{% raw %}\n  {% if x %} {{ y }}\n  {% endraw %}\n  {% for i in [1, 2] %} {{ i }} {% endfor %}\n\t{# c -#}  \n x {%- raw -%}  {# {% #} {%- endraw %}\n",
    "{{ 'a b  c'.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'xxaxx'.strip('x') }} {{ 'ab\\nc'.splitlines() }} {{ 'aXbX'.replace('X', '-', 1) }} {{ 'abc'.find('c') }} {{ 'a b'.count(' ') }} {{ ','.join(['a', 'b']) }}",
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ 'x' }}{% endif %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
]


def environment():
    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = tojson
    return env


def random_value(rng, depth):
    kind = rng.randrange(10 if depth < 4 else 7)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([0, -1, 2**53 + 1, -(2**63), 2**64, 10**30, rng.randrange(-10**6, 10**6)])
    if kind in (2, 3):
        return rng.choice([0.1, -0.0, 1e16, 1e15, 123456789012345680.0, 1e-4, 1e-5, 5e-324, 1.7976931348623157e308,
                           rng.uniform(-1, 1) * 10.0 ** rng.randrange(-30, 30), float(rng.randrange(10**6))])
    if kind < 7:
        return "".join(rng.choice('ab"\\/<>&\'\n\t\r\b\f\x00\x1f\x7f\u2028é你😀\ufffd ') for _ in range(rng.randrange(8)))
    if kind == 7:
        return [random_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {"".join(rng.choice("abzé\"") for _ in range(3)): random_value(rng, depth + 1) for _ in range(rng.randrange(4))}


def main():
    env = environment()
    rng = random.Random(1)
    variables = {"messages": MESSAGES, "tools": TOOLS, "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
    templates = [{"template": t, "rendered": env.from_string(t).render(**variables)} for t in TEMPLATES]
    dumps = []
    for _ in range(300):
        value = random_value(rng, 0)
        dumps.append({"json": json.dumps(value, indent=rng.choice([None, 1])), "dumped": json.dumps(value, ensure_ascii=False)})
    with open(__file__.replace("make_engine_goldens.py", "chat_engine.json"), "w", encoding="utf-8") as f:
        json.dump({"messages": MESSAGES, "tools": TOOLS, "templates": templates, "dumps": dumps}, f, indent=0)
        f.write("\n")


if __name__ == "__main__":
    main()
