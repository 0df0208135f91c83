// Paged decode attention: one query token a sequence.
//
//   attn[t][h] = softmax(query[t][h] · K[0..len)ᵀ / √d) · V[0..len)
//
// with K and V of KV head h / group read through the row's block table; the
// group (≤ 8) query heads of a KV head share every byte.
//
// Work: a tile is 64 tokens of one (sequence, KV head) unit. The tiles of all
// units lie in one line, sequences outermost, and every CTA of a fixed grid
// takes an equal run of it, so ragged batches balance to one tile
// (attention_decode_plan finds the runs, once a step; with few units, or units of
// much the same length, runs end where units do). A unit that no run cuts is
// finished by its CTA; of one that is cut, each CTA leaves a partial state and
// the last to arrive folds them in order. The one that begins a unit ends with it, and the
// next CTA began with the rest: where that is there, it is folded into what the first has, which
// leaves nothing. Two pieces of a CTA can be partial, the first and the last: slots 2·cta and
// 2·cta + 1.
//
// Through memory that takes three trips to L2 one after the other. On Hopper, where
// units are few, they have a cluster each, whose CTAs take equal shares and send their states
// to each other's shared memory, each those of the heads that the other ends. Long contexts,
// whose shares would be too long, go by the line there, too.
//
// CTA: 4 warps that walk; warp w owns tokens 16w..16w+15 of each tile, with a ring of its
// own in shared memory (cp.async) and an online softmax of its own (Milakov and
// Gimelshein, 2018), so the warps meet only where a piece ends. The ring runs on
// across pieces. The kernels _five, which Hopper takes where units have no clusters, have a fifth
// warp: to it the others leave what ends within their run, and go on.
// Products are swapped so that no row is padding: Sᵀ [16 tokens, 8 heads] = K·Qᵀ,
// Oᵀ [d, 8 heads] += Vᵀ·Pᵀ; the transposed fragment of P comes from movmatrix.
//
// Bytes: 4·d·len a (sequence, KV head), once. FLOPs: 4·d·len a query head.
//
// Measured by what leaving it out of a step saves (BenchmarkWithout, H100 80GB HBM3, 2026-11-26,
// of 3.35 TB/s), at 1,184 tokens of context: 7B 207 µs a layer with 256 sequences, 90 %; 53 with 64,
// 87 %; 1.5B 115 and 31 µs, 80 and 75 %; 0.5B 61 and 18 µs, 76 and 64 %. In clusters 3.5 µs
// with one sequence (0.5B, 2026-11-27). Since units of one length are not cut, in a chain of its like (kernels-test
// time decode, 2026-11-27), 256 sequences: 7B 212 µs, 87 %; 1.5B 106, 87 %; 0.5B 55, 84 %. With a
// fifth warp (H200, of 4.6 TB/s): 145 µs, 93 %; 73, 92 %; 39, 86 %; of any length 91 to 92 and 81 %.
#include "attention_decode.cuh"

