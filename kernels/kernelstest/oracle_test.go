package kernelstest_test

import (
	"flag"
	"math"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kernels/kernelstest"
)

// TestOracle runs the suite on the Oracle itself: every case is one that can be
// passed, in exact arithmetic and in the stricter tolerance.
func TestOracle(t *testing.T) {
	if testing.Short() {
		t.Skip("the Oracle is one goroutine: nothing for the race detector, which short mode is for")
	}
	kernelstest.RunEvery(t, *every, kernelstest.Float32(), func(*testing.T) kernels.Backend {
		return kernelstest.NewOracle()
	})
}

var every = flag.Int("every", 8, "TestOracle: of the suite's many cases, every n-th (make conformance: 1)")

// TestNormedIsReadOnce: a model that has two products read one norm is told so by the Oracle, for
// Backends may make a norm within the product.
func TestNormedIsReadOnce(t *testing.T) {
	o, s := kernelstest.NewOracle(), kernelstest.TinyShape(16)
	limits := kernels.Limits{MaxBatchedTokens: 4, MaxSeqs: 1, MaxModelLen: 16, MaxLogitRows: 1, BlockSize: 16}
	require.NoError(t, o.Setup(s, limits, limits))
	require.NoError(t, o.ResizePool(2, 0))
	w := kernelstest.LoadTiny(t, o, s)
	o.UpdateRows([]kernels.RowUpdate{{Reset: true, Blocks: []int32{1}}})
	step := func(forward func()) func() {
		return func() {
			o.Launch(&kernels.Batch{Tokens: []int32{3}, Rows: []int32{0}, QueryStart: []int32{0, 1}, SeqLens: []int32{1}}, func() {
				o.Embed(w.Embedding)
				forward()
			})
			_, err := o.Wait(o.Sample(&kernels.SampleBatch{}))
			require.NoError(t, err)
		}
	}
	require.NotPanics(t, step(func() { o.RMSNorm(w.Norm); o.QKV(0, w.QKV); o.RMSNorm(w.Norm); o.GateUp(w.GateUp) }))
	require.Panics(t, step(func() { o.RMSNorm(w.Norm); o.QKV(0, w.QKV); o.GateUp(w.GateUp) }))
}

// TestDrawByHand checks Draw against probabilities worked out by hand.
func TestDrawByHand(t *testing.T) {
	h := kernelstest.NewHistory([]int32{0}, []int32{1, 1})
	ln := math.Log
	z := []float64{ln(4), ln(3), ln(2), ln(1)}
	greedy := func(s kernels.Sampling, mask []uint32, position int32) int32 {
		id, _ := kernelstest.Draw(z, 0, &s, h, mask, position)
		return id
	}
	require.EqualValues(t, 0, greedy(kernels.Sampling{}, nil, 0))
	require.EqualValues(t, 2, greedy(kernels.Sampling{}, []uint32{0b1100}, 0))
	require.EqualValues(t, 1, greedy(kernels.Sampling{LogitBias: []kernels.TokenBias{{ID: 1, Bias: 0.3}}}, nil, 0))
	require.EqualValues(t, 2, greedy(kernels.Sampling{RepetitionPenalty: 2.1}, nil, 0))                  // ln 4/2 = ln 2
	require.EqualValues(t, 0, greedy(kernels.Sampling{FrequencyPenalty: 1, PresencePenalty: 1}, nil, 0)) // only outputs count
	stop := kernels.Sampling{MinTokens: 2, PromptLen: 5, StopIDs: []int32{0}}
	require.EqualValues(t, 1, greedy(stop, nil, 6))
	require.EqualValues(t, 0, greedy(stop, nil, 7))

	// What is kept: by many draws, the ids that ever come.
	kept := func(s kernels.Sampling) (ids int) {
		s.Temperature = 1
		for position := range int32(400) {
			id, _ := kernelstest.Draw(z, 0, &s, h, nil, position)
			ids |= 1 << id
		}
		return ids
	}
	require.Equal(t, 0b1111, kept(kernels.Sampling{}))
	require.Equal(t, 0b0011, kept(kernels.Sampling{TopK: 2}))
	require.Equal(t, 0b0011, kept(kernels.Sampling{TopP: 0.65})) // 0.4, 0.7
	require.Equal(t, 0b0111, kept(kernels.Sampling{TopP: 0.75}))
	require.Equal(t, 0b0111, kept(kernels.Sampling{MinP: 0.49}))
	require.Equal(t, 0b0001, kept(kernels.Sampling{TopP: 0.55, TopK: 2})) // 4/7 after renormalizing
}

// TestPhilox is the known-answer test of the authors' Random123.
func TestPhilox(t *testing.T) {
	require.Equal(t, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, kernels.Philox(0, [4]uint32{}))
	ones := uint32(math.MaxUint32)
	require.Equal(t, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
		kernels.Philox(math.MaxUint64, [4]uint32{ones, ones, ones, ones}))
}

var mutantName = flag.String("mutant", "", "run the suite on this broken Backend (TestMutants sets it)")

// TestMutant is the child of TestMutants.
func TestMutant(t *testing.T) {
	if *mutantName == "" {
		t.Skip("no -mutant")
	}
	m := mutants[*mutantName]
	kernelstest.Run(t, kernelstest.Float32(), func(*testing.T) kernels.Backend {
		return &mutant{Oracle: kernelstest.NewOracle(), defect: m.defect}
	})
}

// TestMutants breaks the Oracle in one way at a time and expects the suite to
// see it.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("a suite for each mutant")
	}
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := exec.Command(os.Args[0], "-test.run=^TestMutant$/"+m.group, "-mutant="+name, "-test.failfast").CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "the suite passed")
			require.Contains(t, string(out), "--- FAIL: TestMutant/", "it must fail, not crash: %s", out)
		})
	}
}
