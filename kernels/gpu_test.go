package kernels

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func card(major, minor, sms, threads, ctas, shared int) *GPU {
	return &GPU{
		Major: major, Minor: minor, SMs: sms, WarpSize: 32, ThreadsPerSM: threads, CTAsPerSM: ctas, RegistersPerSM: 65536, SharedPerSM: shared,
		ThreadsPerCTA: 1024, RegistersPerCTA: 65536, SharedPerCTA: shared - 1024, ReservedShared: 1024,
	}
}

// TestResidentCTAs compares with what cuda_occupancy.h of CUDA 13.0 computes.
func TestResidentCTAs(t *testing.T) {
	for _, c := range []struct {
		name string
		gpu  *GPU
		want [10]int
	}{
		{"A100", card(8, 0, 108, 2048, 32, 167936), [10]int{8, 1, 2, 0, 2, 24, 1, 0, 32, 3}},
		{"RTX4090", card(8, 9, 128, 1536, 24, 102400), [10]int{6, 1, 1, 0, 2, 24, 1, 0, 24, 2}},
		{"H100", card(9, 0, 132, 2048, 32, 233472), [10]int{8, 1, 3, 1, 2, 24, 1, 0, 32, 4}},
	} {
		for i, k := range [10][3]int{ // threads, registers, shared memory
			{256, 32, 0}, {1024, 64, 1024}, {128, 168, 65536}, {384, 168, 200000}, {128, 255, 0}, {33, 40, 100}, {512, 128, 16384}, {1024, 65, 0}, {64, 20, 3000}, {96, 33, 49152},
		} {
			require.Equal(t, c.want[i], c.gpu.ResidentCTAs(k[0], k[1], k[2]), "%s %v", c.name, k)
		}
	}
	require.Zero(t, card(9, 0, 132, 2048, 32, 233472).ResidentCTAs(1025, 32, 0))
	require.Zero(t, (&GPU{}).ResidentCTAs(128, 32, 0))
}

// TestOccupancy: a grid that does not fill the card occupies less than would fit.
func TestOccupancy(t *testing.T) {
	h100 := card(9, 0, 132, 2048, 32, 233472)
	a := &Activity{Grid: [3]int32{132 * 8, 1, 1}, CTA: [3]int32{256, 1, 1}, Registers: 32}
	require.InDelta(t, 1, h100.Occupancy(a), 1e-12)
	a.Grid = [3]int32{66, 2, 1}
	require.InDelta(t, 8.0/64, h100.Occupancy(a), 1e-12, "one CTA of eight warps on each multiprocessor")
	require.InDelta(t, 1, h100.CTAsPerMultiprocessor(a), 1e-12)
	a.Grid, a.DynamicShared = [3]int32{1000, 10, 1}, 100<<10
	require.InDelta(t, 16.0/64, h100.Occupancy(a), 1e-12, "shared memory for two")
	require.Zero(t, (&GPU{}).Occupancy(a))
}

// TestPeaks compares with data sheets.
func TestPeaks(t *testing.T) {
	for _, c := range []struct {
		name              string
		gpu               GPU
		terabytes, teraOp float64
	}{
		{"NVIDIA A100-SXM4-40GB", GPU{Major: 8, SMs: 108, ClockHz: 1.41e9, MemoryClockHz: 1.215e9, BusBits: 5120}, 1.555, 312},
		{"NVIDIA H100 80GB HBM3", GPU{Major: 9, SMs: 132, ClockHz: 1.83e9, MemoryClockHz: 2.619e9, BusBits: 5120}, 3.35, 989},
		{"NVIDIA GeForce RTX 4090", GPU{Major: 8, Minor: 9, SMs: 128, ClockHz: 2.52e9, MemoryClockHz: 10.501e9, BusBits: 384}, 1.008, 165},
		{"NVIDIA L40S", GPU{Major: 8, Minor: 9, SMs: 142, ClockHz: 2.52e9, MemoryClockHz: 9.001e9, BusBits: 384}, 0.864, 362},
		{"NVIDIA B200", GPU{Major: 10, SMs: 148, ClockHz: 1.85e9, MemoryClockHz: 3.996e9, BusBits: 8192}, 8, 2250},
	} {
		p := c.gpu.Peaks(c.name)
		require.InEpsilon(t, c.terabytes, p.ReadBytesPerSecond/1e12, 0.03, c.name)
		require.InEpsilon(t, c.teraOp, p.FLOPsPerSecond/1e12, 0.03, c.name)
		require.True(t, p.DataSheet)
	}
}
