//go:build cuda

package cuda

import (
	"embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/pagoda-engine/pagoda/internal/cuda"
	"github.com/pagoda-engine/pagoda/kernels"
)

// images are the compiled kernels: make BACKEND=cuda writes them.
//
//go:embed cubin/*.fatbin
var images embed.FS

// Config configures a Backend.
type Config struct {
	// Device is the number of the GPU.
	Device int
	// Path forces the kernels: "sm_90a" (Hopper's instructions), "generic", or
	// "plain" (the simple kernels that the others are checked against); "" is the
	// fastest that the GPU has.
	Path string
	// MemoryLimit is what Info.TotalMemory reports at most, in bytes; 0 = all of
	// the card.
	MemoryLimit int64
	// Eager turns CUDA graphs off.
	Eager bool
	// GraphSizes are the batch sizes that decode steps are captured for,
	// ascending; nil = 1, 2, 4, then multiples of 8 to 256, of 32 to 512 and of 64
	// to MaxSeqs. A step takes the next larger one.
	GraphSizes []int

	// lazy loads images when a kernel of theirs is first run: for tests, which
	// make many Backends.
	lazy bool
	// apart issues a single token's layers operation by operation: for tests.
	apart bool
	// unfolded gives norms between products kernels of their own: for tests.
	unfolded bool
	// splitters is how many multiprocessors share the parts of rows that are drawn from, 0 = all: for tests.
	splitters int
}

// The code paths.
const (
	pathHopper  = "sm_90a"
	pathGeneric = "generic"
	pathPlain   = "plain"
)

// Backend implements kernels.Backend.
type Backend struct {
	cfg    Config
	info   kernels.Info
	device *cuda.Device
	arch   arch
	shape  kernels.Shape
	limits kernels.Limits // of Setup
	now    kernels.Limits // in force
	kv     kernels.PagedKV

	compute, swap cuda.Stream
	swapAfter     cuda.Event // orders swaps behind the compute stream
	kernels       map[string]*cuda.Kernel
	modules       map[string]cuda.Module
	written       int // rows of activations that the last step wrote, at most foldedTokens

	place  *cuda.Range // of the workspace; nil before Setup
	ws     workspace
	acts   [kernels.Logits + 1]activation
	pool   pool
	loader loader

	products map[gemmShape]productPlan // planned so far
	panels   map[panelMap]tensorMap    // made so far
	identity []int32                   // 0, 1, 2, …: query starts of decodes

	tableLen []int32 // by row: entries in use
	updates  updates
	pinned   []unsafe.Pointer // to free

	steps  [stepRing]step
	last   *cuda.Event // where the step that was issued last ends; nil before the first
	issued kernels.Ticket
	open   *step // launched and not sampled
	run    runState
	layers layersRun
	graphs graphs
	err    error // the first failure

	idle     func() // called while Wait waits
	tap      func(kernels.Op, int, kernels.Activation, []float32)
	omit     string // an operation that is not launched: what it costs beside the others, for benchmarks
	profiler profiler
	ranges   *cuda.Ranges // for a tool that is attached
}

var (
	_ kernels.Backend      = (*Backend)(nil)
	_ kernels.Prober       = (*Backend)(nil)
	_ kernels.ProfileNoter = (*Backend)(nil)
	_ kernels.Idler        = (*Backend)(nil)
)

// choosePath resolves Config.Path for a GPU of the compute capability.
func choosePath(path string, major, minor int) (string, error) {
	if major < 8 {
		return "", fmt.Errorf("compute capability %d.%d: want 8.0 or newer", major, minor)
	}
	hopper := major == 9 && minor == 0
	switch path {
	case "":
		if hopper {
			return pathHopper, nil
		}
		return pathGeneric, nil
	case pathGeneric, pathPlain:
		return path, nil
	case pathHopper:
		if hopper {
			return path, nil
		}
		return "", fmt.Errorf("code path %q: the GPU has compute capability %d.%d", path, major, minor)
	}
	return "", fmt.Errorf("unknown code path %q, want %q, %q, %q or empty", path, pathHopper, pathGeneric, pathPlain)
}

// Available is nil when there is a GPU, else says why there is none.
func Available() error {
	if cuda.Devices() > 0 {
		return nil
	}
	if s := cuda.Status(); s != "" {
		return errors.New(s)
	}
	return errors.New("the NVIDIA driver finds no GPU")
}

// New opens the GPU. All calls must come from one goroutine that is locked to
// its OS thread.
func New(cfg Config) (*Backend, error) {
	device, err := cuda.Open(cfg.Device)
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	b := &Backend{cfg: cfg, device: device, kernels: map[string]*cuda.Kernel{}, modules: map[string]cuda.Module{}}
	if err := b.init(); err != nil {
		_ = b.Close() // the first error says more
		return nil, memory(fmt.Errorf("cuda: %s: %w", device.Name, err))
	}
	return b, nil
}

