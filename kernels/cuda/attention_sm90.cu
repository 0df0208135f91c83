// Paged causal attention of long runs of query tokens on Hopper: the work of
// attention_prefill.cu, with its items of 128 rows, by wgmma (Shah et al.,
// FlashAttention-3, 2024).
//
//   attn[t][h] = softmax(query[t][h] · K[0..p]ᵀ / √d) · V[0..p],   p = position of t
//
// Layout in shared memory: panels of 64 columns (SWIZZLE_128B), the query tile and
// two tiles of 128 keys and values. K is the K-major operand of Q·Kᵀ, V the row-major
// one of P·V, so neither is transposed.
//
// CTA: a producer warpgroup, two warps of which gather keys and two values, block by
// block (cp.async), and two consumer warpgroups of 64 rows each. A consumer issues
// Q·Kᵀ of the next tile and P·V of this one together and computes the softmax of the
// one while the tensor cores are at the other; P stays in registers, in half.
//
// FLOPs: 4·d a query head and visible key. Bytes: 4·d a key, KV head and item.
#include "attention_prefill.cuh"
#include "wgmma.cuh"

namespace {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int ROWS = 128, KEYS = 128, STAGES = 2, CONSUMERS = 256;

// Offset of 16 bytes in a tile of panels of `rows` rows.
template <int TILE_ROWS> __device__ __forceinline__ uint32_t paneled(int row, int chunk) {
	return (chunk / 8 * TILE_ROWS + row) * 128 + ((chunk ^ row) & 7) * 16;
}

// Barriers of the ring, by stage: bytes from the first.
enum { FULL_K = 0, FULL_V = 16, EMPTY_K = 32, EMPTY_V = 48, QUERY = 64 };

template <int D> struct Memory {
	static constexpr int CHUNKS = D / 8, TILE = KEYS * D * 2, QUERY_BYTES = ROWS * D * 2;
	uint32_t query, keys, values, barriers;
};

// gather copies 128 keys or values, `from` being the first of block 0, by 64
// threads. Those past the end become zeros, for a weight of 0 times NaN is NaN.
template <int D> __device__ __forceinline__ void gather(const PrefillParams &p, const Item &it, const half *from, int first, uint32_t to) {
	constexpr int CHUNKS = D / 8, PASS = 64 / CHUNKS;
	int thread = threadIdx.x % 64, chunk = thread % CHUNKS, row = thread / CHUNKS;
	from += chunk * 8;
#pragma unroll 2
	for (int group = 0; group < KEYS; group += 16) { // 16 tokens lie in one block
		int at = first + group;
		int block = at < it.length ? __ldg(it.table + (at >> p.kv.block_shift)) : 0;
		const half *token = from + block * p.kv.block + ((at & (p.kv.block_size - 1)) + row) * p.kv.token;
#pragma unroll
		for (int i = 0; i < 16; i += PASS)
			copy_async(to + paneled<KEYS>(group + row + i, chunk), token + i * p.kv.token, at + row + i < it.length);
	}
}

template <int D> __device__ __forceinline__ void produce(const PrefillParams &p, const Item &it, const Memory<D> &m, const half *query, int end) {
	using M = Memory<D>;
	for (int i = threadIdx.x; i < ROWS * M::CHUNKS; i += 128) {
		int row = i / M::CHUNKS, chunk = i % M::CHUNKS;
		bool valid = it.first + row < it.rows;
		copy_async(m.query + paneled<ROWS>(row, chunk), query + (valid ? row_at<D>(p, it, it.first + row) : 0) + chunk * 8, valid);
	}
	copy_commit();
	copy_wait<0>();
	proxy_fence();
	barrier_arrive(m.barriers + QUERY);
	bool values = threadIdx.x >= 64;
	const half *from = it.kv + (values ? p.kv.value : 0);
	uint32_t tiles = values ? m.values : m.keys, full = m.barriers + (values ? FULL_V : FULL_K), empty = m.barriers + (values ? EMPTY_V : EMPTY_K);
	for (int i = 0; i * KEYS < end; i++) {
		int stage = i % STAGES;
		if (i >= STAGES) barrier_wait(empty + 8 * stage, (i / STAGES - 1) & 1);
		gather<D>(p, it, from, i * KEYS, tiles + stage * M::TILE);
		copy_commit();
		copy_wait<0>();
		proxy_fence();
		barrier_arrive(full + 8 * stage);
	}
}

template <int D> struct Consumer {
	using M = Memory<D>;
	float s[KEYS / 2], o[D / 2], max[2], sum[2], shrink[2];
	uint32_t weights[KEYS / 4];

	__device__ __forceinline__ void scores(const Memory<D> &m, int tile) {
		uint32_t query = m.query + (threadIdx.x / 128 - 1) * 64 * 128, keys = m.keys + tile % STAGES * M::TILE;
		barrier_wait(m.barriers + FULL_K + 8 * (tile % STAGES), tile / STAGES & 1);
		wgmma_fence();
#pragma unroll
		for (int k = 0; k < D / 16; k++)
			wgmma_scores(s, operand(query + k / 4 * ROWS * 128 + k % 4 * 32), operand(keys + k / 4 * KEYS * 128 + k % 4 * 32), k > 0);
		wgmma_commit();
	}

	__device__ __forceinline__ void values(const Memory<D> &m, int tile) {
		uint32_t at = m.values + tile % STAGES * M::TILE;
		barrier_wait(m.barriers + FULL_V + 8 * (tile % STAGES), tile / STAGES & 1);
		wgmma_fence();
#pragma unroll
		for (int k = 0; k < KEYS / 16; k++) wgmma_values(o, weights + 4 * k, operand_rows(at + k * 16 * 128, KEYS * 128), tile > 0 || k > 0);
		wgmma_commit();
	}

	// softmax turns the scores of a tile, the first key at position `first`, into
	// weights; row is the first of the warp's packed rows.
	__device__ __forceinline__ void softmax(const PrefillParams &p, const Item &it, int first, int row, bool masked) {
		int lane = threadIdx.x % 32, r = lane / 4, q = lane % 4;
#pragma unroll
		for (int h = 0; h < 2; h++) {
			if (masked) {
				int last = it.before + (row + 8 * h + r) / p.group - first - 2 * q; // that the row sees
#pragma unroll
				for (int j = 0; j < KEYS / 8; j++)
					for (int l = 0; l < 2; l++)
						if (8 * j + l > last) s[4 * j + 2 * h + l] = -INFINITY;
			}
			float high = max[h];
#pragma unroll
			for (int j = 0; j < KEYS / 8; j++) high = fmaxf(high, fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]));
			high = fmaxf(high, __shfl_xor_sync(~0u, high, 1));
			high = fmaxf(high, __shfl_xor_sync(~0u, high, 2));
			shrink[h] = exp2_fast((max[h] - high) * p.scale);
			max[h] = high;
			float shift = high * p.scale - WEIGHT_BITS, all = 0;
#pragma unroll
			for (int j = 0; j < KEYS / 8; j++)
				for (int l = 0; l < 2; l++) all += s[4 * j + 2 * h + l] = exp2_fast(fmaf(s[4 * j + 2 * h + l], p.scale, -shift));
			sum[h] = sum[h] * shrink[h] + all;
		}
	}

	__device__ __forceinline__ void pack() {
#pragma unroll
		for (int i = 0; i < KEYS / 4; i++) weights[i] = pack_half(s[2 * i], s[2 * i + 1]);
	}

	// run folds the tiles up to the key `end` into o.
	__device__ __forceinline__ void run(const PrefillParams &p, const Item &it, const Memory<D> &m, int end) {
		int row = it.first + (threadIdx.x / 32 - 4) * 16, tiles = (end + KEYS - 1) / KEYS;
		bool elected = threadIdx.x % 32 == 0;
		int unmasked = it.before + min(row, it.rows - 1) / p.group + 1; // keys that all rows see
		max[0] = max[1] = -INFINITY, sum[0] = sum[1] = 0;
		barrier_wait(m.barriers + QUERY, 0);
		scores(m, 0);
		wgmma_wait<0>();
		if (elected) barrier_arrive(m.barriers + EMPTY_K);
		softmax(p, it, 0, row, KEYS > unmasked);
		pack();
		for (int tile = 0; tile < tiles - 1; tile++) {
			scores(m, tile + 1);
			values(m, tile);
			wgmma_wait<1>();
			if (elected) barrier_arrive(m.barriers + EMPTY_K + 8 * ((tile + 1) % STAGES));
			softmax(p, it, (tile + 1) * KEYS, row, (tile + 2) * KEYS > unmasked);
			wgmma_wait<0>();
			if (elected) barrier_arrive(m.barriers + EMPTY_V + 8 * (tile % STAGES));
#pragma unroll
			for (int i = 0; i < D / 2; i++) o[i] *= shrink[i / 2 % 2];
			pack();
		}
		values(m, tiles - 1);
		wgmma_wait<0>();
	}

	// store writes the warp's 16 rows, through its part of the query tile.
	__device__ __forceinline__ void store(const PrefillParams &p, const Item &it, half *out, char *query) {
		int lane = threadIdx.x % 32, warp = threadIdx.x / 32 - 4, r = lane / 4, q = lane % 4;
		__syncwarp();
#pragma unroll
		for (int h = 0; h < 2; h++) {
			float all = sum[h];
			all += __shfl_xor_sync(~0u, all, 1);
			all += __shfl_xor_sync(~0u, all, 2);
			float scale = 1 / all;
#pragma unroll
			for (int j = 0; j < D / 8; j++)
				*reinterpret_cast<uint32_t *>(query + paneled<ROWS>(warp * 16 + 8 * h + r, j) + q * 4) =
				    pack_half(o[4 * j + 2 * h] * scale, o[4 * j + 2 * h + 1] * scale);
		}
		__syncwarp();
		for (int i = lane; i < 16 * M::CHUNKS; i += 32) {
			int row = warp * 16 + i / M::CHUNKS, chunk = i % M::CHUNKS;
			if (it.first + row < it.rows)
				*reinterpret_cast<uint4 *>(out + row_at<D>(p, it, it.first + row) + chunk * 8) = *reinterpret_cast<uint4 *>(query + paneled<ROWS>(row, chunk));
		}
	}
};

