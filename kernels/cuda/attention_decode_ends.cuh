// How a piece of decode attention ends: the walkers' states become one, which is the unit's output,
// goes to the CTAs of a cluster, or to memory, where those of a cut unit meet.
#pragma once

#include "attention_decode.cuh"

namespace {

// Of the threads that walk so many share a head where its states become one.
template <int WARPS> constexpr int OF_HEAD = WARPS < 8 ? 16 : 32;

// Barriers: 1 is the walkers' own. At LEFT four of them and the fifth warp meet when a piece's states are in
// shared memory; at TAKEN, before they leave the next, when it is done with these. By bar.sync, for what
// bar.arrive orders racecheck does not see, and at one place in the code, for synccheck takes a barrier
// of all warps at two for a divergence.
constexpr int LEFT = 2, TAKEN = 3;
template <int WARPS> __device__ __forceinline__ void sync_walkers() { asm volatile("bar.sync 1, %0;" ::"n"(WARPS * 32) : "memory"); }
template <int Barrier> __device__ __noinline__ void meet() { asm volatile("bar.sync %0, %1;" ::"n"(Barrier), "n"(5 * 32) : "memory"); }

// merge is the sum of the states that the warps left, so many bytes apart: all of them at once,
// by the greatest of their maxima.
template <int D, int WARPS, int N> __device__ __forceinline__ Sum<N> merge(const DecodeParams &p, const char *states, int apart, int head, int dim) {
	Sum<N> sum;
	if (head >= p.group) return sum;
	auto of = [&](int w) { return reinterpret_cast<const Shared<D> *>(states + w * apart); };
#pragma unroll
	for (int w = 0; w < WARPS; w++) sum.max = fmaxf(sum.max, of(w)->max[head]);
#pragma unroll
	for (int w = 0; w < WARPS; w++) {
		float weight = exp2_fast(of(w)->max[head] - sum.max), o[N];
		read_floats<false>(o, of(w)->o[head] + dim);
		sum.sum += of(w)->sum[head] * weight;
#pragma unroll
		for (int i = 0; i < N; i++) sum.o[i] += o[i] * weight;
	}
	return sum;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// end_in_cluster sends the CTA's state to those of the cluster's `active` CTAs that end its heads,
// and ends those that are its own.
template <int D, int WARPS, int N>
__device__ __forceinline__ void end_in_cluster(const DecodeParams &p, const Cursor<WARPS> &c, int active, Exchange<D> &exchange, const Sum<N> &sum) {
	constexpr int OF = OF_HEAD<WARPS>;
	int rank = cluster_rank(), head = threadIdx.x / OF, dim = threadIdx.x % OF * N, each = (p.group + active - 1) / active;
	uint32_t received = shared_address(&exchange.received);
	cluster_wait(); // all have their barriers
	if (head < p.group) {
		int to = head % active;
		uint32_t at = remote(shared_address(exchange.states[rank * each + head / active]), to), barrier = remote(received, to);
		if constexpr (N == 2) send(at + dim * 4, sum.o[0], sum.o[1], barrier);
		else {
#pragma unroll
			for (int i = 0; i < N; i += 4) send(at + (dim + i) * 4, make_float4(sum.o[i], sum.o[i + 1], sum.o[i + 2], sum.o[i + 3]), barrier);
		}
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
template <int WARPS> struct Piece {
	const Cursor<WARPS> &c;
	int begin, end, first, last; // CTAs that have pieces of the unit

	__device__ __forceinline__ Piece(const Cursor<WARPS> &c, int begin, int2 header) : c(c), begin(begin), end(c.tile + 1) {
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
	template <int D> __device__ __forceinline__ half *out(const DecodeParams &p, int head, int dim) const {
		return p.out + c.token * p.ld + (c.head * p.group + head) * D + dim;
	}
};

// leave_partial writes a partial state to memory.
template <int D, int WARPS, int N> __device__ __forceinline__ void leave_partial(const DecodeParams &p, const Piece<WARPS> &piece, int head, int dim, const Sum<N> &sum) {
	int slot = (2 * blockIdx.x + (piece.begin == 0)) * HEADS + head;
	float *to = p.partials + (int64_t)slot * D + dim;
	if constexpr (N == 2) *reinterpret_cast<float2 *>(to) = make_float2(sum.o[0], sum.o[1]);
	else {
#pragma unroll
		for (int i = 0; i < N; i += 4) *reinterpret_cast<float4 *>(to + i) = make_float4(sum.o[i], sum.o[i + 1], sum.o[i + 2], sum.o[i + 3]);
	}
	if (dim == 0) reinterpret_cast<float2 *>(p.partials + (int64_t)2 * p.grid * HEADS * D)[slot] = make_float2(sum.max, sum.sum);
}

// arrive counts a partial state, of one thread when all have left theirs, and says whether it was
// the last.
template <int WARPS> __device__ __forceinline__ bool arrive(const DecodeParams &p, const Piece<WARPS> &piece) {
	int *counter = piece.counter(p);
	bool last = atomicAdd(counter, 1) == piece.last - piece.first;
	if (last) *counter = 0;
	return last;
}

// end_piece ends a piece by all who walk; alone is Piece's, of one thread before the states
// were merged.
template <int D, int WARPS, int N> __device__ __forceinline__ void end_piece(const DecodeParams &p, const Piece<WARPS> &piece, bool alone, Sum<N> &sum) {
	__shared__ bool last;
	constexpr int OF = OF_HEAD<WARPS>;
	int head = threadIdx.x / OF, dim = threadIdx.x % OF * N, from = piece.first;
	bool mine = head < p.group;
	if (!piece.whole()) {
		if (alone) {
			if (threadIdx.x == 0) *piece.counter(p) = 0;
			from++;
		} else {
			if (mine) leave_partial<D>(p, piece, head, dim, sum);
			__threadfence();
			sync_walkers<WARPS>();
			if (threadIdx.x == 0) last = arrive(p, piece);
			sync_walkers<WARPS>();
			if (!last) return;
			__threadfence();
			sum = Sum<N>();
		}
		if (mine) fold<D, 8>(sum, p, from, piece.last, piece.first, head, dim);
	}
	if (mine) sum.store(piece.template out<D>(p, head, dim));
}

// end_pieces is for the fifth warp: it ends what the others walk, but for the last piece, while
// they go on. They could not: a fence waits for all that a warp has asked for, its ring.
template <int D> __device__ __forceinline__ void end_pieces(const DecodeParams &p, Cursor<4> c, int count, int2 header, const char *states) {
	constexpr int N = D / 16;
	int lane = threadIdx.x % 32;
	for (int rest = count;;) {
		int begin = c.tile, tiles = c.tiles - c.tile;
		if (tiles >= rest) return;
		rest -= tiles;
		c.tile = c.tiles - 1;
		Piece piece(c, begin, header);
		meet<LEFT>();
#pragma unroll 1
		for (int head = lane / 16, dim = lane % 16 * N; head < p.group; head += 2) {
			Sum<N> sum = merge<D, 4, N>(p, states, sizeof(Shared<D>), head, dim);
			if (piece.whole()) sum.store(piece.template out<D>(p, head, dim));
			else leave_partial<D>(p, piece, head, dim, sum);
		}
		if (!piece.whole()) {
			__threadfence();
			__syncwarp();
			bool last = lane == 0 && arrive(p, piece);
			if (__shfl_sync(~0u, last, 0)) {
				__syncwarp();
				__threadfence();
#pragma unroll 1
				for (int head = lane / 16, dim = lane % 16 * N; head < p.group; head += 2) {
					Sum<N> sum;
					fold<D, 2>(sum, p, piece.first, piece.last, piece.first, head, dim);
					sum.store(piece.template out<D>(p, head, dim));
				}
			}
		}
		meet<TAKEN>();
		c.next(p.plan, p.kv_heads);
	}
}

} // namespace
