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

// Noise is what kernels.Gumbel takes beside an id.
struct Noise {
	uint32_t seed[2];
	int32_t choice, position;

	// word is word 0 of kernels.Philox(seed, {id, position, choice, 0}).
	__device__ __forceinline__ uint32_t word(uint32_t id) const {
		uint32_t k0 = seed[0], k1 = seed[1], c0 = id, c1 = position, c2 = choice, c3 = 0;
		asm volatile("" : "+r"(k0), "+r"(k1)); // or the compiler keeps the keys of all rounds, and spills them
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
};

// score_of is z/temperature + kernels.Gumbel, as Go computes it.
static __device__ __noinline__ double score_of(Noise noise, float temperature, float z, int32_t id) {
	double u = ((noise.word(id) >> 8) + 0.5) / (1 << 24);
	return (double)z / temperature + (double)(float)-log(-log(u));
}

// noise_of is kernels.Gumbel to 10⁻⁵, by the quick logarithm; of u near 1, where that has few digits of −log u, by its series.
static __device__ __forceinline__ float noise_of(uint32_t word) {
	constexpr uint32_t HALF = 1u << 23;
	uint32_t m = word >> 8;
	bool low = m < HALF;
	float t = ((float)(low ? m : 2 * HALF - 1 - m) + 0.5f) * 0x1p-24f; // u, or 1 − u
	float series = t * (1 + t * (0.5f + t * (0.3333333f + t * (0.25f + t * 0.2f))));
	return -__logf(!low && t < 0.1f ? series : -__logf(low ? t : 1 - t));
}

// GUMBEL_MAX is above the largest noise, −log(−log(1 − 2⁻²⁵)). Scores within SLACK of each other are compared exactly.
#define GUMBEL_MAX 17.4f
#define SLACK 1e-4f

// Best is the larger score, ties to the lower id; id −1 is nothing.
struct Best { double score; int32_t id; };

static __device__ __forceinline__ bool better(double score, int32_t id, const Best &than) {
	return than.id < 0 || score > than.score || (score == than.score && id < than.id);
}

// Drawn is a candidate, or none with id −1: what its score has beside z/temperature.
struct Drawn { float noise; int32_t id; };
static_assert(sizeof(Drawn) == 8, "workspace.go: drawnBytes");

// Drawer looks for the largest score among candidates, one thread's share, by scores that are right to 10⁻⁵; exact ones are two
// logarithms and a division in double precision, and made where two are within SLACK.
struct Drawer {
	Noise noise;
	float temperature, scale; // and 1/temperature
	float origin;             // z that scores are relative to here
	float best;               // score
	float z = 0;              // of the candidate that has it
	int32_t id = -1;

	// z, of the id, is the likeliest: some thread will see it, and none has to look at what cannot be better.
	__device__ __forceinline__ Drawer(const RowParams &p, int32_t position, float z, int32_t id)
	    : noise{{p.seed[0], p.seed[1]}, p.choice, position}, temperature(p.temperature), scale(fminf(1 / p.temperature, 3e38f)), origin(z) {
		best = noise_of(noise.word(id));
	}
	__device__ __forceinline__ float gap(float z) const { return (z - origin) * scale; }
	// may says whether a candidate has a chance: most have none, whatever their noise.
	__device__ __forceinline__ bool may(float z) const { return gap(z) >= best - (GUMBEL_MAX + SLACK); }
	__device__ __forceinline__ void see(float z, int32_t id) { take(z, {noise_of(noise.word(id)), id}); }
	__device__ __forceinline__ void take(float z, const Drawn &d) {
		float score = gap(z) + d.noise;
		if (score < best - SLACK) return;
		if (id >= 0 && score < best + SLACK && !better(exactly(z, d.id).score, d.id, exactly(this->z, id))) return;
		best = score, this->z = z, id = d.id;
	}
	__device__ __forceinline__ Best exactly(float z, int32_t id) const { return {score_of(noise, temperature, z, id), id}; }
	// near says whether the thread's best may be that of several, of whose scores one is given.
	__device__ __forceinline__ bool near(float largest) const { return id >= 0 && best >= largest - SLACK; }
	// exact is the thread's Best if it may be that of several, else nothing.
	__device__ __forceinline__ Best exact(float largest) const {
		if (near(largest)) return exactly(z, id);
		return {-INFINITY, -1};
	}
	__device__ __forceinline__ Drawn drawn() const { return {best - gap(z), id}; }
};

// takes_top_k says whether top_k leaves out any of n ids.
static __device__ __forceinline__ bool takes_top_k(const RowParams &p, int n) { return p.top_k > 0 && p.top_k < n; }

// warp_best reduces over LANES of a warp, which get the result.
template <int LANES = 32> static __device__ __forceinline__ Best warp_best(Best b) {
	for (int i = LANES / 2; i > 0; i /= 2) {
		double score = __shfl_xor_sync(~0u, b.score, i);
		int32_t id = __shfl_xor_sync(~0u, b.id, i);
		if (id >= 0 && better(score, id, b)) b = {score, id};
	}
	return b;
}

// block_best reduces over the CTA; every thread gets the result. shared: one Best a warp.
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
