// One CTA's work on a row of logits: a draw from what min_p, top_k and top_p leave of it.
//
// Every filter keeps a prefix of the ids in descending order, ties by ascending id: what is within a Cut. Nothing is
// sorted but what fits into a list, and of the row are read again the groups of 512 ids whose largest, as
// sample_split has left it, is not below what is looked for: with real logits a few of 300. (Where equals are many, all.)
//
//   top_k   what is not below the k-th largest of the groups' is hardly more than k ids: a list, which is
//           sorted, cut and drawn from. Where k is more than there are groups, or equals are many, the cut is found by
//           counts of 2,048 buckets, 11 bits of the keys at a time (radix selection)
//   top_p   the id with the largest score of all is drawn if the sum before it is less than top_p. If not, it is cut
//           off with all behind it, and the next is the best of those before it: a prefix has the draw if its end has not
//           been kept, so nothing needs to know where top_p cuts (the pivots of FlashInfer's rejection sampling, 2025)
#pragma once

#include "sample_groups.cuh"

// Filter draws from a row.
struct Filter : Logits {
	const RowParams &p;
	int32_t position;
	Largest first;      // the likeliest
	float scale;        // 1/temperature
	const Part *parts;
	const Drawn *draws; // of the groups, or NULL

	__device__ __forceinline__ Drawer drawer() const { return {p, position, first.z, first.id}; }
	__device__ __forceinline__ float weight(float z) const { return __expf((z - first.z) * scale); }
	__device__ __forceinline__ bool cuts_mass() const { return p.top_p > 0 && p.top_p < 1; }

	// best is the id with the largest score of what all threads' drawers have.
	__device__ __forceinline__ int32_t best(const Drawer &d) const { return block_best(d.exact(block_max(d.best, s.largest)), s.best).id; }

	// best_of is the id with the largest score within the cut, which has the likeliest: of groups whose best is within it
	// that, of others that have some within it, the best of those.
	__device__ int32_t best_of(const Cut &cut) const {
		Drawer d = drawer();
		bool again[OWN];
#pragma unroll
		for (int i = 0; i < OWN; i++) {
			again[i] = own[i] > -INFINITY && own[i] >= cut.z;
			if (!again[i] || !draws) continue;
			int g = threadIdx.x + FINISHERS * i;
			const Drawn drawn = draws[g];
			int32_t id = drawn.id < 0 ? parts[g / GROUPS].id : drawn.id;
			float z = row[id];
			if (!cut.keeps(z, id)) continue;
			again[i] = false;
			if (drawn.id >= 0) d.take(z, drawn);
		}
		if (__syncthreads_or(again[0] | again[1]))
			each(choose(s, groups(), again[0], again[1]), cut.z, [&](float z, int32_t id) {
				if (cut.keeps(z, id) && d.may(z)) d.see(z, id);
			});
		return best(d);
	}

	// listed is the id drawn from the list, of which top_k keeps the first k: thread i has the i-th.
	__device__ int32_t listed(int k) const {
		Largest mine = s.sorted[threadIdx.x];
		bool kept = threadIdx.x < min(k, s.n);
		if (cuts_mass()) {
			double total, before = sum_before<double>(kept ? weight(mine.z) : 0, s.sums, total);
			kept = kept && before < p.top_p * total;
		}
		Drawer d = drawer();
		if (kept) d.see(mine.z, mine.id);
		return best(d);
	}

	// kth is the cut behind the k-th id of one, which is not below `least`, or that itself if it has no more.
	__device__ Cut kth(const Cut &cut, uint32_t k, float least) const {
		uint32_t prefix = 0;
		const int above[] = {32, 21, 10}, shift[] = {21, 10, 0};
#pragma unroll 1
		for (int level = 0; level < 3; level++) {
			__syncthreads();
			for (int i = threadIdx.x; i < BUCKETS; i += FINISHERS) s.buckets[i] = 0;
			__syncthreads();
			uint32_t mask = mask_below(above[level] - shift[level]);
			each(least, [&](float z, int id) {
				uint32_t key = key_of(z);
				if (cut.keeps(z, id) && (level == 0 || key >> above[level] == prefix)) atomicAdd(&s.buckets[key >> shift[level] & mask], 1);
			});
			if (find(k) < k) return cut;
			prefix = prefix << (above[level] - shift[level]) | s.bucket;
			k -= s.before;
			least = fmaxf(least, unkey(prefix << shift[level] | mask_below(shift[level])));
		}
		float z = unkey(prefix);
		return {z, k < s.equal ? tie(cut, z, k) : INT32_MAX};
	}

	// find sets s.bucket to the first at which the sum of counts reaches k, s.before to the sum before it and s.equal to its
	// own count, and returns the sum of all.
	__device__ uint32_t find(uint32_t k) const {
		constexpr int PER = BUCKETS / FINISHERS;
		__syncthreads();
		uint32_t own = 0, total;
		for (int i = 0; i < PER; i++) own += s.buckets[threadIdx.x * PER + i];
		uint32_t before = sum_before(own, s.warps, total);
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

	// mass is the sum of the weights of what is within the cut.
	static __device__ __noinline__ double mass(const Filter f, Cut cut) {
		FilterShared &s = f.s;
		double sum = 0;
		f.rounds(f.not_below(cut.z), [&](const float (&v)[4 * EACH], int id) {
			float some = 0; // in single precision: what that loses is less than what weights do
#pragma unroll
			for (int i = 0; i < 4 * EACH; i++) some += cut.keeps(v[i], at(id, i)) ? f.weight(v[i]) : 0;
			sum += some;
		});
		sum = warp_sum(sum);
		__syncthreads();
		if (threadIdx.x % 32 == 0) s.sums[threadIdx.x / 32] = sum;
		__syncthreads();
		sum = 0;
		for (int i = 0; i < FINISHERS / 32; i++) sum += s.sums[i];
		return sum;
	}

	// draw applies steps 6 to 9. `all` is the mass of the row.
	__device__ int32_t draw(double all) const {
		Cut cut = possible();
		if (p.min_p > 0) cut = {(float)(first.z + p.temperature * log((double)fminf(p.min_p, 1))), INT32_MAX};
		bool whole = p.min_p <= 0;
		if (takes_top_k(p, n)) {
			float least = fmaxf(cut.z, LEAST);
			if (p.top_k <= min(LIST, groups()) || n <= LIST) {
				least = fmaxf(least, bound(cut, p.top_k));
				if (gather(*this, cut, least)) return listed(p.top_k);
			}
			cut = kth(cut, p.top_k, least);
			whole = false;
		}
		if (cuts_mass() && !whole) all = mass(*this, cut);
		if (cuts_mass() && p.top_p * all <= 1) return first.id; // which weighs that
		for (Cut left = cut;;) {
			int32_t id = best_of(left);
			left = {row[id], id - 1};
			if (!cuts_mass() || id == first.id || mass(*this, left) < p.top_p * all) return id;
		}
	}
};
