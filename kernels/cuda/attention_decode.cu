// Paged decode attention: one query token a sequence.
//
//   attn[t][h] = softmax(query[t][h] · K[0..len)ᵀ / √d) · V[0..len)
//
// with K and V of KV head h / group read through the row's block table; the
// group (≤ 8) query heads of a KV head share every byte.
//
// Work: a tile is 64 to 192 tokens of one (sequence, KV head) unit, a step of each warp. The tiles of all
// units lie in one line, sequences outermost, and every CTA of a fixed grid
// takes an equal run of it, so ragged batches balance to one tile
// (attention_decode_plan finds the runs, once a step; with few units, or units of
// much the same length, runs end where units do). A unit that no run cuts is
// finished by its CTA. Of one that is cut, the CTA that begins it, whose run ends inside it, waits for what the
// others have of it, in order: each began with that, left its state, and went on. Words say themselves that
// they are there (attention_decode.cuh, Partial), for a fence would wait for the ring's reads.
//
// Through memory that takes two trips to L2 one after the other. On Hopper, where
// units are few, they have a cluster each, whose CTAs take equal shares and send their states
// to each other's shared memory, each those of the heads that the other ends. Long contexts,
// whose shares would be too long, go by the line there, too.
//
// CTA: warps, each of which owns 16 or 32 tokens of each tile, with a ring of its own
// in shared memory (cp.async) and an online softmax of its own (Milakov and
// Gimelshein, 2018), so the warps meet only where a piece ends. The ring runs on
// across pieces. What few sequences wait for is a warp's steps, one after the other, 0.5 µs
// each, and then the warps' states on their way through shared memory, 0.04 µs each: so steps are wide, and
// warps few (performance.md, "Wide steps").
// Products are swapped so that no row is padding: Sᵀ [16 tokens, 8 heads] = K·Qᵀ,
// Oᵀ [d, 8 heads] += Vᵀ·Pᵀ; the transposed fragment of P comes from movmatrix.
//
// Bytes: 4·d·len a (sequence, KV head), once. FLOPs: 4·d·len a query head.
//
// Measured in a chain of its like (kernels-test time decode, H100 80GB HBM3, of 3.35 TB/s, 2026-11-27), at 1,184
// tokens of context: 256 sequences of the 7B 209 µs, 89 %; 1.5B 104, 89 %; 0.5B 52.6, 88 %; of any length
// 219, 109 and 57, 85, 85 and 81 %. In clusters with one sequence 3.2, 3.0 and 2.5 µs. H200, of 4.6 TB/s, 2026-11-29: 148, 73.3 and
// 37.4 µs, 91, 92 and 90 %; of any length 153, 77.5 and 40.6, 89, 87 and 83 %.
#include "attention_decode_ends.cuh"

