// Packing of panels (see weight.h) from the checkpoint's rows, in parallel, one panel a
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

#include "coded.h"
#include "device.h"
#include "pack.h"
#include "pool.h"
#include "source.h"

#ifdef __x86_64__
#include "avx512.h"
#endif

struct packing {
	const struct pg_weight *w;
	const struct pg_source *sources;
	int first, count; // panels
	bool alone;       // one worker packs all of them
	char *buffers; // one a worker, for rows in files; NULL: there are none
	int64_t buffer_bytes;
	_Atomic int *unreadable; // a source whose file cannot be read; −1: none
	_Atomic bool *out_of_memory; // for a panel that is kept as it is
};

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
		int64_t bytes = p->w->cols * pg_element_bytes(src), all = (next - c) * bytes;
		if (!pg_read_file(src->fd, buffer, all, src->at + row * bytes)) {
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
// With stream, the stores bypass the caches: a line that is written whole need not be read.
PG_INLINE void transpose_avx512(const char *const rows[PG_COLUMNS], int steps, char *out, bool stream) {
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
			char *line = out + k * PG_STEP_BYTES;
			if (stream) {
				_mm512_stream_si512((void *)line, a[k]);
				_mm512_stream_si512((void *)(line + 64), b[k]);
			} else {
				_mm512_store_si512(line, a[k]);
				_mm512_store_si512(line + 64, b[k]);
			}
		}
	}
	if (stream) _mm_sfence();
	const char *rest[PG_COLUMNS];
	for (int c = 0; c < PG_COLUMNS; c++) rest[c] = rows[c] + 4 * i;
	transpose(rest, steps - i, out);
}

static PG_AVX512 void transpose_to_memory(const char *const rows[PG_COLUMNS], int steps, char *out) {
	transpose_avx512(rows, steps, out, true);
}

static PG_AVX512 void transpose_to_cache(const char *const rows[PG_COLUMNS], int steps, char *out) {
	transpose_avx512(rows, steps, out, false);
}
#endif

static void transpose_by(const struct pg_device *d, const char *const rows[PG_COLUMNS], int steps, char *out) {
#ifdef __x86_64__
	if (d->isa >= PG_ISA_AVX512) return transpose_to_memory(rows, steps, out);
#endif
	(void)d;
	transpose(rows, steps, out);
}

static bool is_stored(const struct panel_rows *r, int c) {
	return r->row[c] >= 0 && r->src[c]->data && r->src[c]->dtype == BF16;
}

// pack_stored packs a panel whose rows all exist as bfloat16, straight from them.
static bool pack_stored(const struct pg_device *d, const struct pg_weight *w, const struct panel_rows *r, char *out) {
	const char *rows[PG_COLUMNS];
	for (int c = 0; c < PG_COLUMNS; c++) {
		if (!is_stored(r, c)) return false;
		rows[c] = (const char *)r->src[c]->data + r->row[c] * w->cols * 2;
	}
	transpose_by(d, rows, w->steps, out);
	return true;
}

// chunk_rows points rows at n columns of a panel from k on; what is not stored as
// bfloat16 is fetched into chunk, which was zero.
static void chunk_rows(const struct pg_weight *w, const struct panel_rows *r, int k, int n,
                       uint16_t chunk[PG_COLUMNS][PG_CHUNK], const char *rows[PG_COLUMNS]) {
	for (int c = 0; c < PG_COLUMNS; c++) {
		rows[c] = (const char *)chunk[c];
		if (is_stored(r, c)) rows[c] = (const char *)r->src[c]->data + (r->row[c] * w->cols + k) * 2;
		else if (r->row[c] >= 0) pg_fetch(r->src[c], r->row[c] * w->cols + k, n, chunk[c]);
	}
}

static void pack_bf16(const struct pg_device *d, const struct pg_weight *w, const struct panel_rows *r, char *out) {
	if (pack_stored(d, w, r, out)) return;
	uint16_t chunk[PG_COLUMNS][PG_CHUNK] = {0};
	const char *rows[PG_COLUMNS];
	for (int k = 0; k < w->cols; k += PG_CHUNK, out += PG_CHUNK / 2 * PG_STEP_BYTES) {
		int n = w->cols - k < PG_CHUNK ? w->cols - k : PG_CHUNK;
		chunk_rows(w, r, k, n, chunk, rows);
		transpose_by(d, rows, n / 2, out);
	}
}

#ifdef __x86_64__
// largest_of is the greatest |w| of output c, or a bound of it.
static uint16_t largest_of(const struct panel_rows *r, int c, int cols) {
	const struct pg_source *src = r->src[c];
	if (r->row[c] < 0) return 0;
	if (is_stored(r, c)) return pg_largest_bf16((const char *)src->data + r->row[c] * cols * 2, cols);
	return pg_to_bf16(src->data ? pg_largest(src, r->row[c], cols) : fabsf(src->scale) + fabsf(src->offset));
}

