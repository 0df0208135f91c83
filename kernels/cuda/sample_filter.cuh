// One CTA's work on a row of logits: what min_p, top_k and top_p leave of it, and the likeliest ids.
//
// Every filter keeps a prefix of the ids in descending order, ties by ascending id: what is within a Cut. A row is read
// as often as it takes and nothing is sorted but what fits into a list:
//
//   top_k   what is not below the k-th largest of the threads' own maxima is hardly more than k ids: a list, which is
//           sorted, cut and drawn from. Where k is large, or equals are many, the cut is found by counts of 2,048
//           buckets, 11 bits of the keys at a time (radix selection)
//   top_p   the id with the largest score of all is drawn if the sum before it is less than top_p. If not, it is cut
//           off with all behind it, and the next is the best of those before it: a prefix has the draw if its end has not
//           been kept, so nothing needs to know where top_p cuts (the pivots of FlashInfer's rejection sampling, 2025).
//           With real logits one look is mostly enough
#pragma once

#include "sampling.cuh"

constexpr int FINISHERS = 512; // threads of a CTA of sample_finish

enum { RESULT_SLOT = 13 }; // of the header: prepare.cu, M_SLOT

// Part is what one CTA of sample_split found in its ids.
struct Part {
	float max; // after steps 1 to 3
	int32_t id;
	float raw_max, raw_sum; // Σ exp(z − raw_max), where log probabilities are wanted
	int32_t bad;            // a NaN or +inf among the raw logits
};

struct SampleParams {
	const float *logits;
	float *edited; // like logits: rows after steps 1 to 3, where they change any
	int64_t ld;
	RowState *state;
	const int32_t *stop_ids;
	const TokenBias *bias;
	uint16_t *counts; // [max_seqs][counts_stride]
	int64_t counts_stride;
	const SampleEntry *entries;
	const uint32_t *masks; // [·][mask_words]
	const int32_t *header;
	Part *parts;      // [entries][MAX_SPLITS]
	Best *draws;      // [entries][MAX_SPLITS], of rows that draw without top_k
	int32_t *results; // ring of result_words: tokens, logprobs, ranks [capacity], top ids and logprobs [capacity][max_top]
	int64_t result_words;
	int32_t mask_words, vocab, sample_vocab, splits, capacity, max_top;
	int32_t tops; // that the head left of each plain row; 0: all logits are there
	int32_t pad;
};
static_assert(sizeof(SampleParams) == 152, "sample.go");

struct Largest { float z; int32_t id; };

// Row is the parts of a row together.
struct Row {
	Largest first; // the likeliest after steps 1 to 3
	float raw_max;
	bool bad;
};

static __device__ __forceinline__ float block_max(float x, float *shared) {
	x = warp_max(x);
	__syncthreads();
	if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
	__syncthreads();
	for (int i = 0; i < blockDim.x / 32; i++) x = fmaxf(x, shared[i]);
	return x;
}

static __device__ __forceinline__ float block_sum(float x, float *shared) {
	x = warp_sum(x);
	__syncthreads();
	if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
	__syncthreads();
	x = 0;
	for (int i = 0; i < blockDim.x / 32; i++) x += shared[i];
	return x;
}

static __device__ __forceinline__ bool larger(const Largest &a, const Largest &b) {
	return (a.id >= 0) & ((b.id < 0) | (a.z > b.z) | ((a.z == b.z) & (a.id < b.id))); // by branches it would take twice as long
}

static __device__ __forceinline__ Largest warp_largest(Largest l) {
	for (int i = 16; i > 0; i /= 2) {
		Largest other = {__shfl_xor_sync(~0u, l.z, i), __shfl_xor_sync(~0u, l.id, i)};
		if (larger(other, l)) l = other;
	}
	return l;
}

// block_largest leaves `shared` to be read: who writes there next needs a barrier before.
static __device__ __forceinline__ Largest block_largest(Largest l, Largest *shared) {
	l = warp_largest(l);
	__syncthreads();
	if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = l;
	__syncthreads();
	int lane = threadIdx.x % 32;
	return warp_largest(lane < blockDim.x / 32 ? shared[lane] : Largest{-INFINITY, -1});
}

// key orders floats descending as unsigned integers ascending; both zeros are one.
static __device__ __forceinline__ uint32_t key_of(float z) {
	uint32_t u = __float_as_uint(z + 0.0f);
	return u >> 31 ? u : ~(u | 0x80000000u);
}

