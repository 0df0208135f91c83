// How the CTAs of attention_sm90.cu get their work: items, and the rings of queries, keys and
// values in shared memory that the warps of the producer warpgroup fill.
#pragma once

#include "attention_prefill.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

namespace {

constexpr int KEYS = 128, SLOTS = 8;

// Slot is an item as the warp that copies keys hands it to the others; behind the last one
// comes one without rows. That warp is ahead of the others by fewer items than there are
// slots, for it has not more tiles to fill.
struct Slot {
	int row, head;      // of the tables; KV head
	int first, rows;    // first packed row, rows of the sequence
	int before, length; // keys before the chunk, and in all
	int token, end;     // of the batch, of row 0; keys that the item sees
};

// Memory is shared memory; barriers are bytes from the first.
template <int D> struct Memory {
	static constexpr int GROUPS = D == 128 ? 2 : 3, ROWS = 64 * GROUPS, STAGES = D == 128 ? 3 : 4;
	static constexpr int CHUNKS = D / 8, EIGHT = 16 * D, TILE = KEYS * D * 2, QUERY = ROWS * D * 2; // bytes of eight rows, of a tile, of queries
	static constexpr bool HELD = D == 128; // queries, in registers; otherwise of two items in shared memory
	static constexpr int QUERIES = HELD ? 1 : 2;
	static constexpr int FULL_K = 0, FULL_V = 8 * STAGES, EMPTY_K = 16 * STAGES, EMPTY_V = 24 * STAGES, FULL_Q = 32 * STAGES;
	static constexpr int EMPTY_Q = FULL_Q + 8 * QUERIES * GROUPS, ITEM = EMPTY_Q + 8 * QUERIES * GROUPS;
	uint32_t query, keys, values, barriers;
	Slot *slots;

	// at is the offset of 16 bytes in a tile.
	static __device__ __forceinline__ uint32_t at(int row, int chunk) { return row / 8 * EIGHT + chunk / 8 * 1024 + row % 8 * 128 + ((chunk ^ row) & 7) * 16; }
	// of_query is the offset of a barrier of the warpgroup's queries of the CTA's n-th item.
	static __device__ __forceinline__ int of_query(int n, int group) { return 8 * (n % QUERIES * GROUPS + group); }

	// slot waits for the CTA's n-th item.
	__device__ __forceinline__ Slot slot(int n) const {
		barrier_wait(barriers + ITEM + 8 * (n % SLOTS), n / SLOTS & 1);
		Slot s = slots[n % SLOTS];
		s.rows = uniform(s.rows), s.end = uniform(s.end);
		return s;
	}
};

// Place is where a role is in the ring.
template <int STAGES> struct Place {
	int stage = 0, parity = 0;
	__device__ __forceinline__ void next() {
		if (++stage == STAGES) stage = 0, parity ^= 1;
	}
};

// deal describes an item and KV head.
template <int D> __device__ __forceinline__ Slot deal(const PrefillParams &p, int unit) {
	Slot s;
	int4 at = p.items[unit / p.kv_heads];
	s.row = p.batch.rows[at.x], s.head = unit % p.kv_heads, s.first = at.y, s.token = p.batch.query_start[at.x];
	int tokens = p.batch.query_start[at.x + 1] - s.token;
	s.rows = tokens * p.group, s.length = p.batch.seq_lens[at.x], s.before = s.length - tokens;
	s.end = s.before + (min(s.first + Memory<D>::ROWS, s.rows) - 1) / p.group + 1;
	return s;
}

// gather copies a tile of keys or values by a warp, `from` being the first of block 0. Those
// past the end become zeros, for a weight of 0 times NaN is NaN.
template <int D> __device__ __forceinline__ void gather(const PagedKV &kv, const int32_t *table, const half *from, int first, int length, uint32_t to) {
	constexpr int CHUNKS = D / 8;
	int chunk = threadIdx.x % CHUNKS;
#pragma unroll 1
	for (int row = threadIdx.x % 32 / CHUNKS; row < KEYS; row += 32 / CHUNKS) {
		int at = first + row;
		int64_t block = at < length ? table[at >> kv.block_shift] : 0;
		copy_async(to + Memory<D>::at(row, chunk), from + block * kv.block + (at & (kv.block_size - 1)) * kv.token + chunk * 8, at < length);
	}
	copy_commit();
	copy_wait<0>();
	proxy_fence();
	__syncwarp();
}

// produce fills the ring of keys, and deals the items, or that of values.
template <int D, bool VALUES> __device__ __forceinline__ void produce(const Sm90PrefillParams &params, const Memory<D> &m) {
	using M = Memory<D>;
	const PrefillParams &p = params.p;
	int lane = threadIdx.x % 32, units = p.header[0] * p.kv_heads, unit = blockIdx.x, box = p.kv.block_size;
	uint32_t tiles = VALUES ? m.values : m.keys, full = m.barriers + (VALUES ? M::FULL_V : M::FULL_K), empty = m.barriers + (VALUES ? M::EMPTY_V : M::EMPTY_K);
	int64_t kv = p.layer * p.kv.layer + (VALUES ? p.kv.value : 0);
	Place<M::STAGES> at;
	if (lane == 0) prefetch_map(params.pool);
	for (int n = 0, filled = 0;; n++) {
		Slot s;
		int dealt = 0;
		if (VALUES) {
			s = m.slot(n);
		} else {
			s.rows = 0;
			if (unit < units) s = deal<D>(p, unit);
			if (lane == 0) {
				m.slots[n % SLOTS] = s;
				barrier_arrive(m.barriers + M::ITEM + 8 * (n % SLOTS));
				if (s.rows) dealt = atomicAdd(p.header + 1, 1);
				if (s.rows && dealt == units - 1) p.header[1] = 0; // nobody asks after the last
			}
		}
		if (s.rows == 0) return;
		const int32_t *table = p.batch.tables + s.row * p.batch.table_stride;
		int64_t head = kv + s.head * p.kv.head;
		for (int first = 0; first < s.end; first += KEYS, filled++) {
			bool whole = first + KEYS <= s.length, mine = lane * box < KEYS;
			int key = first + lane * box, corner = 0; // of the lane's box
			if (whole && mine) corner = table[key >> p.kv.block_shift] * (int)(p.kv.block / (8 * D)) + (int)(head / (8 * D)) + (key & (box - 1)) / 8;
			if (filled >= M::STAGES) barrier_wait(empty + 8 * at.stage, at.parity ^ 1);
			uint32_t to = tiles + at.stage * M::TILE, barrier = full + 8 * at.stage;
			if (whole) {
				if (lane == 0) barrier_expect(barrier, M::TILE);
				__syncwarp();
				if (mine) copy_groups(to + lane * box * D * 2, params.pool, corner, barrier);
			} else {
				gather<D>(p.kv, table, p.kv.base + head, first, s.length, to);
				if (lane == 0) barrier_arrive(barrier);
			}
			at.next();
		}
		if (!VALUES) unit = gridDim.x + __shfl_sync(~0u, dealt, 0);
	}
}

// produce_queries gathers the rows of each item, a consumer warpgroup's at a time, by one of
// two warps.
template <int D> __device__ __forceinline__ void produce_queries(const PrefillParams &p, const Memory<D> &m) {
	using M = Memory<D>;
	int lane = threadIdx.x % 32, chunk = lane % M::CHUNKS;
	for (int n = 0;; n++) {
		Slot s = m.slot(n);
		if (s.rows == 0) return;
		const half *query = p.query + s.token * p.ld + s.head * p.group * D + chunk * 8;
		for (int group = threadIdx.x / 32 % 2; group < M::GROUPS; group += 2) {
			if (n >= M::QUERIES) barrier_wait(m.barriers + M::EMPTY_Q + M::of_query(n, group), (n / M::QUERIES - 1) & 1);
#pragma unroll 4
			for (int row = 64 * group + lane / M::CHUNKS; row < 64 * group + 64; row += 32 / M::CHUNKS) {
				int at = s.first + row, token = at / p.group;
				bool valid = at < s.rows;
				copy_async(m.query + n % M::QUERIES * M::QUERY + M::at(row, chunk), query + (valid ? token * p.ld + (at - token * p.group) * D : 0), valid);
			}
			copy_commit();
			copy_wait<0>();
			proxy_fence();
			barrier_arrive(m.barriers + M::FULL_Q + M::of_query(n, group));
		}
	}
}

} // namespace

#endif
