// Projection of many tokens on Hopper: y = x·wᵀ by wgmma from tiles that the bulk
// tensor copy engine brings.
//
// Layout: x [m][k] and w [k/64][n][64] half, read through tensor maps of panels of 64
// columns, in boxes of a tile's rows of x and half of its rows of w (SWIZZLE_128B); what lies past
// the maps reads as zero.
//
// Work: tiles of 128 tokens × BN outputs, or of 192, which decode steps of 129 to 192 sequences
// have, taken in turn by one CTA a multiprocessor, n-major within groups of 8 tiles of tokens, so
// that those under way at a time share rows in L2. In clusters of two, CTAs have tiles one above
// the other, and each brings half of the weights for both. BN is any that gives the last round
// much to do.
//
// CTA: a producer warpgroup, one thread of which fills a ring of four or more steps, and two
// consumer warpgroups, or three. These have a tile together, 64 tokens × BN outputs in registers
// each; or (TURNS) 128 × BN by turns, so that one ends its tile beside the other's products: for
// SWIGLU, whose end is work, and little k. They keep one step of products in flight. Outputs pass
// through shared memory to reach memory in wide stores; the producer is filling the next tile's
// ring meanwhile. What QKV's end reads it asks for before the tile's last steps of products, and
// RESIDUAL's end reads nothing: L2 adds. Weights do not depend on the kernel before: they are
// requested before it has finished. The producer's other warps make what a norm before is still to
// be multiplied by (gemm_fold.cuh), of the tokens that all of a CTA's tiles have.
//
// RoPE's angles, for which tiles of 288 columns leave no registers, are in the ring behind such a
// tile's last step (STAGED), a stage for each warpgroup's tokens: asked for three and two steps
// before the end, and free again in its middle, while two or more of the next tile's steps are in
// the others. All producers copy them, 16 bytes each: rows lie anywhere in the table, are short for
// the bulk copy engine, and have to be permuted for the banks.
//
// Bytes: 2·m·n·k·(1/128 + 1/BN) from L2; in clusters, 2·m·n·k·(1/256 + 1/BN). FLOPs: 2·m·n·k.
//
// Measured (H100 80GB HBM3, 2026-11-26, of 989 TFLOP/s): gate_up of the 7B 75 % at 8,192 tokens, 70
// at 1,024; down 71 and 77, o 69 and 63, qkv (2026-11-27) 70 and 69. From some hundred µs on the card's 700 W
// decide, for cuBLASLt as well (68 to 79 %).
#include "gemm_fold.cuh"
#include "gemm_out.cuh"

struct Sm90Params {
	TensorMap x, w;
	GemmParams g; // x, w, ldx, panel and per unused
};
static_assert(sizeof(Sm90Params) == 512 && offsetof(Sm90Params, g) == 256, "gemm_sm90.go: sm90Params");

namespace {

// threads of a CTA of so many consumer warpgroups, with the producer.
constexpr int threads(int consumers) { return (consumers + 1) * 128; }

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int BK = 64;

// Tiles deals the tiles out to the clusters, a column's tiles one above the other to the CTAs
// of one: the same to producer and consumers. row and column are the one under way.
struct Tiles {
	static constexpr int GROUP = 8; // at least the tiles of foldedTokens: gemm_sm90.go, sameTokens
	int rows, columns, group, ctas, rank, at, row, column; // rows and group: of the cluster's tiles

