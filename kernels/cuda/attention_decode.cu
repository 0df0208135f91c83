// Paged decode attention: one query token a sequence.
//
//   attn[t][h] = softmax(query[t][h] · K[0..len)ᵀ / √d) · V[0..len)
//
// with K and V of KV head h / group read through the row's block table; the
// group (≤ 8) query heads of a KV head share every byte.
//
// Work: a tile is 64 tokens of one (sequence, KV head) unit. The tiles of all
// units lie in one line, sequences outermost, and every CTA of a fixed grid
// takes an equal run of it, so ragged batches balance to one tile
// (attention_decode_plan finds the runs, once a step; with few units, runs end
// where units do). A unit that no run cuts is
// finished by its CTA; of one that is cut, each CTA leaves a partial state and
// the last to arrive folds them in order. Two pieces of a CTA can be partial,
// the first and the last: slots 2·cta and 2·cta + 1.
//
// CTA: 4 warps; warp w owns tokens 16w..16w+15 of each tile, with a ring of its
// own in shared memory (cp.async) and an online softmax of its own (Milakov and
// Gimelshein, 2018), so the warps meet only where a piece ends. The ring runs on
// across pieces: it never drains.
// Products are swapped so that no row is padding: Sᵀ [16 tokens, 8 heads] = K·Qᵀ,
// Oᵀ [d, 8 heads] += Vᵀ·Pᵀ; the transposed fragment of P comes from movmatrix.
//
// Bytes: 4·d·len a (sequence, KV head), once. FLOPs: 4·d·len a query head.
#include "mma.cuh"

namespace {

constexpr int WARPS = 4, STEP = 16, TILE = WARPS * STEP, HEADS = 8;

// DecodePlan is what attention_decode_plan writes. Its Go side: layout of
// attention_decode.go.
struct DecodePlan {
	int32_t *header; // {tiles of a run, tiles that a unit is padded to a multiple of}
	int4 *seqs;      // [decodes] {length, first tile, first entry of the table, token}
	int4 *starts;    // [grid] {sequence, KV head, tile} of the first tile, tiles
};

struct DecodePlanParams {
	Batch batch;
	DecodePlan plan;
	int32_t kv_heads, grid;
};
static_assert(sizeof(DecodePlanParams) == 120 && offsetof(DecodePlanParams, kv_heads) == 112, "attention_decode.go: decodePlanParams");

struct DecodeParams {
	const bf16 *query; // [tokens][ld]
	bf16 *out;         // [tokens][ld]
	PagedKV kv;
	const int32_t *tables;
	DecodePlan plan;
	float *partials;   // [2·grid][8][d] sums, then [2·grid][8] maxima and weights (float2)
	int32_t *counters; // [seqs][kv_heads], zero between launches
	int64_t ld;
	int32_t layer, kv_heads, group, grid;
	float scale; // log2(e) / √d
	int32_t reserved;
};
static_assert(sizeof(DecodeParams) == 152 && offsetof(DecodeParams, plan) == 80 && offsetof(DecodeParams, layer) == 128, "attention_decode.go: decodeParams");

// Cursor walks the line of tiles.
struct Cursor {
	int seq, head, tile;
	int length, tiles, table, token; // of the sequence

