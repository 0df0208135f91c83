// Sampling in the order of kernels.Sampling, one row a task, without sorting.
//
// Every filter keeps a prefix of the candidates in descending order. MinP's cut
// is a value; that of TopK is found by radix selection on the bits of z, counting
// 2,048 buckets a level, and ties at the cut are kept by lowest id. Candidates
// stay in ascending order of id throughout.
//
// The draw is Gumbel-max: ids too far below the likeliest cannot win, whatever
// their noise, and are skipped (draw in the passes). What TopP keeps is asked of
// one candidate at a time, the best of all first: see draw_top_p.
#include <math.h>
#include <string.h>

#include "sample.h"

static const struct pg_sample_passes *passes_of(const struct pg_device *d) {
#ifdef __x86_64__
	if (d->isa >= PG_ISA_AVX512) return &pg_sample_avx512;
	if (d->isa >= PG_ISA_AVX2) return &pg_sample_avx2;
#endif
	(void)d;
	return &pg_sample_plain;
}

static int64_t padded(int64_t vocab) { return (vocab + 15) / 16 * 16 + 16; }

// A worker's scratch: candidates' z and ids, maxima of groups of them, and a histogram.
struct scratch {
	float *z;
	int32_t *ids;
	float *maxima;
	struct pg_buckets *buckets;
};

int64_t pg_sample_scratch_bytes(const struct pg_shape *m, const struct pg_limits *l) {
	(void)l;
	return (2 * padded(m->vocab) + padded(m->vocab) / 16) * 4 + sizeof(struct pg_buckets); // groups are of 16
}

static struct scratch scratch_of(const struct pg_device *d, int worker) {
	int64_t n = padded(d->shape.vocab);
	float *z = pg_scratch(d, worker);
	return (struct scratch){z, (int32_t *)(z + n), z + 2 * n, (struct pg_buckets *)(z + 2 * n + n / 16)};
}

// cut is where a filter ends: values above z are kept, and the first ties of
// those equal to it.
struct cut {
	float z;
	int64_t ties;
};

// pg_select finds the cut behind the top-th largest, n ≥ top ≥ 1.
static struct cut pg_select(const struct pg_sample_passes *k, struct pg_buckets *b, const float *z, int32_t n, int64_t top) {
	static const struct { int above, shift; } levels[] = {{32, 21}, {21, 10}, {10, 0}};
	uint32_t prefix = 0;
	for (int level = 0; level < 3; level++) {
		int above = levels[level].above, shift = levels[level].shift;
		memset(b, 0, sizeof *b);
		k->histogram(b, z, n, above, prefix, shift);
		uint32_t i = 0;
		for (;; i++) {
			uint32_t count = 0;
			for (int c = 0; c < PG_COPIES; c++) count += b->copy[c][i];
			if (count >= top) break;
			top -= count;
		}
		prefix = prefix << (above - shift) | i;
	}
	return (struct cut){pg_unkey(prefix), top};
}

// candidates are the ids that may still be drawn; without ids: 0 … n−1.
struct candidates {
	const float *z;
	const int32_t *ids;
	int32_t n;
};

static void keep(const struct pg_sample_passes *k, const struct scratch *s, struct candidates *c, float least) {
	*c = (struct candidates){s->z, s->ids, k->keep(c->z, c->ids, c->n, least, s->z, s->ids)};
}

// keep_cut keeps what is above the cut and its first ties.
static void keep_cut(const struct pg_sample_passes *k, const struct scratch *s, struct candidates *c, struct cut cut) {
	keep(k, s, c, cut.z);
	int32_t n = 0;
	for (int32_t i = 0; i < c->n; i++) {
		if (s->z[i] == cut.z && --cut.ties < 0) continue;
		s->z[n] = s->z[i];
		s->ids[n++] = s->ids[i];
	}
	c->n = n;
}

