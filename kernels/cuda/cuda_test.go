//go:build cuda

package cuda

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kernels/kernelstest"
)

// forcePath restricts the GPU tests to one code path.
var forcePath = flag.String("path", "", "code path to test: sm_90a, generic or plain")

// TestMain keeps a context for the process: making one takes longer than a case.
func TestMain(m *testing.M) {
	if Available() == nil {
		if _, err := cuda.Open(0); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// paths are the code paths that this machine's GPU has; without one, the test is
// skipped.
func paths(t testing.TB) []string {
	if err := Available(); err != nil {
		t.Skipf("no GPU: %v", err)
	}
	if *forcePath != "" {
		return []string{*forcePath}
	}
	b := newBackend(t, Config{})
	path := b.Info().Path
	require.NoError(t, b.Close())
	if path == pathGeneric {
		return []string{pathPlain, pathGeneric}
	}
	return []string{pathPlain, pathGeneric, path}
}

func newBackend(t testing.TB, cfg Config) *Backend {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	cfg.lazy = true
	b, err := New(cfg)
	require.NoError(t, err)
	return b
}

func TestConformance(t *testing.T) {
	tolerance := kernelstest.Float16()
	tolerance.NoQKNorm = true
	for _, path := range paths(t) {
		t.Run(path, func(t *testing.T) {
			kernelstest.Run(t, tolerance, func(t *testing.T) kernels.Backend {
				return newBackend(t, Config{Path: path})
			})
		})
	}
}

// small is the shape of tiny.
func small() kernels.Shape { return kernelstest.TinyShape(64) }

// tiny is a loaded model of shape small with a pool.
type tiny struct {
	*Backend
	w    kernelstest.Tiny
	pass func() // forward, bound once, as package model does
	mess bool   // steps have a message of updates before them, and something between Launch and Sample
}

var smallLimits = kernels.Limits{MaxBatchedTokens: 64, MaxSeqs: 8, MaxModelLen: 200, MaxLogitRows: 8, BlockSize: 16, MaxTopLogprobs: 2}

func newTiny(t testing.TB, cfg Config) *tiny { return newTinyOf(t, cfg, smallLimits) }

func newTinyOf(t testing.TB, cfg Config, limits kernels.Limits) *tiny {
	return newTinyShape(t, small(), cfg, limits)
}

func newTinyShape(t testing.TB, s kernels.Shape, cfg Config, limits kernels.Limits) *tiny {
	m := &tiny{Backend: newBackend(t, cfg)}
	t.Cleanup(func() { _ = m.Close() })
	require.NoError(t, m.Setup(s, limits, limits))
	require.NoError(t, m.ResizePool(max(120, 1+8*limits.MaxSeqs), 4))
	m.w = kernelstest.LoadTiny(t, m.Backend, s)
	m.pass = m.forward
	return m
}

func (m *tiny) forward() { m.w.Forward(m.Backend, m.shape.Layers) }

// reset gives rows 0 … n−1 tables for the first token; the rest come later.
func (m *tiny) reset(n int) {
	for row := range n {
		m.UpdateRows([]kernels.RowUpdate{{Row: int32(row), Reset: true, Blocks: []int32{m.block(row, 0)}, Sampling: kernels.Sampling{
			Temperature: 0.8, Seed: uint64(row), Logprobs: 1, TopK: int32(row % 3 * 20), FrequencyPenalty: float32(row%2) * 0.1,
		}, Prompt: []int32{3}}})
	}
}

// block is the block of entry i of a row's table.
func (m *tiny) block(row, i int) int32 { return int32(1 + i*m.limits.MaxSeqs + row) }

// decode issues one token for each row, taken from the device, with new blocks
// where they begin. masked gives row 0 a mask that allows everything.
func (m *tiny) decode(n, length int, masked bool) kernels.Ticket {
	batch, sample := &kernels.Batch{QueryStart: []int32{0}, NumDecodes: n}, &kernels.SampleBatch{}
	for row := range n {
		if length > 1 && (length-1)%16 == 0 {
			m.UpdateRows([]kernels.RowUpdate{{Row: int32(row), FirstBlock: int32(length-1) / 16, Blocks: []int32{m.block(row, (length-1)/16)}}})
		}
		batch.Tokens = append(batch.Tokens, kernels.FromDevice)
		batch.Rows = append(batch.Rows, int32(row))
		batch.QueryStart = append(batch.QueryStart, int32(row)+1)
		batch.SeqLens = append(batch.SeqLens, int32(length))
		batch.LogitRows = append(batch.LogitRows, int32(row))
		sample.Index = append(sample.Index, int32(row))
		sample.Rows = append(sample.Rows, int32(row))
		sample.Positions = append(sample.Positions, int32(length))
	}
	if masked {
		sample.Masks = make([][]uint32, n)
		sample.Masks[0] = slices.Repeat([]uint32{math.MaxUint32}, maskWords(m.shape.Vocab))
	}
	if m.mess && length > 1 && length%16 < 3 { // what is there already: the second cannot join the first
		update := kernels.RowUpdate{Row: 0}
		for i := range (length + 15) / 16 {
			update.Blocks = append(update.Blocks, m.block(0, i))
		}
		m.UpdateRows([]kernels.RowUpdate{update, update})
	}
	m.Launch(batch, m.pass)
	if m.mess && length > 16 && length%7 == 3 {
		m.CopyBlocks([]kernels.BlockCopy{{Src: m.block(0, 0), Dst: int32(m.pool.blocks - 1)}}) // a full one, to one of no sequence
	}
	return m.Sample(sample)
}

// generate decodes 100 tokens of n rows, with up to two steps under way.
func (m *tiny) generate(t *testing.T, n int, masked func(length int) bool) (tokens []int32, logprobs []float32) {
	m.reset(n)
	var last kernels.Ticket
	collect := func(ticket kernels.Ticket) {
		r, err := m.Wait(ticket)
		require.NoError(t, err)
		require.Positive(t, r.Duration)
		tokens, logprobs = append(tokens, r.Tokens...), append(logprobs, r.Logprobs...)
	}
	for length := 1; length <= 100; length++ {
		ticket := m.decode(n, length, masked(length))
		if last != 0 {
			collect(last)
		}
		last = ticket
	}
	collect(last)
	return tokens, logprobs
}

func never(int) bool { return false }

// TestGraphs: graphs change no bit, nor do steps with masks between them. A size
// that a batch does not fill may change the split of a product or of attention, unless results may
// not depend on the batch.
func TestGraphs(t *testing.T) {
	for _, path := range paths(t) {
		for _, invariant := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/invariant_%v", path, invariant), func(t *testing.T) {
				for _, n := range []int{1, 3, 8, 16, 100} { // gemm_stream's are from 9 on
					sizes := []int{1, 4, 8, 24, 100}
					if path != pathPlain && !invariant {
						sizes = []int{n}
					}
					graphsAgree(t, small(), path, invariant, n, sizes)
				}
				if path != pathPlain && !invariant { // a width that products make the norm of themselves
					s := small()
					s.Hidden = 1088 // beyond layers.cu
					m := graphsAgree(t, s, path, invariant, 1, []int{1})
					require.True(t, slices.ContainsFunc(slices.Collect(maps.Values(m.products)), func(p productPlan) bool {
						return p.normed != nil && p.normed.ok
					}), "no product made a norm")
				}
			})
		}
	}
}

