// Packing of weights (see weight.h) from the checkpoint's rows, in parallel, one panel a
// unit: a transpose of 32-bit values. A panel in a file is read at once and stays in the
// thread's cache. bfloat16 is copied as it is; float16 and float32 are rounded to nearest
// even, biases and norms stay float32; without data, kernels.Dummy's formula makes values.
//
// Bytes moved: each source once, each packed weight once (a file's also from the page
// cache to the thread's own).
#define _GNU_SOURCE

#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "pool.h"

#ifdef __x86_64__
#include "avx512.h"
#endif

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

static int64_t element_bytes(const struct pg_source *src) { return src->dtype == FP32 ? 4 : 2; }

struct packing {
	struct pg_weight *w;
	const struct pg_source *sources;
	char *buffers; // one a worker, for rows in files; NULL: there are none
	int64_t buffer_bytes;
	_Atomic int *unreadable; // a source whose file cannot be read; −1: none
};

// read_file reads all of a range; false: it cannot.
static bool read_file(int fd, char *out, int64_t bytes, int64_t at) {
	while (bytes > 0) {
		ssize_t n = pread(fd, out, bytes, at);
		if (n < 0 && errno == EINTR) continue;
		if (n <= 0) return false;
		out += n, at += n, bytes -= n;
	}
	return true;
}

// The rows of a panel: where each output's values come from.
struct panel_rows {
	const struct pg_source *src[PG_COLUMNS];
	int64_t row[PG_COLUMNS]; // of src; −1: the output does not exist
};

static struct panel_rows rows_of(const struct packing *p, int panel) {
	struct panel_rows r;
	for (int c = 0; c < PG_COLUMNS; c++) {
		r.row[c] = pg_weight_row(p->w, panel, c / 16, c % 16);
		r.src[c] = p->sources;
		for (; r.row[c] >= r.src[c]->rows; r.src[c]++) r.row[c] -= r.src[c]->rows;
	}
	return r;
}

// read_rows reads the rows of a panel that lie in files into a buffer and points r at
// them through held, one source a run of neighbours.
static bool read_rows(const struct packing *p, struct panel_rows *r, struct pg_source held[PG_COLUMNS], char *buffer) {
	for (int c = 0, next; c < PG_COLUMNS; c = next) {
		const struct pg_source *src = r->src[c];
		int64_t row = r->row[c];
		for (next = c + 1; next < PG_COLUMNS && row >= 0 && r->src[next] == src && r->row[next] == row + next - c;) next++;
		if (row < 0 || src->data || src->fd < 0) continue;
		int64_t bytes = p->w->cols * element_bytes(src), all = (next - c) * bytes;
		if (!read_file(src->fd, buffer, all, src->at + row * bytes)) {
			*p->unreadable = (int)(src - p->sources);
			return false;
		}
		held[c] = (struct pg_source){.data = buffer, .dtype = src->dtype, .fd = -1, .rows = next - c};
		for (int i = c; i < next; i++) r->src[i] = &held[c], r->row[i] = i - c;
		buffer += (all + 63) / 64 * 64;
	}
	return true;
}

// transpose writes steps steps of a panel: 32-bit value i of row c becomes lane c
// of step i. The rows may be read up to 16 values at a time, but not beyond steps.
static void transpose(const char *const rows[PG_COLUMNS], int steps, char *out) {
	for (int i = 0; i < steps; i++, out += PG_STEP_BYTES)
		for (int c = 0; c < PG_COLUMNS; c++) memcpy(out + 4 * c, rows[c] + 4 * i, 4);
}

#ifdef __x86_64__
// The stores bypass the caches: a line that is written whole need not be read.
static PG_AVX512 void transpose_avx512(const char *const rows[PG_COLUMNS], int steps, char *out) {
	int i = 0;
	for (; i + 16 <= steps; i += 16, out += 16 * PG_STEP_BYTES) {
		__m512i a[16], b[16];
		for (int c = 0; c < 16; c++) {
			a[c] = _mm512_loadu_si512(rows[c] + 4 * i);
			b[c] = _mm512_loadu_si512(rows[16 + c] + 4 * i);
			_mm_prefetch(rows[c] + 4 * i + 512, _MM_HINT_T0);
			_mm_prefetch(rows[16 + c] + 4 * i + 512, _MM_HINT_T0);
		}
		pg_transpose512(a);
		pg_transpose512(b);
		for (int k = 0; k < 16; k++) {
			_mm512_stream_si512((void *)(out + k * PG_STEP_BYTES), a[k]);
			_mm512_stream_si512((void *)(out + k * PG_STEP_BYTES + 64), b[k]);
		}
	}
	_mm_sfence();
	const char *rest[PG_COLUMNS];
	for (int c = 0; c < PG_COLUMNS; c++) rest[c] = rows[c] + 4 * i;
	transpose(rest, steps - i, out);
}
#endif

