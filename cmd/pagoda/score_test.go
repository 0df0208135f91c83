package main

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// scoreFile writes lines and runs pagoda score over them.
func scoreFile(t *testing.T, model string, lines []scoreLine, flags ...string) ([]score, error) {
	t.Helper()
	var text strings.Builder
	for _, l := range lines {
		require.NoError(t, json.NewEncoder(&text).Encode(l))
	}
	path := filepath.Join(t.TempDir(), "lines.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(text.String()), 0o600))
	out, err := execute(append([]string{"score", model, path, "--device", "cpu", "--cpu-isa", "scalar", "--quiet", "--num-gpu-blocks-override", "40"}, flags...)...)
	var scores []score
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var s score
		require.NoError(t, dec.Decode(&s))
		scores = append(scores, s)
	}
	return scores, err
}

// TestScoreEqualsTransformers: each token's log probability, the likeliest id and its
// lead are those of transformers' logits, on a checkpoint without tokenizer.
func TestScoreEqualsTransformers(t *testing.T) {
	dir := filepath.Join("..", "..", "testdata", "golden", "tiny-tied")
	data, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	require.NoError(t, err)
	var golden struct {
		Sequences []struct {
			IDs    []int32
			Logits [][]float64
		}
	}
	require.NoError(t, json.Unmarshal(data, &golden))
	var lines []scoreLine
	for _, s := range golden.Sequences {
		lines = append(lines, scoreLine{ID: "x", Prompt: s.IDs})
	}
	for _, chunk := range []string{"256", "7"} {
		scores, err := scoreFile(t, dir, lines, "--max-num-seqs", chunk)
		require.NoError(t, err)
		require.Len(t, scores, len(golden.Sequences))
		for i, s := range golden.Sequences {
			got := scores[i]
			require.Equal(t, s.IDs, got.IDs)
			require.Equal(t, len(s.IDs), got.PromptTokens)
			require.Len(t, got.Logprobs, len(s.IDs)-1)
			for p, id := range s.IDs[1:] {
				sum := 0.0
				for _, v := range s.Logits[p] {
					sum += math.Exp(v)
				}
				require.InDelta(t, s.Logits[p][id]-math.Log(sum), got.Logprobs[p], 0.05)
				sorted := slices.Sorted(slices.Values(s.Logits[p]))
				gap := sorted[len(sorted)-1] - sorted[len(sorted)-2]
				require.InDelta(t, gap, got.Gap[p], 0.1)
				if gap > 0.1 {
					require.EqualValues(t, slices.Index(s.Logits[p], slices.Max(s.Logits[p])), got.Argmax[p])
				}
			}
		}
	}
}

// TestScoreContinues: what the decode steps say of the tokens they drew is what
// prefill says of them; hidden states do not depend on the chunks.
func TestScoreContinues(t *testing.T) {
	dir := filepath.Join("..", "..", "testdata", "golden", "tiny-tied")
	var lines []scoreLine
	for n := 1; n <= 40; n += 13 {
		line := scoreLine{MaxTokens: 9, Hidden: n > 20}
		for i := range n {
			line.Prompt = append(line.Prompt, int32(i*i+n)%256)
		}
		lines = append(lines, line)
	}
	hidden := t.TempDir()
	scores, err := scoreFile(t, dir, lines, "--hidden", hidden)
	require.NoError(t, err)
	whole := slices.Clone(lines)
	for i, s := range scores {
		require.Len(t, s.IDs, len(lines[i].Prompt)+9)
		require.Equal(t, s.Argmax[s.PromptTokens-1:], s.IDs[s.PromptTokens:], "greedy")
		whole[i] = scoreLine{Prompt: s.IDs}
	}
	again, err := scoreFile(t, dir, whole)
	require.NoError(t, err)
	for i := range scores {
		require.InDeltaSlice(t, again[i].Logprobs, scores[i].Logprobs, 1e-3)
		require.InDeltaSlice(t, again[i].Gap, scores[i].Gap, 1e-3)
	}

	small := t.TempDir()
	other, err := scoreFile(t, dir, lines, "--hidden", small, "--max-num-seqs", "6")
	require.NoError(t, err)
	files := 0
	for i, s := range scores {
		require.Equal(t, s.Hidden, other[i].Hidden)
		if s.Hidden == "" {
			require.False(t, lines[i].Hidden)
			continue
		}
		files++
		want, got := readHidden(t, filepath.Join(hidden, s.Hidden)), readHidden(t, filepath.Join(small, s.Hidden))
		require.Len(t, want, (2+1)*64*len(lines[i].Prompt))
		require.InDeltaSlice(t, want, got, 1e-4)
		require.NotEqual(t, want[:64], want[64*len(lines[i].Prompt):][:64], "a layer changes the stream")
	}
	require.Positive(t, files)
}

func readHidden(t *testing.T, path string) []float32 {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	values := make([]float32, len(data)/4)
	_, err = binary.Decode(data, binary.LittleEndian, values)
	require.NoError(t, err)
	return values
}

func TestScoreRefuses(t *testing.T) {
	dir := filepath.Join("..", "..", "testdata", "golden", "tiny-tied")
	for want, line := range map[string]scoreLine{
		"prompt has no tokens":              {},
		"max_tokens is -1":                  {Prompt: []int32{1}, MaxTokens: -1},
		"token 0 of prompt is id 256, want": {Prompt: []int32{256, 1}},
		"token 1 of prompt is id 9999":      {Prompt: []int32{1, 9999}},
		"token 0 of prompt is id -1":        {Prompt: []int32{-1}},
		"context length exceeded":           {Prompt: []int32{1}, MaxTokens: 600},
	} {
		_, err := scoreFile(t, dir, []scoreLine{line})
		require.ErrorContains(t, err, want)
		require.Equal(t, exitUsage, exitCode(err))
	}
	_, err := scoreFile(t, dir, nil)
	require.ErrorContains(t, err, "no sequences")
	_, err = execute("score", dir, filepath.Join(t.TempDir(), "none"))
	require.Equal(t, exitUsage, exitCode(err))
}

// TestReferenceScripts runs the tests of what scripts/reference compares with.
func TestReferenceScripts(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	out, err := exec.Command(python, "-B", "-m", "unittest", "discover", "-s", filepath.Join("..", "..", "scripts", "reference")).CombinedOutput()
	require.NoError(t, err, "%s", out)
}
