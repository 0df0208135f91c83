// Paged causal attention of long runs of query tokens on Hopper: the work of
// attention_prefill.cu by wgmma (Shah et al., FlashAttention-3, 2024).
//
//   attn[t][h] = softmax(query[t][h] · K[0..p]ᵀ / √d) · V[0..p],   p = position of t
//
// Layout in shared memory: rows of 64 columns, eight to a group, the panels of a group one
// after the other (SWIZZLE_128B): queries, and a ring of tiles of 128 keys and one of
// values. K is the K-major operand of Q·Kᵀ, V the row-major one of P·V, so neither is
// transposed.
//
// Work: items of 64 packed rows a consumer warpgroup (two for d = 128, three for 64), dealt
// by a counter, late ones first. CTA: one a multiprocessor, item after item. A producer warp
// copies keys, one values, a box a block (the pool is one tensor of groups of eight tokens
// of a head), two gather queries, all of them ahead of the consumers. A consumer issues Q·Kᵀ
// of the next tile, be it of the next item, and P·V of this one together, then gives the
// turn to the next warpgroup, so that the softmax of one runs beside the products of
// another. P, and for d = 128 Q, are in registers.
//
// FLOPs: 4·d a query head and visible key. Measured (H100 80GB HBM3, 2026-11-26; 28/4 heads of
// 128, 8,192 tokens): 626 TFLOP/s, 63 % of its data sheet's 989. Bytes: 4·d a key, KV head and item.
#include "attention_sm90.cuh"

