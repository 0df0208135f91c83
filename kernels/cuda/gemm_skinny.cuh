// The ring of a warp of gemm_skinny.cu, and its products.
#pragma once

#include "gemm_norm.cuh"
#include "wgmma.cuh"

namespace {

constexpr int WARPS = 4, WEIGHT_BYTES = 4096;
static_assert(Norm<1>::THREADS == WARPS * 32);

template <int BN, int MT, int STAGES, bool NORMED = false> struct Skinny {
	static constexpr int KS = WEIGHT_BYTES / 2 / BN;                       // columns of k of a stage
	static constexpr int CHUNK = WARPS * KS;                               // of all warps
	static constexpr int STAGE = WEIGHT_BYTES + (NORMED ? 0 : MT * KS * 2); // bytes
	static constexpr int RING = STAGES * STAGE;
	// row is the bytes of a normed token: whole runs, for the last one is read as a whole.
	static __device__ __forceinline__ int row(int k) { return NORMED ? (k + KS - 1) / KS * KS * 2 : 0; }
	static constexpr int EARLY = 2;                           // stages of weights before the wait
	static constexpr int ROUND = BN * MT * 4 <= STAGE ? MT : MT / 2; // tokens merged at a time
	static_assert(BN * ROUND * 4 <= STAGE && STAGES > EARLY, "a stage holds a merge");
	static_assert(CHUNK > KS && RING > STAGE); // of what clusters do not use nvcc warns

	float c[BN / 16][MT / 8][4];

	// Offset of 16 bytes in a tile of KS columns: ldmatrix reads eight rows from
	// eight different groups of banks.
	static __device__ __forceinline__ uint32_t swizzled(int row, int chunk) {
		constexpr int CHUNKS = KS / 8;
		if constexpr (CHUNKS >= 8) return (row * CHUNKS + (chunk ^ (row & 7))) * 16;
		else return (row * CHUNKS + (chunk ^ (row / 2 & 3))) * 16;
	}

	// copy_weights is for LANES threads of the warp, from a multiple of it on.
	template <int LANES = 32> static __device__ __forceinline__ void copy_weights(const GemmParams &p, int tile, int k, uint32_t stage, uint64_t policy) {
		constexpr int CHUNKS = KS / 8;
		int lane = threadIdx.x % LANES, chunk = lane % CHUNKS, row = lane / CHUNKS;
		const half *from = weight_at(p.w, p.panel, tile * BN + row, k + chunk * 8);
		bool valid = k + chunk * 8 < p.k;
#pragma unroll
		for (int i = 0; i < BN; i += LANES / CHUNKS)
			copy_async_once(stage + swizzled(row + i, chunk), from + i * 64, valid, policy);
	}

	// Tokens are those that LANES threads of the warp copy, from a multiple of it on: what their addresses are made of,
	// known once it is made. Behind a wait every instruction counts.
	template <int LANES = 32> struct Tokens {
		static constexpr int CHUNKS = KS / 8, ROWS = LANES / CHUNKS, EACH = MT / ROWS;
		static constexpr bool FEW = MT == 8; // most steps of up to eight tokens have one: code that is run through once is late
		static constexpr int PERIOD = FEW ? 1 : 8 / ROWS; // places repeat after eight rows
		const half *from; // the lane's first row
		int64_t step;     // to its next
		int row, column;  // its first, of m; in a run
		uint32_t place[PERIOD]; // of its rows in a stage

		__device__ __forceinline__ explicit Tokens(const GemmParams &p) {
			int lane = threadIdx.x % LANES;
			row = lane / CHUNKS, column = lane % CHUNKS * 8, step = ROWS * p.ldx, from = p.x + row * p.ldx + column;
			asm volatile("" : "+l"(from), "+l"(step), "+r"(row), "+r"(column)); // known here
			for (int i = 0; i < PERIOD; i++) {
				place[i] = WEIGHT_BYTES + swizzled(row + i * ROWS, lane % CHUNKS);
				asm volatile("" : "+r"(place[i]));
			}
		}
		__device__ __forceinline__ uint32_t known() const {
			uint32_t all = depends(from) | depends(step) | depends(row) | depends(column);
			for (int i = 0; i < PERIOD; i++) all |= place[i];
			return all;
		}
		// Rows past m are left as they are: they reach only columns nobody stores.
		__device__ __forceinline__ void copy(const GemmParams &p, int k, uint32_t stage) const {
			const half *at = from + k;
			int valid = k + column < p.k, rows = p.m - row;
			asm volatile("" : "+r"(valid));
			if constexpr (FEW) {
				if (rows > 0) copy_async(stage + place[0], at, valid);
#pragma unroll 1
				for (int i = ROWS; i < p.m; i += ROWS)
					if (i < rows) copy_async(stage + WEIGHT_BYTES + swizzled(row + i, column / 8), at += step, valid);
			} else {
#pragma unroll
				for (int i = 0; i < EACH; i++, at += step)
					if (i * ROWS < rows) copy_async(stage + place[i % PERIOD] + i / PERIOD * PERIOD * ROWS * CHUNKS * 16, at, valid);
			}
		}
	};

	__device__ __forceinline__ void clear() {
#pragma unroll
		for (int i = 0; i < BN / 16; i++)
			for (int j = 0; j < MT / 8; j++)
				for (int l = 0; l < 4; l++) c[i][j][l] = 0;
	}

	// Where the lane's matrices of the first columns lie in a stage, and its sums in a merge, known once this is made; matrices
	// repeat after four.
	static constexpr int PERIOD = KS / 16 < 4 ? KS / 16 : 4;
	uint32_t weights[PERIOD], tokens[PERIOD], left[BN < 32 ? 2 : 4];

	__device__ __forceinline__ Skinny() {
		int lane = threadIdx.x % 32;
		for (int k = 0; k < PERIOD; k++) {
			weights[k] = swizzled(lane % 16, 2 * k + lane / 16);
			tokens[k] = WEIGHT_BYTES + swizzled(MT == 8 ? lane % 8 : lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2);
			asm volatile("" : "+r"(weights[k]), "+r"(tokens[k]));
		}
		for (uint32_t group = 0; group < sizeof left / 4; group++) {
			left[group] = merged(lane % 4 * 2, lane / 4 + group * 8) * 4;
			asm volatile("" : "+r"(left[group]));
		}
		clear();
	}

	__device__ __forceinline__ uint32_t known() const {
		uint32_t all = 0;
		for (int k = 0; k < PERIOD; k++) all |= weights[k] | tokens[k];
		for (uint32_t place : left) all |= place;
		return all;
	}

	// Of a token that is normed, row is where its columns of this stage lie: all eight are that one.
	__device__ __forceinline__ void multiply(uint32_t stage, uint32_t row = 0) {
		constexpr int ROWS = 16 * KS * 2; // bytes of 16 rows
		int lane = threadIdx.x % 32;
#pragma unroll
		for (int k = 0; k < KS / 16; k++) {
			uint32_t b[MT / 8][2], after = k / PERIOD * PERIOD * 32; // bytes of the columns before
			if constexpr (NORMED) {
				load_matrix_pair(b[0], row + (2 * k + lane / 8 % 2) * 16);
			} else if constexpr (MT == 8) {
				load_matrix_pair(b[0], stage + tokens[k % PERIOD] + after);
			} else {
#pragma unroll
				for (int j = 0; j < MT / 16; j++) {
					uint32_t four[4];
					load_matrices(four, stage + tokens[k % PERIOD] + after + j * ROWS);
					b[2 * j][0] = four[0], b[2 * j][1] = four[1], b[2 * j + 1][0] = four[2], b[2 * j + 1][1] = four[3];
				}
			}
#pragma unroll
			for (int i = 0; i < BN / 16; i++) {
				uint32_t a[4];
				load_matrices(a, stage + weights[k % PERIOD] + after + i * ROWS);
#pragma unroll
				for (int j = 0; j < MT / 8; j++) multiply_add(c[i][j], a, b[j][0], b[j][1]);
			}
		}
	}

	// Index of (token, row) in a merge tile: groups of eight rows stay whole, and
	// a fragment's stores fall into different banks.
	static __device__ __forceinline__ int merged(int token, int row) { return token * BN + (row ^ ((token / 2 * 8) & (BN - 8) & 24)); }

	// leave writes the sums of the round's ROUND tokens to the warp's stage. left has the places of the first token's rows of
	// up to four groups of eight; all others lie a constant further.
	__device__ __forceinline__ void leave(uint32_t to, int round) const {
#pragma unroll
		for (int j = 0; j < MT / 8; j++) {
			if (j * 8 / ROUND != round) continue;
#pragma unroll
			for (int i = 0; i < BN / 16; i++)
#pragma unroll
				for (int l = 0; l < 4; l++) {
					constexpr int GROUPS = sizeof left / 4;
					int group = 2 * i + l / 2;
					write_shared(to + left[group % GROUPS] + ((j * 8 % ROUND + l % 2) * BN + group / GROUPS * GROUPS * 8) * 4, c[i][j][l]);
				}
		}
	}
};

} // namespace
