// How sums that wgmma left in registers reach memory.
#pragma once

#include "gemm.cuh"
#include "wgmma.cuh"

namespace {

constexpr int OUT_BYTES = 16 * 36 * 4; // of shared memory, of a warp

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Out is where a warp's sums of 16 rows × N columns go, from (row, column) on, by way of its
// part of shared memory.
template <int N> struct Out {
	static constexpr int GROUPS = N / 8;
	const Epilogue &e;
	float *mine;
	int row, column;

	// swiglu makes the outputs where the sums lie, and turns 128 columns at a time: two rows'
	// outputs are a word.
	__device__ __forceinline__ void swiglu(const float (&c)[N / 2]) const {
		constexpr int PART = 16, LD = 68;
		int lane = threadIdx.x % 32;
		uint32_t *words = reinterpret_cast<uint32_t *>(mine);
#pragma unroll
		for (int first = 0; first < GROUPS; first += PART) {
			const int groups = GROUPS - first < PART ? GROUPS - first : PART;
			__syncwarp();
#pragma unroll
			for (int j = 0; j < groups; j++) {
				const float *y = c + 4 * (first + j);
				words[lane / 4 * LD + 4 * j + lane % 4] = pack_half(gated(y[0], y[1]), gated(y[2], y[3]));
			}
			__syncwarp();
			half *out = static_cast<half *>(e.out) + row * e.ld + column / 2 + 4 * first;
#pragma unroll
			for (int i = lane; i < 8 * groups; i += 32) {
				int r = i / groups, j = i % groups;
				if (column + 8 * (first + j) >= e.cols) continue;
				uint4 v = *reinterpret_cast<const uint4 *>(words + r * LD + 4 * j);
				half *to = out + r * e.ld + 4 * j;
				if (row + r < e.rows) *reinterpret_cast<uint2 *>(to) = upper(v);
				if (row + r + 8 < e.rows) *reinterpret_cast<uint2 *>(to + 8 * e.ld) = lower(v);
			}
		}
	}
	// upper and lower are the two rows of four columns' words.
	static __device__ __forceinline__ uint2 upper(uint4 v) { return {__byte_perm(v.x, v.y, 0x5410), __byte_perm(v.z, v.w, 0x5410)}; }
	static __device__ __forceinline__ uint2 lower(uint4 v) { return {__byte_perm(v.x, v.y, 0x7632), __byte_perm(v.z, v.w, 0x7632)}; }

	// qkv does so with 64 columns, whose pairs are two words; what 32 are made with is requested
	// when those before are made.
	__device__ __forceinline__ void qkv(const float (&c)[N / 2]) const {
		constexpr int PART = 8, LD = 36;
		int lane = threadIdx.x % 32, r = lane / 4, q = lane % 4, half = e.head_dim / 2;
		uint32_t *words = reinterpret_cast<uint32_t *>(mine);
		const float2 *rope[2];
#pragma unroll
		for (int h = 0; h < 2; h++) rope[h] = e.rope + (int64_t)e.positions[min(row + r + 8 * h, e.rows - 1)] * half + q;
		struct {
			int head, in; // of a head, in pairs
			float2 bias[4], angle[4][2];
			bool turns[4];
		} next;
		next.head = column / e.head_dim, next.in = (column - next.head * e.head_dim) / 2;
		auto request = [&](int first) {
#pragma unroll
			for (int j = 0; j < 4; j++) {
				if (first + j >= GROUPS || column + 8 * (first + j) >= e.cols) continue;
				next.turns[j] = next.head < e.heads + e.kv_heads;
				next.bias[j] = e.bias ? *reinterpret_cast<const float2 *>(e.bias + column + 8 * (first + j) + 2 * q) : float2{};
				for (int h = 0; h < 2; h++)
					if (next.turns[j]) next.angle[j][h] = rope[h][next.in];
				if (next.in += 4; next.in == half) next.in = 0, next.head++;
			}
		};
		request(0);
		Rows rows(e, row + lane / 8);
#pragma unroll
		for (int first = 0; first < GROUPS; first += PART) {
			__syncwarp();
#pragma unroll
			for (int j = 0; j < PART; j++) {
				if (first + j >= GROUPS) break;
				float a[2], b[2];
#pragma unroll
				for (int h = 0; h < 2; h++) {
					const float *y = c + 4 * (first + j) + 2 * h;
					a[h] = y[0] + next.bias[j % 4].x, b[h] = y[1] + next.bias[j % 4].y;
					if (next.turns[j % 4]) turn(next.angle[j % 4][h], a[h], b[h]);
				}
				words[r * LD + 4 * j + q] = pack_half(a[0], a[1]);
				words[(8 + r) * LD + 4 * j + q] = pack_half(b[0], b[1]);
				if (j % 4 == 3) request(first + j + 1);
			}
			__syncwarp();
			int j = lane % 8, n = column + 8 * (first + j);
			if (n >= e.cols || first + j >= GROUPS) continue;
			rows.to(n);
#pragma unroll
			for (int second = 0; second < 2; second++)
#pragma unroll
				for (int i = 0; i < 2; i++) {
					uint4 v = *reinterpret_cast<const uint4 *>(words + (8 * second + lane / 8 + 4 * i) * LD + 4 * j);
					rows.store(4 * i, second * half, upper(v));
					rows.store(4 * i + 8, second * half, lower(v));
				}
		}
	}

	// Rows are where queries, keys and values of the rows `first`, + 4, + 8 and + 12 go.
	struct Rows {
		const Epilogue &e;
		int first;
		half *kv[4];
		bool query;
		int64_t at; // of a column, in a row

		__device__ __forceinline__ Rows(const Epilogue &e, int first) : e(e), first(first) {
#pragma unroll
			for (int i = 0; i < 4; i++) {
				int slot = e.slots[min(first + 4 * i, e.rows - 1)];
				kv[i] = e.kv.base + (int64_t)(slot >> e.kv.block_shift) * e.kv.block + e.layer * e.kv.layer + (slot & (e.kv.block_size - 1)) * e.kv.token;
			}
		}
		__device__ __forceinline__ void to(int n) {
			int head = n / e.head_dim, h = head - e.heads;
			query = h < 0;
			at = query ? head * e.head_dim : h < e.kv_heads ? h * e.kv.head : e.kv.value + (h - e.kv_heads) * e.kv.head;
			at += (n - head * e.head_dim) / 2;
		}
		__device__ __forceinline__ void store(int below, int further, uint2 v) const {
			int m = first + below;
			if (m >= e.rows) return;
			half *row = query ? static_cast<half *>(e.out) + m * e.ld : kv[below / 4];
			*reinterpret_cast<uint2 *>(row + at + further) = v;
		}
	};

	// store turns 32 columns at a time. What RESIDUAL adds to is requested when those before are
	// added. A row's 32 are a line of memory, if BN is a multiple of 32: that is worth a quarter of
	// the product's time.
	template <bool ADDS> __device__ __forceinline__ void store(const float (&c)[N / 2]) const {
		int lane = threadIdx.x % 32, r = lane / 4, q = lane % 4, chunk = lane % 8, m = row + lane / 8, n = column + 4 * chunk;
		// place is where four columns lie: 16 threads' stores of two, and eight's loads of four,
		// fall into all banks.
		auto place = [&](int r, int chunk) { return reinterpret_cast<float4 *>(mine) + r * 8 + (chunk ^ r % 4 * 2); };
		float *out = static_cast<float *>(e.out);
		float4 was[4];
		auto request = [&](int base) {
			const float *at = out + min(n + base, e.cols - 4);
#pragma unroll
			for (int i = 0; i < 4; i++) was[i] = *reinterpret_cast<const float4 *>(at + min(m + 4 * i, e.rows - 1) * e.ld);
		};
		if (ADDS) request(0);
#pragma unroll
		for (int base = 0; base < N; base += 32) {
			__syncwarp();
#pragma unroll
			for (int j = 0; j < 4; j++)
				for (int h = 0; h < 2; h++)
					if (base / 8 + j < GROUPS) {
						int i = (base / 8 + j) * 4 + 2 * h;
						reinterpret_cast<float2 *>(place(r + 8 * h, 2 * j + q / 2))[q % 2] = make_float2(c[i], c[i + 1]);
					}
			__syncwarp();
			float4 y[4];
#pragma unroll
			for (int i = 0; i < 4; i++) {
				float4 v = *place(4 * i + lane / 8, chunk);
				y[i] = ADDS ? float4{was[i].x + v.x, was[i].y + v.y, was[i].z + v.z, was[i].w + v.w} : v;
			}
			if (ADDS && base + 32 < N) request(base + 32);
			if (n + base >= e.cols || base + 4 * chunk >= N) continue;
#pragma unroll
			for (int i = 0; i < 4; i++)
				if (m + 4 * i < e.rows) *reinterpret_cast<float4 *>(out + (m + 4 * i) * e.ld + n + base) = y[i];
		}
	}
};

#endif

} // namespace
