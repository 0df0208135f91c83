// AVX-512 kernels of attention.c.
//
// Keys are transposed while they are widened, so that scores of 32 tokens are
// two vectors to which each dimension adds one broadcast of the query; values
// keep their order and each token adds one broadcast of its weight. Both are
// the micro-kernel of a matrix product, 12 rows × 32 columns in 24 registers,
// and each element's sum runs in ascending order whatever the number of rows.
#ifdef __x86_64__

#include <math.h>

#include "attention.h"
#include "avx512.h"

PG_AVX512 static void expand_keys(float *tile, const uint16_t *keys, int64_t stride, int head_dim) {
	for (int d = 0; d < head_dim; d += 32) {
		int pairs = head_dim - d < 32 ? 8 : 16;
		__mmask16 half = pairs == 16 ? 0xffff : 0xff;
		__m512i v[16];
		for (int t = 0; t < 16; t++) v[t] = _mm512_maskz_loadu_epi32(half, keys + t * stride + d);
		pg_transpose512(v);
		float *out = tile + (int64_t)d * PG_KV_TILE;
		for (int i = 0; i < 16; i++) { // v[i]: dimensions d + 2i and d + 2i + 1 of 16 tokens
			if (i >= pairs) break;
			_mm512_storeu_ps(out, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v[i])));
			_mm512_storeu_ps(out + PG_KV_TILE, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(v[i], 16))));
			out += 2 * PG_KV_TILE;
		}
	}
}

PG_AVX512 static void expand_values(float *tile, const uint16_t *values, int64_t stride, int n, int head_dim) {
	for (int t = 0; t < n; t++)
		for (int d = 0; d < head_dim; d += 16)
			_mm512_storeu_ps(tile + t * head_dim + d, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(values + t * stride + d))));
}

// scores sets score[r] = q[r] · keys for rows rows, a constant at each call.
PG_INLINE void scores(const struct pg_panel *p, float score[][PG_KV_TILE], const int rows) {
	__m512 acc[PG_PANEL][2];
#pragma GCC unroll 12
	for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = _mm512_setzero_ps();
	for (int d = 0; d < p->head_dim; d++) {
		__m512 k0 = _mm512_loadu_ps(p->keys + d * PG_KV_TILE), k1 = _mm512_loadu_ps(p->keys + d * PG_KV_TILE + 16);
#pragma GCC unroll 12
		for (int r = 0; r < rows; r++) {
			__m512 q = _mm512_set1_ps(p->q[r * p->head_dim + d]);
			acc[r][0] = _mm512_fmadd_ps(q, k0, acc[r][0]);
			acc[r][1] = _mm512_fmadd_ps(q, k1, acc[r][1]);
		}
	}
#pragma GCC unroll 12
	for (int r = 0; r < rows; r++) {
		_mm512_storeu_ps(score[r], acc[r][0]);
		_mm512_storeu_ps(score[r] + 16, acc[r][1]);
	}
}

// weigh turns scores into weights relative to the new maxima, adds them to the
// rows' sums, and sets shrink to what the old sums are to be multiplied by.
PG_INLINE void weigh(const struct pg_panel *p, float score[][PG_KV_TILE], float shrink[16]) {
	const __m512 none = _mm512_set1_ps(-INFINITY), scale = _mm512_set1_ps(p->scale);
	int64_t size = pg_state_floats(p->head_dim);
	float before[16] = {0}, after[16] = {0};
	for (int r = 0; r < p->rows; r++) {
		int seen = p->positions[r] + 1 - p->first;
		uint32_t mask = seen >= p->tokens ? (uint32_t)((1ull << p->tokens) - 1) : seen > 0 ? (1u << seen) - 1 : 0;
		__m512 s0 = _mm512_mask_mul_ps(none, (__mmask16)mask, _mm512_loadu_ps(score[r]), scale);
		__m512 s1 = _mm512_mask_mul_ps(none, (__mmask16)(mask >> 16), _mm512_loadu_ps(score[r] + 16), scale);
		float *max = pg_state_max(p->states + r * size, p->head_dim);
		float largest = _mm512_reduce_max_ps(_mm512_max_ps(s0, s1));
		before[r] = *max;
		if (largest > *max) *max = largest;
		after[r] = *max == -INFINITY ? 0 : *max; // a row that has seen nothing yet: −inf − 0
		_mm512_storeu_ps(score[r], s0);
		_mm512_storeu_ps(score[r] + 16, s1);
	}
	_mm512_storeu_ps(shrink, pg_exp512(_mm512_sub_ps(_mm512_loadu_ps(before), _mm512_loadu_ps(after))));
	for (int r = 0; r < p->rows; r++) {
		float *sums = pg_state_sums(p->states + r * size, p->head_dim);
		__m512 m = _mm512_set1_ps(after[r]);
		__m512 w0 = pg_exp512(_mm512_sub_ps(_mm512_loadu_ps(score[r]), m));
		__m512 w1 = pg_exp512(_mm512_sub_ps(_mm512_loadu_ps(score[r] + 16), m));
		_mm512_storeu_ps(score[r], w0);
		_mm512_storeu_ps(score[r] + 16, w1);
		__m512 sum = _mm512_mul_ps(_mm512_loadu_ps(sums), _mm512_set1_ps(shrink[r]));
		_mm512_storeu_ps(sums, _mm512_add_ps(_mm512_add_ps(sum, w0), w1));
	}
}

