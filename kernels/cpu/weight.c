// Packing of weights (see weight.h) from the checkpoint's rows, in parallel, one
// panel a unit. bfloat16 is copied as it is; float16 and float32 are rounded to
// nearest even, biases and norms stay float32; without data, values are made by
// kernels.Dummy's formula.
//
// Bytes moved: each source once, each packed weight once.
#define _GNU_SOURCE

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "device.h"

enum { BF16, FP16, FP32 }; // kernels.DType

static float from_fp16(uint16_t h) {
	union { uint32_t u; float f; } v;
	uint32_t sign = (uint32_t)(h >> 15) << 31, exp = (h >> 10) & 31, frac = h & 1023;
	if (exp == 31) {
		v.u = sign | 0xFFu << 23 | frac << 13;
	} else if (exp == 0) {
		v.f = (float)frac / (1 << 24);
		v.u |= sign;
	} else {
		v.u = sign | (exp + 112) << 23 | frac << 13;
	}
	return v.f;
}

// dummy is kernels.Dummy(seed, i)·scale + offset, rounded after each operation
// as Go does: contraction to a fused multiply-add would give other bits.
__attribute__((optimize("fp-contract=off")))
static uint16_t dummy(uint64_t seed, uint64_t i, float scale, float offset) {
	uint64_t z = seed + (i + 1) * 0x9E3779B97F4A7C15u;
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
	z ^= z >> 31;
	float u = (float)((int32_t)(z >> 40) - (1 << 23)) / (1 << 23);
	return pg_to_bf16(u * scale + offset);
}

// fetch reads n elements of the source from element i on, as bfloat16.
static void fetch(const struct pg_source *src, int64_t i, int n, uint16_t *out) {
	if (!src->data) {
		for (int k = 0; k < n; k++) out[k] = dummy(src->seed, i + k, src->scale, src->offset);
		return;
	}
	switch (src->dtype) {
	case BF16:
		memcpy(out, (const uint16_t *)src->data + i, n * sizeof *out);
		return;
	case FP16:
		for (int k = 0; k < n; k++) {
			uint16_t h;
			memcpy(&h, (const char *)src->data + (i + k) * 2, 2);
			out[k] = pg_to_bf16(from_fp16(h));
		}
		return;
	default:
		for (int k = 0; k < n; k++) {
			float f;
			memcpy(&f, (const char *)src->data + (i + k) * 4, 4);
			out[k] = pg_to_bf16(f);
		}
	}
}

// fetch_float reads element i without rounding it.
static float fetch_float(const struct pg_source *src, int64_t i) {
	if (src->data && src->dtype == FP32) {
		float f;
		memcpy(&f, (const char *)src->data + i * 4, 4);
		return f;
	}
	if (src->data && src->dtype == FP16) {
		uint16_t h;
		memcpy(&h, (const char *)src->data + i * 2, 2);
		return from_fp16(h);
	}
	uint16_t b;
	fetch(src, i, 1, &b);
	return pg_from_bf16(b);
}

struct packing {
	struct pg_weight *w;
	const struct pg_source *sources;
};

// pack_panel gathers 32 rows, CHUNK columns at a time, and transposes them.
static void pack_panel(const struct packing *p, int panel) {
	enum { CHUNK = 64 };
	const struct pg_weight *w = p->w;
	uint16_t rows[PG_COLUMNS][CHUNK];
	const struct pg_source *src[PG_COLUMNS];
	int64_t row[PG_COLUMNS];
	for (int lane = 0; lane < PG_COLUMNS; lane++) {
		row[lane] = pg_weight_row(w, panel, lane % 2, lane / 2);
		src[lane] = p->sources;
		for (; row[lane] >= src[lane]->rows; src[lane]++) row[lane] -= src[lane]->rows;
	}
	memset(rows, 0, sizeof rows);
	uint16_t *line = w->data + (int64_t)panel * w->cols * PG_COLUMNS;
	for (int k = 0; k < w->cols; k += CHUNK) {
		int n = w->cols - k < CHUNK ? w->cols - k : CHUNK;
		for (int lane = 0; lane < PG_COLUMNS; lane++)
			if (row[lane] >= 0) fetch(src[lane], row[lane] * w->cols + k, n, rows[lane]);
		for (int i = 0; i < n; i++, line += PG_COLUMNS)
			for (int lane = 0; lane < PG_COLUMNS; lane++) line[lane] = rows[lane][i];
	}
}

static void pack_phase(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                       int first, int count, int worker) {
	(void)d, (void)s, (void)worker;
	const struct packing *p = op->arg;
	for (int u = first; u < first + count; u++) {
		if (p->w->layout == PG_ROWS)
			fetch(p->sources, (int64_t)u * p->w->cols, p->w->cols, p->w->data + (int64_t)u * p->w->cols);
		else
			pack_panel(p, u);
	}
}

void pg_pack_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	(void)d;
	const struct packing *p = op->arg;
	bool rows = p->w->layout == PG_ROWS;
	pg_push(s, op, pack_phase, rows ? p->w->rows : p->w->panels, rows ? 64 : 16);
}

// pack_bias lays one vector a source out as rows of the weight are.
static void pack_bias(struct pg_weight *w, const struct pg_source *sources) {
	for (int p = 0; p < w->panels; p++) {
		for (int c = 0; c < PG_COLUMNS; c++) {
			int64_t row = pg_weight_row(w, p, c / 16, c % 16);
			if (row < 0) continue; // stays zero
			const struct pg_source *src = sources;
			for (; row >= src->rows; src++) row -= src->rows;
			w->bias[p * PG_COLUMNS + c] = fetch_float(src, row);
		}
	}
}

// pg_weight_new: memory is mapped, not malloc'ed: it is whole huge pages, which
// spares a page walk every 64 cache lines of a stream.
struct pg_weight *pg_weight_new(const struct pg_device *d, int layout, int cols, int head_dim, int num,
                                const struct pg_source *sources, const struct pg_source *bias_sources) {
	struct pg_weight *w = calloc(1, sizeof *w);
	if (!w) return NULL;
	w->layout = layout;
	w->cols = cols;
	w->head_dim = head_dim;
	for (int i = 0; i < num; i++) w->rows += sources[i].rows;
	w->panels = layout == PG_ROWS || layout == PG_VECTOR ? 0 : pg_weight_panels(w);

	int64_t elems = layout == PG_ROWS ? (int64_t)w->rows * cols : (int64_t)w->panels * PG_COLUMNS * cols;
	int64_t floats = layout == PG_VECTOR ? w->rows : bias_sources ? (int64_t)w->panels * PG_COLUMNS : 0;
	int64_t offset = (elems * 2 + 63) / 64 * 64;
	w->bytes = offset + (floats * 4 + 63) / 64 * 64;
	void *data = mmap(NULL, w->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (data == MAP_FAILED) {
		int err = errno;
		free(w);
		errno = err;
		return NULL;
	}
	if (w->bytes >= 2 << 20) madvise(data, w->bytes, MADV_HUGEPAGE);
	w->data = data;
	if (floats > 0) w->bias = (float *)((char *)data + offset);

	if (layout == PG_VECTOR) {
		for (int i = 0; i < w->rows; i++) w->bias[i] = fetch_float(sources, i);
		return w;
	}
	struct packing p = {w, sources};
	struct pg_op op = {.kind = PG_PACK, .layer = -1, .arg = &p};
	pg_run_op(d, &op);
	if (bias_sources) pack_bias(w, bias_sources);
	return w;
}

void pg_weight_free(struct pg_weight *w) {
	munmap(w->data, w->bytes);
	free(w);
}
