// Projection of few tokens on Hopper, with tiles as wide as it takes to give every
// multiprocessor the same work: y = x·wᵀ.
//
// Layout: x [m][k] and w [k/64][n][64] half, read through tensor maps of panels of 64
// columns (SWIZZLE_128B). A step of the ring is `panels` of them: one request brings a step's
// tokens (boxes of `box` rows), and one its weights (of BN rows, or two of BN/2 where BN is
// beyond 256). Small boxes one by one take the copy engine 0.2 µs each.
//
// Work: tokens are the M side of wgmma, 64 to a warpgroup, weights its N side: a tile is MT
// tokens × BN weights, BN any multiple of 8, where gemm_stream.cu, which swaps the sides, has
// only 128 and 256. (gate_up of the 1.5B is 132 tiles of 136.) Two ways to deal:
//   - A CTA has several whole tiles, of all of k: the kernels _tiles.
//   - A CTA has one tile, or a cluster of two to eight CTAs has a tile, each a share of k, and each sends its sums
//     to the one that ends the token.
// Sums are added in order of k, so that a result depends on the shape alone.
//
// CTA: two warpgroups, with 64 tokens × BN weights each, or, of a tile of 64 tokens, all of
// them and half of the weights; where halves are not a multiple of 8 they overlap. Of a box
// of fewer than 64 tokens, what wgmma reads beyond are other bytes of the ring, and the sums
// of those rows are not used. So a stage takes no more than its bytes, and the ring has as
// many as there is room for: of gate_up of the 0.5B, all weights are on their way before the
// kernel before has finished. A warp is the producer, and one makes what a norm before is still to be multiplied by
// (gemm_fold.cuh). (Fewer weights ahead of a CTA's first
// tokens, lest those wait behind them, cost 3 to 9 % of a step.)
//
// Bytes: 2·n·k of weights once; 2·m·k of tokens a tile, from L2. FLOPs: 2·m·n·k.
//
// Measured by what leaving it out of a step of 64 tokens saves (BenchmarkWithout, H100 80GB HBM3,
// 2026-11-26, weights in rows then, of 3.35 TB/s): 7B gate_up 90 µs, 90 %; down 50, 81 %; o 12, 63 %; qkv 17, 59 %; 1.5B gate_up 19 µs,
// 86 %; down 12, 68 %; 0.5B gate_up 8.9 µs, 58 %; down 7.7, 34 %.
#include "gemm_fold.cuh"
#include "gemm_out.cuh"
#include "gemm_ring.cuh"

