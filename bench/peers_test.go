package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/scheduler"
)

// planOf is a built-in shape as an engine describes it.
func planOf(t *testing.T, model string) engine.Info {
	p, err := engine.NewPlan(engine.Config{Model: model, LoadFormat: "dummy", Device: "cpu", MemoryLimit: 1 << 40})
	require.NoError(t, err)
	return p.Info
}

// TestPeerFloors: the figures are found by a model's shape, and the floors of that card
// are those that were published beside them.
func TestPeerFloors(t *testing.T) {
	f := readPeerFigures()
	card := engine.Info{Device: kernels.Info{Device: "NVIDIA H200"}}
	c, from := f.ceilings(&card, kernels.Ceilings{DataSheet: true, ReadBytesPerSecond: 4.8e12, FLOPsPerSecond: 989e12})
	require.Contains(t, from, "reads 4,600 GB/s")
	other := engine.Info{Device: kernels.Info{Device: "NVIDIA H200 NVL"}}
	_, from = f.ceilings(&other, kernels.Ceilings{DataSheet: true, ReadBytesPerSecond: 4.8e12, FLOPsPerSecond: 835e12})
	require.Contains(t, from, "reads 4,800 GB/s", "a card whose name begins like that one's")
	for model, floors := range map[string][]float64{ // ms, at 1,184 tokens of context
		"qwen2.5-7b":   {3.09, 3.31, 3.55, 4.02, 4.96, 8.36, 16.7},
		"qwen2.5-1.5b": {0.68, 0.79, 0.91, 1.14, 1.62, 2.89, 5.78},
		"qwen2.5-0.5b": {0.22, 0.27, 0.32, 0.42, 0.62, 1.13, 2.26},
	} {
		info := planOf(t, model)
		shape := f.model(&info)
		require.NotNil(t, shape, model)
		require.Equal(t, model, shape.Name)
		for i, batch := range []int{1, 16, 32, 64, 128, 256, 512} {
			require.InDelta(t, floors[i], 1e3*c.decodeFloor(&info, batch, 1184), 0.006*max(floors[i], 1), "%s at %d", model, batch)
			require.Positive(t, shape.figure("decode", batch).Value)
		}
	}
	small := planOf(t, "qwen2.5-1.5b")
	slower := float64(small.StreamedWeightBytes) * (1/4.5e12 - 1/4.6e12)
	require.InEpsilon(t, c.decodeFloor(&small, 32, 1184)+slower+141*1.9e-6, c.coldKernels(&small, f.model(&small).Layers, 32, 1184), 1e-9)
	require.Zero(t, new(peerCeilings).coldKernels(&small, 28, 32, 1184), "not measured")
	info := planOf(t, "qwen2.5-7b")
	require.InDelta(t, 59e3, 64*1024/c.prefillFloor(&info, 64, 1024, 0), 500, "tok/s of 64 prompts of 1,024")
	require.InDelta(t, 2.5, c.prefillFloor(&info, 1, 1024, 0)/c.prefillFloor(&info, 1, 410, 0), 0.1, "more than the weights' bytes")
	require.Less(t, c.prefillFloor(&info, 1, 30000, 29984), 0.01, "a cached prompt costs its bytes")
	unknown := planOf(t, "qwen2.5-3b")
	require.Nil(t, f.model(&unknown))
}

// TestPeerRequests: the mixed requests are those of the published script, which
// generate 133,966 tokens.
func TestPeerRequests(t *testing.T) {
	m := &peerRun{peers: &peers{figures: readPeerFigures()}, info: engine.Info{SampleVocab: 1000}}
	m.o.fill()
	var in, out int
	for _, job := range m.mixed(256) {
		in, out = in+len(job.Prompt), out+job.MaxTokens
	}
	require.Equal(t, []int{142827, 133966}, []int{in, out})
}