func (b *Backend) init() error {
	path, err := choosePath(b.cfg.Path, b.device.Major, b.device.Minor)
	if err != nil {
		return err
	}
	memory := b.device.TotalMemory
	if b.cfg.MemoryLimit > 0 {
		memory = min(memory, b.cfg.MemoryLimit)
	}
	b.info = kernels.Info{Backend: "cuda", Device: b.device.Name, Path: path, TotalMemory: memory, Overlap: true}
	b.arch = arch{sms: b.device.SMs, shared: b.device.SharedBytes, hopper: path == pathHopper, memory: 2000 * float64(b.device.MemoryClockKHz) * float64(b.device.BusBits) / 8, clock: 1000 * float64(b.device.ClockKHz)}
	if b.compute, err = cuda.NewStream(); err != nil {
		return err
	}
	if b.swap, err = cuda.NewStream(); err != nil {
		return err
	}
	if b.swapAfter, err = cuda.NewEvent(); err != nil {
		return err
	}
	b.info.GPU = describe(b.device, b.cfg.Device)
	b.ranges = cuda.OpenRanges()
	return b.loadModules()
}

// describe gives the GPU's facts in the contract's form.
func describe(d *cuda.Device, ordinal int) *kernels.GPU {
	return &kernels.GPU{
		Ordinal: ordinal, Major: d.Major, Minor: d.Minor, SMs: d.SMs, WarpSize: d.WarpSize,
		ThreadsPerSM: d.ThreadsPerSM, CTAsPerSM: d.CTAsPerSM, RegistersPerSM: d.RegistersPerSM, SharedPerSM: d.SharedPerSM,
		ThreadsPerCTA: d.ThreadsPerCTA, RegistersPerCTA: d.RegistersPerCTA, SharedPerCTA: d.SharedBytes, ReservedShared: d.ReservedShared,
		ClockHz: 1000 * float64(d.ClockKHz), MemoryClockHz: 1000 * float64(d.MemoryClockKHz), BusBits: d.BusBits,
	}
}

// Probe implements kernels.Prober by the card's data sheet.
func (b *Backend) Probe() kernels.Ceilings { return b.info.GPU.Peaks(b.info.Device) }

// loadModules loads every image; its kernels are found when they are first run.
func (b *Backend) loadModules() error {
	files, err := images.ReadDir("cubin")
	if err != nil || b.cfg.lazy {
		return err
	}
	for _, f := range files {
		if err := b.loadModule(strings.TrimSuffix(f.Name(), ".fatbin")); err != nil {
			return err
		}
	}
	return nil
}

func (b *Backend) loadModule(name string) error {
	image, err := images.ReadFile("cubin/" + name + ".fatbin")
	if err != nil {
		return err
	}
	m, err := cuda.LoadModule(string(image))
	if err != nil {
		return fmt.Errorf("loading the kernels of %s: %w", name, err)
	}
	b.modules[name] = m
	return nil
}

// kernel finds a kernel of an image.
func (b *Backend) kernel(image, name string) (k *cuda.Kernel, err error) {
	if k = b.kernels[name]; k != nil {
		return k, nil
	}
	module, ok := b.modules[image]
	if !ok {
		if err := b.loadModule(image); err != nil {
			return nil, err
		}
		module = b.modules[image]
	}
	if k, err = module.Kernel(name); err == nil {
		b.kernels[name] = k
	}
	return k, err
}

// Info implements kernels.Backend.
func (b *Backend) Info() kernels.Info { return b.info }

// WorkspaceBytes implements kernels.Backend.
func (b *Backend) WorkspaceBytes(shape kernels.Shape, limits kernels.Limits) int64 {
	return WorkspaceBytes(shape, limits, b.arch.sms)
}

// checkShape returns what the kernels cannot do.
func checkShape(s kernels.Shape, l kernels.Limits) error {
	switch {
	case s.HeadDim < 16 || s.HeadDim%16 != 0 || s.HeadDim > maxHeadDim || s.KVHeads < 1 || s.Heads < 1 || s.Heads%s.KVHeads != 0:
		return fmt.Errorf("cuda: %d heads of %d over %d KV heads: the head size must be a multiple of 16 up to %d and the KV heads must divide the heads", s.Heads, s.HeadDim, s.KVHeads, maxHeadDim)
	case len(s.InvFreq) != s.HeadDim/2:
		return fmt.Errorf("cuda: %d RoPE frequencies, want %d", len(s.InvFreq), s.HeadDim/2)
	case s.SampleVocab > s.Vocab:
		return fmt.Errorf("cuda: SampleVocab %d exceeds Vocab %d", s.SampleVocab, s.Vocab)
	case s.Vocab > maxSplits*splitIDs:
		return fmt.Errorf("cuda: a vocabulary of %d: the sampler takes up to %d", s.Vocab, maxSplits*splitIDs)
	case l.MaxBatchedTokens < 1 || l.MaxSeqs < 1 || l.MaxModelLen < 1 || l.MaxLogitRows < l.MaxSeqs:
		return fmt.Errorf("cuda: limits %+v: want positive ones and MaxLogitRows of at least MaxSeqs", l)
	}
	return nil
}

