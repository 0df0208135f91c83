package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/model/demo"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// openWith opens random weights of the demo's shape beside the demo's tokenizer.json with
// a text replaced.
func openWith(t *testing.T, old, replacement string) (*session, error) {
	return openEdited(t, map[string][2]string{tokenizerFile: {old, replacement}})
}

// openEdited is openWith for any of the demo's files.
func openEdited(t *testing.T, edits map[string][2]string) (*session, error) {
	skipWithoutDemo(t)
	dir := t.TempDir()
	files, err := demo.Files()
	require.NoError(t, err)
	for _, name := range []string{"config.json", "generation_config.json", tokenizerFile, tokenizerConfigFile} {
		data, err := files.ReadFile(name)
		require.NoError(t, err)
		if edit, edited := edits[name]; edited {
			require.Contains(t, string(data), edit[0])
			data = bytes.Replace(data, []byte(edit[0]), []byte(edit[1]), 1)
		}
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	f := engineFlags{quiet: true, generation: "auto", maxModelLen: "auto", prefix: true, traceFile: filepath.Join(dir, "trace.jsonl")}
	f.config.MaxNumSeqs, f.config.LoadFormat = 1, "dummy"
	return f.open(runCommand(), dir)
}

// TestVocabularyGuessedWrong: the engine draws the ids that the opened tokenizer knows,
// also where the file promises others; the trace is of the engine that goes on to serve.
func TestVocabularyGuessedWrong(t *testing.T) {
	for _, last := range []string{"4095", "4090", "5000"} {
		s, err := openWith(t, `"id":4095`, `"id":`+last)
		require.NoError(t, err)
		require.Equal(t, 4096, s.tokenizer.VocabSize())
		require.Equal(t, 4096, s.engine.Info().SampleVocab)
		s.close()
		trace, err := os.ReadFile(s.trace.Name())
		require.NoError(t, err)
		r := scheduler.NewTraceReader(bytes.NewReader(trace))
		for err == nil {
			_, err = r.Next()
		}
		require.ErrorIs(t, err, io.EOF)
		require.Positive(t, r.Line())
	}
}

// TestUnusableTokenizer is told as such, whatever the engine says meanwhile.
func TestUnusableTokenizer(t *testing.T) {
	_, err := openWith(t, `"version":"1.0"`, `"version":"9.0"`)
	require.ErrorIs(t, err, engine.ErrModel)
	require.ErrorContains(t, err, tokenizerFile)
}

// TestTokenizersEnd: the tokenizer's eos_token ends answers beside what the model's files
// name, which of a chat tune may be the end of its base model only.
func TestTokenizersEnd(t *testing.T) {
	base := map[string][2]string{
		"config.json":            {`"eos_token_id": 4076`, `"eos_token_id": 4074`},
		"generation_config.json": {"[\n    4076,\n    4074\n  ]", "4074"},
	}
	const field = `"eos_token": "<|im_end|>"`
	for edited, ids := range map[string][]int32{
		field: {4074, 4076},
		`"eos_token": {"content": "<|im_end|>", "lstrip": false}`: {4074, 4076},
		`"eos_token": "<|endoftext|>"`:                            {4074},
		`"eos_token": "no token of the vocabulary"`:               {4074},
		`"eos_token": null`:                                       {4074},
	} {
		base[tokenizerConfigFile] = [2]string{field, edited}
		s, err := openEdited(t, base)
		require.NoError(t, err)
		require.Equal(t, ids, s.engine.Info().EOSIDs, edited)
		s.close()
	}
}
