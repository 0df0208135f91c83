// The RMSNorm of one row, for every path that has no version of its own.
#ifndef PAGODA_NORM_H
#define PAGODA_NORM_H

#include <math.h>

// pg_rmsnorm writes x · w / √(mean(x²) + eps) to y, which may be x. Sixteen partial
// sums, added in halves: the order of every path, so that the compiler may use the
// vectors of whoever inlines it.
static inline __attribute__((always_inline)) void pg_rmsnorm(const float *x, const float *w, float *y, int n, float eps) {
	float sum[16] = {0};
	int i = 0;
	for (; i + 16 <= n; i += 16)
		for (int c = 0; c < 16; c++) sum[c] += x[i + c] * x[i + c];
	for (int c = 0; i + c < n; c++) sum[c] += x[i + c] * x[i + c];
	for (int half = 8; half > 0; half /= 2)
		for (int c = 0; c < half; c++) sum[c] += sum[c + half];
	float scale = 1 / sqrtf(sum[0] / n + eps);
	for (i = 0; i < n; i++) y[i] = x[i] * scale * w[i];
}

#endif
