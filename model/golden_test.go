package model_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kernels/cpu"
	"github.com/pagoda-engine/pagoda/model"
)

// golden is what transformers computed in float32; see scripts/goldens/tiny.py.
type golden struct {
	Sequences []struct {
		IDs    []int32     `json:"ids"`
		Logits [][]float32 `json:"logits"`
	} `json:"sequences"`
}

// TestLogitsEqualTransformers: each family, on the CPU's reference path and on
// the fastest one, whole and in chunks.
func TestLogitsEqualTransformers(t *testing.T) {
	for _, name := range []string{"tiny-tied", "tiny-yarn", "tiny-llama", "tiny-qwen3"} {
		dir := filepath.Join("..", "testdata", "golden", name)
		data, err := os.ReadFile(filepath.Join(dir, "golden.json"))
		require.NoError(t, err)
		var g golden
		require.NoError(t, json.Unmarshal(data, &g))
		for _, isa := range []string{"scalar", ""} {
			// What is left in float32 is the rounding of keys and values; the bfloat16
			// path rounds every activation, too.
			worst, mean := 0.25, 0.02
			b, err := cpu.New(cpu.Config{Threads: 2, ISA: isa})
			require.NoError(t, err)
			if b.Info().Path == "avx512bf16" {
				worst, mean = 0.4, 0.04
			}
			run := load(t, b, dir)
			for _, chunk := range []int{1000, 7} {
				for i, s := range g.Sequences {
					off, sum := 0.0, 0.0
					for at, row := range run.logits(t, s.IDs, chunk) {
						for j, v := range row {
							d := math.Abs(float64(v - s.Logits[at][j]))
							off, sum = max(off, d), sum+d
						}
					}
					n := float64(len(s.IDs) * len(s.Logits[0]))
					t.Logf("%s, %s, chunks of %d, %d tokens: |Δ logit| mean %.4f, max %.4f", name, b.Info().Path, chunk, len(s.IDs), sum/n, off)
					require.Less(t, off, worst, "%s: sequence %d", name, i)
					require.Less(t, sum/n, mean, "%s: sequence %d", name, i)
				}
			}
			require.NoError(t, b.Close())
		}
	}
}

// runner is a loaded model with room for one sequence of 128 tokens.
type runner struct {
	kernels.Backend
	model *model.Model
}

func load(t *testing.T, b kernels.Backend, dir string) *runner {
	config, err := model.ReadConfig(dir)
	require.NoError(t, err)
	checkpoint, err := model.OpenCheckpoint(dir)
	require.NoError(t, err)
	defer checkpoint.Close()
	limits := kernels.Limits{MaxBatchedTokens: 128, MaxSeqs: 1, MaxModelLen: 128, MaxLogitRows: 128, BlockSize: 16}
	require.NoError(t, b.Setup(config.Shape(), limits, limits))
	require.NoError(t, b.ResizePool(9, 1))
	m, err := model.Load(b, config, checkpoint, nil)
	require.NoError(t, err)
	return &runner{b, m}
}

// logits gives those of every position, computed in chunks.
func (r *runner) logits(t *testing.T, ids []int32, chunk int) [][]float32 {
	r.UpdateRows([]kernels.RowUpdate{{Reset: true, Sampling: kernels.Sampling{Logprobs: -1}, Blocks: []int32{1, 2, 3, 4, 5, 6, 7, 8}}})
	var rows [][]float32
	for first := 0; first < len(ids); first += chunk {
		part := ids[first:min(first+chunk, len(ids))]
		n := len(part)
		batch := &kernels.Batch{Tokens: part, Rows: []int32{0}, QueryStart: []int32{0, int32(n)}, SeqLens: []int32{int32(first + n)}}
		for i := range n {
			batch.LogitRows = append(batch.LogitRows, int32(i))
		}
		r.model.Forward(batch)
		_, err := r.Wait(r.Sample(&kernels.SampleBatch{}))
		require.NoError(t, err)
		all := r.ReadActivation(kernels.Logits, n)
		for i := range n {
			rows = append(rows, all[i*len(all)/n:(i+1)*len(all)/n])
		}
	}
	return rows
}
