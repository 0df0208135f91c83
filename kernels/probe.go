package kernels

// Ceilings are what a device can do at most, as measured just now: the roofline
// that speeds are compared with (Williams et al., "Roofline", CACM 2009).
type Ceilings struct {
	ReadBytesPerSecond float64 // streaming reads of memory that no cache holds
	FLOPsPerSecond     float64 // multiply-adds, two a lane, of the fastest kind: float32 or bf16 dot products
	DataSheet          bool    // they are the manufacturer's, not measured
}

// Prober is a Backend that knows what its device can do: by measuring it, or from
// its data sheet. Nothing may be in flight.
type Prober interface {
	Probe() Ceilings
}