// A panel of which more than one value in EXCEPT is an exception is kept as it is: where one in
// 300 was, a product of one token took 14 % longer. SmolLM2's worst has one in 530.
enum { EXCEPT = 400 };

// largest_of_panel is the greatest |w| of a panel, or a bound of it.
static uint16_t largest_of_panel(const struct pg_weight *w, const struct panel_rows *r) {
	uint16_t largest = 0;
	for (int c = 0; c < PG_COLUMNS; c++) {
		uint16_t of = largest_of(r, c, w->cols);
		largest = of > largest ? of : largest;
	}
	return largest;
}

// code_panel reads each row twice: for its largest value, and for all of them. false: it is to
// be kept. cached: out stays in the cache.
static bool code_panel(const struct pg_weight *w, const struct panel_rows *r, struct pg_codes *codes, char *out, bool cached) {
	_Alignas(64) char lines[PG_CHUNK / 2 * PG_STEP_BYTES];
	uint16_t chunk[PG_COLUMNS][PG_CHUNK] = {0};
	const char *rows[PG_COLUMNS];
	struct pg_coder coder;
	bool ok = true;
	pg_code_begin(&coder, codes, largest_of_panel(w, r), out);
	coder.cached = cached;
	coder.most = PG_COLUMNS * w->cols / EXCEPT;
	for (int k = 0; ok && k < w->cols; k += PG_CHUNK) {
		int n = w->cols - k < PG_CHUNK ? w->cols - k : PG_CHUNK, steps = n / 2;
		chunk_rows(w, r, k, n, chunk, rows);
		transpose_to_cache(rows, steps, lines);
		if (steps % 2) memset(lines + steps * PG_STEP_BYTES, 0, PG_STEP_BYTES);
		ok = pg_code_steps(&coder, lines, steps);
	}
	pg_code_end(&coder);
	if (ok) return true;
	free(codes->exceptions);
	codes->exceptions = NULL;
	codes->num_exceptions = 0;
	return false;
}

// pack_coded is false where there is no memory to keep a panel.
static bool pack_coded(const struct pg_device *d, const struct pg_weight *w, const struct panel_rows *r, int panel, char *out) {
	struct pg_codes *codes = w->codes + panel;
	if (code_panel(w, r, codes, out, false)) return true;
	char *kept = aligned_alloc(64, (pg_kept_bytes(w) + 63) / 64 * 64);
	if (!kept) return false;
	pack_bf16(d, w, r, kept);
	codes->kept = kept;
	return true;
}

bool pg_pack_held(const struct pg_device *d, const struct pg_weight *w, int panel, char *buffer, struct pg_codes *codes, char *out) {
	_Atomic int unreadable = -1;
	struct packing p = {.w = w, .sources = w->sources, .unreadable = &unreadable};
	struct panel_rows r = rows_of(&p, panel);
	struct pg_source held[PG_COLUMNS];
	if (!read_rows(&p, &r, held, buffer)) return false;
	if (code_panel(w, &r, codes, out, true)) return true;
	pack_bf16(d, w, &r, out);
	codes->kept = out;
	return true;
}
#else
static bool pack_coded(const struct pg_device *d, const struct pg_weight *w, const struct panel_rows *r, int panel, char *out) {
	(void)d, (void)w, (void)r, (void)panel, (void)out;
	return false; // coded.c
}

bool pg_pack_held(const struct pg_device *d, const struct pg_weight *w, int panel, char *buffer, struct pg_codes *codes, char *out) {
	(void)d, (void)w, (void)panel, (void)buffer, (void)codes, (void)out;
	return false; // nothing is deferred where nothing is coded
}
#endif

