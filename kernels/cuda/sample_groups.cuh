// A row of logits as sample_finish reads it: by groups, of which few matter; and its likeliest ids.
#pragma once

#include "sampling.cuh"

constexpr int SPLITTERS = 256, FINISHERS = 512; // threads of a CTA of sample_split, sample_finish

// A group is what half a warp of sample_split has of its ids: 16 threads' quadruples, 4·SPLITTERS apart.
constexpr int GROUPS = SPLITTERS / 16, MAX_GROUPS = GROUPS * MAX_SPLITS;
static_assert(GROUPS == 16 && MAX_SPLITS == 64, "geometry.go: splitGroups, maxSplits");
static_assert(SPLITTERS == 256 && FINISHERS == 512, "sample.go: planSample");

enum { RESULT_SLOT = 13 }; // of the header: prepare.cu, M_SLOT

// Part is what one CTA of sample_split found in its ids.
struct Part {
	float max; // after steps 1 to 3
	int32_t id;
	float raw_max, raw_sum; // Σ exp(z − raw_max), where log probabilities are wanted
	float mass;             // Σ exp((z − max)/temperature), where top_p wants it
	int32_t bad;            // a NaN or +inf among the raw logits
};
static_assert(sizeof(Part) == 24, "workspace.go: partBytes");

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
	Drawn *draws;     // [entries][MAX_GROUPS], of rows that draw without top_k: the best of a group, or none where the part's likeliest is better than all of it
	float *maxima;    // [entries][2][MAX_GROUPS]: of groups' ids that can be drawn, of rows that draw, and of raw logits, for log probabilities
	int32_t *results; // ring of result_words: tokens, logprobs, ranks [capacity], top ids and logprobs [capacity][max_top]
	int64_t result_words;
	int32_t mask_words, vocab, sample_vocab, splits, capacity, max_top;
	int32_t tops; // that the head left of each plain row; 0: all logits are there
	int32_t pad;
};
static_assert(sizeof(SampleParams) == 160, "sample.go");

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

// mask_below has the bits below one.
static __device__ __forceinline__ uint32_t mask_below(int bit) { return (1u << bit) - 1; }

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
constexpr float LEAST = -3.402823466e38f; // of what is possible
static __device__ __forceinline__ Cut all_of() { return {-INFINITY, INT32_MAX}; }

enum { BUCKETS = 2048, LIST = FINISHERS };

struct FilterShared {
	union {
		uint32_t buckets[BUCKETS];
		struct { Largest list[LIST], sorted[LIST]; };
	};
	uint32_t warps[FINISHERS / 32], before, equal;
	double sums[FINISHERS / 32];
	float largest[FINISHERS / 32];
	Best best[FINISHERS / 32];
	int32_t bucket, cut_id, n;
	uint16_t chosen[MAX_GROUPS];
};

// kth_largest is the k-th largest of the threads' numbers, of which there are as many, bit by bit.
static __device__ float kth_largest(float x, int k) {
	uint32_t key = ~key_of(x), found = 0;
#pragma unroll 1
	for (uint32_t bit = 1u << 31; bit; bit >>= 1)
		if (__syncthreads_count(key >= (found | bit)) >= k) found |= bit;
	return unkey(~found);
}

// sum_before is the sum of the threads' numbers before one's own, and of all in `total`.
template <class T> static __device__ __forceinline__ T sum_before(T own, T *warps, T &total) {
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
	auto scan = [&](T up) {
		for (int i = 1; i < 32; i *= 2) {
			T other = __shfl_up_sync(~0u, up, i);
			if (lane >= i) up += other;
		}
		return up;
	};
	T up = scan(own);
	__syncthreads();
	if (lane == 31) warps[warp] = up;
	__syncthreads();
	T earlier = scan(lane < FINISHERS / 32 ? warps[lane] : 0);
	total = __shfl_sync(~0u, earlier, 31);
	earlier = __shfl_sync(~0u, earlier, max(warp - 1, 0));
	return (warp > 0 ? earlier : 0) + up - own;
}

// choose lists the groups, of which a thread has two, that are wanted, in order, and returns how many they are.
static __device__ __noinline__ int choose(FilterShared &s, int groups, bool first, bool second) {
	uint32_t chosen = 0, some;
	for (int g = threadIdx.x; g - (int)threadIdx.x < groups; g += FINISHERS, first = second) {
		bool in = g < groups && first;
		uint32_t at = chosen + sum_before<uint32_t>(in, s.warps, some);
		if (in) s.chosen[at] = g; // behind barriers: whoever used the last list is done
		chosen += some;
	}
	__syncthreads();
	return chosen;
}

// Logits are a row of n ids, in groups.
struct Logits {
	static constexpr int EACH = 4, OWN = MAX_GROUPS / FINISHERS;
	static_assert(OWN == 2, "choose");
	const float *row;
	int n;
	FilterShared &s;
	float own[OWN]; // the largest of the thread's groups

