// Projection of few tokens on Hopper: y = x·wᵀ at the speed the weights stream.
//
// Layout: x [m][k] and w [k/64][n][64] half, read through tensor maps of panels of 64 columns
// (SWIZZLE_128B; w: boxes of 128 rows; x: of MT, since several small boxes a step take the copy
// engine longer).
//
// Work: products are swapped: a tile is BN weight rows, the M side of wgmma, × MT tokens,
// its N side. Where all tokens fit a tile every weight is read once. Two ways to deal:
//   - Few tiles: a cluster of two to eight CTAs has a tile, each a share of k (the kernels _clusters). Each leaves
//     its sums in its own shared memory, and each ends a share of the tile with the sums of
//     all.
//   - Many tiles: as many CTAs as multiprocessors, each with equally many whole tiles. What
//     tiles remain are cut along k, and each CTA begins with a piece of one, leaves its
//     sums in global memory, and at last ends its share of the tile.
// Sums are added in order of k, so that a result depends on the shape alone.
//
// CTA: one a multiprocessor; two warpgroups of BN/2 weight rows × MT tokens in registers,
// and a producer warp that keeps a ring of steps filled. Weights do not depend on the kernel
// before: they are requested before it has finished.
//
// Bytes: 2·n·k of weights once; 2·m·k of tokens a tile, from L2, which gives 5.9 TB/s to
// all. FLOPs: 2·m·n·k. (Clusters that share their tokens by multicast were tried, with a
// fence of all of memory at every step: 140 µs against 75 for gate_up of the 7B and 64 tokens.)
//
// Measured (kernels-test time stream, H100 80GB HBM3, 2026-11-27, weights in rows then): 7B down 59 µs at 192 tokens,
// 69 % of 3.35 TB/s. (Tiles of 256 tokens, with the registers of a whole warpgroup of producers, lost to
// gemm_sm90.cu: down 0.5 % of a step of 256 tokens. Tiles of 32 tokens: gemm_skinny.cu and gemm_wide.cu are
// ahead of them with 32 tokens in all products of the three models, BenchmarkDeals, H200, H100, 2026-11-27.)
// H200, 2026-11-29: 7B down 41.4, 41.8 and 42.0 µs at 136, 144 and 160 tokens in tiles of 160, 44.2, 45.1 and 46.3 in those of 192.
// At 200 and 224 tokens 52.9 and 54.4 in tiles of 224, in clusters of four. (Tiles of 256 × 64 nothing chose; of 96 and 144 tokens they
// gained nothing over gemm_wide.cu's and those of 160; of 208, 2 µs less than those of 224, for few numbers of tokens.)
#include "gemm_ring.cuh"

