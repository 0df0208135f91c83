package cpu

import (
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kernels/kernelstest"
)

// paths are the code paths that this machine has; in short mode the best alone. The
// race detector, which short mode is for, sees the Go side, the same on every path.
func paths() []string {
	if testing.Short() {
		return []string{""}
	}
	var names []string
	for _, p := range codePaths {
		if _, err := choosePath(p.name); err == nil {
			names = append(names, p.name)
		}
	}
	return names
}

// tolerance is how far a path may be from the oracle.
func tolerance(path string) kernelstest.Tolerance {
	if path == "avx512bf16" {
		return kernelstest.BFloat16Products()
	}
	return kernelstest.Float32()
}

func newBackend(t testing.TB, cfg Config) *Backend {
	t.Helper()
	b, err := New(cfg)
	require.NoError(t, err)
	return b
}

var every = flag.Int("every", 8, "of conformance but with coded weights on the best path, every n-th of the suite's many cases (make conformance: 1)")

func TestConformance(t *testing.T) {
	best := newBackend(t, Config{})
	defer best.Close()
	for _, path := range paths() {
		t.Run(path, func(t *testing.T) {
			b := newBackend(t, Config{ISA: path})
			defer b.Close()
			n := *every
			switch {
			case testing.Short():
				n = 16
			case path == best.Info().Path:
				n = 1
			}
			kernelstest.RunEvery(t, n, tolerance(b.Info().Path), func(t *testing.T) kernels.Backend {
				return newBackend(t, Config{ISA: path, Threads: 3})
			})
		})
	}
}

// TestConformanceUncoded: weights that are not coded, on the best path.
func TestConformanceUncoded(t *testing.T) {
	if testing.Short() {
		t.Skip("the Go side is that of TestConformance")
	}
	b := newBackend(t, Config{})
	defer b.Close()
	kernelstest.RunEvery(t, *every, tolerance(b.Info().Path), func(t *testing.T) kernels.Backend {
		return newBackend(t, Config{Threads: 3, Uncoded: true})
	})
}

func TestConformanceInt8(t *testing.T) {
	if testing.Short() {
		t.Skip("the Go side is that of TestConformance")
	}
	for _, path := range paths() {
		t.Run(path, func(t *testing.T) {
			kernelstest.RunEvery(t, *every, kernelstest.Int8Weights(), func(t *testing.T) kernels.Backend {
				return newBackend(t, Config{ISA: path, Threads: 3, Int8: true})
			})
		})
	}
}

// small is the shape of tiny.
func small() kernels.Shape { return kernelstest.TinyShape(48) }

// tiny is a loaded model of shape small with a pool.
type tiny struct {
	*Backend
	w kernelstest.Tiny
}

func newTiny(t *testing.T, cfg Config) *tiny {
	s, m := small(), &tiny{Backend: newBackend(t, cfg)}
	t.Cleanup(func() { _ = m.Close() })
	limits := kernels.Limits{
		MaxBatchedTokens: 64, MaxSeqs: 8, MaxModelLen: 200, MaxLogitRows: 8, BlockSize: 16, MaxTopLogprobs: 2,
	}
	require.NoError(t, m.Setup(s, limits, limits))
	require.NoError(t, m.ResizePool(120, 4))
	m.w = kernelstest.LoadTiny(t, m.Backend, s)
	return m
}

func (m *tiny) forward() { m.w.Forward(m.Backend, m.shape.Layers) }

// reset gives row 0 … n−1 tables for 112 tokens each.
func (m *tiny) reset(n int) {
	for row := range n {
		table := make([]int32, 7)
		for i := range table {
			table[i] = int32(1 + i*n + row)
		}
		m.UpdateRows([]kernels.RowUpdate{{Row: int32(row), Reset: true, Blocks: table, Sampling: kernels.Sampling{
			Temperature: 0.8, Seed: uint64(row), Logprobs: 1,
		}}})
	}
}

// decode issues one token for each row, taken from the device.
func (m *tiny) decode(n, length int) kernels.Ticket {
	batch, sample := &kernels.Batch{QueryStart: []int32{0}, NumDecodes: n}, &kernels.SampleBatch{}
	for row := range int32(n) {
		batch.Tokens = append(batch.Tokens, kernels.FromDevice)
		batch.Rows = append(batch.Rows, row)
		batch.QueryStart = append(batch.QueryStart, row+1)
		batch.SeqLens = append(batch.SeqLens, int32(length))
		batch.LogitRows = append(batch.LogitRows, row)
		sample.Index = append(sample.Index, row)
		sample.Rows = append(sample.Rows, row)
		sample.Positions = append(sample.Positions, int32(length))
	}
	m.Launch(batch, m.forward)
	return m.Sample(sample)
}

