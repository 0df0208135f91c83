// AVX2 arithmetic that several kernels share. Include it inside #ifdef __x86_64__
// only, and call it from PG_AVX2 functions.
#pragma once

#include <immintrin.h>

#include "kernels.h"

#define PG_INLINE_AVX2 static inline __attribute__((always_inline)) PG_AVX2

// pg_exp256 is pg_exp512 (avx512.h) of 8 values; the power of two is put together
// in two steps, so that results below the smallest normal are right too.
PG_INLINE_AVX2 __m256 pg_exp256(__m256 x) {
	__m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
	n = _mm256_max_ps(_mm256_min_ps(n, _mm256_set1_ps(192)), _mm256_set1_ps(-192));
	__m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145751953125f), x);
	r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860682030941723e-6f), r);
	r = _mm256_max_ps(_mm256_set1_ps(-1), _mm256_min_ps(_mm256_set1_ps(1), r));
	__m256 p = _mm256_set1_ps(1.f / 720);
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.f / 120));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.f / 24));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.f / 6));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(.5f));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1));
	p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1));
	__m256i e = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(e, 1);
	__m256i one = _mm256_set1_epi32(127);
	p = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, one), 23)));
	p = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(e, half), one), 23)));
	return _mm256_blendv_ps(p, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

// pg_max256 is the largest of 8 lanes.
PG_INLINE_AVX2 float pg_max256(__m256 v) {
	__m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
	m = _mm_max_ps(m, _mm_movehl_ps(m, m));
	return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
