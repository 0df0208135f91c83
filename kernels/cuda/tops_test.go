//go:build cuda

package cuda

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// roles of rows, in turn: what they want of their logits.
const (
	greedy = iota // the likeliest id alone
	drawn
	listed // log probabilities
	biased
	ending // the likeliest id, but not an id that ends it, until it has so many
	roles
)

func sampling(role int, row int32, logprobs int32) kernels.Sampling {
	s := kernels.Sampling{Logprobs: logprobs}
	switch role {
	case drawn:
		s.Temperature, s.Seed = 0.8, uint64(row)
	case listed:
		s.Logprobs = 3
	case biased:
		s.LogitBias = []kernels.TokenBias{{ID: row, Bias: 50}}
	case ending:
		s.PromptLen, s.MinTokens, s.StopIDs = 20, 3, []int32{0, 1, 2, 3}
	}
	return s
}

// alike is a head whose rows are those of `distinct` ids again and again: each logit is there many times.
func alike(vocab, hidden, distinct int) kernels.HostTensor {
	t := kernels.HostTensor{Name: "alike", DType: kernels.BF16, Shape: []int{vocab, hidden}}
	rng := rand.New(rand.NewPCG(1, 2))
	for range distinct * hidden {
		t.Data = binary.LittleEndian.AppendUint16(t.Data, kernels.FloatToBF16(float32(rng.NormFloat64())/32))
	}
	for len(t.Data) < 2*vocab*hidden {
		t.Data = append(t.Data, t.Data[:min(2*distinct*hidden, 2*vocab*hidden-len(t.Data))]...)
	}
	return t
}

