//go:build cuda

package cuda

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/pagoda-engine/pagoda/kernels"
)

// besideTimes are those of decode steps without swaps and beside one.
type besideTimes struct {
	alone, beside         []time.Duration // on the device
	aloneWall, besideWall []time.Duration // from the end of the step before to its own, as the host sees them
	call, took            time.Duration   // of the swap's call, and of its copies
}

// meanMs is the mean in ms.
func meanMs(times []time.Duration) float64 {
	var sum time.Duration
	for _, t := range times {
		sum += t
	}
	return sum.Seconds() * 1e3 / float64(max(len(times), 1))
}

// beside runs steps of 64 sequences, two under way, and swaps once in between.
func (m *benchModel) beside(b *testing.B, swap func() kernels.Ticket, t *besideTimes) {
	const before, after = 16, 24
	batch, sample := m.spans(64, 1183, 1)
	var last, ticket kernels.Ticket
	var end time.Time
	over := 0 // the step in which the copies were found to be finished
	for i := 0; over == 0 || i < over+after; i++ {
		if i == before {
			begin := time.Now()
			ticket = swap()
			t.call += time.Since(begin)
		}
		m.Launch(batch, m.pass)
		next := m.Sample(sample)
		if i > 0 { // step i − 1
			r, err := m.Wait(last)
			require.NoError(b, err)
			wall := time.Since(end)
			end = end.Add(wall)
			if ticket != 0 && over == 0 {
				took, done, err := m.be.SwapDone(ticket, false)
				require.NoError(b, err)
				if done {
					t.took += took
					over = i
				}
			}
			switch {
			case i >= 4 && i < before, over > 0 && i > over+2:
				t.alone, t.aloneWall = append(t.alone, r.Duration), append(t.aloneWall, wall)
			case over == 0 && i > before+1: // launched after the copies
				t.beside, t.besideWall = append(t.beside, r.Duration), append(t.besideWall, wall)
			case i == before+1: // the call delays the step behind it
				t.besideWall = append(t.besideWall, wall)
			}
		}
		last = next
	}
	_, err := m.Wait(last)
	require.NoError(b, err)
}

// BenchmarkBeside is decode of 64 sequences at 1,184 tokens of context while 3 GiB of blocks
// leave for the host or come back, runs of blocks or blocks that lie anywhere.
func BenchmarkBeside(b *testing.B) {
	for _, model := range trueShapes {
		b.Run(model.name, func(b *testing.B) {
			m := newBenchModel(b, model, 64, 1183)
			own, n := m.be.pool.blocks, int(3<<30/m.be.kv.BlockBytes())
			require.NoError(b, m.be.ResizePool(own+n, n))
			batch, sample := m.spans(64, 1183, 1)
			m.run(b, batch, sample, 20)
			for _, order := range []string{"runs", "anywhere"} {
				device, host := make([]int, n), make([]int, n)
				for i := range n {
					device[i], host[i] = i, i
				}
				if order == "anywhere" {
					random := rand.New(rand.NewPCG(1, 2))
					device, host = random.Perm(n), random.Perm(n)
				}
				copies := map[string][]kernels.BlockCopy{}
				for i := range n {
					d, h := int32(own+device[i]), int32(host[i])
					copies["out"] = append(copies["out"], kernels.BlockCopy{Src: d, Dst: h})
					copies["in"] = append(copies["in"], kernels.BlockCopy{Src: h, Dst: d})
				}
				for way, swap := range map[string]func([]kernels.BlockCopy) kernels.Ticket{"out": m.SwapOut, "in": m.SwapIn} {
					b.Run(fmt.Sprint(order, "/", way), func(b *testing.B) {
						m.reportBeside(b, func() kernels.Ticket { return swap(copies[way]) }, float64(n)*float64(m.be.kv.BlockBytes()))
					})
				}
			}
		})
	}
}

// reportBeside runs beside and reports it.
func (m *benchModel) reportBeside(b *testing.B, swap func() kernels.Ticket, bytes float64) {
	runtime.LockOSThread() // a sub-benchmark has a goroutine of its own
	defer runtime.UnlockOSThread()
	require.NoError(b, m.be.device.Bind())
	var t besideTimes
	for range b.N {
		m.beside(b, swap, &t)
	}
	b.ReportMetric(meanMs(t.alone), "ms/step")
	b.ReportMetric(100*(meanMs(t.beside)/meanMs(t.alone)-1), "%slower")
	b.ReportMetric(100*(meanMs(t.besideWall)/meanMs(t.aloneWall)-1), "%slower-wall")
	b.ReportMetric(slices.Max(t.besideWall).Seconds()*1e3, "longest-ms")
	b.ReportMetric(t.call.Seconds()*1e3/float64(b.N), "call-ms")
	b.ReportMetric(float64(b.N)*bytes/t.took.Seconds()/1e9, "GB/s")
}