template <int D> __device__ __forceinline__ void attend(const PrefillParams &p) {
	using M = Memory<D>;
	extern __shared__ char memory[];
	char *base = reinterpret_cast<char *>((reinterpret_cast<uintptr_t>(memory) + 1023) / 1024 * 1024);
	M m;
	m.query = shared_address(base), m.keys = m.query + M::QUERY_BYTES, m.values = m.keys + STAGES * M::TILE, m.barriers = m.values + STAGES * M::TILE;
	if (threadIdx.x == 0) {
		for (int i = 0; i < STAGES; i++) {
			barrier_init(m.barriers + FULL_K + 8 * i, 64);
			barrier_init(m.barriers + FULL_V + 8 * i, 64);
			barrier_init(m.barriers + EMPTY_K + 8 * i, CONSUMERS / 32);
			barrier_init(m.barriers + EMPTY_V + 8 * i, CONSUMERS / 32);
		}
		barrier_init(m.barriers + QUERY, 128);
		barriers_ready();
	}
	__syncthreads();
	grid_wait();
	grid_trigger();
	int item = blockIdx.x / p.kv_heads, head = blockIdx.x % p.kv_heads;
	if (item >= p.header[0]) return;
	Item it = describe(p, item, head);
	int end = it.before + (min(it.first + ROWS, it.rows) - 1) / p.group + 1; // keys that the item sees
	if (threadIdx.x < 128) {
		fewer_registers<40>();
		produce<D>(p, it, m, p.query + head * p.group * D, end);
	} else {
		more_registers<232>();
		Consumer<D> c;
		c.run(p, it, m, end);
		c.store(p, it, p.out + head * p.group * D, base);
	}
}

#else

template <int D> __device__ void attend(const PrefillParams &) {}

#endif

} // namespace

PG_KERNEL void __launch_bounds__(384, 1) attention_sm90_64(const __grid_constant__ PrefillParams p) { attend<64>(p); }
PG_KERNEL void __launch_bounds__(384, 1) attention_sm90_128(const __grid_constant__ PrefillParams p) { attend<128>(p); }
