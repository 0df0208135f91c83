package bench

import (
	"cmp"
	"slices"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/kernels"
)

// Bound is what limits an operation's speed.
type Bound string

// The bounds. An operation is bound by latency when it is short and neither memory
// nor arithmetic explains half of its time: starting it and waiting for its last
// part takes the rest. A long one that is far from both ceilings is bound by the
// nearer one: its share of the roofline says how far.
const (
	BoundMemory  Bound = "memory"
	BoundCompute Bound = "compute"
	BoundLatency Bound = "latency"
)

// Short calls, in which fixed costs can dominate: some wake-ups of worker threads,
// some launches.
const (
	shortOnCPU = 100 * time.Microsecond
	shortOnGPU = 10 * time.Microsecond
)

// OpStat is an operation over all steps of a profile.
type OpStat struct {
	Name         string
	Calls        int
	Time         time.Duration // of the device, all calls
	Share        float64       // of the profile's time, 0–1
	Bytes, FLOPs int64
	// Roofline is the time that the ceilings would allow ÷ Time; above 1 where data
	// came out of a cache.
	Roofline float64
	Bound    Bound
	Occupied float64 // Occupancy of this operation, 0–1
}

// GBps is the bytes moved, GB/s.
func (o *OpStat) GBps() float64 { return float64(o.Bytes) / float64(max(o.Time, 1)) }

// TFLOPs is the arithmetic, TFLOP/s.
func (o *OpStat) TFLOPs() float64 { return float64(o.FLOPs) / float64(max(o.Time, 1)) / 1e3 }

// Intensity is FLOPs ÷ bytes.
func (o *OpStat) Intensity() float64 { return float64(o.FLOPs) / float64(max(o.Bytes, 1)) }

// KernelStat is a GPU's kernel over all steps of a profile, in all of its launches, as
// TensorBoard's plugin counts.
type KernelStat struct {
	Name              string
	Calls             int
	Time              time.Duration
	Registers, Shared int     // a thread; bytes a CTA, of the launch that has most
	Occupancy         float64 // weighted by time, 0–1
	CTAsPerSM         float64 // likewise
}

// Gaps is the time in which the device ran nothing, by what the engine's goroutine
// did meanwhile.
type Gaps struct {
	Host   time.Duration // scheduling, packing, masks, delivering
	Launch time.Duration // issuing operations
	Sync   time.Duration // waiting: the device was done, or between two operations
	Idle   time.Duration // there was nothing to do
}

// Total is all of them.
func (g *Gaps) Total() time.Duration { return g.Host + g.Launch + g.Sync + g.Idle }

// ProfileStats is what a profile says.
type ProfileStats struct {
	Window    time.Duration   // from the first step's begin to the last one's end
	StepTimes []time.Duration // on the host
	StepBusy  []float64       // share of each step in which the device ran something
	Busy      time.Duration   // of the device: kernels on a GPU, operations on a processor
	Occupancy float64         // 0–1: of a GPU's warps, or of worker threads' time, while it was busy
	Occupied  bool            // Occupancy is known
	Copy      time.Duration   // copies and fills
	Gaps      Gaps
	Ops       []OpStat     // by time
	Kernels   []KernelStat // by time; of a GPU
}

// BusyShare is Busy ÷ Window.
func (s *ProfileStats) BusyShare() float64 { return share(s.Busy, s.Window) }

// share is part ÷ whole, 0 of nothing.
func share[N ~int | ~int64](part, whole N) float64 { return float64(part) / float64(max(whole, 1)) }

// isCopy says whether an operation moves whole blocks.
func isCopy(op kernels.Op) bool {
	return op == kernels.OpCopy || op == kernels.OpSwapIn || op == kernels.OpSwapOut
}

// Analyze sums a profile up beside what the device could do.
func Analyze(p *engine.Profile, c kernels.Ceilings) *ProfileStats {
	s := &ProfileStats{}
	if len(p.Steps) == 0 {
		return s
	}
	// On a GPU kernels make it busy; copies are counted apart.
	var busy, all []kernels.Span
	for i := range p.Steps {
		begin, end := p.Window(i)
		s.StepTimes = append(s.StepTimes, end-begin)
		for j := range p.Steps[i].Ops {
			o := &p.Steps[i].Ops[j]
			if o.Activities == nil {
				at := kernels.Span{Begin: o.Start, End: o.Start + o.Duration}
				busy, all = append(busy, at), append(all, at)
				if isCopy(o.Op) {
					s.Copy += o.Duration
				}
			}
			for k := range o.Activities {
				a := &o.Activities[k]
				at := kernels.Span{Begin: a.Start, End: a.Start + a.Duration}
				all = append(all, at)
				if a.Kind == kernels.KernelActivity {
					busy = append(busy, at)
				} else {
					s.Copy += a.Duration
				}
			}
		}
	}
	busy, all = kernels.Union(busy), kernels.Union(all)
	begin, _ := p.Window(0)
	_, end := p.Window(len(p.Steps) - 1)
	if n := len(all); n > 0 {
		end = max(end, all[n-1].End)
	}
	s.Window, s.Busy = end-begin, kernels.Within(busy, begin, end)
	for i := range p.Steps {
		from, to := p.Window(i)
		s.StepBusy = append(s.StepBusy, share(kernels.Within(busy, from, to), to-from))
	}
	s.gaps(p, all, begin, end)
	s.operations(p, c)
	s.kernels(p)
	return s
}

