// Embedding look-up, Hidden[t] = w[Tokens[t]] widened to float32. A unit is a
// token.
//
// Bytes moved: 2·hidden a token read (a tied weight is packed in panels, so each
// 32-bit value lies in a cache line of its own: 32·hidden, 48·hidden of coded weights,
// 16·hidden of int8), 4·hidden written.
#include "coded.h"
#include "deferred.h"

static void embed_row(const struct pg_device *d, const struct pg_weight *w, int32_t id, float *out, int worker) {
	if (w->layout == PG_ROWS) {
		const uint16_t *row = (const uint16_t *)w->data + (int64_t)id * w->cols;
		for (int k = 0; k < w->cols; k++) out[k] = pg_from_bf16(row[k]);
		return;
	}
	if (id / PG_COLUMNS >= w->ready) return pg_deferred_row(d, w, id, out, worker);
	const char *panel = w->data + id / PG_COLUMNS * pg_panel_bytes(w);
	if (w->format == PG_BF16_CODED) {
		const char *kept = w->codes[id / PG_COLUMNS].kept;
		if (!kept) return pg_coded_row(w, id / PG_COLUMNS, id % PG_COLUMNS, out);
		panel = kept;
	}
	// The id's lane of each step, 4 bytes.
	const char *lane = panel + id % PG_COLUMNS * 4;
	if (w->format == PG_INT8) {
		float scale = w->scales[id];
		for (int k = 0; k < w->cols; k++)
			out[k] = (float)((uint8_t)lane[(int64_t)(k / 4) * PG_STEP_BYTES + k % 4] - 128) * scale;
		return;
	}
	for (int i = 0; i < w->steps; i++) {
		const uint16_t *pair = (const uint16_t *)(lane + (int64_t)i * PG_STEP_BYTES);
		out[2 * i] = pg_from_bf16(pair[0]);
		out[2 * i + 1] = pg_from_bf16(pair[1]);
	}
}

static void embed_phase(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                        int first, int count, int worker) {
	int64_t ld = pg_stride(d->shape.hidden);
	for (int t = first; t < first + count; t++) {
		int32_t id = s->tokens[t];
		if (id < 0) id = d->rows[s->rows[s->token_seq[t]]].last_token;
		// A row that failed (InvalidToken) may be in a step that was launched before
		// the host knew; what it computes is dropped.
		if (id < 0) id = 0;
		embed_row(d, op->w, id, d->hidden + t * ld, worker);
	}
}

void pg_embed_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	(void)d;
	pg_push(s, op, embed_phase, s->num_tokens, 16);
}
