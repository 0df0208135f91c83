// Skinny projection, m ≤ 64 tokens: y = x·wᵀ at the speed the weights stream.
//
// Layout: w [k/64][n][64] and x [m][k] half. Products are swapped: the
// weights are the 16-row operand of mma.m16n8k16, tokens its 8 columns, so a
// single token wastes no row.
//
// Work: tiles of BN weight rows, cut along k into chunks. All chunks lie in one
// line, k innermost, and each CTA takes `per` of it: whole tiles where the tiles
// are many, pieces of tiles where they are few. A tile's pieces are left as float
// partials, and the last CTA to arrive adds them in order of k: the result depends on the
// shape alone.
//
// Or, on Hopper, a cluster of two to eight CTAs has a tile, each a share of k, and the sums go
// through shared memory to the CTAs that end them: see share. Partials, the counter
// and their reading back are three trips to L2. Of nineteen kernels in clusters that BenchmarkDeals
// had, of 16 to 64 rows and 8 to 64 tokens, four were ever the fastest by more than 0.1 %, none beyond 32 tokens.
//
// CTA: 4 warps; in each chunk warp w owns the w-th run of KS columns of k, of all
// BN rows and all tokens, with a ring of its own in shared memory (cp.async,
// 4 KiB of weights a stage), so that nothing is read twice from shared memory
// and no barrier stands in the main loop. The warps' sums meet, in order, where a
// piece ends; the ring runs on meanwhile. Weights do not depend on the kernel
// before: the first stages are requested before it has finished.
//
// The end of a residual in a cluster leaves what the norm behind it is made of, if the product behind that can (gemm_fold.cuh).
//
// A step's only token is normed here (gemm_norm.cuh): the kernels _normed_, of rows of up to 1,024,
// 2,048 and 4,096. Outside clusters they take no less shared memory than those without: three of their
// CTAs on one multiprocessor are one too few on another, which was 1.6 µs a product (1.5B gate_up, H100).
//
// Bytes: 2·n·k of weights once, 2·m·k of tokens a tile from L2, 8·k a CTA of a normed row. FLOPs: 2·m·n·k.
//
// Measured by what leaving it out of a step of one token saves (BenchmarkWithout, H100 80GB HBM3,
// 2026-11-26, weights in rows then, of 3.35 TB/s): 7B gate_up 88 µs, 93 %; down 48, 85 %; o 9, 85 %; qkv 13, 75 %; head 356, 91 %;
// 1.5B gate_up 18 µs, 89 %; 0.5B 6.4, 81 %. In clusters, the whole step of the 0.5B with one token 0.75 → 0.63 ms (2026-11-27,
// docs/performance.md, "Few tokens in clusters").
#include "gemm_skinny_clusters.cuh"