static void top_k(const struct pg_sample_passes *k, const struct scratch *s, struct candidates *c, int32_t top) {
	// The top-th largest of group maxima is not above the top-th largest element:
	// a cheap bound that leaves few to select from.
	int32_t groups = top < c->n / 64 ? k->group_maxima(c->z, c->n, s->maxima) : 0;
	if (groups >= top)
		keep(k, s, c, pg_select(k, s->buckets, s->maxima, groups, top).z);
	if (top < c->n) keep_cut(k, s, c, pg_select(k, s->buckets, c->z, c->n, top));
}

// z_of is the value of a candidate.
static float z_of(const struct candidates *c, int32_t id) {
	if (!c->ids) return c->z[id];
	int32_t low = 0, high = c->n - 1;
	while (low < high) {
		int32_t middle = low + (high - low) / 2;
		if (c->ids[middle] < id) low = middle + 1;
		else high = middle;
	}
	return c->z[low];
}

// draw_top_p is a draw from what TopP leaves. TopP keeps a prefix: so the candidate with the largest score of all is drawn if
// the weight before it is less than p, and else it is out, with all behind it, and the best of the others is asked the same
// (the pivots of FlashInfer's rejection sampling, 2025). Where TopP cuts nobody needs to know.
static int32_t draw_top_p(const struct pg_sample_passes *k, const struct scratch *s, struct candidates c, struct pg_draw draw, float p) {
	float scale = 1 / draw.temperature;
	double all = k->sum_exp(c.z, c.n, draw.first.z, scale);
	if (p * all <= 1) return draw.first.id; // which weighs that
	for (;;) {
		draw.z = c.z, draw.ids = c.ids, draw.n = c.n;
		int32_t id = k->draw(&draw);
		if (id == draw.first.id) return id; // nothing is before it
		struct cut before = {z_of(&c, id), 0};
		keep(k, s, &c, before.z);
		for (int32_t i = 0; i < c.n; i++) before.ties += c.z[i] == before.z && c.ids[i] < id;
		keep_cut(k, s, &c, before);
		if (k->sum_exp(c.z, c.n, draw.first.z, scale) < p * all) return id;
	}
}

// penalize applies step 3 to the ids that have a count.
static void penalize(float *z, const struct pg_sampling *p, const uint16_t *counts, int32_t n) {
	float r = p->repetition_penalty == 0 ? 1 : p->repetition_penalty;
	for (int32_t i = 0; i < n; i += 4) {
		uint64_t four;
		memcpy(&four, counts + i, n - i < 4 ? (n - i) * sizeof *counts : sizeof four);
		if (n - i >= 4 && four == 0) continue;
		for (int32_t id = i; id < n && id < i + 4; id++) {
			if (counts[id] == 0) continue;
			int count = counts[id] & ~PG_IN_PROMPT;
			z[id] = z[id] > 0 ? z[id] / r : z[id] * r;
			z[id] -= p->frequency_penalty * count;
			if (count > 0) z[id] -= p->presence_penalty;
		}
	}
}

// edited is the logits after steps 1 to 3: z itself if nothing changes them,
// else a copy.
static const float *edited(const struct pg_sample_passes *k, float *copy, const float *z, const struct pg_row *row,
                           const uint32_t *mask, int32_t position, int32_t n) {
	const struct pg_sampling *p = &row->sampling;
	bool stops = position - p->prompt_len < p->min_tokens && p->num_stop_ids > 0;
	if (!stops && !mask && !p->num_bias && !p->penalties) return z;
	memcpy(copy, z, n * sizeof *z);
	for (int i = 0; i < p->num_bias; i++)
		if (p->bias[i].id < n) copy[p->bias[i].id] += p->bias[i].bias;
	if (p->penalties) penalize(copy, p, row->counts, n); // keeps −inf, so it may go before the masks
	if (mask) k->forbid(copy, mask, n);
	for (int i = 0; stops && i < p->num_stop_ids; i++)
		if (p->stop_ids[i] < n) copy[p->stop_ids[i]] = -INFINITY;
	return copy;
}

