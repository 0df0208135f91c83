// Projection of many tokens on Hopper: y = x·wᵀ by wgmma from tiles that the bulk
// tensor copy engine brings.
//
// Layout: x [m][k] and w [n][k] half, k contiguous, read through tensor maps (box
// 64 columns × 128 rows, SWIZZLE_128B); what lies past the maps reads as zero.
//
// Work: tiles of 128 tokens × BN outputs, taken in turn by one CTA a multiprocessor,
// n-major within groups of 8 tiles of tokens, so that those under way at a time share
// rows in L2.
//
// CTA: a producer warpgroup, one thread of which fills a ring of four or more steps,
// and two consumer warpgroups of 64 tokens × BN outputs in registers. They keep one
// step of products in flight. Outputs pass through shared memory to reach memory
// in wide stores; the producer is filling the next tile's ring meanwhile. Weights do
// not depend on the kernel before: they are requested before it has finished.
//
// Bytes: 2·m·n·k·(1/128 + 1/BN) from L2. FLOPs: 2·m·n·k.
#include "gemm.cuh"
#include "wgmma.cuh"

struct Sm90Params {
	TensorMap x, w;
	GemmParams g; // x, w, ldx, ldw and per unused
};
static_assert(sizeof(Sm90Params) == 512 && offsetof(Sm90Params, g) == 256, "gemm_sm90.go: sm90Params");

namespace {

constexpr int CONSUMERS = 2, THREADS = (CONSUMERS + 1) * 128; // warpgroups, and with the producer

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int BM = 128, BK = 64;
constexpr int BOX = 128 * BK * 2; // bytes

// Tiles deals the tiles out to the CTAs: the same to producer and consumers. row and
// column are the one under way.
struct Tiles {
	static constexpr int GROUP = 8; // rows of tiles
	int rows, columns, at, row, column;

