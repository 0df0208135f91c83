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
// and their reading back are three trips to L2. Of sixteen kernels in clusters that BenchmarkDeals
// had, of 16 to 64 rows and 8 to 64 tokens, four were ever the fastest, none beyond 32 tokens.
//
// CTA: 4 warps; in each chunk warp w owns the w-th run of KS columns of k, of all
// BN rows and all tokens, with a ring of its own in shared memory (cp.async,
// 4 KiB of weights a stage), so that nothing is read twice from shared memory
// and no barrier stands in the main loop. The warps' sums meet, in order, where a
// piece ends; the ring runs on meanwhile. Weights do not depend on the kernel
// before: the first stages are requested before it has finished.
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

	// copy_weights and copy_tokens are for LANES threads of the warp, from a multiple of it on.
	template <int LANES = 32> static __device__ __forceinline__ void copy_weights(const GemmParams &p, int tile, int k, uint32_t stage, uint64_t policy) {
		constexpr int CHUNKS = KS / 8;
		int lane = threadIdx.x % LANES, chunk = lane % CHUNKS, row = lane / CHUNKS;
		const half *from = weight_at(p.w, p.panel, tile * BN + row, k + chunk * 8);
		bool valid = k + chunk * 8 < p.k;
#pragma unroll
		for (int i = 0; i < BN; i += LANES / CHUNKS)
			copy_async_once(stage + swizzled(row + i, chunk), from + i * 64, valid, policy);
	}

	// first_token is where the lane's first row of tokens begins.
	template <int LANES = 32> static __device__ __forceinline__ const half *first_token(const GemmParams &p) {
		constexpr int CHUNKS = KS / 8;
		int lane = threadIdx.x % LANES;
		return p.x + lane / CHUNKS * p.ldx + lane % CHUNKS * 8;
	}
	// Rows past m are left as they are: they reach only columns nobody stores.
	template <int LANES = 32> static __device__ __forceinline__ void copy_tokens(const GemmParams &p, const half *from, int k, uint32_t stage) {
		constexpr int CHUNKS = KS / 8;
		int lane = threadIdx.x % LANES, chunk = lane % CHUNKS, row = lane / CHUNKS;
		bool valid = k + chunk * 8 < p.k;
		from += k;
#pragma unroll(MT == 8 ? 1 : MT) // most steps of up to eight tokens have one: code that is run through once is late
		for (int i = 0; i < MT; i += LANES / CHUNKS) {
			if (MT == 8 && i >= p.m) break;
			if (row + i < p.m) copy_async(stage + WEIGHT_BYTES + swizzled(row + i, chunk), from + i * p.ldx, valid);
		}
	}

	__device__ __forceinline__ void clear() {
#pragma unroll
		for (int i = 0; i < BN / 16; i++)
			for (int j = 0; j < MT / 8; j++)
				for (int l = 0; l < 4; l++) c[i][j][l] = 0;
	}

	// Of a token that is normed, row is where its columns of this stage lie: all eight are that one.
	__device__ __forceinline__ void multiply(uint32_t stage, uint32_t row = 0) {
		int lane = threadIdx.x % 32;
#pragma unroll
		for (int k = 0; k < KS / 16; k++) {
			uint32_t b[MT / 8][2];
			if constexpr (NORMED) {
				load_matrix_pair(b[0], row + (2 * k + lane / 8 % 2) * 16);
			} else if constexpr (MT == 8) {
				load_matrix_pair(b[0], stage + WEIGHT_BYTES + swizzled(lane % 8, 2 * k + lane / 8 % 2));
			} else {
#pragma unroll
				for (int j = 0; j < MT / 16; j++) {
					uint32_t four[4];
					load_matrices(four, stage + WEIGHT_BYTES + swizzled(16 * j + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
					b[2 * j][0] = four[0], b[2 * j][1] = four[1], b[2 * j + 1][0] = four[2], b[2 * j + 1][1] = four[3];
				}
			}
#pragma unroll
			for (int i = 0; i < BN / 16; i++) {
				uint32_t a[4];
				load_matrices(a, stage + swizzled(16 * i + lane % 16, 2 * k + lane / 16));
#pragma unroll
				for (int j = 0; j < MT / 8; j++) multiply_add(c[i][j], a, b[j][0], b[j][1]);
			}
		}
	}

	// Index of (token, row) in a merge tile: groups of eight rows stay whole, and
	// a fragment's stores fall into different banks.
	static __device__ __forceinline__ int merged(int token, int row) { return token * BN + (row ^ ((token / 2 * 8) & (BN - 8) & 24)); }

	// leave writes the sums of tokens first … first+ROUND−1 to the warp's stage.
	__device__ __forceinline__ void leave(float *to, int round) const {
		int lane = threadIdx.x % 32, r = lane / 4, q = lane % 4;
#pragma unroll
		for (int j = 0; j < MT / 8; j++) {
			if (j * 8 / ROUND != round) continue;
#pragma unroll
			for (int i = 0; i < BN / 16; i++)
				for (int l = 0; l < 4; l++) to[merged(j * 8 % ROUND + 2 * q + l % 2, 16 * i + r + l / 2 * 8)] = c[i][j][l];
		}
	}
};

// end_piece merges the warps' sums over chunks [begin, end) of a tile.
template <class S, int BN, int MT>
__device__ __forceinline__ void end_piece(const GemmParams &p, const S &s, char *stages, int tile, int begin, int end, int chunks) {
	bool whole = begin == 0 && end == chunks;
	char *mine = stages + threadIdx.x / 32 * S::RING;
#pragma unroll
	for (int round = 0; round < MT / S::ROUND; round++) {
		__syncwarp();
		s.leave(reinterpret_cast<float *>(mine), round);
		__syncthreads();
		for (int g = threadIdx.x; g < BN * S::ROUND / 8; g += WARPS * 32) {
			int token = g / (BN / 8), row = g % (BN / 8) * 8, m = round * S::ROUND + token;
			if (m >= p.m) break;
			float sum[8] = {};
			for (int w = 0; w < WARPS; w++) {
				const float4 *from = reinterpret_cast<const float4 *>(reinterpret_cast<float *>(stages + w * S::RING) + S::merged(token, row));
				add8(sum, from[0], from[1]);
			}
			if (whole) end8(p.e, p.kind, m, tile * BN + row, sum);
			else store8(partial_tile<MT, BN>(p, blockIdx.x, begin == 0) + m * BN + row, sum);
		}
		__syncthreads();
	}
	int first, last;
	if (!whole && last_of_tile(p, tile, chunks, threadIdx.x == 0, [] { __syncthreads(); }, first, last))
		end_cut_tile<MT, BN, WARPS * 32>(p, first, last, threadIdx.x, 0, tile * BN);
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int MOST = 8; // CTAs of a cluster

// dynamic_shared is the bytes of shared memory that the launch asked for.
__device__ __forceinline__ int dynamic_shared() {
	int n;
	asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(n));
	return n;
}

// wait_but is copy_wait for a number of groups that the kernel is not compiled for; beyond
// seven it waits for more than it must. By comparisons: of a switch the compiler makes a table of
// places to jump to, which takes longer.
template <int From = 0, int To = 7> __device__ __forceinline__ void wait_but(int pending) {
	constexpr int MIDDLE = (From + To + 1) / 2;
	if constexpr (From == To) copy_wait<From>();
	else if (pending < MIDDLE) wait_but<From, MIDDLE - 1>(pending);
	else wait_but<MIDDLE, To>(pending);
}

// share makes the CTA's share of its cluster's tile: runs of KS columns of k, dealt out first
// to the CTAs, one behind the other, then to their warps in turn. The ring, which has the
// stages that there is memory for, is filled with weights before the kernel before has
// finished. A thread's copies end in the order in which it asked for them: half of a warp
// asks for the weights, and the other for the tokens, so that the first tokens do not wait for
// the last weights. A token that is normed is no copy: all lanes ask for weights.
//
// The CTAs end the groups of eight sums in turn. Each adds its warps', and sends them to the
// one that ends the group, without a barrier of the cluster, which would wait for memory; that
// adds them in order of k. Its barrier counts their bytes, so that it does not exit before.
template <int BN, int MT, int STAGES, int EACH = 0> __device__ __forceinline__ void share(const GemmParams &p, const NormedParams *normed = nullptr) {
	grid_trigger(); // what does not depend on this may begin where there is room
	constexpr bool NORMED = EACH > 0;
	constexpr int LANES = NORMED ? 32 : 16; // that ask for weights
	using S = Skinny<BN, MT, STAGES, NORMED>;
	constexpr int OF = BN / 8, TURN = WARPS * S::STAGE;          // groups of a token; bytes between a warp's stages
	constexpr int SUMS = 128, HEAD = SUMS + (OF * MT + MOST) * 32; // before the ring: a barrier, and the sums of all CTAs for the groups that this one ends
	static_assert(S::ROUND == MT && OF * MT <= WARPS * 32, "a thread has a group at most");
	extern __shared__ __align__(128) char memory[];
	Over over;
	int rank = cluster_rank(), ctas = over.size, warp = threadIdx.x / 32;
	int tile = cluster_id(), runs = (p.k + S::KS - 1) / S::KS, less = over(runs), more = runs - less * ctas; // of them have one more
	int begin = rank * less + min(rank, more), first = begin + warp, end = begin + less + (rank < more);
	int before = HEAD + S::row(p.k), stages = (dynamic_shared() - before) / TURN; // before the ring
	uint32_t received = shared_address(memory), ring = received + before + warp * S::STAGE;
	int g = threadIdx.x, all = p.m * OF, of = over(g), to = g - of * ctas; // the group of the thread is the of-th that CTA `to` ends
	int token = g / OF, column = tile * BN + g % OF * 8;
	bool ends = g < all && to == rank;

	if (threadIdx.x == 0) {
		barrier_init(received, 1);
		barriers_ready();
		barrier_expect(received, (ctas - 1) * over(all - rank + ctas - 1) * 32);
	}
	cluster_arrive_relaxed();

	Norm<NORMED ? EACH : 1> norm;
	if constexpr (NORMED) norm.request(*normed);
	bool weights = threadIdx.x % 32 < LANES;
	uint64_t policy = evict_first_policy();
	if (weights)
		for (int i = 0, run = first; i < stages; i++, run += WARPS) {
			if (run < end) S::template copy_weights<LANES>(p, tile, run * S::KS, ring + i * TURN, policy);
			copy_commit();
		}
	// Behind the wait every instruction counts: most are not in the cache. So what can be known is.
	QkvEnd qkv;
	if (ends && p.kind == QKV) qkv.request(p.e, token, column);
	const half *tokens = S::template first_token<16>(p);
	const float4 *residual = ends && p.kind == RESIDUAL && column < p.e.cols ? reinterpret_cast<const float4 *>(static_cast<const float *>(p.e.out) + token * p.e.ld + column) : nullptr;
	asm volatile("" : "+l"(tokens), "+l"(residual)); // known here
	S s;
	s.clear();
	grid_wait();
	if constexpr (NORMED) {
		norm.read(*normed);
		norm.make(*normed, memory + HEAD, S::row(p.k));
	} else if (!weights)
#pragma unroll 1
		for (int i = 0, run = first; i < stages; i++, run += WARPS) {
			if (run < end) S::template copy_tokens<16>(p, tokens, run * S::KS, ring + i * TURN);
			copy_commit();
		}
	cluster_wait(); // all have their barriers. It empties the L1 cache.
	float4 lo = {}, hi = {};
	if (residual) lo = residual[0], hi = residual[1];

#pragma unroll 1
	for (int run = first, stage = 0; run < end; run += WARPS) {
		uint32_t at = ring + stage * TURN;
		wait_but(stages - 1);
		__syncwarp();
		s.multiply(at, received + HEAD + run * S::KS * 2);
		__syncwarp();
		int next = run + stages * WARPS;
		if (next < end) {
			S::copy_weights(p, tile, next * S::KS, at, policy);
			if (!NORMED) S::copy_tokens(p, S::first_token(p), next * S::KS, at);
		}
		copy_commit();
		if (++stage == stages) stage = 0;
	}

	__syncwarp();
	s.leave(reinterpret_cast<float *>(memory + before + warp * S::STAGE), 0);
	__syncthreads();
	if (g >= all) return;
	int most = over(all + ctas - 1), mine = SUMS + (rank * most + of) * 32; // groups that a CTA ends; sums are [CTA that sends][group]
	float y[8] = {};
	for (int w = 0; w < WARPS; w++) {
		const float4 *from = reinterpret_cast<const float4 *>(reinterpret_cast<float *>(memory + before + w * S::STAGE) + S::merged(token, g % OF * 8));
		add8(y, from[0], from[1]);
	}
	if (!ends) {
		uint32_t at = remote(received + mine, to), barrier = remote(received, to);
		send(at, make_float4(y[0], y[1], y[2], y[3]), barrier);
		send(at + 16, make_float4(y[4], y[5], y[6], y[7]), barrier);
		return;
	}
	store8(reinterpret_cast<float *>(memory + mine), y);
	barrier_wait(received, 0);
	const float4 *sums = reinterpret_cast<const float4 *>(memory + SUMS) + of * 2;
	float total[8] = {};
#pragma unroll 1
	for (int base = 0; base < ctas; base += 4)
#pragma unroll
		for (int j = 0; j < 4; j++) {
			const float4 *from = sums + min(base + j, ctas - 1) * most * 2;
			float4 a = from[0], b = from[1];
			if (base + j < ctas) add8(total, a, b);
		}
	if (p.kind == QKV) return qkv.end(p.e, total);
	if (p.kind == SWIGLU) return epilogue8<SWIGLU>(p.e, token, column, total);
	if (p.kind == RESIDUAL) add8(total, lo, hi);
	epilogue8<STORE>(p.e, token, column, total);
}

#else

template <int BN, int MT, int STAGES, int EACH = 0> __device__ void share(const GemmParams &, const NormedParams * = nullptr) {}

#endif

template <int BN, int MT, int STAGES, int EACH = 0> __device__ __forceinline__ void project(const GemmParams &p, const NormedParams *normed = nullptr) {
	constexpr bool NORMED = EACH > 0;
	if (MT == 8) grid_trigger(); // with more tokens what begins is in the way (1.5B, 16: 2 %)
	using S = Skinny<BN, MT, STAGES, NORMED>;
	extern __shared__ __align__(128) char row[];
	char *memory = row + S::row(p.k);
	int warp = threadIdx.x / 32, chunks = (p.k + S::CHUNK - 1) / S::CHUNK;
	uint32_t ring = shared_address(memory) + warp * S::RING;
	uint64_t policy = evict_first_policy();

	int first = blockIdx.x * p.per, count = min(p.per, p.tiles * chunks - first);
	int tile = first / chunks, chunk = first % chunks, ahead_tile = tile, ahead_chunk = chunk;
	auto column = [&](int at) { return at * S::CHUNK + warp * S::KS; }; // of k
	auto issue_weights = [&](int t, int at, int i) {
		if (column(at) < p.k) S::copy_weights(p, t, column(at), ring + i % STAGES * S::STAGE, policy);
	};
	auto issue_tokens = [&](int at, int i) {
		if (column(at) < p.k) S::copy_tokens(p, S::first_token(p), column(at), ring + i % STAGES * S::STAGE);
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
		grid_wait();
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

	S s;
	s.clear();
	int begin = chunk;
	for (int i = 0; i < count; i++) {
		int stage = i % STAGES * S::STAGE;
		copy_wait<STAGES - 1>();
		__syncwarp();
		if (column(chunk) < p.k) s.multiply(ring + stage, shared_address(row) + column(chunk) * 2);
		if (chunk + 1 == chunks || i + 1 == count) {
			end_piece<S, BN, MT>(p, s, memory + stage, tile, begin, chunk + 1, chunks);
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

#define SKINNY(BN, MT, STAGES) \
	PG_KERNEL void __launch_bounds__(WARPS * 32, 2) gemm_skinny_##BN##_##MT(const __grid_constant__ GemmParams p) { project<BN, MT, STAGES>(p); }
#define CLUSTERS(BN, MT, STAGES) \
	PG_KERNEL void __launch_bounds__(WARPS * 32, 2) gemm_skinny_##BN##_##MT##_clusters(const __grid_constant__ GemmParams p) { share<BN, MT, STAGES>(p); }

SKINNY(16, 8, 4)
SKINNY(32, 8, 5)
SKINNY(32, 16, 5)
SKINNY(64, 16, 5)
SKINNY(64, 32, 4)
SKINNY(64, 64, 3)
CLUSTERS(16, 8, 4)
CLUSTERS(32, 8, 5)
CLUSTERS(32, 16, 5)
CLUSTERS(32, 32, 3)

// Of one token, and its norm of up to WIDTH elements.
#define SKINNY_NORMED(BN, STAGES, WIDTH) \
	PG_KERNEL void __launch_bounds__(WARPS * 32, 2) gemm_skinny_##BN##_8_normed_##WIDTH(const __grid_constant__ NormedParams p) { project<BN, 8, STAGES, WIDTH / 512>(p.g, &p); } \
	PG_KERNEL void __launch_bounds__(WARPS * 32, 2) gemm_skinny_##BN##_8_normed_##WIDTH##_clusters(const __grid_constant__ NormedParams p) { share<BN, 8, STAGES, WIDTH / 512>(p.g, &p); }

SKINNY_NORMED(16, 4, 1024)
SKINNY_NORMED(16, 4, 2048)
SKINNY_NORMED(16, 4, 4096)
SKINNY_NORMED(32, 5, 1024)
SKINNY_NORMED(32, 5, 2048)
SKINNY_NORMED(32, 5, 4096)
