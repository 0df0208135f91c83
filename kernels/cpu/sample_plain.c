// The passes of sample.c in plain C, and the exact score of one id.
#include <math.h>

#include "sample.h"

// philox is word 0 of kernels.Philox(seed, {id, position, choice, 0}).
static uint32_t philox(uint64_t seed, uint32_t id, uint32_t position, uint32_t choice) {
	uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32), c[4] = {id, position, choice, 0};
	for (int round = 0; round < 10; round++) {
		uint64_t p0 = 0xD2511F53ull * c[0], p1 = 0xCD9E8D57ull * c[2];
		c[0] = (uint32_t)(p1 >> 32) ^ c[1] ^ k0;
		c[1] = (uint32_t)p1;
		c[2] = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
		c[3] = (uint32_t)p0;
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	return c[0];
}

double pg_score(const struct pg_draw *d, float z, int32_t id) {
	uint32_t w = philox(d->seed, id, d->position, d->choice);
	double u = ((w >> 8) + 0.5) / (1 << 24);
	return (double)z / d->temperature + (float)-log(-log(u));
}

static struct pg_largest largest(const float *z, int32_t n) {
	struct pg_largest m = {-INFINITY, -1, true};
	for (int32_t i = 0; i < n; i++) {
		if (z[i] > m.z) m.z = z[i], m.id = i;
		m.number &= z[i] == z[i];
	}
	return m;
}

static int32_t next_larger(const float *z, int32_t from, int32_t n, float than) {
	while (from < n && !(z[from] > than)) from++;
	return from;
}

int32_t pg_plain_count_larger(const float *z, int32_t n, float than) {
	int32_t count = 0;
	for (int32_t i = 0; i < n; i++) count += z[i] > than;
	return count;
}

static double sum_exp(const float *z, int32_t n, float max, float scale) {
	double sum = 0;
	for (int32_t i = 0; i < n; i++) sum += expf((z[i] - max) * scale);
	return sum;
}

void pg_plain_forbid(float *z, const uint32_t *mask, int32_t n) {
	for (int32_t i = 0; i < n; i++)
		if (!(mask[i / 32] >> (i % 32) & 1)) z[i] = -INFINITY;
}

static int32_t keep(const float *z, const int32_t *ids, int32_t n, float least, float *out, int32_t *out_ids) {
	int32_t kept = 0;
	for (int32_t i = 0; i < n; i++) {
		if (!(z[i] >= least) || z[i] == -INFINITY) continue;
		out_ids[kept] = ids ? ids[i] : i;
		out[kept++] = z[i];
	}
	return kept;
}

int32_t pg_plain_group_maxima(const float *z, int32_t n, float *out) {
	for (int32_t i = 0; i < n / 16; i++) {
		float m = z[16 * i];
		for (int j = 1; j < 16; j++) m = z[16 * i + j] > m ? z[16 * i + j] : m;
		out[i] = m;
	}
	return n / 16;
}

void pg_plain_histogram(struct pg_buckets *b, const float *z, int32_t n, int above, uint32_t prefix, int shift) {
	uint32_t mask = (1u << (above - shift)) - 1;
	for (int32_t i = 0; i < n; i++) {
		uint32_t key = pg_key(z[i]);
		if (above < 32 && key >> above != prefix) continue;
		b->copy[i % PG_COPIES][key >> shift & mask]++;
	}
}

// plain_draw computes exact scores only for the few ids that an upper bound lets through. With u = 1 − x, −log u ≥ x, so the
// noise is at most −log x, and an id can beat the best score so far, best, only if
//
//     d − log x ≥ best, that is x ≤ exp(d − best),   d = (z − z of the likeliest) / temperature
//
// Scores are relative to the likeliest's z here; slack covers the rounding. (An engine's temperatures are 1e-5 and more.)
static int32_t plain_draw(const struct pg_draw *d) {
	int32_t best = d->first.id;
	double origin = (double)d->first.z / d->temperature, score = pg_score(d, d->first.z, best);
	const float slack = 1e-3f, scale = 1 / d->temperature;
	float needed = (float)(score - origin) - slack;
	for (int32_t i = 0; i < d->n; i++) {
		float gap = (d->z[i] - d->first.z) * scale - needed;
		if (!(gap >= -PG_GUMBEL_MAX)) continue;
		int32_t id = d->ids ? d->ids[i] : i;
		float x = ((float)((1 << 24) - (philox(d->seed, id, d->position, d->choice) >> 8)) - .5f) * 0x1p-24f;
		if (x > expf(gap)) continue;
		double other = pg_score(d, d->z[i], id);
		if (other > score || (other == score && id < best)) {
			score = other, best = id;
			needed = (float)(score - origin) - slack;
		}
	}
	return best;
}

const struct pg_sample_passes pg_sample_plain = {
	largest, next_larger, pg_plain_count_larger, sum_exp, pg_plain_forbid, keep, pg_plain_group_maxima,
	pg_plain_histogram, plain_draw,
};
