// Packing of panels as they are needed, and by and by (deferred.h).
//
// Bytes moved, for a panel that is needed: its rows from the page cache to the worker's own.
// FLOPs: none.
#define _GNU_SOURCE
#include "deferred.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "pack.h"
#include "source.h"

bool pg_deferrable(const struct pg_weight *w, const struct pg_source *sources, int num) {
	for (int i = 0; i < num; i++)
		if (sources[i].data || sources[i].fd < 0) return false;
	return w->format == PG_BF16_CODED;
}

// panel_bytes is the memory for one as it is needed: it may turn out to be kept.
static int64_t panel_bytes(const struct pg_weight *w) {
	int64_t kept = (pg_kept_bytes(w) + 63) / 64 * 64;
	return kept > pg_panel_bytes(w) ? kept : pg_panel_bytes(w);
}

// touch waits until a source is in the page cache: what is ready must not wait for a disk. A
// system reads ahead no more than a little of what it is advised at once, and nothing where reads
// are far apart, so each piece is advised by itself, all of them before the first wait.
static bool touch(const struct pg_source *src, int64_t bytes) {
	enum { PIECE = 128 << 10 };
	char c;
	for (int64_t i = 0; i < bytes; i += PIECE)
		posix_fadvise(src->fd, src->at + i, bytes - i < PIECE ? bytes - i : PIECE, POSIX_FADV_WILLNEED); // a refusal costs nothing
	for (int64_t i = 0; i < bytes; i += PIECE)
		if (!pg_read_file(src->fd, &c, 1, src->at + i)) return false;
	return pg_read_file(src->fd, &c, 1, src->at + bytes - 1);
}

// rows_bytes is a worker's memory for the rows of a panel; its panels follow.
static int64_t rows_bytes(const struct pg_weight *w) {
	return (pg_pack_buffer_bytes(w, w->sources, w->num_sources) + 63) / 64 * 64;
}

bool pg_defer(struct pg_device *d, struct pg_weight *w, const struct pg_source *sources, int num, int *unreadable) {
	*unreadable = -1;
	for (int i = 0; i < num; i++) {
		if (touch(sources + i, (int64_t)sources[i].rows * w->cols * pg_element_bytes(sources + i))) continue;
		*unreadable = i;
		errno = EIO;
		return false;
	}
	if (!(w->sources = malloc(num * sizeof *sources))) return false;
	memcpy(w->sources, sources, num * sizeof *sources);
	w->num_sources = num;
	if (!d->held && !(d->held = calloc(1, sizeof *d->held))) return false;
	int64_t need = rows_bytes(w) + PG_HELD * panel_bytes(w);
	if (need <= d->held->stride) return true;
	int64_t stride = (need + 4095) / 4096 * 4096;
	char *memory = aligned_alloc(4096, stride * d->threads);
	if (!memory) return false;
	free(d->held->memory);
	d->held->memory = memory;
	d->held->stride = stride;
	return true;
}

bool pg_complete(struct pg_device *d, struct pg_weight *w, int panels, bool alone) {
	int unreadable;
	if (panels > w->panels - w->ready) panels = w->panels - w->ready;
	if (!pg_pack(d, w, w->sources, w->num_sources, w->ready, panels, alone, &unreadable)) return false;
	w->ready += panels;
	pg_weight_count(w);
	if (w->ready < w->panels) return true;
	free(w->sources);
	w->sources = NULL;
	return true;
}

void pg_held_free(struct pg_device *d) {
	if (d->held) free(d->held->memory);
	free(d->held);
	d->held = NULL;
}

// fail says that what is computed from here on is wrong.
static void fail(const struct pg_device *d) { __atomic_store_n(&d->held->unreadable, true, __ATOMIC_RELAXED); }

void pg_hold(const struct pg_device *d, const struct pg_weight *w, struct pg_held_panels *h, int panel, int n, int worker) {
	char *rows = d->held->memory + worker * d->held->stride;
	h->data = rows + rows_bytes(w);
	h->apart = panel_bytes(w);
	h->num = n;
	memset(h->codes, 0, sizeof h->codes);
	for (int i = 0; i < n; i++)
		if (!pg_pack_held(d, w, panel + i, rows, h->codes + i, h->data + i * h->apart)) fail(d);
}

void pg_hold_end(struct pg_held_panels *h) {
	for (int i = 0; i < h->num; i++) free(h->codes[i].exceptions);
}

void pg_deferred_row(const struct pg_device *d, const struct pg_weight *w, int64_t row, float *out, int worker) {
	struct pg_source src = w->sources[0]; // an embedding has one
	char *data = d->held->memory + worker * d->held->stride;
	int64_t bytes = w->cols * pg_element_bytes(&src);
	if (!pg_read_file(src.fd, data, bytes, src.at + row * bytes)) fail(d);
	src.data = data;
	uint16_t chunk[PG_CHUNK];
	for (int k = 0; k < w->cols; k += PG_CHUNK) {
		int n = w->cols - k < PG_CHUNK ? w->cols - k : PG_CHUNK;
		pg_fetch(&src, k, n, chunk);
		for (int i = 0; i < n; i++) out[k + i] = pg_from_bf16(chunk[i]);
	}
}
