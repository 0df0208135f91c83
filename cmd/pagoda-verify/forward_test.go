package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// golden is what transformers computed for a tiny checkpoint; see
// scripts/goldens/tiny.py.
type golden struct {
	Sequences []struct {
		IDs    []int32     `json:"ids"`
		Logits [][]float32 `json:"logits"`
	} `json:"sequences"`
}

func readGolden(t *testing.T, dir string) golden {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "golden.json"))
	require.NoError(t, err)
	var g golden
	require.NoError(t, json.Unmarshal(data, &g))
	return g
}

// The forward pass equals transformers' in float32: tied and untied, plain RoPE,
// YaRN and Llama 3's, with biases or norms of heads, one file and shards. The goldens are rounded to four decimals.
func TestLogitsEqualTransformers(t *testing.T) {
	for _, name := range []string{"tiny-tied", "tiny-yarn", "tiny-llama", "tiny-qwen3"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join("..", "..", "testdata", "golden", name)
			g := readGolden(t, dir)
			ref, err := openReference(dir, nil)
			require.NoError(t, err)
			defer ref.close()

			var sequences [][]int32
			for _, s := range g.Sequences {
				sequences = append(sequences, s.IDs)
			}
			got, err := ref.logits(t.Context(), sequences)
			require.NoError(t, err)
			require.Len(t, got, len(g.Sequences))
			for i, s := range g.Sequences {
				require.Len(t, got[i], len(s.IDs))
				for p := range s.IDs {
					require.InDeltaSlice(t, s.Logits[p], got[i][p], 2e-4, "sequence %d, position %d", i, p)
				}
			}
		})
	}
}
