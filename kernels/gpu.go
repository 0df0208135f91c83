package kernels

import "strings"

// GPU describes a graphics card, for occupancy, peaks and traces.
type GPU struct {
	Ordinal      int
	Major, Minor int // compute capability
	SMs          int
	WarpSize     int
	// What a multiprocessor holds at most, registers as 32-bit words.
	ThreadsPerSM, CTAsPerSM, RegistersPerSM, SharedPerSM int
	// What a CTA can have at most, and the shared memory that it costs besides its
	// own.
	ThreadsPerCTA, RegistersPerCTA, SharedPerCTA, ReservedShared int

	ClockHz, MemoryClockHz float64 // greatest
	BusBits                int     // width of the memory's bus
}

// Units in which a multiprocessor gives out registers (a warp) and shared memory
// (a CTA), from compute capability 8.0 on, and the partitions of its registers.
const (
	registerUnit = 256
	sharedUnit   = 128
	partitions   = 4
)

// ResidentCTAs is the most CTAs of a kernel that fit a multiprocessor together,
// limited by threads, CTAs, registers and shared memory (NVIDIA, CUDA C++ Best
// Practices Guide, "Occupancy").
func (g *GPU) ResidentCTAs(threads, registers, shared int) int {
	if threads < 1 || threads > g.ThreadsPerCTA || g.WarpSize < 1 {
		return 0
	}
	warps := (threads + g.WarpSize - 1) / g.WarpSize
	most := min(g.CTAsPerSM, g.ThreadsPerSM/g.WarpSize/warps)
	if registers > 0 {
		perWarp := roundUp(registers*g.WarpSize, registerUnit)
		if perWarp*roundUp(warps, partitions) > g.RegistersPerCTA {
			return 0
		}
		most = min(most, g.RegistersPerSM/partitions/perWarp*partitions/warps)
	}
	if s := roundUp(shared+g.ReservedShared, sharedUnit); s > 0 {
		most = min(most, g.SharedPerSM/s)
	}
	return most
}

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }

// CTAsPerMultiprocessor is a kernel's CTAs ÷ the card's multiprocessors.
func (g *GPU) CTAsPerMultiprocessor(a *Activity) float64 {
	return float64(a.CTAs()) / float64(max(g.SMs, 1))
}

// Occupancy is the share, 0–1, of the warps that a multiprocessor can hold that
// the kernel had there on average: as many as fit, or fewer for want of CTAs.
func (g *GPU) Occupancy(a *Activity) float64 {
	if g.WarpSize < 1 || g.ThreadsPerSM < g.WarpSize {
		return 0
	}
	warps := float64((a.Threads() + g.WarpSize - 1) / g.WarpSize)
	resident := float64(g.ResidentCTAs(a.Threads(), a.Registers, a.StaticShared+a.DynamicShared))
	return min(resident, g.CTAsPerMultiprocessor(a)) * warps / float64(g.ThreadsPerSM/g.WarpSize)
}

// Peaks are the card's theoretical ceilings, as its data sheet has them: memory
// clock × bus width at two transfers a clock, and dense bfloat16 with float32
// accumulation on the tensor cores at the greatest clock.
func (g *GPU) Peaks(name string) Ceilings {
	return Ceilings{
		ReadBytesPerSecond: 2 * g.MemoryClockHz * float64(g.BusBits) / 8,
		FLOPsPerSecond:     float64(g.SMs) * g.ClockHz * g.tensorFLOPs(name),
		DataSheet:          true,
	}
}

// tensorFLOPs is a multiprocessor's dense bfloat16 FLOPs a clock. GeForce cards
// accumulate in float32 at half the rate.
func (g *GPU) tensorFLOPs(name string) float64 {
	rate := 1024.0 // 8.6, 8.7, 8.9, 12.x
	switch {
	case g.Major == 8 && g.Minor == 0:
		rate = 2048
	case g.Major == 9:
		rate = 4096
	case g.Major == 10 || g.Major == 11:
		rate = 8192
	}
	if strings.Contains(name, "GeForce") {
		rate /= 2
	}
	return rate
}