static __device__ __forceinline__ float unkey(uint32_t key) {
	return __uint_as_float(key >> 31 ? key : ~key & 0x7fffffffu);
}

// Cut keeps z above its own, and z equal to it up to an id.
struct Cut {
	float z;
	int32_t id;
	__device__ __forceinline__ bool keeps(float z, int32_t id) const { return z > this->z || (z == this->z && id <= this->id); }
};

// possible keeps what can be drawn, all_of a row's ids.
static __device__ __forceinline__ Cut possible() { return {-INFINITY, -1}; }
static __device__ __forceinline__ Cut all_of() { return {-INFINITY, INT32_MAX}; }

// rounds gives fn(v, id) a row's ids by rounds, 4·EACH of them to a thread at a time, all asked for before it looks at any:
// v[4·i + j] is of id + 4·FINISHERS·i + j. What is not a row's is −inf, which no cut keeps.
constexpr int EACH = 4;
template <class F> static __device__ __forceinline__ void rounds(const float *row, int n, F fn) {
	for (int id = 4 * threadIdx.x; id < n; id += 4 * EACH * FINISHERS) {
		float v[4 * EACH];
#pragma unroll
		for (int i = 0; i < EACH; i++) {
			int at = id + 4 * FINISHERS * i;
			float4 four = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
			if (at < n) four = *reinterpret_cast<const float4 *>(row + at); // rows are padded to whole float4
			v[4 * i] = four.x, v[4 * i + 1] = four.y, v[4 * i + 2] = four.z, v[4 * i + 3] = four.w;
#pragma unroll
			for (int j = 1; j < 4; j++)
				if (at + j >= n) v[4 * i + j] = -INFINITY;
		}
		fn(v, id);
	}
}

// each gives fn(z, id) all of a row, and −inf for some ids behind its end.
template <class F> static __device__ __forceinline__ void each(const float *row, int n, F fn) {
	rounds(row, n, [&](const float (&v)[4 * EACH], int id) {
#pragma unroll
		for (int i = 0; i < 4 * EACH; i++) fn(v[i], id + i / 4 * 4 * FINISHERS + i % 4);
	});
}

enum { BUCKETS = 2048, LIST = FINISHERS };

struct FilterShared {
	union {
		uint32_t buckets[BUCKETS];
		struct { Largest list[LIST], sorted[LIST]; };
	};
	uint32_t warps[FINISHERS / 32], before, equal;
	double sums[2][FINISHERS / 32];
	float largest[FINISHERS / 32];
	Best best[FINISHERS / 32];
	int32_t bucket, cut_id, n;
};

// kth_largest is the k-th largest of the threads' numbers, of which there are as many, bit by bit.
static __device__ float kth_largest(float x, int k) {
	uint32_t key = ~key_of(x), found = 0;
	for (uint32_t bit = 1u << 31; bit; bit >>= 1)
		if (__syncthreads_count(key >= (found | bit)) >= k) found |= bit;
	return unkey(~found);
}

// gather lists the ids of a cut that are not below the k-th largest of the threads' own largest of it, in order: the first k, and few more;
// or all, if there are not as many. It says whether the list holds them. s.n is how many.
static __device__ bool gather(FilterShared &s, const float *row, int n, const Cut &cut, float own, int k) {
	if (k > LIST) return false;
	float bound = kth_largest(own, k);
	if (threadIdx.x == 0) s.n = 0;
	__syncthreads();
	each(row, n, [&](float z, int id) {
		if (z < bound || id >= n || !cut.keeps(z, id)) return;
		if (int i = atomicAdd(&s.n, 1); i < LIST) s.list[i] = {z, id};
	});
	__syncthreads();
	if (s.n > LIST) return false;
	if (threadIdx.x < s.n) {
		Largest mine = s.list[threadIdx.x];
		int rank = 0;
		for (int i = 0; i < s.n; i++) rank += larger(s.list[i], mine);
		s.sorted[rank] = mine;
	}
	__syncthreads();
	return true;
}

// Filter draws from a row of n ids.
struct Filter {
	const float *row;
	int n;
	const RowParams &p;
	int32_t position;
	Largest first; // the likeliest
	float scale;   // 1/temperature
	FilterShared &s;

	__device__ __forceinline__ Drawer drawer() const { return {p, position, first.z, first.id}; }
	__device__ __forceinline__ float weight(float z) const { return __expf((z - first.z) * scale); }
	__device__ __forceinline__ bool cuts_mass() const { return p.top_p > 0 && p.top_p < 1; }