// graphsAgree checks that steps of graphs give what steps without give, and returns the former's.
func graphsAgree(t *testing.T, s kernels.Shape, path string, invariant bool, n int, sizes []int) *tiny {
	limits := smallLimits
	limits.BatchInvariant = invariant
	if n > limits.MaxSeqs {
		limits.MaxBatchedTokens, limits.MaxSeqs, limits.MaxLogitRows = 128, 100, 100
	}
	eager := newTinyShape(t, s, Config{Path: path, Eager: true}, limits)
	tokens, logprobs := eager.generate(t, n, never)
	require.Empty(t, eager.graphs.all)
	require.Greater(t, len(slices.Compact(slices.Sorted(slices.Values(tokens)))), 20)
	m := newTinyShape(t, s, Config{Path: path, GraphSizes: sizes}, limits)
	for round, masked := range []func(int) bool{never, func(n int) bool { return n%7 == 0 }, never} {
		gotTokens, gotLogprobs := m.generate(t, n, masked)
		require.Equal(t, tokens, gotTokens, "%d rows, round %d", n, round)
		require.Equal(t, logprobs, gotLogprobs, "%d rows, round %d", n, round)
	}
	m.mess = true
	gotTokens, _ := m.generate(t, n, never)
	m.mess = false
	require.Equal(t, tokens, gotTokens, "%d rows, messages between steps", n)
	require.Len(t, m.graphs.all, 1)
	if n == 1 && m.layers.plan.kernel != "" && !invariant {
		require.Less(t, m.graphs.all[0].exec.Nodes, 15, "the layers are one launch")
		require.NotEmpty(t, m.layers.table)
	} else {
		require.Greater(t, m.graphs.all[0].exec.Nodes, 15)
	}
	lower := limits
	lower.MaxSeqs, lower.MaxLogitRows = m.graphs.all[0].size-1, limits.MaxLogitRows
	if lower.MaxSeqs == 0 {
		return m
	}
	require.NoError(t, m.SetLimits(lower))
	require.Empty(t, m.graphs.all, "no step takes that size any more")
	require.NoError(t, m.SetLimits(limits))
	gotTokens, _ = m.generate(t, n, never)
	require.Equal(t, tokens, gotTokens, "%d rows, captured anew", n)
	require.Len(t, m.graphs.all, 1)
	return m
}