// generate decodes 100 tokens of n rows, with up to two steps under way.
func (m *tiny) generate(t *testing.T, n int) (tokens []int32, logprobs []float32) {
	m.reset(n)
	var last kernels.Ticket
	collect := func(ticket kernels.Ticket) {
		r, err := m.Wait(ticket)
		require.NoError(t, err)
		require.Positive(t, r.Duration)
		tokens, logprobs = append(tokens, r.Tokens...), append(logprobs, r.Logprobs...)
	}
	for length := 1; length <= 100; length++ {
		ticket := m.decode(n, length)
		if last != 0 {
			collect(last)
		}
		last = ticket
	}
	collect(last)
	return tokens, logprobs
}

// TestThreadsAgree: results do not depend on the number of threads, nor on how
// they share the work, with a step issued before the last one's result.
func TestThreadsAgree(t *testing.T) {
	for _, path := range paths() {
		t.Run(path, func(t *testing.T) {
			tokens, logprobs := newTiny(t, Config{ISA: path, Threads: 1}).generate(t, 8)
			require.Greater(t, len(slices.Compact(slices.Sorted(slices.Values(tokens)))), 50)
			for _, threads := range []int{2, 5} {
				m := newTiny(t, Config{ISA: path, Threads: threads})
				for range 3 {
					gotTokens, gotLogprobs := m.generate(t, 8)
					require.Equal(t, tokens, gotTokens)
					require.Equal(t, logprobs, gotLogprobs)
				}
			}
		})
	}
}

// TestKeepLogitRows: with logits of two tokens of 60 the last layer goes on with two, and so do the
// records; by as many threads as there are, bit for bit as with logits of all.
func TestKeepLogitRows(t *testing.T) {
	layers := small().Layers
	prompts := func(rows ...int32) *kernels.Batch {
		batch := &kernels.Batch{Rows: []int32{0, 1}, QueryStart: []int32{0, 37, 60}, SeqLens: []int32{37, 23}, LogitRows: rows}
		for i := range int32(60) {
			batch.Tokens = append(batch.Tokens, i*7%48)
		}
		return batch
	}
	var want []float32
	for _, threads := range []int{1, 2, 5} {
		m := newTiny(t, Config{Threads: threads})
		m.reset(2)
		run := func(batch *kernels.Batch) []float32 {
			m.Launch(batch, m.forward)
			_, err := m.Wait(m.Sample(&kernels.SampleBatch{}))
			require.NoError(t, err)
			return m.ReadActivation(kernels.Logits, len(batch.LogitRows))
		}
		if want == nil {
			m.SetTap(func(kernels.Op, int, kernels.Activation, []float32) {}) // all go on
			want = run(prompts(36, 59))
			m.SetTap(nil)
		}
		var prepared int
		flops := map[int]int64{}
		m.SetProfiler(func(r kernels.OpRecord) {
			if r.Op == kernels.OpPrepare {
				prepared++
			}
			if r.Op == kernels.OpGateUp {
				flops[r.Layer] = r.FLOPs
			}
		})
		require.Equal(t, want, run(prompts(36, 59)), "%d threads", threads)
		m.SetProfiler(nil)
		require.Equal(t, 1, prepared)
		require.Equal(t, flops[0]*2/60, flops[layers-1])
	}
	m := newTiny(t, Config{})
	m.reset(2)
	require.Panics(t, m.KeepLogitRows, "outside Launch")
	m.Launch(prompts(59), func() {
		m.KeepLogitRows()
		m.KeepLogitRows() // nothing
		require.PanicsWithValue(t, "cpu: qkv behind KeepLogitRows", func() { m.QKV(0, m.w.QKV) })
	})
	_, err := m.Wait(m.Sample(&kernels.SampleBatch{}))
	require.NoError(t, err)
}

func TestNoAllocations(t *testing.T) {
	m := newTiny(t, Config{Threads: 2})
	m.reset(1)
	batch := &kernels.Batch{
		Tokens: []int32{5}, Rows: []int32{0}, QueryStart: []int32{0, 1}, SeqLens: []int32{1}, LogitRows: []int32{0}, NumDecodes: 1,
	}
	sample := &kernels.SampleBatch{Index: []int32{0}, Rows: []int32{0}, Positions: []int32{1}}
	forward := m.forward // bound once
	require.Zero(t, testing.AllocsPerRun(20, func() {
		m.Launch(batch, forward)
		if _, err := m.Wait(m.Sample(sample)); err != nil {
			panic(err)
		}
	}))
}

// osThreads is the number of threads of the process.
func osThreads(t *testing.T) int {
	dir, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	return len(dir)
}

func TestCloseEndsThreads(t *testing.T) {
	before := osThreads(t)
	for range 20 {
		require.NoError(t, newBackend(t, Config{Threads: 40}).Close())
	}
	// Go may have started a few threads of its own.
	require.Less(t, osThreads(t), before+40)
}

func TestClosed(t *testing.T) {
	m := newTiny(t, Config{Threads: 2})
	require.NoError(t, m.Close())
	require.ErrorIs(t, m.Close(), errClosed)
	_, err := m.Wait(1)
	require.ErrorIs(t, err, errClosed)
}

