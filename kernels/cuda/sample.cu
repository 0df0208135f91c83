// Sampling in the order of kernels.Sampling, without sorting. Three kernels, of
// which a check needs the first's NaN alone:
//
//   sample_edit    steps 1 to 3 of a row's 8,192 ids by one CTA: maxima, the raw
//                  log-sum's part, NaN. Rows that nothing changes are not copied
//   sample_draw    Gumbel-max over the same ids; one more CTA for rows with
//                  min_p, top_k or top_p, see sample_filter.cuh
//   sample_finish  the row's token by one CTA, its log probability and rank, the
//                  likeliest ids, counts and last token; results go to mapped host
//                  memory. Of a row of which the head left Tops alone, all there is
//                  to do: the best of them
//
// Of the first two many rows share CTAs, and each lets the next kernel begin before it waits: a CTA
// all of whose rows have Tops knows by then that it has nothing to do, and sample_finish is there
// when the head ends.
//
// Every number is summed in one order, or as integers, so that a row does not
// depend on its neighbours nor on scheduling. Bytes: logits once or twice, edited
// rows twice more, nearly all from L2; of a row with Tops alone, those, 8 bytes each.
//
// Measured by what leaving it out of a step saves (BenchmarkWithout, H100 80GB HBM3, 2026-11-26), greedy
// rows of 151,936 ids, all of whose logits are there, each with CTAs of its own then: 35 µs with 64, 63 with 256, 2.5 TB/s, 74 % of 3.35.
#include "sample_filter.cuh"

// penalized is step 3 for an id with the count.
static __device__ __forceinline__ float penalized(const RowParams &p, float z, uint32_t count) {
	if (count == 0) return z;
	float r = p.repetition == 0 ? 1 : p.repetition;
	float times = count & (IN_PROMPT - 1);
	z = z > 0 ? z / r : z * r;
	z = __fsub_rn(z, __fmul_rn(p.frequency, times));
	return times > 0 ? z - p.presence : z;
}

// edit applies steps 1 to 3 to z, the logits of ids first … first+n−1.
static __device__ void edit(const SampleParams &p, const RowParams &r, const SampleEntry &e, float *z, int first, int n) {
	for (int i = threadIdx.x; i < r.num_bias; i += blockDim.x) {
		TokenBias b = p.bias[e.row * MAX_BIAS + i]; // distinct ids
		if (b.id >= first && b.id < first + n) z[b.id - first] += b.bias;
	}
	__syncthreads();
	const uint16_t *counts = p.counts + e.row * p.counts_stride + first;
	const uint32_t *mask = e.mask < 0 ? nullptr : p.masks + (int64_t)e.mask * p.mask_words;
	for (int i = threadIdx.x; i < n; i += blockDim.x) { // penalties keep −inf, so they may go first
		if (r.penalties) z[i] = penalized(r, z[i], counts[i]);
		int id = first + i;
		if (mask && !(mask[id / 32] >> (id % 32) & 1)) z[i] = -INFINITY;
	}
	__syncthreads();
	bool stops = e.position - r.prompt_len < r.min_tokens;
	for (int i = threadIdx.x; stops && i < r.num_stop_ids; i += blockDim.x) {
		int id = p.stop_ids[e.row * MAX_STOP_IDS + i];
		if (id >= first && id < first + n) z[id - first] = -INFINITY;
	}
	__syncthreads();
}

// raw_stats sets the part's numbers of the raw logits.
static __device__ void raw_stats(Part &part, const float *z, int n, bool sum, float *shared) {
	float largest = -INFINITY, total = 0;
	bool bad = false;
	for (int i = threadIdx.x; i < n; i += blockDim.x) {
		largest = fmaxf(largest, z[i]);
		bad |= z[i] != z[i] || z[i] == INFINITY;
	}
	part.bad = __syncthreads_or(bad);
	part.raw_max = block_max(largest, shared);
	if (!sum) return;
	if (part.raw_max > -INFINITY)
		for (int i = threadIdx.x; i < n; i += blockDim.x) total += expf(z[i] - part.raw_max);
	part.raw_sum = block_sum(total, shared);
}