// TestProfileGraphs: decode steps stay graphs while CUPTI records, their kernels belong to
// the operations that issue them where there is no graph, and no token changes.
func TestProfileGraphs(t *testing.T) {
	for _, path := range paths(t) {
		t.Run(path, func(t *testing.T) {
			m := newTinyOf(t, Config{Path: path, GraphSizes: []int{3}}, smallLimits)
			want, _ := m.generate(t, 3, never)
			steps := map[kernels.Ticket][]kernels.OpRecord{}
			m.SetProfiler(func(o kernels.OpRecord) { steps[o.Step] = append(steps[o.Step], o) })
			got, _ := m.generate(t, 3, never)
			m.SetProfiler(nil)
			require.Equal(t, want, got)
			for _, note := range m.ProfileNotes() {
				if strings.Contains(note, libcupti) {
					t.Skip(note)
				}
				require.Fail(t, note)
			}
			require.Len(t, steps, 100)
			list := func(step []kernels.OpRecord) (names, alone []string) {
				for _, o := range step {
					names = append(names, fmt.Sprint(o.Name(), o.Layer))
					for _, a := range o.Activities {
						if a.Kind == kernels.KernelActivity {
							names = append(names, a.Name)
						}
						if !a.InGraph {
							alone = append(alone, a.Name)
						}
					}
				}
				return names, alone
			}
			tickets := slices.Sorted(maps.Keys(steps))
			eager, alone := list(steps[tickets[0]])
			require.Greater(t, len(alone), 15)
			eager = slices.Delete(eager, slices.Index(eager, "sample-1")+1, slices.Index(eager, "sample-1")+2) // it has a message of its own
			for _, ticket := range tickets[1:] {
				names, alone := list(steps[ticket])
				require.Equal(t, eager, names)
				require.Empty(t, alone)
			}
			got, _ = m.generate(t, 3, never)
			require.Equal(t, want, got, "captured anew after the profile")
		})
	}
}

