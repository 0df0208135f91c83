package kernels

import "os"

// UnreadableError says that the File of a HostTensor cannot be read.
type UnreadableError struct{ Tensor HostTensor }

// Reason is the error without the tensor's name.
func (e *UnreadableError) Reason() string {
	return "the file cannot be read: it was truncated while in use, or its disk fails"
}

// Error implements error.
func (e *UnreadableError) Error() string { return e.Tensor.Name + ": " + e.Reason() }

// Weight is a tensor on the device, packed as its Backend likes.
type Weight interface {
	// Bytes is the device memory it takes.
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
	LinearPlain  LinearKind = iota // attention output, MLP down: [hidden, width]
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