static void transpose_by(const struct pg_device *d, const char *const rows[PG_COLUMNS], int steps, char *out) {
#ifdef __x86_64__
	if (d->isa >= PG_ISA_AVX512) return transpose_avx512(rows, steps, out);
#endif
	(void)d;
	transpose(rows, steps, out);
}

// pack_stored packs a panel whose rows all exist as bfloat16, straight from them.
static bool pack_stored(const struct pg_device *d, const struct pg_weight *w, const struct panel_rows *r, char *out) {
	const char *rows[PG_COLUMNS];
	for (int c = 0; c < PG_COLUMNS; c++) {
		if (r->row[c] < 0 || !r->src[c]->data || r->src[c]->dtype != BF16) return false;
		rows[c] = (const char *)r->src[c]->data + r->row[c] * w->cols * 2;
	}
	transpose_by(d, rows, w->steps, out);
	return true;
}

enum { CHUNK = 64 }; // columns at a time that are fetched from rows of any kind

// largest is the greatest |w| of a row. As integers, magnitudes have the order of
// their bits, and a NaN is the greatest.
static float largest(const struct pg_source *src, int64_t row, int cols) {
	int16_t max = 0;
	uint16_t chunk[CHUNK];
	for (int k = 0; k < cols; k += CHUNK) {
		int n = cols - k < CHUNK ? cols - k : CHUNK;
		fetch(src, row * cols + k, n, chunk);
		for (int i = 0; i < n; i++) {
			int16_t bits = chunk[i] & 0x7FFF;
			max = bits > max ? bits : max;
		}
	}
	return pg_from_bf16((uint16_t)max);
}

// pack_int8 reads each row twice: for its scale, and for its values.
static void pack_int8(const struct pg_device *d, const struct pg_weight *w, const struct panel_rows *r, int panel, char *out) {
	float inverse[PG_COLUMNS] = {0};
	float *scales = w->scales + panel * PG_COLUMNS;
	for (int c = 0; c < PG_COLUMNS; c++) {
		float max = r->row[c] < 0 ? 0 : largest(r->src[c], r->row[c], w->cols);
		scales[c] = max / 127;
		inverse[c] = scales[c] > 0 && scales[c] < INFINITY ? 1 / scales[c] : 0;
		if (inverse[c] == INFINITY) scales[c] = inverse[c] = 0; // denormals
	}
	uint16_t chunk[CHUNK];
	uint8_t q[PG_COLUMNS][CHUNK];
	const char *rows[PG_COLUMNS];
	memset(q, 128, sizeof q);
	for (int c = 0; c < PG_COLUMNS; c++) rows[c] = (const char *)q[c];
	for (int k = 0; k < w->cols; k += CHUNK, out += CHUNK / 4 * PG_STEP_BYTES) {
		int n = w->cols - k < CHUNK ? w->cols - k : CHUNK;
		for (int c = 0; c < PG_COLUMNS; c++) {
			if (r->row[c] < 0) continue;
			fetch(r->src[c], r->row[c] * w->cols + k, n, chunk);
			for (int i = 0; i < n; i++) q[c][i] = (uint8_t)(int32_t)(pg_from_bf16(chunk[i]) * inverse[c] + 128.5f);
			for (int i = n; i < CHUNK; i++) q[c][i] = 128;
		}
		transpose_by(d, rows, CHUNK / 4, out);
	}
}

static void pack_panel(const struct pg_device *d, const struct packing *p, int panel, int worker) {
	const struct pg_weight *w = p->w;
	struct panel_rows r = rows_of(p, panel);
	struct pg_source held[PG_COLUMNS];
	if (p->buffers && !read_rows(p, &r, held, p->buffers + worker * p->buffer_bytes)) return;
	char *out = w->data + panel * pg_panel_bytes(w);
	if (w->int8) {
		pack_int8(d, w, &r, panel, out);
		return;
	}
	if (pack_stored(d, w, &r, out)) return;
	uint16_t chunk[PG_COLUMNS][CHUNK];
	const char *rows[PG_COLUMNS];
	memset(chunk, 0, sizeof chunk);
	for (int c = 0; c < PG_COLUMNS; c++) rows[c] = (const char *)chunk[c];
	for (int k = 0; k < w->cols; k += CHUNK, out += CHUNK / 2 * PG_STEP_BYTES) {
		int n = w->cols - k < CHUNK ? w->cols - k : CHUNK;
		for (int c = 0; c < PG_COLUMNS; c++)
			if (r.row[c] >= 0) fetch(r.src[c], r.row[c] * w->cols + k, n, chunk[c]);
		transpose_by(d, rows, n / 2, out);
	}
}