// draw_row is steps 1 to 9, or −1.
static int32_t draw_row(const struct pg_device *d, const struct pg_row *row, const float *logits, const uint32_t *mask,
                        int32_t position, const struct scratch *s) {
	const struct pg_sample_passes *k = passes_of(d);
	const struct pg_sampling *p = &row->sampling;
	int32_t n = d->shape.sample_vocab > 0 ? d->shape.sample_vocab : d->shape.vocab;
	struct candidates c = {edited(k, s->z, logits, row, mask, position, n), NULL, n};
	struct pg_largest first = k->largest(c.z, n);
	if (!first.number || first.id < 0 || first.z == INFINITY) return -1;
	if (p->temperature == 0) return first.id;

	if (p->min_p > 0) keep(k, s, &c, (float)(first.z + p->temperature * log(fminf(p->min_p, 1))));
	if (p->top_k > 0 && p->top_k < c.n) top_k(k, s, &c, p->top_k);
	struct pg_draw draw = {c.z, c.ids, c.n, p->temperature, first, p->seed, p->choice, position};
	if (p->top_p > 0 && p->top_p < 1) return draw_top_p(k, s, c, draw, p->top_p);
	return k->draw(&draw);
}

// top_ids fills the n likeliest ids, descending, ties by id, and their z.
static void top_ids(const struct pg_sample_passes *k, const float *z, int32_t vocab, int n, int32_t *ids, float *values) {
	int have = 0;
	float least = -INFINITY;
	for (int32_t at = 0; at < vocab; at++) {
		if (have == n) at = k->next_larger(z, at, vocab, least);
		if (at == vocab) break;
		int j = have < n ? have++ : n - 1;
		for (; j > 0 && z[at] > values[j - 1]; j--) {
			values[j] = values[j - 1];
			ids[j] = ids[j - 1];
		}
		values[j] = z[at];
		ids[j] = at;
		least = values[have - 1];
	}
}

// logprobs sets entry i's log probabilities of the raw logits.
static void logprobs(const struct pg_device *d, struct pg_step *s, int i, const float *z, float max, int wanted) {
	const struct pg_sample_passes *k = passes_of(d);
	int32_t vocab = d->shape.vocab, id = s->out_tokens[i];
	double log_sum = max + log(k->sum_exp(z, vocab, max, 1));
	s->out_logprobs[i] = (float)(z[id] - log_sum);
	s->out_ranks[i] = 1 + k->count_larger(z, vocab, z[id]);
	if (wanted == 0) return;
	int64_t at = (int64_t)i * d->limits.max_top_logprobs;
	top_ids(k, z, vocab, wanted, s->out_top_ids + at, s->out_top_logprobs + at);
	for (int j = 0; j < wanted; j++) s->out_top_logprobs[at + j] = (float)(s->out_top_logprobs[at + j] - log_sum);
}

static void sample_rows(const struct pg_device *d, struct pg_step *s, const struct pg_op *op, int first, int count, int worker) {
	(void)op;
	struct scratch mem = scratch_of(d, worker);
	for (int i = first; i < first + count; i++) {
		struct pg_row *row = &d->rows[s->sample_rows[i]];
		const float *z = d->logits + s->sample_index[i] * pg_stride(d->shape.vocab);
		struct pg_largest raw = passes_of(d)->largest(z, d->shape.vocab);
		int32_t id = -1;
		if (i >= s->num_samples - s->num_checks) {
			s->out_tokens[i] = raw.number && raw.z < INFINITY ? 0 : -1;
			continue;
		}
		if (raw.number && raw.z < INFINITY) id = draw_row(d, row, z, s->masks[i], s->sample_positions[i], &mem);
		s->out_tokens[i] = row->last_token = id;
		if (id < 0) continue;
		if (row->sampling.penalties && (row->counts[id] & ~PG_IN_PROMPT) < (PG_IN_PROMPT - 1)) row->counts[id]++;
		if (row->sampling.logprobs >= 0) logprobs(d, s, i, z, raw.z, row->sampling.logprobs);
	}
}

void pg_sample_plan(const struct pg_device *d, struct pg_step *s, const struct pg_op *op) {
	(void)d;
	pg_push(s, op, sample_rows, s->num_samples, 1);
}
