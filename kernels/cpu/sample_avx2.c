// The passes of sample.c that take longest, 8 ids at a time; the others are the plain ones.
#ifdef __x86_64__

#include <math.h>

#include "avx2.h"
#include "sample.h"

PG_AVX2 static struct pg_largest largest(const float *z, int32_t n) {
	__m256 max = _mm256_set1_ps(-INFINITY), nan = _mm256_setzero_ps();
	__m256i at = _mm256_set1_epi32(INT32_MAX), index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
	int32_t i = 0;
	for (; i + 8 <= n; i += 8) {
		__m256 v = _mm256_loadu_ps(z + i), more = _mm256_cmp_ps(v, max, _CMP_GT_OQ);
		nan = _mm256_or_ps(nan, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
		max = _mm256_blendv_ps(max, v, more);
		at = _mm256_blendv_epi8(at, index, _mm256_castps_si256(more));
		index = _mm256_add_epi32(index, _mm256_set1_epi32(8));
	}
	float values[8];
	int32_t ids[8];
	_mm256_storeu_ps(values, max);
	_mm256_storeu_si256((__m256i *)ids, at);
	struct pg_largest m = {-INFINITY, -1, _mm256_movemask_ps(nan) == 0};
	for (int c = 0; c < 8; c++)
		if (values[c] > m.z || (values[c] == m.z && m.id >= 0 && ids[c] < m.id)) m.z = values[c], m.id = ids[c];
	for (; i < n; i++) {
		if (z[i] > m.z) m.z = z[i], m.id = i;
		m.number &= z[i] == z[i];
	}
	return m;
}

PG_AVX2 static double sum_exp(const float *z, int32_t n, float max, float scale) {
	__m256d lo = _mm256_setzero_pd(), hi = lo;
	for (int32_t i = 0; i < n; i += 8) {
		float rest[8] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
		const float *from = z + i;
		if (n - i < 8) {
			for (int c = 0; c < n - i; c++) rest[c] = z[i + c];
			from = rest;
		}
		__m256 e = pg_exp256(_mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(from), _mm256_set1_ps(max)), _mm256_set1_ps(scale)));
		lo = _mm256_add_pd(lo, _mm256_cvtps_pd(_mm256_castps256_ps128(e)));
		hi = _mm256_add_pd(hi, _mm256_cvtps_pd(_mm256_extractf128_ps(e, 1)));
	}
	double sum[4];
	_mm256_storeu_pd(sum, _mm256_add_pd(lo, hi));
	return sum[0] + sum[1] + sum[2] + sum[3];
}

PG_AVX2 static int32_t next_larger(const float *z, int32_t from, int32_t n, float than) {
	for (; from + 8 <= n; from += 8) {
		int more = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(z + from), _mm256_set1_ps(than), _CMP_GT_OQ));
		if (more) return from + __builtin_ctz((unsigned)more);
	}
	while (from < n && !(z[from] > than)) from++;
	return from;
}

PG_AVX2 static int32_t keep(const float *z, const int32_t *ids, int32_t n, float least, float *out, int32_t *out_ids) {
	int32_t kept = 0;
	for (int32_t i = 0; i < n; i += 8) {
		int32_t left = n - i < 8 ? n - i : 8;
		unsigned these = (1u << left) - 1;
		if (left == 8) these = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(z + i), _mm256_set1_ps(least), _CMP_GE_OQ));
		for (; these; these &= these - 1) {
			int32_t j = i + __builtin_ctz(these);
			float v = z[j];
			if (!(v >= least) || v == -INFINITY) continue;
			out_ids[kept] = ids ? ids[j] : j;
			out[kept++] = v;
		}
	}
	return kept;
}

// product sets hi and lo to the halves of 8 products c · factor.
PG_INLINE_AVX2 void product(__m256i c, __m256i factor, __m256i *hi, __m256i *lo) {
	__m256i even = _mm256_mul_epu32(c, factor), odd = _mm256_mul_epu32(_mm256_srli_epi64(c, 32), factor);
	*hi = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
	*lo = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}

// philox is word 0 of kernels.Philox for 8 ids.
PG_INLINE_AVX2 __m256i philox(const struct pg_draw *d, __m256i id) {
	__m256i c0 = id, c1 = _mm256_set1_epi32(d->position), c2 = _mm256_set1_epi32(d->choice), c3 = _mm256_setzero_si256();
	uint32_t k0 = (uint32_t)d->seed, k1 = (uint32_t)(d->seed >> 32);
	for (int round = 0; round < 10; round++) {
		__m256i hi0, lo0, hi1, lo1;
		product(c0, _mm256_set1_epi32((int)0xD2511F53), &hi0, &lo0);
		product(c2, _mm256_set1_epi32((int)0xCD9E8D57), &hi1, &lo1);
		c0 = _mm256_xor_si256(_mm256_xor_si256(hi1, c1), _mm256_set1_epi32((int)k0));
		c1 = lo1;
		c2 = _mm256_xor_si256(_mm256_xor_si256(hi0, c3), _mm256_set1_epi32((int)k1));
		c3 = lo0;
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	return c0;
}

// draw is plain_draw of sample_plain.c, by whose bound few ids get an exact score.
PG_AVX2 static int32_t draw(const struct pg_draw *d) {
	int32_t best = d->first.id;
	double origin = (double)d->first.z / d->temperature, score = pg_score(d, d->first.z, best);
	const float slack = 1e-3f;
	const __m256 scale = _mm256_set1_ps(1 / d->temperature), max = _mm256_set1_ps(d->first.z);
	__m256 needed = _mm256_set1_ps((float)(score - origin) - slack);
	for (int32_t i = 0; i < d->n; i += 8) {
		float rest[8] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY};
		int32_t at[8], left = d->n - i < 8 ? d->n - i : 8;
		const float *z = d->z + i;
		if (left < 8) {
			for (int c = 0; c < left; c++) rest[c] = d->z[i + c];
			z = rest;
		}
		__m256 gap = _mm256_sub_ps(_mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(z), max), scale), needed);
		int may = _mm256_movemask_ps(_mm256_cmp_ps(gap, _mm256_set1_ps(-PG_GUMBEL_MAX), _CMP_GE_OQ));
		if (!may) continue;
		for (int c = 0; c < 8; c++) at[c] = d->ids && c < left ? d->ids[i + c] : i + c;
		__m256i x = _mm256_sub_epi32(_mm256_set1_epi32(1 << 24), _mm256_srli_epi32(philox(d, _mm256_loadu_si256((const __m256i *)at)), 8));
		__m256 bound = _mm256_mul_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(x), _mm256_set1_ps(.5f)), _mm256_set1_ps(0x1p-24f));
		may &= _mm256_movemask_ps(_mm256_cmp_ps(bound, pg_exp256(gap), _CMP_LE_OQ));
		for (unsigned these = (unsigned)may; these; these &= these - 1) {
			int c = __builtin_ctz(these);
			double other = pg_score(d, z[c], at[c]);
			if (other > score || (other == score && at[c] < best)) {
				score = other, best = at[c];
				needed = _mm256_set1_ps((float)(score - origin) - slack);
			}
		}
	}
	return best;
}

const struct pg_sample_passes pg_sample_avx2 = {
	largest, next_larger, pg_plain_count_larger, sum_exp, pg_plain_forbid, keep, pg_plain_group_maxima,
	pg_plain_histogram, draw,
};

#endif
