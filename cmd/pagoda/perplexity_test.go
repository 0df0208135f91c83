package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kernels/cpu"
	"github.com/pagoda-engine/pagoda/model"
	"github.com/pagoda-engine/pagoda/model/tokenizer"
)

// perplexityText is the beginning of a book.
func perplexityText(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash("../../testdata/text/alice.txt"))
	require.NoError(t, err)
	return string(b)
}

const perplexityChunk, mostPerplexityChunks = 256, 16

// perplexity is exp of the mean negative log probability of chunks of the text,
// each from nothing, on a backend of its own.
func perplexity(t *testing.T, dir string, ids []int32, cfg cpu.Config) float64 {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	config, err := model.ReadConfig(dir)
	require.NoError(t, err)
	checkpoint, err := model.OpenCheckpoint(dir)
	require.NoError(t, err)
	defer checkpoint.Close()
	be, err := cpu.New(cfg)
	require.NoError(t, err)
	defer be.Close()
	limits := kernels.Limits{
		MaxBatchedTokens: perplexityChunk, MaxSeqs: 1, MaxModelLen: perplexityChunk, MaxLogitRows: perplexityChunk, BlockSize: 16,
	}
	require.NoError(t, be.Setup(config.Shape(), limits, limits))
	require.NoError(t, be.ResizePool(perplexityChunk/16+1, 0))
	m, err := model.Load(be, config, checkpoint, nil)
	require.NoError(t, err)
	update := kernels.RowUpdate{Reset: true, Sampling: kernels.Sampling{Logprobs: -1}}
	batch := &kernels.Batch{Rows: []int32{0}, QueryStart: []int32{0, perplexityChunk}, SeqLens: []int32{perplexityChunk}}
	for i := range int32(perplexityChunk) {
		if i%16 == 0 {
			update.Blocks = append(update.Blocks, 1+i/16)
		}
		batch.LogitRows = append(batch.LogitRows, i)
	}
	sum, count := 0.0, 0
	for c := range min(len(ids)/perplexityChunk, mostPerplexityChunks) {
		batch.Tokens = ids[c*perplexityChunk : (c+1)*perplexityChunk]
		be.UpdateRows([]kernels.RowUpdate{update})
		m.Forward(batch)
		_, err := be.Wait(be.Sample(&kernels.SampleBatch{}))
		require.NoError(t, err)
		logits := be.ReadActivation(kernels.Logits, perplexityChunk)
		for i := range perplexityChunk - 1 {
			row := logits[i*config.VocabSize : (i+1)*config.VocabSize]
			total, target := 0.0, float64(row[batch.Tokens[i+1]])
			for _, z := range row {
				total += math.Exp(float64(z) - target)
			}
			sum, count = sum+math.Log(total), count+1
		}
	}
	return math.Exp(sum / float64(count))
}

// float32Path is the fastest code path whose products take float32 activations.
func float32Path(t *testing.T) string {
	for _, path := range []string{"avx512", "avx2"} {
		if be, err := cpu.New(cpu.Config{ISA: path}); err == nil {
			require.NoError(t, be.Close())
			return path
		}
	}
	return "scalar"
}

// TestInt8Perplexity: int8 weights and rounded activations cost the test model at
// most 1 % of perplexity on prose.
func TestInt8Perplexity(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute of C, which the race detector does not see into")
	}
	dir := testModel(t)
	text, err := tokenizer.Open(dir)
	require.NoError(t, err)
	defer text.Close()
	ids, err := text.Encode(perplexityText(t))
	require.NoError(t, err)
	require.Greater(t, len(ids), 4*perplexityChunk)
	exact := perplexity(t, dir, ids, cpu.Config{ISA: float32Path(t)})
	rounded := perplexity(t, dir, ids, cpu.Config{})
	int8 := perplexity(t, dir, ids, cpu.Config{Int8: true})
	t.Logf("perplexity: float32 activations %.4f, this machine's path %.4f, int8 %.4f (%+.2f %%)", exact, rounded, int8, 100*(int8/rounded-1))
	require.Less(t, math.Abs(rounded/exact-1), 0.002)
	require.Less(t, int8/rounded-1, 0.01)
}