// plain_part is the part of a row that nothing changes and whose log probability nobody
// asked for: read once, a thread's logits all at a time. With branches the compiler asks for four of eight, then looks.
static __device__ Part plain_part(const SampleParams &p, const float *z, int first, int n, Largest *shared) {
	constexpr int EACH = SPLIT / 4 / 256;
	float4 v[EACH];
#pragma unroll
	for (int i = 0; i < EACH; i++) {
		int at = 4 * (threadIdx.x + 256 * i); // rows are padded to whole float4
		if (at < n) v[i] = __ldcs(reinterpret_cast<const float4 *>(z + at));
	}
	Largest l = {-INFINITY, -1};
	int drawn = min(n, p.sample_vocab - first); // may be negative
	bool bad = false;
#pragma unroll
	for (int i = 0; i < EACH; i++) {
		float four[4] = {v[i].x, v[i].y, v[i].z, v[i].w};
#pragma unroll
		for (int j = 0; j < 4; j++) {
			int at = 4 * (threadIdx.x + 256 * i) + j;
			bad |= (at < n) & !(four[j] < INFINITY);
			if ((at < drawn) & (four[j] > l.z)) l = {four[j], first + at};
		}
	}
	Part part = {};
	part.bad = __syncthreads_or(bad);
	l = block_largest(l, shared);
	part.max = l.z, part.raw_max = l.z, part.id = l.id;
	return part;
}

// Entry is what the three kernels read of one before the kernel before has ended: prepare wrote it,
// before the layers began or behind the sampler's message.
struct Entry {
	SampleEntry e = {};
	RowParams r = {};
	bool there;

	__device__ __forceinline__ Entry(const SampleParams &p, int i) : there(i < p.header[H_SAMPLES]) {
		if (!there) return;
		e = p.entries[i];
		r = p.state[e.row].params;
		asm volatile("" ::: "memory"); // asked for at once, not by each condition
	}
	// tops says whether the head left Tops alone: then there are no parts.
	__device__ __forceinline__ bool tops(const SampleParams &p) const { return there && p.tops > 0 && plain(r, e); }
	__device__ __forceinline__ bool draws() const { return there && r.temperature != 0 && e.mask != CHECK; }
	// filters says of one that draws whether all of its ids are one CTA's work.
	__device__ __forceinline__ bool filters(const SampleParams &p) const {
		return r.min_p > 0 || (r.top_k > 0 && r.top_k < p.sample_vocab) || (r.top_p > 0 && r.top_p < 1);
	}
};

// split_part is the CTA's part of a row. Behind one row's the CTA may begin another's: what is in shared
// memory is read before the last barrier, or written behind the next.
static __device__ Part split_part(const SampleParams &p, const Entry &entry) {
	__shared__ float z[SPLIT], shared[8];
	__shared__ Largest best[8];
	const SampleEntry &e = entry.e;
	const RowParams &r = entry.r;
	int first = blockIdx.x * SPLIT, n = min(SPLIT, p.vocab - first);
	const float *logits = p.logits + e.index * p.ld + first;
	bool edits = has_edits(r, e);
	if (e.mask == CHECK || (!edits && r.logprobs < 0)) return plain_part(p, logits, first, n, best);
	for (int i = threadIdx.x; i < n; i += blockDim.x) z[i] = logits[i];
	__syncthreads();
	Part part = {};
	raw_stats(part, z, n, r.logprobs >= 0, shared);
	n = min(n, p.sample_vocab - first); // may be negative
	if (edits) edit(p, r, e, z, first, max(n, 0));
	Largest l = {-INFINITY, -1};
	float *out = p.edited + e.index * p.ld + first;
	for (int i = threadIdx.x; i < n; i += blockDim.x) {
		if (z[i] > l.z) l = {z[i], first + i};
		if (edits) out[i] = z[i];
	}
	l = block_largest(l, best);
	part.max = l.z;
	part.id = l.id;
	return part;
}