namespace {

template <class F, bool CLUSTERS> __device__ __forceinline__ void attend(const DecodeParams &p) {
	constexpr int D = F::D, STAGES = F::STAGES;
	static_assert(sizeof(Shared<D>) <= F::STAGE, "a stage holds a state");
	extern __shared__ __align__(128) char memory[];
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
	uint32_t ring = shared_address(memory) + warp * F::RING;

	int4 start = p.plan.starts[2 * blockIdx.x], of = p.plan.starts[2 * blockIdx.x + 1];
	int count = start.w;
	[[maybe_unused]] int active = 0; // CTAs of the cluster that has the unit, if one has
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
	Exchange<D> &exchange = *reinterpret_cast<Exchange<D> *>(memory + F::RINGS);
	if (CLUSTERS) active = -of.y;
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
	Cursor<F> ahead{start.x, start.y, start.z}, c;
	ahead.set(of);
	c = ahead;
	auto position = [&](const Cursor<F> &cursor) { return cursor.tile * F::TILE + warp * F::STEP; };
	Blocks<F> blocks; // fetched a step before they are needed
	blocks.fetch(p, ahead, position(ahead));
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
	ClusterEnd<F> cluster;
	if (active > 0) {
		cluster.set(p, c, active, exchange);
		cluster_wait(); // all have their barriers
	}
#endif
	Lane<F> at(lane);
	auto next = [&](int i) {
		if (i + 1 == count) return;
		ahead.next(p.plan, p.kv_heads);
		blocks.fetch(p, ahead, position(ahead));
	};
	State<D> state;
	state.reset();
	const half *query = State<D>::query(p, c, lane);
	// What this step writes of what is copied is the last token's key and value; the plan is older, or this
	// kernel begins behind it (see common.cuh). Queries, which are waited for first, go before those.
	bool waits = true;
#pragma unroll 1
	for (int i = 0; i < STAGES; i++) {
		if (i < count) {
			Copies<F> copies(p, ahead, blocks, position(ahead), lane);
			if (waits && copies.rest <= F::STEP) {
				grid_wait(query, copies.known());
				state.read(query);
				waits = false;
			}
			copies.start(p, at, ring + i * F::STAGE);
			next(i);
		}
		copy_commit();
	}
	if (waits) {
		grid_wait(query);
		state.read(query);
	}
	grid_trigger();

	int begin = c.tile;
	// finish ends a piece: the warps leave their states in the stage that they have read, and what
	// all of them have is the unit's, a cluster's, or what others go on with.
	auto finish = [&](int i) {
		const char *states = memory + i % STAGES * F::STAGE;
		leave<D>(state, reinterpret_cast<Shared<D> *>(memory + warp * F::RING + i % STAGES * F::STAGE), lane);
		__syncthreads();
		Sum<F::N> sum = merge<F>(p, states, threadIdx.x / F::OF_HEAD, threadIdx.x % F::OF_HEAD * F::N);
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
		if (active > 0) return cluster.end(active, exchange, sum);
#endif
		end_piece<F>(p, c, begin, of.y, sum);
	};
	for (int i = 0;; i++) {
		int seen = c.length - position(c);
		copy_wait<STAGES - 1>();
		__syncwarp();
		if (seen > 0) step<F>(state, at, ring + i % STAGES * F::STAGE, c.tile == begin, seen, p.scale, lane);
		bool last = i + 1 == count, ends = c.tile + 1 == c.tiles;
		if (last || ends) {
			finish(i);
			if (last) return;
			__syncthreads(); // the stage may be filled again
		}
		__syncwarp();
		if (i + STAGES < count) {
			Copies<F>(p, ahead, blocks, position(ahead), lane).start(p, at, ring + i % STAGES * F::STAGE);
			next(i + STAGES);
		}
		copy_commit();
		c.next(p.plan, p.kv_heads);
		if (ends) {
			begin = c.tile;
			state.reset();
			state.read(State<D>::query(p, c, lane));
		}
	}
}

} // namespace

using Form64 = Form<64, 6, 32, 2>;
using Form128 = Form<128, 4, 16, 3>;
using Form128Wide = Form<128, 5, 32, 2>;
static_assert(FOLDED == 8 && Partial<Form64>::WORDS == 128 * 6 && Partial<Form128>::WORDS == 128 * 10 && Partial<Form128Wide>::WORDS == 128 * 10, "geometry.go: layoutDecodeScratch");
static_assert(Form64::THREADS == 192 && Form64::TILE == 192 && Form64::RINGS == 96 << 10, "attention_decode.go: decode64");
static_assert(Form128::THREADS == 128 && Form128::TILE == 64 && Form128::RINGS == 96 << 10, "attention_decode.go: decode128");
static_assert(Form128Wide::THREADS == 160 && Form128Wide::TILE == 160 && Form128Wide::RINGS == 160 << 10, "attention_decode.go: decode128Wide");

// Kernels for units that may have a cluster each, and for those that cannot.
#define KERNEL(NAME, FORM, CTAS) \
	PG_KERNEL void __launch_bounds__(FORM::THREADS, CTAS) attention_decode_##NAME(const __grid_constant__ DecodeParams p) { attend<FORM, false>(p); } \
	PG_KERNEL void __launch_bounds__(FORM::THREADS, CTAS) attention_decode_##NAME##_clusters(const __grid_constant__ DecodeParams p) { attend<FORM, true>(p); }

KERNEL(64, Form64, 2)
KERNEL(128, Form128, 2)
KERNEL(128_wide, Form128Wide, 1)

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
		int tiles = (of.x + p.tile - 1) / p.tile, share = (tiles + p.cluster - 1) / p.cluster, from = cta % p.cluster * share;
		start = make_int4(s, unit % p.kv_heads, from, max(0, min(share, tiles - from)));
		of.y = tiles > 0 ? -((tiles + share - 1) / share) : 0;
	}
	p.plan.starts[2 * cta] = start;
	p.plan.starts[2 * cta + 1] = of;
}

