// AVX-512 register tiles of gemm.c: mr tokens × np panels of 32 outputs.
//
// float32 rows. A step is two k: each line is widened by a shift (k) or a mask
// (k+1), and each token's x[k] is broadcast from memory and feeds 2·np
// multiply-adds.
//
// bfloat16 rows. A step is one dot-product instruction a line and token: half the
// instructions, for activations that were rounded to bfloat16.
//
// Coded weights (weight.h) are decoded in registers, 15 instructions for 2 lines: two
// table look-ups give the exponents' bits, two selections add signs and mantissas, two
// interleavings make lines of them.
//
// A panel is one stream of memory, which a software prefetch PREFETCH bytes ahead
// keeps in flight. One token reads two panels at once, so that a core whose
// prefetcher stops at a page has another stream meanwhile.
//
// Measured on an AMD EPYC (Zen 4, family 25, model 17) shared with other work,
// 2026-11-25, one thread, slices in which it was not held off, against probes.c in
// turn: one token 104 % of the read probe's 4 streams (bf16 and float32 rows, K 896
// and 4,864); 8 tokens 80–88 %; 16 and 32 tokens 93 %, 512 tokens 94 % (K 896) and
// 96 % (K 4,864) of the dot-product peak of 232 GFLOP/s; float32 rows 93–95 % of the
// multiply-add peak of 116. Lost: 4 panels at once (88–94 % of the read probe at one
// token; 2 panels lose from 2 tokens on, 4 tokens 78 % against 92 %).
//
// Coded weights and bfloat16 rows, 2026-11-26, the same processor, whole steps of the 0.5B
// (BenchmarkStep): decode of one token 1.30 times as fast as uncoded where the probe reads
// 35 GB/s, 1.17 times at 60; 8 tokens up to 1.17; 16 tokens and prefill as fast or 2 %
// slower. One thread, from its cache: a step of one panel 1.7 ns (uncoded 1.6), of 12
// tokens 7.7 (7.0).
#ifdef __x86_64__
#include "avx512.h"
#include "gemm.h"

#define PREFETCH (40 * 64) // bytes

PG_INLINE void zero(__m512 acc[PG_MR][2][2], int mr, int np) {
#pragma GCC unroll 12
	for (int m = 0; m < mr; m++)
#pragma GCC unroll 2
		for (int p = 0; p < np; p++) acc[m][p][0] = acc[m][p][1] = _mm512_setzero_ps();
}

PG_INLINE void store(float *out, __m512 acc[PG_MR][2][2], int mr, int np) {
#pragma GCC unroll 12
	for (int m = 0; m < mr; m++)
#pragma GCC unroll 2
		for (int p = 0; p < np; p++) {
			_mm512_store_ps(out + (p * PG_MR + m) * PG_COLUMNS, acc[m][p][0]);
			_mm512_store_ps(out + (p * PG_MR + m) * PG_COLUMNS + 16, acc[m][p][1]);
		}
}

// fetch asks for the memory that is read next.
PG_INLINE const char *fetch(int np, const char *ahead, int step) {
	if (np > 1) return ahead;
	if (step > 0) _mm_prefetch(ahead, _MM_HINT_T1);
	if (step > 64) _mm_prefetch(ahead + 64, _MM_HINT_T1);
	return ahead + step;
}

// multiply adds the products of a step: x[k], x[k+1] of each token with the lines v.
PG_INLINE void multiply(__m512 acc[PG_MR][2][2], int mr, int np, __m512i v[2][2], const char *x, int64_t ldx) {
	const __m512i upper = _mm512_set1_epi32((int)0xFFFF0000u);
#pragma GCC unroll 2
	for (int odd = 0; odd < 2; odd++) {
		__m512 wk[2][2];
#pragma GCC unroll 2
		for (int p = 0; p < np; p++)
#pragma GCC unroll 2
			for (int half = 0; half < 2; half++)
				wk[p][half] = _mm512_castsi512_ps(odd ? _mm512_and_si512(v[p][half], upper) : _mm512_slli_epi32(v[p][half], 16));
#pragma GCC unroll 12
		for (int m = 0; m < mr; m++) {
			__m512 xm = _mm512_set1_ps(*(const float *)(x + m * ldx + odd * 4));
#pragma GCC unroll 2
			for (int p = 0; p < np; p++) {
				acc[m][p][0] = _mm512_fmadd_ps(xm, wk[p][0], acc[m][p][0]);
				acc[m][p][1] = _mm512_fmadd_ps(xm, wk[p][1], acc[m][p][1]);
			}
		}
	}
}

