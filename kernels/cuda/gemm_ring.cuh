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
static_assert(sizeof(StreamParams) == 512 && offsetof(StreamParams, g) == 256 && offsetof(StreamParams, stages) == 456, "gemm_sm90.go: sm90Params");

namespace {

constexpr int CONSUMERS = 256;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int BK = 64; // columns of k of a panel; gemm_stream.cu: of a step

// Part is a tile, or steps first … first+steps−1 of one.
struct Part {
	int column, row, first, steps; // of the tile, in tiles
};

// Parts deals them out, the same to producer and consumers: a piece of a cut tile,
// then whole tiles; or the CTA's share of its cluster's tile.
struct Parts {
	int tiles, rows, steps, pieces, cut, at;

	__device__ __forceinline__ Parts(const GemmParams &p, int mt, int panels = 1) {
		rows = (p.m + mt - 1) / mt, tiles = p.tiles * rows, steps = (p.k / BK + panels - 1) / panels, pieces = p.per;
		cut = pieces > 0 ? tiles % gridDim.x : 0;
		at = pieces > 0 ? -1 : 0;
	}
	__device__ __forceinline__ Part part(int tile, int i, int of) const {
		int first = steps * i / of;
		return {tile / rows, tile % rows, first, steps * (i + 1) / of - first};
	}
	// cut_tile numbers the tile that the CTA has a piece of, if it has one.
	__device__ __forceinline__ int cut_tile() const { return blockIdx.x / pieces; }

	__device__ __forceinline__ bool next(Part &p) {
		int now = at++;
		if (pieces == 0) {
			p = part(blockIdx.x / cluster_size(), cluster_rank(), cluster_size());
			return now == 0;
		}
		if (now < 0) {
			if (cut_tile() < cut) {
				p = part(cut_tile(), blockIdx.x % pieces, pieces);
				return true;
			}
			now = at++;
		}
		int tile = cut + now * gridDim.x + blockIdx.x;
		p = part(tile, 0, 1);
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
// has finished.
template <class S> __device__ __forceinline__ void produce(const StreamParams &p, S &s, Parts parts) {
	uint64_t policy = evict_first_policy();
	Parts ahead = parts;
	Part t;
	int early = 0;
	prefetch_map(p.x);
	while (early < s.stages() && ahead.next(t))
		for (int i = 0; i < t.steps && early < s.stages(); i++, early++, s.next(s.stages())) s.copy_weights(p, t, i, policy);
	grid_wait();
	s.rewind();
	int done = 0;
	while (parts.next(t))
		for (int i = 0; i < t.steps; i++, done++, s.next(s.stages())) {
			if (done >= early) {
				if (done >= s.stages()) barrier_wait(s.empty + 8 * s.stage, s.parity ^ 1);
				s.copy_weights(p, t, i, policy);
			}
			s.copy_tokens(p, t, i);
		}
}

#endif

} // namespace
