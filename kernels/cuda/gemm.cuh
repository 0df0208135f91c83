// What the matrix kernels share.
#pragma once

#include "mma.cuh"

// GemmParams: y [m, n] = x [m, k] · w [n, k]ᵀ, ended by the
// epilogue of `kind`.
struct GemmParams {
	const bf16 *x, *w;
	int64_t ldx, ldw;      // row strides in elements, multiples of 8
	float *partials;       // of tiles that several CTAs share
	int32_t *counters;     // one a tile, zero between launches
	int32_t m, n, k, kind; // k: a multiple of 64, zeros past the true width
	int32_t per, tiles;    // share of a CTA and tiles along n
	Epilogue e;
};
static_assert(sizeof(GemmParams) == 200 && offsetof(GemmParams, m) == 48 && offsetof(GemmParams, e) == 72, "gemm.go: gemmParams");

// end8 is epilogue8 of a kind that is known at run time: one switch an output,
// where the main loop is what costs.
static __device__ __forceinline__ void end8(const Epilogue &e, int kind, int m, int n, const float (&y)[8]) {
	switch (kind) {
	case STORE: return epilogue8<STORE>(e, m, n, y);
	case RESIDUAL: return epilogue8<RESIDUAL>(e, m, n, y);
	case SWIGLU: return epilogue8<SWIGLU>(e, m, n, y);
	default: return epilogue8<QKV>(e, m, n, y);
	}
}
