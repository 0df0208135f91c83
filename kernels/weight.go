package kernels

import (
	"fmt"
	"os"
)

// UnreadableError says that the File of a HostTensor cannot be read.
type UnreadableError struct{ Tensor HostTensor }

// Reason is the error without the tensor's name.
func (e *UnreadableError) Reason() string {
	return "the file cannot be read: it was truncated while in use, or its disk fails"
}

// Error implements error.
func (e *UnreadableError) Error() string { return e.Tensor.Name + ": " + e.Reason() }

// UnfitError says that a Backend's number format does not hold weights that it was given, and
// what to do.
type UnfitError struct{ Reason string }

// Error implements error.
func (e *UnfitError) Error() string { return e.Reason }

// Weight is a tensor on the device, packed as its Backend likes.
type Weight interface {
	// Bytes is the device memory it takes. A Completer may find out while it completes the load
	// that it is a little more.
	Bytes() int64
}

// HostTensor is a row-major tensor, little-endian, in host memory or, for a Backend
// whose Info.ReadsFiles says that it takes them, in a file. With neither it stands for
// random values: element i is Dummy(Seed, i)·Scale + Offset, rounded to bfloat16, so
// that every Backend makes the same ones, where its data would be.
type HostTensor struct {
	Name   string // as in the checkpoint, for errors
	DType  DType
	Shape  []int
	Data   []byte
	File   *os.File // of a matrix with nil Data; its bytes begin at FileAt
	FileAt int64
	Seed   uint64
	Scale  float32
	Offset float32
}

// NumElems is the product of the shape.
func (t HostTensor) NumElems() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Check compares the tensor with the shape it must have, −1 = any, and its data with
// its shape.
func (t HostTensor) Check(shape ...int) error {
	ok := len(t.Shape) == len(shape)
	for i := range shape {
		ok = ok && t.Shape[i] > 0 && (shape[i] < 0 || t.Shape[i] == shape[i])
	}
	if !ok {
		return fmt.Errorf("%s: shape %v, want %v (−1 = any)", t.Name, t.Shape, shape)
	}
	if t.Data != nil && len(t.Data) != t.NumElems()*t.DType.Size() {
		return fmt.Errorf("%s: %d bytes of data, want %d for %s %v", t.Name, len(t.Data), t.NumElems()*t.DType.Size(), t.DType, t.Shape)
	}
	return nil
}

// Dummy is a cheap deterministic value in [−1, 1): the high 24 bits of a
// splitmix64 hash of seed and i (Steele et al., OOPSLA 2014).
func Dummy(seed, i uint64) float32 {
	z := seed + (i+1)*0x9E3779B97F4A7C15
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
	z = (z ^ (z >> 27)) * 0x94D049BB133111EB
	z ^= z >> 31
	return float32(int64(z>>40)-1<<23) / (1 << 23)
}

// LinearKind says what a linear weight is for, which may decide its packing.
type LinearKind int

// The kinds of linear weights.
const (
	LinearPlain  LinearKind = iota // attention output: [hidden, width]
	LinearDown                     // MLP down: [hidden, intermediate]
	LinearQKV                      // parts q, k, v; bias parts likewise or none
	LinearGateUp                   // parts gate, up of equal shape
	LinearHead                     // [vocab, hidden]
)

// LinearSpec is one fused projection: the rows of Parts one below the other,
// each [out, in] as in the checkpoint.
type LinearSpec struct {
	Kind  LinearKind
	Parts []HostTensor
	Bias  []HostTensor // one a part, [out]; nil = none
	// QKNorm are the weights of an RMSNorm, with Shape.RMSEps, that each query head
	// and each key head passes before RoPE (Henry et al., 2020; Qwen3), two vectors
	// of [headDim] that are kept in float32; nil = none. Kind LinearQKV alone.
	QKNorm []HostTensor
}

// Check compares the parts with the model's shape, and returns the columns that they
// share. A spec without parts is a bug.
func (s *LinearSpec) Check(shape *Shape) (cols int, err error) {
	if len(s.Parts) == 0 {
		panic("kernels: a linear weight without parts")
	}
	var rows []int // of each part; nil = any
	names := ""
	cols = shape.Hidden
	switch s.Kind {
	case LinearQKV:
		kv := shape.KVHeads * shape.HeadDim
		rows, names = []int{shape.Heads * shape.HeadDim, kv, kv}, "query, key and value"
	case LinearGateUp:
		rows, names = []int{shape.Intermediate, shape.Intermediate}, "gate and up"
	case LinearPlain, LinearDown:
		if first := s.Parts[0].Shape; len(first) == 2 {
			cols = first[1]
		}
	}
	first := s.Parts[0].Name
	switch {
	case rows != nil && len(s.Parts) != len(rows):
		return 0, fmt.Errorf("%s: %d parts, want %s", first, len(s.Parts), names)
	case len(s.Bias) > 0 && (s.Kind != LinearQKV || len(s.Bias) != len(s.Parts)):
		return 0, fmt.Errorf("%s: %d biases: only QKV takes them, one a part", s.Bias[0].Name, len(s.Bias))
	case len(s.QKNorm) > 0 && (s.Kind != LinearQKV || len(s.QKNorm) != 2):
		return 0, fmt.Errorf("%s: %d norms: only QKV takes them, of queries and keys", s.QKNorm[0].Name, len(s.QKNorm))
	}
	for i, part := range s.Parts {
		want := -1
		if rows != nil {
			want = rows[i]
		}
		if err := part.Check(want, cols); err != nil {
			return 0, err
		}
		if len(s.Bias) > 0 {
			if err := s.Bias[i].Check(part.Shape[0]); err != nil {
				return 0, err
			}
		}
	}
	for _, norm := range s.QKNorm {
		if err := norm.Check(shape.HeadDim); err != nil {
			return 0, err
		}
	}
	return cols, nil
}
