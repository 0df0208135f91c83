//go:build cuda

package cuda

import "unsafe"

// gemmPlainParams is GemmPlainParams.
type gemmPlainParams struct {
	x, w       ptr
	ldX, panel int64
	k          int32
	_          [3]int32
	e          epilogue
}

var _ [224]byte = [unsafe.Sizeof(gemmPlainParams{})]byte{}

// gemmShape is a product: y [m, n] = x [m, k] · w [n, k]ᵀ, ended by kind.
type gemmShape struct {
	m, n, k   int
	kind      epilogueKind
	invariant bool // a row's bits may not depend on m
}

// planGemmPlain is a CTA for 64 × 64 outputs.
func planGemmPlain(s gemmShape) launch {
	return grid("gemm_plain", "gemm_plain_"+string(s.kind), ceilDiv(s.n, 64), ceilDiv(s.m, 64), 256)
}