namespace {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// Consumer is a warpgroup's part of an item: 64 rows.
template <int D> struct Consumer {
	using M = Memory<D>;
	const PrefillParams &p;
	const Memory<D> &m;
	int group, shift; // of the warpgroups; first row of the warp in an item
	float s[KEYS / 2], o[D / 2], max[2], sum[2], shrink[2];
	uint32_t weights[KEYS / 4], query[M::HELD ? D / 4 : 1];
	int last[2], unmasked, tiles; // keys that the thread's rows see, less one; that all rows see; tiles of the item
	Place<M::STAGES> key, value;

	__device__ __forceinline__ Consumer(const PrefillParams &p, const Memory<D> &m)
	    : p(p), m(m), group(uniform(threadIdx.x / 128 - 1)), shift((threadIdx.x / 32 - 4) * 16) {}

	// turn waits for the warpgroup's turn to issue products, pass gives it to the next.
	__device__ __forceinline__ void turn() const { asm volatile("bar.sync %0, 256;" ::"r"(1 + group) : "memory"); }
	static __device__ __forceinline__ void pass(int next) { asm volatile("bar.arrive %0, 256;" ::"r"(1 + next % M::GROUPS) : "memory"); }

	// release tells a producer that the warp is done with what it has copied.
	static __device__ __forceinline__ void release(uint32_t empty) {
		if (threadIdx.x % 32 == 0) barrier_arrive(empty);
	}

	// begin turns to the CTA's n-th item.
	__device__ __forceinline__ void begin(const Slot &it, int n) {
		int lane = threadIdx.x % 32, row = it.first + shift;
		tiles = (it.end + KEYS - 1) / KEYS, unmasked = it.before + min(row, it.rows - 1) / p.group + 1;
		for (int h = 0; h < 2; h++) last[h] = it.before + (row + lane / 4 + 8 * h) / p.group, max[h] = -INFINITY, sum[h] = 0;
		barrier_wait(m.barriers + M::FULL_Q + M::of_query(n, group), n / M::QUERIES & 1);
		if constexpr (M::HELD) {
#pragma unroll
			for (int k = 0; k < D / 16; k++) load_matrices(reinterpret_cast<uint32_t(&)[4]>(query[4 * k]), m.query + M::at(shift + lane % 16, 2 * k + lane / 16));
			__syncwarp();
			release(m.barriers + M::EMPTY_Q + M::of_query(n, group));
		}
		await_keys();
	}

	// await_keys waits for the next tile's keys. The sums, which are not negative, have a part
	// in it, so that the compiler does not put off the softmax behind the wait for P·V.
	__device__ __forceinline__ void await_keys() {
		barrier_wait(m.barriers + M::FULL_K + 8 * key.stage, key.parity ^ __any_sync(~0u, sum[0] < 0 || sum[1] < 0));
	}

	__device__ __forceinline__ void scores(int n) {
		uint64_t rows = operand(m.query + n % M::QUERIES * M::QUERY + group * 8 * M::EIGHT, M::EIGHT), keys = operand(m.keys + key.stage * M::TILE, M::EIGHT);
		wgmma_fence();
#pragma unroll
		for (int k = 0; k < D / 16; k++) {
			int at = k / 4 * 1024 + k % 4 * 32;
			if constexpr (M::HELD) wgmma_scores(s, query + 4 * k, further(keys, at), k > 0);
			else wgmma_scores(s, further(rows, at), further(keys, at), k > 0);
		}
		wgmma_commit();
	}

	__device__ __forceinline__ void values(bool add) {
		barrier_wait(m.barriers + M::FULL_V + 8 * value.stage, value.parity);
		uint64_t values = operand_rows(m.values + value.stage * M::TILE, 1024, M::EIGHT);
		wgmma_fence();
#pragma unroll
		for (int k = 0; k < KEYS / 16; k++) wgmma_values(o, weights + 4 * k, further(values, k * 2 * M::EIGHT), add || k > 0);
		wgmma_commit();
	}

	// values_done ends P·V of a tile.
	__device__ __forceinline__ void values_done() {
		wgmma_wait<0>();
		release(m.barriers + M::EMPTY_V + 8 * value.stage);
		value.next();
	}

	// mask hides the keys behind a row's last; `first` is the position of the tile's.
	__device__ __forceinline__ void mask(int first) {
#pragma unroll
		for (int h = 0; h < 2; h++) {
			int seen = last[h] - first - threadIdx.x % 4 * 2;
#pragma unroll
			for (int j = 0; j < KEYS / 8; j++)
				for (int l = 0; l < 2; l++)
					if (8 * j + l > seen) s[4 * j + 2 * h + l] = -INFINITY;
		}
	}

	// weigh turns the scores of a tile into weights.
	__device__ __forceinline__ void weigh() {
		float high[2] = {max[0], max[1]}, shift[2], all[2] = {};
#pragma unroll
		for (int j = 0; j < KEYS / 8; j++)
			for (int h = 0; h < 2; h++) high[h] = fmaxf(high[h], fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]));
#pragma unroll
		for (int h = 0; h < 2; h++) high[h] = fmaxf(high[h], __shfl_xor_sync(~0u, high[h], 1));
#pragma unroll
		for (int h = 0; h < 2; h++) {
			high[h] = fmaxf(high[h], __shfl_xor_sync(~0u, high[h], 2));
			shrink[h] = exp2_fast((max[h] - high[h]) * p.scale);
			max[h] = high[h];
			shift[h] = high[h] * p.scale - WEIGHT_BITS;
		}
#pragma unroll
		for (int j = 0; j < KEYS / 8; j++)
			for (int i = 0; i < 4; i++) all[i / 2] += s[4 * j + i] = exp2_fast(fmaf(s[4 * j + i], p.scale, -shift[i / 2]));
#pragma unroll
		for (int h = 0; h < 2; h++) sum[h] = sum[h] * shrink[h] + all[h];
	}

	// scores_done ends Q·Kᵀ of a tile of the n-th item, and makes weights of the scores.
	__device__ __forceinline__ void scores_done(int n, int tile) {
		release(m.barriers + M::EMPTY_K + 8 * key.stage);
		if (!M::HELD && tile + 1 == tiles) release(m.barriers + M::EMPTY_Q + M::of_query(n, group));
		key.next();
		if ((tile + 1) * KEYS > unmasked) mask(tile * KEYS);
		weigh();
		if (tile + 1 < tiles) await_keys();
	}

	__device__ __forceinline__ void pack() {
#pragma unroll
		for (int i = 0; i < KEYS / 4; i++) weights[i] = pack_half(s[2 * i], s[2 * i + 1]);
	}

	// run goes through all items. The tile is that of the weights; its item is ended beside
	// the first scores of the next.
	__device__ __forceinline__ void run() {
		int n = 0, tile = 0;
		float ended[2]; // sums of the item before
		Slot it = m.slot(0);
		if (it.rows == 0) return;
		if (group == 0) pass(0);
		begin(it, 0);
		turn();
		scores(0);
		pass(group + 1);
		wgmma_wait<0>();
		scores_done(0, 0);
		pack();
		for (;;) {
			bool ends = tile + 1 == tiles, add = tile > 0;
			if (ends) {
				ended[0] = sum[0], ended[1] = sum[1], tile = 0;
				it = m.slot(++n);
				if (it.rows == 0) break;
				begin(it, n);
			} else tile++;
			turn();
			scores(n);
			values(add);
			pass(group + 1);
			wgmma_wait<1>();
			scores_done(n, tile);
			values_done();
			if (ends) {
				store(m.slots[(n - 1) % SLOTS], ended);
			} else {
#pragma unroll
				for (int i = 0; i < D / 2; i++) o[i] *= shrink[i / 2 % 2];
			}
			pack();
		}
		values(tiles > 1);
		values_done();
		store(m.slots[(n - 1) % SLOTS], ended);
	}

	// store writes the warp's 16 rows. Four lanes have eight columns of a row: of four times
	// eight columns each gives three parts for the others' of its own.
	__device__ __forceinline__ void store(const Slot &it, const float (&sums)[2]) {
		int lane = threadIdx.x % 32, q = lane % 4;
#pragma unroll
		for (int h = 0; h < 2; h++) {
			float all = sums[h];
			all += __shfl_xor_sync(~0u, all, 1);
			all += __shfl_xor_sync(~0u, all, 2);
			float scale = 1 / all;
			int row = it.first + shift + 8 * h + lane / 4, token = row / p.group;
			half *out = p.out + (it.token + token) * p.ld + (it.head * p.group + row - token * p.group) * D;
#pragma unroll
			for (int j = 0; j < D / 8; j += 4) {
				uint32_t v[4];
#pragma unroll
				for (int i = 0; i < 4; i++) v[i] = pack_half(o[4 * (j + i) + 2 * h] * scale, o[4 * (j + i) + 2 * h + 1] * scale);
#pragma unroll
				for (int i = 0; i < 4; i++) { // pairs {0, 2}, {1, 3}, then {0, 1}, {2, 3}
					int bit = i < 2 ? 2 : 1, a = i < 2 ? i : 2 * i - 4;
					uint32_t other = __shfl_xor_sync(~0u, q & bit ? v[a] : v[a + bit], bit);
					(q & bit ? v[a] : v[a + bit]) = other;
				}
				if (row < it.rows) *reinterpret_cast<uint4 *>(out + (j + q) * 8) = make_uint4(v[0], v[1], v[2], v[3]);
			}
		}
	}
};

