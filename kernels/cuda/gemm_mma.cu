// Projection of many tokens on mma.sync: y = x·wᵀ, every card from sm_80 on.
//
// Layout: x [m][k] and w [k/64][n][64] half, both with rows up to a whole
// tile, so nothing is masked but the stores.
//
// Work: tiles of BM tokens × BN outputs. With few tiles k is cut as well: all
// steps of 64 columns of k lie in one line, k innermost, and a CTA takes `per` of
// it; the pieces of a tile are left as float partials and the last CTA to arrive
// adds them in order of k. Tiles go n-major within groups of 8 tiles of tokens, so
// that CTAs under way at a time share rows in L2.
//
// CTA: warps WM × WN, each a block of fragments; a ring of STAGES steps of k in
// shared memory (cp.async), one barrier a step; the fragments of the next 16
// columns are loaded while those before are multiplied (CUTLASS's multistage
// pipeline). Each output is one chain of products in ascending k, whatever the
// tile: without cuts the configurations agree bit for bit.
//
// Bytes: 2·m·n·k·(1/BM + 1/BN) from L2. FLOPs: 2·m·n·k.
#include "gemm.cuh"

namespace {

constexpr int BK = 64, GROUP = 8;

// Offset of 16 bytes in a tile with rows of 64 columns.
__device__ __forceinline__ uint32_t swizzled(int row, int chunk) { return (row * 8 + (chunk ^ (row & 7))) * 16; }

template <int BM, int BN, int WM, int WN, int STAGES> struct Tile {
	static constexpr int THREADS = WM * WN * 32, TM = BM / WM, TN = BN / WN;
	static constexpr int STAGE = (BM + BN) * BK * 2;
	static constexpr int PARTS = BK / 16 - 1;
	static constexpr int LD = TN + 4; // floats between rows of a warp's output tile
	static_assert(WM * WN * 16 * LD * 4 <= STAGES * STAGE, "the ring holds the outputs");

	float c[TM / 16][TN / 8][4];
	uint32_t a[2][TM / 16][4], b[2][TN / 8][2];

	// copy starts one of the PARTS parts of a step's copy.
	static __device__ __forceinline__ void copy(const half *x, const half *w, int64_t ldx, uint32_t stage, int part) {
		constexpr int ROWS = THREADS / 8, X = (BM + ROWS - 1) / ROWS, ALL = X + BN / ROWS, EACH = (ALL + PARTS - 1) / PARTS;
		static_assert(BN % ROWS == 0, "whole copies");
		int chunk = threadIdx.x % 8, row = threadIdx.x / 8;
#pragma unroll
		for (int i = part * EACH; i < (part + 1) * EACH; i++) {
			if (i >= ALL) break;
			if (i < X) {
				if (BM % ROWS == 0 || row + i * ROWS < BM)
					copy_async(stage + swizzled(row, chunk) + i * ROWS * 128, x + (row + i * ROWS) * ldx + chunk * 8);
			} else {
				copy_async(stage + swizzled(row, chunk) + BM * 128 + (i - X) * ROWS * 128, w + (row + (i - X) * ROWS) * BK + chunk * 8);
			}
		}
	}

	__device__ __forceinline__ void load(uint32_t stage, int k, int buffer) {
		int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
		uint32_t tokens = stage, weights = stage + BM * BK * 2;
		int m = warp / WN * TM, n = warp % WN * TN;
#pragma unroll
		for (int i = 0; i < TM / 16; i++) load_matrices(a[buffer][i], tokens + swizzled(m + 16 * i + lane % 16, 2 * k + lane / 16));
#pragma unroll
		for (int j = 0; j < TN / 8; j += 2) {
			uint32_t four[4];
			load_matrices(four, weights + swizzled(n + 8 * j + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
			b[buffer][j][0] = four[0], b[buffer][j][1] = four[1], b[buffer][j + 1][0] = four[2], b[buffer][j + 1][1] = four[3];
		}
	}

	__device__ __forceinline__ void multiply(int buffer) {
#pragma unroll
		for (int i = 0; i < TM / 16; i++)
#pragma unroll
			for (int j = 0; j < TN / 8; j++) multiply_add(c[i][j], a[buffer][i], b[buffer][j][0], b[buffer][j][1]);
	}

	// run multiplies `steps` steps of k from x and w on into c.
	__device__ __forceinline__ void run(const half *x, const half *w, int64_t ldx, int64_t panel, int steps, uint32_t ring) {
#pragma unroll
		for (int i = 0; i < TM / 16; i++)
			for (int j = 0; j < TN / 8; j++)
				for (int l = 0; l < 4; l++) c[i][j][l] = 0;
		for (int i = 0; i < STAGES - 1; i++) {
			if (i < steps)
				for (int part = 0; part < PARTS; part++) copy(x + i * BK, w + i * panel, ldx, ring + i * STAGE, part);
			copy_commit();
		}
		copy_wait<STAGES - 2>();
		__syncthreads();
		load(ring, 0, 0);
		int now = 0, free = STAGES - 1; // stages of the ring
		x += (STAGES - 1) * BK, w += (STAGES - 1) * panel;
		for (int step = 0; step < steps; step++) {
#pragma unroll
			for (int k = 0; k < BK / 16; k++) {
				if (k == BK / 16 - 1) {
					copy_wait<STAGES - 2>();
					__syncthreads();
					now = now + 1 == STAGES ? 0 : now + 1;
				}
				load(ring + now * STAGE, (k + 1) % (BK / 16), (k + 1) & 1);
				// Every warp left the stage that was read last before this step began.
				if (k < PARTS && step + STAGES - 1 < steps) copy(x, w, ldx, ring + free * STAGE, k);
				if (k == PARTS - 1) copy_commit();
				multiply(k & 1);
			}
			free = free + 1 == STAGES ? 0 : free + 1;
			x += BK, w += panel;
		}
		copy_wait<0>();
		__syncthreads();
	}

	// each gives the tile's outputs, eight columns at a time, to fn(row, column,
	// values): 16 rows of each warp at a time through its part of the ring.
	template <class F> __device__ __forceinline__ void each(char *memory, F fn) const {
		int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
		float *mine = reinterpret_cast<float *>(memory) + warp * 16 * LD;
		constexpr int GROUPS = TN / 8, ROWS = 32 / GROUPS > 16 ? 16 : 32 / GROUPS;
#pragma unroll
		for (int i = 0; i < TM / 16; i++) {
			__syncwarp();
#pragma unroll
			for (int j = 0; j < TN / 8; j++)
				for (int h = 0; h < 2; h++)
					*reinterpret_cast<float2 *>(mine + (r + 8 * h) * LD + 8 * j + 2 * q) = make_float2(c[i][j][2 * h], c[i][j][2 * h + 1]);
			__syncwarp();
#pragma unroll
			for (int row = 0; row < 16; row += ROWS) {
				int at = row + lane / GROUPS, column = lane % GROUPS * 8;
				const float4 *from = reinterpret_cast<const float4 *>(mine + at * LD + column);
				float4 lo = from[0], hi = from[1];
				float y[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
				fn(warp / WN * TM + 16 * i + at, warp % WN * TN + column, y);
			}
		}
	}
};

// place turns a tile's number in the line into its row and column of tiles.
__device__ __forceinline__ void place(int tile, int rows, int columns, int &row, int &column) {
	int group = tile / (GROUP * columns), first = group * GROUP, height = min(GROUP, rows - first);
	int rest = tile - first * columns;
	row = first + rest % height;
	column = rest / height;
}

template <int KIND, int BM, int BN, int WM, int WN, int STAGES> __device__ __forceinline__ void project(const GemmParams &p) {
	using T = Tile<BM, BN, WM, WN, STAGES>;
	extern __shared__ __align__(128) char memory[];
	int rows = (p.m + BM - 1) / BM, steps = p.k / BK;
	int at = blockIdx.x * p.per, end = min(at + p.per, rows * p.tiles * steps);
	grid_wait();
	grid_trigger();
	while (at < end) {
		int tile = at / steps, first = at % steps, count = min(steps - first, end - at), row, column;
		place(tile, rows, p.tiles, row, column);
		T t;
		t.run(p.x + row * BM * p.ldx + first * BK, weight_at(p.w, p.panel, column * BN, first * BK), p.ldx, p.panel, count, shared_address(memory));
		at += count;
		if (count == steps) {
			t.each(memory, [&](int m, int n, const float (&y)[8]) { epilogue8<KIND>(p.e, row * BM + m, column * BN + n, y); });
			__syncthreads();
			continue;
		}
		float *mine = partial_tile<BM, BN>(p, blockIdx.x, first == 0);
		t.each(memory, [&](int m, int n, const float (&y)[8]) { store8(mine + m * BN + n, y); });
		int first_cta, last_cta;
		if (last_of_tile(p, tile, steps, threadIdx.x == 0, [] { __syncthreads(); }, first_cta, last_cta))
			end_cut_tile<KIND, BM, BN, T::THREADS>(p, first_cta, last_cta, threadIdx.x, row * BM, column * BN);
	}
}

} // namespace

#define KERNEL(NAME, KIND, BM, BN, CTAS, ...) \
	PG_KERNEL void __launch_bounds__(128, CTAS) gemm_mma_##BM##_##BN##_##NAME(const __grid_constant__ GemmParams p) { project<KIND, BM, BN, __VA_ARGS__>(p); }

EACH_KIND(KERNEL, 128, 128, 2, 2, 2, 3)
EACH_KIND(KERNEL, 16, 64, 3, 1, 4, 6)
