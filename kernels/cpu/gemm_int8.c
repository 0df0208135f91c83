// Register tiles of gemm.c for int8 weights and int8 rows (activations.c).
//
//   Y[m][n] = Σ_groups scale[m][g] · Σ_{k in g} q[m][k]·w[n][k],  g: 32 k
//
// where w is stored as w + 128, unsigned, as the dot-product instructions want one
// operand: the −128·Σ q of a group is the integers' initial value. gemm.c multiplies
// with the outputs' scales. A group's integers are exact, so every code path has
// the same; the groups are one chain of float32 sums.
//
// Measured as in gemm_avx512.c: VNNI 82 % of the read probe at one token, 80 % of the
// dot-product peak (465 G operations/s) at 16 tokens; groups of 64 k were faster (89 %,
// 88 %) and cost SmolLM2 more perplexity (+1.3 % against +0.9 % on hard text).
//
// AVX2 has no such instruction and its 8-bit one saturates: bytes are widened to
// 16 bits, even and odd apart.
#include <string.h>

#include "gemm.h"

enum { STEPS = PG_GROUP / 4, ROW_GROUP = PG_GROUP + 8 }; // of a group: steps, bytes of a row

static inline __attribute__((always_inline)) int32_t load32(const char *p) {
	int32_t v;
	memcpy(&v, p, 4);
	return v;
}

static inline __attribute__((always_inline)) float load_float(const char *p) {
	float v;
	memcpy(&v, p, 4);
	return v;
}

static void scalar_tile(const struct pg_tile *t) {
	const uint8_t *w = (const uint8_t *)t->w;
	float sum[PG_COLUMNS] = {0};
	const char *x = t->x;
	for (int i = 0; i < t->steps; i += STEPS, x += ROW_GROUP) {
		int32_t dot[PG_COLUMNS];
		for (int c = 0; c < PG_COLUMNS; c++) dot[c] = load32(x + PG_GROUP + 4);
		for (int s = 0; s < STEPS; s++, w += PG_STEP_BYTES)
			for (int c = 0; c < PG_COLUMNS; c++)
				for (int k = 0; k < 4; k++) dot[c] += w[4 * c + k] * (int8_t)x[4 * s + k];
		for (int c = 0; c < PG_COLUMNS; c++) sum[c] += (float)dot[c] * load_float(x + PG_GROUP);
	}
	memcpy(t->out, sum, sizeof sum);
}

static pg_panel_fn scalar_panels(int mr, int np) { return mr == 1 && np == 1 ? scalar_tile : NULL; }

const struct pg_gemm_kernels pg_gemm_int8_scalar = {PG_ROWS_INT8, 1, scalar_panels};

#ifdef __x86_64__
#include <immintrin.h>

#define PREFETCH (16 * 64) // bytes; 40 lines read 2 to 8 % less
enum { MAX_ROWS = 6, MAX_ROWS_AVX2 = 3 };

static inline __attribute__((always_inline)) PG_AVX512VNNI void vnni(int mr, int np, const struct pg_tile *t) {
	__m512 sum[MAX_ROWS][2][2];
	const char *w = t->w, *x = t->x, *ahead = t->ahead;
#pragma GCC unroll 6
	for (int m = 0; m < mr; m++)
#pragma GCC unroll 2
		for (int p = 0; p < np; p++) sum[m][p][0] = sum[m][p][1] = _mm512_setzero_ps();
	for (int i = 0; i < t->steps; i += STEPS, x += ROW_GROUP) {
		__m512i dot[MAX_ROWS][2][2];
#pragma GCC unroll 6
		for (int m = 0; m < mr; m++)
#pragma GCC unroll 2
			for (int p = 0; p < np; p++)
				dot[m][p][0] = dot[m][p][1] = _mm512_set1_epi32(load32(x + m * t->ldx + PG_GROUP + 4));
		for (int s = 0; s < STEPS; s++, w += PG_STEP_BYTES) {
			__m512i wk[2][2];
			if (np == 1 && t->step > 0) {
				_mm_prefetch(ahead, _MM_HINT_T1);
				if (t->step > 64) _mm_prefetch(ahead + 64, _MM_HINT_T1);
				ahead += t->step;
			}
#pragma GCC unroll 2
			for (int p = 0; p < np; p++)
#pragma GCC unroll 2
				for (int half = 0; half < 2; half++) {
					const char *line = w + p * t->stride + half * 64;
					wk[p][half] = _mm512_load_si512(line);
					_mm_prefetch(line + PREFETCH, _MM_HINT_T0);
				}
#pragma GCC unroll 6
			for (int m = 0; m < mr; m++) {
				__m512i xm = _mm512_set1_epi32(load32(x + m * t->ldx + 4 * s));
#pragma GCC unroll 2
				for (int p = 0; p < np; p++) {
					dot[m][p][0] = _mm512_dpbusd_epi32(dot[m][p][0], wk[p][0], xm);
					dot[m][p][1] = _mm512_dpbusd_epi32(dot[m][p][1], wk[p][1], xm);
				}
			}
		}
#pragma GCC unroll 6
		for (int m = 0; m < mr; m++) {
			__m512 scale = _mm512_set1_ps(load_float(x + m * t->ldx + PG_GROUP));
#pragma GCC unroll 2
			for (int p = 0; p < np; p++) {
				sum[m][p][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[m][p][0]), scale, sum[m][p][0]);
				sum[m][p][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[m][p][1]), scale, sum[m][p][1]);
			}
		}
	}
