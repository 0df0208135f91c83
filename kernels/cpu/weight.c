// The memory of weights (weight.h), and what lies beside their panels: biases, norms, scales.
#define _GNU_SOURCE

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "deferred.h"
#include "device.h"
#include "pack.h"
#include "source.h"

// pack_bias lays one vector a source out as rows of the weight are.
static void pack_bias(struct pg_weight *w, const struct pg_source *sources) {
	memset(w->bias, 0, (int64_t)w->panels * PG_COLUMNS * sizeof *w->bias);
	for (int p = 0; p < w->panels; p++) {
		for (int c = 0; c < PG_COLUMNS; c++) {
			int64_t row = pg_weight_row(w, p, c / 16, c % 16);
			if (row < 0) continue;
			const struct pg_source *src = sources;
			for (; row >= src->rows; src++) row -= src->rows;
			w->bias[p * PG_COLUMNS + c] = pg_fetch_float(src, row);
		}
	}
}

// take_memory gives w the memory of its format; false and errno: there is none. What lies beside
// the values has memory of its own: a little of it among them would take a huge page before
// they are there.
static bool take_memory(struct pg_device *d, struct pg_weight *w, bool bias, bool norms) {
	int64_t outputs = (int64_t)w->panels * PG_COLUMNS;
	int64_t floats = w->layout == PG_VECTOR ? w->rows : bias ? outputs : 0;
	int64_t values = (w->layout == PG_ROWS ? (int64_t)w->rows * w->cols * 2 : w->panels * pg_panel_bytes(w));
	int64_t sizes[] = {
		floats * 4, norms ? 2 * (int64_t)w->head_dim * 4 : 0,
		w->format == PG_INT8 ? outputs * 4 : 0, w->format == PG_BF16_CODED ? w->panels * (int64_t)sizeof *w->codes : 0,
	};
	int64_t offsets[4];
	for (int i = 0; i < 4; i++) {
		offsets[i] = w->beside_bytes;
		w->beside_bytes += (sizes[i] + 63) / 64 * 64;
	}
	w->value_bytes = (values + 63) / 64 * 64;
	if (values > 0 && !(w->data = pg_weights_take(d, w->value_bytes))) return false;
	if (w->beside_bytes > 0 && !(w->beside = aligned_alloc(64, w->beside_bytes))) return false;
	if (sizes[0]) w->bias = (float *)(w->beside + offsets[0]);
	if (sizes[1]) w->norms = (float *)(w->beside + offsets[1]);
	if (sizes[2]) w->scales = (float *)(w->beside + offsets[2]);
	if (sizes[3]) w->codes = memset(w->beside + offsets[3], 0, sizes[3]);
	return true;
}

void pg_codes_clear(struct pg_codes *codes) {
	free(codes->exceptions);
	free(codes->kept);
	codes->exceptions = NULL;
	codes->kept = NULL;
}

void pg_weight_count(struct pg_weight *w) {
	w->bytes = w->value_bytes + w->beside_bytes;
	w->num_kept = 0;
	for (int i = 0; w->codes && i < w->panels; i++) {
		w->bytes += w->codes[i].num_exceptions * (int64_t)sizeof(struct pg_exception);
		// What a kept panel leaves unused takes addresses, and no memory.
		if (!w->codes[i].kept) continue;
		w->bytes += pg_kept_bytes(w) - pg_panel_bytes(w);
		w->num_kept++;
	}
}

// give_up frees w and keeps errno.
static struct pg_weight *give_up(struct pg_weight *w) {
	int err = errno;
	pg_weight_free(w);
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
	w->format = packed ? d->format : PG_BF16;
	w->steps = w->format == PG_INT8 ? (cols + PG_CHUNK - 1) / PG_CHUNK * (PG_CHUNK / 4) : cols / 2;
	if (!take_memory(d, w, bias_sources, norm_sources)) return give_up(w);
	if (layout == PG_VECTOR) {
		for (int i = 0; i < w->rows; i++) w->bias[i] = pg_fetch_float(sources, i);
		pg_weight_count(w);
		return w;
	}
	if (pg_deferrable(w, sources, num)) {
		if (!pg_defer(d, w, sources, num, unreadable)) return give_up(w);
	} else {
		if (!pg_pack(d, w, sources, num, 0, w->panels, false, unreadable)) return give_up(w);
		w->ready = w->panels;
	}
	pg_weight_count(w);
	for (int i = 0; norm_sources && i < 2 * head_dim; i++) w->norms[i] = pg_fetch_float(norm_sources + i / head_dim, i % head_dim);
	if (bias_sources) pack_bias(w, bias_sources);
	return w;
}

void pg_weight_free(struct pg_weight *w) {
	for (int i = 0; w->codes && i < w->panels; i++) pg_codes_clear(w->codes + i);
	free(w->sources);
	free(w->beside);
	free(w);
}
