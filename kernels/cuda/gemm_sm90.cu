// Projection of many tokens on Hopper: y = x·wᵀ by wgmma from tiles that the bulk
// tensor copy engine brings.
//
// Layout: x [m][k] and w [n][k] bf16, k contiguous, read through tensor maps (box
// 64 columns × 128 rows, SWIZZLE_128B); what lies past the maps reads as zero.
//
// Work: tiles of 128 tokens × BN outputs. One CTA a multiprocessor. Whole tiles are
// taken in turn, n-major within groups of 8 tiles of tokens, so that those under
// way at a time share rows in L2. With few tiles (per > 0) k is cut: the steps
// of 64 columns of all tiles lie in one line, of which a CTA takes `per`; the
// pieces of a tile are left as float partials and the last CTA to arrive adds them in
// order of k.
//
// CTA: a producer warpgroup, one thread of which fills a ring of four or more steps,
// and two consumer warpgroups of 64 tokens × BN outputs in registers. They keep one
// step of products in flight. Outputs pass through shared memory to reach memory
// in wide stores; the producer is filling the next tile's ring meanwhile. Weights do
// not depend on the kernel before: they are requested before it has finished.
//
// Bytes: 2·m·n·k·(1/128 + 1/BN) from L2. FLOPs: 2·m·n·k.
// Measured: H100 80GB HBM3 (3.35 TB/s by its datasheet), 2026-11-25, in a graph with dependent
// launch, bench/sm90.cu, 7B at 1,024 / 2,048 / 8,192 tokens, TFLOP/s: qkv 438 / 504 / 608,
// o 547 / 553 / 626, gate_up 664 / 703 / 635, down 685 / 705 / 761 (cuBLASLt: 770 to 790 at
// its best).
#include "gemm.cuh"
#include "wgmma.cuh"

struct Sm90Params {
	TensorMap x, w;
	GemmParams g; // x, w, ldx and ldw unused; per = 0: whole tiles
};
static_assert(sizeof(Sm90Params) == 512 && offsetof(Sm90Params, g) == 256, "gemm_sm90.go: sm90Params");

namespace {

constexpr int CONSUMERS = 2, THREADS = (CONSUMERS + 1) * 128; // warpgroups, and with the producer

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int BM = 128, BK = 64, GROUP = 8;
constexpr int BOX = 128 * BK * 2; // bytes

// Piece is a run of steps of a tile.
struct Piece {
	int row, column, first, steps; // tile, step of k
	int tile;
};

// Line deals out the pieces: the same to producer and consumers.
struct Line {
	int rows, columns, steps, at, end, stride;

	__device__ __forceinline__ explicit Line(const GemmParams &p) {
		rows = (p.m + BM - 1) / BM, columns = p.tiles, steps = p.k / BK;
		at = blockIdx.x * (p.per ? p.per : steps);
		end = p.per ? min(at + p.per, rows * columns * steps) : rows * columns * steps;
		stride = p.per ? 0 : gridDim.x * steps;
	}
	__device__ __forceinline__ bool next(Piece &piece) {
		if (at >= end) return false;
		int tile = at / steps, group = tile / (GROUP * columns), above = group * GROUP, height = min(GROUP, rows - above);
		int rest = tile - above * columns;
		piece.tile = tile;
		piece.first = at - tile * steps;
		piece.steps = min(steps - piece.first, end - at);
		piece.row = above + rest % height;
		piece.column = rest / height;
		at += stride ? stride : piece.steps;
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
	auto weights = [&](const Piece &t, int step, int stage) {
		barrier_expect(full + 8 * stage, R::STAGE);
		for (int i = 0; i < BN / 128; i++)
			copy_box(ring + stage * R::STAGE + (1 + i) * BOX, p.w, (t.first + step) * BK, t.column * BN + i * 128, full + 8 * stage);
	};
	auto tokens = [&](const Piece &t, int step, int stage) {
		copy_box(ring + stage * R::STAGE, p.x, (t.first + step) * BK, t.row * BM, full + 8 * stage);
	};
	prefetch_map(p.x);
	prefetch_map(p.w);
	Line line(p.g);
	Piece t;
	if (!line.next(t)) return;
	int early = min(t.steps, R::STAGES);
	for (int i = 0; i < early; i++) weights(t, i, i);
	grid_wait();
	for (int i = 0; i < early; i++) tokens(t, i, i);
	Place<BN> at;
	for (int i = 0; i < early; i++) at.next();
	int step = early;
	do {
		for (; step < t.steps; step++, at.next()) {
			barrier_wait(empty + 8 * at.stage, at.parity ^ 1);
			weights(t, step, at.stage);
			tokens(t, step, at.stage);
		}
		step = 0;
	} while (line.next(t));
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

// sync_consumers is a barrier of the consumer warpgroups.
__device__ __forceinline__ void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS * 128) : "memory"); }

