// What attention_decode.cu is made of: parameters, the walk along the line of tiles,
// a warp's ring and softmax, and the states of warps and CTAs that become one.
#pragma once

#include "wgmma.cuh"

namespace {

constexpr int HEADS = 8;  // query heads of a KV head, at most
constexpr int FOLDED = 8; // partial states that are asked for at a time

// Form is what a kernel is made for: heads of D dims, by so many warps, each so many tokens
// at a step, of which its ring holds so many.
template <int D_, int WARPS_, int STEP_, int STAGES_> struct Form {
	static constexpr int D = D_, WARPS = WARPS_, STEP = STEP_, STAGES = STAGES_;
	static constexpr int TILE = WARPS * STEP, THREADS = WARPS * 32;
	static constexpr int VALUES = STEP * D * 2, STAGE = 2 * VALUES, RING = STAGES * STAGE, RINGS = WARPS * RING; // bytes: keys, then values
	static constexpr int OF_HEAD = 16, N = D / OF_HEAD; // threads that share a head where states become one, dims of each
	static_assert(OF_HEAD * HEADS <= THREADS && STEP % 16 == 0, "threads for each head, whole products");
};

// DecodePlan is what attention_decode_plan writes. Its Go side: geometry.go.
struct DecodePlan {
	int4 *seqs;   // [decodes] {length, 0, first entry of the table, token}
	int4 *starts; // [grid][2] {sequence, KV head, tile} of the first tile, tiles; then the sequence's entry of seqs, with,
	              // for 0, the last CTA that has tiles of the unit that the run ends in (0 where no unit is cut) or, where a
	              // cluster has the unit, minus the CTAs that share it
};

struct DecodePlanParams {
	Batch batch;
	DecodePlan plan;
	int32_t kv_heads, grid, cluster, tile; // grid: CTAs; cluster: those of a cluster, or 0; tile: tokens
};
static_assert(sizeof(DecodePlanParams) == 120 && offsetof(DecodePlanParams, kv_heads) == 104, "attention_decode.go: decodePlanParams");

struct DecodeParams {
	const half *query; // [tokens][ld]
	half *out;         // [tokens][ld]
	PagedKV kv;
	const int32_t *tables;
	DecodePlan plan;
	uint32_t *partials; // [grid] Partial, zero between launches
	int64_t ld;
	int32_t layer, kv_heads, group;
	float scale; // log2(e) / √d
};
static_assert(sizeof(DecodeParams) == 128 && offsetof(DecodeParams, plan) == 80 && offsetof(DecodeParams, layer) == 112, "attention_decode.go: decodeParams");

// Cursor walks the line of tiles.
template <class F> struct Cursor {
	int seq, head, tile;
	int length, tiles, table, token; // of the sequence

	__device__ __forceinline__ void set(int4 s) {
		length = s.x, table = s.z, token = s.w;
		tiles = (length + F::TILE - 1) / F::TILE;
	}
	// next goes to the following tile, which exists.
	__device__ __forceinline__ void next(const DecodePlan &p, int kv_heads) {
		if (++tile < tiles) return;
		tile = 0;
		if (++head < kv_heads) return;
		head = 0;
		do {
			seq++;
			set(__ldg(p.seqs + seq));
		} while (tiles == 0);
	}
};

// State is a warp's softmax over its share of a piece: for heads 2q and 2q+1
// the maximum (less WEIGHT_BITS), this lane's part of the weights, and Oᵀ: fragment j holds
// dims 16j + r and 16j + r + 8.
template <int D> struct State {
	float max[2], sum[2], o[D / 16][4];
	uint32_t q[D / 8]; // B fragments of Qᵀ

	__device__ __forceinline__ void reset() {
		for (int i = 0; i < 2; i++) max[i] = -INFINITY, sum[i] = 0;
#pragma unroll
		for (int j = 0; j < D / 16; j++)
			for (int i = 0; i < 4; i++) o[j][i] = 0;
	}
	// query is where the lane's part of its head's query begins. Heads past the group are its last once more: nobody stores them.
	template <class F> static __device__ __forceinline__ const half *query(const DecodeParams &p, const Cursor<F> &c, int lane) {
		return p.query + c.token * p.ld + (c.head * p.group + min(lane / 4, p.group - 1)) * D + lane % 4 * 2;
	}
	__device__ __forceinline__ void read(const half *query) {
#pragma unroll
		for (int j = 0; j < D / 8; j++) q[j] = *reinterpret_cast<const uint32_t *>(query + j * 8);
	}
};

// Address of 16 bytes in a [tokens][D] tile of a ring; the XOR keeps ldmatrix free of
// bank conflicts.
template <int D> __device__ __forceinline__ uint32_t swizzled(int row, int chunk) {
	return row * (D * 2) + ((chunk ^ (row & 7)) * 16);
}

// Blocks are those of a warp's step.
template <class F> struct Blocks {
	int32_t id[F::STEP / 16];

	__device__ __forceinline__ void fetch(const DecodeParams &p, const Cursor<F> &c, int position) {
#pragma unroll
		for (int i = 0; i < F::STEP / 16; i++) {
			int at = position + 16 * i;
			id[i] = at < c.length ? __ldg(p.tables + c.table + (at >> p.kv.block_shift)) : 0;
		}
	}
};

// Lane is where what a lane copies and multiplies lies in a stage, known once it is made.
template <class F> struct Lane {
	static constexpr int CHUNKS = F::D / 8, ROWS = 32 / CHUNKS; // rows a copy instruction covers
	uint32_t copies[8 / ROWS];   // they repeat after eight rows
	uint32_t keys[4], values[4]; // the matrices of the first 64 dims; they repeat after those

	__device__ __forceinline__ explicit Lane(int lane) {
		for (int i = 0; i < 8 / ROWS; i++) {
			copies[i] = swizzled<F::D>(lane / CHUNKS + i * ROWS, lane % CHUNKS);
			asm volatile("" : "+r"(copies[i]));
		}
		for (int j = 0; j < 4; j++) {
			keys[j] = swizzled<F::D>(lane % 16, 2 * j + lane / 16);
			values[j] = F::VALUES + swizzled<F::D>(lane % 8 + lane / 16 * 8, 2 * j + lane / 8 % 2); // Vᵀ: dims 0–7 and 8–15 of tokens 0–7, then of 8–15
			asm volatile("" : "+r"(keys[j]), "+r"(values[j]));
		}
	}
	// matrix is how much further than the first of its row those of 16 tokens and 16 dims lie.
	static __device__ __forceinline__ int matrix(int part, int j) { return part * 16 * F::D * 2 + j / 4 * 128; }
};

// Copies are those of a warp's step: its keys, and its values. Those past
// the sequence's end become zeros, for a weight of 0 times NaN is NaN.
template <class F> struct Copies {
	static constexpr int PARTS = F::STEP / 16, ROWS = Lane<F>::ROWS;
	const half *from[PARTS]; // the lane's first key of each 16
	int rest, left;          // tokens of the sequence from the step's first on, and from the lane's

	__device__ __forceinline__ Copies(const DecodeParams &p, const Cursor<F> &c, const Blocks<F> &blocks, int position, int lane) {
		int row = lane / Lane<F>::CHUNKS, chunk = lane % Lane<F>::CHUNKS;
		rest = c.length - position, left = rest - row;
#pragma unroll
		for (int part = 0; part < PARTS; part++)
			from[part] = p.kv.base + blocks.id[part] * p.kv.block + p.layer * p.kv.layer + c.head * p.kv.head +
			             (((position + 16 * part) & (p.kv.block_size - 1)) + row) * p.kv.token + chunk * 8;
	}
	__device__ __forceinline__ uint32_t known() const {
		uint32_t all = depends(left);
		for (int part = 0; part < PARTS; part++) all |= depends(from[part]);
		return all;
	}
	__device__ __forceinline__ void start(const DecodeParams &p, const Lane<F> &at, uint32_t stage) const {
		if (rest <= 0) return;
#pragma unroll
		for (int part = 0; part < PARTS; part++)
#pragma unroll
			for (int i = 0; i < 16; i += ROWS) {
				uint32_t to = stage + at.copies[i / ROWS % (8 / ROWS)] + (16 * part + i / 8 * 8) * F::D * 2;
				copy_async(to, from[part] + i * p.kv.token, 16 * part + i < left);
				copy_async(to + F::VALUES, from[part] + p.kv.value + i * p.kv.token, 16 * part + i < left);
			}
	}
};

// step folds a warp's step into the state, which is empty if it is the first; the first `seen` tokens of it exist.
template <class F> __device__ __forceinline__ void step(State<F::D> &s, const Lane<F> &at, uint32_t stage, bool first, int seen, float scale, int lane) {
	constexpr int D = F::D, PARTS = F::STEP / 16;
	float c[PARTS][2][4] = {};
#pragma unroll
	for (int j = 0; j < D / 16; j++) // two chains: half the latency
#pragma unroll
		for (int part = 0; part < PARTS; part++) {
			uint32_t a[4];
			load_matrices(a, stage + at.keys[j % 4] + at.matrix(part, j));
			multiply_add(c[part][j & 1], a, s.q[2 * j], s.q[2 * j + 1]);
		}
	float score[PARTS][4], high[2] = {-INFINITY, -INFINITY};
#pragma unroll
	for (int part = 0; part < PARTS; part++)
#pragma unroll
		for (int i = 0; i < 4; i++) {
			int token = lane / 4 + i / 2 * 8 + 16 * part;
			score[part][i] = token < seen ? (c[part][0][i] + c[part][1][i]) * scale : -INFINITY;
			high[i % 2] = fmaxf(high[i % 2], score[part][i]);
		}
	for (int i = 0; i < 2; i++) {
		for (int d = 4; d < 32; d *= 2) high[i] = fmaxf(high[i], __shfl_xor_sync(~0u, high[i], d));
		high[i] -= WEIGHT_BITS;
	}
	if (__any_sync(~0u, high[0] > s.max[0] || high[1] > s.max[1])) {
		float shrink[2];
		for (int i = 0; i < 2; i++) {
			float to = fmaxf(s.max[i], high[i]);
			shrink[i] = exp2_fast(s.max[i] - to);
			s.max[i] = to;
		}
		if (!first) {
			for (int i = 0; i < 2; i++) s.sum[i] *= shrink[i];
#pragma unroll
			for (int j = 0; j < D / 16; j++)
				for (int i = 0; i < 4; i++) s.o[j][i] *= shrink[i % 2];
		}
	}
	uint32_t b[PARTS][2];
#pragma unroll
	for (int part = 0; part < PARTS; part++) {
		float weight[4];
#pragma unroll
		for (int i = 0; i < 4; i++) {
			weight[i] = exp2_fast(score[part][i] - s.max[i % 2]);
			s.sum[i % 2] += weight[i];
		}
		b[part][0] = transpose(pack_half(weight[0], weight[1])), b[part][1] = transpose(pack_half(weight[2], weight[3]));
	}
#pragma unroll
	for (int part = 0; part < PARTS; part++)
#pragma unroll
		for (int j = 0; j < D / 16; j++) {
			uint32_t a[4];
			load_matrices_transposed(a, stage + at.values[j % 4] + at.matrix(part, j));
			multiply_add(s.o[j], a, b[part][0], b[part][1]);
		}
}

// The state of a warp where a piece ends.
template <int D> struct Shared {
	static constexpr int LD = D + 4; // rows of heads in different banks
	float o[HEADS][LD], max[HEADS], sum[HEADS];
};

template <int D> __device__ __forceinline__ void leave(State<D> &s, Shared<D> *to, int lane) {
	int r = lane / 4, head = lane % 4 * 2;
	for (int i = 0; i < 2; i++)
		for (int d = 4; d < 32; d *= 2) s.sum[i] += __shfl_xor_sync(~0u, s.sum[i], d);
	__syncwarp(); // the stage is read
#pragma unroll
	for (int j = 0; j < D / 16; j++)
		for (int i = 0; i < 4; i++) to->o[head + i % 2][16 * j + r + i / 2 * 8] = s.o[j][i];
	if (r == 0)
		for (int i = 0; i < 2; i++) to->max[head + i] = s.max[i], to->sum[head + i] = s.sum[i];
}

// Sum is a thread's share of a folded state: N dims of one head.
template <int N> struct Sum {
	float max = -INFINITY, sum = 0, o[N] = {};

	// add folds another state in. One of weight 0 (a warp without tokens) has
	// maximum −inf, and never comes first.
	__device__ __forceinline__ void add(float m, float l, const float (&other)[N]) {
		float to = fmaxf(max, m), a = exp2_fast(max - to), b = exp2_fast(m - to);
		max = to;
		sum = sum * a + l * b;
#pragma unroll
		for (int i = 0; i < N; i++) o[i] = o[i] * a + other[i] * b;
	}
	// The greatest weight is 2 to the WEIGHT_BITS, so that the inverse needs none of a division's special cases.
	__device__ __forceinline__ void store(half *out) const {
		float near;
		asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(near) : "f"(sum));
		float scale = fmaf(near, -fmaf(near, sum, -1), near);
#pragma unroll
		for (int i = 0; i < N; i += 4) // which the compiler would make two stores of
			asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(out + i)),
			             "r"(pack_half(o[i] * scale, o[i + 1] * scale)), "r"(pack_half(o[i + 2] * scale, o[i + 3] * scale)) : "memory");
	}
};

