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
		read_floats<false>(o, of(w)->o[head] + dim);
		sum.sum += of(w)->sum[head] * weight;
#pragma unroll
		for (int i = 0; i < F::N; i++) sum.o[i] += o[i] * weight;
	}
	return sum;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// end_in_cluster sends the CTA's state to those of the cluster's `active` CTAs that end its heads,
// and ends those that are its own.
template <class F>
__device__ __forceinline__ void end_in_cluster(const DecodeParams &p, const Cursor<F> &c, int active, Exchange<F::D> &exchange, const Sum<F::N> &sum) {
	constexpr int D = F::D, N = F::N, OF = F::OF_HEAD;
	int rank = cluster_rank(), head = threadIdx.x / OF, dim = threadIdx.x % OF * N, each = (p.group + active - 1) / active;
	uint32_t received = shared_address(&exchange.received);
	cluster_wait(); // all have their barriers
	if (head < p.group) {
		int to = head % active;
		uint32_t at = remote(shared_address(exchange.states[rank * each + head / active]), to), barrier = remote(received, to);
#pragma unroll
		for (int i = 0; i < N; i += 4) send(at + (dim + i) * 4, make_float4(sum.o[i], sum.o[i + 1], sum.o[i + 2], sum.o[i + 3]), barrier);
		if (dim == 0) send(at + D * 4, sum.max, sum.sum, barrier);
	}
	head = rank + head * active; // of those that end here
	if (head >= p.group) return;
	barrier_wait(received, 0);
	Sum<N> all;
	for (int from = 0; from < active; from++) {
		const float *state = exchange.states[from * each + head / active];
		float o[N];
		read_floats<false>(o, state + dim);
		all.add(state[D], state[D + 1], o);
	}
	all.store(p.out + c.token * p.ld + (c.head * p.group + head) * D + dim);
}

#endif

// Piece is tiles [begin, end) of c's unit, of which header says how the line is cut.
template <class F> struct Piece {
	const Cursor<F> &c;
	int begin, end, first, last; // CTAs that have pieces of the unit

	__device__ __forceinline__ Piece(const Cursor<F> &c, int begin, int2 header) : c(c), begin(begin), end(c.tile + 1) {
		int per = header.x, pad = header.y, at = c.first + c.head * ((c.tiles + pad - 1) / pad * pad);
		first = at / per, last = (at + c.tiles - 1) / per;
	}
	__device__ __forceinline__ bool whole() const { return begin == 0 && end == c.tiles; }
	__device__ __forceinline__ int32_t *counter(const DecodeParams &p) const { return p.counters + c.seq * p.kv_heads + c.head; }
	// alone says of the piece that begins the unit whether all others are there.
	__device__ __forceinline__ bool alone(const DecodeParams &p) const {
		int there;
		asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(there) : "l"(counter(p)) : "memory");
		return there == last - first;
	}
	__device__ __forceinline__ half *out(const DecodeParams &p, int head, int dim) const {
		return p.out + c.token * p.ld + (c.head * p.group + head) * F::D + dim;
	}
};

// leave_partial writes a partial state to memory.
template <class F> __device__ __forceinline__ void leave_partial(const DecodeParams &p, const Piece<F> &piece, int head, int dim, const Sum<F::N> &sum) {
	constexpr int D = F::D;
	int slot = (2 * blockIdx.x + (piece.begin == 0)) * HEADS + head;
	float *to = p.partials + (int64_t)slot * D + dim;
#pragma unroll
	for (int i = 0; i < F::N; i += 4) *reinterpret_cast<float4 *>(to + i) = make_float4(sum.o[i], sum.o[i + 1], sum.o[i + 2], sum.o[i + 3]);
	if (dim == 0) reinterpret_cast<float2 *>(p.partials + (int64_t)2 * p.grid * HEADS * D)[slot] = make_float2(sum.max, sum.sum);
}

// arrive counts a partial state, of one thread when all have left theirs, and says whether it was
// the last.
template <class F> __device__ __forceinline__ bool arrive(const DecodeParams &p, const Piece<F> &piece) {
	int *counter = piece.counter(p);
	bool last = atomicAdd(counter, 1) == piece.last - piece.first;
	if (last) *counter = 0;
	return last;
}

// end_piece ends a piece; alone is Piece's, of one thread before the states
// were merged.
template <class F> __device__ __forceinline__ void end_piece(const DecodeParams &p, const Piece<F> &piece, bool alone, Sum<F::N> &sum) {
	__shared__ bool last;
	constexpr int D = F::D, N = F::N, OF = F::OF_HEAD;
	int head = threadIdx.x / OF, dim = threadIdx.x % OF * N, from = piece.first;
	bool mine = head < p.group;
	if (!piece.whole()) {
		if (alone) {
			if (threadIdx.x == 0) *piece.counter(p) = 0;
			from++;
		} else {
			if (mine) leave_partial<F>(p, piece, head, dim, sum);
			__threadfence();
			__syncthreads();
			if (threadIdx.x == 0) last = arrive(p, piece);
			__syncthreads();
			if (!last) return;
			__threadfence();
			sum = Sum<N>();
		}
		if (mine) fold<D>(sum, p, from, piece.last, piece.first, head, dim);
	}
	if (mine) sum.store(piece.out(p, head, dim));
}

} // namespace
