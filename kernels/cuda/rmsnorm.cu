// out[i] = x / sqrt(mean(x²) + eps) · w with x = hidden[rows[i]], or hidden[i]
// without rows; float32, rounded to half at the end (Zhang and Sennrich, 2019).
// One CTA a row; the sum has one order whatever the batch. Bytes: 4 in, 2 out an element. A step of
// one token makes its norms within gemm_skinny.cu's products, but for the last.
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

constexpr int MOST = 4; // quadruples of a thread; rows of more are read again

// A row of up to EACH·4 elements a thread stays in registers, and the weights, on which no
// kernel before has any bearing, are requested before that has finished. There are kernels of
// few, for code is late, too: a multiprocessor keeps 32 KB of it, less than a layer's kernels have.
template <int EACH> static __device__ __forceinline__ void norm(const RMSNormParams &p) {
	grid_trigger(); // the next product may begin where there is room
	__shared__ float sums[16];
	int n = (p.width + 3) / 4; // the padding of hidden and w is zero
	const float4 *w = reinterpret_cast<const float4 *>(p.w);
	float4 g[EACH], v[EACH];
#pragma unroll
	for (int i = 0; i < EACH; i++)
		if (int at = threadIdx.x + i * blockDim.x; at < n) g[i] = w[at];
	int64_t row = p.rows ? p.rows[blockIdx.x] : blockIdx.x; // older than the layers, too
	grid_wait();
	const float4 *x = reinterpret_cast<const float4 *>(p.hidden + row * p.ld);
	float sum = 0;
	auto add = [&](float4 v) { sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w; };
#pragma unroll
	for (int i = 0; i < EACH; i++)
		if (int at = threadIdx.x + i * blockDim.x; at < n) v[i] = x[at];
#pragma unroll
	for (int i = 0; i < EACH; i++)
		if (threadIdx.x + i * blockDim.x < n) add(v[i]);
	if (EACH == MOST)
		for (int at = threadIdx.x + EACH * blockDim.x; at < n; at += blockDim.x) add(x[at]);
	int lane = threadIdx.x % 32;
	sum = warp_sum(sum);
	if (lane == 0) sums[threadIdx.x / 32] = sum;
	__syncthreads();
	sum = warp_sum(lane < blockDim.x / 32 ? sums[lane] : 0);
	float scale = rsqrtf(sum / p.width + p.eps);
	uint2 *out = reinterpret_cast<uint2 *>(p.out + blockIdx.x * p.ld_out);
	auto put = [&](int at, float4 v, float4 g) { out[at] = {pack_half(v.x * scale * g.x, v.y * scale * g.y), pack_half(v.z * scale * g.z, v.w * scale * g.w)}; };
#pragma unroll
	for (int i = 0; i < EACH; i++)
		if (int at = threadIdx.x + i * blockDim.x; at < n) put(at, v[i], g[i]);
	if (EACH == MOST)
		for (int at = threadIdx.x + EACH * blockDim.x; at < n; at += blockDim.x) put(at, x[at], w[at]);
}

PG_KERNEL void __launch_bounds__(512) rmsnorm_1(const __grid_constant__ RMSNormParams p) { norm<1>(p); }
PG_KERNEL void __launch_bounds__(512) rmsnorm_2(const __grid_constant__ RMSNormParams p) { norm<2>(p); }
PG_KERNEL void __launch_bounds__(512) rmsnorm_4(const __grid_constant__ RMSNormParams p) { norm<MOST>(p); }
