package kernels

import (
	"fmt"
	"math"
)

// DType is the element type of a HostTensor.
type DType uint8

// The element types that checkpoints may have.
const (
	BF16 DType = iota
	FP16
	FP32
)

// Size is the bytes of one element.
func (d DType) Size() int {
	if d == FP32 {
		return 4
	}
	return 2
}

// String gives the name that config.json uses.
func (d DType) String() string {
	switch d {
	case BF16:
		return "bfloat16"
	case FP16:
		return "float16"
	case FP32:
		return "float32"
	}
	return fmt.Sprintf("DType(%d)", uint8(d))
}

// BF16ToFloat widens bfloat16 bits.
func BF16ToFloat(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// FloatToBF16 rounds to the nearest bfloat16, ties to even; NaN stays NaN.
func FloatToBF16(f float32) uint16 {
	u := math.Float32bits(f)
	if f != f {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7FFF + (u>>16)&1) >> 16)
}

// FP16ToFloat widens IEEE half-precision bits.
func FP16ToFloat(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10)&31, uint32(h)&1023
	switch exp {
	case 31:
		return math.Float32frombits(sign | 0xFF<<23 | frac<<13)
	case 0:
		f := float32(frac) / (1 << 24)
		return math.Float32frombits(math.Float32bits(f) | sign)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}
