package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// completeLoad packs what loading left.
func completeLoad(t *testing.T, b *Backend) {
	for more := true; more; {
		var err error
		more, err = b.CompleteLoad()
		require.NoError(t, err)
	}
}

// uneven are weights for a tied embedding: a few exceptions, and a panel that has many.
func uneven(vocab, hidden int) kernels.HostTensor {
	random := rand.New(rand.NewPCG(5, 6))
	return bf16Tensor(vocab, hidden, kernels.BF16, func(row, col int) float32 {
		v := random.NormFloat64() * 0.02
		if row/32 == 2 || (row*hidden+col)%1201 == 0 {
			v = math.Ldexp(v, -random.IntN(40))
		}
		return float32(v)
	})
}

// inFile is the tensor in a file of its own, open.
func inFile(t *testing.T, w kernels.HostTensor) kernels.HostTensor {
	f, err := os.Create(filepath.Join(t.TempDir(), "weights"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	_, err = f.Write(w.Data)
	require.NoError(t, err)
	w.Data, w.File = nil, f
	return w
}

// headOf is the embedding and the head of n tokens.
func headOf(t *testing.T, m *tied, norm kernels.Weight, n int) (embedded, logits []float32) {
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(37 * i % m.shape.Vocab)
	}
	launch(t, m.Backend, tokens, func() {
		m.Embed(m.embedding)
		m.Head(norm, m.embedding)
	})
	return m.ReadActivation(kernels.Hidden, n), m.ReadActivation(kernels.Logits, n)
}

// TestDeferred: results have the same bits while weights are not packed, are packed in part, and
// are packed, which is when the file is not wanted any more.
func TestDeferred(t *testing.T) {
	const vocab, hidden = 650, 70
	data := uneven(vocab, hidden)
	for _, path := range codingPaths(t) {
		packed, m := newTied(t, path, data), newTied(t, path, inFile(t, data))
		var norms [2]kernels.Weight
		for i, b := range []*tied{packed, m} {
			var err error
			norms[i], err = b.LoadNorm(kernels.HostTensor{Name: "norm", Shape: []int{hidden}, Offset: 1})
			require.NoError(t, err)
		}
		require.Empty(t, packed.deferred.weights)
		c := m.embedding.(*weight).c
		for stage, calls := range []int{0, 1, 1, 1, 5, vocab} {
			for range calls {
				m.complete(1, true) // a panel
			}
			require.NoError(t, m.Sync())
			require.Equal(t, stage > 0, c.ready > 0)
			require.Equal(t, stage == 5, c.ready == c.panels)
			for _, n := range []int{1, 2, 12, 13, 100} {
				m.deferred.steps = 0
				wantHidden, want := headOf(t, packed, norms[0], n)
				gotHidden, got := headOf(t, m, norms[1], n)
				text := fmt.Sprintf("%s, %d of %d panels packed, %d tokens", path, c.ready, c.panels, n)
				requireSame(t, wantHidden, gotHidden, hidden, text)
				requireSame(t, want, got, vocab, text)
			}
		}
		require.EqualValues(t, 1, c.num_kept)
		require.Equal(t, packed.embedding.Bytes(), m.embedding.Bytes())
		require.Empty(t, m.deferred.files)
	}
}

// TestDeferredIsPackedBySteps: whoever never calls CompleteLoad has all packed after a few steps.
func TestDeferredIsPackedBySteps(t *testing.T) {
	data := uneven(650, 70)
	for _, path := range codingPaths(t) {
		m := newTied(t, path, inFile(t, data))
		c := m.embedding.(*weight).c
		ready := []int{}
		for range 1 + busyParts {
			launch(t, m.Backend, []int32{1}, func() { m.Embed(m.embedding) })
			ready = append(ready, int(c.ready))
		}
		require.Zero(t, ready[0], "the first step waits for nothing")
		require.IsIncreasing(t, ready)
		require.Equal(t, int(c.panels), ready[busyParts])
	}
}

// startEmbedding launches a step that looks a token up.
func startEmbedding(m *tied, token int32) kernels.Ticket {
	batch := &kernels.Batch{Tokens: []int32{token}, Rows: []int32{0}, LogitRows: []int32{0}, QueryStart: []int32{0, 1}, SeqLens: []int32{1}, NumDecodes: 1}
	m.UpdateRows([]kernels.RowUpdate{{Row: 0, Reset: true, Blocks: []int32{1}, Sampling: kernels.Sampling{Logprobs: -1}}})
	m.Launch(batch, func() { m.Embed(m.embedding) })
	return m.Sample(&kernels.SampleBatch{})
}

// TestDeferredFileChanges: a file that is cut or written before all was read from it fails the step
// or the call that notices, by its name.
func TestDeferredFileChanges(t *testing.T) {
	data := uneven(650, 70)
	cut := func(t *testing.T, w kernels.HostTensor) { require.NoError(t, w.File.Truncate(100)) }
	for _, path := range codingPaths(t) {
		w := inFile(t, data)
		m := newTied(t, path, w)
		cut(t, w)
		_, err := m.Wait(startEmbedding(m, 600))
		require.ErrorContains(t, err, w.File.Name()+" was written while weights were read from it")

		for name, change := range map[string]func(*testing.T, kernels.HostTensor){
			"cut": cut,
			"longer": func(t *testing.T, w kernels.HostTensor) {
				_, err := w.File.WriteAt([]byte("x"), int64(len(data.Data)))
				require.NoError(t, err)
			},
		} {
			w, err := inFile(t, data), error(nil)
			m := newTied(t, path, w)
			change(t, w)
			for more := true; more && err == nil; {
				more, err = m.CompleteLoad()
			}
			require.ErrorContains(t, err, w.File.Name()+" was written while weights were read from it", name)
		}
	}
}

// TestDeferredFailureIsKept: what a step could not read fails it though all can be read again, and
// is packed, before anybody waits for the step.
func TestDeferredFailureIsKept(t *testing.T) {
	data := uneven(650, 70)
	for _, path := range codingPaths(t) {
		w := inFile(t, data)
		m := newTied(t, path, w)
		before, err := w.File.Stat()
		require.NoError(t, err)
		require.NoError(t, w.File.Truncate(100))
		ticket := startEmbedding(m, 600)
		require.NoError(t, m.Sync())
		_, err = w.File.WriteAt(data.Data, 0)
		require.NoError(t, err)
		require.NoError(t, os.Chtimes(w.File.Name(), before.ModTime(), before.ModTime()))
		for more := true; more && err == nil; {
			more, err = m.CompleteLoad()
		}
		require.ErrorContains(t, err, w.File.Name()+", or another file of weights, cannot be read")
		_, again := m.Wait(ticket)
		require.Equal(t, err, again)
	}
}
