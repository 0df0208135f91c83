// out[i] = x / sqrt(mean(x²) + eps) · w with x = hidden[rows[i]], or hidden[i]
// without rows; float32, rounded to half at the end (Zhang and Sennrich, 2019).
// One CTA a row; the sum has one order whatever the batch. Bytes: 4 in, 2 out an element. A step of
// one token makes its norms within gemm_skinny.cu's products, one of 2 to 512 tokens those between two products that can
// share the work (gemm_fold.cuh); none the last, of the head.
//
// Measured by what leaving all 57 of the 7B out of a step saves (BenchmarkWithout, H100 80GB HBM3,
// 2026-11-26): 2.3 µs each with 64 tokens, 3.5 with 256, 1.6 TB/s from L2; latency, beside which the next
// product requests its weights.
#include "common.cuh"

struct RMSNormParams {
	const float *hidden;  // [tokens][ld]
	const float *w;       // [width]
	const int32_t *rows;  // [grid] or NULL
	half *out;            // [grid][ld_out]
	int64_t ld, ld_out;
	int32_t width;
	float eps;
};
static_assert(sizeof(RMSNormParams) == 56, "rmsnorm.go");

constexpr int MOST = 4;   // quadruples of a thread; rows of more are read again
constexpr int WARPS = 16; // of a CTA, at most

// Sums are the warps', added up with one shuffle, for each waits for the one before: a lane adds those of even warps, or
// those of odd ones.
struct Sums {
	float4 of[2][WARPS / 8];

	__device__ __forceinline__ float *of_warp(uint32_t warp) { return reinterpret_cast<float *>(of[warp % 2]) + warp / 2; }
	__device__ __forceinline__ float all() const {
		static_assert(WARPS == 16);
		float4 a = of[threadIdx.x % 2][0], b = of[threadIdx.x % 2][1];
		float sum = ((a.x + b.x) + (a.z + b.z)) + ((a.y + b.y) + (a.w + b.w));
		return sum + __shfl_xor_sync(~0u, sum, 1);
	}
};

// A row of up to EACH·4 elements a thread stays in registers. The weights, on which no kernel before has
// any bearing, are requested before that has finished, and what can be known is made by then. There are kernels
// of few, for code is late, too: a multiprocessor keeps 32 KB of it, less than a layer's kernels have.
template <int EACH> static __device__ __forceinline__ void norm(const RMSNormParams &p) {
	grid_trigger(); // the next product may begin where there is room
	__shared__ Sums sums;
	int rest = (p.width + 3) / 4 - threadIdx.x; // quadruples from the thread's first on; the padding of hidden and w is zero
	const float4 *w = reinterpret_cast<const float4 *>(p.w) + threadIdx.x;
	float4 g[EACH] = {}, v[EACH] = {};
#pragma unroll
	for (int i = 0; i < EACH; i++)
		if (int at = i * blockDim.x; at < rest) g[i] = w[at];
	int64_t row = p.rows ? p.rows[blockIdx.x] : blockIdx.x; // older than the layers, too
	const float4 *x = reinterpret_cast<const float4 *>(p.hidden + row * p.ld) + threadIdx.x;
	uint2 *out = reinterpret_cast<uint2 *>(p.out + blockIdx.x * p.ld_out) + threadIdx.x;
	asm volatile("" : "+l"(x), "+l"(out)); // made once, so no longer seen to be global
	__builtin_assume(__isGlobal(x)), __builtin_assume(__isGlobal(out));
	float inverse = 1.0f / p.width;
	float *of_warp = sums.of_warp(threadIdx.x / 32);
	if (threadIdx.x < WARPS && threadIdx.x >= blockDim.x / 32) *sums.of_warp(threadIdx.x) = 0; // of warps that there are not
	grid_wait(x, out, static_cast<uint32_t>(__cvta_generic_to_shared(of_warp)), __float_as_int(inverse));
	float sum = 0;
	auto add = [&](float4 v) { sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; };
#pragma unroll
	for (int i = 0; i < EACH; i++)
		if (int at = i * blockDim.x; at < rest) v[i] = x[at];
#pragma unroll
	for (int i = 0; i < EACH; i++) add(v[i]);
	if (EACH == MOST)
		for (int at = EACH * blockDim.x; at < rest; at += blockDim.x) add(x[at]);
	sum = warp_sum(sum);
	if (threadIdx.x % 32 == 0) *of_warp = sum;
	__syncthreads();
	float scale = norm_scale(sums.all(), inverse, p.eps);
	auto normed = [&](float4 v, float4 g) -> uint2 { return {pack_half(v.x * scale * g.x, v.y * scale * g.y), pack_half(v.z * scale * g.z, v.w * scale * g.w)}; };
	uint2 y[EACH];
#pragma unroll
	for (int i = 0; i < EACH; i++) {
		y[i] = normed(v[i], g[i]);
		asm volatile("" : "+r"(y[i].x), "+r"(y[i].y)); // by all threads: a branch around it takes longer
	}
#pragma unroll
	for (int i = 0; i < EACH; i++)
		if (int at = i * blockDim.x; at < rest) out[at] = y[i];
	if (EACH == MOST)
		for (int at = EACH * blockDim.x; at < rest; at += blockDim.x) out[at] = normed(x[at], w[at]);
}

PG_KERNEL void __launch_bounds__(512) rmsnorm_1(const __grid_constant__ RMSNormParams p) { norm<1>(p); }
PG_KERNEL void __launch_bounds__(512) rmsnorm_2(const __grid_constant__ RMSNormParams p) { norm<2>(p); }
PG_KERNEL void __launch_bounds__(512) rmsnorm_4(const __grid_constant__ RMSNormParams p) { norm<MOST>(p); }