// TestKeepLogitRows: behind the last layer's QKV go on the tokens with logits, where 64 others do not.
func TestKeepLogitRows(t *testing.T) {
	shape := trueShapes[0].full()
	shape.Layers = 2
	limits := kernels.Limits{MaxBatchedTokens: 256, MaxSeqs: 4, MaxModelLen: 128, MaxLogitRows: 4, BlockSize: 16, MaxTopLogprobs: 1}
	for _, path := range paths(t) {
		t.Run(path, func(t *testing.T) {
			b := newBackend(t, Config{Path: path})
			t.Cleanup(func() { require.NoError(t, b.Close()) })
			require.NoError(t, b.Setup(shape, limits, limits))
			require.NoError(t, b.ResizePool(1+8*limits.MaxSeqs, 0))
			m := loadTrue(t, b, shape, true)
			m.resetRows(2, 8)
			for query, left := range map[int]int{100: 2, 33: 2, 32: 64} {
				var rows []int
				b.SetTap(func(op kernels.Op, _ int, _ kernels.Activation, values []float32) {
					if op == kernels.OpGateUp {
						rows = append(rows, len(values)/shape.Intermediate)
					}
				})
				batch, _ := m.spans(2, 0, query)
				b.Launch(batch, m.pass)
				_, err := b.Wait(b.Sample(&kernels.SampleBatch{}))
				require.NoError(t, err)
				require.Equal(t, []int{2 * query, left}, rows)
			}
		})
	}
}

// TestNoAllocations: a decode step that replays a graph allocates nothing.
func TestNoAllocations(t *testing.T) {
	paths(t)
	m := newTiny(t, Config{})
	m.reset(1)
	batch := &kernels.Batch{
		Tokens: []int32{5}, Rows: []int32{0}, QueryStart: []int32{0, 1}, SeqLens: []int32{1}, LogitRows: []int32{0}, NumDecodes: 1,
	}
	sample := &kernels.SampleBatch{Index: []int32{0}, Rows: []int32{0}, Positions: []int32{1}}
	step := func() {
		m.Launch(batch, m.pass)
		if _, err := m.Wait(m.Sample(sample)); err != nil {
			panic(err)
		}
	}
	for range 3 {
		step()
	}
	require.NotZero(t, m.graphs.all[0].exec.Nodes)
	require.Zero(t, testing.AllocsPerRun(20, step))
}

// TestOutOfMemory: what the card cannot hold is an error that leaves the pool.
func TestOutOfMemory(t *testing.T) {
	paths(t)
	m := newTiny(t, Config{})
	require.ErrorContains(t, m.ResizePool(1<<40, 0), "blocks")
	require.ErrorContains(t, m.ResizePool(0, 0), "0 device")
	blocks := int(m.device.TotalMemory / m.kv.BlockBytes())
	require.ErrorContains(t, m.ResizePool(blocks, 0), "memory")
	m.WriteBlock(119, make([]uint16, m.KV().BlockElems())) // as it was
	require.NoError(t, m.Sync())
	_, err := New(Config{Path: "avx9000"})
	require.ErrorContains(t, err, "avx9000")
	_, err = New(Config{Device: 99})
	require.ErrorContains(t, err, "99")
}

// TestDeviceFault: a kernel that writes where it may not makes the Backend fail
// for good, with the error of the step that met it. It runs in a process of its own: the
// context is lost to that one.
func TestDeviceFault(t *testing.T) {
	paths(t)
	const own = "PAGODA_TEST_GPU_FAULT"
	if os.Getenv(own) == "" {
		cmd := exec.Command(os.Args[0], "-test.v", "-test.run", "^"+t.Name()+"$", "-path", *forcePath)
		cmd.Env = append(os.Environ(), own+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: "+t.Name())
		return
	}
	m := newTiny(t, Config{})
	m.reset(1)
	_, err := m.Wait(m.decode(1, 1, false))
	require.NoError(t, err)
	m.ws.hidden = 1 << 20 // nothing is mapped there
	_, err = m.Wait(m.decode(1, 2, false))
	require.ErrorContains(t, err, "illegal")
	_, again := m.Wait(m.decode(1, 3, false))
	require.Equal(t, err, again)
}
