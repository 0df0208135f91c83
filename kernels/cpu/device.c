// The device's memory and row state. Everything a step ever uses is laid out at
// set-up in one mapping whose pages the system gives when they are first
// touched: the layout is computed twice by the same code, once to measure
// (base NULL), once to place.
#define _GNU_SOURCE
#include "device.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// Programs have room for this many operations: those of a step, and some for
// callers that issue more.
#define MAX_OPS(layers) (16 * (layers) + 64)

struct arena {
	char *base; // NULL: measure only
	int64_t used;
};

static void *take_aligned(struct arena *a, int64_t bytes, int64_t align) {
	a->used = (a->used + align - 1) / align * align;
	void *p = a->base ? a->base + a->used : NULL;
	a->used += bytes;
	return p;
}

static void *take(struct arena *a, int64_t bytes) { return take_aligned(a, bytes, 64); }

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

static int mask_words(const struct pg_shape *m) { return (m->vocab + 31) / 32; }

static void lay_out_program(struct arena *a, struct pg_program *p, int max_ops) {
	p->max_ops = max_ops;
	p->ops = take(a, sizeof *p->ops * max_ops);
	p->phases = take(a, pg_phases_bytes(max_ops));
	if (a->base) pg_phases_init(p->phases, max_ops);
}

static void lay_out_step(struct arena *a, const struct pg_device *d, struct pg_step *s) {
	const struct pg_shape *m = &d->shape;
	const struct pg_limits *l = &d->limits;
	int64_t n = l->max_batched_tokens, seqs = l->max_seqs, logits = l->max_logit_rows;
	s->tokens = take(a, 4 * n);
	s->rows = take(a, 4 * seqs);
	s->query_start = take(a, 4 * (seqs + 1));
	s->seq_lens = take(a, 4 * seqs);
	s->logit_rows = take(a, 4 * logits);
	s->token_seq = take(a, 4 * n);
	s->positions = take(a, 4 * n);
	s->slots = take(a, 4 * n);
	s->rope = take(a, 4 * n * m->head_dim);
	s->sample_index = take(a, 4 * logits);
	s->sample_rows = take(a, 4 * logits);
	s->sample_positions = take(a, 4 * logits);
	s->masks = take(a, sizeof *s->masks * logits);
	s->mask_words = take(a, 4 * logits * mask_words(m));
	s->out_tokens = take(a, 4 * logits);
	s->out_logprobs = take(a, 4 * logits);
	s->out_ranks = take(a, 4 * logits);
	s->out_top_ids = take(a, 4 * logits * l->max_top_logprobs);
	s->out_top_logprobs = take(a, 4 * logits * l->max_top_logprobs);
	s->attention_plan = take(a, pg_attention_plan_bytes(m, l, d->threads));
	lay_out_program(a, &s->forward, MAX_OPS(m->layers));
	lay_out_program(a, &s->sample, 1);
	struct pg_step kept = {0};
	kept.rows = take(a, 4 * seqs);
	kept.query_start = take(a, 4 * (seqs + 1));
	kept.positions = take(a, 4 * seqs);
	kept.logit_rows = take(a, 4 * seqs);
	kept.attention_plan = take(a, pg_attention_plan_bytes(m, l, d->threads));
	s->kept = take(a, sizeof kept);
	if (a->base) *s->kept = kept;
}

static void lay_out_rows(struct arena *a, struct pg_device *d) {
	int64_t seqs = d->limits.max_seqs;
	int64_t table = (d->limits.max_model_len + d->limits.block_size - 1) / d->limits.block_size;
	// Whole pages a row, so that a row's counts can be given back.
	int64_t counts = ((int64_t)d->shape.vocab * 2 + 4095) / 4096 * 4096;
	d->rows = take(a, sizeof *d->rows * seqs);
	int32_t *tables = take(a, 4 * seqs * table);
	char *all_counts = take_aligned(a, counts * seqs, 4096);
	if (!a->base) return;
	for (int i = 0; i < seqs; i++) {
		d->rows[i].table = tables + i * table;
		d->rows[i].counts = (uint16_t *)(all_counts + i * counts);
		d->rows[i].last_token = -1;
	}
}

// packed_bytes is room for the packed rows of any product.
static int64_t packed_bytes(const struct pg_device *d, const struct pg_shape *m, const struct pg_limits *l) {
	enum pg_rows_format format = pg_format_of(d);
	if (format == PG_ROWS_F32) return 0;
	int64_t width = max64(max64(m->hidden, m->intermediate), (int64_t)m->heads * m->head_dim);
	return max64(l->max_batched_tokens * pg_packed_stride(format, width),
	             l->max_logit_rows * pg_packed_stride(format, m->hidden));
}

