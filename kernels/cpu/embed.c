// Embedding look-up, Hidden[t] = w[Tokens[t]] widened to float32. A unit is a
// token.
//
// Bytes moved: 2·hidden a token read (a tied weight is packed in panels, so each
// value lies in a cache line of its own: 64·hidden), 4·hidden written.
#include "weight.h"

static void embed_row(const struct pg_weight *w, int32_t id, float *out) {
	if (w->layout == PG_ROWS) {
		const uint16_t *row = w->data + (int64_t)id * w->cols;
		for (int k = 0; k < w->cols; k++) out[k] = pg_from_bf16(row[k]);
		return;
	}
	int lane = id % PG_COLUMNS; // as an output: a0…a15, b0…b15
	const uint16_t *at = w->data + (int64_t)(id / PG_COLUMNS) * w->cols * PG_COLUMNS + lane % 16 * 2 + lane / 16;
	for (int k = 0; k < w->cols; k++) out[k] = pg_from_bf16(at[(int64_t)k * PG_COLUMNS]);
}

static void embed_phase(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                        int first, int count, int worker) {
	(void)worker;
	int64_t ld = pg_stride(d->shape.hidden);
	for (int t = first; t < first + count; t++) {
		int32_t id = s->tokens[t];
		if (id < 0) id = d->rows[s->rows[s->token_seq[t]]].last_token;
		// A row that failed (InvalidToken) may be in a step that was launched before
		// the host knew; what it computes is dropped.
		if (id < 0) id = 0;
		embed_row(op->w, id, d->hidden + t * ld);
	}
}

void pg_embed_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	(void)d;
	pg_push(s, op, embed_phase, s->num_tokens, 16);
}
