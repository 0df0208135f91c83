// RMSNorm (Zhang and Sennrich, 2019):
//
//   y[i] = x[i] / sqrt(mean(x²) + eps) · w[i],  float32, [tokens, hidden]
//
// The sum of squares is kept in 16 lanes, lane c over i ≡ c mod 16, and folded
// in one fixed order, so that a row's result depends on the row alone. A unit is
// a row, which is packed for the product that follows while it is at hand.
//
// Bytes moved: 8·n·hidden (read and write), 4·hidden of w. It is bound by the
// latency of a phase at one token and by the cache beyond.
#include <math.h>

#include "gemm.h"
#include "norm.h"

static void rmsnorm_scalar(const float *x, const float *w, float *y, int n, float eps) {
	pg_rmsnorm(x, w, y, n, eps);
}

#ifdef __x86_64__
static PG_AVX2 void rmsnorm_avx2(const float *x, const float *w, float *y, int n, float eps) {
	pg_rmsnorm(x, w, y, n, eps);
}

static PG_AVX512 void rmsnorm_avx512(const float *x, const float *w, float *y, int n, float eps) {
	pg_rmsnorm(x, w, y, n, eps);
}
#endif

static void norm_row(const struct pg_device *d, const float *x, const struct pg_weight *w, float *y) {
#ifdef __x86_64__
	if (d->isa >= PG_ISA_AVX512) return rmsnorm_avx512(x, w->bias, y, d->shape.hidden, d->shape.rms_eps);
	if (d->isa >= PG_ISA_AVX2) return rmsnorm_avx2(x, w->bias, y, d->shape.hidden, d->shape.rms_eps);
#endif
	rmsnorm_scalar(x, w->bias, y, d->shape.hidden, d->shape.rms_eps);
}

static void rmsnorm_phase(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                          int first, int count, int worker) {
	(void)s, (void)worker;
	int64_t ld = pg_stride(d->shape.hidden);
	for (int t = first; t < first + count; t++) {
		norm_row(d, d->hidden + t * ld, op->w, d->normed + t * ld);
		pg_pack_row(d, t, d->normed + t * ld, d->shape.hidden);
	}
}

void pg_rmsnorm_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	(void)d;
	pg_push(s, op, rmsnorm_phase, s->num_tokens, 32);
	s->normed_packed = true;
}

static void head_norm_phase(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                            int first, int count, int worker) {
	(void)worker;
	int64_t ld = pg_stride(d->shape.hidden);
	for (int i = first; i < first + count; i++)
		norm_row(d, d->hidden + s->logit_rows[i] * ld, op->norm, d->head_in + i * ld);
}

void pg_head_norm_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	(void)d;
	pg_push(s, op, head_norm_phase, s->num_logits, 32);
}
