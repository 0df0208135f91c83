package bench

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/nvml"
	"github.com/pagoda-engine/pagoda/scheduler"
)

const (
	// watchEvery is the time between two looks at the engine's step counter, which
	// takes no lock.
	watchEvery = 10 * time.Millisecond
	// readEvery is the looks between two readings of the card and of the process's
	// memory, which cost system calls.
	readEvery = 10
	// fetchSteps is how many steps may pass before their records are fetched, which
	// the engine's goroutine does; it keeps some thousands.
	fetchSteps = 1024
)

// moment is one step: the state that it ran in and the time that it took.
type moment struct {
	at, took         time.Duration // since the run began; host and device
	running, waiting int
	used, total      int // blocks of the pool
	slots            int // of the used blocks that hold a token
	saved, host      int // blocks that sharing saves; blocks of the swap pool in use
	preempted        int // by swap or recompute, in this step
	waits            int // sequences that sat this step out for want of a block
	waitReason       scheduler.WaitReason
	load             scheduler.Load
	swapBlock        time.Duration // expected for copying a block one way; 0 = no decision said
}

// usage is the share of the pool that is in use.
func (m *moment) usage() float64 { return float64(m.used) / float64(max(m.total, 1)) }

// utilization is the share of the used blocks' slots that hold tokens; -1 = no
// block is in use.
func (m *moment) utilization(blockSize int) float64 {
	if m.used == 0 {
		return -1
	}
	return float64(m.slots) / float64(m.used*blockSize)
}

// watched is what a watcher saw.
type watched struct {
	before, after engine.Stats
	wall          time.Duration
	cores         float64 // busy, of this process
	threads       int
	onCPU         bool
	gpu           []float64 // utilization, 0–1
	peakMemory    int64     // bytes
	moments       []moment
	blocks        []engine.BlockState // when the most were in use
	blockSize     int
	blockBytes    int64
}

// watcher looks at an engine while a run goes on.
type watcher struct {
	e          Tunable
	gpu        *nvml.GPU
	start      time.Time
	cpu        time.Duration
	seen       watched
	steps      int64 // counted when records were last fetched
	last       int64 // step number of the last record
	most       int   // blocks in use when seen.blocks was taken
	withBlocks bool
	ending     chan struct{}
	ended      chan struct{}
}

// watch begins.
func watch(e Tunable, blocks bool) *watcher {
	w := &watcher{e: e, withBlocks: blocks, start: time.Now(), cpu: cpuTime(), ending: make(chan struct{}), ended: make(chan struct{})}
	info := e.Info()
	w.seen.onCPU = info.Device.Backend == "cpu"
	w.seen.blockSize, w.seen.blockBytes, w.seen.threads = info.BlockSize, info.BlockBytes, min(max(info.Device.Threads, 1), runtime.NumCPU())
	if info.Device.Backend != "cpu" {
		if gpu, err := nvml.Open(0); err == nil { // without it the report has no utilization
			w.gpu = gpu
		}
	}
	w.seen.before = e.Stats()
	w.steps = w.seen.before.Steps
	if kept := e.Steps(1); len(kept) > 0 {
		w.last = kept[0].Step
	}
	go w.loop()
	return w
}

// stop ends the watching and returns what was seen.
func (w *watcher) stop() watched {
	close(w.ending)
	<-w.ended
	w.fetch()
	w.seen.after = w.e.Stats()
	w.seen.wall = time.Since(w.start)
	w.seen.cores = (cpuTime() - w.cpu).Seconds() / w.seen.wall.Seconds()
	if w.gpu != nil {
		w.gpu.Close()
	}
	return w.seen
}

func (w *watcher) loop() {
	defer close(w.ended)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		if i%readEvery == 0 {
			w.read()
		}
		select {
		case <-tick.C:
			w.lookAtBlocks()
			if w.e.Stats().Steps-w.steps >= fetchSteps {
				w.fetch()
			}
		case <-w.ending:
			w.read()
			return
		}
	}
}

// lookAtBlocks takes a map of the pool when more of it is in use, or shared, than
// in the last one.
func (w *watcher) lookAtBlocks() {
	if !w.withBlocks {
		return
	}
	s := w.e.Stats()
	if s.BlocksUsed+s.BlocksShared <= w.most {
		return
	}
	var o engine.Observation
	if err := w.e.Observe(context.Background(), &o, w.e.Info().NumBlocks, 0); err == nil { // the engine's end shows elsewhere
		w.most, w.seen.blocks = o.Stats.BlocksUsed+o.Stats.BlocksShared, o.Blocks
	}
}

