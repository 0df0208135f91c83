// Paged attention, prefill chunks and decodes in one call:
//
//     attn[t][h] = softmax(query[t][h] · K[0..p]ᵀ / √head_dim) · V[0..p],   p = position of t
//
// with K and V of KV head h / group read through the row's block table.
//
// An item of work is a tile of query tokens of one sequence with all the query
// heads of one KV head, so that each key and value is read, and widened to
// float32, once for all of them: up to MAX_ROWS rows. Items walk the KV in tiles
// of 32 tokens with an online softmax (Milakov and Gimelshein, 2018; Dao et al.,
// FlashAttention, 2022). Every 512 tokens it starts afresh and the states are
// folded in order (Flash-Decoding's split, at fixed places): when a step has few
// items, the splits of one are items of their own and a second phase folds
// them, with the same bits.
//
// Slots that a row must not see are selected away: they may hold NaN.
#include <math.h>
#include <string.h>

#include "attention.h"

enum { MAX_ROWS = 96, MIN_ITEMS_PER_THREAD = 4 };

struct item {
	int32_t seq, kv_head;
	int32_t token, count; // query tokens, indices of the step
	int32_t split;        // the only one to compute, or −1 for all
	int32_t partial;      // first row of partials for the result, with split ≥ 0
};

// group is an item that was split: splits states for each of its rows.
struct group {
	int32_t kv_head, token, count, splits, partial;
};

struct plan {
	int32_t num_items, num_groups;
	struct group *groups;
	struct item items[];
};

static int group_size(const struct pg_shape *m) { return m->heads / m->kv_heads; }

// tile_tokens is the query tokens of an item.
static int tile_tokens(const struct pg_shape *m) {
	int n = MAX_ROWS / group_size(m);
	return n > 1 ? n : 1;
}

static int64_t max_rows(const struct pg_shape *m) {
	return (int64_t)tile_tokens(m) * group_size(m);
}

static int64_t splits_of(int64_t tokens) { return (tokens + PG_KV_SPLIT - 1) / PG_KV_SPLIT; }

static int64_t max_items(const struct pg_shape *m, const struct pg_limits *l, int threads) {
	int64_t tiles = l->max_batched_tokens / tile_tokens(m) + l->max_seqs;
	return m->kv_heads * tiles + MIN_ITEMS_PER_THREAD * threads * splits_of(l->max_model_len);
}

int64_t pg_attention_plan_bytes(const struct pg_shape *m, const struct pg_limits *l, int threads) {
	return sizeof(struct plan) + max_items(m, l, threads) * sizeof(struct item)
	     + (int64_t)MIN_ITEMS_PER_THREAD * threads * sizeof(struct group);
}

// partial_rows is room for a decode of the longest sequence in each item.
static int64_t partial_rows(const struct pg_shape *m, const struct pg_limits *l, int threads) {
	return (int64_t)MIN_ITEMS_PER_THREAD * threads * group_size(m) * splits_of(l->max_model_len);
}

int64_t pg_attention_partials_bytes(const struct pg_shape *m, const struct pg_limits *l, int threads) {
	return partial_rows(m, l, threads) * pg_state_floats(m->head_dim) * sizeof(float);
}

// An item's scratch: two tiles, and for each row its query, two states and its
// position.
int64_t pg_attention_scratch_bytes(const struct pg_shape *m, const struct pg_limits *l) {
	(void)l;
	int64_t row = m->head_dim + 2 * pg_state_floats(m->head_dim) + 1;
	return (2 * PG_KV_TILE * (int64_t)m->head_dim + max_rows(m) * row) * sizeof(float) + 64;
}

// make_plan cuts the step into items, the long ones (late tiles, prefills) first.
static void make_plan(const struct pg_device *d, struct pg_step *s) {
	const struct pg_shape *m = &d->shape;
	struct plan *p = s->attention_plan;
	int tile = tile_tokens(m);
	p->num_items = p->num_groups = 0;
	p->groups = (struct group *)(p->items + max_items(m, &d->limits, d->threads));

	int64_t whole = 0;
	for (int i = 0; i < s->num_seqs; i++)
		whole += (int64_t)m->kv_heads * ((s->query_start[i + 1] - s->query_start[i] + tile - 1) / tile);
	bool few = whole < (int64_t)MIN_ITEMS_PER_THREAD * d->threads;
	int64_t room = few ? partial_rows(m, &d->limits, d->threads) : 0, used = 0;

	for (int i = s->num_seqs - 1; i >= 0; i--) {
		int first = s->query_start[i], n = s->query_start[i + 1] - first;
		for (int t = (n - 1) / tile * tile; t >= 0 && n > 0; t -= tile) {
			int count = n - t < tile ? n - t : tile;
			int64_t splits = splits_of(s->positions[first + t + count - 1] + 1);
			int64_t rows = (int64_t)count * group_size(m);
			for (int h = 0; h < m->kv_heads; h++) {
				struct item it = {i, h, first + t, count, -1, -1};
				if (splits < 2 || used + splits * rows > room) {
					p->items[p->num_items++] = it;
					continue;
				}
				p->groups[p->num_groups++] = (struct group){h, first + t, count, splits, used};
				for (it.split = 0; it.split < splits; it.split++) {
					it.partial = used;
					p->items[p->num_items++] = it;
					used += rows;
				}
			}
		}
	}
}