	__device__ __forceinline__ explicit Tiles(const GemmParams &p) {
		rows = (p.m + BM - 1) / BM, columns = p.tiles, at = blockIdx.x;
	}
	__device__ __forceinline__ bool next() {
		if (at >= rows * columns) return false;
		int above = at / (GROUP * columns) * GROUP, height = min(GROUP, rows - above), rest = at - above * columns;
		row = above + rest % height;
		column = rest / height;
		at += gridDim.x;
		return true;
	}
};

template <int BN> struct Ring {
	static constexpr int STAGE = BOX + BN * BK * 2, STAGES = BN == 256 ? 4 : 6;
	static constexpr int LD = 40, OUT = 16 * LD * 4; // a warp's 16 rows × 32 columns on their way out
};

// Place is a position in the ring, and the parity of its round.
template <int BN> struct Place {
	int stage = 0, parity = 0;
	__device__ __forceinline__ void next() {
		if (++stage == Ring<BN>::STAGES) stage = 0, parity ^= 1;
	}
};

template <int BN> __device__ __forceinline__ void produce(const Sm90Params &p, uint32_t ring, uint32_t full, uint32_t empty) {
	using R = Ring<BN>;
	Tiles t(p.g);
	int steps = p.g.k / BK;
	auto weights = [&](int step, int stage) {
		barrier_expect(full + 8 * stage, R::STAGE);
		for (int i = 0; i < BN / 128; i++) copy_box(ring + stage * R::STAGE + (1 + i) * BOX, p.w, step * BK, t.column * BN + i * 128, full + 8 * stage);
	};
	auto tokens = [&](int step, int stage) { copy_box(ring + stage * R::STAGE, p.x, step * BK, t.row * BM, full + 8 * stage); };
	prefetch_map(p.x);
	prefetch_map(p.w);
	if (!t.next()) return;
	int early = min(steps, R::STAGES);
	for (int i = 0; i < early; i++) weights(i, i);
	grid_wait();
	for (int i = 0; i < early; i++) tokens(i, i);
	Place<BN> at;
	for (int i = 0; i < early; i++) at.next();
	int step = early;
	do {
		for (; step < steps; step++, at.next()) {
			barrier_wait(empty + 8 * at.stage, at.parity ^ 1);
			weights(step, at.stage);
			tokens(step, at.stage);
		}
		step = 0;
	} while (t.next());
}

// each gives the warpgroup's outputs, eight columns at a time, to fn(row, column,
// values), through the warp's part of shared memory.
template <int BN, class F> __device__ __forceinline__ void each(const float (&c)[BN / 2], float *mine, int group, F fn) {
	constexpr int LD = Ring<BN>::LD;
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, r = lane / 4, q = lane % 4;
#pragma unroll
	for (int base = 0; base < BN; base += 32) {
		__syncwarp();
#pragma unroll
		for (int j = 0; j < 4; j++)
			for (int h = 0; h < 2; h++) {
				int i = (base / 8 + j) * 4 + 2 * h;
				*reinterpret_cast<float2 *>(mine + (r + 8 * h) * LD + 8 * j + 2 * q) = make_float2(c[i], c[i + 1]);
			}
		__syncwarp();
#pragma unroll
		for (int half = 0; half < 2; half++) {
			int row = half * 8 + lane / 4, column = lane % 4 * 8;
			const float4 *from = reinterpret_cast<const float4 *>(mine + row * LD + column);
			float4 lo = from[0], hi = from[1];
			float y[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
			fn(group * 64 + warp * 16 + row, base + column, y);
		}
	}
}

template <int BN> __device__ __forceinline__ void consume(const Sm90Params &p, uint32_t ring, float *out, uint32_t full, uint32_t empty) {
	using R = Ring<BN>;
	int group = threadIdx.x / 128 - 1; // of consumers
	float *mine = out + (threadIdx.x / 32 - 4) * 16 * R::LD;
	grid_wait();
	Tiles t(p.g);
	int steps = p.g.k / BK;
	Place<BN> at;
	auto release = [&](int stage) { // of this warp
		if (threadIdx.x % 32 == 0) barrier_arrive(empty + 8 * stage);
	};
	float c[BN / 2];
	while (t.next()) {
		int before = 0; // the stage whose products may be under way
		for (int step = 0; step < steps; step++, at.next()) {
			barrier_wait(full + 8 * at.stage, at.parity);
			uint32_t stage = ring + at.stage * R::STAGE;
			uint64_t a = operand(stage + group * 64 * BK * 2), b = operand(stage + BOX);
			wgmma_fence();
#pragma unroll
			for (int k = 0; k < BK / 16; k++) wgmma(c, a + 2 * k, b + 2 * k, step > 0 || k > 0);
			wgmma_commit();
			wgmma_wait<1>();
			if (step > 0) release(before);
			before = at.stage;
		}
		wgmma_wait<0>();
		release(before);
		each<BN>(c, mine, group, [&](int m, int n, const float (&y)[8]) { end8(p.g.e, p.g.kind, t.row * BM + m, t.column * BN + n, y); });
	}
}

template <int BN> __device__ __forceinline__ void project(const Sm90Params &p) {
	using R = Ring<BN>;
	extern __shared__ char memory[];
	char *ring = reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(memory) + 1023) / 1024 * 1024);
	float *out = reinterpret_cast<float *>(ring + R::STAGES * R::STAGE);
	uint32_t full = shared_address(out) + CONSUMERS * 4 * R::OUT, empty = full + 8 * R::STAGES;
	if (threadIdx.x == 0) {
		for (int i = 0; i < R::STAGES; i++) {
			barrier_init(full + 8 * i, 1);
			barrier_init(empty + 8 * i, CONSUMERS * 4);
		}
		barriers_ready();
	}
	__syncthreads();
	if (threadIdx.x < 128) {
		fewer_registers<40>();
		if (threadIdx.x == 0) produce<BN>(p, shared_address(ring), full, empty);
		grid_wait();
		grid_trigger();
		__syncwarp();
	} else {
		more_registers<232>();
		consume<BN>(p, shared_address(ring), out, full, empty);
	}
}

#else

template <int BN> __device__ void project(const Sm90Params &) {}

#endif

} // namespace

PG_KERNEL void __launch_bounds__(THREADS, 1) gemm_sm90_256(const __grid_constant__ Sm90Params p) { project<256>(p); }
PG_KERNEL void __launch_bounds__(THREADS, 1) gemm_sm90_128(const __grid_constant__ Sm90Params p) { project<128>(p); }
