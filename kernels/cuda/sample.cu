// Sampling in the order of kernels.Sampling, without sorting. Two kernels, of
// which a check needs the first's NaN alone:
//
//   sample_split   a row's 8,192 ids by one CTA: steps 1 to 3, maxima, the raw log-sum's
//                  part, NaN, and, where the row draws, Gumbel-max. Logits are read once, a
//                  thread's all at a time; rows that nothing changes are not copied
//   sample_finish  the row's token by one CTA, what min_p, top_k and top_p leave of it
//                  (sample_filter.cuh), its log probability and rank, the likeliest ids,
//                  counts and last token; results go to mapped host memory. Of a row of
//                  which the head left Tops alone, all there is to do: the best of them
//
// Many rows' parts share the first's CTAs, and it lets the second begin before it waits: a CTA
// whose first parts are all of rows with Tops knows by then that it has nothing to do with them, and
// sample_finish is there when the head ends.
//
// Every number is summed in one order, or as integers, so that a row does not
// depend on its neighbours nor on scheduling. Bytes: logits once or twice, edited
// rows twice more, nearly all from L2; of a row with Tops alone, those, 8 bytes each.
//
// Measured (BenchmarkDrawn, 0.5B, H200, 2026-11-28) as what a step takes longer than a greedy one, which leaves Tops, of rows of
// 151,936 ids, the head's stores of their logits included: temperature, top_k and top_p, log probabilities with 64 rows 116, 48 and
// 57 µs, with 256 335, 114 and 140, where 156 MB are written and read once, 68 µs at 4.6 TB/s.
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

// Entry is what both kernels read of one, which may be before the kernel before has ended: prepare wrote it,
// before the layers began or behind the sampler's message.
struct Entry {
	SampleEntry e = {};
	RowParams r = {};
	int number;
	bool there;

	__device__ __forceinline__ Entry(const SampleParams &p, int i) : number(i), there(i < p.header[H_SAMPLES]) {
		if (!there) return;
		e = p.entries[i];
		r = p.state[e.row].params;
		asm volatile("" ::: "memory"); // asked for at once, not by each condition
	}
	// tops says whether the head left Tops alone: then there are no parts.
	__device__ __forceinline__ bool tops(const SampleParams &p) const { return there && p.tops > 0 && plain(r, e); }
};