	__device__ __forceinline__ Tiles(const GemmParams &p, int bm) {
		ctas = cluster_size(), rank = cluster_rank(), at = blockIdx.x / ctas;
		rows = ((p.m + bm - 1) / bm + ctas - 1) / ctas, columns = p.tiles, group = GROUP / ctas;
	}
	__device__ __forceinline__ bool more() const { return at < rows * columns; }
	__device__ __forceinline__ bool next() {
		if (!more()) return false;
		int above = at / (group * columns) * group, height = min(group, rows - above), rest = at - above * columns;
		row = (above + rest % height) * ctas + rank;
		column = rest / height;
		at += gridDim.x / ctas;
		return true;
	}
};

// Ring is what a CTA's tiles, of consumers warpgroups × 64 tokens, need of shared memory.
template <int N, int GROUPS> struct Ring {
	static constexpr int BN = N, CONSUMERS = GROUPS, BM = 64 * GROUPS;
	static constexpr int HALF = BN / 2; // rows of a box of weights
	static constexpr int TOKENS = BM * BK * 2, WEIGHTS = HALF * BK * 2, STAGE = TOKENS + 2 * WEIGHTS;
	static constexpr bool STAGED = Qkv<BN>::STAGED;
	static_assert(!STAGED || Angles::BYTES <= STAGE);
	static constexpr int OUT = OUT_BYTES * CONSUMERS * 4;
	static constexpr int MOST = 8;       // stages
	static constexpr int SCALES_AT = 16; // where the tokens' scales lie behind the barrier of theirs
	static constexpr int REST = OUT + MOST * 16 + SCALES_AT + BM * 4; // outputs, barriers, scales
	static constexpr int ROOM = (227 * 1024 - REST) / STAGE, STAGES = ROOM < MOST ? ROOM : MOST;
};

// Place is a position in the ring, and the parity of its round.
template <class R> struct Place {
	int stage = 0, parity = 0;
	__device__ __forceinline__ void next() {
		if (++stage == R::STAGES) stage = 0, parity ^= 1;
	}
	__device__ __forceinline__ void skip(int steps) {
		stage += steps;
		parity ^= stage / R::STAGES & 1, stage %= R::STAGES;
	}
};

__device__ __forceinline__ void sync_producers() { asm volatile("bar.sync 3, 128;" ::: "memory"); }

// produce is for the thread that has the operands copied, or, where angles are staged, for all of
// its warpgroup.
template <class R, int KIND> __device__ __forceinline__ void produce(const Sm90Params &p, uint32_t ring, uint32_t full, uint32_t empty) {
	Tiles t(p.g, R::BM);
	int steps = p.g.k / BK;
	auto weights = [&](int step, int stage) {
		uint32_t to = ring + stage * R::STAGE + R::TOKENS, barrier = full + 8 * stage;
		barrier_expect(barrier, R::STAGE);
		if (t.ctas > 1) return copy_panels_to(3, to + t.rank * R::WEIGHTS, p.w, step, t.column * R::BN + t.rank * R::HALF, barrier);
		for (int i = 0; i < 2; i++) copy_panels(to + i * R::WEIGHTS, p.w, step, t.column * R::BN + i * R::HALF, barrier);
	};
	auto tokens = [&](int step, int stage) { copy_panels(ring + stage * R::STAGE, p.x, step, t.row * R::BM, full + 8 * stage); };
	bool one = !R::STAGED || threadIdx.x == 0;
	if (one) {
		prefetch_map(p.x);
		prefetch_map(p.w);
	}
	if (!t.next()) return;
	int early = min(steps, R::STAGES);
	if (one)
		for (int i = 0; i < early; i++) weights(i, i);
	grid_wait();
	if (one)
		for (int i = 0; i < early; i++) tokens(i, i);
	if (R::STAGED) grid_trigger(); // nobody reaches project's before the last tile
	Place<R> at;
	for (int i = 0; i < early; i++) at.next();
	int step = early;
	do {
		if (one) {
			for (; step < steps; step++, at.next()) {
				barrier_wait(empty + 8 * at.stage, at.parity ^ 1);
				if (R::STAGED && KIND == QKV && step < R::STAGES) proxy_fence(); // angles were there, which threads wrote
				weights(step, at.stage);
				tokens(step, at.stage);
			}
		} else at.skip(steps - step);
		step = 0;
		if (!R::STAGED || KIND != QKV || !Angles::staged(p.g.e, t.column * R::BN)) continue;
		sync_producers(); // now the stage's barrier tells a round from the next
		for (int group = 0; group < R::CONSUMERS; group++, at.next()) {
			Angles angles(p.g.e, t.row * R::BM + 64 * group);
			barrier_wait(empty + 8 * at.stage, at.parity ^ 1);
			angles.copy(p.g.e, t.column * R::BN, ring + at.stage * R::STAGE);
			barrier_copies(full + 8 * at.stage);
			sync_producers();
			if (one) barrier_arrive(full + 8 * at.stage);
		}
	} while (t.next());
}

__device__ __forceinline__ void wait_turn(int group) { asm volatile("bar.sync %0, 256;" ::"r"(1 + group) : "memory"); }
__device__ __forceinline__ void pass_turn(int group) { asm volatile("bar.arrive %0, 256;" ::"r"(1 + group) : "memory"); }

constexpr int SCALERS = 96; // threads of the producer's that make scales

template <class R, int KIND, bool TURNS> struct Consumer {
	static constexpr int BN = R::BN;
	static constexpr int SLABS = TURNS ? 2 : 1; // of 64 tokens
	static constexpr bool SCALES = KIND == SWIGLU || KIND == QKV && BN <= 144; // beyond that registers do not do: gemm_sm90.go, sm90ScaledQKV
	const Sm90Params &p;
	uint32_t ring, full, empty, made;
	float *mine;
	int group; // of consumers
	float c[SLABS][BN / 2];

	// release lets a stage be filled again, here and at the other CTA.
	__device__ __forceinline__ void release(int stage, int ctas) const {
		int lane = threadIdx.x % 32;
		if (ctas > 1) {
			if (lane < 2) barrier_arrive_remote(remote(empty + 8 * stage, lane));
		} else if (lane == 0) barrier_arrive(empty + 8 * stage);
	}
	// take waits for the angles, lets go of the other warpgroup's and gives the stage of its own.
	__device__ __forceinline__ int take(Place<R> &at, int ctas) const {
		int own = 0;
		for (int i = 0; i < R::CONSUMERS; i++, at.next()) {
			barrier_wait(full + 8 * at.stage, at.parity);
			if (i == group) own = at.stage;
			else release(at.stage, ctas);
		}
		return own;
	}
	__device__ __forceinline__ void multiply(int stage, bool add) {
		uint32_t tile = uniform(ring + stage * R::STAGE);
		uint64_t a = operand(tile + (TURNS ? 0 : group * 64 * BK * 2)), b = operand(tile + R::TOKENS);
		wgmma_fence();
#pragma unroll
		for (int k = 0; k < BK / 16; k++)
#pragma unroll
			for (int i = 0; i < SLABS; i++) {
				uint64_t rows = a + i * (64 * BK * 2 >> 4) + 2 * k;
				if constexpr (BN <= 256) wgmma(c[i], rows, b + 2 * k, add || k > 0);
				else {
					wgmma(reinterpret_cast<float(&)[BN / 4]>(c[i]), rows, b + 2 * k, add || k > 0);
					wgmma(reinterpret_cast<float(&)[BN / 4]>(c[i][BN / 4]), rows, b + (R::WEIGHTS >> 4) + 2 * k, add || k > 0);
				}
			}
		wgmma_commit();
	}
	__device__ __forceinline__ int first_row(int row, int slab) const { return row * R::BM + slab * 64 + (int)threadIdx.x / 32 % 4 * 16; }
	template <int I> __device__ __forceinline__ void end(Out<BN> out) {
		static_assert(I == 0 || KIND != RESIDUAL, "aim is of the first rows");
		out.row += 64 * I;
		if constexpr (KIND == SWIGLU) out.swiglu(c[I]);
		else out.template store<KIND == RESIDUAL>(c[I]);
	}
	__device__ __forceinline__ void consume() {
		Tiles t(p.g, R::BM);
		int steps = p.g.k / BK;
		Place<R> at;
		for (int tile = 0; t.next(); tile++) {
			if (TURNS && tile % 2 != group) {
				at.skip(steps);
				continue;
			}
			if (TURNS && tile > 0) wait_turn(group); // a stage's barrier tells a round from the next alone
			// The compiler would put divisions off to the end, where they are waited for.
			int row = uniform(first_row(t.row, TURNS ? 0 : group)), column = uniform(t.column * BN);
			Out<BN> out{p.g.e, mine, row, column};
			if (KIND == RESIDUAL) out.aim();
			Qkv<BN> qkv{p.g.e, reinterpret_cast<uint32_t *>(mine), row, column};
			if (KIND == QKV) qkv.begin();
			int before = 0; // the stage whose products may be under way
#pragma unroll 1
			for (int i = 0; i < steps; i++, at.next()) {
				barrier_wait(full + 8 * at.stage, at.parity);
				if (!R::STAGED && KIND == QKV && i == max(steps - 2, 0)) qkv.ahead();
				multiply(at.stage, i > 0);
				wgmma_wait<1>();
				if (i > 0) release(before, t.ctas);
				before = at.stage;
			}
			if (TURNS && t.more()) pass_turn(1 - group);
			int own = 0;       // the stage of the warpgroup's angles,
			uint32_t rows = 0; // and where the warp's are, if there are any: never 0
			if (R::STAGED && KIND == QKV && Angles::staged(p.g.e, column)) {
				own = take(at, t.ctas);
				rows = ring + own * R::STAGE + threadIdx.x / 32 % 4 * 16 * Angles::ROW;
			}
			if (KIND == QKV) qkv.turned(rows);
			wgmma_wait<0>();
			release(before, t.ctas);
			if (SCALES && scaled<KIND>(p.g.e)) {
				barrier_wait(made, 0);
#pragma unroll
				for (int i = 0; i < SLABS; i++) multiply_scales(c[i], made + R::SCALES_AT + (first_row(0, TURNS ? i : group) + threadIdx.x % 32 / 4) * 4);
			}
			if constexpr (KIND == QKV) qkv.end(c[0], rows, [&] { release(own, t.ctas); });
			else end<0>(out);
			if constexpr (TURNS) end<1>(out);
		}
	}
};

template <class R, int KIND, bool TURNS = false> __device__ __forceinline__ void project(const Sm90Params &p) {
	extern __shared__ __align__(1024) char memory[];
	float *out = reinterpret_cast<float *>(memory + R::STAGES * R::STAGE);
	uint32_t ring = shared_address(memory), full = shared_address(out) + R::OUT, empty = full + 8 * R::STAGES, made = empty + 8 * R::STAGES;
	asm volatile("" : "+r"(ring), "+r"(full), "+r"(empty)); // or the compiler makes them again at every step
	bool several = cluster_size() > 1;
	if (threadIdx.x == 0) {
		for (int i = 0; i < R::STAGES; i++) {
			barrier_init(full + 8 * i, 1);
			barrier_init(empty + 8 * i, (TURNS ? 4 : R::CONSUMERS * 4) * cluster_size());
		}
		barrier_init(made, SCALERS);
		barriers_ready();
	}
	if (several) cluster_sync();
	else __syncthreads();
	if (threadIdx.x < 128) {
		fewer_registers<40>();
		if (Consumer<R, KIND, TURNS>::SCALES && scaled<KIND>(p.g.e) && threadIdx.x >= 128 - SCALERS) {
			Tiles t(p.g, R::BM); // all of the CTA's are of the same tokens: gemm_sm90.go, sameTokens
			grid_wait();
			if (t.next()) make_scales<2, 8>(p.g.e, t.row * R::BM, 1, min(p.g.m - t.row * R::BM, R::BM), made + R::SCALES_AT, threadIdx.x - (128 - SCALERS), SCALERS);
			barrier_arrive(made);
		}
		if (R::STAGED || threadIdx.x == 0) produce<R, KIND>(p, ring, full, empty);
		grid_wait();
		grid_trigger();
		__syncwarp();
	} else {
		more_registers<R::CONSUMERS == 2 ? 232 : 152>();
		grid_wait();
		Consumer<R, KIND, TURNS> s{p, ring, full, empty, made, out + (threadIdx.x / 32 - 4) * (OUT_BYTES / 4), (int)uniform(threadIdx.x / 128 - 1)};
		s.consume();
	}
	if (several) { // neither leaves while the other may write to it
		cluster_arrive();
		cluster_wait();
	}
}

#else

template <int, int> struct Ring {};
template <class R, int KIND, bool TURNS = false> __device__ void project(const Sm90Params &) {}

#endif

} // namespace