// attention_decode_plan: one CTA of 1,024 threads, launched behind the first layer's QKV. It works while
// that runs, for what it reads is older, and attention begins behind its end. It chooses the length of a
// run, sums up the tiles before each sequence, and finds each CTA's start by bisection.
//
// A run has at least √(tiles of the longest unit / 5) tiles: a tile more costs a CTA
// about 0.5 µs, a piece more costs who folds them 0.1 µs. Where every unit can have
// CTAs of its own, units are padded to whole runs in the line, for a CTA that ends
// two pieces is the last to finish. Where as many units for each CTA are no more than a
// sixteenth longer than equal runs, units are padded to the longest, and none is cut: 2 to
// 5 % less than equal runs take (256 sequences of one length). All of it measured on
// an H100, 2026-11-26 and 27, with tiles of 64 tokens. Where units differ, runs are
// equal to within a tile (`even`). Equal units get runs rounded up to tiles, though some CTAs then have none: those cut
// units at fewer places (1 % of a step of the 1.5B with 96 and 160 sequences, H200). Runs of the least length stay as they
// are; INT_MAX / grid keeps start_of within 32 bits.
PG_KERNEL void __launch_bounds__(1024) attention_decode_plan(const __grid_constant__ DecodePlanParams p) {
	extern __shared__ int32_t first[]; // [decodes + 1]
	__shared__ int32_t warp_total[32], carry, longest;
	int t = threadIdx.x, lane = t % 32, warp = t / 32, n = p.batch.header[H_DECODES];
	auto tiles_of = [&](int s) { return s < n ? (p.batch.seq_lens[s] + p.tile - 1) / p.tile : 0; };
	if (t == 0) carry = longest = 0;
	__syncthreads();
	int mine = 0, some = 0;
	for (int s = t; s < n; s += 1024) {
		int tiles = tiles_of(s);
		mine += tiles, some += tiles > 0;
		if (tiles > longest) atomicMax(&longest, tiles);
	}
	int total = sum_of(mine, warp_total) * p.kv_heads, units = sum_of(some, warp_total) * p.kv_heads;
	int least = max(1, (int)ceilf(sqrtf(longest * 0.2f))), per = max(least, (total + p.grid - 1) / p.grid), pad = 1;
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
	bool even = pad == 1 && per > least && total < min(longest * units, INT_MAX / p.grid); // runs are equal but for a tile
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
			p.plan.seqs[s] = make_int4(p.batch.seq_lens[s], 0, (int)(p.batch.rows[s] * p.batch.table_stride), p.batch.query_start[s]);
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
	auto start_of = [&](int cta) { return even ? cta * total / p.grid : cta * per; };
	auto cta_of = [&](int at) { return even ? ((at + 1) * p.grid - 1) / total : at / per; };
	auto padded_of = [&](int s) { return (tiles_of(s) + pad - 1) / pad * pad; };
	auto sequence_of = [&](int at) { // the last that starts at or before the tile
		int low = 0;
		for (int high = n; high - low > 1;) {
			int middle = (low + high) / 2;
			if (first[middle] <= at) low = middle;
			else high = middle;
		}
		return low;
	};
	for (int cta = t; cta < p.grid; cta += 1024) {
		if (clustered) {
			start_in_cluster(p, cta, n);
			continue;
		}
		int at = start_of(cta);
		int4 start = make_int4(0, 0, 0, 0), of = start;
		if (at < total) {
			int s = sequence_of(at), rest = at - first[s], padded = padded_of(s);
			start = make_int4(s, rest / padded, rest % padded, 0);
			of = p.plan.seqs[s];
			if (whole) start.w = tiles_of_units(s, start.y);
			else {
				start.w = pad > 1 ? min(per, tiles_of(s) - start.z) : min(start_of(cta + 1), total) - at;
				int end = at + start.w - 1, in = sequence_of(end); // the last tile, and its sequence
				of.y = cta_of(end - (end - first[in]) % padded_of(in) + tiles_of(in) - 1);
			}
		}
		p.plan.starts[2 * cta] = start;
		p.plan.starts[2 * cta + 1] = of;
	}
	grid_wait(); // what waits for this waits for all before it
}
