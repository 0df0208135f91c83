// One CTA's work on a row of logits: the cuts of min_p, top_k and top_p, and the
// likeliest ids.
//
// Every filter keeps a prefix of the ids in descending order, ties by ascending
// id: a Cut. top_k and top_p find theirs by adding up counts, or weights in fixed
// point, in 2,048 buckets: first of equal width below the maximum, then of the bits
// of what fell into the right one.
#pragma once

#include "sampling.cuh"

enum { RESULT_SLOT = 13 }; // of the header: prepare.cu, M_SLOT

// Part is what one CTA of sample_edit found in its ids.
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
	Best *draws;      // [entries][MAX_SPLITS]
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

enum { BUCKETS = 2048, LIST = 2048 };

typedef unsigned long long u64;

struct FilterShared {
	u64 buckets[BUCKETS], warps[16], before;
	float z[LIST];
	int32_t ids[LIST];
	uint32_t ballots[16];
	int32_t bucket, cut_id, n;
};

// Cut keeps z above its own, and z equal to it up to an id.
struct Cut { float z; int32_t id; };

// Filter is the candidates of a row: all within the cut, in a list once they are
// few.
struct Filter {
	const float *row;
	int n;        // ids of the row
	float first;  // the largest z
	float scale;  // 1/temperature
	Cut cut;
	bool listed;
	FilterShared &s;

	__device__ __forceinline__ bool keeps(float z, int id) const { return z > cut.z || (z == cut.z && id <= cut.id); }

	template <class F> __device__ __forceinline__ void each(F f) const {
		if (listed) {
			for (int i = threadIdx.x; i < s.n; i += blockDim.x)
				if (keeps(s.z[i], s.ids[i])) f(s.z[i], s.ids[i]);
			return;
		}
		for (int id = threadIdx.x; id < n; id += blockDim.x)
			if (float z = row[id]; keeps(z, id)) f(z, id);
	}

	// weight is exp((z − first)/temperature) in units of 2⁻⁴⁰, or 1.
	__device__ __forceinline__ u64 weight(float z, bool weighted) const {
		return weighted ? __float2ull_rz(expf((z - first) * scale) * 0x1p40f) : 1;
	}

	// find sets s.bucket to the first at which the sum reaches target and s.before
	// to the sum before it; the buckets' total when target is negative: then target
	// becomes that share of it.
	__device__ double find(double target) {
		__syncthreads();
		int per = BUCKETS / blockDim.x, warp = threadIdx.x / 32;
		u64 own = 0;
		for (int i = 0; i < per; i++) own += s.buckets[threadIdx.x * per + i];
		u64 up = own;
		for (int i = 1; i < 32; i *= 2) {
			u64 other = __shfl_up_sync(~0u, up, i);
			if (threadIdx.x % 32 >= i) up += other;
		}
		if (threadIdx.x % 32 == 31) s.warps[warp] = up;
		__syncthreads();
		u64 before = up - own, total = 0;
		for (int i = 0; i < blockDim.x / 32; i++) {
			if (i < warp) before += s.warps[i];
			total += s.warps[i];
		}
		if (target < 0) target = -target * (double)total;
		u64 base = s.before; // of earlier levels
		__syncthreads();
		for (int i = 0; i < per; i++) {
			u64 b = s.buckets[threadIdx.x * per + i];
			if ((double)(base + before) < target && (double)(base + before + b) >= target) {
				s.bucket = threadIdx.x * per + i;
				s.before = base + before;
			}
			before += b;
		}
		__syncthreads();
		return target;
	}

	__device__ void clear() {
		__syncthreads();
		for (int i = threadIdx.x; i < BUCKETS; i += blockDim.x) s.buckets[i] = 0;
		__syncthreads();
	}

	__device__ __forceinline__ int linear(float z, float width) const { return (int)fminf((first - z) * width, BUCKETS - 1); }

	// narrow cuts where the sum of counts reaches target, or that of weights the
	// share −target of all. width is buckets a unit of z. There are at least as
	// many candidates.
	__device__ void narrow(double target, bool weighted, float width) {
		if (threadIdx.x == 0) s.before = 0;
		clear();
		each([&](float z, int) { atomicAdd(&s.buckets[linear(z, width)], weight(z, weighted)); });
		target = find(target);
		int in = s.bucket;
		uint32_t prefix = 0;
		u64 equal = 0;
		const int above[] = {32, 21, 10}, shift[] = {21, 10, 0};
		for (int level = 0; level < 3; level++) {
			clear();
			uint32_t mask = (1u << (above[level] - shift[level])) - 1;
			each([&](float z, int) {
				uint32_t key = key_of(z);
				if (linear(z, width) != in || (level > 0 && key >> above[level] != prefix)) return;
				atomicAdd(&s.buckets[key >> shift[level] & mask], weight(z, weighted));
			});
			find(target);
			prefix = prefix << (above[level] - shift[level]) | s.bucket;
			equal = s.buckets[s.bucket];
		}
		float z = unkey(prefix);
		u64 one = weight(z, weighted);
		int ties = (int)fmin(ceil((target - (double)s.before) / (double)one), (double)(equal / one));
		cut = {z, ties < equal / one ? tie(z, ties) : INT32_MAX};
	}

