// Between sample.c, which drives, and the passes over the vocabulary of each
// instruction set. z are logits without NaN and +inf; −inf is never drawn.
#pragma once

#include "kernels.h"

// largest is a row's maximum.
struct pg_largest {
	float z;
	int32_t id;  // the lowest of the equals; −1 when nothing is larger than −inf
	bool number; // no NaN was seen
};

// pg_buckets is a histogram level of pg_select: 11 bits of the key. Neighbours
// in memory go to different copies, so that runs of equals do not wait for each
// other's addition.
#define PG_BUCKETS 2048
#define PG_COPIES 4
struct pg_buckets { uint32_t copy[PG_COPIES][PG_BUCKETS]; };

// A draw by Gumbel-max from candidates: ids[i], or i itself without ids.
struct pg_draw {
	const float *z;
	const int32_t *ids;
	int32_t n;
	float temperature;
	struct pg_largest first; // the likeliest candidate
	uint64_t seed;
	int32_t choice, position;
};

struct pg_sample_passes {
	struct pg_largest (*largest)(const float *z, int32_t n);
	// next_larger is the first index ≥ from whose z > than, or n.
	int32_t (*next_larger)(const float *z, int32_t from, int32_t n, float than);
	int32_t (*count_larger)(const float *z, int32_t n, float than);
	// sum_exp returns the sum of exp((z[i] − max) · scale).
	double (*sum_exp)(const float *z, int32_t n, float max, float scale);
	// forbid sets z to −inf where the mask has a 0.
	void (*forbid)(float *z, const uint32_t *mask, int32_t n);
	// keep moves the candidates with z ≥ least > −inf to the front of out and
	// out_ids, in order, and returns their number. out may be z; both have room
	// for 16 more.
	int32_t (*keep)(const float *z, const int32_t *ids, int32_t n, float least, float *out, int32_t *out_ids);
	// group_maxima sets out to the maxima of disjoint groups of up to 16 and
	// returns the number of groups. What is left over at the end is in none.
	int32_t (*group_maxima)(const float *z, int32_t n, float *out);
	// histogram counts, of each z with key >> above == prefix, the bits of its key from shift to above; above 32 means all.
	void (*histogram)(struct pg_buckets *b, const float *z, int32_t n, int above, uint32_t prefix, int shift);
	// draw returns the candidate's id with the largest z/temperature + Gumbel.
	int32_t (*draw)(const struct pg_draw *d);
};

extern const struct pg_sample_passes pg_sample_plain;
// Those of the plain passes that others share.
int32_t pg_plain_count_larger(const float *z, int32_t n, float than);
void pg_plain_forbid(float *z, const uint32_t *mask, int32_t n);
int32_t pg_plain_group_maxima(const float *z, int32_t n, float *out);
void pg_plain_histogram(struct pg_buckets *b, const float *z, int32_t n, int above, uint32_t prefix, int shift);
#ifdef __x86_64__
extern const struct pg_sample_passes pg_sample_avx2, pg_sample_avx512;
#endif

// pg_key orders floats descending as unsigned integers ascending; both zeros are
// one.
static inline uint32_t pg_key(float z) {
	union { float f; uint32_t u; } v = {z + 0.0f};
	return v.u >> 31 ? v.u : ~(v.u | 0x80000000u);
}

static inline float pg_unkey(uint32_t key) {
	union { uint32_t u; float f; } v = {key >> 31 ? key : ~key & 0x7fffffffu};
	return v.f;
}

// pg_score is z/temperature + kernels.Gumbel(…), exactly as Go computes it.
double pg_score(const struct pg_draw *d, float z, int32_t id);

// PG_GUMBEL_MAX is above the largest Gumbel value: −log(−log(1 − 2⁻²⁵)).
#define PG_GUMBEL_MAX 17.4
