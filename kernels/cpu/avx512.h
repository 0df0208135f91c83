// AVX-512 arithmetic that several kernels share. Include it inside
// #ifdef __x86_64__ only, and call it from PG_AVX512 functions.
#pragma once

#include <immintrin.h>

#include "kernels.h"

#define PG_INLINE static inline __attribute__((always_inline)) PG_AVX512

// pg_exp512 is exp(x) within 2 ulp: x = n·ln 2 + r, |r| ≤ ln 2 / 2, and a
// polynomial of degree 6 (Taylor's, whose remainder is below 2⁻²⁴·0.7 there).
// It underflows to 0, overflows to +inf, and keeps NaN.
PG_INLINE __m512 pg_exp512(__m512 x) {
	const __m512 log2e = _mm512_set1_ps(1.44269504088896341f);
	__m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, log2e), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
	// ln 2 in two parts keeps r exact. n is clamped, or inf − inf would be NaN.
	n = _mm512_max_ps(_mm512_min_ps(n, _mm512_set1_ps(256)), _mm512_set1_ps(-256));
	__m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145751953125f), x);
	r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860682030941723e-6f), r);
	r = _mm512_max_ps(_mm512_set1_ps(-1), _mm512_min_ps(_mm512_set1_ps(1), r));
	__m512 p = _mm512_set1_ps(1.f / 720);
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f / 120));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f / 24));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f / 6));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(.5f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
	p = _mm512_scalef_ps(p, n);
	return _mm512_mask_mov_ps(p, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

// pg_transpose512 turns 16 vectors of 16 dwords into their columns.
PG_INLINE void pg_transpose512(__m512i v[16]) {
	__m512i a[16];
	for (int i = 0; i < 16; i += 2) {
		a[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
		a[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
	}
	for (int i = 0; i < 16; i += 4) {
		v[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
		v[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
		v[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
		v[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
	}
	for (int i = 0; i < 4; i++) { // v[4g + i]: column i of each quarter, rows of group g
		__m512i lo = _mm512_shuffle_i32x4(v[i], v[4 + i], 0x88), hi = _mm512_shuffle_i32x4(v[i], v[4 + i], 0xdd);
		__m512i lo2 = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0x88), hi2 = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0xdd);
		a[i] = _mm512_shuffle_i32x4(lo, lo2, 0x88);
		a[4 + i] = _mm512_shuffle_i32x4(hi, hi2, 0x88);
		a[8 + i] = _mm512_shuffle_i32x4(lo, lo2, 0xdd);
		a[12 + i] = _mm512_shuffle_i32x4(hi, hi2, 0xdd);
	}
	for (int i = 0; i < 16; i++) v[i] = a[i];
}
