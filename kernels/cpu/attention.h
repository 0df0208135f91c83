// Between attention.c, which drives, and the kernels of each instruction set.
#pragma once

#include "kernels.h"

// Everything that decides the order of a row's sums is fixed here, so that a row
// has the same bits whatever the batch, the chunk and the query tile it is in.
#define PG_KV_TILE 32   // tokens of one online-softmax step, from position 0
#define PG_KV_SPLIT 512 // tokens after which a fresh softmax starts, to be folded in order
#define PG_PANEL 12     // rows that a panel kernel takes at most
#define PG_LANES 16     // partial sums of a row's softmax denominator: token % 16

// A row's online softmax: [head_dim] weighted sum of values, [PG_LANES] sums of
// weights, and the maximum that both are relative to.
static inline int64_t pg_state_floats(int head_dim) { return head_dim + 2 * PG_LANES; }
static inline float *pg_state_sums(float *state, int head_dim) { return state + head_dim; }
static inline float *pg_state_max(float *state, int head_dim) { return state + head_dim + PG_LANES; }

// A panel: up to PG_PANEL rows against one tile of keys and values.
struct pg_panel {
	int rows, head_dim;
	int first, tokens;        // position of the tile's first token; tokens that some row sees
	float scale;              // on scores: 1 / sqrt(head_dim)
	const float *q;           // [rows][head_dim]
	const int32_t *positions; // [rows]; a row sees tokens up to its own
	const float *keys;        // [head_dim][PG_KV_TILE], transposed; past tokens: anything
	const float *values;      // [tokens][head_dim]
	float *states;            // [rows][pg_state_floats]
};

struct pg_attention_kernels {
	// expand_keys widens 16 tokens' keys into 16 columns of a transposed tile.
	void (*expand_keys)(float *tile, const uint16_t *keys, int64_t stride, int head_dim);
	// expand_values widens n tokens' values.
	void (*expand_values)(float *tile, const uint16_t *values, int64_t stride, int n, int head_dim);
	// panel advances the rows' states by the tile.
	void (*panel)(const struct pg_panel *p);
	// fold adds a later split's state to a row's.
	void (*fold)(float *state, float *later, int head_dim);
};

#ifdef __x86_64__
extern const struct pg_attention_kernels pg_attention_avx2, pg_attention_avx512;
#endif
