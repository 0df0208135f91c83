//go:build cuda

package cuda

import "unsafe"

// rmsnormParams is RMSNormParams.
type rmsnormParams struct {
	hidden, w, rows, out ptr
	ld, ldOut            int64
	width                int32
	eps                  float32
}

var _ [56]byte = [unsafe.Sizeof(rmsnormParams{})]byte{}

// planRMSNorm is a CTA a row, at most four elements a thread of small rows: the kernel's number is
// the quadruples that a thread keeps. The number of threads depends on the width alone: it decides the
// order of the sum.
func planRMSNorm(rows, hidden int) launch {
	quads := ceilDiv(hidden, 4)
	threads := min(512, roundUp(quads, 32))
	kernel := "rmsnorm_4"
	switch ceilDiv(quads, threads) {
	case 1:
		kernel = "rmsnorm_1"
	case 2:
		kernel = "rmsnorm_2"
	}
	return grid("rmsnorm", kernel, rows, 1, threads).overlapped()
}
