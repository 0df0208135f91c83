// Paged causal attention of runs of query tokens: prompts, chunks of prompts,
// mixed batches; and of decodes where results must not depend on the batch.
//
//   attn[t][h] = softmax(query[t][h] · K[0..p]ᵀ / √d) · V[0..p],   p = position of t
//
// with K and V of KV head h / group read through the row's block table.
//
// Work: the query tokens of a sequence × the group heads of a KV head are packed
// into rows (row = token · group + head), so short chunks fill tiles and K and V
// are read once for all heads. An item is a tile of ROWS rows of one sequence;
// a CTA takes one (item, KV head). attention_prefill_plan lists the items, late
// ones first, as they see the most keys.
//
// Where the items are few and see many keys, the keys of an item are cut into pieces,
// items of their own: each leaves a partial state, and attention_prefill_merge folds
// the rows of a tile in the order of the pieces, each CTA as many rows as its piece's
// share.
//
// CTA: 4 warps of ROWS/4 rows each walk the keys in tiles of 64 tokens, two tiles
// in shared memory (cp.async), with an online softmax (Milakov and Gimelshein,
// 2018; Dao, FlashAttention-2, 2023). P stays in registers: the accumulator of
// Q·Kᵀ is the operand of P·V, in half. Where nothing is cut a row's arithmetic depends
// on its own keys alone, in order: the same bits whatever the tile, chunk or batch.
//
// FLOPs: 4·d a query head and visible key. Bytes: 4·d a key, KV head and tile of rows,
// and of a cut one 4·(d + 2) a row and piece, written and read. 16 tokens of the 7B (H100,
// 2026-11-26): behind 4,080 keys 13.6 µs, of which merging is 4.9, 20 % of the bytes at
// 3.05 TB/s; behind 29,984, 41 µs, 49 %.
#include "attention_prefill.cuh"