// work is an item under way: where its scratch lies.
struct work {
	const struct pg_device *d;
	const struct pg_attention_kernels *k;
	const int32_t *table;
	const uint16_t *kv; // of the layer and KV head, in block 0
	float *keys, *values, *q;
	int32_t *positions;
	int rows, last; // last: position of the last query token
};

// load_tile widens the tile's keys and values; tokens > 0 of them are seen.
static void load_tile(const struct work *w, int first, int tokens) {
	const struct pg_device *d = w->d;
	int block_size = d->limits.block_size, head_dim = d->shape.head_dim;
	for (int g = 0; g < tokens; g += 16) { // 16 tokens never cross a block's end
		int at = first + g, n = tokens - g < 16 ? tokens - g : 16;
		const uint16_t *k = w->kv + w->table[at / block_size] * d->kv.block + at % block_size * d->kv.token;
		w->k->expand_keys(w->keys + g, k, d->kv.token, head_dim);
		w->k->expand_values(w->values + g * head_dim, k + d->kv.value, d->kv.token, n, head_dim);
	}
}

// prefetch_tile asks for the lines of the next tile: blocks lie apart, which
// hardware does not foresee.
static void prefetch_tile(const struct work *w, int first, int tokens) {
	const struct pg_device *d = w->d;
	int block_size = d->limits.block_size;
	for (int t = 0; t < tokens; t++) {
		int at = first + t;
		const uint16_t *k = w->kv + w->table[at / block_size] * d->kv.block + at % block_size * d->kv.token;
		for (int i = 0; i < d->shape.head_dim; i += 32) {
			__builtin_prefetch(k + i);
			__builtin_prefetch(k + d->kv.value + i);
		}
	}
}

static int min_int(int a, int b) { return a < b ? a : b; }

// run_split computes the rows' states over one split from nothing.
static void run_split(const struct work *w, int split, float *states) {
	int head_dim = w->d->shape.head_dim;
	int64_t size = pg_state_floats(head_dim);
	memset(states, 0, w->rows * size * sizeof(float));
	for (int r = 0; r < w->rows; r++) *pg_state_max(states + r * size, head_dim) = -INFINITY;

	int end = min_int((split + 1) * PG_KV_SPLIT, w->last + 1);
	for (int at = split * PG_KV_SPLIT; at < end; at += PG_KV_TILE) {
		int tokens = min_int(PG_KV_TILE, end - at), next = at + PG_KV_TILE;
		load_tile(w, at, tokens);
		if (next < end) prefetch_tile(w, next, min_int(PG_KV_TILE, end - next));
		for (int r = 0; r < w->rows; r += PG_PANEL) {
			int rows = min_int(PG_PANEL, w->rows - r);
			if (w->positions[r + rows - 1] < at) continue; // rows ascend: none sees the tile
			w->k->panel(&(struct pg_panel){
				.rows = rows, .head_dim = head_dim, .first = at, .tokens = tokens,
				.scale = 1 / sqrtf(head_dim), .q = w->q + r * head_dim, .positions = w->positions + r,
				.keys = w->keys, .values = w->values, .states = states + r * size,
			});
		}
	}
}

// finish writes a row's output, state's weighted mean.
static void finish(float *out, float *state, int head_dim) {
	float sum = 0;
	for (int i = 0; i < PG_LANES; i++) sum += pg_state_sums(state, head_dim)[i];
	float scale = 1 / sum;
	for (int i = 0; i < head_dim; i++) out[i] = state[i] * scale;
}

static const struct pg_attention_kernels plain_kernels;

static const struct pg_attention_kernels *kernels_of(const struct pg_device *d) {
#ifdef __x86_64__
	if (d->isa >= PG_ISA_AVX512) return &pg_attention_avx512;
	if (d->isa >= PG_ISA_AVX2) return &pg_attention_avx2;
#endif
	(void)d;
	return &plain_kernels;
}

// row_of is where query row r of a tile starts, in Query and in Attn.
static int64_t row_of(const struct pg_shape *m, int token, int kv_head, int r) {
	int group = group_size(m);
	return (token + r / group) * pg_stride((int64_t)m->heads * m->head_dim)
	     + (int64_t)(kv_head * group + r % group) * m->head_dim;
}