// Which ends a width is of use for: gemm_sm90.go, sm90Variants.
#define KERNEL(NAME, KIND, BN) \
	PG_KERNEL void __launch_bounds__(threads(2), 1) gemm_sm90_##BN##_##NAME(const __grid_constant__ Sm90Params p) { project<Ring<BN, 2>, KIND>(p); }
#define LAYERS(BN) KERNEL(residual, RESIDUAL, BN) KERNEL(swiglu, SWIGLU, BN) KERNEL(qkv, QKV, BN)
// Of 192 tokens; the other ends need more registers.
#define THREE(NAME, KIND, BN) \
	PG_KERNEL void __launch_bounds__(threads(3), 1) gemm_sm90_##BN##_192_##NAME(const __grid_constant__ Sm90Params p) { project<Ring<BN, 3>, KIND>(p); }

LAYERS(64)
LAYERS(96)
KERNEL(residual, RESIDUAL, 112)
KERNEL(qkv, QKV, 112)
KERNEL(store, STORE, 128)
KERNEL(residual, RESIDUAL, 128)
KERNEL(qkv, QKV, 128)
EACH_KIND(KERNEL, 144)
KERNEL(swiglu, SWIGLU, 160)
EACH_KIND(KERNEL, 192)
LAYERS(224)
EACH_KIND(KERNEL, 256)
EACH_KIND(KERNEL, 288)
THREE(store, STORE, 96)
THREE(swiglu, SWIGLU, 96)
THREE(store, STORE, 144)
THREE(swiglu, SWIGLU, 144)
PG_KERNEL void __launch_bounds__(threads(2), 1) gemm_sm90_turns_128_swiglu(const __grid_constant__ Sm90Params p) { project<Ring<128, 2>, SWIGLU, true>(p); }
