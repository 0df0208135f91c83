// What the matrix kernels share.
#pragma once

#include "mma.cuh"

// GemmParams: y [m, n] = x [m, k] · w [n, k]ᵀ, ended by an epilogue. There is a kernel for each kind: code that
// is not run costs, too (performance.md, "A kernel for each end").
struct GemmParams {
	const half *x, *w;
	int64_t ldx, panel;    // row stride of x and panel of w in elements
	float *partials;       // of tiles that several CTAs share
	int32_t *counters;     // one a tile, zero between launches
	int32_t m, n, k;       // k: a multiple of 64, zeros past the true width
	int32_t per, tiles;    // share of a CTA and tiles along n
	int32_t pad;
	Epilogue e;
};
static_assert(sizeof(GemmParams) == 248 && offsetof(GemmParams, m) == 48 && offsetof(GemmParams, e) == 72, "gemm.go: gemmParams");

// EACH_KIND makes the kernels of KERNEL(name of the kind, kind, …).
#define EACH_KIND(KERNEL, ...) \
	KERNEL(store, STORE, __VA_ARGS__) KERNEL(residual, RESIDUAL, __VA_ARGS__) KERNEL(swiglu, SWIGLU, __VA_ARGS__) KERNEL(qkv, QKV, __VA_ARGS__)

// QkvEnd is epilogue8 of QKV in two halves: what it reads of row m and columns n … n+7 beside their
// sums is older than the layers, and asked for before the kernel before has ended.
struct QkvEnd {
	half *out = nullptr; // NULL: nothing is stored
	bool turns = false;
	float4 bias[2] = {}, angles[2];

	__device__ __forceinline__ void request(const Epilogue &e, int m, int n) {
		out = nullptr;
		if (m >= e.rows || n >= e.cols) return;
		int head = n / e.head_dim;
		if (e.bias)
			for (int i = 0; i < 2; i++) bias[i] = reinterpret_cast<const float4 *>(e.bias + n)[i];
		turns = head < e.heads + e.kv_heads;
		if (turns)
			for (int i = 0; i < 2; i++)
				angles[i] = reinterpret_cast<const float4 *>(e.rope + (int64_t)e.positions[m] * (e.head_dim / 2) + (n - head * e.head_dim) / 2)[i];
		out = qkv_destination(e, m, n);
	}
	__device__ __forceinline__ void end(const Epilogue &e, const float (&y)[8]) const {
		if (!out) return;
		float a[4] = {y[0], y[2], y[4], y[6]}, b[4] = {y[1], y[3], y[5], y[7]};
#pragma unroll
		for (int j = 0; j < 2; j++) {
			a[2 * j] += bias[j].x, b[2 * j] += bias[j].y;
			a[2 * j + 1] += bias[j].z, b[2 * j + 1] += bias[j].w;
		}
		if (turns)
#pragma unroll
			for (int j = 0; j < 2; j++) {
				turn(make_float2(angles[j].x, angles[j].y), a[2 * j], b[2 * j]);
				turn(make_float2(angles[j].z, angles[j].w), a[2 * j + 1], b[2 * j + 1]);
			}
		*reinterpret_cast<uint2 *>(out) = {pack_half(a[0], a[1]), pack_half(a[2], a[3])};
		*reinterpret_cast<uint2 *>(out + e.head_dim / 2) = {pack_half(b[0], b[1]), pack_half(b[2], b[3])};
	}
};

// partial_tile is where a CTA leaves its piece of a tile of ROWS × COLUMNS sums:
// two tiles of a CTA can be cut, its first and its last.
template <int ROWS, int COLUMNS> static __device__ __forceinline__ float *partial_tile(const GemmParams &p, int cta, bool begins) {
	return p.partials + (int64_t)(2 * cta + begins) * ROWS * COLUMNS;
}

// end_cut_tile adds the pieces that CTAs first..last left of a tile at (row,
// column), in order of k, and ends it. Loads come from L2, where others wrote; a thread
// has up to 16 under way.
template <int KIND, int ROWS, int COLUMNS, int THREADS>
static __device__ __forceinline__ void end_cut_tile(const GemmParams &p, int first, int last, int thread, int row, int column) {
	constexpr int GROUPS = ROWS * COLUMNS / 8, EACH = GROUPS >= 4 * THREADS ? 4 : GROUPS >= 2 * THREADS ? 2 : 1;
	for (int base = thread; base < GROUPS; base += EACH * THREADS) {
		if (row + base / (COLUMNS / 8) >= p.m) break;
		float sum[EACH][8] = {};
#pragma unroll 2
		for (int cta = first; cta <= last; cta++) {
			const float4 *from = reinterpret_cast<const float4 *>(partial_tile<ROWS, COLUMNS>(p, cta, cta == first)) + 2 * base;
#pragma unroll
			for (int i = 0; i < EACH; i++) add8(sum[i], __ldcg(from + 2 * i * THREADS), __ldcg(from + 2 * i * THREADS + 1));
		}
#pragma unroll
		for (int i = 0; i < EACH; i++) {
			int g = base + i * THREADS;
			epilogue8<KIND>(p.e, row + g / (COLUMNS / 8), column + g % (COLUMNS / 8) * 8, sum[i]);
		}
	}
}

// last_of_tile says, to every thread, whether this CTA is the last to leave its piece
// of the tile, whose chunks of k lie at tile·chunks in the line; first and last become
// the CTAs that have pieces. sync is a barrier of the threads; one of them is `one`.
template <class F> static __device__ __forceinline__ bool last_of_tile(const GemmParams &p, int tile, int chunks, bool one, F sync, int &first, int &last) {
	__shared__ bool mine;
	__threadfence();
	sync();
	first = tile * chunks / p.per, last = (tile * chunks + chunks - 1) / p.per;
	if (one) {
		mine = atomicAdd(p.counters + tile, 1) == last - first;
		if (mine) p.counters[tile] = 0;
	}
	sync();
	bool all = mine;
	sync(); // it may be written again
	if (all) __threadfence();
	return all;
}