template <int D> __device__ __forceinline__ void attend(const Sm90PrefillParams &params) {
	using M = Memory<D>;
	extern __shared__ char memory[];
	char *base = reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(memory) + 1023) / 1024 * 1024);
	M m;
	m.query = shared_address(base), m.keys = m.query + M::QUERIES * M::QUERY, m.values = m.keys + M::STAGES * M::TILE, m.barriers = m.values + M::STAGES * M::TILE;
	m.slots = reinterpret_cast<Slot *>(base + (m.barriers - m.query) + M::ITEM + 8 * SLOTS);
	if (threadIdx.x == 0) {
		for (int i = 0; i < 2 * M::STAGES; i++) barrier_init(m.barriers + 8 * i, 1), barrier_init(m.barriers + M::EMPTY_K + 8 * i, 4 * M::GROUPS);
		for (int i = 0; i < M::QUERIES * M::GROUPS; i++) barrier_init(m.barriers + M::FULL_Q + 8 * i, 32), barrier_init(m.barriers + M::EMPTY_Q + 8 * i, 4);
		for (int i = 0; i < SLOTS; i++) barrier_init(m.barriers + M::ITEM + 8 * i, 1);
		barriers_ready();
	}
	__syncthreads();
	grid_wait();
	grid_trigger();
	int warp = uniform(threadIdx.x / 32);
	if (warp < 4) {
		fewer_registers<M::GROUPS == 2 ? 40 : 32>();
		if (warp == 0) produce<D, false>(params, m);
		else if (warp == 1) produce<D, true>(params, m);
		else produce_queries<D>(params.p, m);
	} else {
		more_registers<M::GROUPS == 2 ? 232 : 160>();
		Consumer<D>(params.p, m).run();
	}
}

#else

template <int D> __device__ void attend(const Sm90PrefillParams &) {}

#endif

} // namespace

PG_KERNEL void __launch_bounds__(512, 1) attention_sm90_64(const __grid_constant__ Sm90PrefillParams p) { attend<64>(p); }
PG_KERNEL void __launch_bounds__(384, 1) attention_sm90_128(const __grid_constant__ Sm90PrefillParams p) { attend<128>(p); }
