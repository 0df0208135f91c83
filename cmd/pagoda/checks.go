package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/hub"
	"github.com/pagoda-engine/pagoda/internal/nvml"
	"github.com/pagoda-engine/pagoda/model/demo"
)

// Less than this is worth a warning.
const (
	littleMemory = 2 << 30
	littleDisk   = 5 << 30
	fewFiles     = 1024 // a stream holds one, a swap file none
)

// features are those of /proc/cpuinfo that choose a code path, in its spelling.
var features = []string{"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx512_bf16"}

// processor says which code path was chosen, and how many cores and how much
// memory there really are.
func (d *doctor) processor() {
	info, err := engine.Probe("cpu")
	if err != nil {
		d.bad(statusFail, "processor", "give the process more threads or address space", "%v", err)
		return
	}
	have := d.cpuFeatures()
	detail := fmt.Sprintf("%s: code path %s", info.Device, info.Path)
	if len(have) > 0 {
		detail += " (" + strings.Join(have, " ") + ")"
	}
	if info.Path == "scalar" {
		d.bad(statusWarn, "processor", "use a processor with AVX2, or show it to the virtual machine: plain C is ten times slower", "%s", detail)
	} else {
		d.ok("processor", "%s", detail)
	}
	switch usable := runtime.NumCPU(); {
	case info.Threads < usable:
		d.ok("cores", "%d: the control group's quota; affinity would allow %d", info.Threads, usable)
	case info.Threads == 1:
		d.bad(statusWarn, "cores", "give the container two CPUs or more: kernels and server share the one", "1")
	default:
		d.ok("cores", "%d", info.Threads)
	}
	d.memory(info.TotalMemory)
}

// cpuFeatures are those of features that the processor has.
func (d *doctor) cpuFeatures() []string {
	text, err := os.ReadFile(filepath.Join(d.proc, "cpuinfo"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if name, list, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "flags" {
			all := strings.Fields(list)
			return slices.DeleteFunc(slices.Clone(features), func(f string) bool { return !slices.Contains(all, f) })
		}
	}
	return nil
}

func (d *doctor) memory(available int64) {
	if available < littleMemory {
		d.bad(statusWarn, "memory", "end other programs or raise the container's limit; half of it goes to weights and KV blocks (--memory-limit)", "%s available", formatBytes(available))
		return
	}
	d.ok("memory", "%s available; on the CPU half of it is used unless --memory-limit says otherwise", formatBytes(available))
}

// gpu looks for driver, card and management library.
func (d *doctor) gpu() {
	if d.device == "cpu" {
		return
	}
	missing := statusWarn
	if d.device == "cuda" {
		missing = statusFail
	}
	driver, err := os.ReadFile(filepath.Join(d.proc, "driver", "nvidia", "version"))
	if err != nil && missing == statusWarn {
		d.ok("driver", "no NVIDIA driver: the CPU is used")
		return
	}
	if err != nil {
		d.bad(missing, "driver", "install NVIDIA's driver, 580 or newer, or use --device cpu", "no NVIDIA driver in %s", d.proc)
	} else {
		line, _, _ := strings.Cut(string(driver), "\n")
		d.ok("driver", "%s", strings.Join(strings.Fields(strings.TrimPrefix(line, "NVRM version:")), " "))
	}
	info, err := engine.Probe("cuda")
	if err != nil {
		d.bad(missing, "gpu", "build with make BACKEND=cuda; in a container, start it with the GPU (--gpus all)", "%v", err)
		return
	}
	d.ok("gpu", "%s, %s, code path %s", info.Device, formatBytes(info.TotalMemory), info.Path)
	card, err := nvml.Open(0)
	if err != nil {
		d.bad(statusWarn, "nvml", "install libnvidia-ml.so.1, which comes with the driver: without it benches show no power or clocks", "%v", err)
		return
	}
	defer card.Close()
	f := card.Read()
	detail := fmt.Sprintf("%s of %s in use, %d °C, %.0f W, %d MHz", formatBytes(f.MemoryUsed), formatBytes(f.MemoryTotal), f.TemperatureC, f.PowerWatts, f.SMClockMHz)
	switch {
	case len(f.Throttling) > 0:
		d.bad(statusWarn, "nvml", "clocks are held down: see to cooling and power limit", "%s; %s", detail, strings.Join(f.Throttling, ", "))
	case f.MemoryUsed > f.MemoryTotal/10:
		d.bad(statusWarn, "nvml", "end the other programs on the card, or lower --gpu-memory-utilization: it is a share of the whole card", "%s", detail)
	default:
		d.ok("nvml", "%s", detail)
	}
}

// library encodes and decodes with the linked tokenizer.
func (d *doctor) library() {
	const text = "Grüße, 世界!"
	t, err := openTokenizer(demo.Name)
	if err != nil {
		d.bad(statusWarn, "tokenizer library", "build without -tags nodemo to check it here", "no model in this binary to try it with: %v", err)
		return
	}
	defer t.Close()
	ids, err := t.Encode(text)
	if back := t.Decode(ids, true); err != nil || back != text {
		d.bad(statusFail, "tokenizer library", "build again: make clean && make", "%q comes back as %q (%v)", text, back, err)
		return
	}
	d.ok("tokenizer library", "linked, works")
}

// files is the limit of open files: a connection takes one.
func (d *doctor) files() {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return // no limit to speak of
	}
	if limit.Max < fewFiles {
		d.bad(statusWarn, "open files", "raise it: ulimit -n 65536, or LimitNOFILE= in the unit", "%d at most: each open stream takes one", limit.Max)
		return
	}
	d.ok("open files", "%d at most", limit.Max)
}

