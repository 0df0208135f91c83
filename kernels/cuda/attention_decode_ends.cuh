// How a piece of decode attention ends: the warps' states become one, which is the unit's output,
// goes to the CTAs of a cluster, or to memory, where those of a cut unit meet.
#pragma once

#include "attention_decode.cuh"

namespace {

// merge is the sum of the states that the warps left, each in a ring of its own: all of them at once,
// by the greatest of their maxima, which is a number, for the first warp has a token in every tile.
template <class F> __device__ __forceinline__ Sum<F::N> merge(const DecodeParams &p, const char *states, int head, int dim) {
	Sum<F::N> sum;
	if (head >= p.group) return sum;
	auto of = [&](int w) { return reinterpret_cast<const Shared<F::D> *>(states + w * F::RING); };
#pragma unroll
	for (int w = 0; w < F::WARPS; w++) sum.max = fmaxf(sum.max, of(w)->max[head]);
#pragma unroll
	for (int w = 0; w < F::WARPS; w++) {
		float weight = exp2_fast(of(w)->max[head] - sum.max), o[F::N];
		read_floats(o, of(w)->o[head] + dim);
		sum.sum += of(w)->sum[head] * weight;
#pragma unroll
		for (int i = 0; i < F::N; i++) sum.o[i] += o[i] * weight;
	}
	return sum;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// ClusterEnd is how a CTA of the `active` ones of a cluster that share c's unit ends: it sends its state to those that
// end its heads, and ends those that are its own. Where all of that goes is known once it is made.
template <class F> struct ClusterEnd {
	static constexpr int D = F::D, N = F::N, OF = F::OF_HEAD;
	uint32_t to, barrier;         // where the thread's share of a head's state goes, and what is to count it
	uint32_t from, step, weights; // that of the head that it ends: of the first CTA, to the next one's, to its maximum and weight
	half *out;
	bool sends, ends;

	__device__ __forceinline__ void set(const DecodeParams &p, const Cursor<F> &c, int active, Exchange<D> &exchange) {
		int rank = cluster_rank(), head = threadIdx.x / OF, dim = threadIdx.x % OF * N, here = rank + head * active;
		Over over(active);
		int each = over.up(p.group), place = over(head), other = head - place * active;
		sends = head < p.group, ends = here < p.group;
		to = remote(shared_address(exchange.states[rank * each + place]) + dim * 4, other), barrier = remote(shared_address(&exchange.received), other);
		from = shared_address(exchange.states[head]) + dim * 4, step = each * sizeof exchange.states[0], weights = (D - dim) * 4;
		out = p.out + c.token * p.ld + (c.head * p.group + here) * D + dim;
	}
	__device__ __forceinline__ void end(int active, Exchange<D> &exchange, const Sum<N> &sum) const {
		if (sends) {
#pragma unroll
			for (int i = 0; i < N; i += 4) send(to + i * 4, make_float4(sum.o[i], sum.o[i + 1], sum.o[i + 2], sum.o[i + 3]), barrier);
			if (threadIdx.x % OF == 0) send(to + D * 4, sum.max, sum.sum, barrier);
		}
		if (!ends) return;
		barrier_wait(shared_address(&exchange.received), 0);
		auto read = [&](uint32_t state) {
			Sum<N> s;
			float4 w = read_shared(state + weights);
			s.max = w.x, s.sum = w.y;
#pragma unroll
			for (int i = 0; i < N; i += 4) {
				float4 v = read_shared(state + i * 4);
				s.o[i] = v.x, s.o[i + 1] = v.y, s.o[i + 2] = v.z, s.o[i + 3] = v.w;
			}
			return s;
		};
		uint32_t state = from;
		Sum<N> all, next = read(state);
#pragma unroll 1
		for (int left = active; left > 0; left--) {
			Sum<N> one = next;
			if (left > 1) state += step;
			next = read(state); // while this one is added; behind the last, that once more
			all.add(one.max, one.sum, one.o);
		}
		all.store(out);
	}
};

#endif

// end_piece ends tiles from begin to c's: the rest of a unit that another CTA began, all of one, or the
// beginning, to which the CTAs up to last add the rest.
template <class F> __device__ __forceinline__ void end_piece(const DecodeParams &p, const Cursor<F> &c, int begin, int last, Sum<F::N> &sum) {
	int head = threadIdx.x / F::OF_HEAD, dim = threadIdx.x % F::OF_HEAD * F::N;
	if (head >= p.group) return;
	if (begin > 0) return Partial<F>(p, blockIdx.x).leave(sum);
	if (c.tile + 1 < c.tiles) fold<F>(sum, p, last);
	sum.store(p.out + c.token * p.ld + (c.head * p.group + head) * F::D + dim);
}

} // namespace
