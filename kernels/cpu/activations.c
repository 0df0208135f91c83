// Rows of activations as the matrix kernels take them, packed once before each
// product from the float32 activation, by norm.c where that is what comes before:
//
//   float32   as they are: no phase
//   bfloat16  rounded to nearest even, [k]
//   int8      groups of 32 k, 40 bytes each: 32 × q, scale, −128·Σ q
//             scale = max|x| / 127,  q = round(x / scale)
//
// A row's bytes depend on the row alone. What k lacks of a multiple of 64 is zero.
//
// Bytes moved: 4·n·k read, 2·n·k (1.25·n·k) written: under 1 % of a decode step
// of Qwen2.5-0.5B, 2 % of its prefill.
#include <math.h>
#include <string.h>

#include "gemm.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

static inline __attribute__((always_inline)) void to_bf16(const float *x, int k, char *out) {
	uint16_t *y = (uint16_t *)out;
	for (int i = 0; i < k; i++) { // pg_to_bf16 without branches
		union { float f; uint32_t u; } v = {x[i]};
		uint32_t rounded = (v.u + 0x7FFF + ((v.u >> 16) & 1)) >> 16, nan = v.u >> 16 | 0x40;
		y[i] = (uint16_t)((v.u & 0x7FFFFFFF) > 0x7F800000 ? nan : rounded);
	}
}

// to_int8 packs n ≤ 32 values, none at all too, into a group. A NaN or an infinity makes the scale
// NaN, and so every output of the row.
static inline __attribute__((always_inline)) void to_int8(const float *x, int n, char *out) {
	float v[PG_GROUP] = {0}, max[16] = {0}, spoiled = 0;
	int8_t q[PG_GROUP];
	int32_t sum = 0;
	memcpy(v, x, n * sizeof *v);
	for (int i = 0; i < PG_GROUP; i += 16)
		for (int c = 0; c < 16; c++) {
			float a = fabsf(v[i + c]);
			max[c] = a > max[c] ? a : max[c];
		}
	for (int i = 0; i < PG_GROUP; i++) spoiled += v[i] * 0; // 0, or NaN
	for (int half = 8; half > 0; half /= 2)
		for (int c = 0; c < half; c++) max[c] = max[c + half] > max[c] ? max[c + half] : max[c];
	float scale = max[0] / 127 + spoiled, inverse = max[0] > 0 && spoiled == 0 ? 127 / max[0] : 0;
	if (!(inverse < INFINITY)) scale = inverse = 0; // denormals
	for (int i = 0; i < PG_GROUP; i++) {
		float r = v[i] * inverse;
		q[i] = spoiled == 0 ? (int8_t)(int32_t)(r + (r < 0 ? -.5f : .5f)) : 0;
		sum += q[i];
	}
	sum *= -128;
	memcpy(out, q, PG_GROUP);
	memcpy(out + PG_GROUP, &scale, 4);
	memcpy(out + PG_GROUP + 4, &sum, 4);
}

static inline __attribute__((always_inline)) void pack_row(enum pg_rows_format format, const float *x, int k, char *out) {
	if (format == PG_ROWS_BF16) return to_bf16(x, k, out);
	for (int i = 0; i < (k + 63) / 64 * 64; i += PG_GROUP, out += PG_GROUP + 8) {
		int n = k - i < PG_GROUP ? k - i : PG_GROUP;
		to_int8(x + i, n > 0 ? n : 0, out);
	}
}

typedef void (*pack_fn)(enum pg_rows_format format, const float *x, int k, char *out);

static void pack_scalar(enum pg_rows_format format, const float *x, int k, char *out) { pack_row(format, x, k, out); }

#ifdef __x86_64__
static PG_AVX2 void pack_avx2(enum pg_rows_format format, const float *x, int k, char *out) {
	pack_row(format, x, k, out);
}

static PG_AVX512 void pack_avx512(enum pg_rows_format format, const float *x, int k, char *out) {
	pack_row(format, x, k, out);
}

static PG_AVX512BF16 void pack_avx512bf16(enum pg_rows_format format, const float *x, int k, char *out) {
	int i = 0;
	if (format != PG_ROWS_BF16) return pack_row(format, x, k, out);
	for (; i + 32 <= k; i += 32) {
		__m512 hi = _mm512_loadu_ps(x + i + 16), lo = _mm512_loadu_ps(x + i);
		_mm512_storeu_si512(out + 2 * i, (__m512i)_mm512_cvtne2ps_pbh(hi, lo));
	}
	to_bf16(x + i, k - i, out + 2 * i);
}
#endif

static pack_fn pack_of(const struct pg_device *d) {
#ifdef __x86_64__
	if (d->isa >= PG_ISA_AVX512BF16) return pack_avx512bf16;
	if (d->isa >= PG_ISA_AVX512) return pack_avx512;
	if (d->isa >= PG_ISA_AVX2) return pack_avx2;
#endif
	(void)d;
	return pack_scalar;
}

void pg_pack_row(const struct pg_device *d, int t, const float *x, int k) {
	enum pg_rows_format format = pg_format_of(d);
	if (format != PG_ROWS_F32) pack_of(d)(format, x, k, d->packed + t * pg_packed_stride(format, k));
}

static void pack_phase(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                       int first, int count, int worker) {
	(void)worker;
	int n, k = op->w->cols;
	const float *x = pg_input(d, s, op, &n);
	for (int t = first; t < first + count; t++) pg_pack_row(d, t, x + t * pg_stride(k), k);
}

void pg_pack_rows_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                       enum pg_rows_format format, int n) {
	int count;
	if (format == PG_ROWS_F32) return;
	if (s->normed_packed && pg_input(d, s, op, &count) == d->normed) return;
	s->normed_packed = false;
	pg_push(s, op, pack_phase, n, 32);
}