template <int N> __device__ __forceinline__ void read_floats(float (&to)[N], const float *from) {
#pragma unroll
	for (int i = 0; i < N; i += 4) {
		float4 v = *reinterpret_cast<const float4 *>(from + i);
		to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
	}
}

// Exchange is where a CTA of a cluster that has a unit finds the states of all of them, of the heads
// that it ends: every active-th one.
template <int D> struct Exchange {
	static constexpr int LD = D + 4, MOST = 14; // states: senders × heads of each, of 8 heads and up to 8 CTAs
	float states[MOST][LD];                     // [sender][head]: D sums, maximum, weight
	uint64_t received;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
	// expect, of one thread, makes the barrier of one of the active CTAs, which completes when all
	// states of its heads are there.
	__device__ __forceinline__ void expect(int rank, int group, int active) {
		uint32_t barrier = shared_address(&received);
		barrier_init(barrier, 1);
		barriers_ready();
		int heads = Over(active).up(group - rank);
		if (heads > 0) barrier_expect(barrier, heads * active * (D + 2) * 4);
	}
#endif
};
static_assert(sizeof(Exchange<64>) == 14 * 68 * 4 + 8 && sizeof(Exchange<128>) == 14 * 132 * 4 + 8, "attention_decode.go: decodeExchange, less 128");

