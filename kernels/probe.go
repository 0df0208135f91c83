package kernels

// Ceilings are what a device can do at most, as measured just now: the roofline
// that speeds are compared with (Williams et al., "Roofline", CACM 2009).
type Ceilings struct {
	ReadBytesPerSecond float64 // streaming reads of memory that no cache holds
	FLOPsPerSecond     float64 // multiply-adds, two a lane, of the fastest kind: float32 or bf16 dot products
}

// Prober is a Backend that can measure its device. Nothing may be in flight.
type Prober interface {
	Probe() Ceilings
}
