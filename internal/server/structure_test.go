package server

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

const (
	pointSchema = `{"type":"object","properties":{"x":{"type":"integer"},"name":{"enum":["a","b"]}},"required":["x","name"],"additionalProperties":false}`
	onlyInteger = `{"type":"integer","minimum":10,"maximum":99}`
)

// requirePoint says that text is an object of pointSchema.
func requirePoint(t *testing.T, text string) {
	t.Helper()
	point := decode[map[string]any](t, text)
	require.Len(t, point, 2, text)
	require.IsType(t, 0.0, point["x"])
	require.Contains(t, []any{"a", "b"}, point["name"])
}

// TestStructuredAnswers: whatever the model would say, what comes has the form.
func TestStructuredAnswers(t *testing.T) {
	schema := func(text string) func(*testing.T, string) {
		return func(t *testing.T, got string) { requirePoint(t, got) }
	}
	matches := func(pattern string) func(*testing.T, string) {
		return func(t *testing.T, got string) { require.Regexp(t, regexp.MustCompile("^("+pattern+")$"), got) }
	}
	anObject := func(t *testing.T, got string) { decode[map[string]any](t, got) }
	for extra, check := range map[string]func(*testing.T, string){
		`"response_format":{"type":"json_object"}`:                                                               anObject,
		`"response_format":{"type":"json_schema","json_schema":{"name":"p","schema":` + pointSchema + `}}`:       schema(""),
		`"structured_outputs":{"json":` + pointSchema + `}`:                                                      schema(""),
		`"structured_outputs":{"json":` + string(mustJSON(pointSchema)) + `,"disable_any_whitespace":true}`:      schema(""),
		`"structured_outputs":{"json_object":true}`:                                                              anObject,
		`"structured_outputs":{"regex":"[0-9]{3}-(yes|no)"}`:                                                     matches("[0-9]{3}-(yes|no)"),
		`"structured_outputs":{"choice":["positive","negative"]}`:                                                matches("positive|negative"),
		`"structured_outputs":{"grammar":"start: \"(\" start \")\" | \"x\""}`:                                    matches(`\(*x\)*`),
		`"guided_json":` + pointSchema:                                                                           schema(""),
		`"guided_regex":"[ab]{2,4}"`:                                                                             matches("[ab]{2,4}"),
		`"guided_choice":["yes","no"]`:                                                                           matches("yes|no"),
		`"guided_grammar":"start: A+\nA: \"ab\""`:                                                                matches("(ab)+"),
		`"guided_json":` + pointSchema + `,"guided_whitespace_pattern":"","ignore_eos":true,"min_tokens":3`:      schema(""),
		`"guided_choice":["yes","no"],"tools":[` + aTool + `],"tool_choice":"auto"`:                              matches("yes|no"),
		`"response_format":{"type":"json_object"},"tools":[` + aTool + `],"tool_choice":"none","max_tokens":200`: anObject,
	} {
		for _, reply := range []string{"Sure, here it is!", `{"x": 5, "name": "b"}`, "\"\n\n\n  1", ""} {
			s := newTestServer(t, newFakeEngine(reply), Config{})
			answer := askWhole(t, s, ","+extra)
			require.Equal(t, "stop", answer.Finish, "%s, %q", extra, reply)
			check(t, *answer.Content)
			require.Equal(t, answer, askStream(t, s, ","+extra), extra)
			if strings.Contains(extra, "tools") {
				continue
			}
			w := do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x","n":3,"max_tokens":300,`+extra+`}`)
			for _, c := range decode[struct{ Choices []textChoice }](t, w.Body.String()).Choices {
				check(t, c.Text)
				require.Equal(t, "stop", *c.FinishReason)
			}
		}
	}
}

func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// TestStructureInOtherAPIs: responses and messages ask in their own words.
func TestStructureInOtherAPIs(t *testing.T) {
	s := newTestServer(t, newFakeEngine("No."), Config{})
	format := `{"type":"json_schema","name":"p","schema":` + pointSchema + `}`
	w := do(s.Handler(), "POST", "/v1/responses", `{"input":"x","text":{"format":`+format+`}}`)
	require.Equal(t, 200, w.Code, w.Body)
	response := decode[struct {
		Output []struct{ Content []struct{ Text string } }
		Text   struct{ Format json.RawMessage }
	}](t, w.Body.String())
	requirePoint(t, response.Output[0].Content[0].Text)
	require.JSONEq(t, format, string(response.Text.Format))

	for _, extra := range []string{
		`,"output_format":{"type":"json_schema","schema":` + pointSchema + `}`,
		`,"output_config":{"effort":"low","format":{"type":"json_schema","schema":` + pointSchema + `}}`,
		`,"structured_outputs":{"json":` + pointSchema + `}`,
	} {
		w = do(s.Handler(), "POST", "/v1/messages", messagesBody(extra+`,"max_tokens":200`))
		require.Equal(t, 200, w.Code, w.Body)
		requirePoint(t, decode[struct{ Content []struct{ Text string } }](t, w.Body.String()).Content[0].Text)
	}
	for path, bodies := range map[string][]string{
		"/v1/responses": {`{"input":"x","text":{"format":{"type":"json_schema"}}}`, `{"input":"x","text":{"format":{"type":"json_schema","schema":{"not":{}}}}}`, `{"input":"x","text":{"format":{"type":"json_object"}},"guided_regex":"a"}`},
		"/v1/messages":  {messagesBody(`,"output_format":{"type":"json_schema"}`), messagesBody(`,"output_format":[]`), messagesBody(`,"output_config":{"format":{"type":"xml"}}`), messagesBody(`,"output_config":{"speed":1}`), messagesBody(`,"output_format":{"type":"json_schema","schema":{"not":{}}}`)},
	} {
		for _, body := range bodies {
			require.Equal(t, 400, do(s.Handler(), "POST", path, body).Code, body)
		}
	}
}