// A CTA has every gridDim.y-th row, up to 32: a lane looks at one, before the kernel before has ended.
PG_KERNEL void __launch_bounds__(256, 4) sample_edit(const __grid_constant__ SampleParams p) {
	const Entry mine(p, blockIdx.y + threadIdx.x % 32 * gridDim.y);
	uint32_t rows = __ballot_sync(~0u, mine.there && !mine.tops(p));
	grid_trigger();
	grid_wait(rows);
	for (; rows; rows &= rows - 1) {
		int entry = blockIdx.y + (__ffs(rows) - 1) * gridDim.y;
		Part part = split_part(p, Entry(p, entry));
		if (threadIdx.x == 0) p.parts[entry * MAX_SPLITS + blockIdx.x] = part;
	}
}

// row_of combines a row's parts, in every warp: a lane asks for one or two.
static __device__ Row row_of(const SampleParams &p, int entry) {
	Row row = {{-INFINITY, -1}, -INFINITY, false};
	for (int i = threadIdx.x % 32; i < p.splits; i += 32) {
		const Part part = p.parts[entry * MAX_SPLITS + i];
		if (part.id >= 0 && part.max > row.first.z) row.first = {part.max, part.id};
		row.raw_max = fmaxf(row.raw_max, part.raw_max);
		row.bad |= part.bad;
	}
	row.first = warp_largest(row.first);
	row.raw_max = warp_max(row.raw_max);
	row.bad = __any_sync(~0u, row.bad);
	row.bad |= row.first.id < 0 || row.first.z == INFINITY;
	return row;
}

// draw finds a row's best id of SPLIT, or, whole, of all that its filters leave.
static __device__ void draw(const SampleParams &p, int entry, bool whole) {
	__shared__ Best shared[16];
	const Entry of(p, entry);
	const SampleEntry &e = of.e;
	Row row = row_of(p, entry);
	if (row.bad) return;
	Drawer drawer(of.r, e.position, row.first.z, row.first.id);
	const float *z = (has_edits(of.r, e) ? p.edited : p.logits) + e.index * p.ld;
	if (whole) {
		draw_filtered(drawer, z, p.sample_vocab);
	} else {
		int first = blockIdx.x * SPLIT, end = min(first + SPLIT, p.sample_vocab);
		for (int id = first + threadIdx.x; id < end; id += blockDim.x) drawer.see(z[id], id);
	}
	Best best = block_best(drawer.best, shared);
	if (threadIdx.x == 0) p.draws[entry * MAX_SPLITS + (whole ? 0 : blockIdx.x)] = best;
}

// Rows are dealt as those of sample_edit.
PG_KERNEL void __launch_bounds__(512, 2) sample_draw(const __grid_constant__ SampleParams p) {
	bool whole = blockIdx.x == p.splits; // the CTA that filters
	const Entry mine(p, blockIdx.y + threadIdx.x % 32 * gridDim.y);
	uint32_t rows = __ballot_sync(~0u, mine.draws() && mine.filters(p) == whole);
	grid_trigger();
	grid_wait(rows);
	for (; rows; rows &= rows - 1) draw(p, blockIdx.y + (__ffs(rows) - 1) * gridDim.y, whole);
}

// drawn is the row's token.
static __device__ int drawn(const SampleParams &p, const Entry &of, const Row &row, int entry) {
	if (row.bad) return -1;
	if (of.r.temperature == 0) return row.first.id;
	if (of.filters(p)) return p.draws[entry * MAX_SPLITS].id;
	Best best = {-INFINITY, -1};
	int used = (p.sample_vocab + SPLIT - 1) / SPLIT;
	for (int i = threadIdx.x % 32; i < used; i += 32) {
		Best other = p.draws[entry * MAX_SPLITS + i];
		if (other.id >= 0 && better(other.score, other.id, best)) best = other;
	}
	return warp_best(best).id;
}

