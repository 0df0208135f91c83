// What the kernels of runs of query tokens share: parameters, and the item that a
// CTA works on, a tile of packed rows (row = token · group + head) of one sequence and
// the keys that they see, or a piece of these.
#pragma once

#include "wgmma.cuh"

struct PrefillParams {
	const half *query; // [tokens][ld]
	half *out;         // [tokens][ld]
	PagedKV kv;
	Batch batch;
	int32_t *header;   // {items, those that attention_sm90.cu has dealt}
	const int4 *items; // {sequence, first packed row, piece of the keys, pieces}
	float *partials;   // [grid][rows of a tile][d] sums, then [grid][rows] maxima and weights (float2)
	int64_t ld;
	int32_t layer, kv_heads, group;
	float scale; // log2(e) / √d
};
static_assert(sizeof(PrefillParams) == 208 && offsetof(PrefillParams, header) == 160 && offsetof(PrefillParams, layer) == 192, "attention_prefill.go: prefillParams");

// Sm90PrefillParams is for attention_sm90.cu: to the bulk copy engine the pool is groups of
// eight tokens of a head, in panels of 64 columns, and a box is a block's tokens.
struct Sm90PrefillParams {
	TensorMap pool;
	PrefillParams p;
};
static_assert(sizeof(Sm90PrefillParams) == 384 && offsetof(Sm90PrefillParams, p) == 128, "attention_prefill.go: sm90PrefillParams");

// Item is what a CTA works on.
struct Item {
	const int32_t *table;
	const half *kv;    // of the layer and KV head, in block 0
	int first, rows;   // first packed row, rows of the sequence
	int piece, pieces; // of the keys
	int before, length; // keys before the chunk, and in all
	int token;         // of the batch, of row 0
};

static __device__ __forceinline__ Item describe(const PrefillParams &p, int item, int head) {
	int4 at = p.items[item];
	Item it;
	it.table = block_table(p.batch, at.x);
	it.kv = p.kv.base + p.layer * p.kv.layer + head * p.kv.head;
	it.first = at.y, it.piece = at.z, it.pieces = at.w;
	it.token = p.batch.query_start[at.x];
	int tokens = p.batch.query_start[at.x + 1] - it.token;
	it.rows = tokens * p.group;
	it.length = p.batch.seq_lens[at.x];
	it.before = it.length - tokens;
	return it;
}

// row_at gives where a packed row lies in query and out.
template <int D> static __device__ __forceinline__ int64_t row_at(const PrefillParams &p, const Item &it, int row) {
	int token = row / p.group, head = row - token * p.group;
	return (it.token + token) * p.ld + head * D;
}