static inline __attribute__((always_inline)) PG_AVX512BF16
void multiply_bf16(__m512 acc[PG_MR][2][2], int mr, int np, __m512i v[2][2], const char *x, int64_t ldx) {
#pragma GCC unroll 12
	for (int m = 0; m < mr; m++) {
		__m512bh xm = (__m512bh)_mm512_set1_epi32(*(const int32_t *)(x + m * ldx));
#pragma GCC unroll 2
		for (int p = 0; p < np; p++) {
			acc[m][p][0] = _mm512_dpbf16_ps(acc[m][p][0], (__m512bh)v[p][0], xm);
			acc[m][p][1] = _mm512_dpbf16_ps(acc[m][p][1], (__m512bh)v[p][1], xm);
		}
	}
}

// load reads the lines of a step.
PG_INLINE void load(const char *w, int64_t stride, int np, __m512i v[2][2]) {
#pragma GCC unroll 2
	for (int p = 0; p < np; p++)
#pragma GCC unroll 2
		for (int half = 0; half < 2; half++) {
			const char *line = w + p * stride + half * 64;
			v[p][half] = _mm512_load_si512(line);
			_mm_prefetch(line + PREFETCH, _MM_HINT_T0);
		}
}

// What decoding wants of a panel: the exponents by code, in each 16 bytes.
struct codes { __m512i high, low; };

// decode makes the lines of a step of its signs and mantissas and its codes.
PG_INLINE void decode(const char *rest, __m512i codes, const struct codes *by, __m512i v[2]) {
	const __m512i sign = _mm512_set1_epi8((char)0x80);
	__m512i r = _mm512_load_si512(rest);
	__m512i high = _mm512_shuffle_epi8(by->high, codes), low = _mm512_shuffle_epi8(by->low, codes);
	high = _mm512_ternarylogic_epi32(high, r, sign, 0xF8); // high | r & sign
	low = _mm512_ternarylogic_epi32(low, r, sign, 0xF4);   // low | r & ~sign
	v[0] = _mm512_unpacklo_epi8(low, high);
	v[1] = _mm512_unpackhi_epi8(low, high);
}

// decode_step makes the lines of the first or the second step of a pair.
PG_INLINE void decode_step(const char *pair, int64_t stride, int np, int second, const struct codes by[2], __m512i v[2][2]) {
	const __m512i lower = _mm512_set1_epi8(15);
#pragma GCC unroll 2
	for (int p = 0; p < np; p++) {
		const char *w = pair + p * stride;
		__m512i codes = _mm512_load_si512(w + 128);
		codes = _mm512_and_si512(second ? _mm512_srli_epi16(codes, 4) : codes, lower);
		decode(w + second * 64, codes, &by[p], v[p]);
	}
}

PG_INLINE void load_codes(const struct pg_tile *t, int np, struct codes by[2]) {
#pragma GCC unroll 2
	for (int p = 0; p < np; p++) {
		by[p].high = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)t->codes[p]->high));
		by[p].low = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)t->codes[p]->low));
	}
}

PG_INLINE void prefetch_pair(const char *pair, int64_t stride, int np) {
#pragma GCC unroll 2
	for (int p = 0; p < np; p++)
#pragma GCC unroll 3
		for (int i = 0; i < 3; i++) _mm_prefetch(pair + p * stride + i * 64 + PREFETCH, _MM_HINT_T0);
}

