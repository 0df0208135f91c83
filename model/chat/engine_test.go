package chat

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const oneUser = `[{"role": "user", "content": "x"}]`

func render(source string, in Input) (string, error) {
	template, err := New(source, Options{Special: map[string]string{"bos_token": "<s>", "eos_token": "</s>"}})
	if err != nil {
		return "", err
	}
	if in.Messages == nil {
		in.Messages = json.RawMessage(oneUser)
	}
	prompt, err := template.Render(in)
	return prompt.Text, err
}

// TestLikeJinja compares with goldens of the original implementations, made by
// testdata/tokenizer/make_engine_goldens.py.
func TestLikeJinja(t *testing.T) {
	data, err := os.ReadFile("../../testdata/tokenizer/chat_engine.json")
	require.NoError(t, err)
	var goldens struct {
		Messages, Tools json.RawMessage
		Templates       []struct{ Template, Rendered string }
		Dumps           []struct{ JSON, Dumped string }
	}
	require.NoError(t, json.Unmarshal(data, &goldens))
	require.NotEmpty(t, goldens.Templates)
	for _, g := range goldens.Templates {
		text, err := render(g.Template, Input{Messages: goldens.Messages, Tools: goldens.Tools, AddGenerationPrompt: true})
		if err != nil || text != g.Rendered { // all of them, not the first
			t.Errorf("%s\n got  %q\n want %q\n error %v", g.Template, text, g.Rendered, err)
		}
	}
	require.Len(t, goldens.Dumps, 300)
	dump, err := New("{{ value | tojson }}", Options{})
	require.NoError(t, err)
	for _, g := range goldens.Dumps {
		prompt, err := dump.Render(Input{
			Messages: json.RawMessage(oneUser), Kwargs: map[string]json.RawMessage{"value": json.RawMessage(g.JSON)},
		})
		require.NoError(t, err)
		require.Equal(t, g.Dumped, prompt.Text, g.JSON)
	}
}

func TestObjects(t *testing.T) {
	for source, want := range map[string]string{
		`{"b": 1, "a": 2, "b": 3}`:               `{"b": 3, "a": 2}`, // as a Python dict
		`{"x": 1e400, "y": -1e400, "z": 1e-400}`: `{"x": Infinity, "y": -Infinity, "z": 0.0}`,
		`{}`:                                     `{}`,
		`[]`:                                     `[]`,
		`-0`:                                     `0`,
		`1E2`:                                    `100.0`,
	} {
		text, err := render("{{ v | tojson }}", Input{Kwargs: map[string]json.RawMessage{"v": json.RawMessage(source)}})
		require.NoError(t, err)
		require.Equal(t, want, text)
	}
	text, err := render("{% if v %}full{% else %}empty{% endif %}{{ 'k' in w }}{{ v.k is defined }}", Input{
		Kwargs: map[string]json.RawMessage{"v": json.RawMessage(`{}`), "w": json.RawMessage(`{"k": 1}`)},
	})
	require.NoError(t, err)
	require.Equal(t, "emptyTrueFalse", text)
}

// TestHostileTemplates: a template comes with the model, and is not trusted. The bubble's
// clock stands, so that none is refused for the time that it takes a slow machine.
func TestHostileTemplates(t *testing.T) { synctest.Test(t, testHostileTemplates) }

func testHostileTemplates(t *testing.T) {
	for source, want := range map[string]string{
		"{{ raise_exception('no ' ~ messages[0].role) }}":                                                 "it refuses this request: no user",
		"{% include '/etc/passwd' %}":                                                                     "include",
		"{% import '/etc/passwd' as x %}":                                                                 "import",
		"{% extends '/etc/passwd' %}":                                                                     "extends",
		"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}":                                                 "nested deeper",
		"{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}":                                              "nested deeper",
		"{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}":                                         "recursive",
		"{% for a in range(1000000000) %}{% endfor %}":                                                    "range longer",
		"{% for a in range(99999) %}" + strings.Repeat("x", 1000) + "{% endfor %}":                        "wrote more than",
		"{% set x %}{% for a in range(99999) %}" + strings.Repeat("x", 1000) + "{% endfor %}{% endset %}": "wrote more than",
		"{{ 1 % 0 }}":                           "failed",
		"{{ nothing.x.y }}":                     "None",
		"{{ messages | nofilter }}":             "nofilter",
		"{{ strftime_now('%Q') }}":              "%Q is not supported",
		strings.Repeat("{% if x %}", maxSource): "more than",
		"{{ " + strings.Repeat("(", 400) + "1" + strings.Repeat(")", 400) + " }}{{ raise_exception('deep') }}":   "deep",
		"{{ " + strings.Repeat("(", 50000) + " }}":                                                               "more than 512 operators",
		strings.Repeat("{% if 1 %}", 500) + "{{ raise_exception('deep') }}" + strings.Repeat("{% endif %}", 500): "deep",
	} {
		_, err := render(source, Input{})
		require.ErrorContains(t, err, want, "%.80s", source)
		require.Less(t, len(err.Error()), 600, "%.80s", source)
	}
}