// pack_int8 reads each row twice: for its scale, and for its values.
static void pack_int8(const struct pg_device *d, const struct pg_weight *w, const struct panel_rows *r, int panel, char *out) {
	float inverse[PG_COLUMNS] = {0};
	float *scales = w->scales + panel * PG_COLUMNS;
	for (int c = 0; c < PG_COLUMNS; c++) {
		float max = r->row[c] < 0 ? 0 : pg_largest(r->src[c], r->row[c], w->cols);
		scales[c] = max / 127;
		inverse[c] = scales[c] > 0 && scales[c] < INFINITY ? 1 / scales[c] : 0;
		if (inverse[c] == INFINITY) scales[c] = inverse[c] = 0; // denormals
	}
	uint16_t chunk[PG_CHUNK];
	uint8_t q[PG_COLUMNS][PG_CHUNK];
	const char *rows[PG_COLUMNS];
	memset(q, 128, sizeof q);
	for (int c = 0; c < PG_COLUMNS; c++) rows[c] = (const char *)q[c];
	for (int k = 0; k < w->cols; k += PG_CHUNK, out += PG_CHUNK / 4 * PG_STEP_BYTES) {
		int n = w->cols - k < PG_CHUNK ? w->cols - k : PG_CHUNK;
		for (int c = 0; c < PG_COLUMNS; c++) {
			if (r->row[c] < 0) continue;
			pg_fetch(r->src[c], r->row[c] * w->cols + k, n, chunk);
			for (int i = 0; i < n; i++) q[c][i] = (uint8_t)(int32_t)(pg_from_bf16(chunk[i]) * inverse[c] + 128.5f);
			for (int i = n; i < PG_CHUNK; i++) q[c][i] = 128;
		}
		transpose_by(d, rows, PG_CHUNK / 4, out);
	}
}

static void pack_panel(const struct pg_device *d, const struct packing *p, int panel, int worker) {
	const struct pg_weight *w = p->w;
	struct panel_rows r = rows_of(p, panel);
	struct pg_source held[PG_COLUMNS];
	if (p->buffers && !read_rows(p, &r, held, p->buffers + worker * p->buffer_bytes)) return;
	char *out = w->data + panel * pg_panel_bytes(w);
	switch ((enum pg_format)w->format) {
	case PG_INT8: pack_int8(d, w, &r, panel, out); break;
	case PG_BF16: pack_bf16(d, w, &r, out); break;
	case PG_BF16_CODED:
		if (!pack_coded(d, w, &r, panel, out)) *p->out_of_memory = true;
	}
}

// copy_rows fills rows [first, first + count) of PG_ROWS.
static void copy_rows(const struct packing *p, int64_t first, int count, int worker) {
	struct pg_source src = *p->sources;
	int64_t cols = p->w->cols, bytes = cols * pg_element_bytes(&src);
	uint16_t *out = (uint16_t *)p->w->data + first * cols;
	if (src.data || src.fd < 0) {
		for (int i = 0; i < count; i++) pg_fetch(&src, (first + i) * cols, cols, out + i * cols);
		return;
	}
	int at_once = src.dtype == BF16 ? count : 1;
	char *rows = src.dtype == BF16 ? (char *)out : p->buffers + worker * p->buffer_bytes;
	src.data = rows;
	for (int i = 0; i < count; i += at_once) {
		if (!pg_read_file(src.fd, rows, at_once * bytes, src.at + (first + i) * bytes)) {
			*p->unreadable = 0;
			return;
		}
		if (src.dtype != BF16) pg_fetch(&src, 0, cols, out + i * cols);
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
	if (p->alone) count = p->count;
	for (int u = first; u < first + count; u++) pack_panel(d, p, p->first + u, worker);
}

void pg_pack_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	(void)d;
	const struct packing *p = op->arg;
	bool rows = p->w->layout == PG_ROWS;
	pg_push(s, op, pack_phase, rows ? p->w->rows : p->alone ? 1 : p->count, rows ? 64 : 16);
}

int64_t pg_pack_buffer_bytes(const struct pg_weight *w, const struct pg_source *sources, int num) {
	int64_t element = 0; // bytes of the largest that is read into a buffer
	for (int i = 0; i < num; i++) {
		if (sources[i].data || sources[i].fd < 0 || (w->layout == PG_ROWS && sources[i].dtype == BF16)) continue;
		if (element < pg_element_bytes(sources + i)) element = pg_element_bytes(sources + i);
	}
	return element == 0 ? 0 : (w->layout == PG_ROWS ? 1 : PG_COLUMNS) * (w->cols * element + 64);
}

bool pg_pack(const struct pg_device *d, const struct pg_weight *w, const struct pg_source *sources, int num, int first, int count,
             bool alone, int *failed) {
	_Atomic int unreadable = -1;
	_Atomic bool out_of_memory = false;
	struct packing p = {.w = w, .sources = sources, .first = first, .count = count, .alone = alone, .unreadable = &unreadable, .out_of_memory = &out_of_memory};
	p.buffer_bytes = pg_pack_buffer_bytes(w, sources, num);
	if (p.buffer_bytes > 0 && !(p.buffers = malloc(p.buffer_bytes * d->threads))) return false;
	struct pg_op op = {.kind = PG_PACK, .layer = -1, .arg = &p};
	pg_run_op(d, &op);
	free(p.buffers);
	*failed = unreadable;
	errno = unreadable >= 0 ? EIO : ENOMEM;
	return unreadable < 0 && !out_of_memory;
}
