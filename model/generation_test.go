package model

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPublishedGenerationConfigs(t *testing.T) {
	for _, name := range BuiltinShapes() {
		dir := filepath.Join("testdata", name+"-instruct")
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		g, err := ReadGenerationConfig(dir, 151936)
		require.NoError(t, err)
		require.Equal(t, []int32{151645, 151643}, g.EOSTokenIDs)
		require.True(t, *g.DoSample)
		require.Equal(t, 0.7, *g.Temperature)
		require.Equal(t, 0.8, *g.TopP)
		require.Equal(t, 20, *g.TopK)
		penalty := 1.05
		if name == "qwen2.5-0.5b" || name == "qwen2.5-1.5b" {
			penalty = 1.1
		}
		require.Equal(t, penalty, *g.RepetitionPenalty, name)
		require.Nil(t, g.MinP)
	}
}

func TestAbsentGenerationConfigIsEmpty(t *testing.T) {
	g, err := ReadGenerationConfig(t.TempDir(), 10)
	require.NoError(t, err)
	require.Equal(t, &GenerationConfig{}, g)
}

func TestGenerationConfigRefusals(t *testing.T) {
	for field, text := range map[string]string{
		"eos_token_id":       `{"eos_token_id": [1, 100]}`,
		"temperature":        `{"temperature": -0.5}`,
		"top_p":              `{"top_p": 1.5}`,
		"top_k":              `{"top_k": 2.5}`,
		"min_p":              `{"min_p": "x"}`,
		"repetition_penalty": `{"repetition_penalty": 0}`,
		"do_sample":          `{"do_sample": 1}`,
		"max_new_tokens":     `{"max_new_tokens": 0}`,
	} {
		_, err := ParseGenerationConfig("dir/generation_config.json", []byte(text), 100)
		requireProblem(t, err, "dir/generation_config.json", field)
	}
}

// TestGenerationConfigsOfOthers: what other engines take does not stop the server.
func TestGenerationConfigsOfOthers(t *testing.T) {
	for _, pad := range []string{"-1", "100", "null", `"x"`} { // nothing reads it
		g, err := ParseGenerationConfig("f", []byte(`{"pad_token_id": `+pad+`, "eos_token_id": 2}`), 100)
		require.NoError(t, err, pad)
		require.Equal(t, &GenerationConfig{EOSTokenIDs: []int32{2}}, g)
	}
	g, err := ParseGenerationConfig("f", []byte(`{"top_p": 0.0, "top_k": 50.0, "max_new_tokens": 2.048e3, "eos_token_id": [2.0, 3]}`), 100)
	require.NoError(t, err)
	require.Equal(t, firstAlone, *g.TopP, "0 would be off")
	require.Equal(t, 50, *g.TopK)
	require.Equal(t, 2048, *g.MaxNewTokens)
	require.Equal(t, []int32{2, 3}, g.EOSTokenIDs)
	_, err = ParseGenerationConfig("f", []byte(`{"top_k": 1e300}`), 100)
	requireProblem(t, err, "f", "top_k")
	_, err = ParseGenerationConfig("f", []byte(`{"max_length": 20.5, "top_p": -0.1}`), 100)
	requireProblem(t, err, "f", "max_length")
	requireProblem(t, err, "f", "top_p")
}