// TestRequestsFloor: of requests that end one after the other, the prompts' products and attention, and each step of those left.
func TestRequestsFloor(t *testing.T) {
	info, c := planOf(t, "qwen2.5-7b"), readPeerFigures().Ceilings
	prompts := 2*c.prefillFloor(&info, 1, 1000, 0) + c.prefillFloor(&info, 1, 4000, 0) // bound by products each
	steps := c.decodeFloor(&info, 3, (1001+1001+4001)/3.0) + c.decodeFloor(&info, 2, (1002+4002)/2.0)
	require.InEpsilon(t, prompts+steps, c.requestsFloor(&info, []int{1000, 1000, 4000}, []int{3, 2, 3}), 1e-9)
}

// TestPeersTable: each value beside the peer's, whichever way is better, with what is
// wanted; a row that was skipped says why.
func TestPeersTable(t *testing.T) {
	p := &peers{figures: readPeerFigures(), device: "NVIDIA H100 80GB HBM3"}
	p.o.fill()
	add := func(part string, at int, floor float64, skipped string, values ...float64) {
		for _, kind := range peerParts() {
			if kind.name != part {
				continue
			}
			r := &peerRow{model: "qwen2.5-7b", part: kind, at: at, what: kind.what(&p.o, at), floor: floor, skipped: skipped, figure: p.figures.Models[0].figure(part, at)}
			for _, v := range values {
				r.runs = append(r.runs, map[string]float64{kind.metric: v, "host_us": 12, "gpu_idle": 0.01})
			}
			p.rows = append(p.rows, r)
		}
	}
	add("decode", 1, 3.09, "", 3.7, 3.9)
	add("decode", 64, 4.02, "", 5.9, 5.9)
	add("decode", 512, 0, "skipped: too many")
	add("prefix", 4096, 1, "", 6)
	add("requests", 256, 0, "", 15000)
	require.Equal(t, "host ≤ 100 µs, idle ≤ 2 %: met", p.stepTable("", p.rows[:1]).Rows[0][6])
	r := p.report(time.Minute)
	var out bytes.Buffer
	r.Print(&out)
	lines := map[string]string{}
	for line := range strings.Lines(out.String()) {
		words := strings.Join(strings.Fields(line), " ")
		for _, name := range []string{"decode, batch 1,", "decode, batch 64,", "decode, batch 512,", "4,096 in the prefix", "256 requests"} {
			if strings.Contains(words, name) && lines[name] == "" {
				lines[name] = words
			}
		}
	}
	require.Contains(t, lines["decode, batch 1,"], "3.80 ± 2.6 % 4.65 1.22× 3.09 81 % ≥ 1.15×, ≥ 80 %: met")
	require.Contains(t, lines["decode, batch 64,"], "5.90 6.02 1.02× 4.02 68 % ≥ 1.15×, ≥ 78 %: missed")
	require.Contains(t, lines["decode, batch 512,"], "skipped: too many")
	require.Contains(t, lines["4,096 in the prefix"], "6 10.2 1.70× 1 17 % ≤ 5: missed")
	require.Contains(t, lines["256 requests"], "15,000 12,154 1.23× – – ≥ 1.2×: met")
	require.Equal(t, "qwen2.5-7b: 11 of 14 figures are as wanted. Not: decode 64 (≥ 1.15×), decode 64 (≥ 78 %), prefix 4096 (≤ 5).", r.Verdict)
	require.Contains(t, strings.Join(r.Notes, " "), "are of one NVIDIA H200; this is another device (NVIDIA H100 80GB HBM3)")
	require.InDelta(t, 1.23, r.Cells[4].Metrics["times_as_fast"].Median, 0.01)
}

// TestPeersLeavesOut: a model without room is a note beside what was measured and an
// error where nothing was, another failure an error.
func TestPeersLeavesOut(t *testing.T) {
	failing := func(err error) func(string) (PeersEngine, error) {
		return func(string) (PeersEngine, error) { return nil, err }
	}
	tooLarge := failing(fmt.Errorf("%w: too large", engine.ErrMemory))
	r, err := Peers(context.Background(), []string{"large", "larger"}, tooLarge, PeersOptions{})
	require.Nil(t, r)
	require.ErrorIs(t, err, engine.ErrMemory)
	require.ErrorContains(t, err, "large: not enough memory: too large\nlarger: not")
	started := PeersOptions{Start: func(context.Context, string) (time.Duration, error) { return time.Second, nil }}
	r, err = Peers(context.Background(), []string{"large"}, tooLarge, started)
	require.NoError(t, err)
	require.Contains(t, strings.Join(r.Notes, " "), "large was left out: ")
	_, err = Peers(context.Background(), []string{"broken"}, failing(errors.New("no such card")), PeersOptions{})
	require.ErrorContains(t, err, "broken: no such card")
	_, err = Peers(context.Background(), nil, nil, PeersOptions{Rows: []string{"latency"}})
	require.ErrorContains(t, err, "--rows latency: want some of start, decode")
}

