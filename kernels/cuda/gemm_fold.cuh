// A norm between two products of several tokens, without a kernel of its own: the first one's end leaves the residual
// stream times the norm's weights, in halves, and sums of its squares, and the second one's sums are multiplied by what those
// make of each token (an RMSNorm, Zhang and Sennrich, 2019, is a row times a number, which can be taken out of a product). A
// kernel between them, its release and the rows' way through L2 and back take longer (performance.md, "Norms between products").
#pragma once

#include "gemm.cuh"

namespace {

// A row that is not divided by its norm yet is times UNIT: half holds up to 10⁶, and what is beyond becomes that; elements
// under 10⁻³ are within 5·10⁻⁷. A NaN stays one; of an infinity the products are 0, and the head's norm makes NaNs.
constexpr float UNIT = 1.0f / 16;

// folds says whether the product's end leaves what a norm behind it is made of, scaled whether sums are to be multiplied by
// what the one before has left.
template <int KIND> __device__ __forceinline__ bool folds(const Epilogue &e) { return KIND == RESIDUAL && e.normed; }
template <int KIND> __device__ __forceinline__ bool scaled(const Epilogue &e) { return (KIND == SWIGLU || KIND == QKV) && e.squares; }

// Folded leaves eight outputs of a residual for the product behind the norm. LANES threads have a tile's outputs of a token.
template <int LANES> struct Folded {
	static_assert(LANES <= 32);
	float4 lo, hi; // the norm's weights

	// request goes before the wait: weights are older.
	__device__ __forceinline__ void request(const Epilogue &e, int column) {
		const float4 *from = reinterpret_cast<const float4 *>(e.norm + column);
		lo = from[0], hi = from[1];
	}
	// leave is for all threads of a warp. to is where the outputs went, in elements, squares where their sum goes, if inside.
	__device__ __forceinline__ void leave(const Epilogue &e, bool inside, uint32_t to, uint32_t squares, const float (&y)[8]) const {
		if (inside)
			*reinterpret_cast<uint4 *>(e.normed + to) = {pack_half(y[0] * lo.x * UNIT, y[1] * lo.y * UNIT), pack_half(y[2] * lo.z * UNIT, y[3] * lo.w * UNIT),
			                                             pack_half(y[4] * hi.x * UNIT, y[5] * hi.y * UNIT), pack_half(y[6] * hi.z * UNIT, y[7] * hi.w * UNIT)};
		float sum = 0;
#pragma unroll
		for (int i = 0; i < 8; i++) sum += y[i] * y[i];
		if (!inside) sum = 0;
#pragma unroll
		for (int i = 1; i < LANES; i *= 2) sum += __shfl_xor_sync(~0u, sum, i);
		if (inside && threadIdx.x % LANES == 0) e.squares[squares] = sum;
	}
};

// make_scales is for warps that do nothing else. It leaves at `to`, in shared memory, what every step-th token's sums are
// multiplied by, of `tokens` from the first on. A thread, the i-th of `threads`, has EACH tokens at a time and PIECES of
// each one's sums on their way: one by one they would take longer than the products. All CTAs ask for the same few lines,
// each line by as few requests as can be: sums of a tile lie side by side, so that a warp's loads are neighbours.
template <int EACH, int PIECES> __device__ __forceinline__ void make_scales(const Epilogue &e, int first, int step, int tokens, uint32_t to, int i, int threads) {
	for (; i < tokens; i += EACH * threads) {
		const float *from[EACH];
		float sum[EACH] = {};
#pragma unroll
		for (int h = 0; h < EACH; h++) from[h] = e.squares + first + (i + h * threads) * step;
#pragma unroll 1
		for (int piece = 0; piece < e.pieces; piece += PIECES) {
			float v[EACH][PIECES];
#pragma unroll
			for (int j = 0; j < PIECES; j++)
#pragma unroll
				for (int h = 0; h < EACH; h++) {
					v[h][j] = 0;
					if (piece + j < e.pieces && i + h * threads < tokens) v[h][j] = __ldcg(from[h]);
					from[h] += e.rows;
				}
#pragma unroll
			for (int j = 0; j < PIECES; j++)
#pragma unroll
				for (int h = 0; h < EACH; h++) sum[h] += v[h][j];
		}
#pragma unroll
		for (int h = 0; h < EACH; h++)
			if (i + h * threads < tokens) write_shared(to + (i + h * threads) * 4, norm_scale(sum[h], e.inverse, e.eps) / UNIT);
	}
	__syncwarp();
}

// multiply_scales multiplies a thread's sums of wgmma by its two tokens' scales: the first one's lies at `at`.
template <int SUMS> __device__ __forceinline__ void multiply_scales(float (&c)[SUMS], uint32_t at) {
	float scale[2] = {read_shared_number(at), read_shared_number(at + 8 * 4)};
#pragma unroll
	for (int i = 0; i < SUMS; i++) c[i] *= scale[i / 2 % 2];
}

} // namespace
