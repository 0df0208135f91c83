package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
)

// person is what the schema below describes.
type person struct {
	Name  string   `json:"name"`
	Age   *int     `json:"age"`
	Tags  []string `json:"tags"`
	Color string   `json:"color"`
}

const personSchema = `{"type":"object","properties":{"name":{"type":"string","minLength":1,"maxLength":24},"age":{"type":"integer","minimum":0,"maximum":130},
	"tags":{"type":"array","items":{"type":"string","maxLength":8},"minItems":1,"maxItems":3},"color":{"enum":["red","green","blue"]}},
	"required":["name","age","tags","color"],"additionalProperties":false}`

const personTool = `[{"type":"function","function":{"name":"save_person","description":"Saves a person.","parameters":` + personSchema + `}},
	{"type":"function","function":{"name":"look_up","parameters":{"type":"object","properties":{"id":{"type":"integer","minimum":1,"maximum":9}},"required":["id"],"additionalProperties":false}}}]`

func requirePerson(t *testing.T, text string) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	var p person
	require.NoError(t, decoder.Decode(&p), "%s", text)
	_, err := decoder.Token()
	require.ErrorIs(t, err, io.EOF, "more than one value: %s", text)
	require.NotEmpty(t, p.Name)
	require.LessOrEqual(t, len([]rune(p.Name)), 24)
	require.NotNil(t, p.Age)
	require.True(t, *p.Age >= 0 && *p.Age <= 130, text)
	require.True(t, len(p.Tags) >= 1 && len(p.Tags) <= 3, text)
	require.Contains(t, []string{"red", "green", "blue"}, p.Color)
}

// post sends a chat request and returns the choices of the answer.
func (s *liveServer) post(t *testing.T, fields string) (choices []chatted) {
	t.Helper()
	response, err := s.http.Post(s.url+"/v1/chat/completions", "application/json", bytes.NewReader([]byte("{"+fields+"}")))
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, 200, response.StatusCode, "%s", body)
	var answer struct{ Choices []chatted }
	require.NoError(t, json.Unmarshal(body, &answer))
	return answer.Choices
}

// chatted is a choice of a chat's answer.
type chatted struct {
	Message struct {
		Content   string
		ToolCalls []struct {
			Function struct{ Name, Arguments string }
		} `json:"tool_calls"`
	}
	FinishReason string `json:"finish_reason"`
}

// TestStructuredOutput: the demo model, at temperature 1 and many seeds, writes JSON
// of a schema and calls of tools' schemas, whichever loop runs and whether sequences
// are preempted; what greedy neighbours say is what they say alone.
func TestStructuredOutput(t *testing.T) {
	skipWithoutDemo(t)
	for _, c := range []struct {
		name     string
		async    string
		preempts bool
	}{{"synchronous", "off", false}, {"overlapped", "on", false}, {"synchronous, preempted", "off", true}, {"overlapped, preempted", "on", true}} {
		t.Run(c.name, func(t *testing.T) {
			config := engine.Config{AsyncScheduling: c.async, BatchInvariant: true, NumGPUBlocksOverride: 2000, MaxNumSeqs: 16}
			if c.preempts {
				config.NumGPUBlocksOverride = 52
			}
			testStructuredOutput(t, startServer(t, config), c.preempts)
		})
	}
}

func testStructuredOutput(t *testing.T, s *liveServer, preempts bool) {
	seeds := 5
	switch {
	case preempts:
		seeds = 10 // which want more than there is
	case testing.Short():
		seeds = 2
	}
	prompts, tokens := mixedPrompts(4)
	alone := make([]completion, len(prompts))
	for i := range prompts {
		var err error
		alone[i], err = s.ask(t.Context(), prompts[i], tokens[i])
		require.NoError(t, err)
	}
	const head = `"model":"demo","messages":[{"role":"user","content":"Tell me about a person."}],"temperature":1,"max_tokens":250,`
	release := hold(t, s.engine)
	var wg sync.WaitGroup
	for seed := range seeds {
		wg.Go(func() {
			for _, choice := range s.post(t, head+fmt.Sprintf(`"seed":%d,"n":2,"response_format":{"type":"json_schema","json_schema":{"name":"p","schema":%s}}`, seed, personSchema)) {
				require.Equal(t, "stop", choice.FinishReason)
				requirePerson(t, choice.Message.Content)
			}
		})
		wg.Go(func() {
			choice := s.post(t, head+fmt.Sprintf(`"seed":%d,"tools":%s,"tool_choice":"required","parallel_tool_calls":%v`, seed, personTool, seed%2 == 0))[0]
			require.NotEmpty(t, choice.Message.ToolCalls)
			if seed%2 == 1 {
				require.Len(t, choice.Message.ToolCalls, 1)
			}
			for _, call := range choice.Message.ToolCalls {
				if call.Function.Name == "save_person" {
					requirePerson(t, call.Function.Arguments)
					continue
				}
				require.Equal(t, "look_up", call.Function.Name)
				require.Regexp(t, `^\{\s*"id"\s*:\s*[1-9]\s*\}$`, call.Function.Arguments)
			}
		})
		i := seed % len(prompts)
		wg.Go(func() {
			got, err := s.ask(t.Context(), prompts[i], tokens[i])
			require.NoError(t, err)
			require.Equal(t, alone[i].text, got.text, "a neighbour of constrained rows says something else")
			require.Equal(t, alone[i].finish, got.finish)
		})
	}
	require.Eventually(t, func() bool { return s.engine.Stats().Waiting == 4*seeds }, patience, time.Millisecond, "two choices, a call and a neighbour of each seed")
	release()
	wg.Wait()
	stats := s.engine.Stats()
	require.Equal(t, preempts, stats.PreemptionsSwap+stats.PreemptionsRecompute > 0, "%d preemptions", stats.PreemptionsSwap+stats.PreemptionsRecompute)
	require.Zero(t, stats.FinishedError)
	t.Logf("%d steps, waited %v for masks, %d preemptions", stats.Steps, stats.MaskWait, stats.PreemptionsSwap+stats.PreemptionsRecompute)
}
