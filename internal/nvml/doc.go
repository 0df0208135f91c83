// Package nvml reads facts of a GPU that the compute driver does not give: how
// busy it is, power, clocks and why they are low, by NVIDIA's management library.
//
// It is for people's eyes: nothing depends on it. Without build tag cuda, or
// without the library, Open fails with a reason; a program warns once and goes on.
package nvml

// Facts are a GPU's readings at one moment.
type Facts struct {
	Name              string
	Driver            string  // its version
	MemoryTotal       int64   // bytes
	MemoryUsed        int64   // bytes, of all processes
	Utilization       int     // percent of the last sample period in which a kernel ran
	MemoryUtilization int     // percent of it in which memory was read or written
	PowerWatts        float64 // drawn now
	TemperatureC      int
	SMClockMHz        int
	MemoryClockMHz    int
	// Throttling says why clocks are lower than they could be, in words; empty
	// when nothing holds them down.
	Throttling []string
}
