// Penalty state of one row from its ids: bit 15 for ids of the prompt, the low
// bits count those of the output. One thread an id; counts share words, so that
// they change by compare-and-swap. The row was cleared before.
#include "sampling.cuh"

struct CountsParams {
	const int32_t *ids; // prompt, then output
	uint16_t *counts;   // [vocab] of the row, 4-byte aligned
	int32_t prompt, total;
};
static_assert(sizeof(CountsParams) == 24, "counts.go");

PG_KERNEL void counts(const __grid_constant__ CountsParams p) {
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= p.total) return;
	int id = p.ids[i], shift = id % 2 * 16;
	uint32_t *word = reinterpret_cast<uint32_t *>(p.counts) + id / 2;
	if (i < p.prompt) {
		atomicOr(word, IN_PROMPT << shift);
		return;
	}
	for (uint32_t old = *word, seen;; old = seen) {
		uint32_t count = old >> shift & (IN_PROMPT - 1);
		if (count == IN_PROMPT - 1) return;
		seen = atomicCAS(word, old, old + (1u << shift));
		if (seen == old) return;
	}
}
