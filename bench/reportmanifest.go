package bench

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/pagoda-engine/pagoda/engine"
	"github.com/pagoda-engine/pagoda/internal/nvml"
)

// Described is an engine that says what it is.
type Described interface {
	Info() engine.Info
	Settings() []engine.Setting
}

// NewManifest describes a measurement: the program's version, the words of its
// command line, and the engine that was measured or nil for another's.
func NewManifest(commit string, command []string, e Described) Manifest {
	m := Manifest{
		Commit: commit, Date: time.Now().UTC().Format(time.RFC3339),
		Command: CommandLine(command), EffectiveFlags: map[string]any{},
	}
	var device string
	if e != nil {
		info := e.Info().Device
		device = info.Device + ", " + info.Path
		if info.Threads > 0 {
			device += fmt.Sprintf(", %d threads", info.Threads)
		}
		if info.Backend == "cuda" {
			device += ", " + gpuFacts()
		}
		for _, s := range e.Settings() {
			m.EffectiveFlags[strings.ReplaceAll(s.Name, "-", "_")] = typed(s.Value)
		}
	}
	m.Machine = machine(device)
	return m
}

// typed gives a setting its JSON type.
func typed(value string) any {
	if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		return n
	}
	if f, err := strconv.ParseFloat(value, 64); err == nil && finite(f) {
		return f
	}
	if b, err := strconv.ParseBool(value); err == nil {
		return b
	}
	return value
}

// gpuFacts are the card's memory, clocks and whatever holds them down.
func gpuFacts() string {
	gpu, err := nvml.Open(0)
	if err != nil {
		return "clocks unknown: " + err.Error()
	}
	defer gpu.Close()
	f := gpu.Read()
	text := fmt.Sprintf("driver %s, %s, SM %d MHz, memory %d MHz", f.Driver, formatBinary(float64(f.MemoryTotal)), f.SMClockMHz, f.MemoryClockMHz)
	if len(f.Throttling) > 0 {
		text += ", held down by " + strings.Join(f.Throttling, " and ")
	}
	return text
}

// machine names the device, or the processor where there is none, with cores,
// clock and memory.
func machine(device string) string {
	cpu := procValue("/proc/cpuinfo", "model name")
	parts := []string{device}
	if device == "" || cpu != "" && !strings.HasPrefix(device, cpu) {
		parts = append(parts, cpu)
	}
	parts = append(parts, fmt.Sprintf("%d cores", runtime.NumCPU()))
	if mhz, err := strconv.ParseFloat(procValue("/proc/cpuinfo", "cpu MHz"), 64); err == nil {
		parts = append(parts, fmt.Sprintf("%.1f GHz", mhz/1000))
	}
	if kib, err := strconv.ParseFloat(strings.TrimSuffix(procValue("/proc/meminfo", "MemTotal"), " kB"), 64); err == nil {
		parts = append(parts, formatBinary(kib*1024)+" of memory")
	}
	parts = append(parts, runtime.GOOS+"/"+runtime.GOARCH)
	kept := parts[:0]
	for _, part := range parts {
		if part != "" {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, ", ")
}

// procValue finds the first line "key : value" of a file; "" without one.
func procValue(path, key string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		if name, value, ok := strings.Cut(scan.Text(), ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// CommandLine writes the words of a command so that a shell reads them back. The program is named as
// it is called, without its folder.
func CommandLine(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		if i == 0 {
			word = word[strings.LastIndexByte(word, '/')+1:]
		}
		if word == "" || strings.ContainsAny(word, " \t\n'\"\\$`&|;<>()*?[]{}~#!") {
			word = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		quoted[i] = word
	}
	return strings.Join(quoted, " ")
}