namespace {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int BOX = 128 * BK * 2; // bytes of a box of weights

template <int BN, int MT, int STAGES> struct Stream : Ring {
	static constexpr int WEIGHTS = BN * BK * 2, STAGE = WEIGHTS + MT * BK * 2;
	static constexpr int SLABS = BN / 128, TOKENS = MT; // slabs: of 64 rows of a warpgroup
	static constexpr int LD = 20, OUT = 16 * LD * 4; // a warp's 16 tokens × 16 rows on their way out
	static constexpr int TILE_LD = BN + 4;           // floats between tokens of a tile left in the ring
	static_assert(MT * TILE_LD * 4 <= STAGES * STAGE, "the ring holds a tile");

	float *mine; // the warp's OUT bytes
	float c[SLABS][MT / 2];

	static __device__ __forceinline__ constexpr int stages() { return STAGES; }
	__device__ __forceinline__ void copy_weights(const StreamParams &p, const Part &t, int i, uint64_t policy) {
		barrier_expect(full + 8 * stage, STAGE);
#pragma unroll
		for (int b = 0; b < BN / 128; b++)
			copy_panels_once(ring + stage * STAGE + b * BOX, p.w, t.first + i, t.column * BN + b * 128, full + 8 * stage, policy);
	}
	__device__ __forceinline__ void copy_tokens(const StreamParams &p, const Part &t, int i) {
		copy_panels(ring + stage * STAGE + WEIGHTS, p.x, t.first + i, t.row * MT, full + 8 * stage);
	}

	// multiply sums the steps of the ring into c.
	__device__ __forceinline__ void multiply(int steps) {
		int before = 0, group = uniform(threadIdx.x / 128);
		for (int i = 0; i < steps; i++, next(STAGES)) {
			barrier_wait(full + 8 * stage, parity);
			uint32_t at = uniform(ring + stage * STAGE);
			uint64_t a = operand(at + group * SLABS * 64 * BK * 2), b = operand(at + WEIGHTS);
			wgmma_fence();
#pragma unroll
			for (int k = 0; k < BK / 16; k++)
#pragma unroll
				for (int j = 0; j < SLABS; j++) wgmma(c[j], a + j * (64 * BK * 2 >> 4) + 2 * k, b + 2 * k, i > 0 || k > 0);
			wgmma_commit();
			wgmma_wait<1>();
			if (i > 0) release(before);
			before = stage;
		}
		wgmma_wait<0>();
		release(before);
	}

	// each gives the sums, eight rows of a token at a time, to fn(token, row, values), turned in
	// the warp's own part of shared memory.
	template <class F> __device__ __forceinline__ void each(F fn) {
		int lane = threadIdx.x % 32, r = lane / 4, q = lane % 4, warp = threadIdx.x / 32;
#pragma unroll
		for (int slab = 0; slab < SLABS; slab++)
#pragma unroll
			for (int base = 0; base < MT; base += 16) {
				__syncwarp();
#pragma unroll
				for (int j = 0; j < 2; j++)
					for (int i = 0; i < 4; i++) mine[(8 * j + 2 * q + i % 2) * LD + r + i / 2 * 8] = c[slab][(base / 8 + j) * 4 + i];
				__syncwarp();
				const float4 *from = reinterpret_cast<const float4 *>(mine + lane % 16 * LD + lane / 16 * 8);
				float4 lo = from[0], hi = from[1];
				float y[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
				fn(base + lane % 16, (warp / 4 * SLABS + slab) * 64 + warp % 4 * 16 + lane / 16 * 8, y);
			}
	}
};

// leave_tile writes the sums to the CTA's ring, [token][row]: a warp's 32 stores at a time
// fall into 32 banks.
template <class S> __device__ __forceinline__ void leave_tile(S &s) {
	int lane = threadIdx.x % 32, r = lane / 4, q = lane % 4, warp = threadIdx.x / 32;
	float *tile = reinterpret_cast<float *>(s.memory);
#pragma unroll
	for (int slab = 0; slab < S::SLABS; slab++) {
		float *to = tile + 2 * q * S::TILE_LD + (warp / 4 * S::SLABS + slab) * 64 + warp % 4 * 16 + r;
#pragma unroll
		for (int j = 0; j < S::TOKENS / 8; j++)
			for (int i = 0; i < 4; i++) to[(8 * j + i % 2) * S::TILE_LD + i / 2 * 8] = s.c[slab][j * 4 + i];
	}
}

// share ends the CTA's part of the cluster's tile, which all left in their rings: groups of
// eight weights' sums of a token. Most of its time is latency: a thread requests all of a
// group at once, and lets the others go before it ends its last.
template <int KIND, int BN, int MT, class S> __device__ __forceinline__ void share(const GemmParams &p, const S &s, const Part &t) {
	constexpr int OF = BN / 8, MOST = 8; // CTAs of a cluster
	int rank = cluster_rank(), size = cluster_size(), all = min(MT, p.m - t.row * MT) * OF;
	int groups = Over().up(all), end = min((rank + 1) * groups, all);
	auto row = [&](int g) { return t.row * MT + g / OF; };
	auto column = [&](int g) { return t.column * BN + g % OF * 8; };
	int g = rank * groups + threadIdx.x;
	cluster_sync();
	bool reads = true;
	for (; g < end; g += CONSUMERS) {
		uint32_t at = s.ring + (g / OF * S::TILE_LD + g % OF * 8) * 4;
		float4 lo[MOST], hi[MOST];
#pragma unroll
		for (int from = 0; from < MOST; from++)
			if (from < size) lo[from] = read_remote(at, from), hi[from] = read_remote(at + 16, from);
		float sum[8] = {};
#pragma unroll
		for (int from = 0; from < MOST; from++)
			if (from < size) add8(sum, lo[from], hi[from]);
		if (reads = g + CONSUMERS < end; !reads) cluster_arrive(); // the others may go
		epilogue8<KIND>(p.e, row(g), column(g), sum);
	}
	if (reads) cluster_arrive();
	cluster_wait();
}

// leave_piece writes the sums of the CTA's piece of a cut tile, [token][row], and counts it.
template <int BN, int MT, class S> __device__ __forceinline__ void leave_piece(const GemmParams &p, S &s, const Parts<false, true> &parts, const Part &t) {
	float *to = p.partials + (int64_t)blockIdx.x * BN * MT;
	int rows = min(MT, p.m - t.row * MT);
	s.each([&](int token, int row, const float (&y)[8]) {
		if (token < rows) store8(to + token * BN + row, y);
	});
	__threadfence();
	sync_consumers();
	if (threadIdx.x == 0) atomicAdd(p.counters + parts.cut_tile(), 1);
}

// end_pieces ends the CTA's share of its cut tile, when it has done all else: the other
// pieces, with which their CTAs began, are there or soon will be. All CTAs are under way
// at a time, since the next grid's start after all of this one's have. The last to count
// itself a second time leaves the counter at zero.
template <int KIND, int BN, int MT> __device__ __forceinline__ void end_pieces(const GemmParams &p, const Parts<false, true> &parts, const Part &t) {
	constexpr int EACH = MT >= 64 ? 4 : MT / 16, OF = BN / 8;
	volatile int32_t *counter = p.counters + parts.cut_tile();
	if (threadIdx.x == 0)
		while (*counter < parts.pieces) {}
	sync_consumers();
	__threadfence();
	int all = min(MT, p.m - t.row * MT) * OF, groups = (all + parts.pieces - 1) / parts.pieces, mine = blockIdx.x % parts.pieces;
	int end = min((mine + 1) * groups, all);
	const float *pieces = p.partials + (int64_t)parts.cut_tile() * parts.pieces * BN * MT;
	for (int base = mine * groups + threadIdx.x; base < end; base += EACH * CONSUMERS) {
		float sum[EACH][8] = {};
#pragma unroll 2
		for (int from = 0; from < parts.pieces; from++)
#pragma unroll
			for (int i = 0; i < EACH; i++) {
				const float4 *at = reinterpret_cast<const float4 *>(pieces + (int64_t)from * BN * MT) + 2 * min(base + i * CONSUMERS, end - 1);
				add8(sum[i], __ldcg(at), __ldcg(at + 1));
			}
#pragma unroll
		for (int i = 0; i < EACH; i++) {
			int g = base + i * CONSUMERS;
			if (g < end) epilogue8<KIND>(p.e, t.row * MT + g / OF, t.column * BN + g % OF * 8, sum[i]);
		}
	}
	sync_consumers();
	if (threadIdx.x == 0 && atomicAdd(p.counters + parts.cut_tile(), 1) == 2 * parts.pieces - 1) *counter = 0;
}

template <int KIND, bool SHARED, int BN, int MT, int STAGES> __device__ __forceinline__ void project(const StreamParams &p) {
	grid_trigger(); // what does not depend on this may begin where there is room
	using S = Stream<BN, MT, STAGES>;
	extern __shared__ char memory[];
	S s;
	s.place(memory, STAGES * S::STAGE + 8 * S::OUT, STAGES);
	s.mine = reinterpret_cast<float *>(s.memory + STAGES * S::STAGE + threadIdx.x / 32 * S::OUT);
	Parts<SHARED, !SHARED> parts(p.g, MT);
	s.make_barriers(STAGES);
	__syncthreads();

	if (threadIdx.x >= CONSUMERS) {
		if (threadIdx.x == CONSUMERS) produce(p, s, parts);
		grid_wait();
		__syncwarp();
		if (SHARED) {
			cluster_sync();
			cluster_arrive();
			cluster_wait();
		}
	} else {
		Part t = {};
		bool more = parts.next(t);
		grid_wait();
		if constexpr (!SHARED) {
			Part piece = {};
			for (; more; more = parts.next(t)) {
				s.multiply(t.steps);
				if (t.steps < parts.steps) leave_piece<BN, MT>(p.g, s, parts, piece = t);
				else s.each([&](int token, int row, const float (&y)[8]) { epilogue8<KIND>(p.g.e, t.row * MT + token, t.column * BN + row, y); });
			}
			if (piece.steps > 0) end_pieces<KIND, BN, MT>(p.g, parts, piece);
		} else {
			s.multiply(t.steps);
			sync_consumers(); // all products with the ring are done
			leave_tile(s);
			share<KIND, BN, MT>(p.g, s, t);
		}
	}
}

#else

template <int, bool, int, int, int> __device__ void project(const StreamParams &) {}

#endif

} // namespace

#define KERNEL(NAME, KIND, BN, MT, STAGES) \
	PG_KERNEL void __launch_bounds__(CONSUMERS + 32, 1) gemm_stream_##BN##_##MT##_##NAME(const __grid_constant__ StreamParams p) { project<KIND, false, BN, MT, STAGES>(p); } \
	PG_KERNEL void __launch_bounds__(CONSUMERS + 32, 1) gemm_stream_##BN##_##MT##_clusters_##NAME(const __grid_constant__ StreamParams p) { project<KIND, true, BN, MT, STAGES>(p); }
#define STREAM(BN, MT, STAGES) EACH_KIND(KERNEL, BN, MT, STAGES)
// Not every size is of use for every kind (gemm_stream.go, streamVariants).
#define RESIDUAL_ONLY(BN, MT, STAGES) KERNEL(residual, RESIDUAL, BN, MT, STAGES)
#define RESIDUAL_QKV(BN, MT, STAGES) RESIDUAL_ONLY(BN, MT, STAGES) KERNEL(qkv, QKV, BN, MT, STAGES)

STREAM(128, 16, 11)
STREAM(128, 64, 8)
STREAM(128, 128, 6)
RESIDUAL_QKV(128, 160, 5)
STREAM(128, 192, 5)
RESIDUAL_ONLY(128, 224, 4)