// blend sets state[r] = state[r] · shrink[r] + weights[r] · values over columns
// columns (16 or 32) from d; rows and columns are constants at each call.
PG_INLINE void blend(const struct pg_panel *p, float weight[][PG_KV_TILE], const float *shrink, int d, const int columns, const int rows) {
	int64_t size = pg_state_floats(p->head_dim);
	__m512 acc[PG_PANEL][2];
#pragma GCC unroll 12
	for (int r = 0; r < rows; r++) {
		__m512 s = _mm512_set1_ps(shrink[r]);
		acc[r][0] = _mm512_mul_ps(_mm512_loadu_ps(p->states + r * size + d), s);
		if (columns == 32) acc[r][1] = _mm512_mul_ps(_mm512_loadu_ps(p->states + r * size + d + 16), s);
	}
	for (int t = 0; t < p->tokens; t++) {
		__m512 v0 = _mm512_loadu_ps(p->values + t * p->head_dim + d), v1 = v0;
		if (columns == 32) v1 = _mm512_loadu_ps(p->values + t * p->head_dim + d + 16);
#pragma GCC unroll 12
		for (int r = 0; r < rows; r++) {
			__m512 w = _mm512_set1_ps(weight[r][t]);
			acc[r][0] = _mm512_fmadd_ps(w, v0, acc[r][0]);
			if (columns == 32) acc[r][1] = _mm512_fmadd_ps(w, v1, acc[r][1]);
		}
	}
#pragma GCC unroll 12
	for (int r = 0; r < rows; r++) {
		_mm512_storeu_ps(p->states + r * size + d, acc[r][0]);
		if (columns == 32) _mm512_storeu_ps(p->states + r * size + d + 16, acc[r][1]);
	}
}

PG_INLINE void panel_of(const struct pg_panel *p, const int rows) {
	float score[PG_PANEL][PG_KV_TILE], shrink[16];
	scores(p, score, rows);
	weigh(p, score, shrink);
	int d = 0;
	for (; d + 32 <= p->head_dim; d += 32) blend(p, score, shrink, d, 32, rows);
	if (d < p->head_dim) blend(p, score, shrink, d, 16, rows);
}

PG_AVX512 static void panel(const struct pg_panel *p) {
	switch (p->rows) {
	case 1: return panel_of(p, 1);
	case 2: return panel_of(p, 2);
	case 3: return panel_of(p, 3);
	case 4: return panel_of(p, 4);
	case 5: return panel_of(p, 5);
	case 6: return panel_of(p, 6);
	case 7: return panel_of(p, 7);
	case 8: return panel_of(p, 8);
	case 9: return panel_of(p, 9);
	case 10: return panel_of(p, 10);
	case 11: return panel_of(p, 11);
	default: return panel_of(p, 12);
	}
}

PG_AVX512 static void fold(float *state, float *later, int head_dim) {
	float *max = pg_state_max(state, head_dim), other = *pg_state_max(later, head_dim);
	if (other == -INFINITY) return; // the row ends before this split
	float both = other > *max ? other : *max;
	__m512 a = pg_exp512(_mm512_set1_ps(*max - both)), b = pg_exp512(_mm512_set1_ps(other - both));
	for (int i = 0; i < head_dim + PG_LANES; i += 16) {
		__m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(state + i), a);
		_mm512_storeu_ps(state + i, _mm512_fmadd_ps(_mm512_loadu_ps(later + i), b, scaled));
	}
	*max = both;
}

const struct pg_attention_kernels pg_attention_avx512 = {expand_keys, expand_values, panel, fold};

#endif
