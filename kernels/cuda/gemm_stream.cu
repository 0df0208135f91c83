// Projection of 9 to 256 tokens on Hopper: y = x·wᵀ at the speed the weights
// stream.
//
// Layout: x [m][k] and w [n][k] bf16, k contiguous, read through tensor maps
// (SWIZZLE_128B; w: box 64 columns × 128 rows; x: 64 × 16, or 64 × 128 from 128 tokens on).
//
// Work: products are swapped: a tile is 128 weight rows, the M side of wgmma, × all
// tokens, MT of them at most, its N side. So every weight is read once. Two ways to
// deal tiles out:
//   few tiles (per = 0): a cluster has a tile, its CTAs a share of k each. Each
//     leaves its sums in its own shared memory, and each ends a share of the tile
//     with the sums of all, added in order of k.
//   many (per > 0): the steps of 64 columns of k of all tiles lie in one line, k innermost, of
//     which a CTA takes `per`. Pieces of a tile that a border cuts are left as
//     float partials; the last CTA to arrive adds them in order of k.
//
// CTA: two warpgroups of 64 weight rows × MT tokens in registers, and a producer
// that keeps a ring of steps filled: a warp, and two CTAs a multiprocessor, up to 64
// tokens; a warpgroup, which lends its registers, and one CTA beyond.
// Weights do not depend on the kernel before: they are requested before it has
// finished.
//
// Bytes: 2·n·k of weights once; 2·m·k of tokens a tile, from L2. FLOPs: 2·m·n·k.
// Measured: H100 80GB HBM3 (3.35 TB/s by its datasheet), 2026-11-25, in a graph with dependent
// launch, bench/stream.cu, 7B at 16 / 64 / 128 tokens: qkv 16.6 / 20.3 / 22.1 µs, o 12.7 /
// 16.3 / 17.7, gate_up 96.5 (2.81 TB/s: 84 %) / 106 / 108, down 49.9 (2.72) / 55.6 / 55.1.
#include "gemm.cuh"
#include "wgmma.cuh"

struct StreamParams {
	TensorMap x, w;
	GemmParams g; // x, w, ldx and ldw unused
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

