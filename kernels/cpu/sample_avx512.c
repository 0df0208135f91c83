// The passes of sample.c, 16 ids at a time.
#ifdef __x86_64__

#include <math.h>

#include "avx512.h"
#include "sample.h"

// tail is the mask of the elements from i on, at most 16.
PG_INLINE __mmask16 tail(int32_t i, int32_t n) { return n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1); }

// load reads up to 16 elements, the rest is −inf.
PG_INLINE __m512 load(const float *z, __mmask16 m) { return _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), m, z); }

PG_AVX512 static struct pg_largest largest(const float *z, int32_t n) {
	__m512 max = _mm512_set1_ps(-INFINITY);
	__m512i at = _mm512_set1_epi32(-1), index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	__mmask16 nan = 0;
	for (int32_t i = 0; i < n; i += 16) {
		__m512 v = load(z + i, tail(i, n));
		__mmask16 more = _mm512_cmp_ps_mask(v, max, _CMP_GT_OQ);
		nan |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
		max = _mm512_mask_mov_ps(max, more, v);
		at = _mm512_mask_mov_epi32(at, more, index);
		index = _mm512_add_epi32(index, _mm512_set1_epi32(16));
	}
	float top = _mm512_reduce_max_ps(max);
	__mmask16 equal = _mm512_cmp_ps_mask(max, _mm512_set1_ps(top), _CMP_EQ_OQ);
	int32_t id = top == -INFINITY ? -1 : _mm512_mask_reduce_min_epi32(equal, at);
	return (struct pg_largest){top, id, nan == 0};
}

PG_AVX512 static int32_t next_larger(const float *z, int32_t from, int32_t n, float than) {
	for (int32_t i = from; i < n; i += 16) {
		__mmask16 more = _mm512_cmp_ps_mask(load(z + i, tail(i, n)), _mm512_set1_ps(than), _CMP_GT_OQ);
		if (more) return i + __builtin_ctz(more);
	}
	return n;
}

PG_AVX512 static int32_t count_larger(const float *z, int32_t n, float than) {
	int32_t count = 0;
	for (int32_t i = 0; i < n; i += 16)
		count += __builtin_popcount(_mm512_cmp_ps_mask(load(z + i, tail(i, n)), _mm512_set1_ps(than), _CMP_GT_OQ));
	return count;
}

PG_AVX512 static double sum_exp(const float *z, int32_t n, float max, float scale) {
	__m512d lo = _mm512_setzero_pd(), hi = lo;
	for (int32_t i = 0; i < n; i += 16) {
		__mmask16 m = tail(i, n);
		__m512 e = _mm512_mul_ps(_mm512_sub_ps(load(z + i, m), _mm512_set1_ps(max)), _mm512_set1_ps(scale));
		e = pg_exp512(e);
		lo = _mm512_add_pd(lo, _mm512_cvtps_pd(_mm512_castps512_ps256(e)));
		hi = _mm512_add_pd(hi, _mm512_cvtps_pd(_mm512_extractf32x8_ps(e, 1)));
	}
	return _mm512_reduce_add_pd(_mm512_add_pd(lo, hi));
}

PG_AVX512 static void forbid(float *z, const uint32_t *mask, int32_t n) {
	for (int32_t i = 0; i < n; i += 16) {
		__mmask16 not_allowed = tail(i, n) & ~(__mmask16)(mask[i / 32] >> (i % 32));
		_mm512_mask_storeu_ps(z + i, not_allowed, _mm512_set1_ps(-INFINITY));
	}
}

PG_AVX512 static int32_t keep(const float *z, const int32_t *ids, int32_t n, float least, float *out, int32_t *out_ids) {
	__m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	const __m512 none = _mm512_set1_ps(-INFINITY);
	int32_t kept = 0;
	for (int32_t i = 0; i < n; i += 16) {
		__mmask16 m = tail(i, n);
		__m512 v = load(z + i, m);
		m = _mm512_mask_cmp_ps_mask(m, v, _mm512_set1_ps(least), _CMP_GE_OQ);
		m = _mm512_mask_cmp_ps_mask(m, v, none, _CMP_GT_OQ);
		if (m) { // the stores end at or before what was read, or in the room after it
			__m512i id = ids ? _mm512_maskz_loadu_epi32(tail(i, n), ids + i) : index;
			_mm512_storeu_ps(out + kept, _mm512_maskz_compress_ps(m, v));
			_mm512_storeu_si512(out_ids + kept, _mm512_maskz_compress_epi32(m, id));
			kept += __builtin_popcount(m);
		}
		index = _mm512_add_epi32(index, _mm512_set1_epi32(16));
	}
	return kept;
}

PG_AVX512 static int32_t group_maxima(const float *z, int32_t n, float *out) {
	int32_t groups = 0;
	for (int32_t i = 0; i + 256 <= n; i += 256) { // a group is a lane of 16 vectors
		__m512 m = _mm512_loadu_ps(z + i);
		for (int j = 16; j < 256; j += 16) m = _mm512_max_ps(m, _mm512_loadu_ps(z + i + j));
		_mm512_storeu_ps(out + groups, m);
		groups += 16;
	}
	return groups;
}