// Setup implements kernels.Backend.
func (b *Backend) Setup(shape kernels.Shape, maxima, limits kernels.Limits) error {
	if b.place != nil {
		panic("cuda: Setup called twice")
	}
	if err := checkShape(shape, maxima); err != nil {
		return err
	}
	if shape.SampleVocab == 0 {
		shape.SampleVocab = shape.Vocab
	}
	b.shape, b.limits, b.kv = shape, maxima, kernels.NewPagedKV(shape, maxima.BlockSize)
	var err error
	if b.place, err = b.device.NewRange(b.WorkspaceBytes(shape, maxima), cuda.PatchBytes); err != nil {
		return memory(fmt.Errorf("cuda: reserving addresses for the workspace: %w", err))
	}
	b.ws = layoutWorkspace(shape, maxima, b.arch.sms, b.place.Base)
	b.updates = newUpdates(maxima)
	if err := b.SetLimits(limits); err != nil {
		return err
	}
	b.tableLen, b.identity, b.products = make([]int32, maxima.MaxSeqs), make([]int32, maxima.MaxSeqs+1), map[gemmShape]productPlan{}
	b.panels = map[panelMap]tensorMap{}
	b.layers.plan, b.layers.params, _ = planLayers(shape, b.arch)
	for i := range b.identity {
		b.identity[i] = int32(i)
	}
	for _, init := range []func() error{b.initPool, b.initSteps, b.initRope} {
		if err := init(); err != nil {
			return memory(fmt.Errorf("cuda: %w", err))
		}
	}
	return nil
}

// initRope makes the table of cosines and sines.
func (b *Backend) initRope() error {
	half := b.shape.HeadDim / 2
	if err := b.compute.ToDevice(b.ws.invFreq, unsafe.Pointer(&b.shape.InvFreq[0]), 4*half); err != nil {
		return err
	}
	p := ropeTableParams{invFreq: b.ws.invFreq, table: b.ws.rope, positions: int32(b.limits.MaxModelLen), half: int32(half), scale: b.shape.RopeScale}
	b.launch("setup", planRopeTable(b.limits.MaxModelLen, half), unsafe.Pointer(&p))
	if err := b.compute.Sync(); err != nil {
		return err
	}
	return b.err
}

// hostAlloc is pinned memory that Close frees.
func hostAlloc[T any](b *Backend, n int) ([]T, error) {
	var zero T
	p, err := cuda.HostAlloc(int64(n) * int64(unsafe.Sizeof(zero)))
	if err != nil {
		return nil, fmt.Errorf("%d bytes of pinned memory: %w", n*int(unsafe.Sizeof(zero)), err)
	}
	b.pinned = append(b.pinned, p)
	return unsafe.Slice((*T)(p), n), nil
}

// Sync implements kernels.Backend.
func (b *Backend) Sync() error {
	b.drain()
	return b.err
}

// drain waits for everything that was issued.
func (b *Backend) drain() {
	b.drainSteps()
	b.fail("sync", b.swap.Sync())
}

// drainSteps waits for all but swaps.
func (b *Backend) drainSteps() {
	b.flush()
	b.fail("sync", b.compute.Sync())
}

var errClosed = errors.New("cuda: the backend is closed")

// Close implements kernels.Backend. It waits for what was issued.
func (b *Backend) Close() error {
	if b.device == nil {
		return errClosed
	}
	b.drain()
	b.ranges.Close()
	failed := b.err
	var errs []error
	errs = append(errs, b.graphs.destroy(), b.loader.free(), b.pool.free(), b.profiler.destroy())
	for i := range b.steps {
		errs = append(errs, b.steps[i].destroy())
	}
	for _, p := range slices.Concat(b.pinned) {
		errs = append(errs, cuda.HostFree(p))
	}
	if b.place != nil {
		errs = append(errs, b.place.Free())
	}
	for _, m := range b.modules {
		errs = append(errs, m.Unload())
	}
	errs = append(errs, b.swapAfter.Destroy(), b.compute.Destroy(), b.swap.Destroy(), b.device.Close())
	*b = Backend{info: b.info, err: errClosed}
	if failed != nil { // after a fault every call fails likewise
		return nil
	}
	return errors.Join(errs...)
}
