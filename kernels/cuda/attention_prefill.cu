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
// CTA: 4 warps of ROWS/4 rows each walk the keys in tiles of 64 tokens, two tiles
// in shared memory (cp.async), with an online softmax (Milakov and Gimelshein,
// 2018; Dao, FlashAttention-2, 2023). P stays in registers: the accumulator of
// Q·Kᵀ is the operand of P·V, in half. A row's arithmetic depends on its own keys alone,
// in order: the same bits whatever the tile, chunk or batch.
//
// FLOPs: 4·d a query head and visible key. Bytes: 4·d a key, KV head and item.
#include "attention_prefill.cuh"

namespace {

constexpr int WARPS = 4, KEYS = 64;

struct PrefillPlanParams {
	Batch batch;
	int32_t *header;         // {items, 0: those that attention_sm90.cu has dealt}
	int2 *items;             // {sequence, first row}
	int32_t group, rows;     // rows of a tile
	int32_t decodes;         // whether decodes are items too
	int32_t reserved;
};
static_assert(sizeof(PrefillPlanParams) == 120 && offsetof(PrefillPlanParams, group) == 104, "attention_prefill.go: prefillPlanParams");

// Offset of 16 bytes in a tile with rows of D values.
template <int D> __device__ __forceinline__ uint32_t swizzled(int row, int chunk) { return row * (D * 2) + (chunk ^ (row & 7)) * 16; }

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
			for (int h = 0; h < 2; h++) max[i][h] = -INFINITY, sum[i][h] = 0;
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
					multiply_add_half(s[i][j], a[i], b[0], b[1]);
					multiply_add_half(s[i][j + 1], a[i], b[2], b[3]);
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
					multiply_add_half(o[i][j], a[i], b[0], b[1]);
					multiply_add_half(o[i][j + 1], a[i], b[2], b[3]);
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

	// store writes the warp's rows, through its part of the query tile.
	__device__ __forceinline__ void store(const PrefillParams &p, const Item &it, bf16 *out, char *memory) {
		int lane = threadIdx.x % 32, warp = threadIdx.x / 32, r = lane / 4, q = lane % 4;
		char *mine = memory + warp * MI * 16 * D * 2;
		__syncwarp();
#pragma unroll
		for (int i = 0; i < MI; i++)
			for (int h = 0; h < 2; h++) {
				float all = sum[i][h];
				all += __shfl_xor_sync(~0u, all, 1);
				all += __shfl_xor_sync(~0u, all, 2);
				float scale = 1 / all;
				int row = 16 * i + 8 * h + r;
#pragma unroll
				for (int j = 0; j < D / 8; j++)
					*reinterpret_cast<uint32_t *>(mine + swizzled<D>(row, j) + q * 4) = pack_bf16(o[i][j][2 * h] * scale, o[i][j][2 * h + 1] * scale);
			}
		__syncwarp();
		for (int row = lane / CHUNKS; row < MI * 16; row += 32 / CHUNKS) {
			int at = it.first + warp * MI * 16 + row, chunk = lane % CHUNKS;
			if (at < it.rows)
				*reinterpret_cast<uint4 *>(out + row_at<D>(p, it, at) + chunk * 8) = *reinterpret_cast<uint4 *>(mine + swizzled<D>(row, chunk));
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
	const half *query = p.query + head * p.group * D;
	bf16 *out = p.out + head * p.group * D;
	uint32_t base = shared_address(memory), ring = base + A::QUERY, mine = base + warp * MI * 16 * D * 2;
	A::copy_query(p, it, query, base);
	A::copy_keys(p, it, 0, ring);
	copy_commit();

	int row = it.first + warp * MI * 16, warp_first = it.before + row / p.group; // position of the first row
	int warp_last = row < it.rows ? it.before + (min(row + MI * 16, it.rows) - 1) / p.group : -1;
	int end = it.before + (min(it.first + A::ROWS, it.rows) - 1) / p.group + 1; // keys that the item sees

	A a;
	a.clear();
	for (int first = 0; first < end; first += KEYS) {
		uint32_t stage = ring + first / KEYS % 2 * A::STAGE;
		copy_wait<0>();
		__syncthreads();
		if (first + KEYS < end) A::copy_keys(p, it, first + KEYS, ring + (first / KEYS + 1) % 2 * A::STAGE);
		copy_commit();
		if (first <= warp_last) a.step(p, it, mine, stage, first, row, first + KEYS - 1 > warp_first);
	}
	a.store(p, describe(p, item, head), out, memory); // read again, to hold no registers in the loop
}

} // namespace

PG_KERNEL void __launch_bounds__(128, 2) attention_prefill_64(const __grid_constant__ PrefillParams p) { attend<64, 2>(p); }
PG_KERNEL void __launch_bounds__(128, 2) attention_prefill_128(const __grid_constant__ PrefillParams p) { attend<128, 2>(p); }
PG_KERNEL void __launch_bounds__(128, 2) attention_prefill_64_short(const __grid_constant__ PrefillParams p) { attend<64, 1>(p); }
PG_KERNEL void __launch_bounds__(128, 2) attention_prefill_128_short(const __grid_constant__ PrefillParams p) { attend<128, 1>(p); }

// attention_prefill_plan: one CTA of 1,024 threads. Prefix sums of tiles over the
// sequences; item 0 is the last tile of the last sequence.
PG_KERNEL void __launch_bounds__(1024) attention_prefill_plan(const __grid_constant__ PrefillPlanParams p) {
	__shared__ int32_t warp_total[32], carry, total;
	grid_wait();
	grid_trigger();
	int t = threadIdx.x, lane = t % 32, warp = t / 32, n = p.batch.header[H_SEQS];
	int first = p.decodes ? 0 : p.batch.header[H_DECODES];
	for (int pass = 0; pass < 2; pass++) { // count, then write from the end on
		if (t == 0) carry = 0;
		__syncthreads();
		for (int base = first; base < n; base += 1024) {
			int s = base + t, tokens = s < n ? p.batch.query_start[s + 1] - p.batch.query_start[s] : 0;
			int tiles = (tokens * p.group + p.rows - 1) / p.rows, sum = tiles;
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
			if (pass == 1)
				for (int i = 0; i < tiles; i++) p.items[total - 1 - (before + sum - tiles + i)] = make_int2(s, i * p.rows);
			__syncthreads();
		}
		if (pass == 0 && t == 0) p.header[0] = total = carry, p.header[1] = 0;
		__syncthreads();
	}
}