namespace {

constexpr int WALKERS = WARPS * 32, THREADS = WALKERS + 32; // without and with a fifth warp

// Barriers: 1 is the walkers' own. At LEFT they tell the fifth warp, which meets them there, that a
// piece's states are in shared memory; at TAKEN it tells them, who meet it before they leave the next,
// that it has read these.
constexpr int LEFT = 2, TAKEN = 3;
__device__ __forceinline__ void sync_walkers() { asm volatile("bar.sync 1, %0;" ::"n"(WALKERS) : "memory"); }
template <int Barrier> __device__ __forceinline__ void meet() { asm volatile("bar.sync %0, %1;" ::"n"(Barrier), "n"(THREADS) : "memory"); }
template <int Barrier> __device__ __forceinline__ void tell() { asm volatile("bar.arrive %0, %1;" ::"n"(Barrier), "n"(THREADS) : "memory"); }

// merge is the sum of the states that the warps left, so many bytes apart.
template <int D> __device__ __forceinline__ Sum<D> merge(const DecodeParams &p, const char *states, int apart, int head, int dim) {
	constexpr int N = Sum<D>::N;
	Sum<D> sum;
	if (head < p.group) {
#pragma unroll
		for (int w = 0; w < WARPS; w++) {
			const Shared<D> *from = reinterpret_cast<const Shared<D> *>(states + w * apart);
			float o[N];
			for (int i = 0; i < N; i++) o[i] = from->o[head][dim + i];
			sum.add(from->max[head], from->sum[head], o);
		}
	}
	return sum;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// end_in_cluster sends the CTA's state to those of the cluster's `active` CTAs that end its heads,
// and ends those that are its own.
template <int D>
__device__ __forceinline__ void end_in_cluster(const DecodeParams &p, const Cursor &c, int active, Exchange<D> &exchange, const Sum<D> &sum) {
	constexpr int N = Sum<D>::N;
	int rank = cluster_rank(), head = threadIdx.x / 16, dim = threadIdx.x % 16 * N, each = (p.group + active - 1) / active;
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
	Sum<D> all;
	for (int from = 0; from < active; from++) {
		const float *state = exchange.states[from * each + head / active];
		float o[N];
#pragma unroll
		for (int i = 0; i < N; i += 4) {
			float4 v = *reinterpret_cast<const float4 *>(state + dim + i);
			o[i] = v.x, o[i + 1] = v.y, o[i + 2] = v.z, o[i + 3] = v.w;
		}
		all.add(state[D], state[D + 1], o);
	}
	all.store(p.out + c.token * p.ld + (c.head * p.group + head) * D + dim);
}

#endif

// Piece is tiles [begin, end) of c's unit, of which header says how the line is cut.
struct Piece {
	const Cursor &c;
	int begin, end, first, last; // CTAs that have pieces of the unit

	__device__ __forceinline__ Piece(const Cursor &c, int begin, int2 header) : c(c), begin(begin), end(c.tile + 1) {
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
template <int D> __device__ __forceinline__ void leave_partial(const DecodeParams &p, const Piece &piece, int head, int dim, const Sum<D> &sum) {
	int slot = (2 * blockIdx.x + (piece.begin == 0)) * HEADS + head;
	float *to = p.partials + (int64_t)slot * D + dim;
#pragma unroll
	for (int i = 0; i < Sum<D>::N; i += 4) *reinterpret_cast<float4 *>(to + i) = make_float4(sum.o[i], sum.o[i + 1], sum.o[i + 2], sum.o[i + 3]);
	if (dim == 0) reinterpret_cast<float2 *>(p.partials + (int64_t)2 * p.grid * HEADS * D)[slot] = make_float2(sum.max, sum.sum);
}

// arrive counts a partial state, of one thread when all have left theirs, and says whether it was
// the last.
__device__ __forceinline__ bool arrive(const DecodeParams &p, const Piece &piece) {
	int *counter = piece.counter(p);
	bool last = atomicAdd(counter, 1) == piece.last - piece.first;
	if (last) *counter = 0;
	return last;
}

// end_piece ends a piece by all who walk; alone is Piece's, of one thread before the states
// were merged.
template <int D> __device__ __forceinline__ void end_piece(const DecodeParams &p, const Piece &piece, bool alone, Sum<D> &sum) {
	__shared__ bool last;
	int head = threadIdx.x / 16, dim = threadIdx.x % 16 * Sum<D>::N, from = piece.first;
	bool mine = head < p.group;
	if (!piece.whole()) {
		if (alone) {
			if (threadIdx.x == 0) *piece.counter(p) = 0;
			from++;
		} else {
			if (mine) leave_partial<D>(p, piece, head, dim, sum);
			__threadfence();
			sync_walkers();
			if (threadIdx.x == 0) last = arrive(p, piece);
			sync_walkers();
			if (!last) return;
			__threadfence();
			sum = Sum<D>();
		}
		if (mine) fold<D, 8>(sum, p, from, piece.last, piece.first, head, dim);
	}
	if (mine) sum.store(piece.out<D>(p, head, dim));
}

// end_pieces is for the fifth warp: it ends what the others walk, but for the last piece, while
// they go on. They could not: a fence waits for all that a warp has asked for, its ring.
template <int D> __device__ __forceinline__ void end_pieces(const DecodeParams &p, Cursor c, int count, int2 header, const char *states) {
	int lane = threadIdx.x % 32;
	for (int rest = count;;) {
		int begin = c.tile, tiles = c.tiles - c.tile;
		if (tiles >= rest) return;
		rest -= tiles;
		c.tile = c.tiles - 1;
		Piece piece(c, begin, header);
		meet<LEFT>();
#pragma unroll 1
		for (int head = lane / 16, dim = lane % 16 * Sum<D>::N; head < p.group; head += 2) {
			Sum<D> sum = merge<D>(p, states, sizeof(Shared<D>), head, dim);
			if (piece.whole()) sum.store(piece.out<D>(p, head, dim));
			else leave_partial<D>(p, piece, head, dim, sum);
		}
		__syncwarp();
		tell<TAKEN>();
		if (!piece.whole()) {
			__threadfence();
			__syncwarp();
			bool last = lane == 0 && arrive(p, piece);
			if (__shfl_sync(~0u, last, 0)) {
				__syncwarp();
				__threadfence();
#pragma unroll 1
				for (int head = lane / 16, dim = lane % 16 * Sum<D>::N; head < p.group; head += 2) {
					Sum<D> sum;
					fold<D, 2>(sum, p, piece.first, piece.last, piece.first, head, dim);
					sum.store(piece.out<D>(p, head, dim));
				}
			}
		}
		c.next(p.plan, p.kv_heads);
	}
}

template <int D, int STAGES, bool FIFTH> __device__ __forceinline__ void attend(const DecodeParams &p) {
	constexpr int STAGE = 2 * STEP * D * 2, RING = STAGES * STAGE;
	static_assert(sizeof(Shared<D>) <= STAGE, "a stage holds a state");
	extern __shared__ __align__(128) char memory[];
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
	uint32_t ring = shared_address(memory) + warp * RING;

	int4 start = p.plan.starts[2 * blockIdx.x], of = p.plan.starts[2 * blockIdx.x + 1];
	int2 header = *reinterpret_cast<const int2 *>(p.plan.header);
	int count = start.w, active = 0; // CTAs of the cluster that has the unit, if one has
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
	Exchange<D> &exchange = *reinterpret_cast<Exchange<D> *>(memory + WARPS * RING);
	if (!FIFTH) active = -of.y;
	if (active > 0) {
		if (threadIdx.x == 0 && count > 0) exchange.expect(cluster_rank(), p.group, active);
		cluster_arrive_relaxed();
	}
#endif
	if (count == 0) {
		grid_wait();
		grid_trigger();
		return;
	}
	Cursor ahead{start.x, start.y, start.z}, c;
	ahead.set(of);
	c = ahead;
	// States have memory of their own where there is room, so that the ring is full while a piece
	// ends; in a cluster, where a CTA ends once, that memory is the exchange's.
	bool apart = FIFTH || (p.states > 0 && active <= 0);
	if (FIFTH && warp == WARPS) return end_pieces<D>(p, c, count, header, memory + p.states);
	auto position = [&](const Cursor &at) { return at.tile * TILE + warp * STEP; };
	auto block_of = [&] { // the id is fetched a step before it is needed
		int at = position(ahead);
		return at < ahead.length ? __ldg(p.tables + ahead.table + (at >> p.kv.block_shift)) : 0;
	};
	int32_t block = block_of();
	auto issue_next = [&](int i) {
		issue<D>(p, ahead, block, position(ahead), ring + i % STAGES * STAGE, lane);
		if (i + 1 < count) {
			ahead.next(p.plan, p.kv_heads);
			block = block_of();
		}
	};
	for (int i = 0; i < STAGES; i++) {
		if (i < count) {
			// What this step writes of it is the last token's key and value; the plan is
			// complete before the layers begin, or this kernel begins behind it (see common.cuh).
			if (position(ahead) + STEP >= ahead.length) grid_wait();
			issue_next(i);
		}
		copy_commit();
	}
	grid_wait();
	grid_trigger();

	auto refill = [&](int i) {
		__syncwarp();
		if (i + STAGES < count) issue_next(i + STAGES);
		copy_commit();
	};
	State<D> state;
	int begin = c.tile;
	state.reset(p, c, lane);
	// give leaves the warps' states where a piece ends, and finish makes of them what becomes of it.
	int between = apart ? (int)sizeof(Shared<D>) : RING;
	auto states = [&](int i) { return memory + (apart ? p.states : i % STAGES * STAGE); };
	auto give = [&](int i) {
		if (FIFTH) {
			if (i > c.tile) meet<TAKEN>(); // not the first piece, in which i = c.tile − start.z
		} else if (apart) sync_walkers(); // those of the last end are read
		leave<D>(state, reinterpret_cast<Shared<D> *>(states(i) + warp * between), lane);
	};
	auto finish = [&](int i, bool last) {
		__shared__ bool alone;
		bool opens = last && active <= 0 && begin == 0 && c.tile + 1 < c.tiles; // a unit that the next CTA goes on with
		if (opens && threadIdx.x == 0) alone = Piece(c, begin, header).alone(p);
		give(i);
		sync_walkers();
		Sum<D> sum = merge<D>(p, states(i), between, threadIdx.x / 16, threadIdx.x % 16 * Sum<D>::N);
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
		if (active > 0) return end_in_cluster<D>(p, c, active, exchange, sum);
#endif
		end_piece<D>(p, Piece(c, begin, header), opens && alone, sum);
	};
	for (int i = 0;; i++) {
		int seen = c.length - position(c);
		copy_wait<STAGES - 1>();
		__syncwarp();
		if (seen > 0) step<D>(state, ring + i % STAGES * STAGE, seen, p.scale, lane);
		bool last = i + 1 == count, ends = c.tile + 1 == c.tiles;
		if (FIFTH && last) return finish(i, true);
		if (apart && !last) refill(i);
		if (FIFTH && ends) {
			give(i);
			tell<LEFT>();
		}
		if (!FIFTH && (ends || last)) {
			finish(i, last);
			if (last) return;
			if (!apart) sync_walkers(); // the stage may be filled again
		}
		if (!apart) refill(i);
		c.next(p.plan, p.kv_heads);
		if (ends) {
			begin = c.tile;
			state.reset(p, c, lane);
		}
	}
}

} // namespace

PG_KERNEL void __launch_bounds__(WALKERS, 2) attention_decode_64(const __grid_constant__ DecodeParams p) { attend<64, 6, false>(p); }
PG_KERNEL void __launch_bounds__(WALKERS, 2) attention_decode_128(const __grid_constant__ DecodeParams p) { attend<128, 3, false>(p); }
PG_KERNEL void __launch_bounds__(THREADS, 2) attention_decode_64_five(const __grid_constant__ DecodeParams p) { attend<64, 6, true>(p); }
PG_KERNEL void __launch_bounds__(THREADS, 2) attention_decode_128_five(const __grid_constant__ DecodeParams p) { attend<128, 3, true>(p); }

// sum_of is the sum over a CTA of 1,024 threads.
static __device__ __forceinline__ int sum_of(int x, int32_t *warp_total) {
	for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(~0u, x, d);
	__syncthreads();
	if (threadIdx.x % 32 == 0) warp_total[threadIdx.x / 32] = x;
	__syncthreads();
	int all = 0;
	for (int w = 0; w < 32; w++) all += warp_total[w];
	return all;
}

// start_in_cluster gives a CTA its share of its cluster's unit, if n sequences have so many.
static __device__ __forceinline__ void start_in_cluster(const DecodePlanParams &p, int cta, int n) {
	int unit = cta / p.cluster, s = unit / p.kv_heads;
	int4 start = {}, of = {};
	if (s < n) {
		of = p.plan.seqs[s];
		int tiles = (of.x + TILE - 1) / TILE, share = (tiles + p.cluster - 1) / p.cluster, from = cta % p.cluster * share;
		start = make_int4(s, unit % p.kv_heads, from, max(0, min(share, tiles - from)));
		of.y = tiles > 0 ? -((tiles + share - 1) / share) : 0;
	}
	p.plan.starts[2 * cta] = start;
	p.plan.starts[2 * cta + 1] = of;
}

// attention_decode_plan: one CTA of 1,024 threads. It chooses the length of a run,
// sums up the tiles before each sequence, and finds each CTA's start by bisection.
//
// A run has at least √(tiles of the longest unit / 5) tiles: a tile more costs a CTA
// about 0.5 µs, a piece more costs who folds them 0.1 µs. Where every unit can have
// CTAs of its own, units are padded to whole runs in the line, for a CTA that ends
// two pieces is the last to finish (an H100, 2026-11-26 and 27, before the fifth warp). Where as many units for each CTA are no more than a
// sixteenth longer than equal runs, units are padded to the longest, and none is cut: 2 to
// 5 % less than equal runs take (256 sequences of one length, H100).
PG_KERNEL void __launch_bounds__(1024) attention_decode_plan(const __grid_constant__ DecodePlanParams p) {
	extern __shared__ int32_t first[]; // [decodes + 1]
	__shared__ int32_t warp_total[32], carry, longest;
	grid_wait();
	grid_trigger();
	int t = threadIdx.x, lane = t % 32, warp = t / 32, n = p.batch.header[H_DECODES];
	auto tiles_of = [&](int s) { return s < n ? (p.batch.seq_lens[s] + TILE - 1) / TILE : 0; };
	if (t == 0) carry = longest = 0;
	__syncthreads();
	int mine = 0, some = 0;
	for (int s = t; s < n; s += 1024) {
		int tiles = tiles_of(s);
		mine += tiles, some += tiles > 0;
		if (tiles > longest) atomicMax(&longest, tiles);
	}
	int total = sum_of(mine, warp_total) * p.kv_heads, units = sum_of(some, warp_total) * p.kv_heads;
	int per = max(max(1, (int)ceilf(sqrtf(longest * 0.2f))), (total + p.grid - 1) / p.grid), pad = 1;
	for (int longer = per, most = per + 2; units <= p.grid && longer <= most; longer++) {
		int ctas = 0;
		for (int s = t; s < n; s += 1024) ctas += (tiles_of(s) + longer - 1) / longer;
		if (sum_of(ctas, warp_total) * p.kv_heads > p.grid) continue;
		per = pad = longer;
		break;
	}
	int rounds = (units + p.grid - 1) / p.grid; // units of a CTA, if none is cut
	bool whole = rounds > 1 && (int64_t)rounds * longest * p.grid <= total * 17LL / 16;
	if (whole) per = rounds * longest, pad = longest;
	__syncthreads(); // warp_total is read
	// A cluster's states do not go through memory, which is worth a few tiles of 0.5 µs.
	bool clustered = p.cluster > 1 && n * p.kv_heads * p.cluster <= p.grid && (longest + p.cluster - 1) / p.cluster <= per + per / 4 + 2;

	for (int base = 0; base < n; base += 1024) {
		int s = base + t, tiles = (tiles_of(s) + pad - 1) / pad * pad * p.kv_heads, sum = tiles;
		for (int d = 1; d < 32; d *= 2) {
			int below = __shfl_up_sync(~0u, sum, d);
			if (lane >= d) sum += below;
		}
		if (lane == 31) warp_total[warp] = sum;
		__syncthreads();
		int before = carry;
		for (int w = 0; w < warp; w++) before += warp_total[w];
		__syncthreads();
		if (t == 1023) carry = before + sum;
		if (s < n) {
			first[s] = before + sum - tiles;
			p.plan.seqs[s] = make_int4(p.batch.seq_lens[s], first[s], (int)(p.batch.rows[s] * p.batch.table_stride), p.batch.query_start[s]);
		}
		__syncthreads();
	}
	total = carry;
	auto tiles_of_units = [&](int s, int head) { // of a CTA whose first unit this is
		int sum = 0;
		for (int i = 0; i < rounds && s < n; i++) {
			sum += tiles_of(s);
			if (++head < p.kv_heads) continue;
			for (head = 0, s++; s < n && tiles_of(s) == 0;) s++;
		}
		return sum;
	};
	if (t == 0) p.plan.header[0] = per, p.plan.header[1] = pad;
	for (int cta = t; cta < p.grid; cta += 1024) {
		if (clustered) {
			start_in_cluster(p, cta, n);
			continue;
		}
		int at = cta * per, low = 0, high = n; // the last sequence that starts at or before the tile
		int4 start = make_int4(0, 0, 0, 0);
		if (at < total) {
			while (high - low > 1) {
				int middle = (low + high) / 2;
				if (first[middle] <= at) low = middle;
				else high = middle;
			}
			int tiles = tiles_of(low), padded = (tiles + pad - 1) / pad * pad, rest = at - first[low];
			start = make_int4(low, rest / padded, rest % padded, 0);
			if (whole) start.w = tiles_of_units(start.x, start.y);
			else start.w = pad > 1 ? min(per, tiles - start.z) : min(per, total - at);
		}
		p.plan.starts[2 * cta] = start;
		p.plan.starts[2 * cta + 1] = start.w > 0 ? p.plan.seqs[start.x] : make_int4(0, 0, 0, 0);
	}
}
