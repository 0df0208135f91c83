// The epilogue of the QKV projection: bias, RoPE, and the write to Query and to
// the KV pool.
//
//   y += bias
//   query, key:  y ← y / sqrt(mean(y²) + eps) · w, over a head, where there is a norm
//   query, key:  (y[i], y[i+h]) ← (y[i]·cos − y[i+h]·sin, y[i+h]·cos + y[i]·sin)
//                h = headDim/2, i < h; cos and sin of position · InvFreq[i], by
//                RopeScale (Su et al., RoFormer, 2021; the half-split pairing of
//                the Hugging Face checkpoints)
//
// A panel of a weight with layout qkv holds 16 pairs (i, i+h) of one head as its
// two halves (weight.h), so the rotation needs no other panel. Keys and values
// are rounded to float16 and go to the slot of their token.
//
// With a norm, a head is more than a panel, so queries and keys are left in Query
// and Attn as they are, in float32, and a phase behind the product normalizes,
// rotates and writes them, a token a unit. The sum of squares has one fixed order.
//
// An angle is a float32 product, as the checkpoints were trained with (at position
// 131,072 it differs by up to 2⁻⁸ radians from the exact one); its cosine and
// sine are exact to float32. They are made once a step.
//
// Bytes moved: 4·n·heads·headDim of queries written, 4·n·kvHeads·headDim of
// keys and values (2 bytes each), 4·n·headDim of cos and sin a head, from cache.
#include <math.h>

#include "gemm.h"
#include "norm.h"

#ifdef __x86_64__
#include "avx512.h"
#endif

static void angles_phase(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                         int first, int count, int worker) {
	(void)op, (void)worker;
	int h = d->shape.head_dim / 2;
	for (int t = first; t < first + count; t++) {
		float *rope = s->rope + (int64_t)t * d->shape.head_dim;
		for (int i = 0; i < h; i++) {
			double angle = (float)s->positions[t] * d->inv_freq[i];
			rope[i] = (float)(cos(angle) * d->shape.rope_scale);
			rope[h + i] = (float)(sin(angle) * d->shape.rope_scale);
		}
	}
}

static void norm_phase(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                       int first, int count, int worker);

void pg_qkv_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	if (!s->angles_planned) pg_push(s, op, angles_phase, s->num_tokens, 16);
	s->angles_planned = true;
	pg_gemm_plan(d, s, op);
	if (op->w->norms) pg_push(s, op, norm_phase, s->num_tokens, 8);
}

// dest says where a head of a token goes.
struct dest {
	float *query;  // NULL for keys and values
	uint16_t *kv;
};

static struct dest dest_of(const struct pg_device *d, const struct pg_step *s, int layer, int head, int token) {
	const struct pg_shape *m = &d->shape;
	if (head < m->heads) {
		float *q = d->query + token * pg_stride((int64_t)m->heads * m->head_dim);
		return (struct dest){.query = q + head * m->head_dim};
	}
	int kv_head = head - m->heads;
	int64_t value = 0;
	if (kv_head >= m->kv_heads) {
		kv_head -= m->kv_heads;
		value = d->kv.value;
	}
	int size = d->limits.block_size, slot = s->slots[token];
	return (struct dest){.kv = d->kv_blocks + slot / size * d->kv.block + layer * d->kv.layer + value +
	                           kv_head * d->kv.head + slot % size * d->kv.token};
}

// finish handles n ≤ 16 pairs: a and b with bias, rotated if rope is not NULL
// (rope: cos, and h further on sin), to elements i and h+i of dest.
static inline __attribute__((always_inline)) void finish(const float *tile, const float *bias,
                                                         const float *rope, struct dest to, int h, int i, int n,
                                                         pg_to_fp16_fn to_fp16) {
	float a[16], b[16];
	for (int c = 0; c < 16; c++) {
		a[c] = tile[c];
		b[c] = tile[16 + c];
	}
	if (bias) {
		for (int c = 0; c < 16; c++) {
			a[c] += bias[c];
			b[c] += bias[16 + c];
		}
	}
	if (rope) {
		for (int c = 0; c < n; c++) {
			float cos = rope[i + c], sin = rope[h + i + c], x = a[c], y = b[c];
			a[c] = x * cos - y * sin;
			b[c] = y * cos + x * sin;
		}
	}
	if (!to.query) {
		to_fp16(a, n, to.kv + i);
		to_fp16(b, n, to.kv + h + i);
		return;
	}
	for (int c = 0; c < n; c++) {
		to.query[i + c] = a[c];
		to.query[h + i + c] = b[c];
	}
}

typedef void (*finish_fn)(const float *tile, const float *bias, const float *rope, struct dest to, int h, int i, int n);

static void finish_scalar(const float *tile, const float *bias, const float *rope, struct dest to, int h, int i,
                          int n) {
	finish(tile, bias, rope, to, h, i, n, pg_to_fp16);
}