	__device__ __forceinline__ void load(const DecodePlan &p) {
		int4 s = __ldg(p.seqs + seq);
		length = s.x;
		tiles = (s.x + TILE - 1) / TILE;
		table = s.z;
		token = s.w;
	}
	// next goes to the following tile, which exists.
	__device__ __forceinline__ void next(const DecodePlan &p, int kv_heads) {
		if (++tile < tiles) return;
		tile = 0;
		if (++head < kv_heads) return;
		head = 0;
		do {
			seq++;
			load(p);
		} while (tiles == 0);
	}
};

// State is a warp's softmax over its share of a piece: for heads 2q and 2q+1
// the maximum, this lane's part of the weights, and Oᵀ: fragment j holds
// dims 16j + r and 16j + r + 8.
template <int D> struct State {
	float max[2], sum[2], o[D / 16][4];
	uint32_t q[D / 8]; // B fragments of Qᵀ

	__device__ __forceinline__ void reset(const DecodeParams &p, const Cursor &c, int lane) {
		for (int i = 0; i < 2; i++) max[i] = -INFINITY, sum[i] = 0;
#pragma unroll
		for (int j = 0; j < D / 16; j++)
			for (int i = 0; i < 4; i++) o[j][i] = 0;
		int head = lane / 4;
		const bf16 *from = p.query + c.token * p.ld + (c.head * p.group + head) * D + lane % 4 * 2;
#pragma unroll
		for (int j = 0; j < D / 8; j++)
			q[j] = head < p.group ? *reinterpret_cast<const uint32_t *>(from + j * 8) : 0;
	}
};

// Address of 16 bytes in a [16][D] tile of a ring; the XOR keeps ldmatrix free of
// bank conflicts.
template <int D> __device__ __forceinline__ uint32_t swizzled(int row, int chunk) {
	return row * (D * 2) + ((chunk ^ (row & 7)) * 16);
}

// issue starts the copy of a warp's step: 16 keys, then 16 values. Those past
// the sequence's end become zeros, for a weight of 0 times NaN is NaN.
template <int D>
__device__ __forceinline__ void issue(const DecodeParams &p, const Cursor &c, int32_t block, int position, uint32_t stage, int lane) {
	constexpr int CHUNKS = D / 8, ROWS = 32 / CHUNKS; // rows a copy instruction covers
	if (position >= c.length) return;
	const bf16 *key = p.kv.base + block * p.kv.block + p.layer * p.kv.layer + c.head * p.kv.head +
	                  (position & (p.kv.block_size - 1)) * p.kv.token;
	int chunk = lane % CHUNKS, row = lane / CHUNKS;
	const bf16 *from = key + row * p.kv.token + chunk * 8;
#pragma unroll
	for (int i = 0; i < STEP; i += ROWS) {
		bool valid = position + row + i < c.length;
		uint32_t to = stage + swizzled<D>(row + i, chunk);
		copy_async(to, from + i * p.kv.token, valid);
		copy_async(to + STEP * D * 2, from + p.kv.value + i * p.kv.token, valid);
	}
}

// step folds 16 tokens into the state; the first `seen` of them exist.
template <int D> __device__ __forceinline__ void step(State<D> &s, uint32_t stage, int seen, float scale, int lane) {
	float c[2][4] = {};
	int row = lane % 16, half = lane / 16;
#pragma unroll
	for (int j = 0; j < D / 16; j++) { // two chains: half the latency
		uint32_t a[4];
		load_matrices(a, stage + swizzled<D>(row, 2 * j + half));
		multiply_add(c[j & 1], a, s.q[2 * j], s.q[2 * j + 1]);
	}
	float score[4], high[2];
#pragma unroll
	for (int i = 0; i < 4; i++) {
		int token = lane / 4 + i / 2 * 8;
		score[i] = token < seen ? (c[0][i] + c[1][i]) * scale : -INFINITY;
	}
	for (int i = 0; i < 2; i++) {
		high[i] = fmaxf(score[i], score[i + 2]);
		for (int d = 4; d < 32; d *= 2) high[i] = fmaxf(high[i], __shfl_xor_sync(~0u, high[i], d));
	}
	if (__any_sync(~0u, high[0] > s.max[0] || high[1] > s.max[1])) {
		float shrink[2];
		for (int i = 0; i < 2; i++) {
			float to = fmaxf(s.max[i], high[i]);
			shrink[i] = exp2_fast(s.max[i] - to);
			s.max[i] = to;
			s.sum[i] *= shrink[i];
		}
#pragma unroll
		for (int j = 0; j < D / 16; j++)
			for (int i = 0; i < 4; i++) s.o[j][i] *= shrink[i % 2];
	}
	float weight[4];
#pragma unroll
	for (int i = 0; i < 4; i++) {
		weight[i] = exp2_fast(score[i] - s.max[i % 2]);
		s.sum[i % 2] += weight[i];
	}
	uint32_t b0 = transpose(pack_bf16(weight[0], weight[1])), b1 = transpose(pack_bf16(weight[2], weight[3]));
	// Matrices of Vᵀ: dims 0–7 and 8–15 of tokens 0–7, then of tokens 8–15.
	int token = lane % 8 + lane / 16 * 8, chunk = lane / 8 % 2;
#pragma unroll
	for (int j = 0; j < D / 16; j++) {
		uint32_t a[4];
		load_matrices_transposed(a, stage + STEP * D * 2 + swizzled<D>(token, 2 * j + chunk));
		multiply_add(s.o[j], a, b0, b1);
	}
}

// The state of a warp where a piece ends, in the ring's free stage.
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

// Sum is a thread's share of a folded state: D/16 dims of one head.
template <int D> struct Sum {
	static constexpr int N = D / 16;
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
	__device__ __forceinline__ void store(bf16 *out) const {
		float scale = 1 / sum;
#pragma unroll
		for (int i = 0; i < N; i += 4)
			*reinterpret_cast<uint2 *>(out + i) = make_uint2(pack_bf16(o[i] * scale, o[i + 1] * scale), pack_bf16(o[i + 2] * scale, o[i + 3] * scale));
	}
};

template <int N> __device__ __forceinline__ void read_floats(float (&to)[N], const float *from) {
#pragma unroll
	for (int i = 0; i < N; i += 4) {
		float4 v = __ldcg(reinterpret_cast<const float4 *>(from + i)); // L2: another CTA wrote it
		to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
	}
}

// fold reads the partial states of a unit, of CTAs first..last, in order: eight
// loads are under way at a time.
template <int D> __device__ __forceinline__ Sum<D> fold(const DecodeParams &p, int first, int last, int head, int dim) {
	constexpr int N = Sum<D>::N, AHEAD = 8;
	const float2 *weights = reinterpret_cast<const float2 *>(p.partials + (int64_t)2 * p.grid * HEADS * D);
	Sum<D> all;
	for (int at = first; at <= last; at += AHEAD) {
		float o[AHEAD][N];
		float2 w[AHEAD];
#pragma unroll
		for (int i = 0; i < AHEAD; i++) {
			int cta = min(at + i, last), slot = (2 * cta + (cta == first)) * HEADS + head;
			read_floats(o[i], p.partials + (int64_t)slot * D + dim);
			w[i] = __ldcg(weights + slot);
		}
#pragma unroll
		for (int i = 0; i < AHEAD; i++)
			if (at + i <= last) all.add(w[i].x, w[i].y, o[i]);
	}
	return all;
}

// end_piece merges the warps' states and writes the output or a partial state.
// Tiles [begin, end) of the unit are the piece.
template <int D>
__device__ __forceinline__ void end_piece(const DecodeParams &p, const Cursor &c, int begin, const char *stages, int ring_bytes) {
	constexpr int N = Sum<D>::N;
	__shared__ bool last;
	int head = threadIdx.x / 16, dim = threadIdx.x % 16 * N, end = c.tile + 1;
	bf16 *out = p.out + c.token * p.ld + (c.head * p.group + head) * D + dim;
	bool mine = head < p.group;
	__syncthreads();
	Sum<D> sum;
	if (mine) {
#pragma unroll
		for (int w = 0; w < WARPS; w++) {
			const Shared<D> *from = reinterpret_cast<const Shared<D> *>(stages + w * ring_bytes);
			float o[N];
			for (int i = 0; i < N; i++) o[i] = from->o[head][dim + i];
			sum.add(from->max[head], from->sum[head], o);
		}
	}
	if (begin == 0 && end == c.tiles) {
		if (mine) sum.store(out);
		__syncthreads(); // the stages may be filled again
		return;
	}
	if (mine) {
		int slot = (2 * blockIdx.x + (begin == 0)) * HEADS + head;
		float *to = p.partials + (int64_t)slot * D + dim;
#pragma unroll
		for (int i = 0; i < N; i += 4) *reinterpret_cast<float4 *>(to + i) = make_float4(sum.o[i], sum.o[i + 1], sum.o[i + 2], sum.o[i + 3]);
		if (dim == 0)
			reinterpret_cast<float2 *>(p.partials + (int64_t)2 * p.grid * HEADS * D)[slot] = make_float2(sum.max, sum.sum);
	}
	__threadfence();
	__syncthreads();
	int per = p.plan.header[0], pad = p.plan.header[1];
	int unit_begin = __ldg(p.plan.seqs + c.seq).y + c.head * ((c.tiles + pad - 1) / pad * pad);
	int first_cta = unit_begin / per, last_cta = (unit_begin + c.tiles - 1) / per;
	if (threadIdx.x == 0) {
		int *counter = p.counters + c.seq * p.kv_heads + c.head;
		last = atomicAdd(counter, 1) == last_cta - first_cta;
		if (last) *counter = 0;
	}
	__syncthreads();
	if (last && mine) {
		__threadfence();
		fold<D>(p, first_cta, last_cta, head, dim).store(out);
	}
}

template <int D, int STAGES> __device__ __forceinline__ void attend(const DecodeParams &p) {
	constexpr int STAGE = 2 * STEP * D * 2, RING = STAGES * STAGE;
	static_assert(sizeof(Shared<D>) <= STAGE, "a stage holds a state");
	extern __shared__ __align__(128) char memory[];
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
	uint32_t ring = shared_address(memory) + warp * RING;

	int4 start = p.plan.starts[blockIdx.x];
	int count = start.w;
	if (count == 0) {
		grid_wait();
		grid_trigger();
		return;
	}
	Cursor ahead{start.x, start.y, start.z}, c;
	ahead.load(p.plan);
	c = ahead;
	auto position = [&](const Cursor &at) { return at.tile * TILE + warp * STEP; };
	auto block_of = [&] { // the id is fetched a step before it is needed
		int at = position(ahead);
		return at < ahead.length ? __ldg(p.tables + ahead.table + (at >> p.kv.block_shift)) : 0;
	};
	int32_t block = block_of();
	auto issue_next = [&](int i) {
		issue<D>(p, ahead, block, position(ahead), ring + i % STAGES * STAGE, lane);
		if (i + 1 < count) {
			ahead.next(p.plan, p.kv_heads);
			block = block_of();
		}
	};
	for (int i = 0; i < STAGES; i++) {
		if (i < count) {
			// What the predecessor writes is the last token's key and value.
			if (position(ahead) + STEP >= ahead.length) grid_wait();
			issue_next(i);
		}
		copy_commit();
	}
	grid_wait();
	grid_trigger();

	State<D> state;
	int begin = c.tile;
	state.reset(p, c, lane);
	for (int i = 0; i < count; i++) {
		int stage = i % STAGES * STAGE, seen = c.length - position(c);
		copy_wait<STAGES - 1>();
		__syncwarp();
		if (seen > 0) step<D>(state, ring + stage, seen, p.scale, lane);
		bool ends = c.tile + 1 == c.tiles || i + 1 == count;
		if (ends) {
			leave<D>(state, reinterpret_cast<Shared<D> *>(memory + warp * RING + stage), lane);
			end_piece<D>(p, c, begin, memory + stage, RING);
		}
		__syncwarp();
		if (i + STAGES < count) issue_next(i + STAGES);
		copy_commit();
		if (i + 1 == count) break;
		c.next(p.plan, p.kv_heads);
		if (ends) {
			begin = c.tile;
			state.reset(p, c, lane);
		}
	}
}

} // namespace

