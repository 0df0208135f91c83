// Projection of 9 to 256 tokens on Hopper: y = x·wᵀ at the speed the weights
// stream.
//
// Layout: x [m][k] and w [n][k] bf16, k contiguous, read through tensor maps
// (SWIZZLE_128B; w: box 64 columns × 128 rows; x: 64 × 16, or 64 × 128 from 128 tokens on).
//
// Work: products are swapped: a tile is 128 weight rows, the M side of wgmma, × all
// tokens, MT of them at most, its N side. So every weight is read once. A cluster of one to
// eight CTAs has a tile, each a share of k. Each leaves its sums in its own shared
// memory, and each ends a share of the tile with the sums of all, added in order of
// k.
//
// CTA: two warpgroups of 64 weight rows × MT tokens in registers, and a producer
// that keeps a ring of steps filled: a warp, and two CTAs a multiprocessor, up to 64
// tokens; a warpgroup, which lends its registers, and one CTA beyond.
// Weights do not depend on the kernel before: they are requested before it has
// finished.
//
// Bytes: 2·n·k of weights once; 2·m·k of tokens a tile, from L2. FLOPs: 2·m·n·k.
#include "gemm.cuh"
#include "wgmma.cuh"

struct StreamParams {
	TensorMap x, w;
	GemmParams g; // x, w, ldx, ldw and per unused
};
static_assert(sizeof(StreamParams) == 512 && offsetof(StreamParams, g) == 256, "gemm_sm90.go: sm90Params");