// gaps splits the time outside the spans by the phases that it falls into.
func (s *ProfileStats) gaps(p *engine.Profile, all []kernels.Span, begin, end time.Duration) {
	outside := func(from, to time.Duration) time.Duration {
		from, to = max(from, begin), min(to, end)
		return max(to-from, 0) - kernels.Within(all, from, to)
	}
	s.Gaps.Idle = outside(begin, end)
	for i := range p.Steps {
		for _, ph := range p.Steps[i].Phases {
			gap := outside(ph.Start, ph.Start+ph.Duration)
			switch ph.Kind {
			case engine.PhaseLaunch, engine.PhaseDraw:
				s.Gaps.Launch += gap
			case engine.PhaseWait:
				s.Gaps.Sync += gap
			default:
				s.Gaps.Host += gap
			}
			s.Gaps.Idle -= gap
		}
	}
	s.Gaps.Idle = max(s.Gaps.Idle, 0)
}

// deviceTime is what the device spent on an operation.
func deviceTime(o *kernels.OpRecord) time.Duration {
	if o.Activities == nil {
		return o.Duration
	}
	sum := time.Duration(0)
	for i := range o.Activities {
		sum += o.Activities[i].Duration
	}
	return sum
}

// operations fills in Ops, and a processor's occupancy.
func (s *ProfileStats) operations(p *engine.Profile, c kernels.Ceilings) {
	short, threads := shortOnGPU, float64(p.Info.Device.Threads)
	if threads > 0 {
		short = shortOnCPU
	}
	at := map[string]int{}
	var worked []time.Duration
	for i := range p.Steps {
		for j := range p.Steps[i].Ops {
			o := &p.Steps[i].Ops[j]
			k, ok := at[o.Name()]
			if !ok {
				k = len(s.Ops)
				at[o.Name()] = k
				s.Ops, worked = append(s.Ops, OpStat{Name: o.Name()}), append(worked, 0)
			}
			op := &s.Ops[k]
			op.Calls++
			op.Time += deviceTime(o)
			op.Bytes += o.Bytes
			op.FLOPs += o.FLOPs
			worked[k] += o.Busy
		}
	}
	var inOps, inWorkers time.Duration
	for i := range s.Ops {
		op := &s.Ops[i]
		op.Share = share(op.Time, s.Window)
		op.rate(c, short)
		if threads > 0 {
			op.Occupied = min(share(worked[i], op.Time)/threads, 1)
			inOps, inWorkers = inOps+op.Time, inWorkers+worked[i]
		}
	}
	if threads > 0 {
		s.Occupancy, s.Occupied = min(share(inWorkers, inOps)/threads, 1), true
	}
	slices.SortStableFunc(s.Ops, func(a, b OpStat) int { return cmp.Compare(b.Time, a.Time) })
}

// rate compares an operation with the ceilings.
func (o *OpStat) rate(c kernels.Ceilings, short time.Duration) {
	var memory, compute float64 // seconds that they alone would take
	if c.ReadBytesPerSecond > 0 {
		memory = float64(o.Bytes) / c.ReadBytesPerSecond
	}
	if c.FLOPsPerSecond > 0 {
		compute = float64(o.FLOPs) / c.FLOPsPerSecond
	}
	o.Roofline = max(memory, compute) / max(o.Time, 1).Seconds()
	switch {
	case o.Roofline < 0.5 && o.Time < short*time.Duration(o.Calls):
		o.Bound = BoundLatency
	case compute > memory:
		o.Bound = BoundCompute
	default:
		o.Bound = BoundMemory
	}
}

// kernels fills in Kernels and a GPU's occupancy.
func (s *ProfileStats) kernels(p *engine.Profile) {
	g := p.Info.Device.GPU
	if g == nil {
		return
	}
	at := map[string]int{}
	var total time.Duration
	var weighted float64
	for i := range p.Steps {
		for j := range p.Steps[i].Ops {
			o := &p.Steps[i].Ops[j]
			for n := range o.Activities {
				a := &o.Activities[n]
				if a.Kind != kernels.KernelActivity {
					continue
				}
				k, ok := at[a.Name]
				if !ok {
					k = len(s.Kernels)
					at[a.Name] = k
					s.Kernels = append(s.Kernels, KernelStat{Name: a.Name})
				}
				occupancy := g.Occupancy(a) * float64(a.Duration)
				st := &s.Kernels[k]
				st.Calls++
				st.Time += a.Duration
				st.Registers, st.Shared = max(st.Registers, a.Registers), max(st.Shared, a.StaticShared+a.DynamicShared)
				st.Occupancy += occupancy
				st.CTAsPerSM += g.CTAsPerMultiprocessor(a) * float64(a.Duration)
				total, weighted = total+a.Duration, weighted+occupancy
			}
		}
	}
	for i := range s.Kernels {
		st := &s.Kernels[i]
		st.Occupancy /= float64(max(st.Time, 1))
		st.CTAsPerSM /= float64(max(st.Time, 1))
	}
	slices.SortStableFunc(s.Kernels, func(a, b KernelStat) int { return cmp.Compare(b.Time, a.Time) })
	if total > 0 {
		s.Occupancy, s.Occupied = weighted/float64(total), true
	}
}