// TestStructureErrors: the compiler's words reach the client, with the field.
func TestStructureErrors(t *testing.T) {
	f := newFakeEngine("x")
	s := newTestServer(t, f, Config{})
	for extra, want := range map[string][2]string{
		`"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object","properties":{"age":false},"required":["age"]}}}`: {"response_format", "required property 'age' is unsatisfiable"},
		`"guided_regex":"(?=a)"`:                                                      {"guided_regex", "look-ahead"},
		`"structured_outputs":{"grammar":"start: nowhere"}`:                           {"structured_outputs", "nowhere"},
		`"structured_outputs":{"regex":"a","json_object":true}`:                       {"structured_outputs", "more than one"},
		`"guided_choice":["a"],"response_format":{"type":"json_object"}`:              {"response_format", "guided_choice exclude each other"},
		`"guided_json":{"$ref":"file:///etc/passwd"}`:                                 {"guided_json", "does not fetch"},
		`"guided_regex":"` + strings.Repeat("(a|", 300) + `"`:                         {"guided_regex", "regex parse error"},
		`"guided_json":{"type":"string","pattern":"` + strings.Repeat("[", 99) + `"}`: {"guided_json", "regex"},
	} {
		w := do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x",`+extra+`}`)
		require.Equal(t, 400, w.Code, extra)
		message, _, param, _ := errorOf(t, w)
		require.Equal(t, want[0], param)
		require.Contains(t, message, want[1])
		require.Less(t, len(message), 4*maxGrammarError)
	}
	require.Empty(t, f.requests, "nothing was submitted")

	// One that breaks down on the way fails alone, and says so.
	f.fail = fmt.Errorf("%w: too complex", engine.ErrConstraint)
	w := do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x"}`)
	require.Equal(t, 400, w.Code)
	message, _, _, code := errorOf(t, w)
	require.Contains(t, message, "too complex")
	require.Equal(t, "constraint_failed", code)

	without, err := New(Config{ModelNames: []string{"m"}}, f, nil, nil)
	require.NoError(t, err)
	for _, extra := range []string{`"guided_regex":"a"`, `"bad_words":["x"]`} {
		require.Equal(t, 400, do(without.Handler(), "POST", "/v1/completions", `{"prompt":[1],`+extra+`}`).Code)
	}
}

// drawn runs a constraint along tokens; it is false at the first that is not allowed.
func drawn(t *testing.T, r engine.Request, tokens []int32) bool {
	t.Helper()
	require.NotNil(t, r.Constrain)
	c, err := r.Constrain()
	require.NoError(t, err)
	defer c.Close()
	mask := make([]uint32, (testVocab+31)/32)
	for _, id := range tokens {
		done, err := c.Mask(mask)
		require.NoError(t, err)
		if done || mask[id/32]>>(id%32)&1 == 0 {
			return done && id == eosID
		}
		if id != eosID {
			require.NoError(t, c.Accept(id))
		}
	}
	return true
}

func TestTokenRules(t *testing.T) {
	f := newFakeEngine("x")
	s := newTestServer(t, f, Config{})
	ask := func(extra string) engine.Request {
		w := do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x","max_tokens":20,`+extra+`}`)
		require.Equal(t, 200, w.Code, w.Body)
		return f.last(t)
	}
	end := []int32{eosID}
	r := ask(`"allowed_token_ids":[97,98,256]`)
	require.True(t, drawn(t, r, append(ids("abba"), end...)))
	require.False(t, drawn(t, r, ids("abc")))
	r = ask(`"allowed_token_ids":[97]`)
	require.False(t, drawn(t, r, append(ids("aa"), end...)), "the end is an id like others")

	f.info.SampleVocab = 200
	w := do(newTestServer(t, f, Config{}).Handler(), "POST", "/v1/completions", `{"prompt":"x","allowed_token_ids":[200,258]}`)
	require.Equal(t, 400, w.Code, "the model has rows for them, the tokenizer does not: %s", w.Body)
	require.Contains(t, w.Body.String(), "the tokenizer has 200")

	r = ask(`"bad_words":["cat","d"]`)
	for text, ok := range map[string]bool{"ca": true, "cat": false, "a cat": false, "cacat": false, "cut at": true, "cart": true, "od": false, "": true} {
		require.Equal(t, ok, drawn(t, r, append(ids(text), end...)), text)
	}
	f.reply = func(engine.Request) []int32 { return ids("yes") }
	r = ask(`"bad_words":["no"],"guided_choice":["no","yes"]`)
	require.True(t, drawn(t, r, ids("yes")))
	require.False(t, drawn(t, r, ids("no")))
	r = ask(`"guided_json":` + onlyInteger)
	require.True(t, drawn(t, r, append(ids("10"), end...)))
	require.False(t, drawn(t, r, append(ids("1"), end...)), "the end is not yet allowed")
	require.False(t, drawn(t, r, append(ids("10"), endID)), "a special token that is no end")
	r = ask(`"ignore_eos":true,"guided_regex":"a*"`)
	require.False(t, drawn(t, r, append(ids("aa"), end...)))
	require.True(t, drawn(t, r, ids("aaaa")))
	do(s.Handler(), "POST", "/v1/completions", `{"prompt":"x"}`)
	require.Nil(t, f.last(t).Constrain)
}
