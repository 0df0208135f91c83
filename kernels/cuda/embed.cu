// hidden[t] = w[tokens[t]], half widened to float. One CTA a token. Bytes: 6 an
// element; once a step, of latency.
#include "sampling.cuh"

struct EmbedParams {
	const int32_t *tokens; // [tokens]
	const half *w;         // [width/64][vocab][64]
	float *hidden;         // [tokens][ld]
	int64_t panel, ld;
	// Of a step whose sample entries are there already, else NULL:
	const SampleEntry *entries;
	const RowState *state;
	const int32_t *header;
	uint8_t *whole; // [logit rows], see Epilogue
	int32_t width, pad;
};
static_assert(sizeof(EmbedParams) == 80, "embed.go");

constexpr int EACH = 2; // eights of columns that a thread asks for at once

PG_KERNEL void embed(const __grid_constant__ EmbedParams p) {
	int k = threadIdx.x * 8, turn = blockDim.x * 8; // the padding of w is zero, and may be copied
	const half *w = weight_at(p.w, p.panel, 0, k);  // of token 0
	int64_t further = blockDim.x / 8 * p.panel;     // in whole panels, for threads are whole warps
	const int32_t *token = p.tokens + blockIdx.x;
	float *out = p.hidden + blockIdx.x * p.ld + k;
	grid_wait(w, further, token, out);
	int id = *token;
	grid_trigger(); // not earlier: the layers and the sampler read what prepare writes without waiting
	if (p.entries && threadIdx.x == blockDim.x - 1 && blockIdx.x < p.header[H_SAMPLES]) { // beside the row, of which this warp mostly has nothing
		SampleEntry e = p.entries[blockIdx.x];
		RowParams r = p.state[e.row].params;
		asm volatile("" ::: "memory"); // asked for at once, not by each condition
		p.whole[e.index] = !plain(r, e);
	}
	w += id * int64_t(64);
	for (; k < p.width; k += EACH * turn, w += EACH * further, out += EACH * turn) {
		uint4 v[EACH];
#pragma unroll
		for (int i = 0; i < EACH; i++)
			if (k + i * turn < p.width) v[i] = *reinterpret_cast<const uint4 *>(w + i * further);
#pragma unroll
		for (int i = 0; i < EACH; i++) {
			if (k + i * turn >= p.width) break;
			const half2 *h = reinterpret_cast<const half2 *>(v + i);
			float2 a = __half22float2(h[0]), b = __half22float2(h[1]), c = __half22float2(h[2]), d = __half22float2(h[3]);
			float4 *to = reinterpret_cast<float4 *>(out + i * turn);
			to[0] = {a.x, a.y, b.x, b.y}, to[1] = {c.x, c.y, d.x, d.y};
		}
	}
}