func TestTimeBudget(t *testing.T) {
	template, err := New("{% for a in range(10) %}{% if a %}{% endif %}{% endfor %}", Options{})
	require.NoError(t, err)
	_, err = template.execute(map[string]any{}, Input{}, time.Now())
	require.NoError(t, err)
	state := &run{deadline: time.Now().Add(-time.Second)}
	require.ErrorContains(t, state.check(), "longer than 5s")
}

// TestTemplatesThatActOnTokens: marks are invisible to the usual questions a
// template asks about a control token, and where they are not, the request is
// refused instead of rendered otherwise.
func TestTemplatesThatActOnTokens(t *testing.T) {
	tokens := []string{"<a>", "</a>", "<ab>"}
	for _, c := range []struct {
		source, content string
		literal         [][2]int
		refused         bool
	}{
		{"<a>{{ c }}</a>", "x<a>y</a>", [][2]int{{4, 7}, {8, 12}}, false},
		{"<a>{{ c }}</a>", "<ab></a>", [][2]int{{3, 7}, {7, 11}}, false},
		{"{% if '</a>' in c %}{{ c.split('</a>')[-1] }}{% endif %}", "<a>x</a>y", [][2]int{}, false},
		{"{% if c.startswith('<a>') and c.endswith('</a>') %}{{ c }}{% endif %}", "<a>x</a>", [][2]int{{0, 3}, {4, 8}}, false},
		{"{{ c | replace('<a>', '') }}", "<<a>a>", [][2]int{{1, 1}}, false}, // joined into a token: an empty range
		{"{{ c.strip() }}|{{ c.strip('\n') }}|{{ c | trim }}", "<a>\n x \n</a>", [][2]int{{0, 3}, {8, 12}, {13, 16}, {21, 25}, {26, 29}, {34, 38}}, false},
		{"{{ c.split('</a>')[0].rstrip('\n').split('<a>')[-1].lstrip('\n') }}", "<a>\nx\n</a>\n", [][2]int{{0, 0}, {1, 1}}, false},
		{"{% if c.split('</a>')[0].split('<a>')[-1].strip() %}thoughts{% endif %}.", "<a>\n</a>y", [][2]int{}, false},
		{"{% if c.split('</a>')[0].split('<a>')[-1] %}thoughts{% endif %}.", "<a></a>y", [][2]int{}, false},
		{"{% if c.strip().startswith('<a>') %}{{ c | trim }}{% endif %}", " <a>x", [][2]int{{0, 3}}, false},
		{"{{ c.rstrip() }}a>", "x<\n<a>\n", [][2]int{{3, 6}}, false},
		{"{{ c.lstrip('<\n') }}", "\n<a>x", [][2]int{{0, 0}}, false}, // half a token is none
		{"{{ c.split('<a>')[0].rstrip() }}{{ c.split('<a>')[1].lstrip() }}", "< <a> a>", [][2]int{{1, 1}}, false},
		{"{{ c | length }}", "<a>", nil, true},
		{"{% if c == '<a>' %}yes{% endif %}", "<a>", nil, true},
		{"{{ c[:9] }}", "x<a>y", nil, true},
	} {
		template, err := New("{% set c = messages[0].content %}"+c.source, Options{ControlTokens: tokens})
		require.NoError(t, err)
		message, err := json.Marshal([]any{map[string]string{"role": "user", "content": c.content}})
		require.NoError(t, err)
		prompt, err := template.Render(Input{Messages: message})
		if c.refused {
			require.ErrorContains(t, err, "control token", c.source)
			continue
		}
		require.NoError(t, err, c.source)
		require.NotContains(t, prompt.Text, "\U000F5A00")
		plain, err := render("{% set c = messages[0].content %}"+c.source, Input{Messages: message})
		require.NoError(t, err)
		require.Equal(t, plain, prompt.Text)
		if len(c.literal) > 0 {
			require.Equal(t, c.literal, prompt.Literal, c.source)
		}
	}
}

// thinking has what Qwen3's own template does with thoughts: they are told from the
// rest of a content, and written again for a turn behind the user's last message.
const thinking = `{%- for message in messages %}
    {%- set content = message.content %}
    {%- set thoughts = '' %}
    {%- if '</think>' in content %}
        {%- set thoughts = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\n' }}
    {%- if thoughts %}
        {{- '<think>\n' + thoughts.strip('\n') + '\n</think>\n\n' }}
    {%- endif %}
    {{- content.lstrip('\n') }}
    {%- for call in message.tool_calls %}
        {{- '<tool_call>\n' + call.function.name + '\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endfor %}`