	// each gives the outputs, eight weight rows of a token at a time, to
	// fn(token, row of the tile, values).
	template <class F> __device__ __forceinline__ void each(const float (&c)[MT / 2], F fn) {
		int lane = threadIdx.x % 32, r = lane / 4, q = lane % 4, row = threadIdx.x / 32 * 16;
#pragma unroll
		for (int base = 0; base < MT; base += 16) {
			__syncwarp();
#pragma unroll
			for (int j = 0; j < 2; j++)
				for (int i = 0; i < 4; i++) mine[(8 * j + 2 * q + i % 2) * LD + r + i / 2 * 8] = c[(base / 8 + j) * 4 + i];
			__syncwarp();
			const float4 *from = reinterpret_cast<const float4 *>(mine + lane % 16 * LD + lane / 16 * 8);
			float4 lo = from[0], hi = from[1];
			float y[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
			fn(base + lane % 16, row + lane / 16 * 8, y);
		}
	}
};

__device__ __forceinline__ void add8(float (&sum)[8], float4 lo, float4 hi) {
	sum[0] += lo.x, sum[1] += lo.y, sum[2] += lo.z, sum[3] += lo.w;
	sum[4] += hi.x, sum[5] += hi.y, sum[6] += hi.z, sum[7] += hi.w;
}

__device__ __forceinline__ void store8(float *to, const float (&y)[8]) {
	reinterpret_cast<float4 *>(to)[0] = make_float4(y[0], y[1], y[2], y[3]);
	reinterpret_cast<float4 *>(to)[1] = make_float4(y[4], y[5], y[6], y[7]);
}

__device__ __forceinline__ void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory"); }

// meet leaves a cut tile's partial sums, and ends the tile if the others are there.
template <class S, int MT> __device__ __forceinline__ void meet(const GemmParams &p, S &s, const float (&c)[MT / 2], int tile, bool begins, int steps) {
	__shared__ bool last;
	float *partial = p.partials + (int64_t)(2 * blockIdx.x + begins) * MT * BN;
	s.each(c, [&](int m, int n, const float (&y)[8]) { store8(partial + m * BN + n, y); });
	__threadfence();
	sync_consumers();
	int first = tile * steps / p.per, end = (tile * steps + steps - 1) / p.per;
	if (threadIdx.x == 0) {
		last = atomicAdd(p.counters + tile, 1) == end - first;
		if (last) p.counters[tile] = 0;
	}
	sync_consumers();
	if (last) {
		__threadfence();
#pragma unroll 2
		for (int g = threadIdx.x; g < MT * BN / 8; g += CONSUMERS) {
			int m = g / (BN / 8), n = g % (BN / 8) * 8;
			if (m >= p.m) break;
			float sum[8] = {};
#pragma unroll 2
			for (int cta = first; cta <= end; cta++) {
				const float4 *from = reinterpret_cast<const float4 *>(p.partials + ((int64_t)(2 * cta + (cta == first)) * MT + m) * BN + n);
				add8(sum, __ldcg(from), __ldcg(from + 1));
			}
			end8(p.e, p.kind, m, tile * BN + n, sum);
		}
	}
	sync_consumers(); // `last` may be written again
}

// share is the CTA's part of the tile that its cluster has.
template <class S, int MT> __device__ __forceinline__ void share(const GemmParams &p, const S &s, int tile, int rank, int size) {
	int groups = (MT * BN / 8 + size - 1) / size, end = min((rank + 1) * groups, MT * BN / 8);
	for (int g = rank * groups + threadIdx.x; g < end; g += CONSUMERS) {
		int m = g / (BN / 8), n = g % (BN / 8) * 8;
		if (m >= p.m) break;
		uint32_t at = s.ring + (m * S::TILE_LD + n) * 4;
		float sum[8] = {};
#pragma unroll 4
		for (int from = 0; from < size; from++) add8(sum, read_remote(at, from), read_remote(at + 16, from));
		end8(p.e, p.kind, m, tile * BN + n, sum);
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

	int steps = p.g.k / BK, rank = cluster_rank(), size = cluster_size(), at, end;
	if (p.g.per) {
		at = blockIdx.x * p.g.per, end = min(at + p.g.per, p.g.tiles * steps);
	} else {
		int tile = blockIdx.x / size;
		at = tile * steps + steps * rank / size, end = tile * steps + steps * (rank + 1) / size;
	}
	if (threadIdx.x >= CONSUMERS) {
		if constexpr (MT >= 128) fewer_registers<40>();
		if (threadIdx.x == CONSUMERS) {
			uint64_t policy = evict_first_policy();
			int early = min(end - at, STAGES);
			prefetch_map(p.x);
			for (int i = 0; i < early; i++, s.next()) s.copy_weights(p, (at + i) / steps, (at + i) % steps, policy);
			grid_wait();
			s.stage = s.parity = 0;
			for (int i = 0; i < early; i++, s.next()) s.copy_tokens(p, (at + i) % steps);
			for (int i = at + early; i < end; i++, s.next()) {
				barrier_wait(s.empty + 8 * s.stage, s.parity ^ 1);
				s.copy_weights(p, i / steps, i % steps, policy);
				s.copy_tokens(p, i % steps);
			}
		}
		grid_wait();
		grid_trigger();
		__syncwarp();
	} else {
		if constexpr (MT >= 128) more_registers<232>();
		grid_wait();
		float c[MT / 2];
		while (at < end) {
			int tile = at / steps, first = at % steps, count = min(steps - first, end - at);
			s.multiply(c, count);
			at += count;
			if (count == steps) {
				s.each(c, [&](int m, int n, const float (&y)[8]) { end8(p.g.e, p.g.kind, m, tile * BN + n, y); });
			} else if (p.g.per) {
				meet<S, MT>(p.g, s, c, tile, first == 0, steps);
			} else {
				sync_consumers(); // all products with the ring are done
				float *left = reinterpret_cast<float *>(s.memory);
				s.each(c, [&](int m, int n, const float (&y)[8]) { store8(left + m * S::TILE_LD + n, y); });
			}
		}
	}
	if (p.g.per || size == 1) return;
	cluster_sync();
	if (threadIdx.x < CONSUMERS) share<S, MT>(p.g, s, blockIdx.x / size, rank, size);
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
