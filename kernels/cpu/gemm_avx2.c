// AVX2 register tiles of gemm.c, float32 rows: up to 6 tokens × 16 outputs (12
// sums, 2 operands, a broadcast), the halves of a panel one after the other; one
// and two tokens take both halves at once, so that there are chains enough to
// hide the latency of a multiply-add. Sums have the order of gemm_avx512.c.
#ifdef __x86_64__
#include <immintrin.h>

#include "gemm.h"

#define PREFETCH (40 * 64) // bytes
#define INLINE static inline __attribute__((always_inline)) PG_AVX2
enum { MAX_ROWS = 6 };

// tile computes vectors 0…nv−1 (8 outputs each) from byte `from` of a step on.
INLINE void tile(int mr, int nv, int from, const struct pg_tile *t) {
	__m256 acc[MAX_ROWS][4];
	const __m256i upper = _mm256_set1_epi32((int)0xFFFF0000u);
	const char *w = t->w + from, *x = t->x, *ahead = t->ahead;
#pragma GCC unroll 6
	for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++) acc[m][v] = _mm256_setzero_ps();
	for (int i = 0; i < t->steps; i++, w += PG_STEP_BYTES, x += 8) {
		if (from == 0 && t->step > 0) _mm_prefetch(ahead, _MM_HINT_T1);
		if (from == 0 && t->step > 64) _mm_prefetch(ahead + 64, _MM_HINT_T1);
		ahead += t->step;
#pragma GCC unroll 2
		for (int odd = 0; odd < 2; odd++) {
			__m256 wk[4];
#pragma GCC unroll 4
			for (int v = 0; v < nv; v++) {
				__m256i lane = _mm256_load_si256((const __m256i *)(w + 32 * v));
				wk[v] = _mm256_castsi256_ps(odd ? _mm256_and_si256(lane, upper) : _mm256_slli_epi32(lane, 16));
			}
			if (!odd) {
				_mm_prefetch(w + PREFETCH, _MM_HINT_T0);
				if (nv > 2) _mm_prefetch(w + PREFETCH + 64, _MM_HINT_T0);
			}
#pragma GCC unroll 6
			for (int m = 0; m < mr; m++) {
				__m256 xm = _mm256_set1_ps(*(const float *)(x + m * t->ldx + odd * 4));
#pragma GCC unroll 4
				for (int v = 0; v < nv; v++) acc[m][v] = _mm256_fmadd_ps(xm, wk[v], acc[m][v]);
			}
		}
	}
#pragma GCC unroll 6
	for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
		for (int v = 0; v < nv; v++) _mm256_store_ps(t->out + m * PG_COLUMNS + from / 4 + 8 * v, acc[m][v]);
}

#define WHOLE(MR) \
	static PG_AVX2 void tile_##MR(const struct pg_tile *t) { tile(MR, 4, 0, t); }
#define HALVES(MR)                                           \
	static PG_AVX2 void tile_##MR(const struct pg_tile *t) { \
		tile(MR, 2, 0, t);                                   \
		tile(MR, 2, 64, t);                                  \
	}
WHOLE(1) WHOLE(2) HALVES(3) HALVES(4) HALVES(5) HALVES(6)

static pg_panel_fn panels(int mr, int np) {
	static const pg_panel_fn fns[] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
	return np == 1 && mr <= MAX_ROWS ? fns[mr - 1] : NULL;
}

const struct pg_gemm_kernels pg_gemm_avx2 = {PG_ROWS_F32, MAX_ROWS, panels};
#endif