// fetch notes the steps since the last time.
func (w *watcher) fetch() {
	steps := w.e.Stats().Steps
	records := w.e.Steps(2*int(steps-w.steps) + 64) // some are without work, and some begin meanwhile
	w.steps = steps
	for i := range records {
		r := &records[i]
		if r.Step <= w.last || len(r.Scheduled) == 0 {
			continue
		}
		w.last = r.Step
		m := moment{
			at: r.Start.Sub(w.start), took: r.Host + r.Device, running: r.Running, waiting: r.Waiting,
			used: r.Pool.Used, total: r.Pool.Total(), slots: r.Pool.UsedSlots, saved: r.Pool.Saved, host: r.Pool.HostUsed,
			preempted: r.Preempted(scheduler.BySwap) + r.Preempted(scheduler.ByRecompute), waits: r.Preempted(scheduler.ByWaiting),
			waitReason: r.WaitReason, load: r.Load,
		}
		for j := range r.Decisions {
			if d := &r.Decisions[j]; d.Swap > 0 && d.Blocks > 0 {
				m.swapBlock = d.Swap / time.Duration(2*d.Blocks)
			}
		}
		w.seen.moments = append(w.seen.moments, m)
	}
}

// read notes the card's readings, or the process's memory.
func (w *watcher) read() {
	if w.gpu == nil {
		w.seen.peakMemory = max(w.seen.peakMemory, residentBytes())
		return
	}
	facts := w.gpu.Read()
	w.seen.gpu = append(w.seen.gpu, float64(facts.Utilization)/100)
	w.seen.peakMemory = max(w.seen.peakMemory, facts.MemoryUsed)
}

// metrics adds what was seen to m.
func (s *watched) metrics(m map[string]float64) {
	a, b := &s.after, &s.before
	delta := func(after, before int64) float64 { return float64(after - before) }
	m["num_gpu_blocks"], m["num_cpu_blocks"] = float64(a.BlocksTotal), float64(a.HostBlocksTotal)
	m["preemptions_swap"] = delta(a.PreemptionsSwap, b.PreemptionsSwap)
	m["preemptions_recompute"] = delta(a.PreemptionsRecompute, b.PreemptionsRecompute)
	m["num_preemptions"] = m["preemptions_swap"] + m["preemptions_recompute"]
	m["block_waits"], m["swap_pool_full"] = delta(a.BlockWaits, b.BlockWaits), delta(a.SwapPoolFull, b.SwapPoolFull)
	m["swap_in_bytes"], m["swap_out_bytes"] = delta(a.SwapInBytes, b.SwapInBytes), delta(a.SwapOutBytes, b.SwapOutBytes)
	m["evictions"], m["copied_blocks"] = delta(a.Evictions, b.Evictions), delta(a.CopiedBlocks, b.CopiedBlocks)
	m["num_steps"], m["computed_tokens"] = delta(a.Steps, b.Steps), delta(a.StepTokens, b.StepTokens)
	if queries := delta(a.PrefixQueries, b.PrefixQueries); queries > 0 {
		m["prefix_hit_rate"] = delta(a.PrefixHits, b.PrefixHits) / queries
	}
	s.overTime(m)
	m["peak_memory_bytes"], m["cpu_cores_busy"] = float64(s.peakMemory), s.cores
	if s.onCPU { // there the cores are the device
		m["gpu_utilization"] = min(s.cores/float64(max(s.threads, 1)), 1)
	}
	if len(s.gpu) > 0 {
		sum := 0.0
		for _, u := range s.gpu {
			sum += u
		}
		m["gpu_utilization"] = sum / float64(len(s.gpu))
	}
}

// overTime adds means and peaks over the steps, each of which counts for its time.
func (s *watched) overTime(m map[string]float64) {
	var slots, used, usage, running, took, seqs, blocks float64
	for i := range s.moments {
		t := &s.moments[i]
		for name, v := range map[string]float64{
			"peak_kv_cache_usage": t.usage(), "peak_running": float64(t.running), "peak_waiting": float64(t.waiting),
			"shared_bytes_saved": float64(int64(t.saved) * s.blockBytes), "peak_swap_bytes": float64(int64(t.host) * s.blockBytes),
		} {
			m[name] = max(m[name], v)
		}
		d := t.took.Seconds()
		took += d
		slots, used = slots+d*float64(t.slots), used+d*float64(t.used*s.blockSize)
		usage, running = usage+d*t.usage(), running+d*float64(t.running)
		switch t.waitReason {
		case scheduler.WaitSeqs:
			seqs += d
		case scheduler.WaitBlocks, scheduler.WaitLoan, scheduler.WaitPreempted, scheduler.WaitCopyOut:
			blocks += d
		}
	}
	if took == 0 || used == 0 {
		return
	}
	m["kv_block_utilization"], m["internal_fragmentation"] = slots/used, 1-slots/used
	m["kv_cache_usage"], m["mean_running"], m["mean_step_ms"] = usage/took, running/took, 1000*took/float64(len(s.moments))
	m["waiting_for_seqs"], m["waiting_for_blocks"] = seqs/took, blocks/took
}

// cpuTime is what this process has used of all cores.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// residentBytes is the memory that this process has in use.
func residentBytes() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