namespace {

// end_piece merges the warps' sums over chunks [begin, end) of a tile.
template <int KIND, class S, int BN, int MT>
__device__ __forceinline__ void end_piece(const GemmParams &p, const S &s, char *stages, int tile, int begin, int end, int chunks) {
	bool whole = begin == 0 && end == chunks;
	uint32_t mine = shared_address(stages) + threadIdx.x / 32 * S::RING;
#pragma unroll
	for (int round = 0; round < MT / S::ROUND; round++) {
		__syncwarp();
		s.leave(mine, round);
		__syncthreads();
		for (int g = threadIdx.x; g < BN * S::ROUND / 8; g += WARPS * 32) {
			int token = g / (BN / 8), row = g % (BN / 8) * 8, m = round * S::ROUND + token;
			if (m >= p.m) break;
			float sum[8] = {};
			for (int w = 0; w < WARPS; w++) {
				const float4 *from = reinterpret_cast<const float4 *>(reinterpret_cast<float *>(stages + w * S::RING) + S::merged(token, row));
				add8(sum, from[0], from[1]);
			}
			if (whole) epilogue8<KIND>(p.e, m, tile * BN + row, sum);
			else store8(partial_tile<MT, BN>(p, blockIdx.x, begin == 0) + m * BN + row, sum);
		}
		__syncthreads();
	}
	int first, last;
	if (!whole && last_of_tile(p, tile, chunks, threadIdx.x == 0, [] { __syncthreads(); }, first, last))
		end_cut_tile<KIND, MT, BN, WARPS * 32>(p, first, last, threadIdx.x, 0, tile * BN);
}

template <int KIND, int BN, int MT, int STAGES, int EACH = 0> __device__ __forceinline__ void project(const GemmParams &p, const NormedParams *normed = nullptr) {
	constexpr bool NORMED = EACH > 0;
	if (MT == 8) grid_trigger(); // with more tokens what begins is in the way (1.5B, 16: 2 %)
	using S = Skinny<BN, MT, STAGES, NORMED>;
	extern __shared__ __align__(128) char row[];
	char *memory = row + S::row(p.k);
	int warp = threadIdx.x / 32, chunks = (p.k + S::CHUNK - 1) / S::CHUNK;
	uint32_t ring = shared_address(memory) + warp * S::RING;
	uint64_t policy = evict_first_policy();
	S s;

	int first = blockIdx.x * p.per, count = min(p.per, p.tiles * chunks - first);
	int tile = first / chunks, chunk = first % chunks, ahead_tile = tile, ahead_chunk = chunk;
	auto column = [&](int at) { return at * S::CHUNK + warp * S::KS; }; // of k
	auto issue_weights = [&](int t, int at, int i) {
		if (column(at) < p.k) S::copy_weights(p, t, column(at), ring + i % STAGES * S::STAGE, policy);
	};
	typename S::template Tokens<> tokens(p);
	auto issue_tokens = [&](int at, int i) {
		if (column(at) < p.k) tokens.copy(p, column(at), ring + i % STAGES * S::STAGE);
	};
	auto advance = [&](int &t, int &at) {
		if (++at == chunks) at = 0, t++;
	};

	if constexpr (NORMED) {
		Norm<EACH> norm;
		norm.request(*normed);
#pragma unroll 1
		for (int i = 0; i < STAGES; i++) {
			if (i == S::EARLY) {
				grid_wait();
				norm.read(*normed);
			}
			if (i < count) {
				issue_weights(ahead_tile, ahead_chunk, i);
				advance(ahead_tile, ahead_chunk);
			}
			copy_commit();
		}
		norm.make(*normed, row, S::row(p.k));
	} else {
#pragma unroll 1
		for (int i = 0; i < S::EARLY && i < count; i++) {
			issue_weights(ahead_tile, ahead_chunk, i);
			advance(ahead_tile, ahead_chunk);
		}
		grid_wait(tokens.known(), s.known(), ring);
		if (MT > 8) grid_trigger();
		ahead_tile = tile, ahead_chunk = chunk;
#pragma unroll 1
		for (int i = 0; i < STAGES; i++) {
			if (i < count) {
				if (i >= S::EARLY) issue_weights(ahead_tile, ahead_chunk, i);
				issue_tokens(ahead_chunk, i);
				advance(ahead_tile, ahead_chunk);
			}
			copy_commit();
		}
	}

	int begin = chunk;
	for (int i = 0; i < count; i++) {
		int stage = i % STAGES * S::STAGE;
		copy_wait<STAGES - 1>();
		__syncwarp();
		if (column(chunk) < p.k) s.multiply(ring + stage, shared_address(row) + column(chunk) * 2);
		if (chunk + 1 == chunks || i + 1 == count) {
			end_piece<KIND, S, BN, MT>(p, s, memory + stage, tile, begin, chunk + 1, chunks);
			s.clear();
			begin = 0;
		}
		__syncwarp();
		if (i + STAGES < count) {
			issue_weights(ahead_tile, ahead_chunk, i);
			if (!NORMED) issue_tokens(ahead_chunk, i);
			advance(ahead_tile, ahead_chunk);
		}
		copy_commit();
		advance(tile, chunk);
	}
}

} // namespace

#define LINE(NAME, KIND, BN, MT, STAGES) \
	PG_KERNEL void __launch_bounds__(WARPS * 32, 2) gemm_skinny_##BN##_##MT##_##NAME(const __grid_constant__ GemmParams p) { project<KIND, BN, MT, STAGES>(p); }
#define CLUSTERS(NAME, KIND, BN, MT, STAGES) \
	PG_KERNEL void __launch_bounds__(WARPS * 32, 2) gemm_skinny_##BN##_##MT##_clusters_##NAME(const __grid_constant__ GemmParams p) { share<KIND, BN, MT, STAGES>(p); }

EACH_KIND(LINE, 16, 8, 4)
EACH_KIND(LINE, 32, 8, 5)
EACH_KIND(LINE, 32, 16, 5)
EACH_KIND(LINE, 64, 16, 5)
EACH_KIND(LINE, 64, 32, 4)
EACH_KIND(LINE, 64, 64, 3)
EACH_KIND(CLUSTERS, 16, 8, 4)
EACH_KIND(CLUSTERS, 32, 8, 5)
EACH_KIND(CLUSTERS, 32, 16, 5)
EACH_KIND(CLUSTERS, 32, 32, 3)

// Of one token, and its norm of up to WIDTH elements.
#define NORMED(NAME, KIND, BN, STAGES, WIDTH) \
	PG_KERNEL void __launch_bounds__(WARPS * 32, 2) gemm_skinny_##BN##_8_normed_##WIDTH##_##NAME(const __grid_constant__ NormedParams p) { project<KIND, BN, 8, STAGES, WIDTH / 512>(p.g, &p); } \
	PG_KERNEL void __launch_bounds__(WARPS * 32, 2) gemm_skinny_##BN##_8_normed_##WIDTH##_clusters_##NAME(const __grid_constant__ NormedParams p) { share<KIND, BN, 8, STAGES, WIDTH / 512>(p.g, &p); }
#define BEHIND_A_NORM(BN, STAGES, WIDTH) NORMED(swiglu, SWIGLU, BN, STAGES, WIDTH) NORMED(qkv, QKV, BN, STAGES, WIDTH)

BEHIND_A_NORM(16, 4, 1024)
BEHIND_A_NORM(16, 4, 2048)
BEHIND_A_NORM(16, 4, 4096)
BEHIND_A_NORM(32, 5, 1024)
BEHIND_A_NORM(32, 5, 2048)
BEHIND_A_NORM(32, 5, 4096)
