//go:build !nodemo

package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSize: the model may cost the repository 15 MB.
func TestSize(t *testing.T) {
	files, err := Files()
	require.NoError(t, err)
	var total int64
	require.NoError(t, fs.WalkDir(files, ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		total += info.Size()
		return err
	}))
	require.Less(t, total, int64(15_000_000))
	require.Greater(t, total, int64(10_000_000))
}

// TestGoldensAreOfTheseWeights fails when the weights changed and the reference
// outputs did not: make golden.
func TestGoldensAreOfTheseWeights(t *testing.T) {
	files, err := Files()
	require.NoError(t, err)
	weights, err := files.ReadFile(WeightsFile)
	require.NoError(t, err)
	sum := sha256.Sum256(weights)
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "golden", "demo.json"))
	require.NoError(t, err)
	var golden struct {
		SHA256 string `json:"demo_safetensors_sha256"`
	}
	require.NoError(t, json.Unmarshal(data, &golden))
	require.Equal(t, golden.SHA256, hex.EncodeToString(sum[:]))
}

// TestChatIsQwens: template and added tokens, with their flags and order, are
// those of Qwen2.5, so that whatever a Qwen2.5 chat does tokenizes alike.
func TestChatIsQwens(t *testing.T) {
	files, err := Files()
	require.NoError(t, err)
	type added struct {
		Content    string
		Special    bool
		SingleWord bool `json:"single_word"`
		Lstrip     bool
		Rstrip     bool
		Normalized bool
	}
	type config struct {
		ChatTemplate string           `json:"chat_template"`
		Added        map[string]added `json:"added_tokens_decoder"`
	}
	read := func(data []byte, err error) (c config) {
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(data, &c))
		return c
	}
	ours := read(files.ReadFile("tokenizer_config.json"))
	qwens := read(os.ReadFile(filepath.Join("..", "..", "testdata", "tokenizer", "qwen2.5-tokenizer_config.json")))
	require.Equal(t, qwens.ChatTemplate, ours.ChatTemplate)
	byContent := func(c config) map[string]added {
		m := make(map[string]added)
		for _, a := range c.Added {
			m[a.Content] = a
		}
		return m
	}
	require.Len(t, ours.Added, 22)
	require.Equal(t, byContent(qwens), byContent(ours))
}