// copy_rows fills rows [first, first + count) of PG_ROWS.
static void copy_rows(const struct packing *p, int64_t first, int count, int worker) {
	struct pg_source src = *p->sources;
	int64_t cols = p->w->cols, bytes = cols * element_bytes(&src);
	uint16_t *out = (uint16_t *)p->w->data + first * cols;
	if (src.data || src.fd < 0) {
		for (int i = 0; i < count; i++) fetch(&src, (first + i) * cols, cols, out + i * cols);
		return;
	}
	int at_once = src.dtype == BF16 ? count : 1;
	char *rows = src.dtype == BF16 ? (char *)out : p->buffers + worker * p->buffer_bytes;
	src.data = rows;
	for (int i = 0; i < count; i += at_once) {
		if (!read_file(src.fd, rows, at_once * bytes, src.at + (first + i) * bytes)) {
			*p->unreadable = 0;
			return;
		}
		if (src.dtype != BF16) fetch(&src, 0, cols, out + i * cols);
	}
}

static void pack_phase(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                       int first, int count, int worker) {
	(void)s;
	const struct packing *p = op->arg;
	if (p->w->layout == PG_ROWS) {
		copy_rows(p, first, count, worker);
		return;
	}
	for (int u = first; u < first + count; u++) pack_panel(d, p, u, worker);
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

// pack fills w from the sources; false: a file cannot be read, or there is no memory.
static bool pack(const struct pg_device *d, struct pg_weight *w, const struct pg_source *sources, int num, int *failed) {
	_Atomic int unreadable = -1;
	struct packing p = {.w = w, .sources = sources, .unreadable = &unreadable};
	int64_t element = 0; // bytes of the largest that is read into a buffer
	for (int i = 0; i < num; i++) {
		if (sources[i].data || sources[i].fd < 0 || (w->layout == PG_ROWS && sources[i].dtype == BF16)) continue;
		if (element < element_bytes(sources + i)) element = element_bytes(sources + i);
	}
	p.buffer_bytes = (w->layout == PG_ROWS ? 1 : PG_COLUMNS) * (w->cols * element + 64);
	if (element > 0 && !(p.buffers = malloc(p.buffer_bytes * d->threads))) return false;
	struct pg_op op = {.kind = PG_PACK, .layer = -1, .arg = &p};
	pg_run_op(d, &op);
	free(p.buffers);
	*failed = unreadable;
	if (unreadable >= 0) errno = EIO;
	return unreadable < 0;
}

// give_up frees w and keeps errno.
static struct pg_weight *give_up(struct pg_weight *w) {
	int err = errno;
	free(w);
	errno = err;
	return NULL;
}

struct pg_weight *pg_weight_new(struct pg_device *d, int layout, int cols, int head_dim, int num,
                                const struct pg_source *sources, const struct pg_source *bias_sources,
                                const struct pg_source *norm_sources, int *unreadable) {
	struct pg_weight *w = calloc(1, sizeof *w);
	if (!w) return NULL;
	w->layout = layout;
	w->cols = cols;
	w->head_dim = head_dim;
	for (int i = 0; i < num; i++) w->rows += sources[i].rows;
	bool packed = layout != PG_ROWS && layout != PG_VECTOR;
	w->panels = packed ? pg_weight_panels(w) : 0;
	w->int8 = packed && d->int8;
	w->steps = w->int8 ? (cols + CHUNK - 1) / CHUNK * (CHUNK / 4) : cols / 2;

	int64_t outputs = (int64_t)w->panels * PG_COLUMNS;
	int64_t floats = layout == PG_VECTOR ? w->rows : bias_sources ? outputs : 0;
	int64_t offset = (packed ? w->panels * pg_panel_bytes(w) : layout == PG_ROWS ? (int64_t)w->rows * cols * 2 : 0);
	offset = (offset + 63) / 64 * 64;
	int64_t norms = offset + (floats * 4 + 63) / 64 * 64;
	w->bytes = norms + (norm_sources ? (2 * (int64_t)head_dim * 4 + 63) / 64 * 64 : 0) + (w->int8 ? outputs * 4 : 0);
	w->data = pg_weights_take(d, w->bytes);
	if (!w->data) return give_up(w);
	if (floats > 0) w->bias = (float *)(w->data + offset);
	if (norm_sources) {
		w->norms = (float *)(w->data + norms);
		for (int i = 0; i < 2 * head_dim; i++) w->norms[i] = fetch_float(norm_sources + i / head_dim, i % head_dim);
	}
	if (w->int8) w->scales = (float *)(w->data + w->bytes) - outputs;

	if (layout == PG_VECTOR) {
		for (int i = 0; i < w->rows; i++) w->bias[i] = fetch_float(sources, i);
		return w;
	}
	if (!pack(d, w, sources, num, unreadable)) return give_up(w);
	if (bias_sources) pack_bias(w, bias_sources);
	return w;
}

void pg_weight_free(struct pg_weight *w) { free(w); }
