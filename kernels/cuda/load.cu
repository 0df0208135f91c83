// Weights into their final place: rounded to bf16, as every backend has them, and kept as
// half; in the order of rows that common.cuh fixes, padding left as it is (zero). Values
// that half cannot hold are counted. One thread a value.
//
//   dst[k/64][row(i)][k%64] = half(bf16(src[i][k])·gain), or of kernels.Dummy·scale + offset
//
// rope_table makes cos and sin of position·inv_freq (a float32 product) by scale.
#include "common.cuh"

#include <cuda_bf16.h>

enum { LOAD_BF16, LOAD_FP16, LOAD_FP32, LOAD_DUMMY };

struct LoadParams {
	const void *src; // rows of [cols]
	half *dst;       // [·/64][·][64]
	int64_t panel, first; // first: row of the part that src starts with
	uint64_t seed;
	float scale, offset;
	int32_t rows, cols, dtype;
	int32_t head_dim;         // > 0: pairs of a head's halves are neighbours
	int32_t row_step, row_at; // else row i goes to i·row_step + row_at
	float gain;               // a power of two
	int32_t pad;
	int32_t *beyond; // counts what half cannot hold; NULL: nothing to count
};
static_assert(sizeof(LoadParams) == 88 && offsetof(LoadParams, beyond) == 80, "load.go");

constexpr float MOST = 65504; // that half holds

static __device__ __forceinline__ __nv_bfloat16 dummy(const LoadParams &p, uint64_t i) {
	uint64_t z = p.seed + (i + 1) * 0x9E3779B97F4A7C15ull;
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
	z ^= z >> 31;
	float u = (float)((int32_t)(z >> 40) - (1 << 23)) / (1 << 23);
	return __float2bfloat16(__fadd_rn(__fmul_rn(u, p.scale), p.offset)); // each rounded, as Go does
}

PG_KERNEL void load(const __grid_constant__ LoadParams p) {
	int64_t row = blockIdx.y + (int64_t)blockIdx.z * 65535, i = p.first + row;
	if (row >= p.rows) return;
	int64_t to = i * p.row_step + p.row_at;
	if (p.head_dim) {
		int64_t in_head = i % p.head_dim, middle = p.head_dim / 2;
		to = p.row_at + i - in_head + (in_head < middle ? 2 * in_head : 2 * (in_head - middle) + 1);
	}
	for (int k = blockIdx.x * blockDim.x + threadIdx.x; k < p.cols; k += gridDim.x * blockDim.x) {
		int64_t at = row * p.cols + k;
		__nv_bfloat16 v;
		switch (p.dtype) {
		case LOAD_BF16: v = static_cast<const __nv_bfloat16 *>(p.src)[at]; break;
		case LOAD_FP16: v = __float2bfloat16(__half2float(static_cast<const __half *>(p.src)[at])); break;
		case LOAD_FP32: v = __float2bfloat16(static_cast<const float *>(p.src)[at]); break;
		default: v = dummy(p, i * p.cols + k);
		}
		float x = __bfloat162float(v) * p.gain;
		if (p.beyond && fabsf(x) > MOST) atomicAdd(p.beyond, 1);
		*weight_at(p.dst, p.panel, to, k) = to_half(x);
	}
}

struct RopeTableParams {
	const float *inv_freq; // [half]
	float2 *table;         // [positions][half]
	int32_t positions, half;
	float scale;
	int32_t pad;
};
static_assert(sizeof(RopeTableParams) == 32, "load.go");

PG_KERNEL void rope_table(const __grid_constant__ RopeTableParams p) {
	int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
	if (i >= (int64_t)p.positions * p.half) return;
	double sine, cosine;
	sincos((double)__fmul_rn((float)(i / p.half), p.inv_freq[i % p.half]), &sine, &cosine);
	p.table[i] = {(float)(cosine * p.scale), (float)(sine * p.scale)};
}