static __device__ __forceinline__ float half_max(float x) {
	for (int i = 8; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
	return x;
}

// leave_best leaves the best of a group, which half a warp has, or none where the part's likeliest is better than all of it.
static __device__ __forceinline__ void leave_best(const Drawer &d, Drawn *to) {
	float most = half_max(d.best);
	uint32_t near = __ballot_sync(~0u, d.near(most)) & 0xFFFFu << threadIdx.x % 32 / 16 * 16;
	int32_t best = __shfl_sync(~0u, d.id, max(__ffs(near) - 1, 0));
	if (near == 0) best = -1;
	if (__any_sync(~0u, near & (near - 1))) best = warp_best<16>(d.exact(most)).id;
	if (best >= 0 && d.id == best) *to = d.drawn();
	if (best < 0 && threadIdx.x % 16 == 0) *to = {0, -1};
}

// split_part is the CTA's part of a row. Behind one row's the CTA may begin another's: what is in shared memory is written
// behind the first barrier.
static __device__ Part split_part(const SampleParams &p, const Entry &entry, int split) {
	constexpr int EACH = SPLIT / 4 / SPLITTERS;
	__shared__ __align__(16) float edited[SPLIT];
	__shared__ float shared[SPLITTERS / 32];
	__shared__ Largest largest[SPLITTERS / 32];
	const SampleEntry &e = entry.e;
	const RowParams &r = entry.r;
	int first = split * SPLIT, all = min(SPLIT, p.vocab - first), n = max(min(all, p.sample_vocab - first), 0); // ids; that can be drawn
	const float *z = p.logits + e.index * p.ld + first;
	auto at = [](int i) { return 4 * ((int)threadIdx.x + SPLITTERS * (i / 4)) + i % 4; }; // of v[i]
	float v[4 * EACH];
#pragma unroll
	for (int i = 0; i < EACH; i++) // rows are padded to whole float4
		if (at(4 * i) < all) *reinterpret_cast<float4 *>(v + 4 * i) = *reinterpret_cast<const float4 *>(z + at(4 * i));
	int group = split * GROUPS + threadIdx.x / 16;
	float *maxima = p.maxima + entry.number * 2 * MAX_GROUPS + group;
	auto leave = [&](float *to, float most) {
		most = half_max(most);
		if (threadIdx.x % 16 == 0) *to = most;
	};
	Part part = {};
	bool bad = false;
#pragma unroll
	for (int i = 0; i < 4 * EACH; i++) bad |= (at(i) < all) & !(v[i] < INFINITY);
	part.bad = __syncthreads_or(bad);
	if (e.mask == CHECK) return part;
	if (r.logprobs >= 0) {
		float most = -INFINITY, sum = 0;
#pragma unroll
		for (int i = 0; i < 4 * EACH; i++)
			if (at(i) < all) most = fmaxf(most, v[i]);
		leave(maxima + MAX_GROUPS, most);
		part.raw_max = most = block_max(most, shared);
#pragma unroll
		for (int i = 0; i < 4 * EACH; i++)
			if (at(i) < all && most > -INFINITY) sum += expf(v[i] - most);
		part.raw_sum = block_sum(sum, shared);
	}
	if (has_edits(r, e)) {
#pragma unroll
		for (int i = 0; i < EACH; i++) *reinterpret_cast<float4 *>(edited + at(4 * i)) = *reinterpret_cast<float4 *>(v + 4 * i);
		__syncthreads();
		edit(p, r, e, edited, first, n);
		z = edited;
#pragma unroll
		for (int i = 0; i < EACH; i++) {
			if (at(4 * i) >= n) continue;
			float4 four = *reinterpret_cast<float4 *>(edited + at(4 * i));
			*reinterpret_cast<float4 *>(v + 4 * i) = four;
			if (r.temperature != 0) *reinterpret_cast<float4 *>(p.edited + e.index * p.ld + first + at(4 * i)) = four;
		}
	}
	Largest l = {-INFINITY, -1};
#pragma unroll
	for (int i = 0; i < 4 * EACH; i++)
		if ((at(i) < n) & (v[i] > l.z)) l = {v[i], first + at(i)};
	if (r.temperature != 0) leave(maxima, l.z);
	l = block_largest(l, largest);
	part.max = l.z, part.id = l.id;
	if (r.temperature == 0 || takes_top_k(r, p.sample_vocab) || l.id < 0) return part;
	Drawer d(r, e.position, l.z, l.id);
	if (r.top_p > 0 && r.top_p < 1) {
		float sum = 0;
#pragma unroll
		for (int i = 0; i < 4 * EACH; i++)
			if (at(i) < n) sum += __expf(d.gap(v[i]));
		part.mass = block_sum(sum, shared);
	}
	uint32_t may = 0;
#pragma unroll
	for (int i = 0; i < 4 * EACH; i++)
		if (at(i) < n && d.may(v[i])) may |= 1u << i;
	for (; may; may &= may - 1) { // one body for what few come to: it is long
		int i = at(__ffs(may) - 1);
		d.see(z[i], first + i);
	}
	leave_best(d, p.draws + entry.number * MAX_GROUPS + group);
	return part;
}

// A CTA has every gridDim.x-th part of all rows. A lane looks at one, the first 32 before the kernel before has ended.
PG_KERNEL void __launch_bounds__(SPLITTERS, 3) sample_split(const __grid_constant__ SampleParams p) {
	int all = p.header[H_SAMPLES] * p.splits;
	for (int first = blockIdx.x; first == blockIdx.x || first < all; first += 32 * gridDim.x) {
		const Entry mine(p, (first + threadIdx.x % 32 * gridDim.x) / p.splits);
		uint32_t parts = __ballot_sync(~0u, mine.there && !mine.tops(p));
		if (first == blockIdx.x) {
			grid_trigger();
			grid_wait(parts);
		}
		for (; parts; parts &= parts - 1) {
			int at = first + (__ffs(parts) - 1) * gridDim.x, entry = at / p.splits, split = at - entry * p.splits;
			Part part = split_part(p, Entry(p, entry), split);
			if (threadIdx.x == 0) p.parts[entry * MAX_SPLITS + split] = part;
		}
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

// drawn is the row's token.
static __device__ int drawn(const SampleParams &p, const Entry &of, const Row &row, FilterShared &shared) {
	const RowParams &r = p.state[of.e.row].params; // read again: its registers are wanted
	if (row.bad) return -1;
	if (r.temperature == 0) return row.first.id;
	float scale = fminf(1 / r.temperature, 3e38f);
	double mass = 0;
	for (int i = threadIdx.x % 32; i < p.splits; i += 32) {
		const Part &part = p.parts[of.number * MAX_SPLITS + i];
		mass += part.mass * __expf((part.max - row.first.z) * scale);
	}
	mass = warp_sum(mass);
	const float *z = (has_edits(r, of.e) ? p.edited : p.logits) + of.e.index * p.ld;
	const Logits logits(z, p.sample_vocab, p.maxima + of.number * 2 * MAX_GROUPS, shared);
	const Drawn *draws = takes_top_k(r, p.sample_vocab) ? nullptr : p.draws + of.number * MAX_GROUPS;
	return Filter{logits, r, of.e.position, row.first, scale, p.parts + of.number * MAX_SPLITS, draws}.draw(mass);
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

PG_KERNEL void __launch_bounds__(FINISHERS, 2) sample_finish(const __grid_constant__ SampleParams p) {
	__shared__ FilterShared shared;
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
	int id = drawn(p, of, row, shared);
	if (threadIdx.x == 0) {
		*last_token = id;
		out[entry] = id;
		uint16_t *count = p.counts + e.row * p.counts_stride + max(id, 0);
		if (id >= 0 && r.penalties && (*count & (IN_PROMPT - 1)) < IN_PROMPT - 1) ++*count;
	}
	if (id < 0 || r.logprobs < 0) return;
	double sum = 0;
	for (int i = threadIdx.x % 32; i < p.splits; i += 32) {
		const Part &part = p.parts[entry * MAX_SPLITS + i];
		if (part.raw_max > -INFINITY) sum += part.raw_sum * exp((double)part.raw_max - row.raw_max);
	}
	double log_sum = row.raw_max + log(warp_sum(sum));
	const Logits logits(z, p.vocab, p.maxima + (entry * 2 + 1) * MAX_GROUPS, shared);
	int larger = 0;
	float chosen = z[id];
	logits.each(chosen, [&](float z, int) { larger += z > chosen; });
	larger = warp_sum(larger);
	__shared__ int total;
	if (threadIdx.x == 0) total = 0;
	__syncthreads();
	if (threadIdx.x % 32 == 0) atomicAdd(&total, larger);
	__syncthreads();
	if (threadIdx.x == 0) {
		reinterpret_cast<float *>(out)[p.capacity + entry] = (float)(chosen - log_sum);
		out[2 * p.capacity + entry] = 1 + total;
	}
	int at = 3 * p.capacity + entry * p.max_top;
	likeliest(logits, min(r.logprobs, p.max_top), out + at, reinterpret_cast<float *>(out) + at + p.capacity * p.max_top, log_sum);
}
