package server

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

// openAPI is OpenAI's own description of its API.
type openAPI struct {
	Components struct{ Schemas map[string]schema }
}

// schema is the part of JSON Schema that says what a response must have.
type schema struct {
	Ref                 string `json:"$ref"`
	Type                string
	Nullable            bool
	Required            []string
	Properties          map[string]schema
	Items               *schema
	AnyOf, OneOf, AllOf []schema
	Enum                []any
}

// check lists what is wrong with v.
func (doc *openAPI) check(s schema, v any, path string) (faults []string) {
	if s.Ref != "" {
		return doc.check(doc.Components.Schemas[s.Ref[strings.LastIndex(s.Ref, "/")+1:]], v, path)
	}
	if v == nil && s.Nullable {
		return nil
	}
	for _, part := range s.AllOf {
		faults = append(faults, doc.check(part, v, path)...)
	}
	if options := slices.Concat(s.AnyOf, s.OneOf); len(options) > 0 &&
		!slices.ContainsFunc(options, func(o schema) bool { return len(doc.check(o, v, path)) == 0 }) {
		faults = append(faults, path+": matches none of anyOf")
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, v) {
		faults = append(faults, path+": not in enum")
	}
	ok := true
	switch s.Type {
	case "object":
		_, ok = v.(map[string]any)
	case "array":
		_, ok = v.([]any)
	case "string":
		_, ok = v.(string)
	case "boolean":
		_, ok = v.(bool)
	case "null":
		ok = v == nil
	case "number", "integer":
		var f float64
		f, ok = v.(float64)
		ok = ok && (s.Type == "number" || f == float64(int64(f)))
	}
	if !ok {
		return append(faults, path+": not of type "+s.Type)
	}
	switch v := v.(type) {
	case map[string]any:
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				faults = append(faults, path+"."+name+": missing")
			}
		}
		for name, value := range v {
			if property, ok := s.Properties[name]; ok {
				faults = append(faults, doc.check(property, value, path+"."+name)...)
			}
		}
	case []any:
		for _, item := range v {
			if s.Items != nil {
				faults = append(faults, doc.check(*s.Items, item, path+"[]")...)
			}
		}
	}
	return faults
}

func TestResponsesMatchOpenAPI(t *testing.T) {
	data, err := os.ReadFile("../../../shared/data/cases/openai/openapi.completions-subset.json")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no OpenAPI description")
	}
	require.NoError(t, err)
	var doc openAPI
	require.NoError(t, json.Unmarshal(data, &doc))
	f := newFakeEngine("abc")
	h := newTestServer(t, f, Config{}).Handler()
	validate := func(name, body string) {
		t.Helper()
		s, ok := doc.Components.Schemas[name]
		require.True(t, ok, name)
		require.Empty(t, doc.check(s, decode[any](t, body), name), body)
	}
	// The check has teeth.
	require.NotEmpty(t, doc.check(doc.Components.Schemas["CreateCompletionResponse"], decode[any](t, `{"id":1,"choices":[{}]}`), ""))

	for _, extra := range []string{"", `,"n":2`, `,"max_tokens":1`, `,"logprobs":true,"top_logprobs":2`, `,"stop":"b","return_token_ids":true`} {
		validate("CreateChatCompletionResponse", do(h, "POST", "/v1/chat/completions", chatBody(extra)).Body.String())
		for _, e := range events(t, do(h, "POST", "/v1/chat/completions", chatBody(extra+`,"stream":true,"stream_options":{"include_usage":true}`)).Body) {
			if e != "[DONE]" {
				// The description does not know that usage may be null before the end.
				validate("CreateChatCompletionStreamResponse", strings.Replace(e, `,"usage":null`, "", 1))
			}
		}
	}
	for _, extra := range []string{"", `,"n":2`, `,"max_tokens":1`, `,"logprobs":2`, `,"echo":true`} {
		validate("CreateCompletionResponse", do(h, "POST", "/v1/completions", `{"prompt":"x"`+extra+`}`).Body.String())
	}
	f.reply = func(engine.Request) []int32 { return ids(lookThenCall) }
	for _, extra := range []string{"," + weatherTool, "," + weatherTool + `,"tool_choice":"none"`} {
		validate("CreateChatCompletionResponse", do(h, "POST", "/v1/chat/completions", chatBody(extra)).Body.String())
		for _, e := range events(t, do(h, "POST", "/v1/chat/completions", chatBody(extra+`,"stream":true`)).Body) {
			if e != "[DONE]" {
				validate("CreateChatCompletionStreamResponse", e)
			}
		}
	}
	validate("ListModelsResponse", do(h, "GET", "/v1/models", "").Body.String())
	validate("Model", do(h, "GET", "/v1/models/m", "").Body.String())
	validate("ErrorResponse", do(h, "GET", "/v1/models/x", "").Body.String())
	validate("ErrorResponse", do(h, "POST", "/v1/completions", `{"prompt":"x","top_p":7}`).Body.String())
}
