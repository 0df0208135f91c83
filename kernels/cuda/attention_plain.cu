// attn = softmax(query·Kᵀ/sqrt(headDim))·V through the block table, causal: the
// oracle of the fast kernels, and what takes head sizes that they do not.
//
// A CTA of 128 threads has one query head of one token and walks its KV in tiles
// of 128 tokens: one thread a key for the scores, one or two dimensions a thread
// for the values, the running maximum and sum of FlashAttention (Dao et al., 2022)
// between tiles. Tiles and sums have one order whatever the batch.
// FLOPs: 4·headDim a visible token and head; bytes: its KV once a query head.
#include "common.cuh"

struct AttentionPlainParams {
	const half *query; // [tokens][ld]
	half *attn;        // [tokens][ld]
	int64_t ld;
	Batch batch;
	PagedKV kv;
	int32_t layer, heads, kv_heads, head_dim;
	float scale; // 1/sqrt(head_dim)
	int32_t tokens;
};
static_assert(sizeof(AttentionPlainParams) == 192, "attention_plain.go");

enum { KEYS = 128, MAX_DIM = 256 };

// block_reduce is the sum or maximum over the CTA.
template <bool MAX> static __device__ __forceinline__ float block_reduce(float x, float *shared) {
	x = MAX ? warp_max(x) : warp_sum(x);
	__syncthreads();
	if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
	__syncthreads();
	return MAX ? fmaxf(fmaxf(shared[0], shared[1]), fmaxf(shared[2], shared[3]))
	           : (shared[0] + shared[1]) + (shared[2] + shared[3]);
}

static __device__ __forceinline__ float dot(const float *q, const half *key, int dim) {
	float sum = 0;
	for (int d = 0; d < dim; d += 8) {
		uint4 v = *reinterpret_cast<const uint4 *>(key + d);
		const __half2 *pair = reinterpret_cast<const __half2 *>(&v);
#pragma unroll
		for (int i = 0; i < 4; i++) {
			float2 f = __half22float2(pair[i]);
			sum = fmaf(q[d + 2 * i], f.x, fmaf(q[d + 2 * i + 1], f.y, sum));
		}
	}
	return sum;
}

PG_KERNEL void __launch_bounds__(KEYS) attention_plain(const __grid_constant__ AttentionPlainParams p) {
	grid_wait();
	__shared__ float q[MAX_DIM], weights[KEYS], shared[4];
	int t = blockIdx.x, head = blockIdx.y, kv_head = head / (p.heads / p.kv_heads);
	if (t >= p.batch.header[H_TOKENS]) return; // padding
	const int32_t *table = block_table(p.batch, p.batch.token_seq[t]);
	int64_t at = t * p.ld + head * p.head_dim;
	for (int d = threadIdx.x; d < p.head_dim; d += KEYS) q[d] = __half2float(p.query[at + d]) * p.scale;
	int length = p.batch.positions[t] + 1;
	float acc[MAX_DIM / KEYS] = {}, largest = -INFINITY, sum = 0;
	for (int first = 0; first < length; first += KEYS) {
		__syncthreads();
		int key = first + threadIdx.x;
		float s = key < length ? dot(q, key_at(p.kv, table, p.layer, kv_head, key), p.head_dim) : -INFINITY;
		float before = largest;
		largest = fmaxf(largest, block_reduce<true>(s, shared));
		float w = __expf(s - largest), fade = __expf(before - largest);
		weights[threadIdx.x] = w;
		sum = sum * fade + block_reduce<false>(w, shared); // its barriers order weights, too
		int n = min(KEYS, length - first);
#pragma unroll
		for (int i = 0; i < MAX_DIM / KEYS; i++) {
			int d = threadIdx.x + i * KEYS;
			if (d >= p.head_dim) break;
			acc[i] *= fade;
			for (int j = 0; j < n; j++)
				acc[i] = fmaf(weights[j], __half2float(key_at(p.kv, table, p.layer, kv_head, first + j)[p.kv.value + d]), acc[i]);
		}
	}
	for (int i = 0; i < MAX_DIM / KEYS; i++)
		if (int d = threadIdx.x + i * KEYS; d < p.head_dim) p.attn[at + d] = to_half(acc[i] / sum);
}
