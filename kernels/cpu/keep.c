// Behind the last layer's QKV only tokens with logits go on: their rows of Hidden and Query move to
// the front, in place, and what follows sees a batch of as many decodes (kernels.Backend's
// KeepLogitRows; llama.cpp has the same, src/llama-graph.cpp: inp_out_ids).
//
// Bytes moved: at most 8·n·(hidden + heads·head_dim) for n tokens with logits.
#include <string.h>

#include "kernels.h"

#define KEEP_COLUMNS 64 // of a unit

static int units(int width) { return (width + KEEP_COLUMNS - 1) / KEEP_COLUMNS; }

// A unit is some columns of all rows, which move in order: logit_rows[i] ≥ i, and ascends.
static void keep_phase(const struct pg_device *d, struct pg_step *s, const struct pg_op *op,
                       int first, int count, int worker) {
	(void)op, (void)worker;
	int hidden = d->shape.hidden, of_hidden = units(hidden);
	for (int unit = first; unit < first + count; unit++) {
		bool is_hidden = unit < of_hidden;
		float *x = is_hidden ? d->hidden : d->query;
		int width = is_hidden ? hidden : d->shape.heads * d->shape.head_dim;
		int begin = (is_hidden ? unit : unit - of_hidden) * KEEP_COLUMNS;
		int64_t ld = pg_stride(width), bytes = 4 * (width - begin < KEEP_COLUMNS ? width - begin : KEEP_COLUMNS);
		for (int i = 0; i < s->num_logits; i++)
			if (s->logit_rows[i] > i) memcpy(x + i * ld + begin, x + s->logit_rows[i] * ld + begin, bytes);
	}
}

void pg_keep_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	pg_push(s, op, keep_phase, units(d->shape.hidden) + units(d->shape.heads * d->shape.head_dim), 4);
}