#ifdef __x86_64__
// The compiler vectorizes the whole panels, which are the rule.
#define FINISH(NAME, TARGET, HALF)                                                                                 \
	static TARGET void NAME(const float *tile, const float *bias, const float *rope, struct dest to, int h, int i, \
	                        int n) {                                                                               \
		if (n == 16)                                                                                               \
			finish(tile, bias, rope, to, h, i, 16, HALF);                                                          \
		else                                                                                                       \
			finish(tile, bias, rope, to, h, i, n, HALF);                                                           \
	}
FINISH(finish_avx2, PG_AVX2, pg_to_fp16_avx2)
FINISH(finish_avx512, PG_AVX512, pg_to_fp16_avx512)
#endif

static finish_fn finish_of(const struct pg_device *d) {
#ifdef __x86_64__
	if (d->isa >= PG_ISA_AVX512) return finish_avx512;
	if (d->isa >= PG_ISA_AVX2) return finish_avx2;
#endif
	(void)d;
	return finish_scalar;
}

// raw_head is where a query or key head waits for its norm.
static float *raw_head(const struct pg_device *d, int head, int token) {
	const struct pg_shape *m = &d->shape;
	int64_t at = token * pg_stride((int64_t)m->heads * m->head_dim);
	if (head < m->heads) return d->query + at + head * m->head_dim;
	return d->attn + at + (head - m->heads) * m->head_dim;
}

// norm_head normalizes and rotates a head in place.
static inline __attribute__((always_inline)) void norm_head(float *x, const float *w, const float *rope, int n, float eps) {
	int h = n / 2;
	pg_rmsnorm(x, w, x, n, eps);
	for (int i = 0; i < h; i++) {
		float cos = rope[i], sin = rope[h + i], a = x[i], b = x[h + i];
		x[i] = a * cos - b * sin;
		x[h + i] = b * cos + a * sin;
	}
}

typedef void (*norm_fn)(float *x, const float *w, const float *rope, int n, float eps);

static void norm_scalar(float *x, const float *w, const float *rope, int n, float eps) { norm_head(x, w, rope, n, eps); }

#ifdef __x86_64__
static PG_AVX2 void norm_avx2(float *x, const float *w, const float *rope, int n, float eps) { norm_head(x, w, rope, n, eps); }
static PG_AVX512 void norm_avx512(float *x, const float *w, const float *rope, int n, float eps) { norm_head(x, w, rope, n, eps); }
#endif

static norm_fn norm_of(const struct pg_device *d) {
#ifdef __x86_64__
	if (d->isa >= PG_ISA_AVX512) return norm_avx512;
	if (d->isa >= PG_ISA_AVX2) return norm_avx2;
#endif
	(void)d;
	return norm_scalar;
}

static pg_to_fp16_fn to_fp16_of(const struct pg_device *d) {
#ifdef __x86_64__
	if (d->isa >= PG_ISA_AVX512) return pg_to_fp16_avx512;
	if (d->isa >= PG_ISA_AVX2) return pg_to_fp16_avx2;
#endif
	(void)d;
	return pg_to_fp16;
}

static void norm_phase(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                       int first, int count, int worker) {
	(void)worker;
	const struct pg_shape *m = &d->shape;
	norm_fn norm = norm_of(d);
	pg_to_fp16_fn to_fp16 = to_fp16_of(d);
	for (int t = first; t < first + count; t++) {
		for (int head = 0; head < m->heads + m->kv_heads; head++) {
			float *x = raw_head(d, head, t);
			bool key = head >= m->heads;
			norm(x, op->w->norms + (key ? m->head_dim : 0), s->rope + (int64_t)t * m->head_dim, m->head_dim, m->rms_eps);
			if (!key) continue;
			uint16_t *kv = dest_of(d, s, op->layer, head, t).kv;
			to_fp16(x, m->head_dim, kv);
		}
	}
}

void pg_qkv_epilogue(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                     const float *tile, int row0, int rows, int panel) {
	const struct pg_shape *m = &d->shape;
	int h = m->head_dim / 2, per = pg_head_panels(m->head_dim);
	int head = panel / per, i = panel % per * 16, n = h - i < 16 ? h - i : 16;
	const float *bias = op->w->bias ? op->w->bias + panel * PG_COLUMNS : NULL;
	finish_fn finish_row = finish_of(d);
	bool rotate = head < m->heads + m->kv_heads;
	bool raw = rotate && op->w->norms; // norm_phase has the rest
	for (int r = 0; r < rows; r++) {
		int token = row0 + r;
		const float *rope = rotate && !raw ? s->rope + (int64_t)token * m->head_dim : NULL;
		struct dest to = raw ? (struct dest){.query = raw_head(d, head, token)} : dest_of(d, s, op->layer, head, token);
		finish_row(tile + r * PG_COLUMNS, bias, rope, to, h, i, n);
	}
}
