// A tile of gemm_skinny.cu that a cluster has.
#pragma once

#include "gemm_fold.cuh"
#include "gemm_skinny.cuh"

namespace {

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
// The CTAs end the tokens in turn, in groups of eight sums. Each adds its warps', and sends them to the
// one that ends the token, without a barrier of the cluster, which would wait for memory; that
// adds them in order of k. Its barrier counts their bytes, so that it does not exit before.
template <int KIND, int BN, int MT, int STAGES, int EACH = 0> __device__ __forceinline__ void share(const GemmParams &p, const NormedParams *normed = nullptr) {
	grid_trigger(); // what does not depend on this may begin where there is room
	constexpr bool NORMED = EACH > 0;
	constexpr int LANES = NORMED ? 32 : 16; // that ask for weights
	using S = Skinny<BN, MT, STAGES, NORMED>;
	constexpr int OF = BN / 8, TURN = WARPS * S::STAGE;          // groups of a token; bytes between a warp's stages
	constexpr int SUMS = 128, HEAD = SUMS + OF * (MT + MOST) * 32; // before the ring: a barrier, and the sums of all CTAs for the groups that this one ends
	static_assert(S::ROUND == MT && OF * MT <= WARPS * 32, "a thread has a group at most");
	extern __shared__ __align__(128) char memory[];
	Over over;
	int rank = cluster_rank(), ctas = over.size, warp = threadIdx.x / 32;
	int tile = cluster_id(), runs = (p.k + S::KS - 1) / S::KS, less = over(runs), more = runs - less * ctas; // of them have one more
	int begin = rank * less + min(rank, more), first = begin + warp, end = begin + less + (rank < more);
	int before = HEAD + S::row(p.k), stages = (dynamic_shared() - before) / TURN; // before the ring
	uint32_t received = shared_address(memory), ring = received + before + warp * S::STAGE;
	int g = threadIdx.x, all = p.m * OF, token = g / OF, turn = over(token), to = token - turn * ctas; // the CTA that ends the thread's group
	int column = tile * BN + g % OF * 8;
	bool ends = g < all && to == rank;
	int most = pinned(over.up(p.m) * OF * 32);          // bytes of the groups that a CTA ends; sums are [CTA that sends][group]
	uint32_t sums = pinned(received + SUMS + (turn * OF + g % OF) * 32), mine = sums + rank * most, there = pinned(remote(mine, to)), barrier = pinned(remote(received, to));
	int next = ends ? most : 0; // a thread that only goes along reads what nobody writes
	sums = pinned(ends ? sums : received + SUMS / 2);
	uint32_t merged = pinned(received + before + S::merged(token, g % OF * 8) * 4);

	if (threadIdx.x == 0) {
		barrier_init(received, 1);
		barriers_ready();
		barrier_expect(received, (ctas - 1) * over.up(p.m - rank) * OF * 32);
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
	if (KIND == QKV && ends) qkv.request(p.e, token, column);
	typename S::template Tokens<16> tokens(p);
	float4 lo = {}, hi = {}, *residual = nullptr;
	if (KIND == RESIDUAL) residual = reinterpret_cast<float4 *>(static_cast<float *>(p.e.out) + pinned(token * static_cast<int>(p.e.ld) + column));
	bool adds = KIND == RESIDUAL && ends && column < p.e.cols;
	Folded<OF> folded;
	if (folds<KIND>(p.e) && adds) folded.request(p.e, column);
	asm volatile("" : "+r"(ring), "+r"(first), "+r"(end)); // known here
	S s;
	cluster_wait(); // all have their barriers
	grid_wait(NORMED ? 0 : tokens.known(), s.known(), ring, residual, adds, first, end, next, sums, mine, there, barrier, merged);
	if constexpr (NORMED) {
		norm.read(*normed);
		norm.make(*normed, memory + HEAD, S::row(p.k));
	} else if (!weights)
#pragma unroll 1
		for (int i = 0, run = first; i < stages; i++, run += WARPS) {
			if (run < end) tokens.copy(p, run * S::KS, ring + i * TURN);
			copy_commit();
		}
	if (adds) lo = residual[0], hi = residual[1];

#pragma unroll 1
	for (int run = first, stage = 0; run < end; run += WARPS) {
		uint32_t at = ring + stage * TURN;
		wait_but(stages - 1);
		__syncwarp();
		s.multiply(at, received + HEAD + run * S::KS * 2);
		__syncwarp();
		int ahead = run + stages * WARPS;
		if (ahead < end) {
			S::copy_weights(p, tile, ahead * S::KS, at, policy);
			if (!NORMED) typename S::template Tokens<>(p).copy(p, ahead * S::KS, at);
		}
		copy_commit();
		if (++stage == stages) stage = 0;
	}

	__syncwarp();
	s.leave(received + before + warp * S::STAGE, 0);
	__syncthreads();
	bool together = folds<KIND>(p.e); // warps are
	if (g >= all && !together) return;
	float y[8] = {};
#pragma unroll
	for (int w = 0; w < WARPS; w++) add8(y, read_shared(merged + w * S::STAGE), read_shared(merged + w * S::STAGE + 16));
	if (ends) {
		write_shared(mine, make_float4(y[0], y[1], y[2], y[3]));
		write_shared(mine + 16, make_float4(y[4], y[5], y[6], y[7]));
	} else {
		if (g < all) {
			send(there, make_float4(y[0], y[1], y[2], y[3]), barrier);
			send(there + 16, make_float4(y[4], y[5], y[6], y[7]), barrier);
		}
		if (!together) return;
	}
	barrier_wait(received, 0);
	float total[8] = {};
#pragma unroll 1
	for (int base = 0; base < ctas; base += 4) {
		float4 lo[4], hi[4]; // all are asked for before the first is waited for
#pragma unroll
		for (int j = 0; j < 4; j++) {
			uint32_t from = sums + min(base + j, ctas - 1) * next;
			lo[j] = read_shared_now(from), hi[j] = read_shared_now(from + 16);
		}
#pragma unroll
		for (int j = 0; j < 4; j++)
			if (j == 0 || base + j < ctas) add8(total, lo[j], hi[j]);
	}
	if constexpr (KIND == QKV) qkv.end(p.e, total);
	else if constexpr (KIND == RESIDUAL) {
		add8(total, lo, hi);
		if (adds) store8(reinterpret_cast<float *>(residual), total);
		if (together) folded.leave(p.e, adds, token * static_cast<uint32_t>(p.e.ld) + column, tile * p.e.rows + token, total);
	} else epilogue8<KIND>(p.e, token, column, total);
}

#else

template <int KIND, int BN, int MT, int STAGES, int EACH = 0> __device__ void share(const GemmParams &, const NormedParams * = nullptr) {}

#endif

} // namespace