	// tie is the id of number `ties` of the candidates equal to z, from 1.
	__device__ int tie(float z, int ties) {
		__syncthreads();
		if (listed) {
			for (int i = threadIdx.x; i < s.n; i += blockDim.x) {
				if (s.z[i] != z || !keeps(z, s.ids[i])) continue;
				int rank = 1;
				for (int j = 0; j < s.n; j++) rank += s.z[j] == z && s.ids[j] < s.ids[i];
				if (rank == ties) s.cut_id = s.ids[i];
			}
			__syncthreads();
			return s.cut_id;
		}
		for (int first = 0, before = 0; first < n; first += blockDim.x) {
			int id = first + threadIdx.x;
			bool equal = id < n && row[id] == z && keeps(z, id);
			int count = __syncthreads_count(equal);
			if (before + count < ties) {
				before += count;
				continue;
			}
			uint32_t ballot = __ballot_sync(~0u, equal);
			if (threadIdx.x % 32 == 0) s.ballots[threadIdx.x / 32] = ballot;
			__syncthreads();
			int rank = before + __popc(ballot & ((2u << threadIdx.x % 32) - 1));
			for (int i = 0; i < threadIdx.x / 32; i++) rank += __popc(s.ballots[i]);
			if (equal && rank == ties) s.cut_id = id;
			__syncthreads();
			break;
		}
		return s.cut_id;
	}

	// list gathers the candidates, of which there are at most LIST.
	__device__ void list() {
		__syncthreads();
		if (threadIdx.x == 0) s.n = 0;
		__syncthreads();
		each([&](float z, int id) {
			int i = atomicAdd(&s.n, 1);
			s.z[i] = z;
			s.ids[i] = id;
		});
		__syncthreads();
		listed = true;
	}
};

// draw_filtered applies steps 6 to 8 to n ids and shows the drawer what is left.
static __device__ void draw_filtered(Drawer &d, const float *row, int n) {
	__shared__ FilterShared shared;
	const RowParams &p = d.p;
	Filter f = {row, n, d.first, 1 / p.temperature, {-INFINITY, -1}, false, shared};
	if (p.min_p > 0) f.cut = {(float)(d.first + p.temperature * log((double)fminf(p.min_p, 1))), INT32_MAX};
	if (p.top_k > 0 && p.top_k < n) {
		int have = 0; // finite ones
		f.each([&](float, int) { have++; });
		if (threadIdx.x == 0) shared.n = 0;
		__syncthreads();
		atomicAdd(&shared.n, have);
		__syncthreads();
		have = shared.n;
		if (p.top_k < have) f.narrow(p.top_k, false, 64);
		if (min(p.top_k, have) <= LIST) f.list();
	}
	if (p.top_p > 0 && p.top_p < 1) f.narrow(-(double)p.top_p, true, BUCKETS / 28.0f * f.scale);
	f.each([&](float z, int id) { d.see(z, id); });
}

// likeliest writes the k ids with the largest z, descending, ties by id, and z −
// log_sum: those not below the k-th largest of the threads' own maxima are few and
// ranked by counting; if they are not few, one maximum after the other.
static __device__ void likeliest(const float *row, int n, int k, int32_t *ids, float *logprobs, double log_sum) {
	__shared__ Largest own[512], list[LIST];
	__shared__ float bound;
	__shared__ int count;
	if (k <= 0) return;
	Largest l = {-INFINITY, -1};
	for (int id = threadIdx.x; id < n; id += blockDim.x)
		if (larger({row[id], id}, l)) l = {row[id], id};
	own[threadIdx.x] = l;
	if (threadIdx.x == 0) {
		bound = -INFINITY;
		count = 0;
	}
	__syncthreads();
	int rank = 0;
	for (int i = 0; i < blockDim.x; i++) rank += larger(own[i], l);
	if (rank == k - 1 && l.id >= 0) bound = l.z;
	__syncthreads();
	for (int id = threadIdx.x; id < n; id += blockDim.x)
		if (row[id] >= bound)
			if (int i = atomicAdd(&count, 1); i < LIST) list[i] = {row[id], id};
	__syncthreads();
	if (count <= LIST) {
		for (int i = threadIdx.x; i < count; i += blockDim.x) {
			int rank = 0;
			for (int j = 0; j < count; j++) rank += larger(list[j], list[i]);
			if (rank >= k) continue;
			ids[rank] = list[i].id;
			logprobs[rank] = (float)(list[i].z - log_sum);
		}
		return;
	}
	Largest last = {INFINITY, -1};
	for (int found = 0; found < k; found++) {
		l = {-INFINITY, -1};
		for (int id = threadIdx.x; id < n; id += blockDim.x)
			if (Largest c = {row[id], id}; larger(last, c) || last.id < 0)
				if (larger(c, l)) l = c;
		last = block_largest(l, own);
		if (threadIdx.x == 0) {
			ids[found] = last.id;
			logprobs[found] = (float)(last.z - log_sum);
		}
	}
}