// keys is pg_key of 16 floats.
PG_INLINE __m512i keys(__m512 z) {
	__m512i u = _mm512_castps_si512(_mm512_add_ps(z, _mm512_setzero_ps()));
	__mmask16 negative = _mm512_movepi32_mask(u);
	return _mm512_mask_xor_epi32(u, ~negative, u, _mm512_set1_epi32(0x7fffffff));
}

PG_AVX512 static void histogram(struct pg_buckets *b, const float *z, int32_t n, int above, uint32_t prefix, int shift) {
	const __m512i mask = _mm512_set1_epi32((1 << (above - shift)) - 1);
	for (int32_t i = 0; i < n; i += 16) {
		__mmask16 m = tail(i, n);
		__m512i key = keys(load(z + i, m));
		if (above < 32)
			m = _mm512_mask_cmpeq_epi32_mask(m, _mm512_srli_epi32(key, above), _mm512_set1_epi32((int)prefix));
		if (!m) continue;
		uint32_t at[16];
		_mm512_storeu_si512(at, _mm512_and_si512(_mm512_srli_epi32(key, shift), mask));
		for (uint32_t left = m; left; left &= left - 1) {
			int j = __builtin_ctz(left);
			b->copy[j % PG_COPIES][at[j]]++;
		}
	}
}

// product sets hi and lo to the halves of 16 products c · factor.
PG_INLINE void product(__m512i c, __m512i factor, __m512i *hi, __m512i *lo) {
	__m512i even = _mm512_mul_epu32(c, factor), odd = _mm512_mul_epu32(_mm512_srli_epi64(c, 32), factor);
	*hi = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
	*lo = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}

// philox is word 0 of kernels.Philox for 16 ids.
PG_INLINE __m512i philox(const struct pg_draw *d, __m512i id) {
	__m512i c0 = id, c1 = _mm512_set1_epi32(d->position), c2 = _mm512_set1_epi32(d->choice), c3 = _mm512_setzero_si512();
	uint32_t k0 = (uint32_t)d->seed, k1 = (uint32_t)(d->seed >> 32);
	for (int round = 0; round < 10; round++) {
		__m512i hi0, lo0, hi1, lo1;
		product(c0, _mm512_set1_epi32((int)0xD2511F53), &hi0, &lo0);
		product(c2, _mm512_set1_epi32((int)0xCD9E8D57), &hi1, &lo1);
		c0 = _mm512_xor_si512(_mm512_xor_si512(hi1, c1), _mm512_set1_epi32((int)k0));
		c1 = lo1;
		c2 = _mm512_xor_si512(_mm512_xor_si512(hi0, c3), _mm512_set1_epi32((int)k1));
		c3 = lo0;
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	return c0;
}

// draw is plain_draw of sample_plain.c, by whose bound few ids get an exact score.
PG_AVX512 static int32_t draw(const struct pg_draw *d) {
	int32_t best = d->first.id;
	double origin = (double)d->first.z / d->temperature, score = pg_score(d, d->first.z, best);
	const float slack = 1e-3f;
	const __m512 scale = _mm512_set1_ps(1 / d->temperature), max = _mm512_set1_ps(d->first.z);
	__m512 needed = _mm512_set1_ps((float)(score - origin) - slack);
	__m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	for (int32_t i = 0; i < d->n; i += 16, index = _mm512_add_epi32(index, _mm512_set1_epi32(16))) {
		__mmask16 m = tail(i, d->n);
		__m512 gap = _mm512_sub_ps(_mm512_mul_ps(_mm512_sub_ps(load(d->z + i, m), max), scale), needed);
		m = _mm512_cmp_ps_mask(gap, _mm512_set1_ps(-PG_GUMBEL_MAX), _CMP_GE_OQ);
		if (!m) continue;
		__m512i id = d->ids ? _mm512_maskz_loadu_epi32(m, d->ids + i) : index;
		__m512i x = _mm512_sub_epi32(_mm512_set1_epi32(1 << 24), _mm512_srli_epi32(philox(d, id), 8));
		__m512 bound = _mm512_mul_ps(_mm512_sub_ps(_mm512_cvtepi32_ps(x), _mm512_set1_ps(.5f)), _mm512_set1_ps(0x1p-24f));
		m = _mm512_mask_cmp_ps_mask(m, bound, pg_exp512(gap), _CMP_LE_OQ);
		for (uint32_t left = m; left; left &= left - 1) {
			int32_t j = i + __builtin_ctz(left), other = d->ids ? d->ids[j] : j;
			double s = pg_score(d, d->z[j], other);
			if (s > score || (s == score && other < best)) {
				score = s, best = other;
				needed = _mm512_set1_ps((float)(score - origin) - slack);
			}
		}
	}
	return best;
}

const struct pg_sample_passes pg_sample_avx512 = {
	largest, next_larger, count_larger, sum_exp, forbid, keep, group_maxima, histogram, draw,
};

#endif