PG_KERNEL void __launch_bounds__(WARPS * 32, 2) attention_decode_64(const __grid_constant__ DecodeParams p) { attend<64, 6>(p); }
PG_KERNEL void __launch_bounds__(WARPS * 32, 2) attention_decode_128(const __grid_constant__ DecodeParams p) { attend<128, 3>(p); }

// sum_of is the sum over a CTA of 1,024 threads.
static __device__ __forceinline__ int sum_of(int x, int32_t *warp_total) {
	for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(~0u, x, d);
	__syncthreads();
	if (threadIdx.x % 32 == 0) warp_total[threadIdx.x / 32] = x;
	__syncthreads();
	int all = 0;
	for (int w = 0; w < 32; w++) all += warp_total[w];
	return all;
}

// attention_decode_plan: one CTA of 1,024 threads. It chooses the length of a run,
// sums up the tiles before each sequence, and finds each CTA's start by bisection.
//
// A run has at least √(tiles of the longest unit / 5) tiles: a tile more costs a CTA
// about 0.5 µs, a piece more costs who folds them 0.1 µs. Where every unit can have
// CTAs of its own, units are padded to whole runs in the line, for a CTA that ends
// two pieces is the last to finish.
PG_KERNEL void __launch_bounds__(1024) attention_decode_plan(const __grid_constant__ DecodePlanParams p) {
	extern __shared__ int32_t first[]; // [decodes + 1]
	__shared__ int32_t warp_total[32], carry, longest;
	grid_wait();
	grid_trigger();
	int t = threadIdx.x, lane = t % 32, warp = t / 32, n = p.batch.header[H_DECODES];
	auto tiles_of = [&](int s) { return s < n ? (p.batch.seq_lens[s] + TILE - 1) / TILE : 0; };
	if (t == 0) carry = longest = 0;
	__syncthreads();
	int mine = 0, some = 0;
	for (int s = t; s < n; s += 1024) {
		int tiles = tiles_of(s);
		mine += tiles, some += tiles > 0;
		if (tiles > longest) atomicMax(&longest, tiles);
	}
	int total = sum_of(mine, warp_total) * p.kv_heads, units = sum_of(some, warp_total) * p.kv_heads;
	int per = max(max(1, (int)ceilf(sqrtf(longest * 0.2f))), (total + p.grid - 1) / p.grid), pad = 1;
	for (int longer = per, most = per + 2; units <= p.grid && longer <= most; longer++) {
		int ctas = 0;
		for (int s = t; s < n; s += 1024) ctas += (tiles_of(s) + longer - 1) / longer;
		if (sum_of(ctas, warp_total) * p.kv_heads > p.grid) continue;
		per = pad = longer;
		break;
	}

	for (int base = 0; base < n; base += 1024) {
		int s = base + t, tiles = (tiles_of(s) + pad - 1) / pad * pad * p.kv_heads, sum = tiles;
		for (int d = 1; d < 32; d *= 2) {
			int below = __shfl_up_sync(~0u, sum, d);
			if (lane >= d) sum += below;
		}
		if (lane == 31) warp_total[warp] = sum;
		__syncthreads();
		int before = carry;
		for (int w = 0; w < warp; w++) before += warp_total[w];
		__syncthreads();
		if (t == 1023) carry = before + sum;
		if (s < n) {
			first[s] = before + sum - tiles;
			p.plan.seqs[s] = make_int4(p.batch.seq_lens[s], first[s], (int)(p.batch.rows[s] * p.batch.table_stride), p.batch.query_start[s]);
		}
		__syncthreads();
	}
	total = carry;
	if (t == 0) p.plan.header[0] = per, p.plan.header[1] = pad;
	for (int cta = t; cta < p.grid; cta += 1024) {
		int at = cta * per, low = 0, high = n; // the last sequence that starts at or before the tile
		int4 start = make_int4(0, 0, 0, 0);
		if (at < total) {
			while (high - low > 1) {
				int middle = (low + high) / 2;
				if (first[middle] <= at) low = middle;
				else high = middle;
			}
			int tiles = tiles_of(low), padded = (tiles + pad - 1) / pad * pad, rest = at - first[low];
			start = make_int4(low, rest / padded, rest % padded, 0);
			start.w = pad > 1 ? min(per, tiles - start.z) : min(per, total - at);
		}
		p.plan.starts[cta] = start;
	}
}
