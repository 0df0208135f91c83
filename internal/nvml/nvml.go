//go:build cuda

package nvml

import (
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/pagoda-engine/pagoda/internal/cuda"
)

// GPU is a card whose readings can be taken, from any goroutine.
type GPU struct {
	device nvml.Device
	name   string
	driver string
}

// Open loads the library and finds the GPU of that number of CUDA's.
func Open(index int) (*GPU, error) {
	if r := nvml.Init(); r != nvml.SUCCESS {
		return nil, fmt.Errorf("nvml: loading the management library: %s", text(r))
	}
	device, r := find(index)
	if r != nvml.SUCCESS {
		_ = nvml.Shutdown() // the first failure says more
		return nil, fmt.Errorf("nvml: GPU %d: %s", index, text(r))
	}
	name, _ := device.GetName()
	driver, _ := nvml.SystemGetDriverVersion()
	return &GPU{device: device, name: name, driver: driver}, nil
}

// find goes by the place on the bus, and by the library's own number where CUDA does not know.
func find(index int) (nvml.Device, nvml.Return) {
	if bus, err := cuda.BusID(index); err == nil {
		return nvml.DeviceGetHandleByPciBusId(bus)
	}
	return nvml.DeviceGetHandleByIndex(index)
}

// text says what a failure is; the library's own words need the library.
func text(r nvml.Return) string {
	if r == nvml.ERROR_LIBRARY_NOT_FOUND {
		return "libnvidia-ml.so.1 is not there"
	}
	return nvml.ErrorString(r)
}

// Read takes the readings; what the card does not offer stays zero.
func (g *GPU) Read() Facts {
	f := Facts{Name: g.name, Driver: g.driver}
	if m, r := g.device.GetMemoryInfo(); r == nvml.SUCCESS {
		f.MemoryTotal, f.MemoryUsed = int64(m.Total), int64(m.Used)
	}
	if u, r := g.device.GetUtilizationRates(); r == nvml.SUCCESS {
		f.Utilization, f.MemoryUtilization = int(u.Gpu), int(u.Memory)
	}
	if mw, r := g.device.GetPowerUsage(); r == nvml.SUCCESS {
		f.PowerWatts = float64(mw) / 1000
	}
	if c, r := g.device.GetTemperature(nvml.TEMPERATURE_GPU); r == nvml.SUCCESS {
		f.TemperatureC = int(c)
	}
	if mhz, r := g.device.GetClockInfo(nvml.CLOCK_SM); r == nvml.SUCCESS {
		f.SMClockMHz = int(mhz)
	}
	if mhz, r := g.device.GetClockInfo(nvml.CLOCK_MEM); r == nvml.SUCCESS {
		f.MemoryClockMHz = int(mhz)
	}
	if reasons, r := g.device.GetCurrentClocksEventReasons(); r == nvml.SUCCESS {
		f.Throttling = throttling(reasons)
	}
	return f
}

// The bits of nvmlClocksEventReasons that hold clocks down; idleness and settings
// of a person are not among them.
var reasons = []struct {
	bit  uint64
	text string
}{
	{0x04, "software power cap"},
	{0x08, "hardware slowdown"},
	{0x20, "software thermal slowdown"},
	{0x40, "hardware thermal slowdown"},
	{0x80, "power brake"},
}

// throttling is the words of the bits.
func throttling(bits uint64) []string {
	var out []string
	for _, r := range reasons {
		if bits&r.bit != 0 {
			out = append(out, r.text)
		}
	}
	return out
}

// Close gives the library back.
func (*GPU) Close() { _ = nvml.Shutdown() } // nothing follows that could fail