// row_of_tops finds the best of a row's Tops, by 512 threads: `mine` is a thread's first two, and it asks for
// two of every 1,024, EACH times, before it looks at any. The row has room for one behind an odd last.
static __device__ Row row_of_tops(const SampleParams &p, const float4 *mine) {
	constexpr int EACH = 10; // two rounds for 19,000 Tops
	__shared__ Largest shared[16];
	Largest l = {-INFINITY, -1};
	auto see = [&](float z, float bits) { // by ascending ids
		int id = __float_as_int(bits);
		if (id >= 0 && z > l.z) l = {z, id};
		if (id == TOP_BAD) l = {INFINITY, 0}; // nothing is larger
	};
	for (int left = p.tops - 2 * threadIdx.x; left > 0; left -= EACH * 1024, mine += EACH * 512) {
		float4 v[EACH];
#pragma unroll
		for (int i = 0; i < EACH; i++)
			if (i * 1024 < left) v[i] = mine[i * 512];
#pragma unroll
		for (int i = 0; i < EACH; i++) {
			if (i * 1024 >= left) break;
			see(v[i].x, v[i].y);
			if (i * 1024 + 1 < left) see(v[i].z, v[i].w);
		}
	}
	l = block_largest(l, shared);
	return {l, -INFINITY, l.id < 0 || l.z == INFINITY};
}

PG_KERNEL void __launch_bounds__(512) sample_finish(const __grid_constant__ SampleParams p) {
	int entry = blockIdx.x;
	const Entry of(p, entry);
	const SampleEntry &e = of.e;
	const RowParams &r = of.r;
	bool tops = of.tops(p);
	const float *z = p.logits + e.index * p.ld;
	const float4 *mine = reinterpret_cast<const float4 *>(z) + threadIdx.x;
	int32_t *last_token = &p.state[e.row].last_token;
	int32_t *out = p.results + (int64_t)p.header[RESULT_SLOT] * p.result_words; // the slot is older, too
	grid_wait(tops, mine, last_token, out);
	grid_trigger();
	if (!of.there) return;
	if (e.mask == CHECK) {
		bool bad = false;
		for (int i = 0; i < p.splits; i++) bad |= p.parts[entry * MAX_SPLITS + i].bad;
		if (threadIdx.x == 0) out[entry] = bad ? -1 : 0;
		return;
	}
	Row row = tops ? row_of_tops(p, mine) : row_of(p, entry);
	int id = drawn(p, of, row, entry);
	if (threadIdx.x == 0) {
		*last_token = id;
		out[entry] = id;
		uint16_t *count = p.counts + e.row * p.counts_stride + max(id, 0);
		if (id >= 0 && r.penalties && (*count & (IN_PROMPT - 1)) < IN_PROMPT - 1) ++*count;
	}
	if (id < 0 || r.logprobs < 0) return;
	double sum = 0;
	for (int i = 0; i < p.splits; i++) {
		const Part &part = p.parts[entry * MAX_SPLITS + i];
		if (part.raw_max > -INFINITY) sum += part.raw_sum * exp((double)part.raw_max - row.raw_max);
	}
	double log_sum = row.raw_max + log(sum);
	int larger = 0;
	for (int i = threadIdx.x; i < p.vocab; i += blockDim.x) larger += z[i] > z[id];
	__shared__ int total;
	if (threadIdx.x == 0) total = 0;
	__syncthreads();
	atomicAdd(&total, larger);
	__syncthreads();
	if (threadIdx.x == 0) {
		reinterpret_cast<float *>(out)[p.capacity + entry] = (float)(z[id] - log_sum);
		out[2 * p.capacity + entry] = 1 + total;
	}
	int at = 3 * p.capacity + entry * p.max_top;
	likeliest(z, p.vocab, min(r.logprobs, p.max_top), out + at, reinterpret_cast<float *>(out) + at + p.capacity * p.max_top, log_sum);
}