// directory checks that files can be made in dir, or that it can be made.
func (d *doctor) directory(name, dir, fix string) {
	at := dir
	for {
		info, err := os.Stat(at)
		if err == nil && !info.IsDir() {
			d.bad(statusFail, name, fix, "%s: %s is a file", dir, at)
			return
		}
		if err == nil {
			break
		}
		parent := filepath.Dir(at)
		if parent == at {
			break
		}
		at = parent
	}
	f, err := os.CreateTemp(at, ".pagoda-*")
	if err != nil {
		d.bad(statusFail, name, fix, "%s: %v", dir, err)
		return
	}
	_ = f.Close() // it is empty
	_ = os.Remove(f.Name())
	free, err := hub.FreeBytes(at)
	switch {
	case err == nil && free < littleDisk:
		d.bad(statusWarn, name, "make room: a 7B model takes 15 GB", "%s: writable, %s free", dir, formatBytes(free))
	case err == nil:
		d.ok(name, "%s: writable, %s free", dir, formatBytes(free))
	default:
		d.ok(name, "%s: writable", dir)
	}
}

// modelCache counts the models of the hub that are on disk.
func (d *doctor) modelCache() {
	dir := hubCacheDir(d.lookup)
	models, _ := filepath.Glob(filepath.Join(dir, "models--*", "snapshots", "*", "config.json"))
	partial, _ := filepath.Glob(filepath.Join(dir, "models--*", "blobs", "*.incomplete"))
	if len(partial) > 0 {
		d.bad(statusWarn, "model cache", "start with the model again to go on, or delete the files", "%d models, %d downloads that were cut short, such as %s", len(models), len(partial), partial[0])
		return
	}
	d.ok("model cache", "%d models in %s", len(models), dir)
}

// listen takes the port for a moment.
func (d *doctor) listen(ctx context.Context) {
	address := net.JoinHostPort(d.host, strconv.Itoa(d.port))
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		d.bad(statusFail, "port", "end the program that has it, or choose another with --port", "%v", err)
		return
	}
	_ = l.Close() // nothing was accepted
	d.ok("port", "%s is free", address)
}
