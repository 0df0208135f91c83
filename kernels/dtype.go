package kernels

import (
	"fmt"
	"math"
)

// DType is the element type of a HostTensor or of a Pool.
type DType uint8

// The element types that checkpoints may have. A Pool has one of the first two.
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

// Float widens the bits of an element of 16 bits.
func (d DType) Float(bits uint16) float32 {
	if d == FP16 {
		return FP16ToFloat(bits)
	}
	return BF16ToFloat(bits)
}

// Bits rounds to an element of 16 bits, as FloatToFP16 and FloatToBF16 do.
func (d DType) Bits(f float32) uint16 {
	if d == FP16 {
		return FloatToFP16(f)
	}
	return FloatToBF16(f)
}

// FloatToFP16 rounds to the nearest half, ties to even. What is beyond the greatest
// becomes that, with its sign; NaN stays NaN.
func FloatToFP16(f float32) uint16 {
	const infinity = 0x7C00
	u := math.Float32bits(f)
	sign, size := uint16(u>>16)&0x8000, u&^(1<<31)
	switch {
	case f != f:
		return sign | infinity | 0x200
	case size < 113<<23: // below 2⁻¹⁴ halves are multiples of 2⁻²⁴
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(size))*(1<<24)))
	}
	return sign | uint16(min((size-112<<23+0xFFF+(size>>13)&1)>>13, infinity-1))
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