static void lay_out(struct arena *a, struct pg_device *d, struct pg_step *steps) {
	const struct pg_shape *m = &d->shape;
	const struct pg_limits *l = &d->limits;
	int64_t n = l->max_batched_tokens;
	d->inv_freq = take(a, 4 * (m->head_dim / 2));
	d->hidden = take(a, 4 * n * pg_stride(m->hidden));
	d->normed = take(a, 4 * n * pg_stride(m->hidden));
	d->query = take(a, 4 * n * pg_stride((int64_t)m->heads * m->head_dim));
	d->attn = take(a, 4 * n * pg_stride((int64_t)m->heads * m->head_dim));
	d->mlp = take(a, 4 * n * pg_stride(m->intermediate));
	d->head_in = take(a, 4 * l->max_logit_rows * pg_stride(m->hidden));
	d->packed = take(a, packed_bytes(d, m, l));
	d->logits = take(a, 4 * l->max_logit_rows * pg_stride(m->vocab));
	d->attention_partials = take(a, pg_attention_partials_bytes(m, l, d->threads));
	d->scratch_stride = max64(pg_attention_scratch_bytes(m, l), pg_sample_scratch_bytes(m, l));
	d->scratch_stride = (d->scratch_stride + 4095) / 4096 * 4096;
	d->scratch = take_aligned(a, d->scratch_stride * d->threads, 4096);
	for (int i = 0; i < PG_STEPS; i++) lay_out_step(a, d, &steps[i]);
	lay_out_rows(a, d);
}

int64_t pg_workspace_bytes(const struct pg_device *d, const struct pg_shape *m, const struct pg_limits *l) {
	struct arena a = {0};
	struct pg_device copy = *d;
	struct pg_step steps[PG_STEPS];
	copy.shape = *m;
	copy.limits = *l;
	lay_out(&a, &copy, steps);
	return a.used;
}

void *pg_setup(struct pg_device *d, struct pg_step *steps) {
	int64_t bytes = pg_workspace_bytes(d, &d->shape, &d->limits);
	void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED) return NULL;
	struct arena a = {.base = base};
	lay_out(&a, d, steps);
	// Activations are walked as many rows side by side: huge pages spare them the
	// page walks. What is rarely used in full (logits, counts) stays in small ones.
	madvise(base, ((char *)d->logits - (char *)base) / 4096 * 4096, MADV_HUGEPAGE);
	return base;
}

void pg_workspace_free(void *workspace, int64_t bytes) { munmap(workspace, bytes); }

bool pg_row_reset(const struct pg_device *d, int row, const struct pg_sampling *sampling,
                  const int32_t *stop_ids, const struct pg_token_bias *bias, const int32_t *prompt,
                  int num_prompt, const int32_t *output, int num_output) {
	struct pg_row *r = &d->rows[row];
	bool counted = r->sampling.penalties;
	free(r->sampling.stop_ids);
	free(r->sampling.bias);
	r->sampling = *sampling;
	r->sampling.stop_ids = NULL;
	r->sampling.bias = NULL;
	r->table_len = 0;
	r->last_token = -1;
	int64_t stop_bytes = sizeof *stop_ids * sampling->num_stop_ids, bias_bytes = sizeof *bias * sampling->num_bias;
	if (stop_bytes > 0 && !(r->sampling.stop_ids = malloc(stop_bytes))) return false;
	if (bias_bytes > 0 && !(r->sampling.bias = malloc(bias_bytes))) return false;
	if (stop_bytes > 0) memcpy(r->sampling.stop_ids, stop_ids, stop_bytes);
	if (bias_bytes > 0) memcpy(r->sampling.bias, bias, bias_bytes);

	// Anonymous pages that are given back read as zero.
	if (counted) madvise(r->counts, ((int64_t)d->shape.vocab * 2 + 4095) / 4096 * 4096, MADV_DONTNEED);
	if (!sampling->penalties) return true;
	for (int i = 0; i < num_prompt; i++) r->counts[prompt[i]] |= PG_IN_PROMPT;
	for (int i = 0; i < num_output; i++) {
		uint16_t *c = &r->counts[output[i]];
		if ((*c & ~PG_IN_PROMPT) != 0x7FFF) ++*c;
	}
	return true;
}

void pg_rows_free(const struct pg_device *d) {
	for (int i = 0; i < d->limits.max_seqs; i++) {
		free(d->rows[i].sampling.stop_ids);
		free(d->rows[i].sampling.bias);
	}
}