	// best is the id with the largest score of all threads' drawers.
	__device__ int32_t best(const Drawer &d) const { return block_best(d.exact(block_max(d.best, s.largest)), s.best).id; }

	// best_of is the id with the largest score within the cut, which has the likeliest.
	__device__ int32_t best_of(const Cut &cut) const {
		Drawer d = drawer();
		rounds(row, n, [&](const float (&v)[4 * EACH], int id) {
			uint32_t may = 0; // one body for what few come to: it is long
#pragma unroll
			for (int i = 0; i < 4 * EACH; i++)
				if (cut.keeps(v[i], id + i / 4 * 4 * FINISHERS + i % 4) && d.may(v[i])) may |= 1u << i;
			for (; may; may &= may - 1) {
				int i = __ffs(may) - 1, at = id + i / 4 * 4 * FINISHERS + i % 4;
				d.see(row[at], at);
			}
		});
		return best(d);
	}

	// listed is the id drawn from the list, of which top_k keeps the first k: thread i has the i-th.
	__device__ int32_t listed(int k) const {
		Largest mine = s.sorted[threadIdx.x];
		bool kept = threadIdx.x < min(k, s.n);
		if (cuts_mass()) {
			int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
			double own = kept ? weight(mine.z) : 0, up = own, total = 0;
			for (int i = 1; i < 32; i *= 2) {
				double other = __shfl_up_sync(~0u, up, i);
				if (lane >= i) up += other;
			}
			if (lane == 31) s.sums[0][warp] = up;
			__syncthreads();
			double before = up - own;
			for (int i = 0; i < FINISHERS / 32; i++) {
				if (i < warp) before += s.sums[0][i];
				total += s.sums[0][i];
			}
			kept = kept && before < p.top_p * total;
		}
		Drawer d = drawer();
		if (kept) d.see(mine.z, mine.id);
		return best(d);
	}

	// kth is the cut behind the k-th id of one, or that itself if it has no more.
	__device__ Cut kth(const Cut &cut, uint32_t k) const {
		uint32_t prefix = 0;
		const int above[] = {32, 21, 10}, shift[] = {21, 10, 0};
#pragma unroll 1
		for (int level = 0; level < 3; level++) {
			__syncthreads();
			for (int i = threadIdx.x; i < BUCKETS; i += FINISHERS) s.buckets[i] = 0;
			__syncthreads();
			uint32_t mask = (1u << (above[level] - shift[level])) - 1;
			each(row, n, [&](float z, int id) {
				uint32_t key = key_of(z);
				if (cut.keeps(z, id) && (level == 0 || key >> above[level] == prefix)) atomicAdd(&s.buckets[key >> shift[level] & mask], 1);
			});
			if (find(k) < k) return cut;
			prefix = prefix << (above[level] - shift[level]) | s.bucket;
			k -= s.before;
		}
		float z = unkey(prefix);
		return {z, k < s.equal ? tie(cut, z, k) : INT32_MAX};
	}

	// find sets s.bucket to the first at which the sum of counts reaches k, s.before to the sum before it and s.equal to its
	// own count, and returns the sum of all.
	__device__ uint32_t find(uint32_t k) const {
		constexpr int PER = BUCKETS / FINISHERS;
		__syncthreads();
		int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
		uint32_t own = 0, total = 0;
		for (int i = 0; i < PER; i++) own += s.buckets[threadIdx.x * PER + i];
		uint32_t up = own;
		for (int i = 1; i < 32; i *= 2) {
			uint32_t other = __shfl_up_sync(~0u, up, i);
			if (lane >= i) up += other;
		}
		if (lane == 31) s.warps[warp] = up;
		__syncthreads();
		uint32_t before = up - own;
		for (int i = 0; i < FINISHERS / 32; i++) {
			if (i < warp) before += s.warps[i];
			total += s.warps[i];
		}
		for (int i = 0; i < PER; i++) {
			uint32_t b = s.buckets[threadIdx.x * PER + i];
			if (before < k && before + b >= k) s.bucket = threadIdx.x * PER + i, s.before = before, s.equal = b;
			before += b;
		}
		__syncthreads();
		return total;
	}

