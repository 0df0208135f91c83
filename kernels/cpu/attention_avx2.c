// AVX2 kernels of attention.c: those of attention_avx512.c with 8 lanes, two rows
// at a time (8 sums, 4 operands, a broadcast). Sums run in ascending order whatever
// the number of rows.
#ifdef __x86_64__

#include <math.h>

#include "attention.h"
#include "avx2.h"

PG_INLINE_AVX2 __m256 widen(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

PG_AVX2 static void expand_keys(float *tile, const uint16_t *keys, int64_t stride, int head_dim) {
	float rows[16][8];
	for (int d = 0; d < head_dim; d += 8) {
		for (int t = 0; t < 16; t++) _mm256_storeu_ps(rows[t], widen(keys + t * stride + d));
		for (int i = 0; i < 8; i++)
			for (int t = 0; t < 16; t++) tile[(d + i) * PG_KV_TILE + t] = rows[t][i];
	}
}

PG_AVX2 static void expand_values(float *tile, const uint16_t *values, int64_t stride, int n, int head_dim) {
	for (int t = 0; t < n; t++)
		for (int d = 0; d < head_dim; d += 8) _mm256_storeu_ps(tile + t * head_dim + d, widen(values + t * stride + d));
}

// scores sets score[r] = q[r] · keys for rows rows from row on, a constant.
PG_INLINE_AVX2 void scores(const struct pg_panel *p, float score[][PG_KV_TILE], int row, const int rows) {
	__m256 acc[2][4];
#pragma GCC unroll 2
	for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
		for (int v = 0; v < 4; v++) acc[r][v] = _mm256_setzero_ps();
	for (int d = 0; d < p->head_dim; d++) {
		__m256 k[4];
#pragma GCC unroll 4
		for (int v = 0; v < 4; v++) k[v] = _mm256_loadu_ps(p->keys + d * PG_KV_TILE + 8 * v);
#pragma GCC unroll 2
		for (int r = 0; r < rows; r++) {
			__m256 q = _mm256_set1_ps(p->q[(row + r) * p->head_dim + d]);
#pragma GCC unroll 4
			for (int v = 0; v < 4; v++) acc[r][v] = _mm256_fmadd_ps(q, k[v], acc[r][v]);
		}
	}
#pragma GCC unroll 2
	for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
		for (int v = 0; v < 4; v++) _mm256_storeu_ps(score[row + r] + 8 * v, acc[r][v]);
}

// weigh turns row r's scores into weights relative to its new maximum, adds them
// to its sums, and returns what its old sums are to be multiplied by.
PG_INLINE_AVX2 float weigh(const struct pg_panel *p, float *score, int r) {
	float *state = p->states + r * pg_state_floats(p->head_dim);
	float *max = pg_state_max(state, p->head_dim), *sums = pg_state_sums(state, p->head_dim), before = *max;
	int seen = p->positions[r] + 1 - p->first;
	if (seen > p->tokens) seen = p->tokens;
	const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	__m256 s[4], largest = _mm256_set1_ps(-INFINITY);
	for (int v = 0; v < 4; v++) {
		__m256 visible = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(seen - 8 * v), lanes));
		__m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(score + 8 * v), _mm256_set1_ps(p->scale));
		s[v] = _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), scaled, visible);
		largest = _mm256_max_ps(s[v], largest); // the second operand where the first is NaN
	}
	float top = pg_max256(largest);
	if (top > *max) *max = top;
	float after = *max == -INFINITY ? 0 : *max; // a row that has seen nothing yet: −inf − 0
	float shrink = _mm256_cvtss_f32(pg_exp256(_mm256_set1_ps(before - after)));
	for (int v = 0; v < 2; v++) {
		__m256 w0 = pg_exp256(_mm256_sub_ps(s[v], _mm256_set1_ps(after)));
		__m256 w1 = pg_exp256(_mm256_sub_ps(s[v + 2], _mm256_set1_ps(after)));
		_mm256_storeu_ps(score + 8 * v, w0);
		_mm256_storeu_ps(score + 16 + 8 * v, w1);
		__m256 sum = _mm256_mul_ps(_mm256_loadu_ps(sums + 8 * v), _mm256_set1_ps(shrink));
		_mm256_storeu_ps(sums + 8 * v, _mm256_add_ps(_mm256_add_ps(sum, w0), w1));
	}
	return shrink;
}

// blend sets state[r] = state[r] · shrink[r] + weights[r] · values over 16 columns
// from d, for rows rows from row on, a constant.
PG_INLINE_AVX2 void blend(const struct pg_panel *p, float weight[][PG_KV_TILE], const float *shrink, int d, int row, const int rows) {
	int64_t size = pg_state_floats(p->head_dim);
	__m256 acc[4][2];
#pragma GCC unroll 4
	for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
		for (int v = 0; v < 2; v++)
			acc[r][v] = _mm256_mul_ps(_mm256_loadu_ps(p->states + (row + r) * size + d + 8 * v), _mm256_set1_ps(shrink[row + r]));
	for (int t = 0; t < p->tokens; t++) {
		__m256 v0 = _mm256_loadu_ps(p->values + t * p->head_dim + d), v1 = _mm256_loadu_ps(p->values + t * p->head_dim + d + 8);
#pragma GCC unroll 4
		for (int r = 0; r < rows; r++) {
			__m256 w = _mm256_set1_ps(weight[row + r][t]);
			acc[r][0] = _mm256_fmadd_ps(w, v0, acc[r][0]);
			acc[r][1] = _mm256_fmadd_ps(w, v1, acc[r][1]);
		}
	}
#pragma GCC unroll 4
	for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
		for (int v = 0; v < 2; v++) _mm256_storeu_ps(p->states + (row + r) * size + d + 8 * v, acc[r][v]);
}

PG_AVX2 static void panel(const struct pg_panel *p) {
	float score[PG_PANEL][PG_KV_TILE], shrink[PG_PANEL];
	int r = 0;
	for (; r + 2 <= p->rows; r += 2) scores(p, score, r, 2);
	if (r < p->rows) scores(p, score, r, 1);
	for (r = 0; r < p->rows; r++) shrink[r] = weigh(p, score[r], r);
	for (int d = 0; d < p->head_dim; d += 16) {
		for (r = 0; r + 4 <= p->rows; r += 4) blend(p, score, shrink, d, r, 4);
		for (; r < p->rows; r++) blend(p, score, shrink, d, r, 1);
	}
}

PG_AVX2 static void fold(float *state, float *later, int head_dim) {
	float *max = pg_state_max(state, head_dim), other = *pg_state_max(later, head_dim);
	if (other == -INFINITY) return; // the row ends before this split
	float both = other > *max ? other : *max;
	__m256 a = pg_exp256(_mm256_set1_ps(*max - both)), b = pg_exp256(_mm256_set1_ps(other - both));
	for (int i = 0; i < head_dim + PG_LANES; i += 8) {
		__m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(state + i), a);
		_mm256_storeu_ps(state + i, _mm256_fmadd_ps(_mm256_loadu_ps(later + i), b, scaled));
	}
	*max = both;
}

const struct pg_attention_kernels pg_attention_avx2 = {expand_keys, expand_values, panel, fold};

#endif
