// Package kernelstest says what a kernels.Backend must compute, and checks it.
//
// # Cast
//
//   - Oracle: a Backend of its own in plain float64 Go, one loop a formula. It
//     is slow and meant to be read; everything else is compared with it.
//   - Draw: one row's token, in the exact order of kernels.Sampling's doc, with
//     the margin by which it was decided.
//   - Tolerance: how far a Backend may be from the Oracle. Float32 and Float16
//     are those of Backends that keep activations in these types.
//   - Run: the conformance suite, in the manner of testing/fstest.
//
// # How a case works
//
// A pair gives every call to the Backend under test and to the Oracle. Inputs
// are written into activations and KV blocks, one operation runs, and outputs
// are read back. Before that, every output, every activation row past the
// batch, every KV slot that holds no token, every free block and block 0 are
// filled with NaN, so that anything read out of turn shows.
//
// # Tolerances
//
// Each row of an output is compared by two scale-free measures: the worst
// element against the row's root mean square, so that one wrong element fails,
// and DeepGEMM's 1 − 2⟨x,y⟩/(|x|²+|y|²), so that a small bias everywhere does.
// Tokens are compared exactly. Inputs whose outcome hangs on the last bits of a
// float32 (Draw's margin) are replaced by others from the next seed.
package kernelstest
