package cpu

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/pagoda-engine/pagoda/kernels"
)

func cpuTime() float64 {
	var r syscall.Rusage
	syscall.Getrusage(0, &r)
	return float64(r.Utime.Sec+r.Stime.Sec) + float64(r.Utime.Usec+r.Stime.Usec)*1e-6
}

func BenchmarkTune(b *testing.B) {
	m := newBench(b, 512)
	t0 := cpuTime()
	ProbeFMAPeak(1)
	dt := cpuTime() - t0
	fmt.Printf("fma probe %.1f GF/s by cpu time\n", 5*float64(1<<21)*512/dt/1e9)
	for _, c := range []struct{ seqs, query, n int }{{1, 1, 24}, {8, 1, 24}, {12, 1, 24}, {16, 1, 24}, {1, 96, 12}, {1, 512, 4}} {
		batch, sample := m.batch(c.seqs, c.query, 0)
		M := len(batch.Tokens)
		for name, f := range map[string]func(i int){"qkv": func(i int) { m.QKV(i, m.qkv[i]) }, "gate_up": func(i int) { m.GateUp(m.gateUp[i]) },
			"down": func(i int) { m.Linear(m.down[i], kernels.MLP) }} {
			var bytes, flops int64
			m.SetProfiler(func(r kernels.OpRecord) { bytes += r.Bytes; flops += r.FLOPs })
			best := 1e9
			for range 3 {
				bytes, flops = 0, 0
				t0 := cpuTime()
				m.Launch(batch, func() {
					for i := range c.n {
						f(i)
					}
				})
				m.Wait(m.Sample(&kernels.SampleBatch{}))
				best = min(best, cpuTime()-t0)
			}
			_ = sample
			fmt.Printf("M=%d %-8s %6.2f GB/s %6.1f GF/s\n", M, name, float64(bytes)/best/1e9, float64(flops)/best/1e9)
			m.SetProfiler(nil)
		}
	}
}