// TestTops: where the head leaves the likeliest ids of greedy rows instead of their logits, tokens and log
// probabilities are what they are where all rows want log probabilities, so that all logits are there. Rows'
// parameters change under way, and the number of sequences; graphs are not full; a row has a NaN. With few ids,
// of which half may be drawn and most are as likely as others, by every kernel that may make the head.
func TestTops(t *testing.T) {
	const broken, distinct = 5, 64
	truth := trueShapes[0]
	truth.shape.Layers, truth.shape.SampleVocab = 2, 151665
	few := truth
	few.shape.Vocab, few.shape.SampleVocab, few.tied = 8200, 4101, false
	limits := kernels.Limits{MaxBatchedTokens: 128, MaxSeqs: 128, MaxModelLen: 128, MaxLogitRows: 128, BlockSize: 16, MaxTopLogprobs: 3}
	run := func(t *testing.T, model trueShape, cfg Config, pin func(*Backend), n int, logprobs int32) (results []kernels.Result) {
		b := newBackend(t, cfg)
		require.NoError(t, b.Setup(model.full(), limits, limits))
		pin(b)
		require.NoError(t, b.ResizePool(1+8*limits.MaxSeqs, 0))
		b.fillPool(1)
		m := loadTrue(t, b, model.full(), model.tied)
		if !model.tied {
			head, err := b.LoadLinear(kernels.LinearSpec{Kind: kernels.LinearHead, Parts: []kernels.HostTensor{alike(model.shape.Vocab, model.shape.Hidden, distinct)}})
			require.NoError(t, err)
			m.head = head
		}
		m.resetRows(n, 8)
		nan := make([]uint16, b.kv.BlockElems())
		for i := range nan {
			nan[i] = 0x7e00
		}
		m.WriteBlock(1+broken, nan)
		for step := range 6 {
			turn := step / 3 // roles change once
			if step%3 == 0 {
				for row := range int32(n) {
					u := kernels.RowUpdate{Row: row, Reset: true, Sampling: sampling((int(row)+3*turn)%roles, row, logprobs)}
					for i := range 8 {
						u.Blocks = append(u.Blocks, int32(1+i*n)+row)
					}
					m.UpdateRows([]kernels.RowUpdate{u})
				}
			}
			seqs := n
			if step == 4 {
				seqs -= roles
			}
			batch, sample := m.spans(seqs, 20+step, 1)
			replays := len(b.graphs.all) > 0 && b.graphs.all[0].exec.Nodes > 0
			b.Launch(batch, m.pass)
			r, err := b.Wait(b.Sample(sample))
			require.NoError(t, err)
			kept := *r
			kept.Tokens, kept.Logprobs, kept.TopIDs = slices.Clone(r.Tokens), slices.Clone(r.Logprobs), slices.Clone(r.TopIDs)
			results = append(results, kept)
			if cfg.Path != pathPlain && replays {
				whole := make([]uint8, seqs)
				require.NoError(t, b.compute.ToHost(unsafe.Pointer(&whole[0]), b.ws.whole, seqs))
				require.NoError(t, b.compute.Sync())
				logits := b.ReadActivation(kernels.Logits, seqs)
				for row := range whole {
					role := (row + 3*turn) % roles
					wants := logprobs >= 0 || role == drawn || role == listed || role == biased || role == ending && sample.Positions[row]-20 < 3
					require.Equal(t, wants, whole[row] == 1, "step %d, row %d", step, row)
					if id := int32(*(*uint32)(unsafe.Pointer(&logits[row*model.shape.Vocab+1]))); !wants { // the first Top's
						require.True(t, id >= -2 && id < int32(model.shape.SampleVocab), "step %d, row %d: %d", step, row, id)
					}
				}
			}
		}
		require.NotZero(t, b.graphs.all[0].exec.Nodes)
		return results
	}
	compare := func(t *testing.T, model trueShape, path string, n, graph int, pin func(*Backend)) {
		cfg := Config{Path: path, GraphSizes: []int{graph}}
		want, got := run(t, model, cfg, pin, n, 0), run(t, model, cfg, pin, n, -1)
		for step := range want {
			if broken < len(want[step].Tokens) {
				require.EqualValues(t, -1, want[step].Tokens[broken])
			}
			require.Equal(t, want[step].Tokens, got[step].Tokens, "step %d", step)
			for row := range want[step].Tokens {
				switch (row + 3*(step/3)) % roles {
				case greedy:
					if !model.tied {
						require.Less(t, want[step].Tokens[row], int32(distinct), "the first of those that are as likely")
					}
				case listed:
					require.Equal(t, want[step].Logprobs[row], got[step].Logprobs[row], "step %d, row %d", step, row)
					require.Equal(t, want[step].TopIDs[3*row:3*row+3], got[step].TopIDs[3*row:3*row+3])
				}
			}
		}
	}
	for _, path := range paths(t) {
		for _, size := range []struct{ n, graph int }{{8, 8}, {30, 32}, {60, 64}, {100, 128}} {
			name := fmt.Sprintf("%s/%d_of_%d", path, size.n, size.graph)
			t.Run(name, func(t *testing.T) { compare(t, truth, path, size.n, size.graph, func(*Backend) {}) })
			t.Run(name+"/few_splitters", func(t *testing.T) { // a CTA has more parts than a warp looks at at a time, of rows with and without Tops
				spread, crowded := Config{Path: path, GraphSizes: []int{size.graph}}, Config{Path: path, GraphSizes: []int{size.graph}, splitters: 1}
				want, got := run(t, truth, spread, func(*Backend) {}, size.n, -1), run(t, truth, crowded, func(*Backend) {}, size.n, -1)
				for step := range want {
					require.Equal(t, want[step].Tokens, got[step].Tokens, "step %d", step)
					require.Equal(t, want[step].Logprobs, got[step].Logprobs, "step %d", step)
				}
			})
			t.Run(name+"/few_ids", func(t *testing.T) { compare(t, few, path, size.n, size.graph, func(*Backend) {}) })
			if path != pathHopper {
				continue
			}
			head := gemmShape{m: size.graph, n: few.shape.Vocab, k: few.shape.Hidden, kind: epilogueStore}
			b := newBackend(t, Config{Path: path})
			seen := map[string]bool{}
			for _, c := range candidates(head, b.arch) {
				if seen[c.kernel] || testing.Short() && seen[c.image] {
					continue
				}
				seen[c.kernel], seen[c.image] = true, true
				t.Run(name+"/"+c.String(), func(t *testing.T) {
					compare(t, few, path, size.n, size.graph, func(b *Backend) { b.products[head] = c.productPlan })
				})
			}
		}
	}
}

// TestGraphTakes: what a graph's head may have left no logits for goes without it.
func TestGraphTakes(t *testing.T) {
	g := &graph{size: 4}
	require.True(t, g.takes([]int32{0, 1, 3}))
	for name, index := range map[string][]int32{
		"nothing drawn": {}, "a row twice": {0, 1, 1}, "in another order": {1, 0}, "more than it has": {0, 1, 2, 3, 4},
	} {
		require.False(t, g.takes(index), name)
	}
}