// fakePeers is a fakeTunable of batch sequences and n long ones behind them, whose swaps
// take three looks at its Stats.
type fakePeers struct {
	*fakeTunable
	batch, n int
	stats    engine.Stats
	next     *engine.Stats // after the copies
	wait     int
	cleared  []engine.Stats // when the prefix cache was
	swaps    int            // to the host
}

func (f *fakePeers) Probe(context.Context) (kernels.Ceilings, error) { return kernels.Ceilings{}, nil }
func (f *fakePeers) Close() error                                    { return nil }
func (f *fakePeers) ResetPrefixCache(context.Context) error {
	f.cleared = append(f.cleared, f.stats)
	return nil
}

func (f *fakePeers) Stats() engine.Stats {
	if f.wait--; f.wait < 0 && f.next != nil {
		f.next.Steps = f.stats.Steps
		f.stats, f.next = *f.next, nil
	}
	f.stats.Steps++
	return f.stats
}

func (f *fakePeers) Reconfigure(_ context.Context, l engine.Limits) error {
	out := f.batch + f.n - l.MaxNumSeqs
	f.wait, f.next = 3, &engine.Stats{Running: l.MaxNumSeqs, Waiting: out, Swapped: out, HostBlocksUsed: 10 * out, SwapInBytes: f.stats.SwapInBytes}
	if out > 0 {
		f.swaps++
	} else {
		f.next.SwapInBytes += int64(f.n)
	}
	return nil
}

// TestSwapCycle: the long sequences leave, their blocks are forgotten while they are
// away, and they come back; a cycle in which one ended is an error.
func TestSwapCycle(t *testing.T) {
	f := &fakePeers{fakeTunable: newFakeTunable(), batch: 4, n: 2, stats: engine.Stats{Running: 6}}
	s := &swapping{m: &peerRun{e: f, cells: newCells(f, CellOptions{})}, streams: make([]*engine.Stream, 6)}
	require.NoError(t, s.cycle(t.Context(), 4, 2))
	require.Equal(t, 1, f.swaps)
	require.Len(t, f.cleared, 1)
	require.Equal(t, 2, f.cleared[0].Swapped)
	require.GreaterOrEqual(t, f.cleared[0].Steps, int64(peerSwapQuiet))
	require.Equal(t, 6, f.stats.Running)
	require.GreaterOrEqual(t, f.stats.Steps, int64(2*peerSwapQuiet))
	f.n = 1
	require.ErrorContains(t, s.cycle(t.Context(), 4, 2), "sequences ended before they were swapped")
}

// TestPeersUnfit: a row above the limits says so, and without ceilings none has a floor.
func TestPeersUnfit(t *testing.T) {
	f := &fakePeers{fakeTunable: newFakeTunable()}
	f.limits.MaxNumSeqs = 512
	m := &peerRun{peers: &peers{figures: readPeerFigures()}, e: f, cells: newCells(f, CellOptions{})}
	m.o.fill()
	m.info = engine.Info{BlockSize: 16, MaxModelLen: 4001, NumBlocks: 1 << 16, HostBlocks: 1000}
	why := map[string]string{}
	for _, part := range peerParts() {
		for _, row := range m.add(part) {
			require.Zero(t, row.floor)
			why[fmt.Sprint(part.name, row.at)] = row.skipped
		}
	}
	require.Empty(t, why["sweep512"])
	require.Equal(t, "skipped: --max-num-seqs is 512", why["sweep1024"])
	require.Contains(t, why["ttft30000"], "max_model_len is 4001")
	require.Empty(t, why["swap64"])
	m.info.NumBlocks = 64*192 + 4*251 - 1 // a long sequence of 4,001 tokens takes 250 blocks and a part of another
	require.Contains(t, m.noSwap(64), "take 13292 blocks, the KV pool has 13291")
}