	__device__ __forceinline__ Logits(const float *row, int n, const float *maxima, FilterShared &s) : row(row), n(n), s(s) {
#pragma unroll
		for (int i = 0; i < OWN; i++) {
			int g = threadIdx.x + FINISHERS * i;
			own[i] = -INFINITY;
			if (g < groups()) own[i] = maxima[g];
		}
	}

	__device__ __forceinline__ int groups() const { return (n + SPLIT - 1) / SPLIT * GROUPS; }
	__device__ __forceinline__ int not_below(float least) const { return choose(s, groups(), own[0] >= least, own[1] >= least); }

	// at is the id of v[i] of some whose first is.
	static __device__ __forceinline__ int at(int id, int i) { return id + i / 4 * (2 * 4 * SPLITTERS) + i % 4; }
	// rounds gives fn(v, id) the chosen groups' ids and logits, 4·EACH to a thread at a time, and −inf behind the end of the row.
	// A warp has a group.
	template <class F> __device__ __forceinline__ void rounds(int chosen, F fn) const {
#pragma unroll 1
		for (int i = threadIdx.x / 32; i < chosen; i += FINISHERS / 32) {
			int group = s.chosen[i], lane = threadIdx.x % 32, id = group / GROUPS * SPLIT + 4 * (group % GROUPS * 16 + lane % 16 + SPLITTERS * (lane / 16));
			float v[4 * EACH];
#pragma unroll
			for (int j = 0; j < EACH; j++) {
				float4 four = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
				if (at(id, 4 * j) < n) four = *reinterpret_cast<const float4 *>(row + at(id, 4 * j)); // rows are padded to whole float4
				v[4 * j] = four.x, v[4 * j + 1] = four.y, v[4 * j + 2] = four.z, v[4 * j + 3] = four.w;
#pragma unroll
				for (int k = 1; k < 4; k++)
					if (at(id, 4 * j + k) >= n) v[4 * j + k] = -INFINITY;
			}
			fn(v, id);
		}
	}
	// each gives fn(z, id) what is not below `least` of the chosen groups, one by one: a body for what few come to.
	template <class F> __device__ __forceinline__ void each(int chosen, float least, F fn) const {
		rounds(chosen, [&](const float (&v)[4 * EACH], int id) {
			uint32_t these = 0;
#pragma unroll
			for (int i = 0; i < 4 * EACH; i++)
				if (v[i] >= least) these |= 1u << i;
			for (; these; these &= these - 1)
				if (int one = at(id, __ffs(these) - 1); one < n) fn(row[one], one);
		});
	}
	template <class F> __device__ __forceinline__ void each(float least, F fn) const { each(not_below(least), least, fn); }

	// bound is not above the k-th largest within a cut of values, and hardly below it: the k-th largest of the threads' groups; of
	// fewer groups than k −inf. k is at most LIST.
	__device__ __forceinline__ float bound(const Cut &cut, int k) const {
		float x = -INFINITY;
#pragma unroll
		for (int i = 0; i < OWN; i++)
			if (own[i] >= cut.z) x = fmaxf(x, own[i]);
		return kth_largest(x, k);
	}
};

// gather lists what is within the cut and not below the bound, in order, s.n of them. It says whether the list holds them.
static __device__ __noinline__ bool gather(const Logits of, Cut cut, float bound) {
	FilterShared &s = of.s;
	if (threadIdx.x == 0) s.n = 0;
	of.each(bound, [&](float z, int id) {
		if (!cut.keeps(z, id)) return;
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

// likeliest writes the k ids with the largest z, descending, ties by id, and z − log_sum.
static __device__ void likeliest(const Logits &of, int k, int32_t *ids, float *logprobs, double log_sum) {
	if (k <= 0) return;
	if (k <= LIST && gather(of, all_of(), of.bound(all_of(), k))) {
		if (threadIdx.x >= min(k, of.s.n)) return;
		const Largest &mine = of.s.sorted[threadIdx.x];
		ids[threadIdx.x] = mine.id;
		logprobs[threadIdx.x] = (float)(mine.z - log_sum);
		return;
	}
	Largest last = {INFINITY, -1};
	for (int found = 0; found < k; found++) { // equals are many: one maximum after the other
		Largest l = {-INFINITY, -1};
		for (int id = threadIdx.x; id < of.n; id += FINISHERS)
			if (Largest c = {of.row[id], id}; larger(last, c) || last.id < 0)
				if (larger(c, l)) l = c;
		last = block_largest(l, of.s.list);
		if (threadIdx.x == 0) {
			ids[found] = last.id;
			logprobs[found] = (float)(last.z - log_sum);
		}
	}
}