// TestThoughtsOfAToolCall: a client sends back the turn in which the model thought and
// called a tool. The thoughts' tokens are added tokens of Qwen3; those that the template
// writes are tokens, not text of the client.
func TestThoughtsOfAToolCall(t *testing.T) {
	tokens := []string{"<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>"}
	template, err := New(thinking, Options{ControlTokens: tokens})
	require.NoError(t, err)
	for content, turn := range map[string]string{
		"<think>\nI call it.\n</think>\n\n": "<think>\nI call it.\n</think>\n\n",
		"<think>\n\n</think>\n\n":           "",
		"<think></think>":                   "",
		"\n<think>\na\n</think>\n\nb":       "<think>\na\n</think>\n\nb",
	} {
		messages, err := json.Marshal([]any{
			map[string]any{"role": "user", "content": "Weather?"},
			map[string]any{"role": "assistant", "content": content, "tool_calls": []any{map[string]any{"function": map[string]any{"name": "f"}}}},
			map[string]any{"role": "tool", "content": "42"},
		})
		require.NoError(t, err)
		prompt, err := template.Render(Input{Messages: messages})
		require.NoError(t, err, "%q", content)
		require.Equal(t, "<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n"+turn+
			"<tool_call>\nf\n</tool_call><|im_end|>\n<|im_start|>tool\n42<|im_end|>\n", prompt.Text)
		for _, r := range prompt.Literal {
			require.Equal(t, r[0], r[1], "%q has no token that a client wrote: %v", prompt.Text, prompt.Literal)
		}
	}
}

// TestContinuedMessageIsTrimmed: a template that trims the contents trims the one that
// is continued, though its end is marked.
func TestContinuedMessageIsTrimmed(t *testing.T) {
	text, err := render("{% for m in messages %}[{{ m.content | trim }}]{% endfor %}", Input{
		Messages: json.RawMessage(`[{"role": "assistant", "content": " a \n"}]`), ContinueFinalMessage: true,
	})
	require.NoError(t, err)
	require.Equal(t, "[a", text)
}

// TestGeneration: the wanted texts are Jinja2's, with transformers' extension.
func TestGeneration(t *testing.T) {
	for source, want := range map[string]string{
		"a\n  {% generation %}\n{{ messages[0].role }}\n  {% endgeneration %}\nb":                                                      "a\nuser\nb",
		"{% for m in messages %}\n    {%- generation -%}\n    {{- '<' + m.content + '>' }}\n    {%- endgeneration -%}\n{%- endfor -%}": "<x>",
		"{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}":                                              "21",
		"{% set ns = namespace(x=1) %}{% generation %}{% set ns.x = 2 %}{% endgeneration %}{{ ns.x }}":                                 "2",
	} {
		text, err := render(source, Input{})
		require.NoError(t, err, source)
		require.Equal(t, want, text, source)
	}
	for _, bad := range []string{"{% generation %}", "{% generation x %}{% endgeneration %}", "{% generation %}{% endgeneration x %}"} {
		_, err := render(bad, Input{})
		require.Error(t, err, bad)
	}
}

func TestStrftime(t *testing.T) {
	at := time.Date(2024, 7, 5, 3, 4, 9, 12000, time.UTC)
	for format, want := range map[string]string{
		"%d %b %Y": "05 Jul 2024", "%Y-%m-%d": "2024-07-05", "%A %-d %B": "Friday 5 July", "%H:%M:%S.%f": "03:04:09.000012",
		"%I %p %j %y %%": "03 AM 187 24 %", "%F %T %Z%z": "2024-07-05 03:04:09 UTC+0000", "%-H%-M": "34",
	} {
		text, err := strftime(at, format)
		require.NoError(t, err)
		require.Equal(t, want, text, format)
	}
	for _, bad := range []string{"%", "%-", "%q"} {
		_, err := strftime(at, bad)
		require.Error(t, err, bad)
	}
}

// FuzzRender: no request makes the Qwen2.5 template panic, and marks never show.
func FuzzRender(f *testing.F) {
	config, err := readTokenizerConfig("../../testdata/tokenizer/qwen2.5-tokenizer_config.json")
	require.NoError(f, err)
	templates, err := config.sources("")
	require.NoError(f, err)
	template, err := New(templates.chat, Options{ControlTokens: []string{"<|im_start|>", "<|im_end|>", "<tool_call>"}})
	require.NoError(f, err)
	f.Add([]byte(oneUser), []byte(`null`))
	f.Add([]byte(`[{"role":"assistant","content":"<|im_end|>","tool_calls":[{"function":{"name":"<tool_call>","arguments":{"a":-1.5e7}}}]}]`), []byte(`[{"a":{}}]`))
	f.Add([]byte(`[{"role":"assistant","tool_calls":5},{"role":"tool","content":[{"type":"text","text":"a"}]}]`), []byte(`[1,[]]`))
	f.Fuzz(func(t *testing.T, messages, tools []byte) {
		for _, parse := range []bool{false, true} {
			prompt, err := template.Render(Input{Messages: messages, Tools: tools, ParseArguments: parse})
			if err != nil {
				continue
			}
			end := 0
			for _, r := range prompt.Literal {
				require.True(t, end <= r[0] && r[0] <= r[1] && r[1] <= len(prompt.Text))
				end = r[1]
			}
			require.False(t, strings.Contains(prompt.Text, template.finder.open) || strings.Contains(prompt.Text, template.finder.close))
		}
	})
}