func TestMisuse(t *testing.T) {
	m := newTiny(t, Config{Threads: 2})
	m.reset(2)
	good := func() *kernels.Batch {
		return &kernels.Batch{Tokens: []int32{1, 2}, Rows: []int32{0, 1}, QueryStart: []int32{0, 1, 2}, SeqLens: []int32{1, 1}}
	}
	for name, spoil := range map[string]func(b *kernels.Batch){
		"token":  func(b *kernels.Batch) { b.Tokens[1] = 333 },
		"row":    func(b *kernels.Batch) { b.Rows[1] = 8 },
		"length": func(b *kernels.Batch) { b.SeqLens[0] = 201 },
		"table":  func(b *kernels.Batch) { b.SeqLens[0] = 113 },
		"starts": func(b *kernels.Batch) { b.QueryStart = b.QueryStart[:2] },
		"logits": func(b *kernels.Batch) { b.LogitRows = []int32{2} },
	} {
		t.Run(name, func(t *testing.T) {
			m := newTiny(t, Config{Threads: 1})
			m.reset(2)
			b := good()
			spoil(b)
			require.Panics(t, func() { m.Launch(b, func() {}) })
		})
	}
	require.Panics(t, func() { m.RMSNorm(m.w.Norm) }, "outside Launch")
	require.Panics(t, func() { m.Sample(&kernels.SampleBatch{}) }, "without Launch")
	m.Launch(good(), func() {
		require.Panics(t, func() { m.RMSNorm(m.w.Out) }, "wrong weight")
		require.Panics(t, func() { m.QKV(2, m.w.QKV) }, "no such layer")
	})
	require.Panics(t, func() { m.CopyBlocks([]kernels.BlockCopy{{Src: 1, Dst: 120}}) })
	require.Panics(t, func() { m.UpdateRows([]kernels.RowUpdate{{FirstBlock: 9, Blocks: []int32{1}}}) })
	require.Panics(t, func() { m.UpdateRows([]kernels.RowUpdate{{Blocks: []int32{0}}}) }, "block 0")
}

func TestErrors(t *testing.T) {
	_, err := New(Config{ISA: "avx9000"})
	require.ErrorContains(t, err, "avx9000")
	_, err = New(Config{Threads: -1})
	require.ErrorContains(t, err, "-1 threads")
	m := newTiny(t, Config{Threads: 1, MemoryLimit: 1 << 30})
	require.EqualValues(t, 1<<30, m.Info().TotalMemory)
	require.ErrorContains(t, m.ResizePool(1<<40, 0), "blocks")
	require.ErrorContains(t, m.ResizePool(0, 0), "0 device")
	m.WriteBlock(119, make([]uint16, m.KV().BlockElems())) // as it was
	odd := small()
	odd.HeadDim = 24
	fresh := newBackend(t, Config{Threads: 1})
	require.ErrorContains(t, fresh.Setup(odd, m.limits, m.limits), "heads of 24")
	require.NoError(t, fresh.Close())
	bad := kernels.HostTensor{Name: "layers.7.bad", Shape: []int{72, 71}}
	_, err = m.LoadLinear(kernels.LinearSpec{Kind: kernels.LinearGateUp, Parts: []kernels.HostTensor{bad, bad}})
	require.ErrorContains(t, err, "layers.7.bad")
}

// TestProfileBusy: the workers' own time on each operation is told, also on copies.
func TestProfileBusy(t *testing.T) {
	m := newTiny(t, Config{Threads: 2})
	m.reset(1)
	var records []kernels.OpRecord
	m.SetProfiler(func(r kernels.OpRecord) { records = append(records, r) })
	m.CopyBlocks([]kernels.BlockCopy{{Src: 1, Dst: 2}})
	m.Launch(&kernels.Batch{
		Tokens: []int32{5}, Rows: []int32{0}, QueryStart: []int32{0, 1}, SeqLens: []int32{1}, LogitRows: []int32{0}, NumDecodes: 1,
	}, m.forward)
	_, err := m.Wait(m.Sample(&kernels.SampleBatch{Index: []int32{0}, Rows: []int32{0}, Positions: []int32{1}}))
	require.NoError(t, err)
	require.Equal(t, kernels.OpCopy, records[0].Op)
	require.Equal(t, kernels.OpSample, records[len(records)-1].Op)
	for _, r := range records {
		require.Positive(t, r.Busy, r.Name())
		require.Positive(t, r.Duration, r.Name())
	}
}

// TestOperationsAlone: a worker that looks at an operation only when it is over, as one of
// many on few cores does, finds nothing that is gone.
func TestOperationsAlone(t *testing.T) {
	m := newTiny(t, Config{Threads: 64})
	for range 3000 {
		m.CopyBlocks([]kernels.BlockCopy{{Src: 1, Dst: 2}})
	}
	require.NoError(t, m.Sync())
}
