// Row state and sampling parameters, as kernels.Sampling has them, and the
// random numbers of kernels.Gumbel.
#pragma once

#include "common.cuh"

#define MAX_STOP_IDS 256
#define MAX_BIAS 1024
#define MAX_SPLITS 64
#define SPLIT 8192 // ids of a CTA
#define CHECK (-2) // a SampleEntry's mask: of kernels.SampleBatch.Checks

// IN_PROMPT is set in a row's count of an id that its prompt has; the other bits
// count the id in the output and stop at their maximum.
#define IN_PROMPT 0x8000u

struct TokenBias { int32_t id; float bias; };

struct RowParams {
	float temperature, top_p, min_p, repetition, presence, frequency;
	uint32_t seed[2]; // low and high word
	int32_t top_k, choice, prompt_len, min_tokens, logprobs, num_stop_ids, num_bias, penalties;
};
static_assert(sizeof(RowParams) == 64, "message.go: rowParams");

struct RowState {
	RowParams params;
	int32_t last_token; // that was drawn last; −1 after a failed row
	int32_t pad[3];
};
static_assert(sizeof(RowState) == 80, "layout.go: rowStateBytes");

struct SampleEntry {
	int32_t index;    // row of logits
	int32_t row;      // row state
	int32_t position; // of the drawn token
	int32_t mask;     // number of the mask, −1 = none, CHECK = draws for nobody
};
static_assert(sizeof(SampleEntry) == 16, "message.go: sampleEntry");

static __device__ __forceinline__ bool has_edits(const RowParams &p, const SampleEntry &e) {
	bool stops = e.position - p.prompt_len < p.min_tokens && p.num_stop_ids > 0;
	return stops || e.mask >= 0 || p.num_bias > 0 || p.penalties;
}

// plain says that all that is wanted of an entry's logits is the likeliest id.
static __device__ __forceinline__ bool plain(const RowParams &p, const SampleEntry &e) {
	return e.mask != CHECK && p.temperature == 0 && p.logprobs < 0 && !has_edits(p, e);
}

// gumbel_word is word 0 of kernels.Philox(seed, {id, position, choice, 0}).
static __device__ __forceinline__ uint32_t gumbel_word(const RowParams &p, uint32_t id, uint32_t position) {
	uint32_t k0 = p.seed[0], k1 = p.seed[1], c0 = id, c1 = position, c2 = p.choice, c3 = 0;
#pragma unroll
	for (int round = 0; round < 10; round++) {
		uint32_t h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
		uint32_t h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
		c0 = h1 ^ c1 ^ k0;
		c1 = l1;
		c2 = h0 ^ c3 ^ k1;
		c3 = l0;
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	return c0;
}

// score is z/temperature + kernels.Gumbel, as Go computes it.
static __device__ __forceinline__ double score_of(const RowParams &p, float z, uint32_t word) {
	double u = ((word >> 8) + 0.5) / (1 << 24);
	return (double)z / p.temperature + (double)(float)-log(-log(u));
}

// GUMBEL_MAX is above the largest noise, −log(−log(1 − 2⁻²⁵)).
#define GUMBEL_MAX 17.4f

// Best is the larger score, ties to the lower id; id −1 is nothing.
struct Best { double score; int32_t id; };

static __device__ __forceinline__ bool better(double score, int32_t id, const Best &than) {
	return than.id < 0 || score > than.score || (score == than.score && id < than.id);
}

// Drawer looks for the largest score among candidates, one thread's share. With
// u = 1 − x, −log u ≥ x, so that the noise is at most −log x and an id can beat the
// best score only if x ≤ exp(gap − best): few need their exact score.
struct Drawer {
	RowParams p;
	int32_t position;
	float first;   // z of the likeliest
	double origin; // its z/temperature
	Best best;

	__device__ Drawer(const RowParams &params, int32_t position, float z, int32_t id)
	    : p(params), position(position), first(z), origin((double)z / params.temperature),
	      best{score_of(params, z, gumbel_word(params, id, position)), id} {}

	__device__ __forceinline__ void see(float z, int32_t id) {
		float need = (float)(best.score - origin) - 1e-3f; // slack covers the rounding
		float gap = (z - first) / p.temperature - need;
		if (!(gap >= -GUMBEL_MAX)) return;
		uint32_t word = gumbel_word(p, id, position);
		float x = ((float)((1u << 24) - (word >> 8)) - 0.5f) * 0x1p-24f;
		if (x > __expf(gap) * 1.001f) return;
		double score = score_of(p, z, word);
		if (better(score, id, best)) best = {score, id};
	}
};

// warp_best reduces over a warp, block_best over the CTA; every thread gets the result. shared: one
// Best a warp.
static __device__ __forceinline__ Best warp_best(Best b) {
	for (int i = 16; i > 0; i /= 2) {
		double score = __shfl_xor_sync(~0u, b.score, i);
		int32_t id = __shfl_xor_sync(~0u, b.id, i);
		if (id >= 0 && better(score, id, b)) b = {score, id};
	}
	return b;
}
static __device__ __forceinline__ Best block_best(Best b, Best *shared) {
	b = warp_best(b);
	__syncthreads();
	if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = b;
	__syncthreads();
	b = shared[0];
	for (int i = 1; i < blockDim.x / 32; i++)
		if (shared[i].id >= 0 && better(shared[i].score, shared[i].id, b)) b = shared[i];
	__syncthreads();
	return b;
}