static void run_item(const struct pg_device *d, const struct pg_step *s, const struct item *it, int layer, float *scratch) {
	const struct pg_shape *m = &d->shape;
	int head_dim = m->head_dim, group = group_size(m);
	int64_t size = pg_state_floats(head_dim);
	struct work w = {
		.d = d, .k = kernels_of(d), .table = d->rows[s->rows[it->seq]].table,
		.kv = d->kv_blocks + layer * d->kv.layer + it->kv_head * d->kv.head,
		.rows = it->count * group, .last = s->positions[it->token + it->count - 1],
	};
	w.keys = scratch;
	w.values = w.keys + PG_KV_TILE * head_dim;
	float *states = w.values + PG_KV_TILE * head_dim, *later = states + w.rows * size;
	w.q = later + w.rows * size;
	w.positions = (int32_t *)(w.q + (int64_t)w.rows * head_dim);
	for (int r = 0; r < w.rows; r++) {
		memcpy(w.q + (int64_t)r * head_dim, d->query + row_of(m, it->token, it->kv_head, r), head_dim * sizeof(float));
		w.positions[r] = s->positions[it->token + r / group];
	}
	if (it->split >= 0) {
		run_split(&w, it->split, d->attention_partials + it->partial * size);
		return;
	}
	run_split(&w, 0, states);
	for (int split = 1; split < splits_of(w.last + 1); split++) {
		run_split(&w, split, later);
		for (int r = 0; r < w.rows; r++) w.k->fold(states + r * size, later + r * size, head_dim);
	}
	for (int r = 0; r < w.rows; r++)
		finish(d->attn + row_of(m, it->token, it->kv_head, r), states + r * size, head_dim);
}

static void run_items(const struct pg_device *d, struct pg_step *s, const struct pg_op *op, int first, int count, int worker) {
	const struct plan *p = s->attention_plan;
	for (int i = first; i < first + count; i++) run_item(d, s, &p->items[i], op->layer, pg_scratch(d, worker));
}

// fold_groups folds the partial states of split items into the first ones.
static void fold_groups(const struct pg_device *d, struct pg_step *s, const struct pg_op *op, int first, int count, int worker) {
	(void)op, (void)worker;
	const struct plan *p = s->attention_plan;
	int head_dim = d->shape.head_dim;
	int64_t size = pg_state_floats(head_dim);
	for (const struct group *g = p->groups + first; g < p->groups + first + count; g++) {
		int rows = g->count * group_size(&d->shape);
		for (int r = 0; r < rows; r++) {
			float *state = d->attention_partials + (g->partial + r) * size;
			for (int split = 1; split < g->splits; split++)
				kernels_of(d)->fold(state, state + (int64_t)split * rows * size, head_dim);
			finish(d->attn + row_of(&d->shape, g->token, g->kv_head, r), state, head_dim);
		}
	}
}

void pg_attention_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	if (!s->attention_planned) make_plan(d, s);
	s->attention_planned = true;
	const struct plan *p = s->attention_plan;
	pg_push(s, op, run_items, p->num_items, 1);
	pg_push(s, op, fold_groups, p->num_groups, 1);
}

// The plain kernels.

static void expand_keys(float *tile, const uint16_t *keys, int64_t stride, int head_dim) {
	for (int t = 0; t < 16; t++)
		for (int i = 0; i < head_dim; i++) tile[i * PG_KV_TILE + t] = pg_from_fp16(keys[t * stride + i]);
}

static void expand_values(float *tile, const uint16_t *values, int64_t stride, int n, int head_dim) {
	for (int t = 0; t < n; t++)
		for (int i = 0; i < head_dim; i++) tile[t * head_dim + i] = pg_from_fp16(values[t * stride + i]);
}

static void panel(const struct pg_panel *p) {
	for (int r = 0; r < p->rows; r++) {
		const float *q = p->q + r * p->head_dim;
		float *state = p->states + r * pg_state_floats(p->head_dim), score[PG_KV_TILE] = {0};
		for (int i = 0; i < p->head_dim; i++)
			for (int t = 0; t < PG_KV_TILE; t++) score[t] += q[i] * p->keys[i * PG_KV_TILE + t];

		float *max = pg_state_max(state, p->head_dim), *sums = pg_state_sums(state, p->head_dim), before = *max;
		int seen = min_int(p->tokens, p->positions[r] + 1 - p->first);
		for (int t = 0; t < seen; t++) {
			score[t] *= p->scale;
			if (score[t] > *max) *max = score[t];
		}
		if (seen <= 0) continue;
		// All scores −inf or NaN: no maximum; the outcome is NaN, as it should be.
		float shrink = expf(before - *max);
		for (int i = 0; i < p->head_dim; i++) state[i] *= shrink;
		for (int i = 0; i < PG_LANES; i++) sums[i] *= shrink;
		for (int t = 0; t < seen; t++) {
			float weight = expf(score[t] - *max);
			sums[t % PG_LANES] += weight;
			for (int i = 0; i < p->head_dim; i++) state[i] += weight * p->values[t * p->head_dim + i];
		}
	}
}

static void fold(float *state, float *later, int head_dim) {
	float *max = pg_state_max(state, head_dim), other = *pg_state_max(later, head_dim);
	if (other == -INFINITY) return; // the row ends before this split
	float both = other > *max ? other : *max, a = expf(*max - both), b = expf(other - both);
	for (int i = 0; i < head_dim + PG_LANES; i++) state[i] = state[i] * a + later[i] * b;
	*max = both;
}

static const struct pg_attention_kernels plain_kernels = {expand_keys, expand_values, panel, fold};
