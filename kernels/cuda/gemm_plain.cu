// y = x·wᵀ with float32 multiply-adds, ended by an epilogue: the oracle of the
// fast products, and what takes shapes that they do not.
//
// A CTA of 16 × 16 threads makes 64 × 64 outputs, 4 × 4 a thread, over K in steps
// of 32 in ascending order: an output does not depend on the batch.
// FLOPs: 2·M·N·K; bytes: 2·N·K for each 64 rows.
#include "common.cuh"

struct GemmPlainParams {
	const half *x; // [M][ld_x]
	const half *w; // [K/64][N][64]
	int64_t ld_x, panel;
	int32_t k, pad[3]; // a multiple of 32
	Epilogue e;
};
static_assert(sizeof(GemmPlainParams) == 224, "gemm_plain.go");

enum { TILE = 64, STEP = 32 };

template <int KIND> static __device__ __forceinline__ void gemm(const GemmPlainParams &p) {
	grid_wait();
	__shared__ float xs[STEP][TILE + 4], ws[STEP][TILE + 4];
	int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE, tx = threadIdx.x % 16, ty = threadIdx.x / 16;
	int row = threadIdx.x / 4, col = threadIdx.x % 4 * 8; // that this thread loads
	float acc[4][4] = {};
	for (int k0 = 0; k0 < p.k; k0 += STEP) {
		bool inside = n0 + row < p.e.cols; // rows of x past M are readable
		const half *x = p.x + (m0 + row) * p.ld_x + k0 + col, *w = weight_at(p.w, p.panel, n0 + row, k0 + col);
#pragma unroll
		for (int i = 0; i < 8; i++) {
			xs[col + i][row] = __half2float(x[i]);
			ws[col + i][row] = inside ? __half2float(w[i]) : 0;
		}
		__syncthreads();
#pragma unroll 8
		for (int k = 0; k < STEP; k++) {
			float4 a = *reinterpret_cast<float4 *>(&xs[k][ty * 4]), b = *reinterpret_cast<float4 *>(&ws[k][tx * 4]);
			float av[4] = {a.x, a.y, a.z, a.w}, bv[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
			for (int i = 0; i < 4; i++)
#pragma unroll
				for (int j = 0; j < 4; j++) acc[i][j] = fmaf(av[i], bv[j], acc[i][j]);
		}
		__syncthreads();
	}
#pragma unroll
	for (int i = 0; i < 4; i++)
#pragma unroll
		for (int j = 0; j < 4; j += 2) epilogue2<KIND>(p.e, m0 + ty * 4 + i, n0 + tx * 4 + j, acc[i][j], acc[i][j + 1]);
}

PG_KERNEL void __launch_bounds__(256) gemm_plain_store(const __grid_constant__ GemmPlainParams p) { gemm<STORE>(p); }
PG_KERNEL void __launch_bounds__(256) gemm_plain_residual(const __grid_constant__ GemmPlainParams p) { gemm<RESIDUAL>(p); }
PG_KERNEL void __launch_bounds__(256) gemm_plain_swiglu(const __grid_constant__ GemmPlainParams p) { gemm<SWIGLU>(p); }
PG_KERNEL void __launch_bounds__(256) gemm_plain_qkv(const __grid_constant__ GemmPlainParams p) { gemm<QKV>(p); }
