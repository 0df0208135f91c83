package engine

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// idleDevice is a device whose steps compute nothing and draw one token again and again.
type idleDevice struct {
	fake
	wait    func(drawn int64) // until the step is done, which and those before it drew so many tokens
	tokens  [2]int64
	issued  int64
	results [2]kernels.Result
	idle    func()
}

func (d *idleDevice) SetIdle(fn func()) { d.idle = fn }

func (d *idleDevice) UpdateRows([]kernels.RowUpdate)     {}
func (d *idleDevice) Launch(*kernels.Batch, func())      {}
func (d *idleDevice) WriteBlock(int32, []uint16)         {}
func (d *idleDevice) SetProfiler(func(kernels.OpRecord)) {}

func (d *idleDevice) Sample(s *kernels.SampleBatch) kernels.Ticket {
	d.issued++
	r := &d.results[d.issued%2]
	for len(r.Tokens) < len(s.Index) {
		r.Tokens = append(r.Tokens, 5)
	}
	r.Tokens = r.Tokens[:len(s.Index)]
	d.tokens[d.issued%2] = d.tokens[(d.issued+1)%2] + int64(len(s.Index)-s.Checks)
	return kernels.Ticket(d.issued)
}

func (d *idleDevice) Wait(t kernels.Ticket) (*kernels.Result, error) {
	d.wait(d.tokens[int64(t)%2])
	d.idle() // a GPU's Wait does so again and again
	r := &d.results[int64(t)%2]
	r.Duration = time.Millisecond
	return r, nil
}

// start makes an engine on it.
func (d *idleDevice) start(b testing.TB, seqs int) *Engine {
	d.fake = fake{info: kernels.Info{Backend: deviceCPU, Device: "idle", Path: "none", TotalMemory: 1 << 30, Overlap: true}}
	c := quiet(Config{NumGPUBlocksOverride: 48 * 1024, MaxNumSeqs: seqs, MaxNumBatchedTokens: 8192})
	require.NoError(b, c.validate())
	src := fakeSource(&d.fake, 1<<12)
	src.open = func(*Config) (kernels.Backend, error) { return d, nil }
	src.load = func(kernels.Backend) (*loaded, error) {
		return &loaded{forward: func(b *kernels.Batch) { d.Launch(b, nil) }, weightBytes: 1 << 20}, nil
	}
	e, err := start(c, src)
	require.NoError(b, err)
	return e
}

// walked holds more than most processors' caches do.
var walked [64 << 20]byte

// walk has the caches forget what was in them.
func walk() {
	for i := 0; i < len(walked); i += 64 {
		walked[i]++
	}
}

// TestIdle: what is done while a step is awaited does not touch how long requests are and how they
// end, and bears those that end or are aborted meanwhile.
func TestIdle(t *testing.T) {
	d := &idleDevice{wait: func(int64) {}}
	e := d.start(t, 16)
	var streams []*Stream
	for i := range 40 {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := e.Submit(ctx, Request{Prompt: prompt(i, 20), MaxTokens: 1 + i, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1}})
		require.NoError(t, err)
		if i%5 == 4 {
			cancel()
		}
		t.Cleanup(cancel)
		streams = append(streams, s)
	}
	for i, s := range streams {
		n, last := 0, Event{}
		for ev, ok := s.Next(t.Context()); ok; ev, ok = s.Next(t.Context()) {
			if last = ev; ev.HasToken {
				n++
			}
		}
		if i%5 != 4 {
			require.Equal(t, 1+i, n)
			require.Equal(t, FinishLength, last.Finish)
		}
	}
	require.NoError(t, e.Close())
}

// BenchmarkSteady is the host's time of a step in which all sequences decode, read by a
// goroutine each, over a device that takes no time of the host: the medians of the engine's
// records and of the phases, and the records' mean, which has the steps in which all
// sequences fill a block. Cold, the caches hold of it what is looked at while a step is awaited
// (kernels.Idler) when its results come, as after 14 ms of waiting for a GPU; warm, all that they can.
func BenchmarkSteady(b *testing.B) {
	for _, cold := range []bool{true, false} {
		for _, seqs := range []int{1, 64, 256, 512} {
			b.Run(fmt.Sprintf("cold=%v/%d", cold, seqs), func(b *testing.B) { benchmarkSteady(b, seqs, cold) })
		}
	}
}

func benchmarkSteady(b *testing.B, seqs int, cold bool) {
	const promptLen, steps = 256, 300
	var read atomic.Int64
	d := &idleDevice{wait: func(drawn int64) {
		for read.Load() < drawn-int64(2*seqs) { // what the steps before drew
		}
		if cold {
			walk()
		}
	}}
	e := d.start(b, seqs)
	measures := map[string][]float64{}
	note := func(name string, took time.Duration) {
		measures[name] = append(measures[name], float64(took)/float64(time.Microsecond))
	}
	for round := range b.N {
		ended := make(chan struct{})
		for i := range seqs {
			s, err := e.Submit(b.Context(), Request{
				Prompt: prompt(round*seqs+i, promptLen), MaxTokens: steps + 200, IgnoreEOS: true, Sampling: Sampling{Logprobs: -1},
			})
			require.NoError(b, err)
			go func() {
				for _, ok := s.Next(b.Context()); ok; _, ok = s.Next(b.Context()) {
					read.Add(1)
				}
				ended <- struct{}{}
			}()
		}
		p, err := e.Profile(b.Context(), ProfileOptions{Steps: steps})
		require.NoError(b, err)
		for _, s := range p.Steps {
			if s.Tokens != seqs {
				continue
			}
			for _, phase := range s.Phases {
				note(string(phase.Kind), phase.Duration)
			}
		}
		first, last := p.Steps[0].Number, p.Steps[len(p.Steps)-1].Number
		for _, s := range e.Steps(4 * steps) {
			if s.Tokens == seqs && s.Step >= first && s.Step <= last {
				note("host", s.Host)
			}
		}
		for range seqs {
			<-ended
		}
	}
	require.NoError(b, e.Close())
	b.ReportMetric(0, "ns/op")
	sum := 0.0
	for _, host := range measures["host"] {
		sum += host
	}
	b.ReportMetric(sum/float64(len(measures["host"])), "host-mean-µs")
	for _, name := range []string{"host", "schedule", "pack", "launch", "draw", "deliver"} {
		slices.Sort(measures[name])
		b.ReportMetric(measures[name][len(measures[name])/2], name+"-µs")
	}
}