// The register tiles, of weights as they are and of coded ones.
#define TILES(NAME, ISA, MULTIPLY, X_BYTES)                                                                 \
	static inline __attribute__((always_inline)) ISA void NAME(int mr, int np, const struct pg_tile *t) {    \
		__m512 acc[PG_MR][2][2];                                                                             \
		__m512i v[2][2];                                                                                     \
		const char *w = t->w, *x = t->x, *ahead = t->ahead;                                                  \
		zero(acc, mr, np);                                                                                   \
		for (int i = 0; i < t->steps; i++, w += PG_STEP_BYTES, x += X_BYTES) {                               \
			ahead = fetch(np, ahead, t->step);                                                               \
			load(w, t->stride, np, v);                                                                       \
			MULTIPLY(acc, mr, np, v, x, t->ldx);                                                             \
		}                                                                                                    \
		store(t->out, acc, mr, np);                                                                          \
	}                                                                                                        \
	static inline __attribute__((always_inline)) ISA void NAME##_coded(int mr, int np, const struct pg_tile *t) { \
		__m512 acc[PG_MR][2][2];                                                                             \
		__m512i v[2][2];                                                                                     \
		struct codes by[2];                                                                                  \
		const char *w = t->w, *x = t->x, *ahead = t->ahead;                                                  \
		zero(acc, mr, np);                                                                                   \
		load_codes(t, np, by);                                                                               \
		int i = 0;                                                                                           \
		for (; i + 2 <= t->steps; i += 2, w += PG_PAIR_BYTES, x += 2 * X_BYTES) {                            \
			ahead = fetch(np, ahead, t->step);                                                               \
			prefetch_pair(w, t->stride, np);                                                                 \
			decode_step(w, t->stride, np, 0, by, v);                                                         \
			MULTIPLY(acc, mr, np, v, x, t->ldx);                                                             \
			decode_step(w, t->stride, np, 1, by, v);                                                         \
			MULTIPLY(acc, mr, np, v, x + X_BYTES, t->ldx);                                                   \
		}                                                                                                    \
		if (i < t->steps) {                                                                                  \
			decode_step(w, t->stride, np, 0, by, v);                                                         \
			MULTIPLY(acc, mr, np, v, x, t->ldx);                                                             \
		}                                                                                                    \
		store(t->out, acc, mr, np);                                                                          \
	}

TILES(panels, PG_AVX512, multiply, 8)
TILES(panels_bf16, PG_AVX512BF16, multiply_bf16, 4)

#define TILE(MR, NP)                                                                                      \
	static PG_AVX512 void tile_##MR##x##NP(const struct pg_tile *t) { panels(MR, NP, t); }                 \
	static PG_AVX512 void coded_##MR##x##NP(const struct pg_tile *t) { panels_coded(MR, NP, t); }          \
	static PG_AVX512BF16 void bf16_##MR##x##NP(const struct pg_tile *t) { panels_bf16(MR, NP, t); }        \
	static PG_AVX512BF16 void bf16_coded_##MR##x##NP(const struct pg_tile *t) { panels_bf16_coded(MR, NP, t); }

TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1)
TILE(7, 1) TILE(8, 1) TILE(9, 1) TILE(10, 1) TILE(11, 1) TILE(12, 1)
TILE(1, 2)

#define CHOOSE(NAME)                                                                                \
	static pg_panel_fn NAME##_of(int mr, int np) {                                                  \
		static const pg_panel_fn one[] = {NAME##_1x1, NAME##_2x1, NAME##_3x1, NAME##_4x1,           \
		                                  NAME##_5x1, NAME##_6x1, NAME##_7x1, NAME##_8x1,           \
		                                  NAME##_9x1, NAME##_10x1, NAME##_11x1, NAME##_12x1};       \
		if (np == 2) return mr == 1 ? NAME##_1x2 : NULL;                                            \
		return mr <= 12 ? one[mr - 1] : NULL;                                                       \
	}

CHOOSE(tile)
CHOOSE(coded)
CHOOSE(bf16)
CHOOSE(bf16_coded)

const struct pg_gemm_kernels pg_gemm_avx512 = {PG_ROWS_F32, 12, tile_of};
const struct pg_gemm_kernels pg_gemm_avx512_coded = {PG_ROWS_F32, 12, coded_of};
const struct pg_gemm_kernels pg_gemm_avx512bf16 = {PG_ROWS_BF16, 12, bf16_of};
const struct pg_gemm_kernels pg_gemm_avx512bf16_coded = {PG_ROWS_BF16, 12, bf16_coded_of};
#endif