// meet leaves the tile's partial sums, and ends the tile if the others are there.
template <int BN> __device__ __forceinline__ void meet(const GemmParams &p, const Piece &t, const float (&c)[BN / 2], float *mine, int group, int steps) {
	__shared__ bool last;
	float *partial = p.partials + (int64_t)(2 * blockIdx.x + (t.first == 0)) * BM * BN;
	each<BN>(c, mine, group, [&](int m, int n, const float (&y)[8]) {
		float4 *to = reinterpret_cast<float4 *>(partial + m * BN + n);
		to[0] = make_float4(y[0], y[1], y[2], y[3]);
		to[1] = make_float4(y[4], y[5], y[6], y[7]);
	});
	__threadfence();
	sync_consumers();
	int first_cta = t.tile * steps / p.per, last_cta = (t.tile * steps + steps - 1) / p.per;
	if (threadIdx.x == 128) {
		last = atomicAdd(p.counters + t.tile, 1) == last_cta - first_cta;
		if (last) p.counters[t.tile] = 0;
	}
	sync_consumers();
	if (!last) return;
	__threadfence();
	for (int g = threadIdx.x - 128; g < BM * BN / 8; g += CONSUMERS * 128) {
		int m = g / (BN / 8), n = g % (BN / 8) * 8;
		if (t.row * BM + m >= p.m) break;
		float sum[8] = {};
#pragma unroll 4
		for (int cta = first_cta; cta <= last_cta; cta++) {
			const float4 *from = reinterpret_cast<const float4 *>(p.partials + ((int64_t)(2 * cta + (cta == first_cta)) * BM + m) * BN + n);
			float4 lo = __ldcg(from), hi = __ldcg(from + 1);
			sum[0] += lo.x, sum[1] += lo.y, sum[2] += lo.z, sum[3] += lo.w;
			sum[4] += hi.x, sum[5] += hi.y, sum[6] += hi.z, sum[7] += hi.w;
		}
		end8(p.e, p.kind, t.row * BM + m, t.column * BN + n, sum);
	}
	sync_consumers(); // `last` may be written again
}

template <int BN> __device__ __forceinline__ void consume(const Sm90Params &p, uint32_t ring, float *out, uint32_t full, uint32_t empty) {
	using R = Ring<BN>;
	int group = threadIdx.x / 128 - 1; // of consumers
	float *mine = out + (threadIdx.x / 32 - 4) * 16 * R::LD;
	grid_wait();
	Line line(p.g);
	Piece t;
	Place<BN> at;
	float c[BN / 2];
	while (line.next(t)) {
		int before = 0; // the stage whose products may be under way
		for (int step = 0; step < t.steps; step++, at.next()) {
			barrier_wait(full + 8 * at.stage, at.parity);
			uint32_t stage = ring + at.stage * R::STAGE;
			uint64_t a = operand(stage + group * 64 * BK * 2), b = operand(stage + BOX);
			wgmma_fence();
#pragma unroll
			for (int k = 0; k < BK / 16; k++) wgmma(c, a + 2 * k, b + 2 * k, step > 0 || k > 0);
			wgmma_commit();
			wgmma_wait<1>();
			if (step > 0 && threadIdx.x % 32 == 0) barrier_arrive(empty + 8 * before);
			before = at.stage;
		}
		wgmma_wait<0>();
		if (threadIdx.x % 32 == 0) barrier_arrive(empty + 8 * before);
		if (t.steps == line.steps)
			each<BN>(c, mine, group, [&](int m, int n, const float (&y)[8]) { end8(p.g.e, p.g.kind, t.row * BM + m, t.column * BN + n, y); });
		else
			meet<BN>(p.g, t, c, mine, group, line.steps);
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
