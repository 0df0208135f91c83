// What gemm_stream.cu and gemm_wide.cu have in common: products whose weights stream through
// a ring of steps, filled by a producer and emptied by two warpgroups; and how tiles are
// dealt out to CTAs.
#pragma once

#include "gemm.cuh"
#include "wgmma.cuh"

struct StreamParams {
	TensorMap x, w;
	GemmParams g; // x, w, ldx and panel unused; per: pieces of a cut tile, 0 in clusters
	// gemm_wide.cu: steps of the ring; panels of a step; rows of a box of x.
	int32_t stages, panels, box;
};
static_assert(sizeof(StreamParams) == 576 && offsetof(StreamParams, g) == 256 && offsetof(StreamParams, stages) == 504, "gemm_sm90.go: sm90Params");

namespace {

constexpr int CONSUMERS = 256;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int BK = 64; // columns of k of a panel; gemm_stream.cu: of a step

// Part is a tile, or steps first … first+steps−1 of one.
struct Part {
	int column, row, first, steps; // of the tile, in tiles
};

// Parts deals them out, the same to producer and consumers: the CTA's share of its cluster's tile;
// or whole tiles, before them, where tiles are CUT, a piece of one. What it takes to find the first
// is known before it is asked for. SHARED: they are clusters'.
template <bool SHARED, bool CUT = false> struct Parts {
	int tiles, rows, steps, pieces, cut = 0, at;
	Part shared = {}; // of a cluster's tile

	__device__ __forceinline__ Parts(const GemmParams &p, int mt, int panels = 1) {
		rows = (p.m + mt - 1) / mt, tiles = p.tiles * rows, steps = (p.k / BK + panels - 1) / panels, pieces = p.per;
		at = CUT ? -1 : 0;
		if constexpr (SHARED) {
			Over over;
			int i = cluster_rank();
			shared = part(cluster_id(), over(steps * i), over(steps * (i + 1)));
		} else if (CUT) cut = tiles % gridDim.x;
	}
	__device__ __forceinline__ Part part(int tile, int first, int end) const {
		int column = rows > 1 ? tile / rows : tile;
		return {column, tile - column * rows, first, end - first};
	}
	// cut_tile numbers the tile that the CTA has a piece of, if it has one.
	__device__ __forceinline__ int cut_tile() const { return blockIdx.x / pieces; }

	__device__ __forceinline__ bool next(Part &p) {
		int now = at++;
		if (SHARED) {
			p = shared;
			return now == 0;
		}
		if (CUT && now < 0) {
			if (cut_tile() < cut) {
				int i = blockIdx.x % pieces;
				p = part(cut_tile(), steps * i / pieces, steps * (i + 1) / pieces);
				return true;
			}
			now = at++;
		}
		int tile = cut + now * gridDim.x + blockIdx.x;
		p = part(tile, 0, steps);
		return tile < tiles;
	}
};

// Ring is a place in a ring of steps in shared memory. full[stage] completes when the
// stage's bytes are there, empty[stage] when all warps are done with it.
struct Ring {
	char *memory;               // at a multiple of 1 KiB
	uint32_t ring, full, empty; // in shared memory
	int stage = 0, parity = 0;

	__device__ __forceinline__ void next(int stages) {
		if (++stage == stages) stage = 0, parity ^= 1;
	}
	__device__ __forceinline__ void rewind() { stage = parity = 0; }

	// place finds the ring, and the barriers `bytes` behind its beginning.
	__device__ __forceinline__ void place(char *shared, int bytes, int stages) {
		memory = reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(shared) + 1023) / 1024 * 1024);
		ring = shared_address(memory);
		full = ring + bytes, empty = full + 8 * stages;
		asm volatile("" : "+r"(ring), "+r"(full), "+r"(empty)); // or the compiler makes them again at every step, ahead of its barrier
	}
	// make_barriers is for all threads, stages at least.
	__device__ __forceinline__ void make_barriers(int stages) {
		int i = threadIdx.x;
		if (i >= stages) return;
		barrier_init(full + 8 * i, 1);
		barrier_init(empty + 8 * i, CONSUMERS / 32);
		barriers_ready();
	}
	// release lets the stage be filled again.
	__device__ __forceinline__ void release(int stage) {
		if (threadIdx.x % 32 == 0) barrier_arrive(empty + 8 * stage);
	}
};

__device__ __forceinline__ void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory"); }

// produce fills the ring, first with weights, which are requested before the kernel before
// has finished; then the first tokens are a few instructions away.
template <class S, class P> __device__ __forceinline__ void produce(const StreamParams &p, S &s, P parts) {
	uint64_t policy = evict_first_policy();
	Part first;
	bool more = parts.next(first), beyond = more;
	Part t = first;
	int early = 0;
	prefetch_map(p.x);
	for (P ahead = parts; beyond && early < s.stages(); beyond = ahead.next(t))
#pragma unroll 1
		for (int i = 0; i < t.steps && early < s.stages(); i++, early++, s.next(s.stages())) s.copy_weights(p, t, i, policy);
	t = first;
	grid_wait();
	s.rewind();
	for (; more; more = parts.next(t)) {
		int i = 0;
#pragma unroll 1
		for (; early > 0 && i < t.steps; early--, i++, s.next(s.stages())) s.copy_tokens(p, t, i);
		for (; i < t.steps; i++, s.next(s.stages())) { // many steps: of small tiles the compiler must make several at once
			barrier_wait(s.empty + 8 * s.stage, s.parity ^ 1);
			s.copy_weights(p, t, i, policy);
			s.copy_tokens(p, t, i);
		}
	}
}

#endif

} // namespace