namespace {

constexpr int CONSUMERS = 256;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int BN = 128, BK = 64;
constexpr int WEIGHTS = BN * BK * 2; // bytes of a step

template <int MT, int STAGES> struct Stream {
	static constexpr int STAGE = WEIGHTS + MT * BK * 2, XBOX = MT < 128 ? 16 : 128;
	static constexpr int LD = 20, OUT = 16 * LD * 4; // a warp's 16 tokens × 16 rows on their way out
	static constexpr int TILE_LD = BN + 4;           // floats between tokens of a tile left in the ring
	static_assert(MT * TILE_LD * 4 <= STAGES * STAGE, "the ring holds a tile");

	uint32_t ring, full, empty; // in shared memory
	char *memory;               // the ring
	float *mine;                // the warp's OUT bytes
	int stage = 0, parity = 0;  // place in the ring

	__device__ __forceinline__ void next() {
		if (++stage == STAGES) stage = 0, parity ^= 1;
	}
	__device__ __forceinline__ void copy_weights(const StreamParams &p, int tile, int step, uint64_t policy) {
		barrier_expect(full + 8 * stage, STAGE);
		copy_box_once(ring + stage * STAGE, p.w, step * BK, tile * BN, full + 8 * stage, policy);
	}
	__device__ __forceinline__ void copy_tokens(const StreamParams &p, int step) {
#pragma unroll
		for (int i = 0; i < MT; i += XBOX) copy_box(ring + stage * STAGE + WEIGHTS + i * BK * 2, p.x, step * BK, i, full + 8 * stage);
	}

	// multiply adds `steps` steps of the ring into c.
	__device__ __forceinline__ void multiply(float (&c)[MT / 2], int steps) {
		int before = 0;
		for (int i = 0; i < steps; i++, next()) {
			barrier_wait(full + 8 * stage, parity);
			uint64_t a = operand(ring + stage * STAGE + threadIdx.x / 128 * 64 * BK * 2), b = operand(ring + stage * STAGE + WEIGHTS);
			wgmma_fence();
#pragma unroll
			for (int k = 0; k < BK / 16; k++) wgmma(c, a + 2 * k, b + 2 * k, i > 0 || k > 0);
			wgmma_commit();
			wgmma_wait<1>();
			if (i > 0 && threadIdx.x % 32 == 0) barrier_arrive(empty + 8 * before);
			before = stage;
		}
		wgmma_wait<0>();
		if (threadIdx.x % 32 == 0) barrier_arrive(empty + 8 * before);
	}

	// leave writes the sums to the ring, [token][row of the tile]: 16 rows of each
	// warp and 16 tokens at a time, turned in the warp's own part.
	__device__ __forceinline__ void leave(const float (&c)[MT / 2]) {
		int lane = threadIdx.x % 32, r = lane / 4, q = lane % 4, row = threadIdx.x / 32 * 16;
		float *to = reinterpret_cast<float *>(memory) + lane % 16 * TILE_LD + row + lane / 16 * 8;
#pragma unroll
		for (int base = 0; base < MT; base += 16) {
			__syncwarp();
#pragma unroll
			for (int j = 0; j < 2; j++)
				for (int i = 0; i < 4; i++) mine[(8 * j + 2 * q + i % 2) * LD + r + i / 2 * 8] = c[(base / 8 + j) * 4 + i];
			__syncwarp();
			const float4 *from = reinterpret_cast<const float4 *>(mine + lane % 16 * LD + lane / 16 * 8);
			reinterpret_cast<float4 *>(to + base * TILE_LD)[0] = from[0];
			reinterpret_cast<float4 *>(to + base * TILE_LD)[1] = from[1];
		}
	}
};

__device__ __forceinline__ void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory"); }

// share ends the CTA's part of the cluster's tile: groups of eight rows of a token,
// EACH of a thread at a time.
template <class S, int MT> __device__ __forceinline__ void share(const GemmParams &p, const S &s, int tile, int rank, int size) {
	constexpr int EACH = MT >= 64 ? 2 : 1;
	int groups = (p.m * (BN / 8) + size - 1) / size, end = min((rank + 1) * groups, p.m * (BN / 8));
	for (int base = rank * groups + threadIdx.x; base < end; base += EACH * CONSUMERS) {
		float sum[EACH][8] = {};
#pragma unroll 4
		for (int from = 0; from < size; from++)
#pragma unroll
			for (int i = 0; i < EACH; i++) {
				int g = min(base + i * CONSUMERS, end - 1);
				uint32_t at = s.ring + (g / (BN / 8) * S::TILE_LD + g % (BN / 8) * 8) * 4;
				add8(sum[i], read_remote(at, from), read_remote(at + 16, from));
			}
#pragma unroll
		for (int i = 0; i < EACH; i++) {
			int g = base + i * CONSUMERS;
			if (g < end) end8(p.e, p.kind, g / (BN / 8), tile * BN + g % (BN / 8) * 8, sum[i]);
		}
	}
}

template <int MT, int STAGES> __device__ __forceinline__ void project(const StreamParams &p) {
	using S = Stream<MT, STAGES>;
	extern __shared__ char memory[];
	S s;
	s.memory = reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(memory) + 1023) / 1024 * 1024);
	s.ring = shared_address(s.memory);
	s.mine = reinterpret_cast<float *>(s.memory + STAGES * S::STAGE + threadIdx.x / 32 * S::OUT);
	s.full = s.ring + STAGES * S::STAGE + 8 * S::OUT, s.empty = s.full + 8 * STAGES;
	if (threadIdx.x == 0) {
		for (int i = 0; i < STAGES; i++) {
			barrier_init(s.full + 8 * i, 1);
			barrier_init(s.empty + 8 * i, CONSUMERS / 32);
		}
		barriers_ready();
	}
	__syncthreads();

	int rank = cluster_rank(), size = cluster_size(), tile = blockIdx.x / size;
	int first = p.g.k / BK * rank / size, steps = p.g.k / BK * (rank + 1) / size - first;
	if (threadIdx.x >= CONSUMERS) {
		if constexpr (MT >= 128) fewer_registers<40>();
		if (threadIdx.x == CONSUMERS) {
			uint64_t policy = evict_first_policy();
			int early = min(steps, STAGES);
			prefetch_map(p.x);
			for (int i = 0; i < early; i++, s.next()) s.copy_weights(p, tile, first + i, policy);
			grid_wait();
			s.stage = s.parity = 0;
			for (int i = 0; i < early; i++, s.next()) s.copy_tokens(p, first + i);
			for (int i = early; i < steps; i++, s.next()) {
				barrier_wait(s.empty + 8 * s.stage, s.parity ^ 1);
				s.copy_weights(p, tile, first + i, policy);
				s.copy_tokens(p, first + i);
			}
		}
		grid_wait();
		grid_trigger();
		__syncwarp();
		cluster_sync();
	} else {
		if constexpr (MT >= 128) more_registers<232>();
		grid_wait();
		float c[MT / 2];
		s.multiply(c, steps);
		sync_consumers(); // all products with the ring are done
		s.leave(c);
		cluster_sync();
		share<S, MT>(p.g, s, tile, rank, size);
	}
	cluster_sync(); // the others may be reading
}

#else

template <int MT, int STAGES> __device__ void project(const StreamParams &) {}

#endif

} // namespace

#define STREAM(MT, STAGES, PRODUCERS, CTAS) \
	PG_KERNEL void __launch_bounds__(CONSUMERS + PRODUCERS, CTAS) gemm_stream_##MT(const __grid_constant__ StreamParams p) { project<MT, STAGES>(p); }

STREAM(16, 5, 32, 2)
STREAM(32, 5, 32, 2)
STREAM(64, 4, 32, 2)
STREAM(128, 6, 128, 1)
STREAM(256, 4, 128, 1)