// Partial is what a CTA has of a unit that one before it began: each thread's share of the state, which the same
// thread of that one waits for. Words are complements, and at least 1, so that 0 is none, whatever NaN arithmetic gives.
template <class F> struct Partial {
	static constexpr int N = F::N, THREADS = F::OF_HEAD * HEADS, WORDS = THREADS * (N + 2); // of a CTA
	uint32_t *fours, *two;                                                                  // the thread's words: [N / 4][THREADS] of four, [THREADS] of two

	__device__ __forceinline__ Partial(const DecodeParams &p, int cta) : fours(p.partials + (int64_t)cta * WORDS + threadIdx.x * 4), two(fours + N * THREADS - threadIdx.x * 2) {}

	// write stores the words of the CTA so many further on.
	__device__ __forceinline__ void write(int further, const uint32_t (&w)[N + 2]) const {
#pragma unroll
		for (int i = 0; i < N; i += 4)
			asm volatile("st.relaxed.gpu.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(fours + further * WORDS + i * THREADS), "r"(w[i]), "r"(w[i + 1]), "r"(w[i + 2]), "r"(w[i + 3]) : "memory");
		asm volatile("st.relaxed.gpu.global.v2.b32 [%0], {%1, %2};" ::"l"(two + further * WORDS), "r"(w[N]), "r"(w[N + 1]) : "memory");
	}
	__device__ __forceinline__ void leave(const Sum<N> &sum) const {
		auto word = [](float x) { return max(~__float_as_uint(x), 1u); };
		uint32_t w[N + 2];
#pragma unroll
		for (int i = 0; i < N; i++) w[i] = word(sum.o[i]);
		w[N] = word(sum.max), w[N + 1] = word(sum.sum);
		write(0, w);
	}
	// read asks for those, and says whether all are there.
	__device__ __forceinline__ bool read(int further, uint32_t (&w)[N + 2]) const {
#pragma unroll
		for (int i = 0; i < N; i += 4)
			asm volatile("ld.relaxed.gpu.global.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(w[i]), "=r"(w[i + 1]), "=r"(w[i + 2]), "=r"(w[i + 3]) : "l"(fours + further * WORDS + i * THREADS) : "memory");
		asm volatile("ld.relaxed.gpu.global.v2.b32 {%0, %1}, [%2];" : "=r"(w[N]), "=r"(w[N + 1]) : "l"(two + further * WORDS) : "memory");
		uint32_t least = ~0u;
#pragma unroll
		for (int i = 0; i < N + 2; i++) least = min(least, w[i]);
		return least > 0;
	}
};

// fold adds what the CTAs behind this one, up to last, have of its unit, in order, and leaves nothing there. The states of
// FOLDED are asked for at a time, also of CTAs behind the last. Each is what that CTA began with, so nobody was waited for
// before it. The grid fits the card; where less of it has room, CTAs start in order, in practice, so that only one unit waits
// for CTAs that have not started, and the others end and make room.
template <class F> __device__ __forceinline__ void fold(Sum<F::N> &all, const DecodeParams &p, int last) {
	constexpr int N = F::N;
#pragma unroll 1
	for (int at = blockIdx.x + 1; at <= last; at += FOLDED) {
		Partial<F> partial(p, at);
		uint32_t words[FOLDED][N + 2];
		bool there;
		do {
			there = true;
#pragma unroll
			for (int i = 0; i < FOLDED; i++) there &= partial.read(i, words[i]) || at + i > last;
		} while (!there);
#pragma unroll
		for (int i = 0; i < FOLDED; i++)
			if (at + i <= last) {
				float o[N];
#pragma unroll
				for (int j = 0; j < N; j++) o[j] = __uint_as_float(~words[i][j]);
				all.add(__uint_as_float(~words[i][N]), __uint_as_float(~words[i][N + 1]), o);
				partial.write(i, {});
			}
	}
}

} // namespace
