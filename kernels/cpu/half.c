// Keys and values become float16 as they are written to the pool. Its 11 bits of mantissa
// instead of bfloat16's 8 take the same bytes, and what they round is most of a float32
// path's distance from the model; keys and values lie far below 65,504.
#include "kernels.h"

#include <string.h>

#define GREATEST 65504.f

static uint16_t half(float f) {
	union { float f; uint32_t u; } v = {f};
	uint16_t sign = v.u >> 16 & 0x8000;
	if (f != f) return sign | 0x7E00;
	v.u &= 0x7FFFFFFF;
	if (v.f > GREATEST) v.f = GREATEST;
	if (v.u < 113u << 23) { // halves below 2⁻¹⁴ are multiples of 2⁻²⁴, as these sums round them
		v.f += 0.5f;
		return sign | (uint16_t)(v.u - (126u << 23));
	}
	return sign | (uint16_t)((v.u - (112u << 23) + 0xFFF + (v.u >> 13 & 1)) >> 13);
}

void pg_to_fp16(const float *x, int n, uint16_t *out) {
	for (int i = 0; i < n; i++) out[i] = half(x[i]);
}

#ifdef __x86_64__
#include <immintrin.h>

// min and max give their second operand if either is NaN, which so stays.
PG_AVX2 void pg_to_fp16_avx2(const float *x, int n, uint16_t *out) {
	const __m256 greatest = _mm256_set1_ps(GREATEST), least = _mm256_set1_ps(-GREATEST);
	for (int i = 0; i < n; i += 8) {
		float v[8] = {0};
		uint16_t h[8];
		int m = n - i < 8 ? n - i : 8;
		memcpy(v, x + i, m * sizeof *v);
		__m256 in = _mm256_max_ps(least, _mm256_min_ps(greatest, _mm256_loadu_ps(v)));
		_mm_storeu_si128((__m128i *)h, _mm256_cvtps_ph(in, _MM_FROUND_TO_NEAREST_INT));
		memcpy(out + i, h, m * sizeof *h);
	}
}

PG_AVX512 void pg_to_fp16_avx512(const float *x, int n, uint16_t *out) {
	const __m512 greatest = _mm512_set1_ps(GREATEST), least = _mm512_set1_ps(-GREATEST);
	for (int i = 0; i < n; i += 16) {
		__mmask16 there = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : 0xFFFF;
		__m512 in = _mm512_max_ps(least, _mm512_min_ps(greatest, _mm512_maskz_loadu_ps(there, x + i)));
		_mm256_mask_storeu_epi16(out + i, there, _mm512_cvtps_ph(in, _MM_FROUND_TO_NEAREST_INT));
	}
}
#endif
