//go:build cuda

package engine

import (
	"fmt"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kernels/cpu"
	"github.com/pagoda-engine/pagoda/kernels/cuda"
)

// openDevice starts the backend that c.Device names; auto is the GPU if there is
// one and it can do what c asks for.
func openDevice(c *Config) (kernels.Backend, error) {
	missing := cuda.Available()
	switch {
	case c.Device == deviceCUDA && missing != nil:
		return nil, fmt.Errorf("--device cuda: %w; use --device cpu", missing)
	case c.Device != deviceCPU && missing == nil && c.Quantization != quantizationInt8:
		return cuda.New(cuda.Config{Eager: c.EnforceEager, GraphSizes: c.CUDAGraphSizes})
	}
	return cpu.New(cpu.Config{Threads: c.Threads, ISA: c.CPUISA, Int8: c.Quantization == quantizationInt8, MemoryLimit: c.MemoryLimit})
}