	// tie is the id of number k, from 1, of those within the cut that are equal to z.
	__device__ int32_t tie(const Cut &cut, float z, int k) const {
		for (int first = 0, before = 0; first < n; first += FINISHERS) {
			int id = first + threadIdx.x;
			bool equal = id < n && row[id] == z && cut.keeps(z, id);
			int count = __syncthreads_count(equal);
			if (before + count < k) {
				before += count;
				continue;
			}
			uint32_t ballot = __ballot_sync(~0u, equal);
			if (threadIdx.x % 32 == 0) s.warps[threadIdx.x / 32] = __popc(ballot);
			__syncthreads();
			int rank = before + __popc(ballot & ((2u << threadIdx.x % 32) - 1));
			for (int i = 0; i < threadIdx.x / 32; i++) rank += s.warps[i];
			if (equal && rank == k) s.cut_id = id;
			__syncthreads();
			break;
		}
		return s.cut_id;
	}

	// keeps says whether top_p keeps an id that is within the cut: whether the weights before it are less than that share of the cut's.
	__device__ bool keeps(const Cut &cut, float z, int32_t id) const {
		double sums[2] = {}; // before it, and all
		const Cut behind = {z, id - 1};
		rounds(row, n, [&](const float (&v)[4 * EACH], int id) {
#pragma unroll
			for (int i = 0; i < 4 * EACH; i += 4) { // four in single precision: what that loses is less than what weights do
				float before = 0, all = 0;
#pragma unroll
				for (int j = 0; j < 4; j++) {
					int at = id + i * FINISHERS + j;
					float w = cut.keeps(v[i + j], at) ? weight(v[i + j]) : 0;
					all += w;
					if (behind.keeps(v[i + j], at)) before += w;
				}
				sums[0] += before, sums[1] += all;
			}
		});
		__syncthreads();
#pragma unroll
		for (int h = 0; h < 2; h++) {
			for (int i = 16; i > 0; i /= 2) sums[h] += __shfl_xor_sync(~0u, sums[h], i);
			if (threadIdx.x % 32 == 0) s.sums[h][threadIdx.x / 32] = sums[h];
		}
		__syncthreads();
		sums[0] = sums[1] = 0;
		for (int i = 0; i < FINISHERS / 32; i++) sums[0] += s.sums[0][i], sums[1] += s.sums[1][i];
		return sums[0] < p.top_p * sums[1];
	}

	// draw applies steps 6 to 9. drawn is the id with the largest score of all, unless there is a top_k.
	__device__ int32_t draw(int32_t drawn) const {
		Cut cut = possible();
		if (p.min_p > 0) cut = {(float)(first.z + p.temperature * log((double)fminf(p.min_p, 1))), INT32_MAX};
		if (takes_top_k(p, n)) {
			float own = -INFINITY;
			each(row, n, [&](float z, int id) {
				if (cut.keeps(z, id)) own = fmaxf(own, z);
			});
			if (gather(s, row, n, cut, own, p.top_k)) return listed(p.top_k);
			cut = kth(cut, p.top_k);
			drawn = -1;
		} else if (!cut.keeps(row[drawn], drawn)) drawn = -1;
		for (Cut left = cut;; left = {row[drawn], drawn - 1}, drawn = -1) {
			if (drawn < 0) drawn = best_of(left);
			if (!cuts_mass() || keeps(cut, row[drawn], drawn)) return drawn;
		}
	}
};

// likeliest writes the k ids with the largest z, descending, ties by id, and z − log_sum; own is the thread's largest.
static __device__ void likeliest(FilterShared &s, const float *row, int n, float own, int k, int32_t *ids, float *logprobs, double log_sum) {
	if (k <= 0) return;
	if (gather(s, row, n, all_of(), own, k)) {
		if (threadIdx.x >= min(k, s.n)) return;
		ids[threadIdx.x] = s.sorted[threadIdx.x].id;
		logprobs[threadIdx.x] = (float)(s.sorted[threadIdx.x].z - log_sum);
		return;
	}
	Largest last = {INFINITY, -1};
	for (int found = 0; found < k; found++) { // equals are many: one maximum after the other
		Largest l = {-INFINITY, -1};
		for (int id = threadIdx.x; id < n; id += FINISHERS)
			if (Largest c = {row[id], id}; larger(last, c) || last.id < 0)
				if (larger(c, l)) l = c;
		last = block_largest(l, s.list);
		if (threadIdx.x == 0) {
			ids[found] = last.id;
			logprobs[found] = (float)(last.z - log_sum);
		}
	}
}