#pragma GCC unroll 6
	for (int m = 0; m < mr; m++)
#pragma GCC unroll 2
		for (int p = 0; p < np; p++) {
			_mm512_store_ps(t->out + (p * PG_MR + m) * PG_COLUMNS, sum[m][p][0]);
			_mm512_store_ps(t->out + (p * PG_MR + m) * PG_COLUMNS + 16, sum[m][p][1]);
		}
}

#define TILE(MR, NP) \
	static PG_AVX512VNNI void vnni_##MR##x##NP(const struct pg_tile *t) { vnni(MR, NP, t); }
TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1)
TILE(1, 2)

static pg_panel_fn vnni_panels(int mr, int np) {
	static const pg_panel_fn one[] = {vnni_1x1, vnni_2x1, vnni_3x1, vnni_4x1, vnni_5x1, vnni_6x1};
	if (np == 2) return mr == 1 ? vnni_1x2 : NULL;
	return mr <= MAX_ROWS ? one[mr - 1] : NULL;
}

const struct pg_gemm_kernels pg_gemm_int8_vnni = {PG_ROWS_INT8, MAX_ROWS, vnni_panels};

// dot8 adds the dot products of 4 bytes in each of 8 lanes.
static inline __attribute__((always_inline)) PG_AVX2 __m256i dot8(__m256i sum, __m256i w, __m256i x) {
	__m256i even = _mm256_and_si256(w, _mm256_set1_epi16(0xFF)), odd = _mm256_srli_epi16(w, 8);
	__m256i xe = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), xo = _mm256_srai_epi16(x, 8);
	return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(even, xe), _mm256_madd_epi16(odd, xo)));
}

static inline __attribute__((always_inline)) PG_AVX2 void avx2(int mr, int from, const struct pg_tile *t) {
	__m256 sum[MAX_ROWS_AVX2][2];
	const char *w = t->w + from, *x = t->x;
#pragma GCC unroll 3
	for (int m = 0; m < mr; m++) sum[m][0] = sum[m][1] = _mm256_setzero_ps();
	for (int i = 0; i < t->steps; i += STEPS, x += ROW_GROUP) {
		__m256i dot[MAX_ROWS_AVX2][2];
#pragma GCC unroll 3
		for (int m = 0; m < mr; m++)
			dot[m][0] = dot[m][1] = _mm256_set1_epi32(load32(x + m * t->ldx + PG_GROUP + 4));
		for (int s = 0; s < STEPS; s++, w += PG_STEP_BYTES) {
			__m256i w0 = _mm256_load_si256((const __m256i *)w), w1 = _mm256_load_si256((const __m256i *)(w + 32));
			_mm_prefetch(w + PREFETCH, _MM_HINT_T0);
#pragma GCC unroll 3
			for (int m = 0; m < mr; m++) {
				__m256i xm = _mm256_set1_epi32(load32(x + m * t->ldx + 4 * s));
				dot[m][0] = dot8(dot[m][0], w0, xm);
				dot[m][1] = dot8(dot[m][1], w1, xm);
			}
		}
#pragma GCC unroll 3
		for (int m = 0; m < mr; m++) {
			__m256 scale = _mm256_set1_ps(load_float(x + m * t->ldx + PG_GROUP));
			sum[m][0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[m][0]), scale, sum[m][0]);
			sum[m][1] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[m][1]), scale, sum[m][1]);
		}
	}
#pragma GCC unroll 3
	for (int m = 0; m < mr; m++) {
		_mm256_store_ps(t->out + m * PG_COLUMNS + from / 4, sum[m][0]);
		_mm256_store_ps(t->out + m * PG_COLUMNS + from / 4 + 8, sum[m][1]);
	}
}

#define HALVES(MR)                                           \
	static PG_AVX2 void avx2_##MR(const struct pg_tile *t) { \
		avx2(MR, 0, t);                                      \
		avx2(MR, 64, t);                                     \
	}
HALVES(1) HALVES(2) HALVES(3)

static pg_panel_fn avx2_panels(int mr, int np) {
	static const pg_panel_fn fns[] = {avx2_1, avx2_2, avx2_3};
	return np == 1 && mr <= MAX_ROWS_AVX2 ? fns[mr - 1] : NULL;
}

const struct pg_gemm_kernels pg_gemm_int8_avx2 = {PG_ROWS_INT8, MAX_ROWS_AVX2, avx2_panels};
#endif
