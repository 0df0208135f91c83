// The passes of sample.c over all ids, 8 at a time; the others, which see few
// candidates, are the plain ones.
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

PG_AVX2 static double exponentials(float *w, const float *z, int32_t n, float max, float scale) {
	__m256d lo = _mm256_setzero_pd(), hi = lo;
	for (int32_t i = 0; i < n; i += 8) {
		float in[8] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY}, out[8];
		int32_t left = n - i < 8 ? n - i : 8;
		const float *from = z + i;
		if (left < 8) {
			for (int c = 0; c < left; c++) in[c] = z[i + c];
			from = in;
		}
		__m256 e = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(from), _mm256_set1_ps(max)), _mm256_set1_ps(scale));
		e = pg_exp256(e);
		if (w && left == 8) _mm256_storeu_ps(w + i, e);
		if (w && left < 8) {
			_mm256_storeu_ps(out, e);
			for (int c = 0; c < left; c++) w[i + c] = out[c];
		}
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

const struct pg_sample_passes pg_sample_avx2 = {
	largest, next_larger, pg_plain_count_larger, exponentials, pg_plain_forbid, pg_plain_keep, pg_plain_group_maxima,
	pg_plain_histogram, pg_plain_draw,
};

#endif
