// The norm of a product of one token, which the product makes itself: every CTA of its own, of the
// whole row, while its first weights are on their way. A kernel of its own, its release and the
// row's way through L2 take longer.
#pragma once

#include "gemm.cuh"

namespace {

// NormedParams is a product of one token, whose norm the kernel makes itself.
struct NormedParams {
	GemmParams g;        // x unused
	const float *hidden; // [k]
	const float *norm;   // [k]
	float eps;
	int32_t reserved;
};
static_assert(sizeof(NormedParams) == 272, "gemm_skinny.go: normedParams");

// Norm makes of the residual stream of a step of one token what rmsnorm does, but for the order of
// the sum, in a row of shared memory. A thread has up to EACH · 4 elements.
template <int EACH> struct Norm {
	static constexpr int THREADS = 128;
	float4 weights[EACH], v[EACH];
	float inverse; // 1 / width

	static __device__ __forceinline__ int place(int i) { return threadIdx.x + i * THREADS; } // of the thread's i-th, in float4
	static __device__ __forceinline__ bool inside(const NormedParams &p, int i) { return 4 * place(i) < p.g.k; }
	// request goes before the wait.
	__device__ __forceinline__ void request(const NormedParams &p) {
		inverse = 1.0f / p.g.k;
#pragma unroll
		for (int i = 0; i < EACH; i++)
			if (inside(p, i)) weights[i] = reinterpret_cast<const float4 *>(p.norm)[place(i)];
	}
	// read goes behind it. What it asks for comes when all that the multiprocessor asked for before has.
	__device__ __forceinline__ void read(const NormedParams &p) {
#pragma unroll
		for (int i = 0; i < EACH; i++) {
			v[i] = make_float4(0, 0, 0, 0);
			if (inside(p, i)) v[i] = __ldcg(reinterpret_cast<const float4 *>(p.hidden) + place(i)); // other multiprocessors wrote it
		}
	}
	// make fills the first `bytes` of row.
	__device__ __forceinline__ void make(const NormedParams &p, void *row, int bytes) const {
		__shared__ float4 sums;
		float sum = 0;
#pragma unroll
		for (int i = 0; i < EACH; i++) sum += v[i].x * v[i].x + v[i].y * v[i].y + v[i].z * v[i].z + v[i].w * v[i].w;
		sum = warp_sum(sum);
		if (threadIdx.x % 32 == 0) reinterpret_cast<float *>(&sums)[threadIdx.x / 32] = sum;
		__syncthreads();
		float4 all = sums;
		float scale = norm_scale(all.x + all.y + all.z + all.w, inverse, p.eps);
#pragma unroll
		for (int i = 0; i < EACH; i++)
			if (inside(p, i))
				static_cast<uint2 *>(row)[place(i)] = {pack_half(v[i].x * scale * weights[i].x, v[i].y * scale * weights[i].y), pack_half(v[i].z * scale * weights[i].z, v[i].w * scale * weights[i].w)};
		for (int at = p.g.k / 4 + threadIdx.x; 8 * at < bytes; at += THREADS) static_cast<uint2 *>(row)[at] = {};
		__syncthreads();
	}
};

} // namespace
