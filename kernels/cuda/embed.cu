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

PG_KERNEL void embed(const __grid_constant__ EmbedParams p) {
	grid_wait();
	grid_trigger(); // not earlier: the layers and the sampler read what prepare writes without waiting
	if (p.entries && threadIdx.x == blockDim.x - 1 && blockIdx.x < p.header[H_SAMPLES]) { // beside the row, which takes two reads, too
		SampleEntry e = p.entries[blockIdx.x];
		p.whole[e.index] = !plain(p.state[e.row].params, e);
	}
	int row = p.tokens[blockIdx.x];
	float *out = p.hidden + blockIdx.x * p.ld;
	for (int i = threadIdx.x * 2; i < p.width; i += blockDim.x * 2) {
		float2 v = __half22float2(*reinterpret_cast<const half2 *>(weight_at(p.w, p.panel, row, i)));
		out[i] = v.x;
		if (i + 1 < p.width) out[i + 1] = v.y;
	}
}