namespace {

constexpr int WARPS = 4, KEYS = 64;
constexpr float LOWEST = -1e30f; // below every score, and finite: a row may see no key of a piece

struct PrefillPlanParams {
	Batch batch;
	int32_t *header;         // {items, 0: those that attention_sm90.cu has dealt}
	int4 *items;             // as in PrefillParams
	int32_t group, rows;     // rows of a tile
	int32_t decodes;         // whether decodes are items too
	int32_t per;             // tiles of KEYS keys of a piece at most, 0 = nothing is cut
};
static_assert(sizeof(PrefillPlanParams) == 120 && offsetof(PrefillPlanParams, group) == 104, "attention_prefill.go: prefillPlanParams");

// Offset of 16 bytes in a tile with rows of D values.
template <int D> __device__ __forceinline__ uint32_t swizzled(int row, int chunk) { return row * (D * 2) + (chunk ^ (row & 7)) * 16; }

// Partials are the states that pieces leave, by CTA and row of the tile: sums, then
// maximum (an exponent of 2) and weight.
template <int D> struct Partials {
	float *base;
	int rows;
	__device__ __forceinline__ Partials(const PrefillParams &p, int rows) : base(p.partials), rows(rows) {}
	__device__ __forceinline__ float *sums(int cta, int row) const { return base + (int64_t)(cta * rows + row) * D; }
	__device__ __forceinline__ float2 *weight(int cta, int row) const {
		return reinterpret_cast<float2 *>(sums(gridDim.x, 0)) + cta * rows + row;
	}
};

template <int D, int MI> struct Attention {
	static constexpr int ROWS = WARPS * MI * 16, CHUNKS = D / 8;
	static constexpr int TILE = KEYS * D * 2, STAGE = 2 * TILE, QUERY = ROWS * D * 2;

	float o[MI][D / 8][4], max[MI][2], sum[MI][2];

	static __device__ __forceinline__ void copy_query(const PrefillParams &p, const Item &it, const half *query, uint32_t to) {
		int chunk = threadIdx.x % CHUNKS;
		for (int row = threadIdx.x / CHUNKS; row < ROWS; row += WARPS * 32 / CHUNKS) {
			bool valid = it.first + row < it.rows;
			copy_async(to + swizzled<D>(row, chunk), query + (valid ? row_at<D>(p, it, it.first + row) : 0) + chunk * 8, valid);
		}
	}

	// copy_keys copies 64 keys and values. Those past the end become zeros, for a
	// weight of 0 times NaN is NaN.
	static __device__ __forceinline__ void copy_keys(const PrefillParams &p, const Item &it, int first, uint32_t to) {
		constexpr int PASS = WARPS * 32 / CHUNKS; // rows of a copy of all threads
		int chunk = threadIdx.x % CHUNKS, row = threadIdx.x / CHUNKS;
#pragma unroll
		for (int i = 0; i < KEYS; i += PASS) {
			int at = first + row + i;
			bool valid = at < it.length;
			int block = valid ? __ldg(it.table + (at >> p.kv.block_shift)) : 0;
			const half *from = it.kv + block * p.kv.block + (at & (p.kv.block_size - 1)) * p.kv.token + chunk * 8;
			copy_async(to + swizzled<D>(row + i, chunk), from, valid);
			copy_async(to + TILE + swizzled<D>(row + i, chunk), from + p.kv.value, valid);
		}
	}

	__device__ __forceinline__ void clear() {
#pragma unroll
		for (int i = 0; i < MI; i++) {
			for (int j = 0; j < D / 8; j++)
				for (int l = 0; l < 4; l++) o[i][j][l] = 0;
			for (int h = 0; h < 2; h++) max[i][h] = LOWEST, sum[i][h] = 0;
		}
	}

	// step folds a tile of keys, the first at position `first`, into the warp's
	// rows, the first of which is `row`.
	__device__ __forceinline__ void step(const PrefillParams &p, const Item &it, uint32_t query, uint32_t stage, int first, int row, bool masked) {
		int lane = threadIdx.x % 32, q = lane % 4;
		float s[MI][KEYS / 8][4] = {};
#pragma unroll 2
		for (int k = 0; k < D / 16; k++) {
			uint32_t a[MI][4];
#pragma unroll
			for (int i = 0; i < MI; i++) load_matrices(a[i], query + swizzled<D>(16 * i + lane % 16, 2 * k + lane / 16));
#pragma unroll
			for (int j = 0; j < KEYS / 8; j += 2) {
				uint32_t b[4];
				load_matrices(b, stage + swizzled<D>(8 * j + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
#pragma unroll
				for (int i = 0; i < MI; i++) {
					multiply_add(s[i][j], a[i], b[0], b[1]);
					multiply_add(s[i][j + 1], a[i], b[2], b[3]);
				}
			}
		}
#pragma unroll
		for (int i = 0; i < MI; i++) {
			if (masked)
				for (int h = 0; h < 2; h++) {
					int last = it.before + (row + 16 * i + 8 * h + lane / 4) / p.group - first - 2 * q; // that the row sees
#pragma unroll
					for (int j = 0; j < KEYS / 8; j++)
						for (int l = 0; l < 2; l++)
							if (8 * j + l > last) s[i][j][2 * h + l] = -INFINITY;
				}
			softmax(s[i], i, p.scale);
		}
#pragma unroll
		for (int k = 0; k < KEYS / 16; k++) {
			uint32_t a[MI][4];
#pragma unroll
			for (int i = 0; i < MI; i++)
				for (int l = 0; l < 4; l++) a[i][l] = pack_half(s[i][2 * k + l / 2][l % 2 * 2], s[i][2 * k + l / 2][l % 2 * 2 + 1]);
#pragma unroll
			for (int j = 0; j < D / 8; j += 2) {
				uint32_t b[4];
				load_matrices_transposed(b, stage + TILE + swizzled<D>(16 * k + lane % 16, j + lane / 16));
#pragma unroll
				for (int i = 0; i < MI; i++) {
					multiply_add(o[i][j], a[i], b[0], b[1]);
					multiply_add(o[i][j + 1], a[i], b[2], b[3]);
				}
			}
		}
	}

	// softmax turns scores into weights and brings o and sum to the new maximum.
	__device__ __forceinline__ void softmax(float (&s)[KEYS / 8][4], int i, float scale) {
		float shift[2];
#pragma unroll
		for (int h = 0; h < 2; h++) {
			float high = max[i][h];
#pragma unroll
			for (int j = 0; j < KEYS / 8; j++) high = fmaxf(high, fmaxf(s[j][2 * h], s[j][2 * h + 1]));
			high = fmaxf(high, __shfl_xor_sync(~0u, high, 1));
			high = fmaxf(high, __shfl_xor_sync(~0u, high, 2));
			float shrink = exp2_fast((max[i][h] - high) * scale);
			max[i][h] = high;
			sum[i][h] *= shrink;
			shift[h] = high * scale - WEIGHT_BITS;
#pragma unroll
			for (int j = 0; j < D / 8; j++) o[i][j][2 * h] *= shrink, o[i][j][2 * h + 1] *= shrink;
		}
#pragma unroll
		for (int j = 0; j < KEYS / 8; j++)
			for (int l = 0; l < 4; l++) {
				s[j][l] = exp2_fast(fmaf(s[j][l], scale, -shift[l / 2]));
				sum[i][l / 2] += s[j][l];
			}
	}

	// total is the sum of a row's weights, of which four lanes have parts.
	__device__ __forceinline__ float total(int i, int h) const {
		float all = sum[i][h];
		all += __shfl_xor_sync(~0u, all, 1);
		return all + __shfl_xor_sync(~0u, all, 2);
	}

	// store writes the warp's rows, through its part of the query tile.
	__device__ __forceinline__ void store(const PrefillParams &p, const Item &it, half *out, char *memory) {
		int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
		char *mine = memory + warp * MI * 16 * D * 2;
		__syncwarp();
#pragma unroll
		for (int i = 0; i < MI; i++)
			for (int h = 0; h < 2; h++) {
				float scale = 1 / total(i, h);
				int row = 16 * i + 8 * h + r;
#pragma unroll
				for (int j = 0; j < D / 8; j++)
					*reinterpret_cast<uint32_t *>(mine + swizzled<D>(row, j) + q * 4) = pack_half(o[i][j][2 * h] * scale, o[i][j][2 * h + 1] * scale);
			}
		__syncwarp();
		for (int row = lane / CHUNKS; row < MI * 16; row += 32 / CHUNKS) {
			int at = it.first + warp * MI * 16 + row, chunk = lane % CHUNKS;
			if (at < it.rows)
				*reinterpret_cast<uint4 *>(out + row_at<D>(p, it, at) + chunk * 8) = *reinterpret_cast<uint4 *>(mine + swizzled<D>(row, chunk));
		}
	}

	// leave writes the state of the warp's rows.
	__device__ __forceinline__ void leave(const PrefillParams &p, const Item &it) {
		int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
		Partials<D> to(p, ROWS);
#pragma unroll
		for (int i = 0; i < MI; i++)
			for (int h = 0; h < 2; h++) {
				float all = total(i, h);
				int row = (warp * MI + i) * 16 + 8 * h + r;
				if (it.first + row >= it.rows) continue;
				float *sums = to.sums(blockIdx.x, row) + 2 * q;
#pragma unroll
				for (int j = 0; j < D / 8; j++) *reinterpret_cast<float2 *>(sums + 8 * j) = make_float2(o[i][j][2 * h], o[i][j][2 * h + 1]);
				if (q == 0) *to.weight(blockIdx.x, row) = make_float2(max[i][h] * p.scale, all);
			}
	}
};

template <int D, int MI> __device__ __forceinline__ void attend(const PrefillParams &p) {
	using A = Attention<D, MI>;
	extern __shared__ __align__(128) char memory[];
	grid_wait();
	grid_trigger();
	int item = blockIdx.x / p.kv_heads, head = blockIdx.x % p.kv_heads, warp = threadIdx.x / 32;
	if (item >= p.header[0]) return;
	Item it = describe(p, item, head);
	uint32_t base = shared_address(memory), ring = base + A::QUERY, mine = base + warp * MI * 16 * D * 2;
	int row = it.first + warp * MI * 16, warp_first = it.before + row / p.group; // position of the first row
	int warp_last = row < it.rows ? it.before + (min(row + MI * 16, it.rows) - 1) / p.group : -1;
	int tiles = (it.before + (min(it.first + A::ROWS, it.rows) - 1) / p.group) / KEYS + 1; // of keys that the item sees
	int tile = tiles * it.piece / it.pieces, end = tiles * (it.piece + 1) / it.pieces;
	A::copy_query(p, it, p.query + head * p.group * D, base);
	A::copy_keys(p, it, tile * KEYS, ring);
	copy_commit();

	A a;
	a.clear();
	for (int stage = 0; tile < end; tile++, stage ^= 1) {
		copy_wait<0>();
		__syncthreads();
		if (tile + 1 < end) A::copy_keys(p, it, (tile + 1) * KEYS, ring + (stage ^ 1) * A::STAGE);
		copy_commit();
		int first = tile * KEYS;
		if (first <= warp_last) a.step(p, it, mine, ring + stage * A::STAGE, first, row, first + KEYS - 1 > warp_first);
	}
	it = describe(p, item, head); // read again, to hold no registers in the loop
	if (it.pieces == 1) a.store(p, it, p.out + head * p.group * D, memory);
	else a.leave(p, it);
}

// merge folds the partial states of a tile: a warp a row, D/32 dims a lane.
template <int D, int ROWS> __device__ __forceinline__ void merge(const PrefillParams &p) {
	constexpr int N = D / 32, AHEAD = 16;
	struct alignas(4 * N) Dims {
		float x[N];
	};
	grid_wait();
	grid_trigger();
	int item = blockIdx.x / p.kv_heads, head = blockIdx.x % p.kv_heads, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	if (item >= p.header[0]) return;
	Item it = describe(p, item, head);
	if (it.pieces == 1) return;
	int rows = min(ROWS, it.rows - it.first), cta = blockIdx.x - it.piece * p.kv_heads; // of the first piece
	Partials<D> from(p, ROWS);
	for (int row = rows * it.piece / it.pieces + warp; row < rows * (it.piece + 1) / it.pieces; row += WARPS) {
		float high = LOWEST, all = 0, o[N] = {};
		for (int i = lane; i < it.pieces; i += 32) high = fmaxf(high, from.weight(cta + i * p.kv_heads, row)->x);
		high = warp_max(high);
		for (int base = 0; base < it.pieces; base += 32) {
			float2 w = base + lane < it.pieces ? *from.weight(cta + (base + lane) * p.kv_heads, row) : make_float2(LOWEST, 0);
			float share = exp2_fast(w.x - high);
			all += share * w.y;
			for (int i = base; i < min(base + 32, it.pieces); i += AHEAD) {
				Dims d[AHEAD];
#pragma unroll
				for (int j = 0; j < AHEAD; j++)
					d[j] = *reinterpret_cast<const Dims *>(from.sums(cta + min(i + j, it.pieces - 1) * p.kv_heads, row) + lane * N);
#pragma unroll
				for (int j = 0; j < AHEAD; j++) {
					float by = __shfl_sync(~0u, share, i - base + j);
					for (int k = 0; k < N; k++) o[k] += d[j].x[k] * by;
				}
			}
		}
		float scale = 1 / warp_sum(all);
		half *out = p.out + row_at<D>(p, it, it.first + row) + head * p.group * D + lane * N;
		for (int k = 0; k < N; k += 2) *reinterpret_cast<uint32_t *>(out + k) = pack_half(o[k] * scale, o[k + 1] * scale);
	}
}

} // namespace

PG_KERNEL void __launch_bounds__(128, 2) attention_prefill_64(const __grid_constant__ PrefillParams p) { attend<64, 2>(p); }
PG_KERNEL void __launch_bounds__(128, 2) attention_prefill_128(const __grid_constant__ PrefillParams p) { attend<128, 2>(p); }
PG_KERNEL void __launch_bounds__(128, 2) attention_prefill_64_short(const __grid_constant__ PrefillParams p) { attend<64, 1>(p); }
PG_KERNEL void __launch_bounds__(128, 2) attention_prefill_128_short(const __grid_constant__ PrefillParams p) { attend<128, 1>(p); }
PG_KERNEL void __launch_bounds__(128) attention_prefill_merge_64(const __grid_constant__ PrefillParams p) { merge<64, 128>(p); }
PG_KERNEL void __launch_bounds__(128) attention_prefill_merge_128(const __grid_constant__ PrefillParams p) { merge<128, 128>(p); }
PG_KERNEL void __launch_bounds__(128) attention_prefill_merge_64_short(const __grid_constant__ PrefillParams p) { merge<64, 64>(p); }
PG_KERNEL void __launch_bounds__(128) attention_prefill_merge_128_short(const __grid_constant__ PrefillParams p) { merge<128, 64>(p); }

// attention_prefill_plan: one CTA of 1,024 threads, which works while what is before it runs, as
// attention_decode_plan does. Prefix sums of items over the
// sequences; item 0 is the last tile of the last sequence. The pieces of a tile are
// neighbours, in order.
PG_KERNEL void __launch_bounds__(1024) attention_prefill_plan(const __grid_constant__ PrefillPlanParams p) {
	__shared__ int32_t warp_total[32], carry, total;
	int t = threadIdx.x, lane = t % 32, warp = t / 32, n = p.batch.header[H_SEQS];
	int first = p.decodes ? 0 : p.batch.header[H_DECODES];
	for (int pass = 0; pass < 2; pass++) { // count, then write from the end on
		if (t == 0) carry = 0;
		__syncthreads();
		for (int base = first; base < n; base += 1024) {
			int s = base + t, tokens = s < n ? p.batch.query_start[s + 1] - p.batch.query_start[s] : 0;
			int rows = tokens * p.group, tiles = (rows + p.rows - 1) / p.rows, before = s < n ? p.batch.seq_lens[s] - tokens : 0;
			auto pieces = [&](int tile) {
				int last = before + (min((tile + 1) * p.rows, rows) - 1) / p.group; // key
				return p.per ? (last / KEYS + p.per) / p.per : 1;
			};
			int items = p.per ? 0 : tiles;
			if (p.per)
				for (int i = 0; i < tiles; i++) items += pieces(i);
			int sum = items;
			for (int d = 1; d < 32; d *= 2) {
				int below = __shfl_up_sync(~0u, sum, d);
				if (lane >= d) sum += below;
			}
			if (lane == 31) warp_total[warp] = sum;
			__syncthreads();
			int at = carry;
			for (int w = 0; w < warp; w++) at += warp_total[w];
			__syncthreads();
			if (t == 1023) carry = at + sum;
			at += sum - items;
			if (pass == 1)
				for (int i = 0; i < tiles; i++)
					for (int all = pieces(i), piece = all; piece-- > 0; at++) p.items[total - 1 - at] = make_int4(s, i * p.rows, piece, all);
			__syncthreads();
		}
		if (pass == 0 && t == 0) p.header[0] = total = carry, p.header[1] = 0;
		__syncthreads();
	}
	grid_trigger(); // the layer's kernel waits before it reads
	grid_wait(); // what waits for this waits for all before it
}
