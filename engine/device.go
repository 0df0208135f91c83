//go:build !cuda

package engine

import (
	"errors"

	"github.com/pagoda-engine/pagoda/kernels"
	"github.com/pagoda-engine/pagoda/kernels/cpu"
)

// openDevice starts the backend that c.Device names.
func openDevice(c *Config) (kernels.Backend, error) {
	if c.Device == deviceCUDA {
		return nil, errors.New("--device cuda: this binary was built without CUDA; build it with make BACKEND=cuda, or use --device cpu")
	}
	return cpu.New(cpu.Config{Threads: c.Threads, ISA: c.CPUISA, Int8: c.Quantization == quantizationInt8, MemoryLimit: c.MemoryLimit})
}
