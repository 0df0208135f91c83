//go:build !cuda

package nvml

import "errors"

// GPU is a card. Without build tag cuda there is none.
type GPU struct{}

// Open fails: the program was built without CUDA.
func Open(int) (*GPU, error) {
	return nil, errors.New("nvml: this binary was built without CUDA")
}

// Read has nothing to read.
func (*GPU) Read() Facts { return Facts{} }

// Close does nothing.
func (*GPU) Close() {}
