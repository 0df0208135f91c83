package main

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var qwen = flag.String("qwen", "", "directory with real Qwen2.5 weights to check (make check-qwen)")

// realQwen skips a test that only somebody with real weights can run.
func realQwen(t *testing.T) string {
	if *qwen == "" {
		t.Skip("needs real weights: make check-qwen DIR=…")
	}
	return *qwen
}

// TestCheckQwenChat: questions that every size of Qwen2.5-Instruct answers, greedily;
// an answer ends by itself.
func TestCheckQwenChat(t *testing.T) {
	dir := realQwen(t)
	for question, word := range map[string]string{
		"What is the capital of France? Answer in one short sentence.": "Paris",
		"What is 7 plus 5? Answer with the number only.":               "12",
		"Translate to French: Good morning":                            "Bonjour",
	} {
		out, err := execute("run", dir, question, "--json", "--temperature", "0", "--max-tokens", "80")
		require.NoError(t, err)
		var a answer
		require.NoError(t, json.Unmarshal([]byte(out), &a))
		t.Logf("%s — %s", question, a.Text)
		require.Contains(t, a.Text, word)
		require.EqualValues(t, "stop", a.FinishReason)
	}
}

// mostBookPerplexity is far above what any size of Qwen2.5 has on a known book and far
// below what a mistake in RoPE, a bias or the tokenizer gives.
const mostBookPerplexity = 30

// TestCheckQwenPerplexity: of the first pages of Alice in Wonderland, in chunks that
// begin with nothing before them.
func TestCheckQwenPerplexity(t *testing.T) {
	dir := realQwen(t)
	perplexity := bookPerplexity(t, dir)
	t.Logf("perplexity %.2f", perplexity)
	require.Less(t, perplexity, float64(mostBookPerplexity))
}

// bookPerplexity is that of chunks of the book of testdata, from pagoda score.
func bookPerplexity(t *testing.T, dir string) float64 {
	const chunk, chunks = 512, 8
	book, err := os.ReadFile(filepath.Join("..", "..", "testdata", "text", "alice.txt"))
	require.NoError(t, err)
	text, err := openTokenizer(dir)
	require.NoError(t, err)
	defer text.Close()
	ids, err := text.Encode(strings.ReplaceAll(string(book), "\r", ""))
	require.NoError(t, err)
	require.Greater(t, len(ids), chunk*chunks)
	var lines strings.Builder
	for i := range chunks {
		require.NoError(t, json.NewEncoder(&lines).Encode(scoreLine{Prompt: ids[i*chunk : (i+1)*chunk]}))
	}
	path := filepath.Join(t.TempDir(), "book.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(lines.String()), 0o600))
	out, err := execute("score", dir, path, "--quiet")
	require.NoError(t, err)
	sum, count := 0.0, 0
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var s score
		require.NoError(t, dec.Decode(&s))
		for _, l := range s.Logprobs {
			sum, count = sum-float64(l), count+1
		}
	}
	require.Equal(t, chunks*(chunk-1), count)
	return math.Exp(sum / float64(count))
}