namespace {

constexpr int THREADS = CONSUMERS + 64;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// read_shared_if reads 16, if wanted, without a branch that loads behind it would wait for.
__device__ __forceinline__ float4 read_shared_if(bool wanted, uint32_t address) {
	float4 v;
	asm volatile("{.reg .pred p; setp.ne.b32 p, %5, 0; @p ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];}" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(address), "r"((int)wanted) : "memory");
	return v;
}

// foldable says whether a warp has all eights of a token of so many outputs: rmsnorm.go, leavesNorm.
__host__ __device__ constexpr bool foldable(int columns) { return columns <= 256; }

// power_of_two is the least that is not less.
__host__ __device__ constexpr int power_of_two(int n) {
	int p = 1;
	while (p < n) p *= 2;
	return p;
}

// sync_scales is where consumers and the warp that makes scales meet.
__device__ __forceinline__ void sync_scales() { asm volatile("bar.sync 2, %0;" ::"n"(CONSUMERS + 32) : "memory"); }

template <int BN, int MT> struct Wide : Ring {
	static constexpr int WEIGHTS = BN * BK * 2, BOXES = BN > 256 ? 2 : 1;
	static constexpr int COLUMNS = MT == 64 ? (BN / 2 + 7) / 8 * 8 : BN; // of a warpgroup
	static constexpr int SECOND = MT == 64 ? BN - COLUMNS : 0;           // the first of the second one's
	static constexpr int GROUPS = COLUMNS / 8;
	static constexpr int TILE_LD = BN % 16 ? BN : BN + 8; // floats between tokens of a tile left in the ring: 8 more than a multiple of 16
	static constexpr int GATED = CONSUMERS / 32 * OUT_BYTES; // bytes of the warps' parts, see gate
	static_assert(GATED == 18 << 10, "gemm_wide.go: wideGated");

	int count, panels;        // stages; panels of each
	int panel, tokens, size;  // bytes of a panel of x, of a step's tokens and of a stage
	int rank, ctas;           // of the cluster
	uint32_t received, sums;  // barrier of the cluster's sums, and where they arrive
	uint32_t scales;          // of the tokens that the CTA ends, in turn
	uint32_t to[2], there[2]; // where sums of the thread's two tokens go, 0 of one that there is not; barriers of the CTAs that end them, 0 of this one
	float c[COLUMNS / 2];

	__device__ __forceinline__ explicit Wide(const StreamParams &p, char *shared) {
		count = p.stages, panels = p.panels;
		panel = p.box * BK * 2, tokens = panels * panel, size = tokens + panels * WEIGHTS;
		// wgmma reads 64 rows of the last panel, and at last the ring holds a tile's sums.
		place(shared, max(max(count * size, count * size - panels * WEIGHTS - panel + 64 * BK * 2), max(p.box * TILE_LD * 4, GATED)), count);
		rank = cluster_rank(), ctas = cluster_size();
		received = empty + 8 * count, scales = received + 8, sums = (scales + MT * 4 + 15) / 16 * 16;
		make_barriers(count);
		if (threadIdx.x == 0) barrier_init(received, 1);
		barriers_ready();
		asm volatile("" : "+r"(size), "+r"(tokens), "+r"(panel)); // see place
	}
	__device__ __forceinline__ int stages() const { return count; }
	__device__ __forceinline__ void copy_weights(const StreamParams &p, const Part &t, int i, uint64_t policy) {
		uint32_t barrier = full + 8 * stage, to = ring + stage * size + tokens;
		barrier_expect(barrier, size);
#pragma unroll
		for (int b = 0; b < BOXES; b++) // panels of a box lie one behind the other
			copy_panels_once(to + b * panels * (WEIGHTS / BOXES), p.w, (t.first + i) * panels, t.column * BN + b * (BN / BOXES), barrier, policy);
	}
	__device__ __forceinline__ void copy_tokens(const StreamParams &p, const Part &t, int i) {
		copy_panels(ring + stage * size, p.x, (t.first + i) * panels, t.row * MT, full + 8 * stage);
	}

	// multiply sums the steps of the ring into c. SEVERAL: of one of several tiles, where the compiler does not see that
	// a warp goes together.
	template <bool SEVERAL> __device__ __forceinline__ void multiply(int steps) {
		int before = 0, group = uniform(threadIdx.x / 128);
		int second = MT == 128 ? 0 : BOXES == 2 ? panels * (WEIGHTS / 2) : SECOND * BK * 2;
		for (int i = 0; i < steps; i++, next(count)) {
			barrier_wait(full + 8 * stage, parity);
			uint32_t at = ring + stage * size;
			if (SEVERAL) at = uniform(at);
			uint64_t a = operand(at + (MT == 128 ? group * 64 * BK * 2 : 0)), b = operand(at + tokens + group * second);
#pragma unroll 1
			for (int d = 0; d < panels; d++, a += panel >> 4, b += WEIGHTS / BOXES >> 4) {
				wgmma_fence();
#pragma unroll
				for (int k = 0; k < BK / 16; k++) wgmma(c, a + 2 * k, b + 2 * k, i > 0 || d > 0 || k > 0);
				wgmma_commit();
				wgmma_wait<1>();
				if (i > 0 && d == 0) release(before);
			}
			before = stage;
		}
		wgmma_wait<0>();
		if (SEVERAL) release(before); // nothing else would be filled again
	}

	// row and column are where the thread's first sums lie in the tile.
	__device__ __forceinline__ int row() const { return (MT == 128 ? threadIdx.x / 128 * 64 : 0) + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4; }
	__device__ __forceinline__ int column() const { return threadIdx.x / 128 * SECOND; }
	// mine is false of columns that both warpgroups have, in the second.
	__device__ __forceinline__ bool mine(int group) const { return 2 * COLUMNS == BN || MT == 128 || group > 0 || threadIdx.x < 128; }

	// aim finds where sums of the rows go: to the ring, [token][weight], so that 16 threads' stores at a time fall into
	// 32 banks, or to the CTAs of the cluster, the tokens in turn, [CTA that sends][token][weight].
	__device__ __forceinline__ void aim(int rows) {
		Over over;
		int each = over.up(rows);
#pragma unroll
		for (int h = 0; h < 2; h++) {
			int token = row() + 8 * h, at = column() + threadIdx.x % 4 * 2, turn = over(token), cta = token - turn * ctas;
			to[h] = ctas > 1 ? sums + ((rank * each + turn) * BN + at) * 4 : ring + (token * TILE_LD + at) * 4;
			there[h] = 0;
			if (cta != rank) to[h] = remote(to[h], cta), there[h] = remote(received, cta);
			if (token >= rows) to[h] = 0;
		}
	}
	__device__ __forceinline__ uint32_t known() const { return to[0] | to[1] | there[0] | there[1]; }
	// spread sends them to the other CTAs of the cluster, which takes a clock for 10 bytes: first; leave writes what stays.
	__device__ __forceinline__ void spread() const {
		deliver([&](int h) { return there[h] != 0; }, [&](int h, int g) { send(to[h] + 32 * g, sum(g, 2 * h), sum(g, 2 * h + 1), there[h]); });
	}
	__device__ __forceinline__ void leave() const {
		deliver([&](int h) { return there[h] == 0; }, [&](int h, int g) { write_shared(to[h] + 32 * g, sum(g, 2 * h), sum(g, 2 * h + 1)); });
	}
	template <class P, class F> __device__ __forceinline__ void deliver(P goes, F fn) const {
#pragma unroll
		for (int h = 0; h < 2; h++) {
			if (!to[h] || !goes(h)) continue;
#pragma unroll
			for (int g = GROUPS - 1; g >= 0; g--) // whether the first is the thread's takes a while to know
				if (mine(g)) fn(h, g);
		}
	}
	__device__ __forceinline__ float sum(int group, int i) const { return c[4 * group + i]; }

	// gate ends sums of gate and up, each warp its own, by way of its part of the ring, which no product reads any more. They
	// are multiplied by what is at `by` of the thread's two tokens, if that is a place. Columns that both warpgroups have are
	// stored twice, alike.
	__device__ __forceinline__ void gate(const Epilogue &e, int first, int column, uint32_t by) {
		if (by) multiply_scales(c, by);
		if (first < e.rows) Out<COLUMNS>{e, reinterpret_cast<float *>(memory + threadIdx.x / 32 * OUT_BYTES), first, column}.swiglu(c);
	}

	// total adds the eight sums there of all CTAs of the cluster, `next` bytes apart, in order of k.
	__device__ __forceinline__ void total(float (&y)[8], uint32_t at, int next) const {
		float4 lo[4] = {read_shared_now(at)}, hi[4] = {read_shared_now(at + 16)};
#pragma unroll
		for (int i = 1; i < 4; i++) lo[i] = read_shared_if(i < ctas, at + i * next), hi[i] = read_shared_if(i < ctas, at + i * next + 16);
		add8(y, lo[0], hi[0]);
#pragma unroll
		for (int i = 1; i < 4; i++)
			if (i < ctas) add8(y, lo[i], hi[i]);
#pragma unroll 1
		for (int i = 4; i < ctas; i++) add8(y, read_shared(at + i * next), read_shared(at + i * next + 16));
	}

	// each gives the sums, eight weights of a token at a time, to fn(token, weight, values): of
	// every 32 weights, four threads turn their pairs into eight for each. One body for all of
	// them: it is long.
	template <class F> __device__ __forceinline__ void each(F fn) {
		int q = threadIdx.x % 4;
#pragma unroll 1
		for (int base = 0; base < GROUPS; base += 4) {
			float v[4][4]; // of group base + i
#pragma unroll
			for (int g = 0; g < GROUPS; g++)
				if (g / 4 * 4 == base)
#pragma unroll
					for (int i = 0; i < 4; i++) v[g % 4][i] = sum(g, i);
			turn(v, q);
#pragma unroll 1
			for (int h = 0; h < 2; h++) {
				float y[8];
#pragma unroll
				for (int i = 0; i < 8; i++) y[i] = h ? v[i / 2][2 + i % 2] : v[i / 2][i % 2];
				if (base + q < GROUPS && mine(base + q)) fn(row() + 8 * h, column() + 8 * (base + q), y);
			}
		}
	}
	// turn exchanges v[i] of thread q of a quad for v[q] of thread i.
	static __device__ __forceinline__ void turn(float (&v)[4][4], int q) {
#pragma unroll
		for (int bit = 1; bit < 4; bit *= 2)
#pragma unroll
			for (int i = 0; i < 4; i++)
				if (!(i & bit))
#pragma unroll
					for (int e = 0; e < 4; e++) {
						float other = __shfl_xor_sync(~0u, q & bit ? v[i][e] : v[i | bit][e], bit);
						if (q & bit) v[i][e] = other;
						else v[i | bit][e] = other;
					}
	}
};

// End is what becomes of eight sums. Where they go is known once they have a place, QKV's what is read beside them, too.
template <int KIND> struct End {
	void *out = nullptr;      // NULL: nothing is stored; of a residual see to
	int m, n;                 // of STORE
	uint32_t to = 0, squares; // of RESIDUAL, in elements: of the sums, plus one, or 0; of their squares' sum
	float4 lo, hi;            // of RESIDUAL
	QkvEnd qkv;

	__device__ __forceinline__ void place(const Epilogue &e, int row, int column, int tile) {
		if constexpr (KIND == QKV) qkv.request(e, row, column), out = qkv.out;
		else if constexpr (KIND == RESIDUAL) to = row < e.rows && column < e.cols ? row * static_cast<uint32_t>(e.ld) + column + 1 : 0, squares = tile * e.rows + row;
		else if (row >= e.rows || column >= e.cols) out = nullptr;
		else if constexpr (KIND == SWIGLU) out = static_cast<half *>(e.out) + row * e.ld + column / 2;
		else out = static_cast<float *>(e.out) + row * e.ld + column, m = row, n = column;
	}
	__device__ __forceinline__ uint32_t known() const { return KIND == RESIDUAL ? to | squares : depends(out); }
	__device__ __forceinline__ float *residual(const Epilogue &e) const { return static_cast<float *>(e.out) + (to - 1); }
	// request asks for what the kernel before has written.
	__device__ __forceinline__ void request(const Epilogue &e) {
		if (KIND == RESIDUAL && to) lo = reinterpret_cast<const float4 *>(residual(e))[0], hi = reinterpret_cast<const float4 *>(residual(e))[1];
	}
	__device__ __forceinline__ void end(const Epilogue &e, float (&y)[8]) const {
		if constexpr (KIND == QKV) {
			qkv.end(e, y);
		} else if constexpr (KIND == RESIDUAL) {
			if (!to) return;
			add8(y, lo, hi);
			store8(residual(e), y);
		} else if (!out) {
			return;
		} else if constexpr (KIND == STORE) {
			epilogue8<KIND>(e, m, n, y);
		} else {
			*static_cast<uint2 *>(out) = gated8(y);
		}
	}
};

// one makes the CTA's tile, or its share of the cluster's: sums go to the ring, or each to
// the CTA that ends its token, without a barrier of the cluster: that would wait for memory. Of gate and up of more than 16
// tokens without a cluster each warp ends its own.
// What an output reads beside them is requested before they are made, QKV's before the kernel
// before has ended: it is older than the layers. Behind the last product every instruction is
// late: what needs no sum is made before the wait, and sums of up to four CTAs are read at a time. (Of tiles of more
// than two rounds, what a round from the third on needs is made when the one before has ended.) Of a residual, a
// power of two of threads has a token, so that its squares are added by shuffles.
template <int KIND, int BN, int MT> __device__ __forceinline__ void one(const GemmParams &p, Wide<BN, MT> &s, const Part &t) {
	constexpr bool EVEN = KIND == RESIDUAL && foldable(BN);
	constexpr int OF = BN / 8, LANES = EVEN ? power_of_two(OF) : OF, ROUNDS = (MT * LANES + CONSUMERS - 1) / CONSUMERS;
	Over over;
	bool several = s.ctas > 1;
	int rows = min(MT, p.m - t.row * MT), mine = over.up(rows - s.rank), all = mine * LANES; // tokens that the CTA ends; groups of eight
	int g = threadIdx.x, next = over.up(rows) * BN * 4, line = several ? BN * 4 : Wide<BN, MT>::TILE_LD * 4; // bytes to another CTA's sums; from token to token
	auto ends = [&](int g) { return g < all && (LANES == OF || g % LANES < OF); };
	uint32_t at = (several ? s.sums : s.ring) + (ends(g) ? g / LANES * line + g % LANES * 32 : 0);
	End<KIND> end, second; // of two rounds
	auto place = [&](End<KIND> &end, int g) { end.place(p.e, t.row * MT + g / LANES * s.ctas + s.rank, t.column * BN + g % LANES * 8, t.column); };
	if (several && g == 0) barrier_expect(s.received, (s.ctas - 1) * mine * OF * 32);
	s.aim(rows);
	if (ends(g)) place(end, g);
	if (ROUNDS == 2 && ends(g + CONSUMERS)) place(second, g + CONSUMERS);
	Folded<EVEN ? LANES : 1> folded;
	if (EVEN && folds<KIND>(p.e) && end.to) folded.request(p.e, t.column * BN + g % LANES * 8); // of all rounds
	bool gates = KIND == SWIGLU && !several && rows > 16; // a warp has 16 tokens: with more of them each ends what it has, with fewer all help
	int first = 0, column = 0; // of the warp's sums, then
	uint32_t by = 0;
	if constexpr (KIND == SWIGLU) {
		first = uniform(t.row * MT + s.row()), column = uniform(t.column * BN + s.column());
		if (scaled<KIND>(p.e)) by = s.scales + s.row() * 4;
	}
	bool done = EVEN ? g / 32 * 32 >= all : !ends(g);
	if (several) cluster_wait(); // all have their barriers
	grid_wait(done, s.known(), at, next, end.known(), second.known(), first, column, by);
	end.request(p.e);
	second.request(p.e);
	s.template multiply<false>(t.steps);
	if (gates) {
		if (by) sync_scales(); // and all products with the ring are done
		else sync_consumers();
		return s.gate(p.e, first, column, by);
	}
	if (several) s.spread();
	else sync_consumers(); // all products with the ring are done
	s.leave();
	if (scaled<KIND>(p.e)) sync_scales();
	else sync_consumers();
	if (several) barrier_wait(s.received, 0);
	if (done) return;
	for (;;) {
		float y[8] = {};
		s.total(y, at, next);
		if (scaled<KIND>(p.e)) {
			float scale = read_shared_number(s.scales + g / LANES * 4);
			for (float &x : y) x *= scale;
		}
		end.end(p.e, y);
		if (EVEN && folds<KIND>(p.e)) folded.leave(p.e, end.to, end.to - 1, end.squares, y);
		g += CONSUMERS;
		if (ROUNDS == 1 || (EVEN ? g - (int)threadIdx.x : g) >= all) return;
		if (ends(g)) at += (g / LANES - (g - CONSUMERS) / LANES) * line + (g % LANES - (g - CONSUMERS) % LANES) * 32;
		if (ROUNDS == 2) {
			end = second;
		} else if (ends(g)) {
			place(end, g);
			end.request(p.e);
		} else end.to = 0;
	}
}

template <int KIND, bool SEVERAL, int BN, int MT> __device__ __forceinline__ void project(const StreamParams &p) {
	grid_trigger(); // what does not depend on this may begin where there is room
	extern __shared__ char memory[];
	Wide<BN, MT> s(p, memory);
	Parts<!SEVERAL> parts(p.g, MT, s.panels);
	__syncthreads();
	if (!SEVERAL && s.ctas > 1) cluster_arrive_relaxed();

	if (threadIdx.x >= CONSUMERS) {
		if (threadIdx.x == CONSUMERS) produce(p, s, parts);
		grid_wait();
		if constexpr (!SEVERAL)
			if (scaled<KIND>(p.g.e) && threadIdx.x >= CONSUMERS + 32) {
				int first = parts.shared.row * MT;
				make_scales<2, 16>(p.g.e, first + s.rank, s.ctas, Over().up(min(MT, p.g.m - first) - s.rank), s.scales, threadIdx.x % 32, 32);
				sync_scales();
			}
		__syncwarp();
		if (!SEVERAL && s.ctas > 1) cluster_wait();
		return;
	}
	// In this form the compiler sees that a warp goes together: operands stay in uniform registers, and
	// products follow each other at once. With the first of several tiles found before the wait it does not.
	if constexpr (!SEVERAL) return one<KIND>(p.g, s, parts.shared);
	grid_wait();
	for (Part t; parts.next(t);) {
		s.template multiply<true>(t.steps);
		s.each([&](int token, int weight, const float (&y)[8]) { epilogue8<KIND>(p.g.e, t.row * MT + token, t.column * BN + weight, y); });
	}
}

#else

template <int, bool, int, int> __device__ void project(const StreamParams &) {}

#endif

} // namespace

#define KERNEL(NAME, KIND, BN, MT) \
	PG_KERNEL void __launch_bounds__(THREADS, 1) gemm_wide_##BN##_##MT##_##NAME(const __grid_constant__ StreamParams p) { project<KIND, false, BN, MT>(p); } \
	PG_KERNEL void __launch_bounds__(THREADS, 1) gemm_wide_##BN##_##MT##_tiles_##NAME(const __grid_constant__ StreamParams p) { project<KIND, true, BN, MT>(p); }
#define WIDE(BN, MT) EACH_KIND(KERNEL, BN, MT)

WIDE(32, 64)
WIDE(56, 64)
WIDE(56, 128)
WIDE(64, 64)
WIDE(64, 128)
WIDE(72, 64)
WIDE(72, 128)
WIDE(80, 64)
WIDE(112, 64)
WIDE(112, 128)
WIDE(120, 128)
WIDE(136, 64)
WIDE(136, 128)
WIDE(288, 64)