// TestPeersRowsFail: a row that fails is told of and tried again, and the others are
// measured; only what ends the engine ends it all.
func TestPeersRowsFail(t *testing.T) {
	m := &peerRun{peers: new(peers), model: "small", e: &fakePeers{}}
	m.o.fill()
	late := errors.New("too late")
	part := &peerPart{name: "swap", measure: func(_ *peerRun, _ context.Context, at int, repeat uint64) (map[string]float64, error) {
		if at == 1 || at == 2 && repeat == 0 {
			return nil, late
		}
		return map[string]float64{"swap": 1}, nil
	}}
	rows := []*peerRow{{part: part, at: 1, what: "one"}, {part: part, at: 2, what: "two"}, {part: part, at: 3, what: "three"}}
	require.NoError(t, m.part(t.Context(), part, rows))
	require.Equal(t, "failed: too late", rows[0].skipped)
	require.Empty(t, rows[1].skipped)
	require.Equal(t, []int{0, 1, 2}, []int{len(rows[0].runs), len(rows[1].runs), len(rows[2].runs)})
	require.Contains(t, m.notes, "small, two, repeat 1 was left out: too late")
	require.ErrorIs(t, errors.Join(m.failures...), late)
	for _, end := range []error{engine.ErrClosed, engine.ErrDevice, engine.ErrInvariant} {
		late = end
		require.ErrorIs(t, m.part(t.Context(), part, []*peerRow{{part: part, at: 1, what: "one"}}), end)
	}
}

// TestSlowdown: steps that begin and end beside copies are held against those with none, which
// take longer as the context grows; one at an edge, and one of another batch, against nothing.
// What the device waits for counts, but not between the ranges that are to be compared with.
func TestSlowdown(t *testing.T) {
	for _, c := range []struct{ growth, stall, gap, decode, out, in float64 }{{0, 0, 0, 100, 0.03, 0.02}, {0.5, 0, 0, 106.25, 0.03, 0.02}, {0, 51.5, 0, 100, 0.545, 0.02}, {0, 0, 100, 200, 0.015, 0.01}} {
		var steps []engine.StepRecord
		var still []stepRange
		clock := time.Unix(0, 0)
		add := func(part float64, batch, inFlight, loading int, stall float64) {
			ms := part * (100 + c.growth*float64(len(steps)))
			s := engine.StepRecord{Device: time.Duration(ms * 1e6), Start: clock}
			s.Step, s.Tokens, s.Loading, s.Pool.InFlight = int64(len(steps)+1), batch, loading, inFlight
			s.Scheduled = make([]scheduler.RecordScheduled, batch)
			steps = append(steps, s)
			clock = clock.Add(time.Duration((ms + stall + c.gap) * 1e6))
		}
		add(0.9, 2, 0, 0, 0) // before
		for range 3 {
			still = append(still, stepRange{int64(len(steps)), int64(len(steps) + 3)})
			add(1, 2, 0, 0, 0)
			add(1, 2, 0, 0, 0)
			add(5, 2, 0, 0, 500) // the copies begin in it
			add(1.03, 2, 7, 0, 0)
			add(1.03, 2, 7, 0, 2*c.stall)
			add(9, 2, 7, 0, 0)
			add(9, 3, 0, 0, 0)
			add(1.02, 2, 0, 1, 0)
			add(1.02, 2, 0, 1, 0)
			add(8, 2, 0, 1, 0)
			add(1, 2, 0, 0, 700) // the engine is asked for something
		}
		values := map[string]float64{}
		require.NoError(t, slowdown(values, steps, 1, 2, still))
		require.InDeltaMapValues(t, map[string]float64{"decode_ms": c.decode, "slowed_out": c.out, "steps_out": 6, "slowed_in": c.in, "steps_in": 6}, values, 1e-6)
		require.Error(t, slowdown(values, steps, 1, 5, still))
	}
}
